"""``%%loss mine --from LOSS``: a copy that is the same loss, whose text runs by itself and can be edited."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mint_lab.cells.loss_cell import run_cell
from mint_lab.errors import ConfigError
from mint_lab.losses import LOSSES
from mint_lab.losses.decorator import loss as register
from mint_lab.losses.preference import sequence_scores
from mint_lab.preflight import random_logprobs
from mint_lab.runs.sample_batch import made_up_data
from mint_lab.usercode.cell_source import cell_from

BODY = """\
def mine(data, logprobs_list, beta=0.5):
    chosen, rejected, _ = sequence_scores(data, logprobs_list)
    return -F.logsigmoid(beta * (chosen - rejected)).mean(), {}
"""


def value_and_gradient(fn: Any) -> list[torch.Tensor]:
    data = made_up_data()
    leaves = [lp.requires_grad_(True) for lp in random_logprobs(data)]
    loss, _ = fn(data, leaves)
    return [loss.detach(), *torch.autograd.grad(loss, leaves)]


@pytest.mark.parametrize("name", list(LOSSES))
def test_a_copy_of_any_loss_is_the_same_loss_and_runs_by_itself(name: str) -> None:
    cell = run_cell(f"mine --from {name}", "\n", {})
    spec, origin = cell.spec, LOSSES[name]
    assert (spec.label, spec.family, spec.params, spec.formula) == ("mine v1", "custom", origin.params, origin.formula)
    assert spec.config() == origin.config()
    described = ("unit", "reduction", "clip", "inputs", "optional", "paper")
    assert [getattr(spec, field) for field in described] == [getattr(origin, field) for field in described]
    for mine, theirs in zip(value_and_gradient(spec.bind()), value_and_gradient(origin.bind()), strict=True):
        assert torch.equal(mine, theirs)
    # The text, as a file of its own, and as the next cell.
    first, _, body = cell.cell.partition("\n")
    assert first == f"%%loss mine --from {name}"
    alone: dict[str, Any] = {}
    exec(compile(body, "alone.py", "exec", dont_inherit=True), alone)
    assert torch.equal(value_and_gradient(alone["mine"])[0], value_and_gradient(origin.bind())[0])
    assert run_cell(first.removeprefix("%%loss "), body, {}).spec.label == "mine v2"
    assert repr(cell).endswith(cell.cell.rstrip())


def test_settings_go_along() -> None:
    cell = run_cell("mine --from simpo --beta 3", "", {})
    assert cell.spec.config() == {"beta": 3.0, "gamma": 1.0}
    assert cell.cell.startswith("%%loss mine --from simpo --beta 3\n")
    again = run_cell("again --from mine", "", {})  # a copy of a copy, from a cell's source
    assert again.spec.config() == {"beta": 3.0, "gamma": 1.0}
    assert "def again(" in again.cell
    assert again.cell.startswith("%%loss again --from mine\n")


def test_with_a_body_the_names_of_that_module_are_there() -> None:
    namespace: dict[str, Any] = {}
    spec = run_cell("mine --from simpo", BODY, namespace).spec
    assert namespace["sequence_scores"] is sequence_scores
    assert "DataError" not in namespace  # only what the body uses
    # The imports share the magic's line, so that line n of the source is line n of the cell; the source runs by itself.
    assert spec.source.splitlines()[1:] == BODY.splitlines()
    alone: dict[str, Any] = {}
    exec(compile(spec.source, "alone.py", "exec", dont_inherit=True), alone)
    assert torch.equal(value_and_gradient(alone["mine"])[0], value_and_gradient(spec.fn)[0])


def test_names_of_ones_own_win() -> None:
    def sequence_scores(data: Any, logprobs_list: Any) -> Any:
        scores = torch.stack([lp.sum() for lp in logprobs_list])
        return scores[0::2], scores[1::2], None

    namespace: dict[str, Any] = {"sequence_scores": sequence_scores}
    run_cell("mine --from simpo", BODY, namespace)
    assert namespace["sequence_scores"] is sequence_scores


def test_a_future_import_stays_first() -> None:
    spec = run_cell("mine --from simpo", f"from __future__ import annotations\n{BODY}", {}).spec
    assert spec.source.startswith("# %%loss mine --from simpo\nfrom __future__")


def test_losses_without_a_text_of_their_own_are_refused() -> None:
    def around(scale: float) -> Any:
        def inside(data: Any, logprobs_list: Any) -> Any:
            return scale * sum(lp.sum() for lp in logprobs_list), {}

        return inside

    register(name="inside")(around(2.0))
    with pytest.raises(ConfigError, match="it uses scale of a function around it"):
        run_cell("mine --from inside", "", {})
    register(name="nameless")(lambda data, logprobs_list: (sum(lp.sum() for lp in logprobs_list), {}))
    with pytest.raises(ConfigError, match="write the function with def"):
        run_cell("mine --from nameless", "", {})
    with pytest.raises(ConfigError, match="the cell has no body; define mine"):
        run_cell("mine", "\n", {})
    assert "mine" not in LOSSES


def test_a_decorated_function_is_copied_without_its_decorator() -> None:
    head = "import mint_lab as ml\n@ml.loss(name='other')\n"
    body = f"{head}def other(data, logprobs_list):\n    return 2 * logprobs_list[0].sum(), {{}}\n"
    namespace: dict[str, Any] = {}
    run_cell("other --no-preflight", body, namespace)
    before = LOSSES["other"].version
    run_cell("mine --from other --no-preflight", "", {})
    assert LOSSES["other"].version == before


def test_a_whole_cell_of_any_loss_runs_and_is_that_loss() -> None:
    for name in ("dpo", "simpo", "ppo"):
        text = cell_from(LOSSES[name])
        line, _, body = text.partition("\n")
        assert line == f"%%loss my_{name} --from {name}"
        made = run_cell(line.removeprefix("%%loss "), body, {})
        assert made.spec.label == f"my_{name} v1"
    assert value_and_gradient(LOSSES["my_simpo"].bind())[0] == value_and_gradient(LOSSES["simpo"].bind())[0]


def test_a_loss_of_a_cell_comes_back_as_it_was_written() -> None:
    run_cell("mine --from dpo --beta 0.3", BODY, {})
    text = cell_from(LOSSES["mine"])
    assert text == f"%%loss mine --from dpo --beta 0.3\n{BODY}"
    run_cell(*(text.removeprefix("%%loss ").split("\n", 1)), {})
    assert LOSSES["mine"].label == "mine v2"


def test_an_edited_copy_keeps_unit_and_clip_but_not_the_formula() -> None:
    text = cell_from(LOSSES["cispo"])
    line, _, body = text.partition("\n")
    edited = run_cell(line.removeprefix("%%loss "), body.replace("total = 0.0", "total = 0.0 * 1.0"), {}).spec
    assert edited.clip == LOSSES["cispo"].clip
    assert edited.unit == "datum"
    assert edited.formula == ""
    assert edited.origin == "cispo"


def test_a_copy_without_the_settings_of_the_clip_has_no_clip() -> None:
    body = "def mine(data, logprobs_list):\n    return sum(lp.sum() for lp in logprobs_list), {}\n"
    assert run_cell("mine --from ppo", body, {}).spec.clip is None


@pytest.mark.parametrize("body", ["", "\n", "   \n\n", "# to be edited\n", "\n# one\n  # two"])
def test_blank_lines_and_comments_are_an_empty_body(body: str) -> None:
    cell = run_cell("mine --from gspo", body, {})
    assert cell.spec.clip is None
    assert "def mine(" in cell.cell
