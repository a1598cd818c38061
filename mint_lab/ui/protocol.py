"""What kernel and page say to each other: the one definition, of which ``widgets/src/protocol.ts`` is the twin.

Only the kernel writes the state of a run; the page sends requests. What is small travels as JSON, what grows travels as
typed binary buffers (little-endian): ``steps`` as float64, values as float32.

Kernel to page:

* the trait ``snapshot`` (:class:`Snapshot`): all a page needs to draw, decimated to pixels, so that its size does not
  depend on how long the run is. It is made when somebody asks for it: on a first display and after a page reload.
* :class:`Update`: the records since the last message, and the fields of the state that changed.
* :class:`Snapshot` as a message: the answer to a page that holds nothing, or missed more than is worth repeating. What
  is binary travels beside it: steps and values of each series, then of each heat map, whose own fields are empty.
* the trait ``tokens`` (:class:`Tokens`): examples token by token; of a run, some time after a page asked for them.
* the trait ``samples`` (:class:`Samples`): the latest responses that a reinforcement learning run kept.
* :class:`Reply`: whether a request was accepted; :class:`Document`: what it asked for. All pages that show the widget
  hear of it: each numbers its requests from a number of its own.

Messages of a run are numbered. Custom messages have no history, so a page that sees a gap (or has just started) sends
``{"type": "sync", "since": <records it holds>}`` and gets what it missed. Records are numbered too: one that arrives
twice is dropped, one that is missing is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, TypedDict

__all__ = [
    "PROTOCOL",
    "Bound",
    "Buffers",
    "Chart",
    "Clip",
    "Document",
    "Failure",
    "HeatData",
    "Histogram",
    "InputEntry",
    "Line",
    "LossEntry",
    "Losses",
    "Mark",
    "Message",
    "ParamEntry",
    "Reply",
    "Request",
    "RequestType",
    "SampleRow",
    "Samples",
    "SeriesData",
    "Snapshot",
    "State",
    "StateChange",
    "TokenColumn",
    "TokenRow",
    "Tokens",
    "Update",
]

PROTOCOL = 5
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


class InputEntry(TypedDict):
    """A field of the data that a loss reads. ``here``: this recipe's data have it, or the trainer adds it."""

    name: str
    here: bool


class LossEntry(TypedDict):
    """A loss as the picker shows it. ``reason`` is empty when it can be used, else it says why not."""

    name: str
    label: str
    family: str
    formula: str
    summary: str
    paper: str
    inputs: list[InputEntry]
    params: list[ParamEntry]
    reason: str


class Line(TypedDict):
    """One curve: ``series`` is its column, ``label`` its name in the legend, ``role`` its colour.

    ``spread`` is the column of its standard deviation, drawn as a band on both sides; empty for none.
    """

    series: str
    label: str
    role: Literal["train", "held_out", "chosen", "rejected"]
    spread: str


class Chart(TypedDict):
    """One panel. ``bounds`` fixes the vertical axis; ``kind`` "bars" draws the latest histogram of that name.

    Kind "ratios" draws two histograms of log-ratios, ``name/positive`` upwards and ``name/negative`` downwards, with
    the bounds between which the loss lets a ratio through. It is as wide as two others.
    """

    name: str
    title: str
    unit: str
    kind: Literal["lines", "bars", "ratios"]
    lines: list[Line]
    bounds: list[float] | None


class Mark(TypedDict):
    """A change that took effect before ``step``."""

    step: int
    label: str


class Histogram(TypedDict):
    """Counts of equal bins of ``width``, the first starting at ``start``; the outer bins are open.

    ``clip`` is the lowest and the highest ratio that the loss let through at that step; None where it clips nothing.
    """

    name: str
    step: int
    source: str
    start: float
    width: float
    counts: list[int]
    clip: list[float] | None


class Bound(TypedDict):
    """The ratio ``base + slope * settings[setting]``, so that a page can tell it while the setting is being chosen."""

    setting: str
    base: float
    slope: float


class Clip(TypedDict):
    """Where the loss in use clips the ratio of a token: below ``low`` if A < 0, above ``high`` if A > 0.

    With ``both`` it clips on both sides, whatever the sign of the advantage.
    """

    low: Bound
    high: Bound
    both: bool


