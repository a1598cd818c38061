"""One row for each run, with the metrics in the order of the charts."""

from __future__ import annotations

import math

import pytest

from mint_lab.runs.comparison.metric_table import metric_table


def test_common_metrics_come_first_in_the_order_of_the_charts() -> None:
    rows = {
        "a": {
            "loss": "dpo",
            "before": {"loss": 1.0, "pair_accuracy": 0.5},
            "final": {"zeta": 2.0, "loss": 0.5, "pair_accuracy": 1.0},
        },
        "b": {
            "loss": "simpo",
            "before": {"loss": 3.0, "pair_accuracy": 0.5, "nll": 1.0},
            "final": {"loss": 2.0, "pair_accuracy": 0.75},
        },
    }
    frame = metric_table(rows)
    names = [column.removeprefix("before/") for column in frame.columns if column.startswith("before/")]
    assert names == ["pair_accuracy", "loss", "nll", "zeta"]
    assert list(frame.columns[:3]) == ["loss", "before/pair_accuracy", "final/pair_accuracy"]
    assert list(frame.index) == ["a", "b"]
    assert frame.loc["b", "final/pair_accuracy"] == 0.75
    assert math.isnan(frame.loc["b", "final/zeta"])  # type: ignore[arg-type]


def test_margins_are_the_plain_ones() -> None:
    metrics = {"mean_margin": 0.2, "logps/chosen": -1.0, "logps/rejected": -3.0}
    frame = metric_table({"dpo": {"before": {}, "final": metrics}})
    assert frame.loc["dpo", "final/mean_margin"] == pytest.approx(2.0)
    assert math.isnan(frame.loc["dpo", "before/mean_margin"])  # type: ignore[arg-type]


def test_a_table_without_runs_is_empty() -> None:
    assert metric_table({}).empty
