"""The charts as a still picture, for readers without a kernel: GitHub, nbviewer, a converted notebook.

Drawn with Pillow, which needs neither a browser nor a plotting library, at twice the size and then reduced.
"""

from __future__ import annotations

import io
import math
import struct
from dataclasses import dataclass

from PIL import Image, ImageDraw

from .pen import GRID, INK, MUTED, SCALE, Pen, paler
from .protocol import Chart, Histogram, Line, Samples, SeriesData, Snapshot, State
from .ratios import Piece, clipped_share, limits_of, pieces, root_ticks
from .token_fallback import picture_of

__all__ = ["picture"]

WIDTH, PANEL_HEIGHT, COLUMNS = 1080, 230, 3
_ROLES = {"train": "#0072b2", "held_out": "#e69f00", "chosen": "#009e73", "rejected": "#d55e00"}


@dataclass(frozen=True)
class _Curve:
    line: Line
    x: list[float]
    y: list[float]
    spread: list[float]  # empty, or one a point


def picture(snapshot: Snapshot, samples: Samples | None = None) -> bytes:
    """PNG of the charts of ``snapshot``, and of the tokens of ``samples`` below them."""
    places, rows = _places(snapshot["charts"])
    canvas = Image.new("RGB", (WIDTH * SCALE, (rows * PANEL_HEIGHT + 26) * SCALE), "white")
    pen = Pen(ImageDraw.Draw(canvas))
    state = snapshot["state"]
    pen.text(12, 6, f"{state['loss_label']}, step {state['steps_done']} of {state['steps_total']}", MUTED, 12)
    for (row, column, span), chart in zip(places, snapshot["charts"], strict=True):
        left, top = column * WIDTH // COLUMNS, 26 + row * PANEL_HEIGHT
        panel = _Panel(pen, left, top, span * WIDTH // COLUMNS, PANEL_HEIGHT)
        if chart["kind"] == "ratios":
            panel.ratios(chart, state)
        elif chart["kind"] == "bars":
            panel.bars(chart, _histogram(state, chart["name"]))
        else:
            panel.lines(chart, _curves(chart, snapshot), max(state["steps_done"], 1))
    small = canvas.resize((canvas.width * 3 // 4, canvas.height * 3 // 4), Image.Resampling.LANCZOS)
    if samples is not None and samples["tokens"] is not None:
        small = _stacked(small, Image.open(io.BytesIO(picture_of(samples["tokens"]))).convert("RGB"))
    file = io.BytesIO()
    small.quantize(128).save(file, "PNG", optimize=True)
    return file.getvalue()


def _stacked(upper: Image.Image, lower: Image.Image) -> Image.Image:
    both = Image.new("RGB", (max(upper.width, lower.width), upper.height + lower.height), "white")
    both.paste(upper, (0, 0))
    both.paste(lower, (0, upper.height))
    return both


def _places(charts: list[Chart]) -> tuple[list[tuple[int, int, int]], int]:
    """Row, column and width in columns of each panel, as the page lays them out; and how many rows there are."""
    places: list[tuple[int, int, int]] = []
    row = column = 0
    for chart in charts:
        span = 2 if chart["kind"] == "ratios" else 1
        if column + span > COLUMNS:
            row, column = row + 1, 0
        places.append((row, column, span))
        column += span
    return places, row + 1


def _histogram(state: State, name: str) -> Histogram | None:
    return next((h for h in state["histograms"] if h["name"] == name), None)


def _curves(chart: Chart, snapshot: Snapshot) -> list[_Curve]:
    series = {data["name"]: data for data in snapshot["series"]}
    curves: list[_Curve] = []
    for line in chart["lines"]:
        x, y = _points(series[line["series"]]) if line["series"] in series else ([], [])
        start = snapshot["state"]["baseline"].get(line["series"].removeprefix("held_out/"))
        if line["role"] == "held_out" and start is not None:
            x, y = [0.0, *x], [start, *y]
        around = _points(series[line["spread"]])[1] if line["spread"] in series else []
        if x:
            curves.append(_Curve(line, x, y, around if len(around) == len(y) else []))
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


@dataclass(frozen=True)
class _Half:
    """The tokens with one sign of the advantage: ``sign`` 1 stands upwards. ``below`` and ``above`` are ratios."""

    name: str
    sign: int
    colour: str
    below: float | None
    above: float | None
    pieces: list[Piece]


class _Panel:
    """One chart at its place."""

    def __init__(self, pen: Pen, left: float, top: float, width: float, height: float) -> None:
        self._pen = pen
        self._left, self._right = left + 50, left + width - 14
        self._top, self._bottom = top + 44, top + height - 26
        self._caption = (left + 12, top + 6)

    def lines(self, chart: Chart, curves: list[_Curve], steps: int) -> None:
        bands = [(curve, *_band(curve)) for curve in curves if curve.spread]
        low, high = chart["bounds"] or _extent([*(c.y for c in curves), *(y for _, *pair in bands for y in pair)])
        self._legend(chart, [(c.line["label"], f"{c.y[-1]:.3g}", _ROLES[c.line["role"]]) for c in curves])
        self._axes((0, steps), (low, high))
        for curve, lower, upper in bands:
            x = [*curve.x, *reversed(curve.x)]
            spots = [
                self._spot(a / steps, (b - low) / (high - low))
                for a, b in zip(x, [*upper, *reversed(lower)], strict=True)
            ]
            self._pen.area(spots, paler(_ROLES[curve.line["role"]], 0.13))
        for curve in curves:
            colour = _ROLES[curve.line["role"]]
            spots = [self._spot(x / steps, (y - low) / (high - low)) for x, y in zip(curve.x, curve.y, strict=True)]
            if curve.line["role"] == "held_out":
                self._pen.path(spots, colour, 1.8)
                continue
            self._pen.path(spots, paler(colour), 1)
            smooth = _smoothed(curve.y, _half_life(curve))
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

    def ratios(self, chart: Chart, state: State) -> None:
        """Tokens by ratio, upwards with A > 0 and downwards with A < 0, and where they are clipped."""
        found = [_histogram(state, f"{chart['name']}/{sign}") for sign in ("positive", "negative")]
        known = next((histogram for histogram in found if histogram is not None), None)
        total = sum(sum(histogram["counts"]) for histogram in found if histogram is not None)
        if known is None or not total:
            return
        limits, both = limits_of(state["clip"], state["settings"]), bool(state["clip"] and state["clip"]["both"])
        low, high = limits if limits is not None else (None, None)
        halves = [
            _Half(name, sign, _ROLES[role], below, above, pieces(histogram, total, below, above))
            for name, sign, role, below, above, histogram in (
                ("A > 0", 1, "chosen", low if both else None, high, found[0]),
                ("A < 0", -1, "rejected", low, high if both else None, found[1]),
            )
        ]
        entries = [
            (f"{half.name}, clipped", f"~{clipped_share(half.pieces):.2g} %", half.colour)
            if limits is not None
            else (half.name, f"{sum(piece.part for piece in half.pieces):.3g} %", half.colour)
            for half in halves
        ]
        self._legend(chart, entries)
        start, end = known["start"], known["start"] + known["width"] * len(known["counts"])
        top = max(piece.share for half in halves for piece in half.pieces)
        self._ratio_axes(start, end, top, known["step"])
        for half in halves:
            self._half(half, start, end, top)
        self._pen.path([self._spot(0, 0.5), self._spot(1, 0.5)], MUTED, 1)

    def _half(self, half: _Half, start: float, end: float, top: float) -> None:
        def spot(log_ratio: float, share: float) -> tuple[float, float]:
            across = min(max((log_ratio - start) / (end - start), 0.0), 1.0)
            return self._spot(across, 0.5 + half.sign * 0.5 * math.sqrt(share / top))

        for limit, side in ((half.below, start), (half.above, end)):
            if limit is not None and limit > 0:
                (x0, y0), (x1, y1) = spot(side, 0), spot(math.log(limit), top)
                self._pen.box(min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1), paler(half.colour, 0.12))
        for piece in half.pieces:
            if piece.share:
                room = 0.04 * (piece.high - piece.low)
                (x0, y0), (x1, y1) = spot(piece.low + room, 0), spot(piece.high - room, piece.share)
                draw = self._pen.hatched if piece.clipped else self._pen.box
                draw(x0, min(y0, y1), x1, max(y0, y1), half.colour)
        for limit in (half.below, half.above):
            if limit is not None and limit > 0 and start < math.log(limit) < end:
                foot, head = spot(math.log(limit), 0), spot(math.log(limit), top)
                self._pen.path([foot, head], INK, 1.6)
                anchor = ("l" if limit == half.above else "r") + ("a" if half.sign > 0 else "d")
                shift = 4 if limit == half.above else -4
                self._pen.text(head[0] + shift, head[1], f"{limit:.4g}", INK, 11, anchor=anchor)
        x, y = self._spot(0 if half.sign > 0 else 1, 1 if half.sign > 0 else 0)
        self._pen.text(x + 4 * half.sign, y, half.name, half.colour, 12, anchor="la" if half.sign > 0 else "rd")

    def _ratio_axes(self, start: float, end: float, top: float, step: int) -> None:
        for share in (0.0, *root_ticks(top)):
            for sign in (1, -1) if share else (1,):
                up = 0.5 + sign * 0.5 * math.sqrt(share / top)
                (left, y), (right, _) = self._spot(0, up), self._spot(1, up)
                self._pen.path([(left, y), (right, y)], GRID, 1)
                self._pen.text(self._left - 6, y, f"{share:g} %", MUTED, 11, anchor="rm")
        for ratio in (0.4, 0.5, 0.7, 1.0, 1.4, 2.0, 2.5):
            if start < math.log(ratio) < end:
                x, _ = self._spot((math.log(ratio) - start) / (end - start), 0)
                self._pen.text(x, self._bottom + 6, f"{ratio:g}", MUTED, 11, anchor="ma")
        self._pen.text(self._right, self._caption[1] + 19, f"ratio r, step {step}", MUTED, 11, anchor="ra")

    def _spot(self, across: float, up: float) -> tuple[float, float]:
        up = min(max(up, -0.02), 1.02)
        return self._left + across * (self._right - self._left), self._bottom - up * (self._bottom - self._top)

    def _legend(self, chart: Chart, entries: list[tuple[str, str, str]]) -> None:
        x, y = self._caption
        self._pen.text(x, y, chart["title"], INK, 13)
        self._pen.text(self._right, y + 1, chart["unit"], MUTED, 11, anchor="ra")
        for label, value, colour in entries:
            self._pen.box(x, y + 21, x + 9, y + 30, colour)
            x += 14 + self._pen.text(x + 14, y + 18, label, MUTED, 11) + 6
            x += self._pen.text(x, y + 18, value, INK, 11) + 14

    def _axes(self, across: tuple[float, float], up: tuple[float, float]) -> None:
        for share in (0, 0.5, 1):
            (left, y), (right, _) = self._spot(0, share), self._spot(1, share)
            self._pen.path([(left, y), (right, y)], GRID, 1)
            self._pen.text(self._left - 6, y, f"{up[0] + share * (up[1] - up[0]):.3g}", MUTED, 11, anchor="rm")
            x, _ = self._spot(share, 0)
            anchor = {0: "la", 0.5: "ma", 1: "ra"}[share]
            self._pen.text(
                x, self._bottom + 6, f"{across[0] + share * (across[1] - across[0]):.4g}", MUTED, 11, anchor=anchor
            )


def _extent(columns: list[list[float]]) -> tuple[float, float]:
    values = [value for column in columns for value in column] or [0.0, 1.0]
    low, high = min(values), max(values)
    # What varies by less than the page's charts show is rounding, and no news.
    least = max(1e-3 * max(abs(low), abs(high)), 1e-6)
    air = max(0.0, (least - (high - low)) / 2)
    return (low - air, high + air)


def _band(curve: _Curve) -> tuple[list[float], list[float]]:
    """One standard deviation below and above the smoothed curve."""
    middle, around = (_smoothed(values, _half_life(curve)) for values in (curve.y, curve.spread))
    both = list(zip(middle, around, strict=True))
    return [value - spread for value, spread in both], [value + spread for value, spread in both]


def _half_life(curve: _Curve) -> float:
    return max(len(curve.y), 100) / 100
