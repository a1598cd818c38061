"""Records become curves and histograms."""

from __future__ import annotations

from mint_lab.charts.chart_spec import CHARTS, charts_of
from mint_lab.charts.run_data import DrawnBranch, run_data

from .runs import Record

BARS, RATIOS = CHARTS["margin"], CHARTS["log_ratio"]


def test_curves_begin_with_the_values_before_training() -> None:
    records = [Record(1, {"loss": 2.0}), Record(2, {"loss": 1.0, "late": 3.0}, {"loss": 1.5})]
    data = run_data("mine", records, {"loss": 2.5})
    assert data.steps == 2
    assert data.training == {"loss": ([1, 2], [2.0, 1.0]), "late": ([2], [3.0])}
    assert data.held_out == {"loss": ([0, 2], [2.5, 1.5])}
    training, held_out = CHARTS["loss"].lines
    assert data.points(training) == ([1, 2], [2.0, 1.0])
    assert data.points(held_out) == ([0, 2], [2.5, 1.5])
    assert data.points(CHARTS["nll"].lines[0]) is None


def test_margins_are_those_of_held_out_data_as_soon_as_there_are_any() -> None:
    batch, evaluated = [1, 2], [5, 5]
    records = [Record(1, histograms={"margin": batch}), Record(2, {}, {"loss": 1.0}, {"margin": evaluated})]
    assert [c.counts for c in run_data("", records[:1], {}).counts(BARS, "margin")] == [batch]
    assert [c.counts for c in run_data("", records, {}).counts(BARS, "margin")] == [evaluated]


def test_log_ratios_are_those_of_every_batch() -> None:
    name = RATIOS.histograms[0]
    later = [Record(2, histograms={name: [2]}), Record(3, histograms={name: [0]})]
    records = [Record(1, {}, {"reward": 1.0}, {name: [1]}), *later]
    found = run_data("", records, {}).counts(RATIOS, name)
    assert [(c.step, c.counts) for c in found] == [(1, [1]), (2, [2])]  # an empty one says nothing


def test_a_run_draws_what_it_has_numbers_of() -> None:
    data = run_data("", [Record(1, {"loss": 1.0}, histograms={"margin": [0, 1]})], {"nll": 2.0})
    drawn = {chart.name for chart in CHARTS.values() if data.draws(chart)}
    assert drawn == {"loss", "margin", "nll"}
    assert [chart.name for chart in data.stray(charts_of(["loss"]))] == ["margin", "nll"]
    assert not any(run_data("", [], {}).draws(chart) for chart in CHARTS.values())


def test_a_branch_is_drawn_from_the_last_point_in_common() -> None:
    branch = DrawnBranch(4, run_data("before rewind to 4", [Record(step, {"loss": 1.0}) for step in range(1, 8)], {}))
    assert [1, 2, 3, 4, 5, 6, 7][branch.visible([1, 2, 3, 4, 5, 6, 7])] == [4, 5, 6, 7]
    assert [0, 3, 6][branch.visible([0, 3, 6])] == [3, 6]
    assert [5, 6][branch.visible([5, 6])] == [5, 6]
    assert [0, 3, 4][branch.visible([0, 3, 4])] == []
    data = run_data("", [Record(step, {"loss": 2.0}) for step in range(1, 6)], {}, branches=[branch])
    assert (data.steps, data.last_step, data.branches_note) == (5, 7, "")


def test_line_styles_of_branches_stay_when_earlier_ones_are_left_out() -> None:
    branches = [DrawnBranch(1, run_data(name, [], {})) for name in "abc"]
    first = run_data("", [], {}, branches=branches)
    later = run_data("", [], {}, branches=[*branches[1:], DrawnBranch(1, run_data("d", [], {}))], branches_left_out=1)
    assert [first.branch_dash(k) for k in range(3)] == ["dash", "dot", "dashdot"]
    assert [later.branch_dash(k) for k in range(3)] == ["dot", "dashdot", "dash"]
    assert later.branches_note == "1 earlier one is not drawn"
    assert run_data("", [], {}, branches_left_out=2).branches_note == "2 earlier ones are not drawn"
