"""Colours of numbers: the ground behind a token. The twin of ``widgets/src/tokens/colour.ts``, in light mode."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .palette import TOKENS

__all__ = ["INK", "WHITE", "ColourScale", "Rgb", "blend", "hexadecimal"]

Rgb = tuple[int, int, int]

_LIGHT = TOKENS["light"]
INK: Rgb = _LIGHT["inks"][0]
WHITE: Rgb = _LIGHT["ground"]


@dataclass(frozen=True)
class ColourScale:
    """From a number to a colour.

    Attributes:
        kind: "diverging" is symmetrical about 0, "ratio" about 1 on a logarithmic axis. "sequential" runs from the end
            nearer to 0, which has no colour, to the other end.
        low, high: Ends; numbers beyond have the colour of the end.
    """

    kind: Literal["diverging", "ratio", "sequential"]
    low: float
    high: float

    def place(self, value: float) -> float | None:
        """Return the place of ``value``: -1 to 1, or 0 to 1 on a sequential scale; None for nan."""
        if math.isnan(value):
            return None
        low, high = self.low, self.high
        if self.kind == "ratio":
            value = math.log(value) if value > 0 else -math.inf
            low, high = math.log(low), math.log(high)
        if self.kind == "sequential":
            near, far = (high, low) if abs(high) < abs(low) else (low, high)
            share = (value - near) / (far - near) if far != near else 0.0
            return min(max(share, 0.0), 1.0)
        return min(max(value / (high or 1.0), -1.0), 1.0)

    def ground(self, value: float) -> Rgb | None:
        """Return the colour behind a token with this number; None for nan."""
        share = self.place(value)
        if share is None:
            return None
        end: Rgb = _LIGHT["single" if self.kind == "sequential" else "above" if share > 0 else "below"]
        red, green, blue = (
            math.floor(near + (far - near) * abs(share) + 0.5) for near, far in zip(WHITE, end, strict=True)
        )
        return red, green, blue

    def value_at(self, across: float) -> float:
        """Return the number at a place of the legend, 0 at the low end and 1 at the high end."""
        if self.kind == "ratio":
            return self.low * (self.high / self.low) ** across
        return self.low + across * (self.high - self.low)


def blend(colour: str, strength: float) -> str:
    """Return ``colour`` (#rrggbb) mixed with white; strength 1 is the colour itself, 0 is white."""
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return hexadecimal([round(strength * part + (1 - strength) * 255) for part in parts])


def hexadecimal(colour: Sequence[int]) -> str:
    """Return an RGB triple as #rrggbb."""
    return "#" + "".join(f"{part:02x}" for part in colour)
