"""A run and several runs as one plotly figure."""

from __future__ import annotations

from typing import Any

import plotly.io
import pytest

from mint_lab.charts.chart_spec import ChartSpec, charts_of
from mint_lab.charts.overlay import overlay_charts
from mint_lab.charts.palette import DASHES, RUNS
from mint_lab.charts.plotly_figure import comparison_figure, run_figure
from mint_lab.charts.run_data import DrawnBranch, RatioLimits, run_data
from mint_lab.recipes.registry import RECIPES

from .runs import Edit, Record, run_of

CHARTS = {name: charts_of(recipe.charts) for name, recipe in RECIPES.items()}


def titles(figure: Any) -> list[str]:
    """Texts of the annotations that make_subplots wrote: those above a chart."""
    return [a.text for a in figure.layout.annotations if a.xref == "paper" and a.yref == "paper"]


@pytest.mark.parametrize("recipe", CHARTS)
def test_every_chart_of_every_recipe_is_drawn(recipe: str) -> None:
    charts = CHARTS[recipe]
    figure = run_figure(run_of(charts, limits=RatioLimits(0.8, 1.2)), charts)
    assert titles(figure) == [chart.title for chart in charts]
    for chart, annotation in zip(charts, figure.layout.annotations, strict=False):
        assert annotation.hovertext == chart.definition.replace("<", "&lt;").replace("\n", "<br>")
    units = [axis.title.text for axis in figure.select_yaxes()]
    assert all((chart.unit or "") in (unit or "") for chart, unit in zip(charts, units, strict=False))
    assert plotly.io.from_json(figure.to_json())


@pytest.mark.parametrize("recipe", CHARTS)
def test_a_run_without_numbers_says_so(recipe: str) -> None:
    figure = run_figure(run_data("", [], {}), CHARTS[recipe])
    assert [a.text for a in figure.layout.annotations] == ["no steps yet"]


def test_curves_have_every_number() -> None:
    records = [Record(step, {"loss": 1 / step}, {"loss": 2.0} if step == 2 else {}) for step in (1, 2, 3)]
    figure = run_figure(run_data("", records, {"loss": 5.0}), charts_of(["loss"]))
    training, held_out = figure.data
    assert (training.name, list(training.x), list(training.y)) == ("training", [1, 2, 3], [1.0, 0.5, 1 / 3])
    assert (held_out.name, list(held_out.x), list(held_out.y)) == ("held-out", [0, 2], [5.0, 2.0])


def test_a_metric_in_no_chart_is_drawn() -> None:
    """A loss that reports margin_std keeps it."""
    charts = CHARTS["preference"]
    figure = run_figure(run_of(charts, margin_std=2.0, **{"a$x$<b>": 1.0}), charts)
    assert titles(figure)[-2:] == ["a&#36;x&#36;&lt;b>", "margin_std"]


def test_bounds_are_those_of_the_chart() -> None:
    (axis,) = run_figure(run_of(charts := charts_of(["pair_accuracy"])), charts).select_yaxes()
    assert axis.range[0] == pytest.approx(-0.03)
    assert axis.range[1] == pytest.approx(1.03)


def test_a_spread_is_a_band_about_the_curve() -> None:
    records = [Record(1, {"reward": 0.5, "reward_std": 0.25}), Record(2, {"reward": 1.0, "reward_std": 0.5})]
    figure = run_figure(run_data("", records, {}), charts_of(["reward"]))
    band = next(trace for trace in figure.data if trace.fill == "toself")
    assert list(band.x) == [1, 2, 2, 1]
    assert list(band.y) == [0.75, 1.5, 0.5, 0.25]


def test_margins_are_a_heat_map_in_nats() -> None:
    counts = [0] * 40
    counts[20], counts[22] = 1, 3  # 0 to 1 nat, 2 to 3 nats
    figure = run_figure(run_data("", [Record(1, {}, {"loss": 1.0}, {"margin": counts})], {}), charts_of(["margin"]))
    heat = figure.data[0]
    shares = dict(zip(heat.y, [row[0] for row in heat.z], strict=True))
    assert (shares[0.5], shares[1.5], shares[2.5]) == (0.25, 0.0, 0.75)


