"""The line of a ``%%loss`` cell: what each option does to the loss, and the words about it."""

from __future__ import annotations

import html
from dataclasses import replace
from typing import Any

import pytest

from mint_lab.cells import loss_cell as module
from mint_lab.cells.loss_cell import UNCHECKED, LossCell, run_cell
from mint_lab.charts.palette import VERDICT_GROUNDS
from mint_lab.errors import ConfigError
from mint_lab.losses import LOSSES

from .test_loss_cell import GOOD

BARE = "def bare(data, logprobs_list):\n    return sum(lp.sum() for lp in logprobs_list), {}\n"


def refusal(line: str, cell: str = GOOD) -> str:
    with pytest.raises(ConfigError) as caught:
        run_cell(line, cell, {})
    return str(caught.value)


def test_words_of_every_refusal() -> None:
    assert refusal("") == refusal("  # nothing") == "%%loss needs a name: %%loss my_loss"
    assert refusal("2fast") == "'2fast' cannot name a loss; use letters, digits and underscores, not a digit first"
    options = "is not an option; the options are --from LOSS, --no-preflight and --PARAMETER VALUE"
    assert refusal("my_loss beta 1") == f"%%loss my_loss: 'beta' {options}"
    assert refusal("my_loss --beta") == f"%%loss my_loss: '--beta' {options}"
    assert refusal("my_loss --beta much") == "%%loss my_loss: --beta is 'much', expected a number"
    assert refusal("my_loss 'open") == "%%loss my_loss 'open: No closing quotation"
    assert refusal("bare --beta 1", BARE) == (
        "bare: unknown parameter --beta; the function has no parameters besides data and logprobs_list"
    )
    assert refusal("mine", "# only a comment\n\n") == (
        "the cell has no body; define mine(data, logprobs_list) below the first line, or start from a copy: "
        "%%loss mine --from dpo"
    )


def test_comment_and_order_of_options_do_not_matter() -> None:
    lines = (
        "my_loss --no-preflight --beta 0.5",
        "my_loss --beta=0.5 --no-preflight  # why",
        "my_loss --beta '0.5' --no-preflight",
    )
    for line in lines:
        cell = run_cell(line, GOOD, {})
        assert (cell.spec.config(), cell.report) == ({"beta": 0.5}, None)
    assert run_cell("my_loss --no-preflight --beta 1 --beta 2", GOOD, {}).spec.config() == {"beta": 2.0}


def test_default_beyond_the_slider_moves_its_end_and_one_within_does_not() -> None:
    """The slider of beta goes to a multiple of its default, 0.1; the other parameter keeps its own."""
    text = GOOD.replace("beta=0.1", "beta=0.1, gamma=1.0")
    plain = {p.name: p for p in run_cell("my_loss --no-preflight", text, {}).spec.params}
    end = plain["beta"].high
    for value, high in ((end / 2, end), (end, end), (2 * end, 2 * end)):
        moved = {p.name: p for p in run_cell(f"my_loss --no-preflight --beta {value!r}", text, {}).spec.params}
        assert (moved["beta"].default, moved["beta"].low, moved["beta"].high) == (value, plain["beta"].low, high)
        assert moved["gamma"] == plain["gamma"]


def test_default_that_the_parameter_refuses_registers_nothing() -> None:
    text = "from typing import Annotated\nfrom mint_lab.cells import Range\n" + GOOD.replace(
        "beta=0.1", "beta: Annotated[float, Range(0, 1)] = 0.1"
    )
    assert "my_loss" in refusal("my_loss --beta nan", text)
    assert "my_loss" not in LOSSES


