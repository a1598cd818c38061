"""Losses and metrics at their edges: a ratio exactly at the bound of a clip, ties of a pair, weights that are all 0."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from mint_lab.data.render import to_datum
from mint_lab.errors import DataError
from mint_lab.losses import LOSSES
from mint_lab.losses.clip import ClipBound, RatioClip
from mint_lab.metrics import (
    clip_metrics,
    completion_metrics,
    displacement_frac,
    log_ratios_by_sign,
    mismatch_metrics,
    pair_metrics,
    ratio_metrics,
    reward_metrics,
)

ONE = 1.0
BELOW, ABOVE = np.nextafter(np.float32(0.5), np.float32(0)).item(), np.nextafter(np.float32(2), np.float32(3)).item()


@pytest.mark.parametrize(
    ("ratio", "advantage", "one_side", "both_sides"),
    [
        (0.5, -ONE, False, False),
        (BELOW, -ONE, True, True),
        (BELOW, ONE, False, True),
        (BELOW, 0.0, False, True),
        (2.0, ONE, False, False),
        (ABOVE, ONE, True, True),
        (ABOVE, -ONE, False, True),
        (ABOVE, 0.0, False, True),
    ],
)
def test_clip_is_active_beyond_its_bounds(ratio: float, advantage: float, one_side: bool, both_sides: bool) -> None:
    bounds = ClipBound("low"), ClipBound("high")
    config = {"low": 0.5, "high": 2.0}
    assert RatioClip(*bounds).active(ratio, advantage, config) == one_side
    assert RatioClip(*bounds, both=True).active(ratio, advantage, config) == both_sides


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "expected"),
    [
        (math.log(0.5) + 1e-9, -1.0, (0, 0, 0)),
        (math.log(0.5) - 1e-9, -1.0, (1, 0, 1)),
        (math.log(0.5) - 1e-9, 1.0, (0, 0, 1)),
        (math.log(2.0) - 1e-9, 1.0, (0, 0, 0)),
        (math.log(2.0) + 1e-9, 1.0, (0, 1, 1)),
        (math.log(2.0) + 1e-9, -1.0, (0, 0, 1)),
        (math.log(2.0) + 1e-9, 0.0, (0, 0, 1)),
    ],
)
def test_clip_metrics_at_their_bounds(log_ratio: float, advantage: float, expected: tuple[float, ...]) -> None:
    logp = torch.tensor([log_ratio], dtype=torch.float64)
    found = clip_metrics(
        logp, torch.zeros(1), torch.tensor([advantage]), clip_low_threshold=0.5, clip_high_threshold=2.0
    )
    assert found == dict(zip(("clip_frac/low", "clip_frac/high", "out_of_range_frac"), expected, strict=True))


def test_default_bounds_of_clip_metrics_are_those_of_ppo() -> None:
    logp = torch.tensor([0.79, 0.81, 1.19, 1.21], dtype=torch.float64).log()
    found = clip_metrics(logp, torch.zeros(4), torch.tensor([-1.0, -1.0, 1.0, 1.0]))
    assert found == {"clip_frac/low": 0.25, "clip_frac/high": 0.25, "out_of_range_frac": 0.5}


def builtin(name: str, ratio: float, advantage: float, **config: float) -> tuple[float, float]:
    """Value and slope of one token at a sampler's log-probability of 0."""
    logp = torch.tensor([ratio], dtype=torch.float64).log().requires_grad_()
    spec = LOSSES[name]
    fields: dict[str, Any] = {
        "sampling_logprobs": torch.zeros(1, dtype=torch.float64),
        "advantages": torch.tensor([advantage], dtype=torch.float64),
        "weights": torch.ones(1, dtype=torch.float64),
    }
    loss = spec.fn(logp, **fields, **spec.config(config)).sum()
    (slope,) = torch.autograd.grad(loss, logp)
    return float(loss.detach()), float(slope)


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "slope"),
    [
        (1.9, 1.0, -1.9, -1.9),
        (2.1, 1.0, -2.0, 0.0),
        (2.1, -1.0, 2.1, 2.1),
        (0.6, -1.0, 0.6, 0.6),
        (0.4, -1.0, 0.5, 0.0),
        (0.4, 1.0, -0.4, -0.4),
    ],
)
def test_ppo_on_either_side_of_its_bounds(ratio: float, advantage: float, value: float, slope: float) -> None:
    found = builtin("ppo", ratio, advantage, clip_low_threshold=0.5, clip_high_threshold=2.0)
    assert found == pytest.approx((value, slope))


@pytest.mark.parametrize(
    ("ratio", "advantage", "slope"),
    [(1.9, 1.0, -1.9), (2.1, 1.0, -2.0), (2.1, -1.0, 2.0), (0.6, 1.0, -0.6), (0.4, 1.0, -0.5)],
)
def test_cispo_keeps_the_slope_of_a_clamped_ratio(ratio: float, advantage: float, slope: float) -> None:
    """Its slope is minus the clamped ratio times the advantage, on both sides of either bound."""
    found = builtin("cispo", ratio, advantage, clip_low_threshold=0.5, clip_high_threshold=2.0)
    assert found[1] == pytest.approx(slope)


