"""Warnings of reinforcement learning, by hand-made numbers: each with its own number, and none without a cause."""

from __future__ import annotations

from typing import Any

import pytest

from mint_lab.recipes.record import StepRecord
from mint_lab.runs.advice import findings

HEALTHY = {
    "loss": 0.1,
    "grad_norm": 1.0,
    "ratio/mean": 1.0,
    "ess": 1.0,
    "kl/k1": 0.0,
    "entropy_est": 0.5,
    "clip_frac/low": 0.01,
    "clip_frac/high": 0.01,
    "mismatch/mean": 1e-7,
    "sampling_time": 0.1,
    "reward": 0.5,
    "frac_reward_zero_std": 0.3,
    "truncated_frac": 0.0,
}
SETTINGS = {
    "rollout/group_size": 8.0,
    "rollout/temperature": 1.0,
    "rollout/top_p": 1.0,
    "rollout/top_k": -1.0,
    "rollout/updates_per_rollout": 2.0,
    "rollout/minibatches": 1.0,
    "rollout/delay": 0.0,
    "rollout/max_tokens": 16.0,
}


def record(step: int = 1, *, name: str = "ppo", settings: dict[str, float] | None = None, **metrics: Any) -> StepRecord:
    names = {key.replace("__", "/"): value for key, value in metrics.items()}
    return StepRecord(step, 0.0, 0.0, 1, name, 1, {**HEALTHY, **names}, settings={**SETTINGS, **(settings or {})})


def rising(n: int, **metrics: Any) -> list[StepRecord]:
    """A run whose reward rises clearly."""
    return [record(k + 1, reward=0.3 + 0.01 * k, **metrics) for k in range(n)]


def told(*records: StepRecord) -> dict[str, str]:
    return findings(list(records))


def test_nothing_to_say_of_a_healthy_run() -> None:
    assert findings(rising(60)) == {}


@pytest.mark.parametrize("reported", [{"reward": 0.5}, {"clip_frac/low": 0.0}, {"sampling_time": 1.0, "reward": 1.0}])
def test_what_a_loss_reports_itself_is_not_taken_for_a_rollout_or_a_clip(reported: dict[str, float]) -> None:
    settings = SETTINGS | {"rollout/updates_per_rollout": 1.0}
    records = [
        StepRecord(k, 0.0, 0.0, 1, "mine", 1, {"loss": 0.1, **reported}, settings=settings) for k in range(1, 40)
    ]
    assert [findings(records[: k + 1]) for k in range(len(records))] == [{}] * len(records)


def test_other_recipes_are_left_alone() -> None:
    sft = StepRecord(1, 0.0, 0.0, 1, "cross_entropy", 1, {"loss": 1.0, "grad_norm": 1.0, "ess": 0.0})
    assert findings([sft]) == {}


@pytest.mark.parametrize(
    ("settings", "mismatch", "words"),
    [
        ({}, 0.03, "arithmetic differs"),
        ({"rollout/temperature": 0.7}, 0.03, "temperature 0.7"),
        ({"rollout/temperature": 0.99}, 0.001, "temperature 0.99"),
        ({"rollout/top_p": 0.9}, 0.01, "top_p=0.9"),
        ({"rollout/top_k": 40.0, "rollout/top_p": 0.9}, 0.01, "top_p=0.9, top_k=40"),
    ],
)
def test_ratios_that_do_not_start_at_1(settings: Any, mismatch: float, words: str) -> None:
    text = told(record(settings=settings, mismatch__mean=mismatch))["mismatch"]
    assert f"{mismatch:.2g} nats a token" in text
    assert words in text
    assert "temperature=1" in text or "top_p=1" in text or "number formats" in text


def test_rounding_is_no_mismatch() -> None:
    assert told(record(mismatch__mean=0.015)) == {}, "what 16-bit samplers have"
    assert told(record(mismatch__mean=5e-5, settings={"rollout/temperature": 1.0001})) == {}


