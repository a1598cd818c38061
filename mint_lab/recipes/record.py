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
    # Log-ratio of trainer to sampler, by the sign of the advantage, which decides the side that is clipped: 41 bins of
    # 0.05 nat around 0, the middle of one; [0.8, 1.2] ends in the fourth bin above and the fourth below it.
    "log_ratio/positive": tuple(round(-1.025 + 0.05 * i, 3) for i in range(42)),
    "log_ratio/negative": tuple(round(-1.025 + 0.05 * i, 3) for i in range(42)),
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
        settings: learning rate and the loss's settings as they were; those of a rollout with ``rollout/`` in front.
        warnings: plain words.
        samples: of an evaluation of reinforcement learning, a few responses, each with ``source`` ("training" or
            "held-out"), ``prompt``, ``response`` and ``reward``; those of training also with ``advantage``, ``tokens``
            (their texts), ``ratio`` and ``clipped``, one entry a token.
        clip: lowest and highest ratio that the loss let through; None if it clips no tokens.
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
    samples: list[dict[str, Any]] = field(default_factory=list)
    clip: tuple[float, float] | None = None

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Edit:
    """A change that took effect before ``step``: what a chart marks.

    Attributes:
        step: first step that ran with it.
        kind: "loss", "reward" or "setting".
        label: as a chart shows it, for example ``my_loss v3`` or ``learning_rate 0.001``.
    """

    step: int
    kind: Literal["loss", "reward", "setting"]
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
