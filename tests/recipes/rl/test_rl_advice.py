"""Findings about rollouts, on hand-made numbers: each gives its number, and a healthy run has none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from mint_lab.recipes.record import StepRecord
from mint_lab.recipes.rl.recipe import Rl
from mint_lab.recipes.rl.rl_advice import rl_findings
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
ONE_UPDATE = {"rollout/updates_per_rollout": 1.0}


def record(step: int = 1, *, name: str = "ppo", settings: dict[str, float] | None = None, **metrics: Any) -> StepRecord:
    names = {key.replace("__", "/"): value for key, value in metrics.items()}
    return StepRecord(step, 0.0, 0.0, 1, name, 1, {**HEALTHY, **names}, settings={**SETTINGS, **(settings or {})})


def unclipped(count: int, **settings: float) -> list[StepRecord]:
    settings = {name.replace("__", "/"): value for name, value in settings.items()}
    return [record(k, settings=settings, clip_frac__low=0.0, clip_frac__high=0.0) for k in range(1, count + 1)]


def all_findings(records: Sequence[StepRecord]) -> dict[str, str]:
    """The recipe's findings together with those of every run."""
    return findings(records, recipe=Rl())


def test_healthy_run_has_no_finding() -> None:
    assert all_findings([record(k + 1, reward=0.3 + 0.01 * k) for k in range(60)]) == {}


@pytest.mark.parametrize("reported", [{"reward": 0.5}, {"clip_frac/low": 0.0}, {"sampling_time": 1.0, "reward": 1.0}])
def test_metrics_of_a_loss_are_not_mistaken_for_a_rollout_or_a_clip(reported: dict[str, float]) -> None:
    settings = SETTINGS | ONE_UPDATE
    records = [
        StepRecord(k, 0.0, 0.0, 1, "mine", 1, {"loss": 0.1, **reported}, settings=settings) for k in range(1, 40)
    ]
    assert [all_findings(records[: k + 1]) for k in range(len(records))] == [{}] * len(records)


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
def test_mismatch_names_its_cause(settings: Any, mismatch: float, words: str) -> None:
    text = rl_findings([record(settings=settings, mismatch__mean=mismatch)])["mismatch"]
    assert f"{mismatch:.2g} nats a token" in text
    assert words in text
    assert "temperature=1" in text or "top_p=1" in text or "number formats" in text


def test_rounding_is_not_a_mismatch() -> None:
    assert rl_findings([record(mismatch__mean=0.015)]) == {}, "16-bit samplers have this"
    assert rl_findings([record(mismatch__mean=5e-5, settings={"rollout/temperature": 1.0001})]) == {}


def test_never_clipped_is_reported_while_it_holds() -> None:
    quiet = unclipped(29, rollout__updates_per_rollout=1.0)
    text = all_findings(quiet[:5])["never clipped"]
    assert text.startswith("For information: nothing was clipped in the last 5 updates, because each rollout has one")
    assert "With updates_per_rollout=4 ratios change" in text
    assert all_findings(quiet[:2]) == {}, "too early"
    assert set(all_findings(quiet)) == {"never clipped"}


@pytest.mark.parametrize(
    "settings",
    [
        {"rollout__updates_per_rollout": 2.0},
        {"rollout__updates_per_rollout": 1.0, "rollout__minibatches": 2.0},
        {"rollout__updates_per_rollout": 1.0, "rollout__temperature": 0.9},
        {"rollout__updates_per_rollout": 1.0, "rollout__delay": 4.0},
    ],
)
def test_never_clipped_needs_ratios_that_stay_1(settings: dict[str, float]) -> None:
    assert rl_findings(unclipped(5, **settings)) == {}


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
            "20% of the responses were truncated at max_tokens (16)",
        ),
    ],
)
def test_number_beyond_its_limit_is_reported(kind: str, bad: Any, good: Any, number: str) -> None:
    assert number in rl_findings([record(**bad)])[kind]
    assert rl_findings([record(**good)]) == {}


@pytest.mark.parametrize("name", ["ess", "kl/k1", "mismatch/mean"])
def test_nan_is_not_beyond_a_limit(name: str) -> None:
    """A nan of the loss itself is a finding of every run; a nan here must not look like advice."""
    assert rl_findings([record(**{name.replace("/", "__"): float("nan")})]) == {}


