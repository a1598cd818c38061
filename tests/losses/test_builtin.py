"""The four policy losses: by hand, against the documented formulas, clipping by sign, and masks."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.errors import ConfigError
from mint_lab.losses import LOSSES

NAMES = [name for name, spec in LOSSES.items() if spec.builtin and "advantages" in spec.inputs]
LO, HI, BETA = 0.8, 1.2, 0.05


def documented(
    name: str, target_logprobs: torch.Tensor, sampling_logprobs: torch.Tensor, advantages: torch.Tensor
) -> torch.Tensor:
    """MinT's formulas as its documentation prints them (without weights), per token."""
    clip_low_threshold, clip_high_threshold, beta = LO, HI, BETA
    prob_ratio = torch.exp(target_logprobs - sampling_logprobs)
    clipped_ratio = torch.clamp(prob_ratio, clip_low_threshold, clip_high_threshold)
    if name == "importance_sampling":
        return -(prob_ratio * advantages)
    if name == "ppo":
        return -torch.min(prob_ratio * advantages, clipped_ratio * advantages)
    if name == "cispo":
        return -(clipped_ratio.detach() * target_logprobs * advantages)
    if name != "dro":
        raise AssertionError(f"add the documented formula of {name}")
    quadratic_term = (target_logprobs - sampling_logprobs) ** 2
    return -(target_logprobs * advantages - 0.5 * beta * quadratic_term)


def value_and_gradient(
    name: str, logp: Any, logq: Any, advantages: Any, weights: Any, **config: float
) -> tuple[list[float], list[float]]:
    leaf = torch.as_tensor(logp, dtype=torch.float32).clone().requires_grad_()
    made = [torch.as_tensor(x, dtype=torch.float32) for x in (weights, logq, advantages)]
    loss = LOSSES[name].fn(leaf, weights=made[0], sampling_logprobs=made[1], advantages=made[2], **config)
    loss.sum().backward()
    assert leaf.grad is not None
    return loss.tolist(), leaf.grad.tolist()


# r = 1.5, 1.0, 0.5 for logq = -1; A = 2 and A = -2; by hand value and d/dlogp.
# importance sampling: -rA, gradient -rA. ppo: r=1.5 A=2 -> -1.2*2 flat; r=.5 A=2 -> -0.5*2 moving; r=1.5 A=-2 -> 3
# moving; r=.5 A=-2 -> 0.8*2 flat.  cispo: -clamp(r)*A*logp, gradient -clamp(r)*A.
BY_HAND = [
    ("importance_sampling", 1.5, 2, -3.0, -3.0),
    ("importance_sampling", 0.5, -2, 1.0, 1.0),
    ("ppo", 1.5, 2, -2.4, 0.0),
    ("ppo", 1.0, 2, -2.0, -2.0),
    ("ppo", 0.5, 2, -1.0, -1.0),
    ("ppo", 1.5, -2, 3.0, 3.0),
    ("ppo", 1.0, -2, 2.0, 2.0),
    ("ppo", 0.5, -2, 1.6, 0.0),
    ("cispo", 1.5, 2, -1.2 * 2 * (math.log(1.5) - 1), -2.4),
    ("cispo", 0.5, 2, -0.8 * 2 * (math.log(0.5) - 1), -1.6),
    ("cispo", 1.5, -2, 1.2 * 2 * (math.log(1.5) - 1), 2.4),
    ("cispo", 0.5, -2, 0.8 * 2 * (math.log(0.5) - 1), 1.6),
    # -(logp A - beta/2 g^2), gradient -(A - beta g), g = ln r
    ("dro", 1.5, 2, -(2 * (math.log(1.5) - 1) - 0.025 * math.log(1.5) ** 2), -(2 - 0.05 * math.log(1.5))),
    ("dro", 0.5, 0, 0.025 * math.log(2) ** 2, -0.05 * math.log(2)),
]


@pytest.mark.loss_reference("importance_sampling", "ppo", "dro")
@pytest.mark.loss_reference("cispo", stops_gradient=True)
@pytest.mark.parametrize("case", BY_HAND)
@pytest.mark.parametrize("weight", [1.0, 0.25])
def test_by_hand(case: tuple[str, float, float, float, float], weight: float) -> None:
    name, ratio, advantage, value, gradient = case
    found = value_and_gradient(name, [math.log(ratio) - 1], [-1.0], [advantage], [weight])
    assert found[0] == pytest.approx([weight * value], rel=1e-5)
    assert found[1] == pytest.approx([weight * gradient], rel=1e-5, abs=1e-7)


token = st.tuples(st.floats(-8, 0, width=32), st.floats(-8, 0, width=32), st.floats(-3, 3, width=32))


