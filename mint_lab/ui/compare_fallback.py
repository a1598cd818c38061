"""A comparison as a still picture, for readers without a kernel."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image, ImageDraw

from ..runs.comparison.overlay import PANELS, STYLES, Curves
from .pen import GRID, INK, MUTED, SCALE, Pen, paler
from .protocol_runs import CosineMatrix

__all__ = ["picture"]

WIDTH, PANEL_HEIGHT, COLUMNS, HEAD = 1080, 220, 3, 52
CELL_WIDTH, CELL_HEIGHT = 108, 26
# Strokes and gaps of plotly's line styles, in units of the picture.
_DASHES = {
    "solid": (),
    "dash": (8, 5),
    "dot": (2, 3),
    "dashdot": (8, 4, 2, 4),
    "longdash": (14, 5),
    "longdashdot": (14, 4, 2, 4),
}


def picture(runs: Sequence[Curves], cosines: CosineMatrix | None = None) -> bytes:
    """PNG of all curves of ``runs``, and of ``cosines`` below them."""
    panels = [(title, name) for title, name in PANELS if any(name in {**r.training, **r.held_out} for r in runs)]
    rows = -(-len(panels) // COLUMNS)
    below = 0 if cosines is None or not cosines["values"] else 40 + CELL_HEIGHT * (len(cosines["labels"]) + 1)
    canvas = Image.new("RGB", (WIDTH * SCALE, (HEAD + rows * PANEL_HEIGHT + below) * SCALE), "white")
    pen = Pen(ImageDraw.Draw(canvas))
    _legend(pen, runs)
    for place, (title, name) in enumerate(panels):
        left, top = place % COLUMNS * WIDTH // COLUMNS, HEAD + place // COLUMNS * PANEL_HEIGHT
        _panel(pen, runs, title, name, (left, top))
    if cosines is not None and below:
        _matrix(pen, cosines, HEAD + rows * PANEL_HEIGHT)
    small = canvas.resize((canvas.width * 3 // 4, canvas.height * 3 // 4), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.quantize(128).save(file, "PNG", optimize=True)
    return file.getvalue()


def _legend(pen: Pen, runs: Sequence[Curves]) -> None:
    x = 12.0
    for number, run in enumerate(runs):
        colour, dash = STYLES[number % len(STYLES)]
        pen.dashed([(x, 17), (x + 30, 17)], colour, 2.2, _DASHES[dash])
        x += 36 + pen.text(x + 36, 9, _short(run.label, 40), INK, 13) + 22
    pen.text(12, 30, "strong: held-out data; faint: training batches", MUTED, 11)


def _panel(pen: Pen, runs: Sequence[Curves], title: str, name: str, corner: tuple[float, float]) -> None:
    left, right = corner[0] + 50, corner[0] + WIDTH / COLUMNS - 14
    top, bottom = corner[1] + 30, corner[1] + PANEL_HEIGHT - 26
    shown = [curves[name] for run in runs for curves in (run.training, run.held_out) if name in curves]
    values = [value for _, column in shown for value in column]
    low, high = min(values), max(values)
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    last = max(1, *(steps[-1] for steps, _ in shown))
    pen.text(corner[0] + 12, corner[1] + 6, title, INK, 13)
    for share in (0, 0.5, 1):
        y = bottom - share * (bottom - top)
        pen.path([(left, y), (right, y)], GRID, 1)
        pen.text(left - 6, y, f"{low + share * (high - low):.3g}", MUTED, 11, anchor="rm")
        anchor = {0: "la", 0.5: "ma", 1: "ra"}[share]
        pen.text(left + share * (right - left), bottom + 6, f"{share * last:.4g}", MUTED, 11, anchor=anchor)

    def spots(steps: Sequence[int], column: Sequence[float]) -> list[tuple[float, float]]:
        pairs = zip(steps, column, strict=True)
        return [
            (left + x / last * (right - left), bottom - (y - low) / (high - low) * (bottom - top)) for x, y in pairs
        ]

    for number, run in enumerate(runs):
        colour, dash = STYLES[number % len(STYLES)]
        if name in run.training:
            strong = name not in run.held_out
            pen.dashed(
                spots(*run.training[name]), colour if strong else paler(colour, 0.3), 1, _DASHES[dash] if strong else ()
            )
    for number, run in enumerate(runs):
        if name in run.held_out:
            colour, dash = STYLES[number % len(STYLES)]
            pen.dashed(spots(*run.held_out[name]), colour, 2, _DASHES[dash])


def _matrix(pen: Pen, cosines: CosineMatrix, top: float) -> None:
    where = "before training" if cosines["at"] is None else f"of {_short(cosines['at'], 30)}, step {cosines['step']}"
    pen.text(12, top + 6, f"cosines between gradients, at the weights {where}", INK, 13)
    first = 170
    for place, label in enumerate(cosines["labels"]):
        y = top + 34 + CELL_HEIGHT * (place + 1)
        pen.text(first + CELL_WIDTH * (place + 0.5), top + 44, _short(label, 16), MUTED, 11, anchor="mm")
        pen.text(first - 10, y + CELL_HEIGHT / 2, _short(label, 24), INK, 12, anchor="rm")
        for other, value in enumerate(cosines["values"][place]):
            x = first + CELL_WIDTH * other
            colour = "#ffffff" if value is None else paler("#0072b2" if value >= 0 else "#d55e00", 0.55 * abs(value))
            pen.box(x + 1, y + 1, x + CELL_WIDTH - 1, y + CELL_HEIGHT - 1, colour)
            text = "n/a" if value is None else f"{value:.3f}"
            pen.text(x + CELL_WIDTH / 2, y + CELL_HEIGHT / 2, text, INK, 12, anchor="mm")


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
