"""Writing a loss in a cell: registered, checked, swapped, and its errors shown by the cell's own lines."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from mint_lab.cells.loss_cell import run_cell
from mint_lab.errors import ConfigError, LossError
from mint_lab.losses import LOSSES
from mint_lab.runs.failure import describe
from tests.waiting import TIMEOUT

GOOD = """\
import torch
from mint_lab.losses.preference import sequence_scores

def my_loss(data, logprobs_list, beta=0.1):
    '''Bradley-Terry once more.'''
    chosen, rejected, _ = sequence_scores(data, logprobs_list)
    return -torch.nn.functional.logsigmoid(beta * (chosen - rejected)).mean(), {}
"""


def test_a_cell_registers_its_loss_and_says_so() -> None:
    namespace: dict[str, Any] = {}
    cell = run_cell("my_loss", GOOD, namespace)
    spec = LOSSES["my_loss"]
    assert (spec.label, spec.family, spec.summary) == ("my_loss v1", "custom", "Bradley-Terry once more.")
    assert spec.source == f"# %%loss my_loss\n{GOOD}"
    assert spec.fn is namespace["my_loss"]
    assert spec.config() == {"beta": 0.1}
    head, *lines = repr(cell).splitlines()
    assert head == "my_loss v1 registered (beta 0.1)"
    assert lines[0] == "preflight: ok"
    assert run_cell("my_loss", GOOD, namespace).spec.version == 2


HELPED = """\
def scale(x):
    return {}

def helped(data, logprobs_list):
    return -sum(scale(lp.sum()) for lp in logprobs_list), {{}}