@pytest.mark.parametrize("name", NAMES)
@given(tokens=st.lists(token, min_size=1, max_size=12))
def test_they_are_the_documented_formulas(name: str, tokens: list[tuple[float, float, float]]) -> None:
    logp, logq, advantages = torch.tensor(tokens).T
    leaf = logp.clone().requires_grad_()
    expected = documented(name, leaf, logq, advantages)
    expected.sum().backward()
    assert leaf.grad is not None
    value, gradient = value_and_gradient(name, logp, logq, advantages, torch.ones(len(tokens)))
    torch.testing.assert_close(torch.tensor(value), expected.detach(), rtol=1e-5, atol=1e-6)
    ratio = torch.exp(logp - logq)
    off_edge = ((ratio - LO).abs() > 1e-5) & ((ratio - HI).abs() > 1e-5)  # at an edge one-sided gradients differ
    torch.testing.assert_close(torch.tensor(gradient)[off_edge], leaf.grad[off_edge], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("odd", [math.inf, -math.inf, math.nan, -1e4])
@pytest.mark.parametrize("field", ["logp", "logq", "advantages"])
def test_a_weight_of_0_adds_exactly_0(name: str, odd: float, field: str) -> None:
    clean = {"logp": [-1.0, -2.0], "logq": [-1.5, -2.1], "advantages": [1.0, -1.0], "weights": [0.0, 1.0]}
    value, gradient = value_and_gradient(name, **{**clean, field: [odd, clean[field][1]]})
    assert (value, gradient) == value_and_gradient(name, **clean)
    assert (value[0], gradient[0]) == (0.0, 0.0)
    assert math.isfinite(value[1])
    assert math.isfinite(gradient[1])
    assert gradient[1] != 0


def test_dros_pull_does_not_vanish_at_advantage_0_but_under_the_mask() -> None:
    """At g = 1: beta / 2 = 0.025 where it counts, nothing where it does not."""
    assert value_and_gradient("dro", [-1.0, -1.0], [-2.0, -2.0], [0, 0], [1, 0])[0] == pytest.approx([0.025, 0])


@pytest.mark.parametrize("name", ["importance_sampling", "ppo", "cispo"])
def test_an_advantage_of_0_adds_nothing_even_at_an_infinite_ratio(name: str) -> None:
    assert value_and_gradient(name, [-1.0], [-500.0], [0.0], [1.0]) == ([0.0], [0.0])


def test_infinite_ratios_that_count() -> None:
    """At r = inf: clipped for A > 0, where ppo is flat; unclipped for A < 0, where the loss really is infinite."""
    assert value_and_gradient("ppo", [-1.0], [-500.0], [2.0], [1.0]) == ([pytest.approx(-2.4)], [0.0])
    assert value_and_gradient("ppo", [-1.0], [-500.0], [-2.0], [1.0])[0] == [math.inf]
    assert value_and_gradient("importance_sampling", [-1.0], [-500.0], [2.0], [1.0])[0] == [-math.inf]
    assert value_and_gradient("cispo", [-1.0], [-500.0], [2.0], [1.0]) == ([pytest.approx(2.4)], [pytest.approx(-2.4)])


def test_on_policy_all_but_dro_are_reinforce() -> None:
    """At r = 1 the gradient is -A in all four (dro's pull is 0 there)."""
    for name in NAMES:
        assert value_and_gradient(name, [-1.0, -2.0], [-1.0, -2.0], [3.0, -0.5], [1, 1])[1] == pytest.approx(
            [-3.0, 0.5]
        )


@given(st.floats(0.05, 4), st.sampled_from([-1.0, 1.0]), st.floats(0.1, 1), st.floats(1, 3))
def test_ppo_is_flat_exactly_where_its_clip_is_active(ratio: float, advantage: float, low: float, high: float) -> None:
    if min(abs(ratio - low), abs(ratio - high)) < 1e-4:
        return
    _, (gradient,) = value_and_gradient(
        "ppo", [math.log(ratio)], [0.0], [advantage], [1.0], clip_low_threshold=low, clip_high_threshold=high
    )
    active = (advantage > 0 and ratio > high) or (advantage < 0 and ratio < low)
    assert (gradient == 0) == active
    _, (always,) = value_and_gradient(
        "cispo", [math.log(ratio)], [0.0], [advantage], [1.0], clip_low_threshold=low, clip_high_threshold=high
    )
    assert always == pytest.approx(-advantage * min(max(ratio, low), high), rel=1e-5)


def test_without_clipping_ppo_is_importance_sampling() -> None:
    wide = {"clip_low_threshold": 0.0, "clip_high_threshold": math.inf}
    case = ([-1.0, -3.0], [-2.0, -1.0], [1.0, -2.0], [1.0, 1.0])
    assert LOSSES["ppo"].config(wide) == wide
    assert value_and_gradient("ppo", *case, **wide) == value_and_gradient("importance_sampling", *case)


@pytest.mark.parametrize(
    ("name", "config", "words"),
    [
        ("ppo", {"clip_ratio": 0.2}, "unknown setting 'clip_ratio'"),
        ("ppo", {"clip_low_threshold": 1.3}, "clip_low_threshold 1.3 lies above clip_high_threshold 1.2"),
        ("cispo", {"clip_high_threshold": 0.5}, "clip_low_threshold 0.8 lies above clip_high_threshold 0.5"),
        ("cispo", {"clip_low_threshold": math.nan}, "clip_low_threshold is nan"),
        ("ppo", {"clip_low_threshold": -0.1}, "clip_low_threshold is -0.1, expected a number from 0 up"),
        ("dro", {"beta": "x"}, "dro: beta is 'x', expected a number"),
        ("dro", {"beta": -1}, "dro: beta is -1"),
        ("dro", [0.1], r"dro: the settings are \[0.1\], expected a dict"),
        ("importance_sampling", {"beta": 1}, "it takes no settings"),
    ],
)
def test_bad_settings(name: str, config: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        LOSSES[name].config(config)


def test_what_the_registry_says_of_them() -> None:
    for name in NAMES:
        spec = LOSSES[name]
        assert (spec.fn.__name__, spec.builtin, spec.reduction, spec.unit) == (name, True, "sum", "datum")
        assert (spec.inputs, spec.optional) == (("logprobs", "advantages"), ("weights",))
    assert LOSSES["ppo"].config() == LOSSES["cispo"].config() == {"clip_low_threshold": 0.8, "clip_high_threshold": 1.2}
    assert LOSSES["dro"].config() == {"beta": 0.05}