def test_no_clip_with_one_update_is_information() -> None:
    once = {"rollout/updates_per_rollout": 1.0}
    quiet = [record(k, settings=once, clip_frac__low=0.0, clip_frac__high=0.0) for k in range(1, 30)]
    text = findings(quiet[:5])["never clipped"]
    assert text.startswith("For information: nothing was clipped in the last 5 updates, because there is one update")
    assert "updates_per_rollout=4 makes them move" in text
    assert findings(quiet[:2]) == {}, "too early"
    assert set(findings(quiet)) == {"never clipped"}, "still true, and a page may be looked at when the run has ended"
    assert findings([record(k, clip_frac__low=0.0, clip_frac__high=0.0) for k in range(1, 6)]) == {}, "two updates"
    hot = {**once, "rollout/temperature": 0.9}  # there the ratios are not 1
    assert findings([record(k, settings=hot, clip_frac__low=0.0, clip_frac__high=0.0) for k in range(1, 6)]) == {}
    delayed = {**once, "rollout/delay": 4.0}
    assert findings([record(k, settings=delayed, clip_frac__low=0.0, clip_frac__high=0.0) for k in range(1, 6)]) == {}


@pytest.mark.parametrize(
    ("kind", "bad", "good", "number"),
    [
        ("ess", {"ess": 0.29}, {"ess": 0.31}, "29% of the tokens"),
        ("k1", {"kl__k1": 0.11}, {"kl__k1": 0.09}, "kl/k1 is 0.11"),
        ("k1", {"kl__k1": -0.2}, {"kl__k1": -0.09}, "kl/k1 is -0.2"),
        ("no spread", {"frac_reward_zero_std": 0.81}, {"frac_reward_zero_std": 0.79}, "In 81% of the groups"),
        (
            "truncated",
            {"truncated_frac": 0.2},
            {"truncated_frac": 0.05},
            "20% of the responses were cut at max_tokens (16)",
        ),
    ],
)
def test_numbers_over_their_limit(kind: str, bad: Any, good: Any, number: str) -> None:
    assert number in told(record(**bad))[kind]
    assert told(record(**good)) == {}


def test_dro_without_weights() -> None:
    text = told(record(name="dro", unmasked_prompt_frac=0.75))["unmasked"]
    assert "75% of the tokens it counts belong to prompts" in text
    assert told(record(name="dro")) == {}
    assert told(record(name="ppo", unmasked_prompt_frac=0.75)) == {}, "there the advantage is 0"


def test_entropy_that_collapses_and_entropy_that_is_spent_on_learning() -> None:
    entropy = [0.5] * 10 + [0.02] * 5
    stuck = [record(k + 1, entropy_est=e, reward=0.3) for k, e in enumerate(entropy)]
    assert "fell from 0.5 to 0.02 nats" in findings(stuck)["entropy"]
    learning = [record(k + 1, entropy_est=e, reward=0.3 + 0.04 * k) for k, e in enumerate(entropy)]
    assert "entropy" not in findings(learning)
    assert "entropy" not in findings(stuck[:9])


def test_a_reward_that_does_not_move() -> None:
    noisy = [0.5 + 0.05 * (-1) ** k for k in range(40)]
    flat = findings([record(k + 1, reward=r) for k, r in enumerate(noisy)])["reward flat"]
    assert "0.500 in the last 20 rollouts after 0.500" in flat
    up = [record(k + 1, reward=r + 0.004 * k) for k, r in enumerate(noisy)]
    assert "reward flat" not in findings(up)
    assert "reward flat" not in findings([record(k + 1, reward=r) for k, r in enumerate(noisy[:29])]), "too early"
    solved = [record(k + 1, reward=1.0, frac_reward_zero_std=1.0) for k in range(40)]
    assert set(findings(solved)) == {"no spread"}
    assert "reward flat" in findings([record(k + 1, reward=0.5) for k in range(40)])


def test_a_policy_loss_is_not_said_to_diverge() -> None:
    losses = [0.1] * 10 + [9.0] * 15
    assert "diverging" not in findings([record(k + 1, loss=x, reward=0.3 + 0.01 * k) for k, x in enumerate(losses)])


def test_a_policy_loss_is_not_held_against_its_first_value() -> None:
    losses = [0.1, 5.0, 9.0, 7.0, 8.0, 9.0, 9.0, 9.0]
    records = [record(k + 1, loss=x, reward=0.3 + 0.01 * k) for k, x in enumerate(losses)]
    assert "diverging" not in findings(records)
    for one in records:  # a custom loss that has no ratio
        del one.metrics["ratio/mean"]
    assert "diverging" not in findings(records)
