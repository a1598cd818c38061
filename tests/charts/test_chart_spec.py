"""Charts are described once, and completely."""

from __future__ import annotations

import pytest

from mint_lab.charts.chart_spec import (
    CHARTS,
    MOST_STRAY,
    ChartSpec,
    LineSpec,
    OverlayRule,
    charts_of,
    register_chart,
    stray_charts,
    training_curve,
)
from mint_lab.errors import ConfigError
from mint_lab.metrics.registry import HELD_OUT, METRICS
from mint_lab.recipes.record import HISTOGRAM_EDGES
from mint_lab.recipes.registry import RECIPES
from mint_lab.registry import UnknownNameError


@pytest.mark.parametrize("spec", CHARTS.values(), ids=lambda spec: spec.name)
def test_every_chart_is_of_known_metrics_and_says_what_they_mean(spec: ChartSpec) -> None:
    shown = [name for line in spec.lines for name in (line.series, line.spread) if name and spec.kind == "lines"]
    assert {name.removeprefix(HELD_OUT) for name in shown} <= set(METRICS)
    assert spec.described().definition.strip()
    if spec.overlay is not None:
        assert set(spec.overlay.difference) <= set(METRICS)


@pytest.mark.parametrize("spec", [c for c in CHARTS.values() if c.kind != "lines"], ids=lambda spec: spec.name)
def test_a_histogram_spans_the_edges_that_records_count_in(spec: ChartSpec) -> None:
    for name in spec.histograms:
        assert spec.bounds == (HISTOGRAM_EDGES[name][0], HISTOGRAM_EDGES[name][-1])


def test_every_histogram_that_is_recorded_has_one_chart() -> None:
    drawn = [name for chart in CHARTS.values() for name in chart.histograms]
    assert sorted(drawn) == sorted(HISTOGRAM_EDGES)


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_the_charts_of_every_recipe_exist(recipe: object) -> None:
    charts = charts_of(recipe.charts)  # type: ignore[attr-defined]
    assert all(chart.unit is not None and chart.definition for chart in charts)


def test_a_metrics_chart_needs_its_name_only() -> None:
    chart = ChartSpec("pair_accuracy").described()
    assert chart.title == "pair_accuracy"
    assert (chart.unit, chart.bounds) == ("share of pairs", (0.0, 1.0))
    assert chart.definition == METRICS["pair_accuracy"].definition
    assert [(line.series, line.label, line.role) for line in chart.lines] == [
        ("pair_accuracy", "training", "train"),
        ("held_out/pair_accuracy", "held-out", "held_out"),
    ]
    assert chart.metrics == ("pair_accuracy",)
    assert [line.role for line in training_curve("pair_accuracy").lines] == ["train"]


def test_what_a_chart_says_goes_before_what_its_metric_says() -> None:
    chart = ChartSpec("ess", title="size", unit="of 1", bounds=(0.5, 1.0), definition="Mine.").described()
    assert (chart.title, chart.unit, chart.bounds, chart.definition) == ("size", "of 1", (0.5, 1.0), "Mine.")


def test_a_chart_of_several_metrics_has_their_common_unit_and_every_definition() -> None:
    lines = (LineSpec("kl/k1", "k1", "chosen"), LineSpec("reward", "reward", "rejected"))
    mixed = ChartSpec("two", lines=lines).described()
    assert (mixed.unit, mixed.bounds) == ("", None)
    assert mixed.definition.splitlines() == [f"{name}: {METRICS[name].definition}" for name in ("kl/k1", "reward")]
    assert CHARTS["kl"].described().unit == "nats a token"


def test_a_metric_that_nobody_describes_has_a_chart_too() -> None:
    chart = ChartSpec("my_metric").described()
    assert (chart.unit, chart.bounds, chart.definition) == ("", None, "")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ChartSpec(""), "a chart has no name"),
        (lambda: ChartSpec("x", kind="pie"), "kind is 'pie', expected 'lines', 'bars' or 'ratios'"),  # type: ignore[arg-type]
        (lambda: ChartSpec("x", kind="bars", bounds=(0, 1)), "needs two lines .* found 0 lines"),
        (lambda: ChartSpec("x", kind="ratios", lines=(LineSpec("a", "a"), LineSpec("b", "b"))), "bounds None"),
        (lambda: ChartSpec("x", lines=(LineSpec("a"), LineSpec("b"))), r"labels \['training', 'training'\]"),
        (lambda: ChartSpec("x", bounds=(1.0, 0.0)), r"bounds are \(1.0, 0.0\), expected \(low, high\)"),
        (lambda: OverlayRule(difference=("a",)), "expected two metric names or none"),
    ],
)
def test_a_chart_that_cannot_be_drawn_is_refused(make: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make()  # type: ignore[operator]


def test_charts_are_found_by_name_or_taken_as_they_are() -> None:
    own = ChartSpec("mine")
    assert [chart.name for chart in charts_of(["loss", own])] == ["loss", "mine"]
    with pytest.raises(UnknownNameError, match=r"unknown chart 'los'.*loss"):
        charts_of(["los"])
    with pytest.raises(ConfigError, match="two charts are called 'loss'"):
        charts_of(["loss", ChartSpec("loss")])


def test_a_chart_is_registered_once() -> None:
    assert register_chart(CHARTS["nll"]) is CHARTS["nll"]
    with pytest.raises(ConfigError, match="chart 'nll' is already defined"):
        register_chart(ChartSpec("nll", title="another"))
    with pytest.raises(TypeError):
        CHARTS["x"] = ChartSpec("x")  # type: ignore[index]


def test_metrics_in_no_chart_get_one_each() -> None:
    shown = charts_of(["reward", "logps"])
    stray = stray_charts(["reward", "reward_std", "logps/chosen", "held_out/zeta", "zeta", "truncated_frac"], shown)
    assert [chart.name for chart in stray] == ["truncated_frac", "zeta"]
    # Known to the registry, but its vertical axis fits the data: 0.01 would be a flat line between 0 and 1.
    assert (stray[0].unit, stray[0].bounds) == ("share of completions", None)
    assert stray[0].definition == METRICS["truncated_frac"].definition


def test_the_name_of_a_chart_hides_no_metric() -> None:
    """A loss may report a metric called "margin" or "kl", as charts are called that show others."""
    shown = charts_of(["margin", "kl"])
    assert [chart.name for chart in stray_charts(["margin", "kl", "kl/k1"], shown)] == ["kl", "margin"]


def test_a_histogram_in_no_chart_gets_the_registered_one() -> None:
    assert [chart.name for chart in stray_charts([], charts_of(["loss"]), ["margin", "unknown"])] == ["margin"]
    assert stray_charts([], charts_of(["margin"]), ["margin"]) == ()


def test_a_loss_cannot_fill_a_picture_with_charts() -> None:
    assert len(stray_charts([f"m{i}" for i in range(300)], [])) == MOST_STRAY
