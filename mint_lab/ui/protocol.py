"""What kernel and page say to each other: the one definition, of which ``widgets/src/protocol.ts`` is the twin.

Only the kernel writes the state of a run; the page sends requests. What is small travels as JSON, what grows travels as
typed binary buffers (little-endian): ``steps`` as float64, values as float32.

Kernel to page:

* the trait ``snapshot`` (:class:`Snapshot`): all a page needs to draw, decimated to pixels, so that its size does not
  depend on how long the run is. It is made when somebody asks for it: on a first display and after a page reload.
* :class:`Update`: the records since the last message, and the fields of the state that changed.
* :class:`Snapshot` as a message: the answer to a page that missed more than is worth repeating.
* :class:`Reply`: whether a request was accepted.

Messages of a run are numbered. Custom messages have no history, so a page that sees a gap (or has just started) sends
``{"type": "sync", "since": <records it holds>}`` and gets what it missed. Records are numbered too: one that arrives
twice is dropped, one that is missing is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, TypedDict

__all__ = [
    "PROTOCOL",
    "Buffers",
    "Chart",
    "Failure",
    "Histogram",
    "Line",
    "LossEntry",
    "Losses",
    "Mark",
    "Message",
    "ParamEntry",
    "Reply",
    "Request",
    "RequestType",
    "SeriesData",
    "Snapshot",
    "State",
    "StateChange",
    "Update",
]

PROTOCOL = 1
"""Goes up when a message changes shape; a page of another version says so instead of drawing nonsense."""

Buffer: TypeAlias = bytes
"""Arrives in the page as a ``DataView``."""


class ParamEntry(TypedDict):
    """A setting that a slider may show; ``scale`` says how the slider is divided."""

    name: str
    default: float
    low: float
    high: float
    minimum: float
    doc: str
    scale: Literal["linear", "log"]


class LossEntry(TypedDict):
    """A loss as the picker shows it. ``reason`` is empty when it can be used, else it says why not."""

    name: str
    label: str
    family: str
    formula: str
    summary: str
    paper: str
    params: list[ParamEntry]
    reason: str


class Line(TypedDict):
    """One curve: ``series`` is its column, ``label`` its name in the legend, ``role`` its colour."""

    series: str
    label: str
    role: Literal["train", "held_out", "chosen", "rejected"]


class Chart(TypedDict):
    """One panel. ``bounds`` fixes the vertical axis; ``kind`` "bars" draws the latest histogram of that name."""

    name: str
    title: str
    unit: str
    kind: Literal["lines", "bars"]
    lines: list[Line]
    bounds: list[float] | None


class Mark(TypedDict):
    """A change that took effect before ``step``."""

    step: int
    label: str


class Histogram(TypedDict):
    """Counts of equal bins of ``width``, the first starting at ``start``; the outer bins are open."""

    name: str
    step: int
    source: str
    start: float
    width: float
    counts: list[int]


class Failure(TypedDict):
    """Why a step failed; ``line`` counts from 1 in the loss's own source."""

    step: int
    message: str
    line: int | None
    index: int | None
    traceback: str


class State(TypedDict):
    """All of a run that is not a curve. Its size does not depend on the run's length."""

    status: Literal["ready", "running", "paused", "stopped", "finished"]
    steps_done: int
    steps_total: int
    steps_per_s: float
    recipe: str
    base_model: str
    data: str
    loss: str
    loss_label: str
    settings: dict[str, float]
    controls: list[ParamEntry]
    marks: list[Mark]
    marks_total: int
    baseline: dict[str, float]
    histograms: list[Histogram]
    warnings: list[str]
    failure: Failure | None


class StateChange(State, total=False):
    """The fields of :class:`State` that changed; the others are absent."""


class SeriesData(TypedDict):
    """One decimated curve.

    ``width`` is the number of points a full bucket stands for, ``points`` how many went in altogether. ``steps`` is the
    last step of each bucket, float64 ``(n,)``. ``values`` is float32: ``(n,)`` where ``width`` is 1, else ``(3, n)``:
    lowest, highest, mean.
    """

    name: str
    width: int
    points: int
    steps: Buffer
    values: Buffer


class Snapshot(TypedDict):
    """The whole picture after ``seen`` records and ``number`` messages of run ``epoch``."""

    type: Literal["snapshot"]
    protocol: int
    epoch: str
    number: int
    seen: int
    state: State
    charts: list[Chart]
    losses: list[LossEntry]
    series: list[SeriesData]


class Update(TypedDict):
    """Records ``first`` to ``first + count - 1`` (0-based), and what changed (all of the state where ``full``).

    Two buffers when ``count`` > 0: steps, float64 ``(count,)``; values, float32 ``(len(columns), count)``, nan where a
    record has no such metric.
    """

    type: Literal["update"]
    epoch: str
    number: int
    first: int
    count: int
    columns: list[str]
    full: bool
    state: StateChange


class Losses(TypedDict):
    """The picker's entries, after a loss was registered."""

    type: Literal["losses"]
    losses: list[LossEntry]


class Reply(TypedDict):
    """Request ``request`` was taken (``error`` is empty) or refused."""

    type: Literal["reply"]
    request: int
    error: str


RequestType: TypeAlias = Literal["sync", "start", "pause", "resume", "step", "stop", "set_loss", "set", "new_run"]


class Request(TypedDict, total=False):
    """What a page may ask for. ``since`` and ``epoch`` belong to sync, ``name`` to set_loss, both to set."""

    type: RequestType
    request: int
    since: int
    epoch: str
    name: str
    value: float


Message: TypeAlias = Snapshot | Update | Losses | Reply
Buffers: TypeAlias = Sequence[Buffer]
