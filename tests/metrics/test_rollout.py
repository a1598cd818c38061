"""Rollout metrics by hand arithmetic; tests/metrics/test_against_trl.py compares them with TRL's."""

from __future__ import annotations

import math

import pytest

from mint_lab.errors import DataError
from mint_lab.metrics import completion_metrics, reward_metrics


def test_reward_metrics_by_hand() -> None:
    """Groups (1, 0) and (1, 1).

    Mean 3/4; squared deviations sum to (1 + 9 + 1 + 1) / 16, over n - 1 = 3. Within the groups: sqrt(1/2) and 0.
    """
    assert reward_metrics([[1.0, 0.0], [1.0, 1.0]]) == pytest.approx(
        {
            "reward": 0.75,
            "reward_std": 0.5,
            "group_std": math.sqrt(0.5) / 2,
            "frac_reward_zero_std": 0.5,
        }
    )


def test_reward_metrics_of_groups_of_different_sizes() -> None:
    metrics = reward_metrics([[2.0], [1.0, 1.0, 1.0 + 1e-12]])
    assert metrics["frac_reward_zero_std"] == 1, "a single completion has no spread, and rounding does not count"
    assert metrics["reward"] == pytest.approx(1.25)


def test_completion_metrics_by_hand() -> None:
    assert completion_metrics([3, 5, 16, 16], [False, False, True, False]) == {
        "completion_length": 10,
        "truncated_frac": 0.25,
    }


def test_bad_input_is_refused() -> None:
    with pytest.raises(DataError, match="there are no groups"):
        reward_metrics([])
    with pytest.raises(DataError, match="datum 1: the group has no completions"):
        reward_metrics([[1.0], []])
    with pytest.raises(DataError, match="1 lengths and 2 flags"):
        completion_metrics([1], [True, False])
