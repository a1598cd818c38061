from __future__ import annotations

import math

import pytest

from mint_lab.errors import DataError
from mint_lab.metrics import completion_metrics, reward_metrics


def test_rewards_by_hand() -> None:
    """Groups (1, 0), (1, 1): mean 3/4, squares about it (1 + 9 + 1 + 1) / 16 over 3; within sqrt(1/2) and 0."""
    assert reward_metrics([[1.0, 0.0], [1.0, 1.0]]) == pytest.approx(
        {
            "reward": 0.75,
            "reward_std": 0.5,
            "group_std": math.sqrt(0.5) / 2,
            "frac_reward_zero_std": 0.5,
        }
    )


def test_groups_may_differ_in_size() -> None:
    found = reward_metrics([[2.0], [1.0, 1.0, 1.0 + 1e-12]])
    assert found["frac_reward_zero_std"] == 1, "a single one has no spread, and rounding is none"
    assert found["reward"] == pytest.approx(1.25)


def test_completions_by_hand() -> None:
    assert completion_metrics([3, 5, 16, 16], [False, False, True, False]) == {
        "completion_length": 10,
        "truncated_frac": 0.25,
    }


def test_bad_input() -> None:
    with pytest.raises(DataError, match="no completions"):
        reward_metrics([])
    with pytest.raises(DataError, match="datum 1: a group without completions"):
        reward_metrics([[1.0], []])
    with pytest.raises(DataError, match="1 lengths and 2 flags"):
        completion_metrics([1], [True, False])
