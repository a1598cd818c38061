"""What one step of a run leaves behind.

A record is plain data: it goes to disk as one JSON line, to the page as numbers, and into a DataFrame as a row. Metric
names are those of ``mint_lab.metrics``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, TypeAlias

__all__ = ["HISTOGRAM_EDGES", "Edit", "LossVersion", "Status", "StepRecord", "histogram"]

# Fixed edges, so that histograms of different steps and runs can be stacked. The outer bins are open: they also count
# what lies beyond them.
HISTOGRAM_EDGES: dict[str, tuple[float, ...]] = {
    "margin": tuple(-20.0 + i for i in range(41)),  # 40 bins of 1 nat
    "log_ratio": tuple(round(-2.05 + 0.1 * i, 2) for i in range(42)),  # 41 bins of 0.1 nat around 0
}


def histogram(values: Iterable[float], name: str) -> list[int]:
    """Counts of ``values`` by bin of ``HISTOGRAM_EDGES[name]``. The end bins take what lies beyond, nan is dropped.

    Raises:
        KeyError: no edges are fixed under that name.
    """
    edges = HISTOGRAM_EDGES[name]
    counts = [0] * (len(edges) - 1)
    width = edges[1] - edges[0]
    for value in values:
        if math.isnan(value):
            continue
        place = (value - edges[0]) / width
        counts[int(min(max(place, 0), len(counts) - 1))] += 1
    return counts


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step.

    Attributes:
        step: 1-based; step 0 is the state before training and has no record but an evaluation.
        time: seconds since the run started, pauses left out.
        step_time: wall clock of the whole step, seconds; an evaluation after it is only in ``time``.
        tokens: tokens in the batch.
        loss_name, loss_version: which loss made it.
        metrics: training batch, by metric name.
        held_out: held-out data, by metric name; empty where it was not evaluated.
        histograms: counts by histogram name, see ``HISTOGRAM_EDGES``.
        settings: learning rate and the loss's settings as they were.
        warnings: plain words.
    """

    step: int
    time: float
    step_time: float
    tokens: int
    loss_name: str
    loss_version: int
    metrics: dict[str, float] = field(default_factory=dict)
    held_out: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, list[int]] = field(default_factory=dict)
    settings: dict[str, float] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Edit:
    """A change that took effect before ``step``: what a chart marks.

    Attributes:
        step: first step that ran with it.
        kind: "loss" or "setting".
        label: as a chart shows it, for example ``my_loss v3`` or ``learning_rate 0.001``.
    """

    step: int
    kind: Literal["loss", "setting"]
    label: str


@dataclass(frozen=True)
class LossVersion:
    """A loss as it was when a run used it, so that any point of a curve leads to the code that made it."""

    step: int
    name: str
    version: int
    source: str
    config: dict[str, float]


Status: TypeAlias = Literal["ready", "running", "paused", "stopped", "finished"]