@pytest.mark.parametrize("name", ["cross_entropy", "importance_sampling", "ppo", "cispo", "dro"])
def test_weights_that_are_all_0_give_a_loss_and_a_gradient_of_0(name: str) -> None:
    spec = LOSSES[name]
    logp = torch.tensor([-1.0, -2.0]).requires_grad_()
    fields: dict[str, Any] = {"weights": torch.zeros(2)}
    if name != "cross_entropy":
        fields |= {"sampling_logprobs": torch.tensor([-3.0, -1.0]), "advantages": torch.tensor([1.0, -1.0])}
    loss = spec.fn(logp, **fields, **spec.config({})).sum()
    (gradient,) = torch.autograd.grad(loss, logp)
    assert float(loss.detach()) == 0.0
    assert gradient.tolist() == [0.0, 0.0]


PAIR_LOSSES = [name for name, spec in LOSSES.items() if spec.unit == "pair"]


@pytest.mark.parametrize("name", PAIR_LOSSES)
def test_tied_pair_counts_as_wrong(name: str) -> None:
    """Both sides have the same log-probability, so neither is ranked above the other."""
    reference = np.full(3, -1.0, np.float32)
    data = [to_datum([1, 2, 3, token], 2, reference_logprobs=reference) for token in (4, 5)]
    leaves = [torch.full((3,), -1.0, requires_grad=True) for _ in data]
    _, metrics = LOSSES[name].bind()(data, leaves)
    assert metrics["pair_accuracy"] == 0.0
    assert metrics["mean_margin"] == pytest.approx(0.0, abs=1e-6)


def test_metrics_of_ties() -> None:
    scores = torch.tensor([-1.0, -2.0, -3.0])
    lower = torch.tensor([-1.0, -2.5, -2.5])
    assert pair_metrics(scores, lower) == pytest.approx(
        {"pair_accuracy": 1 / 3, "mean_margin": 0.0, "logps/chosen": -2.0, "logps/rejected": -2.0}
    )
    assert displacement_frac(scores, lower, scores, lower) == 0.0, "no margin rose, no completion fell"
    assert displacement_frac(scores, lower - 1, scores, lower) == 0.0, "the chosen completions did not fall"
    assert displacement_frac(scores - 1, lower - 1, scores, lower) == 0.0, "the margins are the same"
    assert displacement_frac(scores - 1, lower - 2, scores, lower) == 1.0


def test_weight_of_any_sign_counts_a_token() -> None:
    logp, logq = torch.tensor([-1.0, -2.0, -3.0]), torch.tensor([-1.5, -1.0, 0.0])
    weights = torch.tensor([-2.0, 1e-9, 0.0])
    assert mismatch_metrics(logp, logq, weights) == {"mismatch/mean": 0.75, "mismatch/max": 1.0}
    assert ratio_metrics(logp, logq, weights)["kl/k1"] == pytest.approx((-0.5 + 1.0) / 2)
    up, down = log_ratios_by_sign(logp, logq, torch.tensor([0.0, -1.0, 1.0]), weights)
    assert (up.tolist(), down.tolist()) == ([], [-1.0])


def test_refused_metrics_are_named() -> None:
    with pytest.raises(DataError) as caught:
        ratio_metrics(torch.zeros(2), torch.zeros(2), torch.zeros(2))
    assert str(caught.value) == "field 'weights': no token has a nonzero weight, expected at least one"
    with pytest.raises(DataError, match=r"^shapes differ: \[\(2,\), \(3,\)\], expected one value per token in each"):
        ratio_metrics(torch.zeros(3), torch.zeros(2))
    with pytest.raises(DataError, match=r"^datum 1: the group has no completions, expected at least one reward$"):
        reward_metrics([[1.0], [], []])
    with pytest.raises(DataError, match=r"^there are no groups, expected one group of rewards per prompt$"):
        reward_metrics([])
    with pytest.raises(DataError, match=r"^1 lengths and 2 flags, expected one of each per completion, at least one$"):
        completion_metrics([3], [True, False])
    with pytest.raises(DataError, match=r"^0 lengths and 0 flags"):
        completion_metrics([], [])


@pytest.mark.parametrize(("difference", "share"), [(0.0, 1.0), (1.4e-8, 1.0), (1.5e-8, 0.0)])
def test_rewards_of_a_group_are_equal_up_to_rounding(difference: float, share: float) -> None:
    """The standard deviation of two rewards is their difference over the root of 2; up to 1e-8 it counts as 0."""
    assert reward_metrics([[0.0, difference]])["frac_reward_zero_std"] == share


def test_groups_of_one_completion_have_no_spread() -> None:
    assert reward_metrics([[3.0]]) == {"reward": 3.0, "reward_std": 0.0, "group_std": 0.0, "frac_reward_zero_std": 1.0}
