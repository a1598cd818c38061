"""What one step of a run leaves behind.

:class:`StepRecord`, :class:`Edit` and :class:`LossVersion` are plain data: each is written to disk as one JSON line,
sent to the page as numbers, and shown in a DataFrame as a row. Metric names are those of :mod:`mint_lab.metrics`.

Creating one checks nothing, because a step that has updated the weights must not fail on its record. When a file is
read, pydantic checks the fields against :data:`Number`, :data:`Text` and :data:`Whole` (:mod:`mint_lab.runs.entries`).
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, InstanceOf, PlainValidator, Strict
from pydantic_core import PydanticCustomError

__all__ = [
    "HISTOGRAM_EDGES",
    "LARGEST_FLOAT",
    "Edit",
    "LossVersion",
    "Number",
    "Status",
    "StepRecord",
    "Text",
    "Whole",
    "histogram",
]

LARGEST_FLOAT = sys.float_info.max  # JSON can hold larger numbers


def _checked_number(value: Any) -> float:
    if isinstance(value, str) and value in ("nan", "inf", "-inf"):
        return float(value)
    too_large = isinstance(value, int) and abs(value) > LARGEST_FLOAT
    if not isinstance(value, int | float) or isinstance(value, bool) or too_large:
        raise PydanticCustomError("number", "expected a number")
    return value


# In files, numbers that are not finite are the texts "nan", "inf" and "-inf", because strict JSON cannot hold them.
Number: TypeAlias = Annotated[float, PlainValidator(_checked_number)]
# No coercion: "3" and true are not whole numbers. pandas and the page take 64 bits.
Whole: TypeAlias = Annotated[int, Strict(), Field(ge=-(2**63), lt=2**63)]
# Any str, even with half a surrogate pair, which JSON can hold and pydantic's own str refuses.
Text: TypeAlias = InstanceOf[str]
Status: TypeAlias = Literal["ready", "running", "paused", "stopped", "finished"]

# Fixed edges, so that histograms of different steps and runs can be stacked. The outer bins also count the values
# beyond them.
HISTOGRAM_EDGES: dict[str, tuple[float, ...]] = {
    "margin": tuple(-20.0 + i for i in range(41)),  # 40 bins of 1 nat
    # Log-ratio of trainer to sampler. The sign of the advantage decides which side is clipped, so each sign has a
    # histogram: 41 bins of 0.05 nat, the middle one around 0; [0.8, 1.2] ends in the fourth bin above and below it.
    "log_ratio/positive": tuple(round(-1.025 + 0.05 * i, 3) for i in range(42)),
    "log_ratio/negative": tuple(round(-1.025 + 0.05 * i, 3) for i in range(42)),
}


def histogram(values: Iterable[float], name: str) -> list[int]:
    """Count ``values`` by bin of ``HISTOGRAM_EDGES[name]``.

    The outer bins also count the values beyond them; nan is dropped.

    Raises:
        KeyError: If no edges are defined under that name.
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


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One optimizer step.

    Attributes:
        step: Number of the step, from 1. The state before training is step 0; it has an evaluation and no record.
        time: Seconds since the run started, without pauses.
        step_time: Wall-clock seconds of the whole step; an evaluation after it counts only in ``time``.
        tokens: Tokens in the batch.
        loss_name, loss_version: The loss that the step used.
        metrics: Metrics of the training batch, by name.
        held_out: Metrics of the held-out data, by name; empty for a step without an evaluation.
        histograms: Counts by histogram name, see ``HISTOGRAM_EDGES``.
        settings: Settings of the optimizer and the loss at this step; those of a rollout have the prefix ``rollout/``.
        warnings: Notes about this step, in plain words.
        samples: A few responses, after an evaluation in reinforcement learning. Each has ``source`` ("training" or
            "held-out"), ``prompt``, ``response`` and ``reward``. Those from training also have ``advantage``,
            ``tokens`` (as text), ``ratio`` and ``clipped``, with one entry per token.
        clip: Lowest and highest ratio that the loss let through at this step; None if the loss clips no tokens.
        schedule: Schedule of the learning rate at this step.
        steps_total: Optimizer steps that the run was to complete at this step; 0 if unknown.
    """

    step: Whole
    time: Number
    step_time: Number
    tokens: Whole
    loss_name: Text
    loss_version: Whole
    metrics: dict[Text, Number] = field(default_factory=dict)
    held_out: dict[Text, Number] = field(default_factory=dict)
    histograms: dict[Text, list[Whole]] = field(default_factory=dict)
    settings: dict[Text, Number] = field(default_factory=dict)
    warnings: list[Text] = field(default_factory=list)
    samples: list[dict[Text, Any]] = field(default_factory=list)
    clip: tuple[Number, Number] | None = None
    schedule: Text = "constant"
    steps_total: Whole = 0

    def entries(self) -> dict[str, Any]:
        """Return the fields by name."""
        return {each.name: getattr(self, each.name) for each in fields(self)}

    def sharing(self, records: Sequence[StepRecord]) -> StepRecord:
        """Return this record with the settings and empty fields of the one before it, if they are equal.

        A run keeps all of its records, so in a long one this saves a third of their memory.

        Args:
            records: The records so far.
        """
        if not records:
            return self
        equal = {name: kept for name in _SHARED if (kept := getattr(records[-1], name)) == getattr(self, name)}
        return replace(self, **equal)


_SHARED = ("held_out", "settings", "warnings", "samples")


@dataclass(frozen=True)
class Edit:
    """A change that took effect before ``step``; charts mark it.

    Attributes:
        step: First step that used the change.
        kind: What changed.
        label: Text of the mark, for example ``my_loss v3`` or ``learning_rate 0.001``.
    """

    step: Whole
    kind: Literal["loss", "reward", "setting"]
    label: Text


@dataclass(frozen=True)
class LossVersion:
    """A loss as it was when a run used it, so that every point of a curve leads to the code that computed it.

    Attributes:
        step: First step that used it.
        name, version, source: As of the loss.
        config: Its settings at that step.
        described: What the source does not tell of the loss: its unit, reduction and inputs.
    """

    step: Whole
    name: Text
    version: Whole
    source: Text
    config: dict[Text, Number]
    described: dict[Text, Any] = field(default_factory=dict, compare=False)


@dataclass(frozen=True)
class Rewind:
    """Steps that a run has returned from; charts show them as a faint curve.

    Attributes:
        step: The step that the run returned to.
        records: Records of the steps after it.
        edits: Edits that took effect at these steps.
    """

    step: int
    records: list[StepRecord]
    edits: list[Edit]
