"""What a page shows of a run besides its curves, read from the run's public face."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..data.rewards import Reward
from ..losses import DataKind, LossSpec, Param
from ..losses.clip import ClipBound
from ..recipes.record import HISTOGRAM_EDGES, Edit, Status, StepRecord
from ..recipes.registry import recipe_of
from .loss_catalogue import param_entry
from .protocol import Bound, Clip, Failure, Histogram, Mark, OptionEntry, State
from .wire import travels

__all__ = [
    "MARKS",
    "FailureLike",
    "RunLike",
    "columns_of",
    "histograms_of",
    "marks_of",
    "state_of",
]

MARKS = 60
"""Edits sent to the page, the latest; what lies further back is counted only."""

_TEXT = 4000  # characters of a message that travel; a traceback may be ten times as long
_WARNINGS = 4
_OF_TRAINING = ("log_ratio/positive", "log_ratio/negative")  # also in a record that has an evaluation


class FailureLike(Protocol):
    """Why a step failed."""

    message: str
    line: int | None
    index: int | None
    traceback: str
    loss: str | None
    reward: Reward | None


class RunLike(Protocol):
    """The part of a run that a page reads and steers. Reading is safe from any thread."""

    @property
    def status(self) -> Status: ...
    @property
    def error(self) -> FailureLike | None: ...
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
    def baseline(self) -> dict[str, float]: ...


def marks_of(edits: Sequence[Edit]) -> list[Mark]:
    """The latest edits, as marks."""
    return [Mark(step=edit.step, kind=edit.kind, label=edit.label[:200]) for edit in edits[-MARKS:]]


def option_entries(name: str, values: Mapping[str, Any]) -> list[OptionEntry]:
    """Return the options of the recipe called ``name``, with their one-line descriptions."""
    docs = recipe_of(name).option_docs()
    return [OptionEntry(name=key, value=str(value)[:200], doc=docs.get(key, "")) for key, value in values.items()]


def columns_of(record: StepRecord) -> dict[str, float]:
    """A record as curves: its metrics by name, held-out ones with the prefix ``held_out/``."""
    held_out = {f"held_out/{name}": float(value) for name, value in record.held_out.items()}
    columns = {name: float(value) for name, value in record.metrics.items()} | held_out
    return columns if "".join(columns).isascii() else travels(columns)  # of runs with many records, one by one


def state_of(run: RunLike, histograms: Sequence[Histogram], *, base_model: str = "", data: str = "") -> State:
    """The run as it is now."""
    edits = list(run.edits)
    records = run.records
    warnings = records[-1].warnings if len(records) else []
    loss = run.loss
    recipe = recipe_of(run.recipe)
    state = State(
        status=run.status,
        steps_done=run.steps_done,
        steps_total=run.steps_total or 0,
        steps_per_s=_rate(run),
        recipe=run.recipe,
        options=option_entries(run.recipe, run.options),
        headlines=list(recipe.headlines),
        tokens_about=recipe.examples,
        keeps_samples=recipe.keeps_samples,
        base_model=base_model,
        data=_data(run, data),
        loss=loss.name,
        loss_label=loss.label,
        last_loss=records[-1].loss_name if len(records) else "",
        settings=_finite(run.settings),
        controls=[param_entry(param) for param in run.setting_params],
        clip=_clip(loss),
        marks=marks_of(edits),
        marks_total=len(edits),
        baseline=_finite(run.baseline),
        histograms=list(histograms),
        warnings=[text[:_TEXT] for text in warnings[:_WARNINGS]],
        failure=_failure(run),
    )
    return travels(state)


def histograms_of(record: StepRecord) -> list[Histogram]:
    """The histograms of one record, with their bins."""
    return [
        Histogram(
            name=name,
            step=record.step,
            source="held-out" if record.held_out and name not in _OF_TRAINING else "training",
            start=HISTOGRAM_EDGES[name][0],
            width=round(HISTOGRAM_EDGES[name][1] - HISTOGRAM_EDGES[name][0], 9),
            counts=[int(count) for count in counts],
            clip=list(record.clip) if record.clip is not None and name in _OF_TRAINING else None,
        )
        for name, counts in record.histograms.items()
        if name in HISTOGRAM_EDGES
    ]


def _clip(loss: LossSpec) -> Clip | None:
    clip = loss.clip
    return None if clip is None else Clip(low=_bound(clip.low), high=_bound(clip.high), both=clip.both)


def _bound(bound: ClipBound) -> Bound:
    return Bound(setting=bound.setting, base=bound.base, slope=bound.slope)


def _finite(numbers: Mapping[str, float]) -> dict[str, float]:
    """JSON knows neither nan nor inf."""
    return {name: float(value) for name, value in numbers.items() if math.isfinite(value)}


def _rate(run: RunLike) -> float:
    rate = run.steps_per_s or 0.0
    return round(rate, 2) if math.isfinite(rate) else 0.0


def _data(run: RunLike, name: str) -> str:
    sizes: tuple[int, int] | None = getattr(run, "data_sizes", None)  # known once it is loaded
    return name if sizes is None else f"{name or 'data'}, {sizes[0]:,} train / {sizes[1]:,} held out"


def _failure(run: RunLike) -> Failure | None:
    error = run.error
    if error is None:
        return None
    return Failure(
        step=run.steps_done + 1,
        message=error.message[:_TEXT],
        line=error.line,
        index=error.index,
        traceback=error.traceback[-_TEXT:],
        loss=error.loss,
        reward=None if error.reward is None or error.reward.builtin else error.reward.name,
    )