class Failure(TypedDict):
    """Why a step failed; ``line`` counts from 1 in the loss's own source.

    ``loss`` is the loss whose registration anew lets the run go on, ``reward`` likewise; None where that does not.
    """

    step: int
    message: str
    line: int | None
    index: int | None
    traceback: str
    loss: str | None
    reward: str | None


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
    clip: Clip | None
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


class HeatData(TypedDict):
    """A histogram over time, decimated like a curve: each column is the mean of ``width`` histograms, as shares.

    ``steps`` is the last step of each column, float64 ``(n,)``; ``values`` is float32 ``(n, bins)``; ``points`` is how
    many histograms went in.
    """

    name: str
    start: float
    bin: float
    bins: int
    width: int
    points: int
    source: str
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
    heats: list[HeatData]


class Update(TypedDict):
    """Records ``first`` to ``first + count - 1`` (0-based), and what changed (all of the state where ``full``).

    ``histograms`` are those of the records, in order.

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
    histograms: list[Histogram]
    state: StateChange


class Losses(TypedDict):
    """The picker's entries, after a loss was registered."""

    type: Literal["losses"]
    losses: list[LossEntry]


class TokenColumn(TypedDict):
    """One number a token. ``low`` and ``high`` are the ends of the colour scale; values may lie beyond them.

    ``scale`` "diverging" is symmetrical about 0, "ratio" about 1 by its logarithm, "sequential" runs from the end that
    is nearer to 0, without colour, to the other. ``note`` says in a few words what the sign means.
    """

    name: str
    unit: str
    note: str
    scale: Literal["diverging", "ratio", "sequential"]
    low: float
    high: float


class TokenRow(TypedDict):
    """One sequence: tokens ``start`` to ``start + length - 1`` of all, of which the first ``shared`` are the prompt.

    Rows with the same ``item`` belong together, and their prompts are the same tokens.
    """

    item: int
    title: str
    role: Literal["", "chosen", "rejected"]
    start: int
    length: int
    shared: int


class Tokens(TypedDict):
    """Sequences token by token, after ``step`` steps of training where that is known.

    ``ids`` are the token ids, int32 ``(n,)``; ``pieces`` says which of ``texts`` each is, int32 ``(n,)``; ``values`` is
    float32 ``(len(columns), n)``, nan where a token has no such number (the first of a sequence, which nothing
    predicts, has none at all). An id of -1 is one that nobody kept. ``by`` names the column that colours; ``about``
    says what the gradient is of.
    """

    step: int | None
    about: str
    by: str
    rows: list[TokenRow]
    columns: list[TokenColumn]
    texts: list[str]
    ids: Buffer
    pieces: Buffer
    values: Buffer


class SampleRow(TypedDict):
    """One response. Its tokens are ``start`` to ``start + length - 1`` of all; ``length`` is 0 where none are known."""

    source: Literal["training", "held-out"]
    prompt: str
    response: str
    reward: float
    advantage: float | None
    start: int
    length: int


class Samples(TypedDict):
    """Responses of step ``step``; ``tokens`` are those of all rows, with the columns "ratio" and "clipped" (0 or 1)."""

    step: int
    rows: list[SampleRow]
    tokens: Tokens | None


class Reply(TypedDict):
    """Request ``request`` was taken (``error`` is empty) or refused."""

    type: Literal["reply"]
    request: int
    error: str


class Document(TypedDict):
    """The answer to request ``request``: text as one buffer of UTF-8."""

    type: Literal["document"]
    request: int


RequestType: TypeAlias = Literal[
    "sync", "start", "pause", "resume", "step", "stop", "set_loss", "set", "new_run", "tokens", "cell", "csv", "figure"
]


class Request(TypedDict, total=False):
    """What a page may ask for.

    ``since`` and ``epoch`` belong to sync, ``name`` to set_loss and to cell (a loss as a cell), ``name`` and ``value``
    to set. "cell", "csv" (the history) and "figure" (plotly JSON) are answered by a :class:`Document`.
    """

    type: RequestType
    request: int
    since: int
    epoch: str
    name: str
    value: float


Message: TypeAlias = Snapshot | Update | Losses | Reply | Document
Buffers: TypeAlias = Sequence[Buffer]
