"""Between which ratios a loss lets a token through, read from the names of its settings.

``clip_low_threshold`` and ``clip_high_threshold`` bound the ratio itself; ``epsilon``, or ``epsilon_low`` and
``epsilon_high``, its distance from 1. PPO's clip is active below the lower bound where A < 0 and above the upper one
where A > 0; CISPO holds the ratio within both, whatever the sign.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .builtin import CISPO
from .grpo import GSPO

if TYPE_CHECKING:
    from . import LossSpec

__all__ = ["Bound", "TokenClip", "clip_range", "token_clip"]


@dataclass(frozen=True)
class Bound:
    """The ratio ``base + slope * config[setting]``."""

    setting: str
    base: float = 0.0
    slope: float = 1.0

    def ratio(self, config: Mapping[str, float]) -> float:
        return self.base + self.slope * config[self.setting]


@dataclass(frozen=True)
class TokenClip:
    """The clip of a loss that clips tokens one by one.

    Attributes:
        low, high: lowest and highest ratio that gets through.
        both: each token is held to both, whatever the sign of its advantage.
    """

    low: Bound
    high: Bound
    both: bool = False

    def range(self, config: Mapping[str, float]) -> tuple[float, float]:
        """Lowest and highest ratio under these settings."""
        return self.low.ratio(config), self.high.ratio(config)

    def active(self, ratio: float, advantage: float, config: Mapping[str, float]) -> bool:
        """Whether it changes what the loss makes of a token."""
        low, high = self.range(config)
        return (ratio < low and (self.both or advantage < 0)) or (ratio > high and (self.both or advantage > 0))


def token_clip(spec: LossSpec) -> TokenClip | None:
    """The clip of a loss; None where it has none, or clips whole samples."""
    if spec.fn is GSPO.fn:
        return None
    found = _named(param.name for param in spec.params)
    return None if found is None else TokenClip(*found, both=spec.fn is CISPO.fn)


def clip_range(config: Mapping[str, float]) -> tuple[float, float] | None:
    """Lowest and highest ratio that a loss with these settings lets through; None where it clips nothing."""
    found = _named(config)
    return None if found is None else TokenClip(*found).range(config)


def _named(settings: Iterable[str]) -> tuple[Bound, Bound] | None:
    names = set(settings)
    if {"clip_low_threshold", "clip_high_threshold"} <= names:
        return Bound("clip_low_threshold"), Bound("clip_high_threshold")
    low, high = (next((n for n in (f"epsilon_{side}", "epsilon") if n in names), "") for side in ("low", "high"))
    return (Bound(low, 1.0, -1.0), Bound(high, 1.0, 1.0)) if low and high else None
