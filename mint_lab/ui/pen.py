"""What static pictures are drawn with: Pillow, at twice the size of the picture, which is reduced in the end."""

from __future__ import annotations

import itertools
import math

from PIL import ImageDraw, ImageFont

__all__ = ["GRID", "INK", "MUTED", "SCALE", "Pen", "paler"]

SCALE = 2  # drawn this much larger, then reduced: smooth lines
INK, MUTED, GRID = "#1f2328", "#5c6670", "#e3e6ea"


class Pen:
    """Draws in the units of the finished picture."""

    def __init__(self, draw: ImageDraw.ImageDraw) -> None:
        self._draw = draw

    def text(self, x: float, y: float, text: str, colour: str, size: int, *, anchor: str = "la") -> float:
        font = ImageFont.load_default(size * SCALE)
        self._draw.text((x * SCALE, y * SCALE), text, colour, font, anchor)
        return self._draw.textlength(text, font) / SCALE

    def path(self, points: list[tuple[float, float]], colour: str, width: float) -> None:
        scaled = [(x * SCALE, y * SCALE) for x, y in points]
        if len(scaled) > 1:
            self._draw.line(scaled, colour, max(1, round(width * SCALE)), joint="curve")

    def dashed(self, points: list[tuple[float, float]], colour: str, width: float, dashes: tuple[int, ...]) -> None:
        """A path in strokes and gaps of these lengths, in turn; without any, as :meth:`path`."""
        if not dashes:
            self.path(points, colour, width)
            return
        place, left, stroke = 0, float(dashes[0]), list(points[:1])
        for (x0, y0), (x1, y1) in itertools.pairwise(points):
            length, gone = math.hypot(x1 - x0, y1 - y0), 0.0
            while length - gone > left:
                gone += left
                spot = (x0 + (x1 - x0) * gone / length, y0 + (y1 - y0) * gone / length)
                if place % 2 == 0:
                    self.path([*stroke, spot], colour, width)
                place, stroke = place + 1, [spot]
                left = float(dashes[place % len(dashes)])
            left -= length - gone
            stroke.append((x1, y1))
        if place % 2 == 0:
            self.path(stroke, colour, width)

    def area(self, points: list[tuple[float, float]], colour: str) -> None:
        if len(points) > 2:
            self._draw.polygon([(x * SCALE, y * SCALE) for x, y in points], colour)

    def hatched(self, left: float, top: float, right: float, bottom: float, colour: str) -> None:
        """A box of slanted lines, told apart from a full one without colour."""
        self.box(left, top, right, bottom, paler(colour))
        height = bottom - top
        for x in range(math.floor(left - height), math.ceil(right), 4):
            # From the lower left to the upper right, cut at the box.
            first, last = max(left, x), min(right, x + height)
            if first < last:
                self.path([(first, bottom - (first - x)), (last, bottom - (last - x))], colour, 1)

    def box(self, left: float, top: float, right: float, bottom: float, colour: str) -> None:
        self._draw.rectangle([v * SCALE for v in (left, top, right, bottom)], colour)


def paler(colour: str, strength: float = 0.35) -> str:
    """``colour`` (#rrggbb) mixed with white."""
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(strength * part + (1 - strength) * 255):02x}" for part in parts)
