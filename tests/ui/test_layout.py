"""Which charts a recipe shows, and that its records have what they draw."""

from __future__ import annotations

import pytest

from mint_lab.recipes.record import HISTOGRAM_EDGES, StepRecord
from mint_lab.ui.layout import charts_for
from mint_lab.ui.state import histograms_of

# Training metrics of a step that begins a rollout, and what is held out; the tests of the rl recipe hold it to them.
RL_METRICS = {
    *("loss", "grad_norm", "reward", "frac_reward_zero_std", "completion_length", "clip_frac/low", "clip_frac/high"),
    *("ratio/min", "ratio/max", "kl/k1", "kl/k3", "ess", "entropy_est"),
}
RL_HELD_OUT = {"held_out/reward", "held_out/completion_length"}


def test_charts_of_reinforcement_learning_draw_what_its_records_have() -> None:
    charts = charts_for("rl")
    series = {line["series"] for chart in charts if chart["kind"] == "lines" for line in chart["lines"]}
    assert series == RL_METRICS | RL_HELD_OUT
    assert {line["spread"] for chart in charts for line in chart["lines"]} == {"", "reward_std"}
    (ratios,) = (chart for chart in charts if chart["kind"] == "ratios")
    assert [line["series"] for line in ratios["lines"]] == ["log_ratio/positive", "log_ratio/negative"]
    assert {line["series"] for line in ratios["lines"]} < set(HISTOGRAM_EDGES)
    assert charts[0]["name"] == "reward"


@pytest.mark.parametrize("recipe", ["preference", "sft", "rl"])
def test_names_are_unique(recipe: str) -> None:
    names = [chart["name"] for chart in charts_for(recipe)]
    assert len(set(names)) == len(names)


def test_log_ratios_are_of_training_also_where_there_is_an_evaluation() -> None:
    counts = [0] * 41
    record = StepRecord(
        1,
        0.0,
        0.0,
        1,
        "ppo",
        1,
        held_out={"reward": 1.0},
        histograms={"log_ratio/positive": counts, "margin": [0] * 40},
    )
    found = {h["name"]: h for h in histograms_of(record)}
    assert found["log_ratio/positive"]["source"] == "training"
    assert found["margin"]["source"] == "held-out"
    edges = found["log_ratio/positive"]
    assert (edges["start"], edges["width"], len(edges["counts"])) == (-1.025, 0.05, 41)
