"""Runs as plain data for tests of the renderers: with and without numbers, for any charts."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from mint_lab.charts.chart_spec import ChartSpec
from mint_lab.charts.run_data import RatioLimits, RunData, run_data
from mint_lab.charts.static_panel import placed

__all__ = ["Edit", "Record", "colours", "count", "image_of", "panels", "places", "run_of"]

Rgb = tuple[int, int, int]
PIXELS = 1.5  # of a unit


@dataclass(frozen=True)
class Record:
    step: int
    metrics: dict[str, float] = field(default_factory=dict)
    held_out: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Edit:
    step: int
    kind: str
    label: str


def run_of(
    charts: Sequence[ChartSpec],
    steps: int = 30,
    *,
    label: str = "run",
    changes: Sequence[Edit] = (),
    limits: RatioLimits | None = None,
    **extra: float,
) -> RunData:
    """A run that has everything that ``charts`` show, and the metrics ``extra``."""
    metrics = [name for chart in charts for name in chart.metrics]
    metrics += [line.spread for chart in charts for line in chart.lines if line.spread]
    records: list[Record] = []
    for step in range(1, steps + 1):
        now = {name: 0.5 + 0.4 * math.sin(step / 5 + place) for place, name in enumerate(metrics)}
        held_out = now if step % 10 == 0 or step == steps else {}
        histograms = {
            name: [max(0, 9 - abs(i - 22)) for i in range(40 if chart.kind == "bars" else 41)]
            for chart in charts
            for name in chart.histograms
        }
        records.append(Record(step, {**now, **extra}, held_out, histograms))
    return run_data(label, records, dict.fromkeys(metrics, 0.5), changes, limits)


def image_of(png: bytes) -> Image.Image:
    assert png.startswith(b"\x89PNG")
    return Image.open(io.BytesIO(png)).convert("RGB")


def colours(image: Image.Image) -> dict[Rgb, int]:
    """Pixels by colour."""
    return {colour: count for count, colour in image.getcolors(1 << 24) or []}  # type: ignore[misc]


def count(seen: dict[Rgb, int], colour: str, tolerance: int = 6) -> int:
    """Pixels of about the colour #rrggbb: the palette of a picture is not exact for small areas."""
    wanted = int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
    return sum(n for found, n in seen.items() if max(map(abs, map(int.__sub__, wanted, found))) <= tolerance)


def places(image: Image.Image, colour: str, tolerance: int = 6) -> list[tuple[int, int]]:
    """Return x and y of the pixels of about the colour #rrggbb."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    rows, columns = np.nonzero((abs(np.asarray(image, dtype=int) - wanted) <= tolerance).all(axis=2))
    return list(zip(columns.tolist(), rows.tolist(), strict=True))


def panels(image: Image.Image, charts: Sequence[ChartSpec], top: float = 30) -> dict[str, Image.Image]:
    """Return the part of the picture with the curves of each chart: 290 by 152 units, of a wide chart 650 by 152."""
    frames, _ = placed([2 if chart.kind == "ratios" else 1 for chart in charts], top)
    return {
        chart.name: image.crop(
            [round(PIXELS * v) for v in (f.left + 56, f.top + 52, f.left + f.width - 14, f.top + f.height - 26)]
        )
        for chart, f in zip(charts, frames, strict=True)
    }