"""


@pytest.mark.parametrize(("body", "end"), [("x.detach()", ""), ("7 * x", "1 / 0\n")])
def test_a_cell_that_fails_changes_nothing_of_the_version_before(body: str, end: str) -> None:
    namespace: dict[str, Any] = {}
    fn = run_cell("helped", HELPED.format("0.5 * x"), namespace).spec.fn
    before = dict(namespace)
    with pytest.raises((LossError, ZeroDivisionError)):
        run_cell("helped", HELPED.format(body) + end, namespace)
    assert namespace == before
    assert float(fn([], [torch.tensor([-4.0])])[0]) == 2.0
    assert run_cell("helped", HELPED.format("x"), namespace).spec.version == 2
    assert float(fn([], [torch.tensor([-4.0])])[0]) == 2.0  # a step of the older version that is under way
    assert namespace["scale"](3.0) == 3.0


def test_a_refused_cell_leaves_no_function_for_the_next() -> None:
    namespace: dict[str, Any] = {}
    first = "import torch\n\n\n\ndef first_try(data, logprobs_list):\n    return torch.tensor(0.0), {}\n"
    with pytest.raises(LossError):
        run_cell("margin_cell", first, namespace)
    second = "def second_try(data, logprobs_list):\n    return -sum(lp.sum() for lp in logprobs_list), {}\n"
    assert run_cell("margin_cell", second, namespace).spec.fn.__name__ == "second_try"


def test_a_bundled_loss_is_replaced_openly_and_can_be_had_again() -> None:
    bundled = LOSSES["hinge"]
    text = GOOD.replace("my_loss", "hinge")
    head = repr(run_cell("hinge", text, {})).splitlines()[0]
    way_back = "mint_lab.LOSSES.restore('hinge') restores that one"
    assert head == f"hinge v2 registered (beta 0.1) in place of the bundled hinge v1; {way_back}"
    assert LOSSES["hinge"].fn is not bundled.fn
    restored = LOSSES.restore("hinge")
    assert (restored.fn, restored.family, restored.version) == (bundled.fn, "preference", 3)
    assert LOSSES["hinge"] is restored


def test_the_text_is_the_same_every_time() -> None:
    first, second = (repr(run_cell("my_loss", GOOD, {})).splitlines()[1:] for _ in range(2))
    assert first == second


def test_options() -> None:
    assert run_cell("my_loss --beta 0.5", GOOD, {}).spec.config() == {"beta": 0.5}
    assert run_cell("my_loss --beta=2", GOOD, {}).spec.params[0].high == 2.0
    cell = run_cell("my_loss --no-preflight", "def my_loss(data, logprobs_list): return 0, {}", {})
    assert cell.report is None
    assert repr(cell).splitlines() == [
        "my_loss v3 registered",
        "WARNING: it was NOT checked (--no-preflight); a mistake in it shows only when it trains",
    ]
    assert "<b>WARNING: it was NOT checked" in cell._repr_html_()


def test_declared_ranges() -> None:
    text = "from typing import Annotated\nfrom mint_lab.cells import Range\n" + GOOD.replace(
        "beta=0.1", "beta: Annotated[float, Range(0, 1)] = 0.1"
    )
    for body in (text, f"from __future__ import annotations\n{text}"):
        (param,) = run_cell("my_loss", body, {}).spec.params
        assert (param.name, param.default, param.low, param.high) == ("beta", 0.1, 0.0, 1.0)


def test_which_function_is_meant() -> None:
    other = GOOD.replace("def my_loss", "def other")
    assert run_cell("x", f"{GOOD}\n{other}", {}).spec.fn.__name__ == "other"  # the last one
    assert run_cell("my_loss", f"{GOOD}\n{other}", {}).spec.fn.__name__ == "my_loss"  # the one of that name
    apart = GOOD.replace("beta * (chosen - rejected)", "scaled(beta, chosen - rejected)")
    apart += "\ndef scaled(beta, margins):\n    return beta * margins\n"
    assert run_cell("z", apart, {}).spec.fn.__name__ == "my_loss"  # the one that calls the other
    helper = f"{GOOD}\ndef helper(x):\n    return x\n"
    assert run_cell("y", helper, {}).spec.fn.__name__ == "my_loss"  # the one that can be called
    with pytest.raises(ConfigError, match="defines no function"):
        run_cell("my_loss", "x = 1", {"my_loss": test_options})  # one from another cell does not count


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "needs a name"),
        ("--beta 1", "needs a name"),
        ("2fast", "cannot name a loss"),
        ("my loss", "'loss' is not an option"),
        ("my_loss --beta", "is not an option"),
        ("my_loss --beta much", "expected a number"),
        ("my_loss --betta 1", "did you mean 'beta'"),
        ("my_loss 'open", "No closing quotation"),
        ("my_loss --from simpoo", "did you mean 'simpo'"),
        ("my_loss --from", "'--from' is not an option"),
        ("ppo", "built-in loss"),
    ],
)
def test_bad_lines(line: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run_cell(line, GOOD, {})
    assert "my_loss" not in LOSSES


def test_a_loss_that_fails_preflight_is_not_registered() -> None:
    with pytest.raises(LossError, match="my_loss is not registered") as caught:
        run_cell("my_loss", "def my_loss(data, logprobs_list):\n    return logprobs_list[0].sum().item(), {}", {})
    assert "without float(), .item() or .numpy()" in str(caught.value)
    assert "my_loss" not in LOSSES


def test_a_failure_in_a_run_names_the_line_of_the_cell() -> None:
    body = """\
def my_loss(data, logprobs_list):
    n = 0
    return logprobs_list[0].sum() / helper(n), {}

def helper(n):
    return 1 // n
