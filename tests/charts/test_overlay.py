"""What several runs share in one chart."""

from __future__ import annotations

import pytest

from mint_lab.charts.chart_spec import CHARTS, ChartSpec, charts_of
from mint_lab.charts.overlay import compared_metrics, ordered_metrics, overlay_charts, stray_overlays
from mint_lab.charts.run_data import run_data
from mint_lab.recipes.registry import RECIPES

from .runs import Record

PREFERENCE = charts_of(RECIPES["preference"].charts)


def test_a_chart_for_every_curve_and_the_losses_last() -> None:
    charts = overlay_charts([*PREFERENCE, *PREFERENCE])
    names = [chart.name for chart in charts]
    expected = ["pair_accuracy", "mean_margin", "logps/chosen", "logps/rejected", "grad_norm", "loss"]
    assert [name for name in names if name in expected] == expected
    assert len(names) == len(set(names))
    assert names[-1] == "loss"
    units = {chart.name: chart.unit for chart in charts}
    assert units["loss"] == "each in its own unit"
    assert units["mean_margin"] == "unscaled, nats"
    assert charts[0].bounds == (0.0, 1.0)


def test_without_the_two_metrics_a_margin_stays_what_the_loss_reports() -> None:
    (chart,) = overlay_charts(charts_of(["mean_margin"]))
    assert (chart.unit, chart.minus) == ("nats", "")


def test_margins_compare_whatever_a_loss_reports() -> None:
    """Run 1 reports its margin times beta 0.1; chosen minus rejected is -1 - -3 = 2 nats."""
    records = [Record(1, {"mean_margin": 0.2, "logps/chosen": -1.0, "logps/rejected": -3.0})]
    chart = next(chart for chart in overlay_charts(PREFERENCE) if chart.name == "mean_margin")
    run = run_data("dpo", records, {"logps/chosen": -2.0, "logps/rejected": -2.5})
    assert chart.training(run) == ([1], [2.0])
    assert chart.held_out(run) == ([0], [0.5])
    alone = run_data("other", [Record(1, {"mean_margin": 0.2})], {})
    assert chart.training(alone) == ([1], [0.2])
    assert chart.held_out(alone) is None


def test_the_difference_is_of_the_steps_that_both_have() -> None:
    records = [Record(1, {"logps/chosen": -1.0}), Record(2, {"logps/chosen": -1.0, "logps/rejected": -4.0})]
    chart = next(chart for chart in overlay_charts(PREFERENCE) if chart.name == "mean_margin")
    assert chart.training(run_data("", records, {})) == ([2], [3.0])


def test_compared_metrics_by_hand() -> None:
    found = {"mean_margin": 0.2, "logps/chosen": -1.0, "logps/rejected": -3.0, "loss": 1.0}
    assert compared_metrics(found) == {**found, "mean_margin": 2.0}
    assert compared_metrics({"mean_margin": 0.2}) == {"mean_margin": 0.2}
    assert found["mean_margin"] == pytest.approx(0.2)  # not changed in place


def test_metrics_in_no_chart_are_overlaid_too() -> None:
    runs = [run_data("a", [Record(1, {"loss": 1.0, "margin_std": 2.0})], {}), run_data("b", [], {"nll": 1.0})]
    assert [chart.name for chart in stray_overlays(runs, PREFERENCE)] == ["margin_std", "nll"]


def test_metrics_stand_in_the_order_of_the_charts() -> None:
    names = ["zeta", "loss", "alpha", "mean_margin", "pair_accuracy"]
    assert ordered_metrics(names, CHARTS.values()) == ["pair_accuracy", "mean_margin", "loss", "alpha", "zeta"]
    assert ordered_metrics(names, [ChartSpec("zeta")])[0] == "zeta"
