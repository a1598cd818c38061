"""Histograms over time, held in a fixed amount of memory: the twin of ``widgets/src/heat.ts``.

The rule is that of :mod:`mint_lab.ui.history`: when the columns are full, neighbours merge, and each stands for twice
as many histograms. A column is a mean of shares, so that every histogram counts alike, however many values it holds.
"""

from __future__ import annotations

import struct

from .protocol import HeatData, Histogram

__all__ = ["COLUMNS", "Heat", "HeatHistory"]

COLUMNS = 128
"""Columns a heat map may hold, an even number."""


class Heat:
    """One histogram's history. Histograms come in order of their step and have the bins of the first."""

    def __init__(self, first: Histogram, capacity: int = COLUMNS) -> None:
        self.capacity = capacity
        self.name, self.start, self.bin = first["name"], first["start"], first["width"]
        self.bins, self.source = len(first["counts"]), first["source"]
        self.width = 1
        self.points = 0
        self.steps: list[float] = []
        self.columns: list[list[float]] = []

    def add(self, step: float, counts: list[int]) -> None:
        """Append one histogram; an empty one says nothing and is left out."""
        total = sum(counts)
        if not total:
            return
        inside = self.points % self.width  # histograms in the last column, when it is not yet full
        if not inside and len(self.steps) == self.capacity:
            self._halve()
            inside = self.points % self.width
        shares = [count / total for count in counts]
        if inside:
            last = self.columns[-1]
            self.columns[-1] = [old + (new - old) / (inside + 1) for old, new in zip(last, shares, strict=True)]
            self.steps[-1] = step
        else:
            self.columns.append(shares)
            self.steps.append(step)
        self.points += 1

    def _halve(self) -> None:
        pairs = range(0, len(self.steps), 2)
        self.steps = [self.steps[i + 1] for i in pairs]
        self.columns = [[(a + b) / 2 for a, b in zip(self.columns[i], self.columns[i + 1], strict=True)] for i in pairs]
        self.width *= 2

    def to_data(self) -> HeatData:
        """The heat map as it travels in a snapshot."""
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
    """Every histogram of a run over time, by name."""

    def __init__(self) -> None:
        self.heats: dict[str, Heat] = {}

    def add(self, histogram: Histogram) -> bool:
        """Append ``histogram``; False where it does not count.

        Once held-out histograms arrive, those of single training batches would only flicker: they are left out, and
        those there were are dropped.
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
        """Every heat map as it travels in a snapshot."""
        return [heat.to_data() for heat in self.heats.values()]