def test_ratios_are_bars_with_the_clip() -> None:
    counts = [0] * 41
    counts[20] = 4
    record = Record(1, histograms={"log_ratio/positive": counts, "log_ratio/negative": [0] * 41})
    limits = RatioLimits(0.8, 1.2)
    figure = run_figure(run_data("", [record], {}, (), limits), charts_of(["log_ratio"]))
    drawn = [trace for trace in figure.data if trace.x is not None and len(trace.x)]
    (bar,) = drawn
    assert (bar.x[0], bar.y[0]) == (pytest.approx(0), pytest.approx(10))  # 100 percent on a root scale
    assert {a.text for a in figure.layout.annotations} >= {"0.8", "1.2"}
    assert len(figure.layout.shapes) == 2


def test_changes_are_marked_in_every_chart_over_steps() -> None:
    charts = CHARTS["rl"]
    changes = [Edit(7, "loss", "mine v3"), Edit(7, "setting", "beta <b> $1$")]
    figure = run_figure(run_of(charts, changes=changes), charts)
    marks = [shape for shape in figure.layout.shapes if shape.line.dash == "dot"]
    assert {shape.x0 for shape in marks} == {6.5}
    assert len(marks) == sum(chart.kind != "ratios" for chart in charts)
    assert [a.text for a in figure.layout.annotations if a.x == 6.5] == ["mine v3, beta &lt;b> &#36;1&#36;"]


def test_the_legend_names_each_look_once() -> None:
    charts = CHARTS["rl"]
    names = [trace.name for trace in run_figure(run_of(charts), charts).data if trace.showlegend]
    assert names[:2] == ["training", "held-out"]
    assert {"clip_frac: high, A > 0", "kl: k1", "ratio: max"} <= set(names)
    assert len(set(names)) == len(names)


def test_runs_lie_on_top_of_each_other_each_in_its_line() -> None:
    charts = CHARTS["preference"]
    runs = [run_of(charts, label="a"), run_of(charts, label="<b>", margin_std=1.0)]
    figure = comparison_figure(runs, charts)
    assert titles(figure) == [*(chart.title for chart in overlay_charts(charts)), "margin_std"]
    shown = [trace for trace in figure.data if trace.showlegend]
    assert [(t.name, t.line.color, t.line.dash) for t in shown] == [
        (name, RUNS["light"][n], DASHES[n]) for n, name in enumerate(["a", "&lt;b>"])
    ]
    assert comparison_figure([], charts).layout.annotations[0].text == "no steps yet"


def test_a_chart_of_ones_own_is_drawn() -> None:
    own = ChartSpec("mine", title="My own", unit="apples")
    figure = run_figure(run_data("", [Record(1, {"mine": 1.0})], {}), charts_of([own]))
    assert titles(figure) == ["My own"]
    assert next(figure.select_yaxes()).title.text == "apples"


def test_steps_that_a_run_has_left_are_faint_and_once_in_the_legend() -> None:
    """Steps 3 and 4 were left; the loss was edited there, which is no change of the run."""
    left = [Record(step, {"loss": float(step), "nll": 1.0}) for step in (1, 2, 3)]
    left += [Record(4, {"loss": 4.0, "nll": 1.0}, {"loss": 9.0})]
    branch = DrawnBranch(2, run_data("before rewind to 2", left, {"loss": 5.0}, [Edit(3, "loss", "hinge v1")]))
    records = [Record(step, {"loss": 0.0, "nll": 1.0}) for step in (1, 2)]
    data = run_data("", records, {"loss": 5.0}, branches=[branch], branches_left_out=1)
    figure = run_figure(data, charts_of(["loss", "nll"]))
    faint = [trace for trace in figure.data if trace.name.startswith("before rewind")]
    assert [(list(trace.x), list(trace.y)) for trace in faint] == [
        ([2, 3, 4], [2.0, 3.0, 4.0]),
        ([0, 4], [5.0, 9.0]),
        ([2, 3, 4], [1.0, 1.0, 1.0]),
    ]
    assert {trace.name for trace in faint} == {"before rewind to 2 (1 earlier one is not drawn)"}
    assert [trace.showlegend for trace in faint] == [True, False, False]
    assert {(trace.line.dash, trace.opacity) for trace in faint} == {("dot", 0.45)}
    assert figure.layout.xaxis.range[1] == pytest.approx(1.02 * 4 + 0.5)
    assert not any(annotation.text == "hinge v1" for annotation in figure.layout.annotations)
