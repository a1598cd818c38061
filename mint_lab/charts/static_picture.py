"""A run as a still picture (PNG), for readers without a kernel: GitHub, nbviewer, a converted notebook."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .axes import round_range, short, thinned
from .canvas import INK, MUTED, WIDTH, Box, Sheet, drawing
from .chart_spec import ChartSpec, LineSpec
from .colour_scale import blend
from .palette import ROLES
from .ratio_bins import RATIO_TICKS, Half, halves_of, root_ticks
from .run_data import Change, RunData
from .static_panel import STROKES_AND_GAPS, LegendEntry, Panel, Stroke, draw_tile, placed, range_of, tiles
from .token_strips import StripLayout, TokenStrips

__all__ = ["run_picture"]

CHANGES = 9  # that are listed, the latest
CHANGE_ROW = 18
CURVE_POINTS = 1000  # about the pixels that a chart is wide
BRANCH_INK = 0.55  # share of a curve's colour in that of its branches
COLOURS = ROLES["light"]


@drawing
def run_picture(
    run: RunData, charts: Sequence[ChartSpec], heading: str = "", tokens: TokenStrips | None = None
) -> bytes:
    """Draw a run's charts, a small one for each further metric that it has, and what changed during the run.

    Steps that the run has left are faint dashed curves.

    Args:
        run: Its numbers.
        charts: What :func:`~mint_lab.charts.chart_spec.charts_of` returns.
        heading: First line of the picture.
        tokens: Drawn below the charts.

    Returns:
        PNG, 1620 pixels wide.
    """
    changes, stray = _change_lines(run.changes), run.stray(charts)
    small = [chart for chart in stray if chart.kind == "lines"]
    charts = [*charts, *(chart for chart in stray if chart.kind != "lines")]
    top = 30 + CHANGE_ROW * (len(changes) + bool(run.branches))
    frames, bottom = placed([2 if chart.kind == "ratios" else 1 for chart in charts], top)
    corners, bottom = tiles(len(small), bottom)
    strips = None if tokens is None else StripLayout(tokens)
    sheet = Sheet(bottom if strips is None else bottom + strips.height)
    sheet.text(12, 8, heading, colour=MUTED, size=12, limit=WIDTH - 24)
    for number, text in enumerate(changes):
        sheet.text(12, 30 + CHANGE_ROW * number, text, colour=MUTED, limit=WIDTH - 24)
    if run.branches:
        _draw_branch_legend(sheet, run, 30 + CHANGE_ROW * len(changes))
    draw = {"lines": _draw_lines, "bars": _draw_bars, "ratios": _draw_ratios}
    for frame, chart in zip(frames, charts, strict=True):
        draw[chart.kind](sheet, frame, chart, run)
    for corner, chart in zip(corners, small, strict=True):
        _draw_tile(sheet, corner, chart, run)
    if strips is not None:
        strips.draw(sheet, bottom)
    return sheet.png()


def _change_lines(changes: Sequence[Change]) -> list[str]:
    """What changed, three changes a line, numbered as in the charts."""
    first = max(len(changes) - CHANGES, 0)
    texts = [
        f"{number}  {' '.join(change.label.split())[:48]}, from step {change.step}"
        for number, change in enumerate(changes[first:], first + 1)
    ]
    return ["      ".join(texts[i : i + 3]) for i in range(0, len(texts), 3)]


def _draw_branch_legend(sheet: Sheet, run: RunData, top: float) -> None:
    x = 12.0
    for number, branch in enumerate(run.branches):
        colour, dashes = blend(MUTED, BRANCH_INK), STROKES_AND_GAPS[run.branch_dash(number)]
        sheet.path((x, x + 26), (top + 7, top + 7), colour, 1.6, dashes=dashes)
        label = sheet.text(x + 32, top, branch.run.label, colour=MUTED, limit=280)
        x += 32 + sheet.width_of(label) + 20
    sheet.text(x, top, run.branches_note, colour=MUTED)


# -- curves ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Curve:
    """A curve as it is drawn.

    Attributes:
        smooth: Smoothed values; empty for held-out data, which are drawn as they are.
        band: Values one standard deviation below and above ``smooth``; empty for a line without a spread.
        last: Latest value, not averaged.
    """

    line: LineSpec
    steps: list[float]
    values: list[float]
    smooth: list[float]
    band: list[list[float]]
    last: float

    @property
    def colour(self) -> str:
        return COLOURS[self.line.role]


def _curves(chart: ChartSpec, run: RunData) -> list[_Curve]:
    curves: list[_Curve] = []
    breaks = [change.step for change in run.changes if change.kind == "loss"]
    for spec in chart.lines:
        points = run.points(spec)
        steps, values = thinned(*points, CURVE_POINTS) if points is not None else ([], [])
        if points is None or not steps:
            continue
        smooth = [] if spec.role == "held_out" else _smoothed(steps, values, breaks)
        around = run.training.get(spec.spread)
        spread = thinned(*around, CURVE_POINTS)[1] if around is not None else []
        band: list[list[float]] = []
        if smooth and len(spread) == len(smooth):
            pairs = list(zip(smooth, _smoothed(steps, spread, breaks), strict=True))
            band = [[middle - std for middle, std in pairs], [middle + std for middle, std in pairs]]
        latest = next(value for value in reversed(points[1]) if math.isfinite(value))
        curves.append(_Curve(spec, steps, values, smooth, band, latest))
    return curves


def _smoothed(steps: Sequence[float], values: Sequence[float], breaks: Sequence[int]) -> list[float]:
    """Return an exponential mean that restarts at each step in ``breaks``: another loss has another scale."""
    decay = 0.5 ** (100 / max(len(values), 100))
    total = weight = 0.0
    smooth: list[float] = []
    left = sorted(breaks, reverse=True)
    for step, value in zip(steps, values, strict=True):
        while left and left[-1] <= step:
            left.pop()
            total = weight = 0.0
        total, weight = decay * total + (1 - decay) * value, decay * weight + (1 - decay)
        smooth.append(total / weight)
    return smooth


def _branch_strokes(chart: ChartSpec, run: RunData) -> list[Stroke]:
    """The curves of all branches, smoothed like those of the run."""
    strokes: list[Stroke] = []
    for number, branch in enumerate(run.branches):
        dashes = STROKES_AND_GAPS[run.branch_dash(number)]
        for curve in _curves(chart, branch.run):
            seen = branch.visible(curve.steps)
            x, y = curve.steps[seen], (curve.smooth or curve.values)[seen]
            if x:
                strokes.append(Stroke(x, y, blend(curve.colour, BRANCH_INK), 1.6, dashes))
    return strokes


def _draw_lines(sheet: Sheet, frame: Box, chart: ChartSpec, run: RunData) -> None:
    curves, branches = _curves(chart, run), _branch_strokes(chart, run)
    last = max(run.last_step, 1)
    columns = [side for c in curves for side in (c.values, *c.band)]
    y, ticks = range_of([*columns, *(stroke.y for stroke in branches)], chart.bounds)
    panel = Panel(sheet, frame, (0, last), y)
    panel.caption(chart, [LegendEntry(c.line.label, short(c.last), c.colour) for c in curves])
    for curve in curves:
        if curve.band:
            lower, upper = curve.band
            edge = [*zip(curve.steps, upper, strict=True), *reversed([*zip(curve.steps, lower, strict=True)])]
            panel.area(edge, blend(curve.colour, 0.13))
    panel.steps_and(ticks)
    _mark(panel, run.changes, last, y)
    for stroke in branches:
        panel.stroke(stroke)
    for curve in curves:
        _draw_curve(panel, curve)
    if not curves:
        panel.empty()


def _draw_curve(panel: Panel, curve: _Curve) -> None:
    if not curve.smooth:
        marker = 4.5 if len(curve.steps) <= 40 else 0
        panel.stroke(Stroke(curve.steps, curve.values, curve.colour, 1.8, marker=marker))
    else:
        panel.stroke(Stroke(curve.steps, curve.values, blend(curve.colour, 0.35), 1))
        panel.stroke(Stroke(curve.steps, curve.smooth, curve.colour, 2))


def _mark(panel: Panel, changes: Sequence[Change], last: int, y: tuple[float, float]) -> None:
    """Dotted verticals before the steps with changes; those closer than a fifteenth of the axis share a number."""
    numbers: dict[float, list[int]] = {}
    group = -math.inf
    for number, change in enumerate(changes, 1):
        x = change.step - 0.5
        if x - group > last / 15:
            group = x
        numbers.setdefault(group, []).append(number)
    for x in {change.step - 0.5 for change in changes}:
        panel.stroke(Stroke((x, x), y, MUTED, 1, (1, 3)))
    for x, found in numbers.items():
        text = str(found[0]) if len(found) == 1 else f"{found[0]}\N{EN DASH}{found[-1]}"
        panel.text(x, y[1], text, size=10, anchor="mb")


# -- histograms --------------------------------------------------------------------------------------------------------


def _draw_bars(sheet: Sheet, frame: Box, chart: ChartSpec, run: RunData) -> None:
    assert chart.bounds is not None
    found = run.counts(chart, chart.name)
    counts = list(found[-1].counts) if found else []
    start, end = chart.bounds
    width = (end - start) / max(len(counts), 1)
    total = sum(counts) or 1
    shares = [100 * count / total for count in counts]
    low, high, distance = round_range(0.0, max(shares, default=0.0))
    panel = Panel(sheet, frame, chart.bounds, (low, high))
    centres = [start + (i + 0.5) * width for i in range(len(counts))]
    above = sum(share for centre, share in zip(centres, shares, strict=True) if centre > 0)
    entries = [
        LegendEntry(spec.label, f"{share:.0f} %", COLOURS[spec.role])
        for spec, share in zip(chart.lines, (above, 100 - above), strict=True)
    ]
    where = f"step {found[-1].step}" if found else ""
    panel.caption(chart, entries if found else [], note=where)
    ticks = [low + distance * k for k in range(round((high - low) / distance) + 1)]
    across = [start + share * (end - start) for share in (0, 0.25, 0.5, 0.75, 1)]
    panel.grid([(x, f"{x:g}") for x in across], [(tick, f"{tick:g} %") for tick in ticks])
    for centre, share in zip(centres, shares, strict=True):
        if share:
            role = chart.lines[0 if centre > 0 else 1].role
            panel.bar((centre - 0.44 * width, centre + 0.44 * width), (0, share), COLOURS[role])
    if not found:
        panel.empty()


def _draw_ratios(sheet: Sheet, frame: Box, chart: ChartSpec, run: RunData) -> None:
    """Tokens by ratio, upwards with A > 0 and downwards with A < 0; hatched where the loss clips them."""
    assert chart.bounds is not None
    halves = halves_of(chart, run)
    top = max((piece.share for half in halves for piece in half.pieces), default=100.0)
    height = 1.04 * math.sqrt(top)
    panel = Panel(sheet, frame, chart.bounds, (-height, height))
    if not halves:
        panel.caption(chart, [])
        panel.empty()
        return
    step = max(found[-1].step for name in chart.histograms if (found := run.counts(chart, name)))
    panel.caption(
        chart, [LegendEntry(*half.summary, COLOURS[half.role]) for half in halves], note=f"{chart.axis}, step {step}"
    )
    shares = root_ticks(top)
    up = [(sign * math.sqrt(share), f"{share:g} %") for share in shares for sign in (1, -1)]
    across = [(math.log(ratio), f"{ratio:g}") for ratio in RATIO_TICKS]
    panel.grid([tick for tick in across if chart.bounds[0] < tick[0] < chart.bounds[1]], [(0, "0 %"), *up])
    for half in halves:
        _draw_half(panel, half, chart.bounds, half.sign * height)
    panel.stroke(Stroke(chart.bounds, (0, 0), MUTED, 1))


def _draw_half(panel: Panel, half: Half, bounds: tuple[float, float], edge: float) -> None:
    """The bars of one sign and the bounds of its clip; ``edge`` is the end of the vertical axis on this side."""
    colour, (start, end) = COLOURS[half.role], bounds
    limits = [
        (limit, side) for limit, side in ((half.below, start), (half.above, end)) if limit is not None and limit > 0
    ]
    for limit, side in limits:
        panel.bar((side, min(max(math.log(limit), start), end)), (0, edge), blend(colour, 0.12))
    for piece in half.pieces:
        if piece.share:
            room = 0.04 * (piece.high - piece.low)
            x, y = (piece.low + room, piece.high - room), (0, half.sign * math.sqrt(piece.share))
            ground = blend(colour, 0.35) if piece.clipped else colour
            panel.bar(x, y, ground, hatch=colour if piece.clipped else "")
    for limit, _ in limits:
        x = math.log(limit)
        if start < x < end:
            panel.stroke(Stroke((x, x), (0, edge), INK, 1.6))
            upper = limit == half.above
            anchor = ("l" if upper else "r") + ("t" if half.sign > 0 else "b")
            panel.text(x, edge, f"{limit:.4g}", anchor=anchor, colour=INK, shift=4 if upper else -4)
    anchor = "lt" if half.sign > 0 else "rb"
    corner = start if half.sign > 0 else end
    panel.text(corner, edge, half.label, anchor=anchor, colour=colour, size=12, shift=4 * half.sign)


# -- further metrics ---------------------------------------------------------------------------------------------------


def _draw_tile(sheet: Sheet, corner: tuple[float, float], chart: ChartSpec, run: RunData) -> None:
    curves = _curves(chart, run)
    strokes = [*_branch_strokes(chart, run), *(Stroke(curve.steps, curve.values, curve.colour) for curve in curves)]
    entries = [LegendEntry(curve.line.label, short(curve.last), curve.colour) for curve in curves]
    draw_tile(sheet, corner, max(run.last_step, 1), title=chart.title, entries=entries, strokes=strokes)
