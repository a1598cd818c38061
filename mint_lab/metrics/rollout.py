"""Metrics of a rollout: groups of completions, one group per prompt. Definitions are in ``METRICS`` and are TRL's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from ..errors import DataError

__all__ = ["completion_metrics", "reward_metrics"]

# A standard deviation up to this counts as 0, as in TRL: rounding alone produces one.
NO_SPREAD = 1e-8


def reward_metrics(groups: Sequence[Sequence[float]]) -> dict[str, float]:
    """Compute ``reward``, ``reward_std``, ``group_std`` and ``frac_reward_zero_std``.

    Args:
        groups: Rewards of the completions of each group.

    Raises:
        DataError: If there is no group, or a group without completions (``error.index``).
    """
    for index, group in enumerate(groups):
        if not len(group):
            raise DataError("the group has no completions, expected at least one reward", index=index)
    rewards = [reward for group in groups for reward in group]
    if not rewards:
        raise DataError("there are no groups, expected one group of rewards per prompt")
    within_std = [stdev(group) if len(group) > 1 else 0.0 for group in groups]
    return {
        "reward": fmean(rewards),
        "reward_std": stdev(rewards) if len(rewards) > 1 else 0.0,
        "group_std": fmean(within_std),
        "frac_reward_zero_std": fmean(math.isclose(std, 0.0, abs_tol=NO_SPREAD) for std in within_std),
    }


def completion_metrics(lengths: Sequence[int], truncated: Sequence[bool]) -> dict[str, float]:
    """Compute ``completion_length`` and ``truncated_frac``.

    Args:
        lengths: Tokens of each completion, its end-of-turn token included.
        truncated: For each completion whether it reached ``max_tokens`` before it ended.

    Raises:
        DataError: If there are no completions, or the lists differ in length.
    """
    if not lengths or len(lengths) != len(truncated):
        raise DataError(
            f"{len(lengths)} lengths and {len(truncated)} flags, expected one of each per completion, at least one"
        )
    return {"completion_length": fmean(lengths), "truncated_frac": fmean(truncated)}
