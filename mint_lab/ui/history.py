"""Curves held in a fixed amount of memory: the twin of ``widgets/src/history.ts``.

A series keeps at most ``CAPACITY`` buckets. When they are full, neighbours merge and each bucket stands for twice as
many points; lowest, highest and mean survive, so a spike stays visible at any length. Kernel and page run the same rule
on the same points, so that a page that has watched from the start and one that has just loaded draw the same picture.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Iterable, Mapping

from .protocol import SeriesData

__all__ = ["CAPACITY", "COLUMNS", "History", "Series"]

CAPACITY = 512
"""Buckets a series may hold, an even number: about the pixels a chart is wide."""

COLUMNS = 48
"""Series a history may hold; a loss that reports more metrics gets the first ones drawn."""


class Series:
    """One curve. Points come in order of their step; values that are not finite in float32 are left out."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.width = 1
        self.points = 0
        self.steps: array[float] = array("d")
        self.low: array[float] = array("d")
        self.high: array[float] = array("d")
        self.mean: array[float] = array("d")

    def __len__(self) -> int:
        return len(self.steps)

    def add(self, step: float, value: float) -> None:
        """Append one point; the value is rounded to float32, as it travels."""
        rounded = as_float32(value)
        if not math.isfinite(rounded):
            return
        inside = self.points % self.width  # points in the last bucket, when it is not yet full
        if inside:
            last = len(self.steps) - 1
            self.steps[last] = step
            self.low[last] = min(self.low[last], rounded)
            self.high[last] = max(self.high[last], rounded)
            self.mean[last] += (rounded - self.mean[last]) / (inside + 1)
        else:
            if len(self.steps) == self.capacity:
                self._halve()
                self.add(step, value)
                return
            self.steps.append(step)
            for column in (self.low, self.high, self.mean):
                column.append(rounded)
        self.points += 1

    def _halve(self) -> None:
        pairs = range(0, len(self.steps), 2)
        self.steps = array("d", (self.steps[i + 1] for i in pairs))
        self.low = array("d", (min(self.low[i], self.low[i + 1]) for i in pairs))
        self.high = array("d", (max(self.high[i], self.high[i + 1]) for i in pairs))
        self.mean = array("d", ((self.mean[i] + self.mean[i + 1]) / 2 for i in pairs))
        self.width *= 2

    def to_data(self, name: str) -> SeriesData:
        """The series as it travels in a snapshot."""
        columns = (self.mean,) if self.width == 1 else (self.low, self.high, self.mean)
        values = b"".join(struct.pack(f"<{len(column)}f", *column) for column in columns)
        steps = struct.pack(f"<{len(self.steps)}d", *self.steps)
        return SeriesData(name=name, width=self.width, points=self.points, steps=steps, values=values)


class History:
    """Every curve of a run, by column name. Held-out metrics have the prefix ``held_out/``."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.series: dict[str, Series] = {}

    def add(self, step: float, columns: Mapping[str, float]) -> None:
        """Append one record."""
        for name, value in columns.items():
            series = self.series.get(name)
            if series is None:
                if len(self.series) >= COLUMNS:
                    continue
                series = self.series[name] = Series(self.capacity)
            series.add(step, value)

    def to_data(self, names: Iterable[str] | None = None) -> list[SeriesData]:
        """Every series as it travels in a snapshot."""
        return [self.series[name].to_data(name) for name in (self.series if names is None else names)]


def as_float32(value: float) -> float:
    """``value`` rounded to float32; infinite where it does not fit."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)
