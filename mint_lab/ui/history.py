"""Curves in a fixed amount of memory: the Python twin of ``widgets/src/history.ts``.

A series holds at most ``MAX_BUCKETS`` buckets. When they are full, neighbours merge, and each bucket stands for twice
as many points; lowest, highest and mean value remain, so a spike stays visible in a run of any length. Kernel and page
apply the same rule to the same points, so a page that was open from the start and a page that was just loaded draw the
same picture.
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Mapping

from .messages import SeriesData

__all__ = ["MAX_BUCKETS", "MAX_SERIES", "History", "Series"]

MAX_BUCKETS = 512
"""Buckets of a series, an even number: about the width of a chart in pixels."""

MAX_SERIES = 48
"""Series of a history. If a loss reports more metrics, the first ones are drawn."""


class Series:
    """One curve. Points arrive in the order of their steps; values that are not finite in float32 are left out.

    Attributes:
        capacity: Largest number of buckets.
        width: Points per bucket; the last bucket may have fewer.
        points: Number of points so far.
        steps: Last step of each bucket.
        low, high, mean: Lowest, highest and mean value of each bucket.
    """

    def __init__(self, capacity: int = MAX_BUCKETS) -> None:
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
        """Append one point; the value is rounded to float32, as in a message."""
        rounded = as_float32(value)
        if not math.isfinite(rounded):
            return
        in_last = self.points % self.width  # points in the last bucket; 0 if it is full
        if in_last:
            last = len(self.steps) - 1
            self.steps[last] = step
            self.low[last] = min(self.low[last], rounded)
            self.high[last] = max(self.high[last], rounded)
            self.mean[last] += (rounded - self.mean[last]) / (in_last + 1)
        else:
            if len(self.steps) == self.capacity:
                self._merge_neighbours()
                self.add(step, value)
                return
            self.steps.append(step)
            for column in (self.low, self.high, self.mean):
                column.append(rounded)
        self.points += 1

    def _merge_neighbours(self) -> None:
        pairs = range(0, len(self.steps), 2)
        self.steps = array("d", (self.steps[i + 1] for i in pairs))
        self.low = array("d", (min(self.low[i], self.low[i + 1]) for i in pairs))
        self.high = array("d", (max(self.high[i], self.high[i + 1]) for i in pairs))
        self.mean = array("d", ((self.mean[i] + self.mean[i + 1]) / 2 for i in pairs))
        self.width *= 2

    def to_data(self, name: str) -> SeriesData:
        """Return the series as a snapshot has it, under ``name``."""
        columns = (self.mean,) if self.width == 1 else (self.low, self.high, self.mean)
        values = b"".join(struct.pack(f"<{len(column)}f", *column) for column in columns)
        steps = struct.pack(f"<{len(self.steps)}d", *self.steps)
        return SeriesData(name=name, width=self.width, points=self.points, steps=steps, values=values)


class History:
    """All curves of a run, by column name. Held-out metrics have the prefix ``held_out/``."""

    def __init__(self, capacity: int = MAX_BUCKETS) -> None:
        self.capacity = capacity
        self.series: dict[str, Series] = {}

    def add(self, step: float, columns: Mapping[str, float]) -> None:
        """Append one record."""
        for name, value in columns.items():
            series = self.series.get(name)
            if series is None:
                if len(self.series) >= MAX_SERIES:
                    continue
                series = self.series[name] = Series(self.capacity)
            series.add(step, value)

    def to_data(self) -> list[SeriesData]:
        """Return all series as a snapshot has them."""
        return [series.to_data(name) for name, series in self.series.items()]


def as_float32(value: float) -> float:
    """Return ``value`` rounded to float32; infinite if it is too large."""
    try:
        return float(struct.unpack("<f", struct.pack("<f", value))[0])
    except OverflowError:
        return math.copysign(math.inf, value)
