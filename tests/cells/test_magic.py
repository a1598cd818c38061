"""Writing a loss in a cell: registered, checked, swapped, and its errors shown by the cell's own lines."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from mint_lab.cells.magic import run_cell
from mint_lab.errors import ConfigError, LossError
from mint_lab.losses import LOSSES
from mint_lab.runs.failure import describe

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


def test_the_text_is_the_same_every_time() -> None:
    first, second = (repr(run_cell("my_loss", GOOD, {})).splitlines()[1:] for _ in range(2))
    assert first == second


def test_options() -> None:
    assert run_cell("my_loss --beta 0.5", GOOD, {}).spec.config() == {"beta": 0.5}
    assert run_cell("my_loss --beta=2", GOOD, {}).spec.params[0].high == 2.0
    cell = run_cell("my_loss --no-preflight", "def my_loss(data, logprobs_list): return 0, {}", {})
    assert cell.report is None
    assert repr(cell) == "my_loss v3 registered, NOT checked: preflight was skipped"


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
        ("my loss", "'loss' is not understood"),
        ("my_loss --beta", "not understood"),
        ("my_loss --beta much", "expected a number"),
        ("my_loss --betta 1", "did you mean 'beta'"),
        ("my_loss 'open", "No closing quotation"),
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
    assert "without float() or .item()" in str(caught.value)
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


def test_a_cell_of_a_running_shell_swaps_the_loss_of_a_run(tmp_path: Any) -> None:
    from mint_lab.runs import Run
    from tests.runs.bigram import BigramClient, letter_pairs

    run_cell("my_loss", GOOD, {})
    run = Run(loss="my_loss", client=BigramClient(), data=letter_pairs(20), steps=6, folder=tmp_path / "run")
    assert run.step(2).wait(30)
    done = threading.Event()
    dispose = run.subscribe(done.set)
    run_cell("my_loss", GOOD.replace("beta=0.1", "beta=0.1, gamma=1.0"), {})
    assert done.wait(30)
    dispose()
    assert run.loss.label == "my_loss v2"
    assert run.start().wait(30)
    assert run.error is None
    assert [e.label for e in run.edits] == ["my_loss v2"]
    assert "gamma" in run.losses[1].source
