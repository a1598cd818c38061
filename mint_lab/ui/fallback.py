"""The charts as a still picture, for readers without a kernel: GitHub, nbviewer, a converted notebook.

Drawn with Pillow, which needs neither a browser nor a plotting library, at twice the size and then reduced.
"""

from __future__ import annotations

import io
import math
import struct
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

from .protocol import Chart, Histogram, Line, SeriesData, Snapshot

__all__ = ["picture"]

WIDTH, PANEL_HEIGHT, COLUMNS = 1080, 230, 3
_SCALE = 2  # drawn this much larger, then reduced: smooth lines
_INK, _MUTED, _GRID = "#1f2328", "#5c6670", "#e3e6ea"
_ROLES = {"train": "#0072b2", "held_out": "#e69f00", "chosen": "#009e73", "rejected": "#d55e00"}


@dataclass(frozen=True)
class _Curve:
    line: Line
    x: list[float]
    y: list[float]


def picture(snapshot: Snapshot) -> bytes:
    """PNG of the charts of ``snapshot``."""
    charts = snapshot["charts"]
    rows = math.ceil(len(charts) / COLUMNS)
    canvas = Image.new("RGB", (WIDTH * _SCALE, (rows * PANEL_HEIGHT + 26) * _SCALE), "white")
    pen = _Pen(ImageDraw.Draw(canvas))
    state = snapshot["state"]
    pen.text(12, 6, f"{state['loss_label']}, step {state['steps_done']} of {state['steps_total']}", _MUTED, 12)
    for place, chart in enumerate(charts):
        left, top = (place % COLUMNS) * WIDTH // COLUMNS, 26 + (place // COLUMNS) * PANEL_HEIGHT
        panel = _Panel(pen, left, top, WIDTH // COLUMNS, PANEL_HEIGHT)
        if chart["kind"] == "bars":
            found = [h for h in state["histograms"] if h["name"] == chart["name"]]
            panel.bars(chart, found[0] if found else None)
        else:
            panel.lines(chart, _curves(chart, snapshot), max(state["steps_done"], 1))
    file = io.BytesIO()
    small = canvas.resize((canvas.width * 3 // 4, canvas.height * 3 // 4), Image.Resampling.LANCZOS)
    small.quantize(128).save(file, "PNG", optimize=True)
    return file.getvalue()


def _curves(chart: Chart, snapshot: Snapshot) -> list[_Curve]:
    series = {data["name"]: data for data in snapshot["series"]}
    curves: list[_Curve] = []
    for line in chart["lines"]:
        x, y = _points(series[line["series"]]) if line["series"] in series else ([], [])
        start = snapshot["state"]["baseline"].get(line["series"].removeprefix("held_out/"))
        if line["role"] == "held_out" and start is not None:
            x, y = [0.0, *x], [start, *y]
        if x:
            curves.append(_Curve(line, x, y))
    return curves


def _points(data: SeriesData) -> tuple[list[float], list[float]]:
    steps = [step for (step,) in struct.iter_unpack("<d", data["steps"])]
    values = [value for (value,) in struct.iter_unpack("<f", data["values"])]
    return steps, values[-len(steps) :]  # the last row is the mean, or the only one


def _smoothed(values: list[float], half_life: float) -> list[float]:
    decay = 0.5 ** (1 / half_life)
    total = weight = 0.0
    out: list[float] = []
    for value in values:
        total, weight = decay * total + (1 - decay) * value, decay * weight + (1 - decay)
        out.append(total / weight)
    return out


class _Pen:
    """Draws in the units of the finished picture."""

    def __init__(self, draw: ImageDraw.ImageDraw) -> None:
        self._draw = draw

    def text(self, x: float, y: float, text: str, colour: str, size: int, *, anchor: str = "la") -> float:
        font = ImageFont.load_default(size * _SCALE)
        self._draw.text((x * _SCALE, y * _SCALE), text, colour, font, anchor)
        return self._draw.textlength(text, font) / _SCALE

    def path(self, points: list[tuple[float, float]], colour: str, width: float) -> None:
        scaled = [(x * _SCALE, y * _SCALE) for x, y in points]
        if len(scaled) > 1:
            self._draw.line(scaled, colour, max(1, round(width * _SCALE)), joint="curve")

    def box(self, left: float, top: float, right: float, bottom: float, colour: str) -> None:
        self._draw.rectangle([v * _SCALE for v in (left, top, right, bottom)], colour)


class _Panel:
    """One chart at its place."""

    def __init__(self, pen: _Pen, left: float, top: float, width: float, height: float) -> None:
        self._pen = pen
        self._left, self._right = left + 50, left + width - 14
        self._top, self._bottom = top + 44, top + height - 26
        self._caption = (left + 12, top + 6)

    def lines(self, chart: Chart, curves: list[_Curve], steps: int) -> None:
        low, high = chart["bounds"] or _extent([curve.y for curve in curves])
        self._legend(chart, [(c.line["label"], f"{c.y[-1]:.3g}", _ROLES[c.line["role"]]) for c in curves])
        self._axes((0, steps), (low, high))
        for curve in curves:
            colour = _ROLES[curve.line["role"]]
            spots = [self._spot(x / steps, (y - low) / (high - low)) for x, y in zip(curve.x, curve.y, strict=True)]
            if curve.line["role"] == "held_out":
                self._pen.path(spots, colour, 1.8)
                continue
            self._pen.path(spots, _paler(colour), 1)
            smooth = _smoothed(curve.y, max(len(curve.y), 100) / 100)
            heights = [(y - low) / (high - low) for y in smooth]
            self._pen.path([self._spot(x / steps, y) for x, y in zip(curve.x, heights, strict=True)], colour, 2)

    def bars(self, chart: Chart, histogram: Histogram | None) -> None:
        if histogram is None:
            return
        counts, start, width = histogram["counts"], histogram["start"], histogram["width"]
        total = sum(counts) or 1
        high = max(100 * count / total for count in counts) or 1.0
        above = sum(count for i, count in enumerate(counts) if start + (i + 0.5) * width > 0)
        shares = [("chosen ahead", above), ("rejected ahead", total - above)]
        colours = (_ROLES["chosen"], _ROLES["rejected"])
        entries = [(label, f"{100 * n / total:.0f}%", c) for (label, n), c in zip(shares, colours, strict=True)]
        self._legend(chart, entries)
        self._axes((start, start + width * len(counts)), (0, high))
        for i, count in enumerate(counts):
            left, top = self._spot((i + 0.06) / len(counts), 100 * count / total / high)
            right, bottom = self._spot((i + 0.94) / len(counts), 0)
            if count:
                self._pen.box(left, top, right, bottom, colours[0 if start + (i + 0.5) * width > 0 else 1])

    def _spot(self, across: float, up: float) -> tuple[float, float]:
        up = min(max(up, -0.02), 1.02)
        return self._left + across * (self._right - self._left), self._bottom - up * (self._bottom - self._top)

    def _legend(self, chart: Chart, entries: list[tuple[str, str, str]]) -> None:
        x, y = self._caption
        self._pen.text(x, y, chart["title"], _INK, 13)
        self._pen.text(self._right, y + 1, chart["unit"], _MUTED, 11, anchor="ra")
        for label, value, colour in entries:
            self._pen.box(x, y + 21, x + 9, y + 30, colour)
            x += 14 + self._pen.text(x + 14, y + 18, label, _MUTED, 11) + 6
            x += self._pen.text(x, y + 18, value, _INK, 11) + 14

    def _axes(self, across: tuple[float, float], up: tuple[float, float]) -> None:
        for share in (0, 0.5, 1):
            (left, y), (right, _) = self._spot(0, share), self._spot(1, share)
            self._pen.path([(left, y), (right, y)], _GRID, 1)
            self._pen.text(self._left - 6, y, f"{up[0] + share * (up[1] - up[0]):.3g}", _MUTED, 11, anchor="rm")
            x, _ = self._spot(share, 0)
            anchor = {0: "la", 0.5: "ma", 1: "ra"}[share]
            self._pen.text(
                x, self._bottom + 6, f"{across[0] + share * (across[1] - across[0]):.4g}", _MUTED, 11, anchor=anchor
            )


def _extent(columns: list[list[float]]) -> tuple[float, float]:
    values = [value for column in columns for value in column] or [0.0, 1.0]
    low, high = min(values), max(values)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _paler(colour: str) -> str:
    parts = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(0.35 * part + 0.65 * 255):02x}" for part in parts)
