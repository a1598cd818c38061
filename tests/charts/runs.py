"""Runs as plain data for tests of the renderers: with and without numbers, for any charts."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image

from mint_lab.charts.chart_spec import ChartSpec
from mint_lab.charts.run_data import RatioLimits, RunData, run_data

__all__ = ["Edit", "Record", "colours", "count", "image_of", "run_of"]

Rgb = tuple[int, int, int]


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
