"""What a page shows of a run besides its curves, read through the public properties of the run."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

from ..data.rewards import Reward
from ..losses import DataKind, LossSpec, Param
from ..losses.clip import ClipBound
from ..recipes.record import HISTOGRAM_EDGES, Edit, Rewind, Status, StepRecord
from ..recipes.registry import recipe_of
from ..runs.rewind import snapshot_problem
from .loss_catalogue import param_entry
from .messages import Bound, Clip, Failure, Histogram, Mark, OptionEntry, State
from .utf8 import as_utf8

__all__ = [
    "MAX_MARKS",
    "Activity",
    "FailureLike",
    "RunLike",
    "columns_of",
    "finite",
    "histograms_of",
    "marks_of",
    "option_entries",
    "state_of",
]

_PROCESS = uuid.uuid4().hex  # one page can show runs of several kernels

MAX_MARKS = 60
"""Edits that are sent to the page, the latest ones; earlier ones are only counted."""

STOPPED = "This run is stopped, which is final. A fork continues from any of its steps."
MAX_CHARACTERS = 4000  # of a message that is sent; a traceback can be ten times as long
MAX_LABEL_CHARACTERS = 200
MAX_WARNINGS = 4
MAX_NOTES = 3
TRAINING_HISTOGRAMS = ("log_ratio/positive", "log_ratio/negative")  # of the batch, even if there is an evaluation


class Activity(NamedTuple):
    """What the kernel does at the page's request, and why the last such request failed; empty if nothing, or not."""

    text: str = ""
    error: str = ""


class FailureLike(Protocol):
    """Why a step failed."""

    message: str
    line: int | None
    index: int | None
    traceback: str
    loss: str | None
    reward: Reward | None


class RunLike(Protocol):
    """The part of a run that a page reads. Reading is safe from any thread."""

    @property
    def status(self) -> Status: ...
    @property
    def error(self) -> FailureLike | None: ...
    @property
    def notes(self) -> Sequence[str]: ...
    @property
    def steps_done(self) -> int: ...
    @property
    def steps_total(self) -> int | None: ...
    @property
    def steps_per_s(self) -> float: ...
    @property
    def recipe(self) -> str: ...
    @property
    def data_kind(self) -> DataKind: ...
    @property
    def options(self) -> Mapping[str, Any]: ...
    @property
    def loss(self) -> LossSpec: ...
    @property
    def settings(self) -> dict[str, float]: ...
    @property
    def setting_params(self) -> Sequence[Param]: ...
    @property
    def edits(self) -> Sequence[Edit]: ...
    @property
    def records(self) -> Sequence[StepRecord]: ...
    @property
    def rewinds(self) -> Sequence[Rewind]: ...
    @property
    def parent(self) -> Mapping[str, Any]: ...
    @property
    def reading(self) -> AbstractContextManager[object]: ...
    @property
    def baseline(self) -> dict[str, float]: ...


def marks_of(edits: Sequence[Edit]) -> list[Mark]:
    """Return the latest edits as marks of the charts."""
    return [Mark(step=e.step, kind=e.kind, label=e.label[:MAX_LABEL_CHARACTERS]) for e in edits[-MAX_MARKS:]]


def option_entries(name: str, values: Mapping[str, Any]) -> list[OptionEntry]:
    """Return the options of the recipe called ``name``, with their one-line descriptions."""
    docs = recipe_of(name).option_docs()
    return [
        OptionEntry(name=key, value=str(value)[:MAX_LABEL_CHARACTERS], doc=docs.get(key, ""))
        for key, value in values.items()
    ]


def columns_of(record: StepRecord) -> dict[str, float]:
    """Return the metrics of a record by name; those of held-out data have the prefix ``held_out/``."""
    held_out = {f"held_out/{name}": float(value) for name, value in record.held_out.items()}
    columns = {name: float(value) for name, value in record.metrics.items()} | held_out
    # A run can have many records, and as_utf8 takes longer than this check.
    return columns if "".join(columns).isascii() else as_utf8(columns)