def test_copy_has_all_of_its_origin_and_its_cell_has_the_options() -> None:
    simpo = LOSSES["simpo"]
    wider = tuple(replace(p, default=p.default / 2, high=99.0) for p in simpo.params)
    LOSSES.register(replace(simpo, formula="its own formula", paper="its own paper", params=wider))
    cell = run_cell("mine --from simpo --beta 0.25 --no-preflight", "\n# nothing else\n", {})
    first, _, body = cell.cell.partition("\n")
    assert first == "%%loss mine --from simpo --beta 0.25 --no-preflight"
    origin = LOSSES["simpo"]
    same = ("formula", "paper", "unit", "inputs", "clip")
    assert [getattr(cell.spec, name) for name in same] == [getattr(origin, name) for name in same]
    assert [(p.name, p.low, p.high, p.doc) for p in cell.spec.params] == [
        (p.name, p.low, 99.0, p.doc) for p in origin.params
    ]
    assert cell.spec.config() == {**origin.config(), "beta": 0.25}
    assert (cell.spec.name, cell.spec.family) == ("mine", "custom")
    again = run_cell(first.removeprefix("%%loss "), body, {})
    assert (again.spec.label, again.cell, again.spec.formula) == ("mine v2", "", origin.formula)
    head, _, end = body.split('"""')
    changed = run_cell(first.removeprefix("%%loss "), head.rstrip("r") + '"Changed."' + end, {}).spec
    assert (changed.formula, changed.paper, changed.summary) == ("", "", "Changed."), "it may be another loss now"
    assert (changed.unit, changed.inputs) == (origin.unit, origin.inputs)
    assert changed.config() == {"beta": 0.25, "gamma": 1.0}, "a default is what the text says"


def test_copy_after_a_future_import_has_the_names_of_its_origin() -> None:
    """A __future__ import stands before every other one, also before those that the origin's module needs."""
    body = "from __future__ import annotations\n\n" + GOOD.split("\n", 2)[2].replace("my_loss", "mine")
    cell = run_cell("mine --from simpo", body, {})
    assert cell.spec.source.startswith("# %%loss mine --from simpo\nfrom __future__")
    assert cell.report is not None
    assert cell.report.ok


def test_reduction_and_unit_without_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A loss that was not checked has the unit of its origin; a finding does not replace it."""
    assert run_cell("mine --from simpo", "", {}).spec.unit == LOSSES["simpo"].unit == "pair"
    assert run_cell("bare --no-preflight", BARE, {}).spec.unit != "pair"


# -- what the output says ---------------------------------------------------------------------------------------------


def test_words_about_a_loss_that_no_run_uses() -> None:
    spec = run_cell("my_loss --no-preflight --beta 0.123456789", GOOD, {}).spec
    head = repr(LossCell(spec, None, others=("dpo", "simpo"))).splitlines()[0]
    assert head == (
        "my_loss v1 registered (beta 0.123457); the run continues with dpo and simpo until you choose my_loss on the "
        "page or call run.set_loss('my_loss')"
    )
    assert repr(LossCell(spec, None)) == f"my_loss v1 registered (beta 0.123457)\n{UNCHECKED}"


def test_cell_that_was_written_for_a_person_is_in_the_output() -> None:
    spec = run_cell("bare --no-preflight", BARE, {}).spec
    cell = LossCell(spec, None, "%%loss bare\n<b>\n\n")
    assert repr(cell) == f"bare v1 registered\n{UNCHECKED}\n\n%%loss bare\n<b>"
    ground = VERDICT_GROUNDS["fail"]
    assert cell._repr_html_() == (
        f'<div><b>bare v1 registered</b><div style="background:{ground};padding:4px 10px"><b>{html.escape(UNCHECKED)}'
        "</b></div><pre>%%loss bare\n&lt;b&gt;\n\n</pre></div>"
    )
    assert LossCell(spec, None)._repr_html_().endswith("</b></div></div>")


def test_checked_loss_has_its_report_in_both_outputs() -> None:
    cell = run_cell("my_loss", GOOD, {})
    assert cell.report is not None
    assert repr(cell) == f"my_loss v1 registered (beta 0.1)\n{cell.report!r}"
    assert cell._repr_html_() == f"<div><b>my_loss v1 registered (beta 0.1)</b>{cell.report.to_html()}</div>"


def test_losses_of_unfinished_runs_are_named_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "losses_in_use", lambda: {"simpo", "dpo"})
    assert run_cell("my_loss --no-preflight", GOOD, {}).others == ("dpo", "simpo")
    monkeypatch.setattr(module, "losses_in_use", lambda: {"simpo", "my_loss"})
    assert run_cell("my_loss --no-preflight", GOOD, {}).others == ()


def test_names_of_a_registered_cell_are_added_to_the_notebook_and_those_of_a_refused_one_are_not() -> None:
    namespace: dict[str, Any] = {"kept": 1}
    with pytest.raises(ConfigError):
        run_cell("my_loss --betta 1", f"SCALE = 3\n{GOOD}", namespace)
    assert namespace == {"kept": 1}
    run_cell("my_loss --no-preflight", f"SCALE = 3\n{GOOD}", namespace)
    assert (namespace["kept"], namespace["SCALE"]) == (1, 3)
    assert callable(namespace["my_loss"])
