"""One chart of a static picture: a caption, numbers along its axes, and what is drawn at places of the data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from .axes import extent, round_range, step_ticks, tick_labels, ticks_between
from .canvas import GRID, MUTED, WIDTH, Box, Sheet

__all__ = ["STROKES_AND_GAPS", "LegendEntry", "Panel", "Stroke", "draw_tile", "placed", "range_of", "tiles"]

COLUMNS, ROW = 3, 230
TILES, TILE_ROW = 6, 92
STROKES_AND_GAPS: dict[str, Sequence[float]] = {
    "solid": (),
    "dash": (8, 5),
    "dot": (2, 3),
    "dashdot": (8, 4, 2, 4),
    "longdash": (14, 5),
    "longdashdot": (14, 4, 2, 4),
}
"""Dashes of a stroke by its line style in plotly's words."""


@dataclass(frozen=True)
class LegendEntry:
    """An entry of a legend: label, latest number, colour."""

    label: str
    value: str
    colour: str


@dataclass(frozen=True)
class Stroke:
    """A curve: its values, and width, dashes (lengths of strokes and gaps) and diameter of points in units."""

    x: Sequence[float]
    y: Sequence[float]
    colour: str
    width: float = 1.4
    dashes: Sequence[float] = ()
    marker: float = 0


class _Captioned(Protocol):
    """What a caption says of a chart."""

    @property
    def title(self) -> str: ...
    @property
    def unit(self) -> str | None: ...


def placed(spans: Sequence[int], top: float) -> tuple[list[Box], float]:
    """Return a frame for each chart, in rows of three from ``top`` on, and where the last row ends.

    Args:
        spans: Columns that each chart takes.
    """
    frames: list[Box] = []
    row = column = 0
    width = WIDTH / COLUMNS
    for span in spans:
        if column + span > COLUMNS:
            row, column = row + 1, 0
        frames.append(Box(column * width, top + row * ROW, span * width, ROW))
        column += span
    return frames, top + (row + 1) * ROW if frames else top


def range_of(
    columns: Sequence[Sequence[float]], bounds: tuple[float, float] | None
) -> tuple[tuple[float, float], list[float]]:
    """Return a vertical axis and its ticks: around ``bounds`` if there are any, otherwise around all values."""
    if bounds is not None:
        low, high = bounds
        room = 0.03 * (high - low)
        return (low - room, high + room), [low + share * (high - low) for share in (0, 0.25, 0.5, 0.75, 1)]
    low, high, distance = round_range(*extent(columns))
    return (low, high), ticks_between(low, high, distance)


