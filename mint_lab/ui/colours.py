"""Colours of numbers, the twin of ``widgets/src/tokens/colour.ts``, in light mode: for readers without a kernel.

Blue to orange through white about 0, and white to purple in one direction. Both pairs are told apart with every common
kind of colour blindness; lightness runs the same way on both arms, so a grey print shows the size at least.
"""

from __future__ import annotations

import math

from .protocol import TokenColumn

__all__ = ["BLUE", "INK", "ORANGE", "PURPLE", "WHITE", "background", "hexadecimal", "place"]

Colour = tuple[int, int, int]

INK: Colour = (31, 35, 40)
WHITE: Colour = (255, 255, 255)
BLUE: Colour = (90, 162, 216)
ORANGE: Colour = (232, 138, 48)
PURPLE: Colour = (169, 143, 208)


def place(value: float, column: TokenColumn) -> float | None:
    """Where ``value`` lies on the column's scale: -1 to 1, or 0 to 1 for a sequential one; None without a number."""
    if math.isnan(value):
        return None
    low, high = column["low"], column["high"]
    if column["scale"] == "ratio":
        value = math.log(value) if value > 0 else -math.inf
        low, high = math.log(low), math.log(high)
    if column["scale"] == "sequential":
        near, far = (high, low) if abs(high) < abs(low) else (low, high)
        share = (value - near) / (far - near) if far != near else 0.0
        return min(max(share, 0.0), 1.0)
    return min(max(value / (high or 1.0), -1.0), 1.0)


def background(value: float, column: TokenColumn) -> Colour | None:
    """The colour behind a token; dark text on it has a contrast of 4.5 at least. None where there is no number."""
    share = place(value, column)
    if share is None:
        return None
    end = PURPLE if column["scale"] == "sequential" else ORANGE if share > 0 else BLUE
    return tuple(math.floor(w + (e - w) * abs(share) + 0.5) for w, e in zip(WHITE, end, strict=True))  # type: ignore[return-value]


def hexadecimal(colour: Colour) -> str:
    """``#rrggbb``."""
    return "#" + "".join(f"{part:02x}" for part in colour)