def test_dro_without_weights_is_reported() -> None:
    text = rl_findings([record(name="dro", unmasked_prompt_frac=0.75)])["unmasked"]
    assert "75% of its tokens belong to prompts" in text
    assert rl_findings([record(name="dro")]) == {}
    assert rl_findings([record(name="ppo", unmasked_prompt_frac=0.75)]) == {}, "its advantage is 0 on the prompt"


def test_entropy_collapse_needs_a_reward_that_does_not_rise() -> None:
    entropy = [0.5] * 10 + [0.02] * 5
    stuck = [record(k + 1, entropy_est=e, reward=0.3) for k, e in enumerate(entropy)]
    assert "fell from 0.5 to 0.02 nats" in rl_findings(stuck)["entropy"]
    learning = [record(k + 1, entropy_est=e, reward=0.3 + 0.04 * k) for k, e in enumerate(entropy)]
    assert "entropy" not in rl_findings(learning)
    assert "entropy" not in rl_findings(stuck[:9]), "too early"


def test_flat_reward_is_reported_with_its_standard_error() -> None:
    """Each half alternates 0.55 and 0.45: standard deviation 0.0513, error sqrt(2 * 0.0513**2 / 20) = 0.0162."""
    noisy = [0.5 + 0.05 * (-1) ** k for k in range(40)]
    flat = rl_findings([record(k + 1, reward=r) for k, r in enumerate(noisy)])["reward flat"]
    assert "0.500 in the last 20 rollouts after 0.500 in the first 20" in flat
    assert "(2 x 0.016)" in flat
    up = [record(k + 1, reward=r + 0.004 * k) for k, r in enumerate(noisy)]
    assert "reward flat" not in rl_findings(up)
    assert "reward flat" not in rl_findings([record(k + 1, reward=r) for k, r in enumerate(noisy[:29])]), "too early"
    solved = [record(k + 1, reward=1.0, frac_reward_zero_std=1.0) for k in range(40)]
    assert set(rl_findings(solved)) == {"solved"}
    assert "reward flat" in rl_findings([record(k + 1, reward=0.5) for k in range(40)])


@pytest.mark.parametrize("losses", [[0.1] * 10 + [9.0] * 15, [0.1, 5.0, 9.0, 7.0, 8.0, 9.0, 9.0, 9.0]])
def test_policy_loss_is_never_said_to_diverge(losses: list[float]) -> None:
    """Its value gives a direction, so neither its rise nor its first value means anything."""
    records = [record(k + 1, loss=x, reward=0.3 + 0.01 * k) for k, x in enumerate(losses)]
    assert "diverging" not in all_findings(records)
    assert "diverging" in findings(records), "the recipe says so, not the numbers"


def test_collapse_of_the_reward_is_a_divergence() -> None:
    """Measured with learning_rate=1e3: after the first update every response is wrong and fills max_tokens."""
    good = [record(k, reward=0.4, frac_reward_zero_std=0.3) for k in range(1, 3)]
    bad = [record(k, reward=0.0, frac_reward_zero_std=1.0, truncated_frac=1.0) for k in range(3, 6)]
    found = all_findings([*good, *bad])
    assert set(found) == {"diverging"}
    assert "The mean reward fell from 0.4 to 0 in the last 3 rollouts" in found["diverging"]
    assert "lower learning rate" in found["diverging"]
    assert "diverging" not in all_findings([*good, *bad[:2]]), "two rollouts may be bad by chance"


@pytest.mark.parametrize(
    "bad",
    [
        {"reward": 0.1, "frac_reward_zero_std": 1.0},  # a quarter is left
        {"reward": 0.0, "frac_reward_zero_std": 0.5},  # half of the groups still give a signal
        {"reward": -3.0, "frac_reward_zero_std": 1.0},  # a reward that can be negative has no zero to fall to
    ],
)
def test_lower_reward_alone_is_no_collapse(bad: dict[str, float]) -> None:
    good = [record(k, reward=0.4, frac_reward_zero_std=0.3) for k in range(1, 3)]
    assert "diverging" not in all_findings([*good, *(record(k, **bad) for k in range(3, 6))])
    never = [record(k, reward=0.0, frac_reward_zero_std=1.0) for k in range(1, 6)]
    assert "diverging" not in all_findings(never)