class Panel:
    """A chart on a sheet. Places are in the units of the data.

    Args:
        frame: The rectangle of the chart.
        x, y: Ranges of its axes.
        caption: Whether the frame has room for a caption and for numbers along the axes.
    """

    def __init__(
        self, sheet: Sheet, frame: Box, x: tuple[float, float], y: tuple[float, float], *, caption: bool = True
    ) -> None:
        self._sheet, self._frame, self._plot = sheet, frame, frame
        if caption:
            self._plot = Box(frame.left + 56, frame.top + 52, frame.width - 70, frame.height - 78)
        self._x, self._y = x, y
        # A line along an edge is drawn whole.
        self._visible = Box(self._plot.left - 4, self._plot.top - 4, self._plot.width + 8, self._plot.height + 8)

    def caption(self, chart: _Captioned, entries: Sequence[LegendEntry], *, note: str = "") -> None:
        """Write title, unit and legend; ``note`` stands at the right of the legend."""
        sheet, top = self._sheet, self._frame.top
        left, right = self._frame.left + 12, self._frame.left + self._frame.width - 14
        unit = sheet.text(right, top + 7, chart.unit or "", colour=MUTED, anchor="rt", limit=0.5 * (right - left))
        sheet.text(left, top + 5, chart.title, size=13, limit=right - left - sheet.width_of(unit) - 12)
        if note:
            right -= sheet.width_of(sheet.text(right, top + 25, note, colour=MUTED, anchor="rt")) + 12
        for entry in entries:
            if left + 60 > right:  # no room for a number
                break
            sheet.box(Box(left, top + 27, 9, 9), entry.colour)
            label = sheet.text(left + 14, top + 25, entry.label, colour=MUTED, limit=max(right - left - 60, 12))
            left += 14 + (sheet.width_of(label) + 6 if label else 0)
            left += sheet.width_of(sheet.text(left, top + 25, entry.value)) + 14

    def grid(self, across: Sequence[tuple[float, str]], up: Sequence[tuple[float, str]]) -> None:
        """Write the numbers along both axes, each with its place, and draw a line at each vertical one."""
        plot = self._plot
        for value, label in up:
            _, y = self._at(self._x[0], value)
            self._sheet.path((plot.left, plot.left + plot.width), (y, y), GRID, 1)
            self._sheet.text(plot.left - 6, y, label, colour=MUTED, anchor="rm")
        for value, label in across:
            x, _ = self._at(value, self._y[0])
            self._sheet.text(x, plot.top + plot.height + 6, label, colour=MUTED, anchor="mt")

    def steps_and(self, ticks: Sequence[float]) -> None:
        """Draw the grid of a chart over steps with these ticks of the vertical axis."""
        steps = step_ticks(round(self._x[1]))
        across, up = (list(zip(values, tick_labels(values), strict=True)) for values in (steps, ticks))
        self.grid(across, up)

    def empty(self) -> None:
        """Say that there is nothing to draw."""
        x, y = self._plot.left + self._plot.width / 2, self._plot.top + self._plot.height / 2
        self._sheet.text(x, y, "no data yet", colour=MUTED, size=12, anchor="mm")

    def stroke(self, stroke: Stroke) -> None:
        """Draw a curve."""
        points = [self._at(x, y) for x, y in zip(stroke.x, stroke.y, strict=True)]
        x, y = [x for x, _ in points], [y for _, y in points]
        # A path of one point has no length.
        marker = stroke.marker or (5 if len(points) == 1 else 0)
        self._sheet.path(x, y, stroke.colour, stroke.width, dashes=stroke.dashes, marker=marker, within=self._visible)

    def area(self, corners: Sequence[tuple[float, float]], colour: str, *, hatch: str = "") -> None:
        """Fill a polygon; with slanted lines of the colour ``hatch``."""
        self._sheet.area([self._at(x, y) for x, y in corners], colour, hatch=hatch, within=self._visible)

    def bar(self, x: tuple[float, float], y: tuple[float, float], colour: str, *, hatch: str = "") -> None:
        """Fill a rectangle."""
        self.area([(x[0], y[0]), (x[1], y[0]), (x[1], y[1]), (x[0], y[1])], colour, hatch=hatch)

    def text(
        self, x: float, y: float, text: str, *, anchor: str, colour: str = MUTED, size: float = 11, shift: float = 0
    ) -> None:
        """Write at a place, ``shift`` units of the sheet to the right of it."""
        left, top = self._at(x, y)
        self._sheet.text(left + shift, top, text, colour=colour, size=size, anchor=anchor)

    def _at(self, x: float, y: float) -> tuple[float, float]:
        (x0, x1), (y0, y1), plot = self._x, self._y, self._plot
        return plot.left + plot.width * (x - x0) / (x1 - x0), plot.top + plot.height * (y1 - y) / (y1 - y0)


def tiles(count: int, top: float) -> tuple[list[tuple[float, float]], float]:
    """Return the upper left corner of each of ``count`` small charts, six in a row, and where the last row ends."""
    corners = [(12 + i % TILES * (WIDTH - 12) / TILES, top + 8 + i // TILES * TILE_ROW) for i in range(count)]
    return corners, top + 8 + -(-count // TILES) * TILE_ROW if count else top


def draw_tile(
    sheet: Sheet,
    corner: tuple[float, float],
    last: int,
    *,
    title: str,
    entries: Sequence[LegendEntry],
    strokes: Sequence[Stroke],
) -> None:
    """Draw a small chart over the steps 0 to ``last``: the latest numbers in their colours, and curves without axes."""
    left, top = corner
    frame = Box(left, top + 34, (WIDTH - 12) / TILES - 14, TILE_ROW - 46)
    sheet.text(left, top, title, limit=frame.width)
    for entry in entries:
        if left + 40 <= frame.left + frame.width:
            left += sheet.width_of(sheet.text(left, top + 16, entry.value, colour=entry.colour)) + 8
    panel = Panel(sheet, frame, (0, last), range_of([stroke.y for stroke in strokes], None)[0], caption=False)
    bottom = frame.top + frame.height
    sheet.path((frame.left, frame.left + frame.width), (bottom, bottom), GRID, 1)
    for stroke in strokes:
        panel.stroke(stroke)
