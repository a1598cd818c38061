r"""Advantages of a group of responses to one prompt, from their rewards.

==============  =========================================================================================
kind            advantage of response i; :math:`\bar r` and s (over n - 1) are its group's mean and std
==============  =========================================================================================
centred         :math:`r_i - \bar r` (Dr. GRPO, arXiv:2503.20783)
normalised      :math:`(r_i - \bar r) / (s + 10^{-4})` (GRPO, arXiv:2402.03300)
leave_one_out   :math:`r_i` minus the mean of the others, :math:`\frac{n}{n-1} (r_i - \bar r)` (RLOO, arXiv:2402.14740)
==============  =========================================================================================
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ConfigError, DataError, one_of

__all__ = ["ADVANTAGES", "group_advantages", "has_spread", "spread"]

ADVANTAGES = ("centred", "normalised", "leave_one_out")
# Added to the standard deviation, as in TRL: it bounds the advantages of a group whose rewards are nearly equal.
STD_EPSILON = 1e-4
# A standard deviation up to this counts as 0: rounding alone produces one.
_NO_SPREAD = 1e-8


def group_advantages(rewards: Sequence[float], kind: str = "centred") -> list[float]:
    """Return the advantages of one group, in the order of its rewards; they sum to 0.

    Args:
        rewards: Rewards of the responses to one prompt.
        kind: One of ``ADVANTAGES``, see this module's table.

    Raises:
        ConfigError: If ``kind`` is unknown.
        DataError: If there are fewer than two rewards.
    """
    if kind not in ADVANTAGES:
        raise ConfigError(f"unknown kind of advantages {kind!r}; {one_of(ADVANTAGES, str(kind))}")
    n = len(rewards)
    if n < 2:
        raise DataError(f"found a group of {n}, expected 2 or more: advantages compare responses to one prompt")
    mean = sum(rewards) / n
    centred = [r - mean for r in rewards]
    if kind == "normalised":
        scale = 1 / (spread(rewards) + STD_EPSILON)
    else:
        scale = n / (n - 1) if kind == "leave_one_out" else 1.0
    return [scale * a for a in centred]


def spread(rewards: Sequence[float]) -> float:
    """Return the standard deviation of a group's rewards, over n - 1; 0 for a single reward."""
    n = len(rewards)
    if n < 2:
        return 0.0
    mean = sum(rewards) / n
    return (sum((r - mean) ** 2 for r in rewards) / (n - 1)) ** 0.5


def has_spread(rewards: Sequence[float]) -> bool:
    """Return True if the rewards differ; if not, every advantage is 0 and the group has no gradient."""
    return spread(rewards) > _NO_SPREAD
