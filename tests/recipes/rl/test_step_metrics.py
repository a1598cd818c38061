"""Measurements of a step on responses whose log-probabilities are written by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from mint_lab.losses import LOSSES
from mint_lab.recipes.plan import StepPlan
from mint_lab.recipes.rl.rl_job import RlOptions
from mint_lab.recipes.rl.rollout import GradedResponse, SampledGroup, SampledResponse
from mint_lab.recipes.rl.step_metrics import (
    MAX_CHARACTERS,
    MAX_RATIO,
    MAX_TOKENS,
    best_and_worst,
    measure_step,
    sample_rows,
)

from ...runs.bigram import CharTokenizer


def plan(loss: str, **config: float) -> StepPlan:
    return StepPlan.first(
        LOSSES[loss], config, learning_rate=1e-3, warmup_steps=0, grad_clip_norm=0.0, batch_size=2, steps=1
    )


GROUP = SampledGroup(0, [97, 58], "a:", [])


def response(ratios: list[float], advantage: float, *, group: SampledGroup = GROUP, reward: float = 0.0) -> Any:
    """A response and its datum's log-probabilities, whose ratios to the sampler are ``ratios``.

    The first entry of the row belongs to the prompt; no metric may read it.
    """
    logprobs = [-1.0] * len(ratios)
    sampled = SampledResponse([120] * len(ratios), logprobs, "x" * len(ratios), False)
    row = torch.tensor([-99.0, *(q + math.log(r) for q, r in zip(logprobs, ratios, strict=True))])
    return GradedResponse(group, sampled, reward, advantage), row


def measure(loss: str, *pairs: Any, base: Any = None, on_policy: bool = False, **options: Any) -> Any:
    responses, rows = zip(*pairs, strict=True)
    return measure_step(responses, rows, base, plan(loss), RlOptions(**options), on_policy=on_policy)


def test_ratios_and_clips_by_hand() -> None:
    """Tokens (ratio, advantage): (1.5, +), (1, +), (0.5, -), (1.5, -). PPO clips the first and the third."""
    metrics = measure("ppo", response([1.5, 1.0], 1.0), response([0.5, 1.5], -1.0)).metrics
    assert metrics["ratio/mean"] == pytest.approx(4.5 / 4)
    assert (metrics["ratio/min"], metrics["ratio/max"]) == pytest.approx((0.5, 1.5))
    assert (metrics["clip_frac/low"], metrics["clip_frac/high"]) == (0.25, 0.25)
    assert metrics["out_of_range_frac"] == 0.75
    # E[w]^2 / E[w^2] = (4.5 / 4)^2 / (5.75 / 4)
    assert metrics["ess"] == pytest.approx((4.5 / 4) ** 2 / (5.75 / 4))
    assert "mismatch/mean" not in metrics
    assert "kl_base/k1" not in metrics
    assert "unmasked_prompt_frac" not in metrics


def test_loss_without_a_clip_reports_only_the_usual_range() -> None:
    metrics = measure("importance_sampling", response([1.5, 1.0], 1.0)).metrics
    assert metrics["out_of_range_frac"] == 0.5
    assert not {"clip_frac/low", "clip_frac/high"} & metrics.keys()


def test_mismatch_is_measured_only_on_policy() -> None:
    """|log 1.5| and |log 1| have mean 0.203 and maximum 0.405."""
    metrics = measure("ppo", response([1.5, 1.0], 1.0), on_policy=True).metrics
    assert metrics["mismatch/mean"] == pytest.approx(math.log(1.5) / 2)
    assert metrics["mismatch/max"] == pytest.approx(math.log(1.5))


def test_divergence_from_the_base_model_needs_the_option() -> None:
    """The base model gives each token 1 nat less, so k1 is 1 nat a token."""
    pair = response([1.0, 1.0], 1.0)
    base = [pair[1] - 1]
    assert measure("ppo", pair, base=base, kl_to_base=True).metrics["kl_base/k1"] == pytest.approx(1.0)
    assert "kl_base/k1" not in measure("ppo", pair, base=base).metrics


def test_share_of_prompt_tokens_without_weights() -> None:
    """One of three targets belongs to the prompt."""
    assert measure("dro", response([1.0, 1.0], 1.0), weights=False).metrics["unmasked_prompt_frac"] == pytest.approx(
        1 / 3
    )


def test_histograms_are_separated_by_the_sign_of_the_advantage() -> None:
    histograms = measure("ppo", response([1.0], 1.0), response([1.0, 1.0], -1.0)).histograms
    assert (histograms["log_ratio/positive"][20], sum(histograms["log_ratio/positive"])) == (1, 1)
    assert (histograms["log_ratio/negative"][20], sum(histograms["log_ratio/negative"])) == (2, 2)


def test_best_and_worst_of_the_first_groups() -> None:
    groups = [SampledGroup(k, [97, 58], "a:", []) for k in range(3)]
    rewards = [(0, 0.2), (0, 0.9), (0, 0.1), (1, 0.5), (2, 1.0), (2, 0.0)]
    responses = [response([1.0], 0.0, group=groups[k], reward=reward)[0] for k, reward in rewards]
    assert best_and_worst(responses, 2) == [1, 2, 3]  # the second group has one response, which is both
    assert best_and_worst(responses, 9) == [1, 2, 3, 4, 5]
    assert best_and_worst([], 2) == []


def test_sample_rows_have_ratio_and_clip_of_each_token() -> None:
    best, worst = response([1.5, 1.0], 1.0, reward=1.0), response([0.5, 1.5], -1.0, reward=0.0)
    rows = sample_rows([best[0], worst[0]], [best[1], worst[1]], plan("ppo"), CharTokenizer())
    assert rows[0] == {
        "source": "training",
        "prompt": "a:",
        "response": "xx",
        "reward": 1.0,
        "advantage": 1.0,
        "tokens": ["x", "x"],
        "ratio": [pytest.approx(1.5, abs=1e-6), 1.0],
        "clipped": [True, False],
    }
    assert rows[1]["clipped"] == [True, False]
    assert sample_rows([best[0]], [best[1]], plan("importance_sampling"), CharTokenizer())[0]["clipped"] == [False] * 2


def test_sample_rows_have_a_largest_size() -> None:
    group = SampledGroup(0, [97], "p" * 9000, [])
    long, row = response([1e9] * 1000, 1.0, group=group)
    long = GradedResponse(group, SampledResponse([120] * 1000, [-1.0] * 1000, "r" * 9000, True), 1.0, 1.0)
    (kept,) = sample_rows([long], [row], plan("ppo"), CharTokenizer())
    assert (len(kept["prompt"]), len(kept["response"])) == (MAX_CHARACTERS, MAX_CHARACTERS)
    assert (len(kept["tokens"]), len(kept["ratio"]), len(kept["clipped"])) == (MAX_TOKENS,) * 3
    assert set(kept["ratio"]) == {MAX_RATIO}
