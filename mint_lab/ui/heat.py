"""Histograms over time in a fixed amount of memory: the Python twin of ``widgets/src/heat.ts``.

The rule is that of :mod:`mint_lab.ui.history`: when the columns are full, neighbours merge, and each column stands for
twice as many histograms. A column is a mean of shares, so each histogram has the same weight, whatever it counts.
"""

from __future__ import annotations

import struct

from .messages import HeatData, Histogram

__all__ = ["MAX_COLUMNS", "Heat", "HeatHistory"]

MAX_COLUMNS = 128
"""Columns of a heat map, an even number."""


class Heat:
    """The history of one histogram. Histograms arrive in the order of their steps and have the bins of the first one.

    Attributes:
        capacity: Largest number of columns.
        name: Name of the histogram.
        start, bin, bins: Left end of the first bin, width of a bin, number of bins.
        source: "training" or "held-out".
        width: Histograms per column; the last column may have fewer.
        points: Number of histograms so far.
        steps: Last step of each column.
        columns: Shares by bin of each column.
    """

    def __init__(self, first: Histogram, capacity: int = MAX_COLUMNS) -> None:
        self.capacity = capacity
        self.name, self.start, self.bin = first["name"], first["start"], first["width"]
        self.bins, self.source = len(first["counts"]), first["source"]
        self.width = 1
        self.points = 0
        self.steps: list[float] = []
        self.columns: list[list[float]] = []

    def add(self, step: float, counts: list[int]) -> None:
        """Append one histogram; an empty one is left out."""
        total = sum(counts)
        if not total:
            return
        in_last = self.points % self.width  # histograms in the last column; 0 if it is full
        if not in_last and len(self.steps) == self.capacity:
            self._merge_neighbours()
            in_last = self.points % self.width
        shares = [count / total for count in counts]
        if in_last:
            last = self.columns[-1]
            self.columns[-1] = [old + (new - old) / (in_last + 1) for old, new in zip(last, shares, strict=True)]
            self.steps[-1] = step
        else:
            self.columns.append(shares)
            self.steps.append(step)
        self.points += 1

    def _merge_neighbours(self) -> None:
        pairs = range(0, len(self.steps), 2)
        self.steps = [self.steps[i + 1] for i in pairs]
        self.columns = [[(a + b) / 2 for a, b in zip(self.columns[i], self.columns[i + 1], strict=True)] for i in pairs]
        self.width *= 2

    def to_data(self) -> HeatData:
        """Return the heat map as a snapshot has it."""
        values = [share for column in self.columns for share in column]
        return HeatData(
            name=self.name,
            start=self.start,
            bin=self.bin,
            bins=self.bins,
            width=self.width,
            points=self.points,
            source=self.source,
            steps=struct.pack(f"<{len(self.steps)}d", *self.steps),
            values=struct.pack(f"<{len(values)}f", *values),
        )


class HeatHistory:
    """All histograms of a run over time, by name."""

    def __init__(self) -> None:
        self.heats: dict[str, Heat] = {}

    def add(self, histogram: Histogram) -> bool:
        """Append ``histogram``; return whether it was used.

        After the first held-out histogram of a name, those of training batches are left out and the earlier ones are
        dropped: single batches would only flicker.
        """
        heat = self.heats.get(histogram["name"])
        if heat is not None and heat.source != histogram["source"]:
            if heat.source == "held-out":
                return False
            heat = None
        if heat is None:
            heat = self.heats[histogram["name"]] = Heat(histogram)
        heat.add(histogram["step"], histogram["counts"])
        return True

    def to_data(self) -> list[HeatData]:
        """Return all heat maps as a snapshot has them."""
        return [heat.to_data() for heat in self.heats.values()]
