"""Which tokens a loss clips: bounds of the probability ratio, read from the loss's settings.

``clip_low_threshold`` and ``clip_high_threshold`` bound the ratio itself. ``epsilon``, or ``epsilon_low`` and
``epsilon_high``, bound its distance from 1. PPO's clip is active below the lower bound if A < 0 and above the upper
bound if A > 0; CISPO clamps the ratio to both bounds for either sign of the advantage A.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["ClipBound", "RatioClip", "clip_by_names"]


@dataclass(frozen=True)
class ClipBound:
    """The ratio ``base + slope * config[setting]``."""

    setting: str
    base: float = 0.0
    slope: float = 1.0

    def ratio(self, config: Mapping[str, float]) -> float:
        """Return the bound under these settings."""
        return self.base + self.slope * config[self.setting]


@dataclass(frozen=True)
class RatioClip:
    """The clip of a loss that clips each token by its own ratio.

    Attributes:
        low, high: Lowest and highest ratio that the loss lets through.
        both: True if each token is clamped to both bounds, whatever the sign of its advantage.
    """

    low: ClipBound
    high: ClipBound
    both: bool = False

    @property
    def settings(self) -> frozenset[str]:
        """The names of the settings that the bounds are read from."""
        return frozenset({self.low.setting, self.high.setting})

    def range(self, config: Mapping[str, float]) -> tuple[float, float]:
        """Return the lowest and the highest ratio under these settings."""
        return self.low.ratio(config), self.high.ratio(config)

    def active(self, ratio: float, advantage: float, config: Mapping[str, float]) -> bool:
        """Return True if the clip changes what the loss makes of a token with this ratio and advantage."""
        low, high = self.range(config)
        return (ratio < low and (self.both or advantage < 0)) or (ratio > high and (self.both or advantage > 0))


def clip_by_names(settings: Iterable[str], *, both: bool = False) -> RatioClip | None:
    """Return the clip that settings of these names describe; None if none of them bounds the ratio."""
    names = set(settings)
    if {"clip_low_threshold", "clip_high_threshold"} <= names:
        return RatioClip(ClipBound("clip_low_threshold"), ClipBound("clip_high_threshold"), both)
    low, high = (next((n for n in (f"epsilon_{side}", "epsilon") if n in names), "") for side in ("low", "high"))
    return RatioClip(ClipBound(low, 1.0, -1.0), ClipBound(high, 1.0, 1.0), both) if low and high else None
