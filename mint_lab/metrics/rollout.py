r"""Numbers about a rollout: groups of completions, each group of one prompt. Pure Python; the definitions of TRL.

====================  ==============================================================================================
name                  meaning, unit
====================  ==============================================================================================
reward                mean reward of all completions
reward_std            standard deviation of all completions' rewards, over n - 1
group_std             mean over groups of the standard deviation within the group, over n - 1
frac_reward_zero_std  share of groups whose rewards are all equal, which have nothing to teach, 0 to 1
completion_length     mean length of a completion, tokens, its end mark included
truncated_frac        share of completions that were cut at max_tokens, 0 to 1 (TRL: completions/clipped_ratio)
====================  ==============================================================================================
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from ..errors import DataError

__all__ = ["completion_metrics", "reward_metrics"]

# Standard deviations below this are taken for 0, as TRL does: rounding is no spread.
NO_SPREAD = 1e-8


def reward_metrics(groups: Sequence[Sequence[float]]) -> dict[str, float]:
    """reward, reward_std, group_std and frac_reward_zero_std of the rewards of each group.

    Raises:
        DataError: no groups, or one without completions.
    """
    for index, group in enumerate(groups):
        if not len(group):
            raise DataError("a group without completions", index=index)
    rewards = [reward for group in groups for reward in group]
    if not rewards:
        raise DataError("no completions, expected one group of rewards a prompt")
    within = [stdev(group) if len(group) > 1 else 0.0 for group in groups]
    return {
        "reward": fmean(rewards),
        "reward_std": stdev(rewards) if len(rewards) > 1 else 0.0,
        "group_std": fmean(within),
        "frac_reward_zero_std": fmean(math.isclose(std, 0.0, abs_tol=NO_SPREAD) for std in within),
    }


def completion_metrics(lengths: Sequence[int], truncated: Sequence[bool]) -> dict[str, float]:
    """completion_length and truncated_frac, one entry a completion in each list.

    Raises:
        DataError: no completions, or lists of different lengths.
    """
    if not lengths or len(lengths) != len(truncated):
        raise DataError(f"{len(lengths)} lengths and {len(truncated)} flags, expected one of each a completion")
    return {"completion_length": fmean(lengths), "truncated_frac": fmean(truncated)}
