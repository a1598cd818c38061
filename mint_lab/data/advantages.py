r"""From the rewards of a group of samples, all of one prompt, to their advantages.

==============  =========================================================================================
name            advantage of sample i, with :math:`\bar r` and s (over n - 1) of its group
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
# As TRL has it: keeps a group of nearly equal rewards from getting advantages without bound.
LEAST_STD = 1e-4
_NO_SPREAD = 1e-8


def group_advantages(rewards: Sequence[float], kind: str = "centred") -> list[float]:
    """Advantages of one group, in the order of its rewards; they add up to 0.

    Raises:
        ConfigError: an unknown ``kind``. DataError: fewer than two rewards, which cannot be compared.
    """
    if kind not in ADVANTAGES:
        raise ConfigError(f"unknown kind of advantages {kind!r}; {one_of(ADVANTAGES, str(kind))}")
    n = len(rewards)
    if n < 2:
        raise DataError(f"a group of {n}: advantages compare samples of one prompt, expected 2 or more")
    mean = sum(rewards) / n
    centred = [r - mean for r in rewards]
    if kind == "normalised":
        scale = 1 / (spread(rewards) + LEAST_STD)
    else:
        scale = n / (n - 1) if kind == "leave_one_out" else 1.0
    return [scale * a for a in centred]


def spread(rewards: Sequence[float]) -> float:
    """Standard deviation of a group's rewards, over n - 1; 0 for a single one."""
    n = len(rewards)
    if n < 2:
        return 0.0
    mean = sum(rewards) / n
    return (sum((r - mean) ** 2 for r in rewards) / (n - 1)) ** 0.5


def has_spread(rewards: Sequence[float]) -> bool:
    """Whether the rewards differ; where they do not, every advantage is 0 and there is nothing to learn."""
    return spread(rewards) > _NO_SPREAD
