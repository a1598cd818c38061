"""Several runs as a still picture (PNG): every metric with all runs in one chart, and cosines between gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .axes import short, thinned
from .canvas import MUTED, WIDTH, Box, Sheet, drawing
from .chart_spec import ChartSpec
from .colour_scale import blend
from .overlay import OverlayChart, overlay_charts, stray_overlays
from .palette import DASHES, ROLES, RUNS
from .run_data import Points, RunData
from .static_panel import STROKES_AND_GAPS, LegendEntry, Panel, Stroke, draw_tile, placed, range_of, tiles

__all__ = ["CosineTable", "comparison_picture"]

CURVE_POINTS = 1000
HEAD = 52
CELL_WIDTH, CELL_HEIGHT, ROW_LABELS = 108, 26, 170


@dataclass(frozen=True)
class CosineTable:
    """Cosines between the gradients of the runs' losses at the same weights.

    Attributes:
        labels: The runs.
        values: Row by row; None if a gradient is 0.
        at: Run whose weights were used, after ``step`` steps; None: before training.
    """

    labels: Sequence[str]
    values: Sequence[Sequence[float | None]]
    at: str | None = None
    step: int = 0


@drawing
def comparison_picture(
    runs: Sequence[RunData], charts: Sequence[ChartSpec], cosines: CosineTable | None = None
) -> bytes:
    """Draw runs on top of each other: held-out data strong, training batches faint.

    Args:
        runs: Each has its own colour and line style.
        charts: The charts of all runs, see :func:`~mint_lab.charts.overlay.overlay_charts`.
        cosines: A table that is drawn below.

    Returns:
        PNG, 1620 pixels wide.
    """
    shown = [chart for chart in overlay_charts(charts) if _has_data(chart, runs)]
    stray = [chart for chart in stray_overlays(runs, charts) if _has_data(chart, runs)]
    frames, bottom = placed([1] * len(shown), HEAD)
    corners, bottom = tiles(len(stray), bottom)
    table = cosines if cosines is not None and cosines.values else None
    sheet = Sheet(bottom if table is None else bottom + 40 + CELL_HEIGHT * (len(table.labels) + 1))
    _legend(sheet, runs)
    last = max([1, *(run.steps for run in runs)])
    for frame, chart in zip(frames, shown, strict=True):
        strokes = _strokes(chart, runs)
        y, ticks = range_of([stroke.y for stroke in strokes], chart.bounds)
        panel = Panel(sheet, frame, (0, last), y)
        panel.caption(chart, _numbers(chart, runs))
        panel.steps_and(ticks)
        for stroke in strokes:
            panel.stroke(stroke)
    for corner, chart in zip(corners, stray, strict=True):
        draw_tile(sheet, corner, last, title=chart.title, entries=_numbers(chart, runs), strokes=_strokes(chart, runs))
    if table is not None:
        _draw_table(sheet, table, bottom)
    return sheet.png()


def _has_data(chart: OverlayChart, runs: Sequence[RunData]) -> bool:
    return any(chart.training(run) or chart.held_out(run) for run in runs)


def _colour(number: int) -> str:
    return RUNS["light"][number % len(RUNS["light"])]


def _dashes(number: int) -> Sequence[float]:
    return STROKES_AND_GAPS[DASHES[number % len(DASHES)]]


def _numbers(chart: OverlayChart, runs: Sequence[RunData]) -> list[LegendEntry]:
    """The last number of each run in its colour, held-out if it has one."""
    curves = [(number, chart.held_out(run) or chart.training(run)) for number, run in enumerate(runs)]
    return [LegendEntry("", short(points[1][-1]), _colour(number)) for number, points in curves if points]


def _strokes(chart: OverlayChart, runs: Sequence[RunData]) -> list[Stroke]:
    """The curves of all runs; the strong ones last, so that they lie on top."""
    faint: list[Stroke] = []
    strong: list[Stroke] = []
    for number, run in enumerate(runs):
        training, held_out = chart.training(run), chart.held_out(run)
        colour, dashes = _colour(number), _dashes(number)
        if training and held_out:
            faint.append(_stroke(training, blend(colour, 0.3), 1))
        elif training:
            faint.append(_stroke(training, colour, 1, dashes))
        if held_out:
            strong.append(_stroke(held_out, colour, 2, dashes))
    return [stroke for stroke in [*faint, *strong] if stroke.x]


def _stroke(points: Points, colour: str, width: float, dashes: Sequence[float] = ()) -> Stroke:
    return Stroke(*thinned(*points, CURVE_POINTS), colour, width, dashes)


def _legend(sheet: Sheet, runs: Sequence[RunData]) -> None:
    x, room = 12.0, (WIDTH - 24) / max(len(runs), 1)
    for number, run in enumerate(runs):
        sheet.path((x, x + 30), (17, 17), _colour(number), 2.2, dashes=_dashes(number))
        label = sheet.text(x + 36, 9, run.label, size=13, limit=max(min(room - 58, 300), 40))
        x += 36 + sheet.width_of(label, 13) + 22
    sheet.text(12, 30, "strong: held-out data; faint: training batches", colour=MUTED)


def _draw_table(sheet: Sheet, table: CosineTable, top: float) -> None:
    where = "before training" if table.at is None else f"of {table.at}, step {table.step}"
    sheet.text(12, top + 6, f"cosines between gradients, at the weights {where}", size=13, limit=WIDTH - 24)
    for row, (label, values) in enumerate(zip(table.labels, table.values, strict=True)):
        y = top + 34 + CELL_HEIGHT * (row + 1)
        across = ROW_LABELS + CELL_WIDTH * (row + 0.5)
        sheet.text(across, top + 44, label, colour=MUTED, anchor="mm", limit=CELL_WIDTH - 8)
        sheet.text(ROW_LABELS - 10, y + CELL_HEIGHT / 2, label, size=12, anchor="rm", limit=ROW_LABELS - 20)
        for column, value in enumerate(values):
            cell = Box(ROW_LABELS + CELL_WIDTH * column + 1, y + 1, CELL_WIDTH - 2, CELL_HEIGHT - 2)
            if value is not None:
                role = "train" if value >= 0 else "rejected"
                sheet.box(cell, blend(ROLES["light"][role], 0.55 * abs(value)))
            text = "n/a" if value is None else f"{value:.3f}"
            sheet.text(cell.left + cell.width / 2, y + CELL_HEIGHT / 2, text, size=12, anchor="mm")
