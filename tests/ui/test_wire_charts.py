"""The page gets the charts and metrics as they are described once, and its messages carry every stray metric."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from mint_lab.charts.chart_spec import CHARTS, charts_of
from mint_lab.metrics.registry import METRICS
from mint_lab.recipes.registry import RECIPES
from mint_lab.ui.publisher import Publisher
from mint_lab.ui.wire_charts import charts_for, metric_entries
from tests.ui.scripted import ScriptedRun, record

# Training metrics of a step that begins a rollout, and what is held out; the tests of the rl recipe hold it to them.
RL_METRICS = {
    *("loss", "grad_norm", "reward", "frac_reward_zero_std", "completion_length", "clip_frac/low", "clip_frac/high"),
    *("ratio/min", "ratio/max", "kl/k1", "kl/k3", "ess", "entropy_est"),
}
RL_HELD_OUT = {"held_out/reward", "held_out/completion_length"}


@pytest.mark.parametrize("recipe", RECIPES)
def test_charts_travel_as_they_are_described(recipe: str) -> None:
    charts = charts_for(recipe)
    specs = charts_of(RECIPES[recipe].charts)
    assert [(c["name"], c["title"], c["kind"], c["unit"]) for c in charts] == [
        (spec.name, spec.title, spec.kind, spec.unit) for spec in specs
    ]
    assert [c["definition"] for c in charts] == [spec.definition for spec in specs]
    assert all(c["definition"] for c in charts)
    assert json.loads(json.dumps(charts)) == charts


def test_fields_by_hand() -> None:
    charts = {chart["name"]: chart for chart in charts_for("preference")}
    assert charts["pair_accuracy"]["bounds"] == [0.0, 1.0]
    assert charts["pair_accuracy"]["lines"] == [
        {"series": "pair_accuracy", "label": "training", "role": "train", "spread": ""},
        {"series": "held_out/pair_accuracy", "label": "held-out", "role": "held_out", "spread": ""},
    ]
    assert charts["mean_margin"]["overlay"] == {
        "difference": ["logps/chosen", "logps/rejected"],
        "unit": "unscaled, nats",
        "last": False,
    }
    assert charts["loss"]["overlay"] == {"difference": [], "unit": "each in its own unit", "last": True}
    assert charts["grad_norm"]["overlay"] is None
    margin = charts["margin"]
    assert (margin["kind"], margin["axis"], margin["counts"]) == ("bars", "chosen \N{MINUS SIGN} rejected", "pairs")
    assert (margin["bounds"], [line["label"] for line in margin["lines"]]) == ([-20.0, 20.0], ["above 0", "below 0"])


def test_charts_of_reinforcement_learning_draw_what_its_records_have() -> None:
    charts = charts_for("rl")
    series = {line["series"] for chart in charts if chart["kind"] == "lines" for line in chart["lines"]}
    assert series == RL_METRICS | RL_HELD_OUT
    assert {line["spread"] for chart in charts for line in chart["lines"]} == {"", "reward_std"}
    (ratios,) = (chart for chart in charts if chart["kind"] == "ratios")
    assert [line["series"] for line in ratios["lines"]] == list(CHARTS["log_ratio"].histograms)
    assert charts[0]["name"] == "reward"


def test_every_known_metric_is_described_to_the_page() -> None:
    entries = metric_entries()
    assert list(entries) == list(METRICS)
    assert entries["truncated_frac"] == {
        "definition": METRICS["truncated_frac"].definition,
        "unit": "share of completions",
    }


def test_a_metric_in_no_chart_reaches_the_page() -> None:
    run = ScriptedRun(3)
    publisher = Publisher(run, lambda message, buffers: None)
    run.append(*(record(step, 3, margin_std=2.0) for step in range(1, 4)))
    snapshot = publisher.snapshot()
    publisher.close()
    assert "margin_std" in {series["name"] for series in snapshot["series"]}
    assert snapshot["metrics"] == metric_entries()


def test_chart_of_a_recipe_is_utf8(monkeypatch: pytest.MonkeyPatch) -> None:
    real = charts_of(RECIPES["sft"].charts)
    half = replace(real[0], title="half \ud83d")
    monkeypatch.setattr("mint_lab.ui.wire_charts.charts_of", lambda names: (half, *real[1:]))
    assert charts_for("sft")[0]["title"] == "half \\ud83d"