"""
    spec = run_cell("my_loss --no-preflight", body, {}).spec
    error: Any = None
    try:
        spec.fn([], [__import__("torch").ones(1)])
    except ZeroDivisionError as raised:
        error = LossError("the loss raised")
        error.__cause__ = raised
    failure = describe(error, spec)
    # Line 1 is the magic's own, as the editor numbers it; the deepest line of the cell is helper's.
    assert failure.line == 7
    assert "-->   7     return 1 // n" in failure.traceback
    assert failure.traceback.endswith("ZeroDivisionError: integer division or modulo by zero")
    assert spec.source.splitlines()[failure.line - 1] == "    return 1 // n"


def test_in_a_shell(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    result = shell.run_cell(f"%%loss my_loss\n{GOOD}")
    assert result.success
    assert repr(result.result).startswith("my_loss v1 registered")
    assert shell.user_ns["my_loss"] is LOSSES["my_loss"].fn
    capsys.readouterr()


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ("def my_loss(data, logprobs_list)\n    pass\n", ["line 2: def my_loss", "expected ':'"]),
        ("x = 1\ny = unknown\n", ['File "<loss my_loss v1>", line 3', "y = unknown", "NameError"]),
        (
            "def my_loss(data, logprobs_list):\n    return 1 / 0, {}\n",
            ["not registered", "line 3: return 1 / 0"],
        ),
        ("x = 1\n", ["ConfigError: the cell defines no function"]),
    ],
)
def test_errors_are_short_and_name_the_cells_lines(
    shell: Any, capsys: pytest.CaptureFixture[str], body: str, shown: list[str]
) -> None:
    result = shell.run_cell(f"%%loss my_loss\n{body}")
    assert not result.success
    text = "".join(capsys.readouterr())
    for piece in shown:
        assert piece in text
    assert "interactiveshell.py" not in text
    assert "magic.py" not in text
    assert "my_loss" not in LOSSES


def test_a_refused_loss_shows_the_report_as_a_table_and_one_line_of_error(
    shell: Any, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shell.run_cell(f"%%loss my_loss\n{GOOD}").success
    shown: list[dict[str, Any]] = []
    monkeypatch.setattr(shell.display_pub, "publish", lambda data, **_: shown.append(data))
    result = shell.run_cell("%%loss my_loss\ndef my_loss(data, logprobs_list):\n    return 1 / 0, {}\n")
    (bundle,) = shown
    assert "look at line 3: return 1 / 0" in bundle["text/html"]
    assert bundle["text/plain"].startswith("preflight: 1 failed")
    text = "".join(capsys.readouterr())
    assert "LossError: my_loss is not registered; my_loss v1 stays in use" in text
    assert "look at line 3" not in text
    # Whoever catches the error has all of it.
    assert isinstance(result.error_in_exec, LossError)
    assert "look at line 3: return 1 / 0" in str(result.error_in_exec)
    assert LOSSES["my_loss"].version == 1


def test_a_cell_of_a_running_shell_swaps_the_loss_of_a_run(tmp_path: Any) -> None:
    from mint_lab.runs import Run
    from tests.runs.bigram import BigramClient, letter_pairs

    run_cell("my_loss", GOOD, {})
    run = Run(loss="my_loss", client=BigramClient(), data=letter_pairs(20), steps=6, folder=tmp_path / "run")
    assert run.step(2).wait(TIMEOUT)
    done = threading.Event()
    dispose = run.subscribe(done.set)
    run_cell("my_loss", GOOD.replace("beta=0.1", "beta=0.1, gamma=1.0"), {})
    assert done.wait(TIMEOUT)
    dispose()
    assert run.loss.label == "my_loss v2"
    assert run.start().wait(TIMEOUT)
    assert run.error is None
    assert [e.label for e in run.edits] == ["my_loss v2"]
    assert "gamma" in run.losses[1].source


def test_a_function_of_the_losss_name_with_other_parameters_is_refused_for_them() -> None:
    with pytest.raises(ConfigError, match=r"my_loss: takes \(data\), expected \(data, logprobs_list"):
        run_cell("my_loss", "def my_loss(data):\n    return 0, {}\n", {})


def test_the_reduction_and_the_unit_are_what_preflight_finds() -> None:
    body = "def my_loss(data, logprobs_list):\n    return sum(lp.sum() for lp in logprobs_list), {}\n"
    summed, paired = run_cell("my_loss", body, {}).spec, run_cell("my_loss", GOOD, {}).spec
    assert (summed.reduction, summed.unit) == ("sum", "datum")
    assert (paired.reduction, paired.unit) == ("mean", "pair")


def test_the_cell_passes_its_function_on_unchanged() -> None:
    """What the cell leaves in the namespace is what ``forward_backward_custom`` of any client takes."""
    import inspect

    namespace: dict[str, Any] = {}
    spec = run_cell("my_loss --beta 0.5", GOOD, namespace).spec
    assert namespace["my_loss"] is spec.fn
    assert list(inspect.signature(spec.fn).parameters) == ["data", "logprobs_list", "beta"]


def test_interrupting_the_kernel_ends_a_check(shell: Any, capsys: pytest.CaptureFixture[str]) -> None:
    body = (
        "def my_loss(data, logprobs_list):\n    __import__('_thread').interrupt_main()\n    while True:\n        pass\n"
    )
    result = shell.run_cell(f"%%loss my_loss\n{body}")
    assert isinstance(result.error_in_exec, KeyboardInterrupt)
    assert "my_loss" not in LOSSES
    capsys.readouterr()
    assert shell.run_cell(f"%%loss my_loss\n{GOOD}").success  # the kernel lives


def test_the_report_beside_a_running_job_says_what_a_step_takes(tmp_path: Any) -> None:
    from mint_lab.runs import Run
    from tests.runs.bigram import BigramClient, letter_pairs

    run = Run(client=BigramClient(), data=letter_pairs(20), steps=6, folder=tmp_path / "run")
    assert run.step(2).wait(TIMEOUT)
    cell = run_cell("my_loss", GOOD, {})
    assert cell.report is not None
    assert "a step of the run loaded last, with 36 datums, " in cell._repr_html_()
    assert "datums," not in repr(cell)  # what differs from time to time is no part of the text


def test_a_loss_that_the_run_does_not_use_says_how_it_would(tmp_path: Any) -> None:
    from mint_lab.runs import Run
    from tests.runs.bigram import BigramClient, letter_pairs

    assert "run.set_loss" not in repr(run_cell("my_loss", GOOD, {}))
    run = Run(client=BigramClient(), data=letter_pairs(20), steps=6, folder=tmp_path / "run")
    assert run.step(2).wait(TIMEOUT)
    head = repr(run_cell("my_loss", GOOD, {})).partition("\n")[0]
    assert "the run continues with pairwise_preference until" in head
    assert "run.set_loss('my_loss')" in head
    run.set_loss("my_loss")
    assert "run.set_loss" not in repr(run_cell("my_loss", GOOD, {}))
    run.stop()


def test_a_loss_for_other_data_than_those_of_the_loaded_run(tmp_path: Any) -> None:
    from mint_lab.runs import Run
    from tests.runs.bigram import BigramClient, letter_pairs

    run = Run(client=BigramClient(), data=letter_pairs(20), steps=6, folder=tmp_path / "run")
    assert run.step().wait(TIMEOUT)
    cell = run_cell("my_loss --from ppo", "", {})
    assert cell.report is not None
    (line,) = [line for line in cell.report.lines if line.verdict == "warn"]
    assert (line.name, "logprobs" in line.message) == ("fields", True)
    assert "the run loaded last has no such data" in line.fix
    body = "def my_loss(data, logprobs_list):\n    return data[0].loss_fn_inputs['nowhere'], {}\n"
    with pytest.raises(LossError, match="KeyError: 'nowhere'"):
        run_cell("my_loss", body, {})


def test_a_version_that_does_not_fit_a_run_leaves_the_run_with_its_own(tmp_path: Any) -> None:
    from mint_lab.runs import Run
    from tests.runs.bigram import BigramClient, letter_pairs

    run_cell("turning --from dpo --no-preflight", "", {})
    run = Run(loss="turning", client=BigramClient(), data=letter_pairs(20), steps=6, folder=tmp_path / "run")
    assert run_cell("turning --from ppo --no-preflight", "", {}).spec.label == "turning v2"
    assert run.loss.label == "turning v1"
    assert run.notes[-1].startswith("turning v2 needs logprobs and advantages")
    assert run.notes[-1].endswith("this run keeps turning v1")


def test_in_a_shell_a_line_alone_is_enough_and_the_source_comes_into_the_cell(
    shell: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, bool]] = []
    shell.set_next_input = lambda text, replace=False: asked.append((text, replace))
    result = shell.run_cell("%%loss mine --from simpo")
    assert result.success
    assert LOSSES["mine"].label == "mine v1"
    ((text, replace),) = asked
    assert replace
    assert shell.run_cell(text).success
    assert LOSSES["mine"].label == "mine v2"
    assert len(asked) == 1
    assert not shell.run_cell("%%loss mine").success
    assert "the cell has no body" in "".join(capsys.readouterr())
    del shell.set_next_input
