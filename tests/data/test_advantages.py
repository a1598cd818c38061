"""Advantages of a group, by hand arithmetic and by their properties."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.data.advantages import ADVANTAGES, group_advantages, has_spread, spread
from mint_lab.errors import ConfigError, DataError


def test_group_advantages_by_hand() -> None:
    """Rewards 1, 0, 0, 1: mean 1/2, squared deviations sum to 1, s = sqrt(1/3).

    The three other rewards of a response with reward 1 have the mean 1/3.
    """
    rewards = [1.0, 0.0, 0.0, 1.0]
    assert group_advantages(rewards) == [0.5, -0.5, -0.5, 0.5]
    s = math.sqrt(1 / 3)
    assert group_advantages(rewards, "normalised") == pytest.approx([x / (s + 1e-4) for x in (0.5, -0.5, -0.5, 0.5)])
    assert group_advantages(rewards, "leave_one_out") == pytest.approx([2 / 3, -2 / 3, -2 / 3, 2 / 3])
    assert spread(rewards) == pytest.approx(s)


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=16), st.sampled_from(ADVANTAGES))
def test_advantages_sum_to_zero(rewards: list[float], kind: str) -> None:
    advantages = group_advantages(rewards, kind)
    assert sum(advantages) == pytest.approx(0, abs=1e-6 * (1 + max(map(abs, advantages))))


@given(st.lists(st.floats(-100, 100), min_size=2, max_size=16))
def test_leave_one_out_subtracts_the_mean_of_the_others(rewards: list[float]) -> None:
    n = len(rewards)
    others = [(sum(rewards) - r) / (n - 1) for r in rewards]
    expected = [r - o for r, o in zip(rewards, others, strict=True)]
    assert group_advantages(rewards, "leave_one_out") == pytest.approx(expected, abs=1e-9 * 100)


def test_spread_ignores_rounding() -> None:
    assert not has_spread([0.1, 0.1, 0.1])
    assert not has_spread([0.1 + 0.2, 0.3]), "a difference by rounding is not a spread"
    assert has_spread([0.0, 0.001])
    assert spread([5.0]) == 0


def test_bad_input_is_refused() -> None:
    with pytest.raises(ConfigError, match="did you mean 'centred'"):
        group_advantages([1.0, 0.0], "centered")
    with pytest.raises(DataError, match="found a group of 1, expected 2 or more"):
        group_advantages([1.0])