def state_of(
    run: RunLike,
    histograms: Sequence[Histogram],
    *,
    base_model: str = "",
    data: str = "",
    activity: Activity | None = None,
) -> State:
    """Return the current state of the run.

    Args:
        run: The run.
        histograms: The latest histogram of each name.
        base_model, data: Names that the page shows.
        activity: What the kernel does at the page's request; None if nothing.
    """
    edits = list(run.edits)
    records = run.records
    # Advice changes with the run; notes about its loss and its data stay, the latest last.
    warnings = [*(records[-1].warnings[:MAX_WARNINGS] if len(records) else []), *run.notes[-MAX_NOTES:]]
    loss = run.loss
    recipe = recipe_of(run.recipe)
    activity = activity or Activity()
    no_snapshots = snapshot_problem(getattr(run, "keep_snapshots", 0), getattr(run, "client", None))
    no_snapshots = f"This run has no snapshots to return to: {no_snapshots}." if no_snapshots else ""
    state = State(
        key=f"{_PROCESS}-{id(run):x}",
        status=run.status,
        steps_done=run.steps_done,
        steps_total=run.steps_total or 0,
        steps_per_s=_steps_per_s(run),
        recipe=run.recipe,
        options=option_entries(run.recipe, run.options),
        headlines=list(recipe.headlines),
        tokens_about=recipe.examples,
        keeps_samples=recipe.keeps_samples,
        base_model=base_model,
        data=_data_text(run, data),
        loss=loss.name,
        loss_label=loss.label,
        last_loss=records[-1].loss_name if len(records) else "",
        settings=finite(run.settings),
        controls=[param_entry(param) for param in run.setting_params],
        clip=_clip(loss),
        marks=marks_of(edits),
        marks_total=len(edits),
        baseline=finite(run.baseline),
        histograms=list(histograms),
        warnings=[text[:MAX_CHARACTERS] for text in warnings],
        failure=_failure(run),
        activity=activity.text,
        activity_error=activity.error[:MAX_CHARACTERS],
        no_rewind=no_snapshots or (STOPPED if run.status == "stopped" else ""),
        no_fork=no_snapshots,
    )
    return as_utf8(state)


def histograms_of(record: StepRecord) -> list[Histogram]:
    """Return the histograms of one record, with their bins."""
    return [
        Histogram(
            name=name,
            step=record.step,
            source="held-out" if record.held_out and name not in TRAINING_HISTOGRAMS else "training",
            start=HISTOGRAM_EDGES[name][0],
            width=round(HISTOGRAM_EDGES[name][1] - HISTOGRAM_EDGES[name][0], 9),
            counts=[int(count) for count in counts],
            clip=list(record.clip) if record.clip is not None and name in TRAINING_HISTOGRAMS else None,
        )
        for name, counts in record.histograms.items()
        # A file can contain a histogram of another version of mint_lab.
        if name in HISTOGRAM_EDGES and len(counts) == len(HISTOGRAM_EDGES[name]) - 1
    ]


def _clip(loss: LossSpec) -> Clip | None:
    clip = loss.clip
    return None if clip is None else Clip(low=_bound(clip.low), high=_bound(clip.high), both=clip.both)


def _bound(bound: ClipBound) -> Bound:
    return Bound(setting=bound.setting, base=bound.base, slope=bound.slope)


def finite(numbers: Mapping[str, float]) -> dict[str, float]:
    """Return the finite numbers; JSON has neither nan nor inf."""
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def _steps_per_s(run: RunLike) -> float:
    rate = run.steps_per_s or 0.0
    return round(rate, 2) if math.isfinite(rate) else 0.0


def _data_text(run: RunLike, name: str) -> str:
    sizes: tuple[int, int] | None = getattr(run, "data_sizes", None)  # None before the data are loaded
    return name if sizes is None else f"{name or 'data'}, {sizes[0]:,} train / {sizes[1]:,} held out"


def _failure(run: RunLike) -> Failure | None:
    error = run.error
    if error is None:
        return None
    return Failure(
        step=run.steps_done + 1,
        message=error.message[:MAX_CHARACTERS],
        line=error.line,
        index=error.index,
        traceback=error.traceback[-MAX_CHARACTERS:],
        loss=error.loss,
        reward=None if error.reward is None or error.reward.builtin else error.reward.name,
    )
