"""The messages between kernel and page: their only definition.

``widgets/generate_from_python.py`` writes the TypeScript types in ``widgets/src/messages.ts`` from this module.

Only the kernel changes the state of a run; the page sends requests. Small data travels as JSON. Data that grows with
the run travels as typed binary buffers (little-endian): ``steps`` as float64, values as float32.

Kernel to page:

* the trait ``snapshot`` (:class:`Snapshot`): all that a page needs to draw a run, decimated to pixels, so that its size
  does not depend on the length of the run. It is computed on request: for a first display and after a page reload.
* :class:`Update`: the records since the last message, and the fields of the state that changed.
* :class:`Snapshot` as a message: the answer to a page that has no records, or has missed too many to repeat. Its binary
  data travels beside it: steps and values of each series, of each heat map, and of each series of each branch; the
  fields in the JSON are empty. After a rewind it is sent without a request, with a new epoch.
* the trait ``tokens`` (:class:`Tokens`): examples token by token; for a run, some time after a page requested them.
* the trait ``samples`` (:class:`Samples`): the latest responses that a run stored.
* the trait ``audit`` (:class:`~mint_lab.ui.data_messages.DataReport`): what the data of a run consist of, after a page
  requested it.
* :class:`Reply`: whether a request was accepted. :class:`Document`: the text that it asked for. Every page that shows
  the widget receives both, so each page numbers its requests from a random number.

Messages of a run are numbered. Custom messages have no history, so a page that finds a gap (or has just started) sends
``{"type": "sync", "since": <number of its records>}`` and gets what it missed. Records are numbered too: the page drops
a record that arrives twice and asks for a missing one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias, TypedDict

__all__ = [
    "PROTOCOL",
    "Bound",
    "BranchData",
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
    "MetricEntry",
    "OptionEntry",
    "Overlay",
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

PROTOCOL = 8
"""Increases when a message changes shape. A page of another version asks for a reload and draws nothing."""

Buffer: TypeAlias = bytes
"""Arrives in the page as a ``DataView``."""


class ParamEntry(TypedDict):
    """A setting with a slider.

    Attributes:
        low: Left end of the slider.
        high: Right end of the slider.
        minimum: Smallest value that may be typed.
        scale: How positions on the slider map to values.
    """

    name: str
    default: float
    low: float
    high: float
    minimum: float
    doc: str
    scale: Literal["linear", "log"]


class InputEntry(TypedDict):
    """A field of the data that a loss reads.

    Attributes:
        here: Whether this run's data has the field, or the trainer adds it.
    """

    name: str
    here: bool


class LossEntry(TypedDict):
    """A loss as the picker shows it.

    Attributes:
        reason: Why the loss cannot be used with this run; empty if it can.
    """

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
    """One curve of a chart, or one part of a histogram.

    Attributes:
        series: Column with the values. In a chart of kind "ratios", name of the histogram; of kind "bars", empty.
        label: Name in the legend.
        role: Selects the colour.
        spread: Column with the standard deviation, drawn as a band on both sides; empty for none.
    """

    series: str
    label: str
    role: Literal["train", "held_out", "chosen", "rejected"]
    spread: str


class Overlay(TypedDict):
    """How a chart differs when it shows several runs.

    Attributes:
        difference: Two series; the chart then shows the first minus the second, if charts of the runs have both. Empty:
            the chart shows its own series.
        unit: Replaces the unit of the chart. With ``difference``, only if the difference is shown.
        last: Whether the chart stands after all others, because its values do not compare between runs.
    """

    difference: list[str]
    unit: str
    last: bool


class Chart(TypedDict):
    """One chart of a run.

    Kind "lines" draws curves over steps. Kind "bars" draws the latest histogram called ``name``: the first line names
    the values above 0, the second those below. Kind "ratios" draws two histograms of log-ratios, the first line's
    upwards (advantage > 0) and the second line's downwards (advantage < 0), with the bounds beyond which the loss
    clips; it is as wide as two other charts.

    Attributes:
        definition: One sentence with the formula, the tooltip of the title; empty if unknown.
        axis: Title of the horizontal axis of a histogram; empty for "lines".
        counts: What a histogram counts, such as "pairs"; empty for "lines".
        bounds: Ends of a fixed vertical axis of "lines"; None fits it to the data. Ends of the horizontal axis of a
            histogram that has no data yet.
        overlay: How the chart differs when it shows several runs; None if it does not.
    """

    name: str
    title: str
    definition: str
    unit: str
    kind: Literal["lines", "bars", "ratios"]
    axis: str
    counts: str
    lines: list[Line]
    bounds: list[float] | None
    overlay: Overlay | None


class MetricEntry(TypedDict):
    """A metric that may have no chart in the recipe's list: the page makes one from this entry.

    Attributes:
        definition: One sentence with the formula.
    """

    definition: str
    unit: str


class Mark(TypedDict):
    """A change that took effect before ``step``."""

    step: int
    kind: Literal["loss", "reward", "setting"]
    label: str


class Histogram(TypedDict):
    """Counts in bins of equal width; the outer bins also count all values beyond them.

    Attributes:
        source: "training" or "held-out".
        start: Left end of the first bin.
        clip: Lowest and highest ratio that the loss did not clip at that step; None if it clips nothing.
    """

    name: str
    step: int
    source: str
    start: float
    width: float
    counts: list[int]
    clip: list[float] | None


class Bound(TypedDict):
    """The ratio ``base + slope * settings[setting]``, which the page evaluates while a slider moves."""

    setting: str
    base: float
    slope: float


class Clip(TypedDict):
    """Where the current loss clips the ratio of a token: below ``low`` if A < 0, above ``high`` if A > 0.

    Attributes:
        both: Whether it clips on both sides, whatever the sign of the advantage A.
    """

    low: Bound
    high: Bound
    both: bool


class Failure(TypedDict):
    """Why a step failed.

    Attributes:
        line: Line of the loss's own source, counted from 1.
        index: Datum that the loss was processing.
        loss: Loss that resumes the run when it is registered again; None if no loss does.
        reward: Reward that resumes the run when it is registered again; None if no reward does.
    """

    step: int
    message: str
    line: int | None
    index: int | None
    traceback: str
    loss: str | None
    reward: str | None


class OptionEntry(TypedDict):
    """An option of the recipe, fixed for the whole run; ``value`` is its text."""

    name: str
    value: str
    doc: str


class State(TypedDict):
    """All of a run that is not a curve. Its size does not depend on the length of the run.

    Attributes:
        key: Tells runs apart; the same in all widgets that show the run.
        steps_total: 0 if unknown.
        headlines: Names of the metrics that summarise the run, the most important first; the run may lack any of them.
        tokens_about: The examples that a "tokens" request shows, in words.
        keeps_samples: Whether the run stores responses at each evaluation.
        loss: Name of the loss that makes the next step.
        last_loss: Name of the loss that made the last step; empty before the first.
        marks: The latest changes; ``marks_total`` counts all.
        baseline: Held-out metrics before training.
        histograms: The latest of each name.
        activity: What the kernel does at the page's request and that takes some time, such as a rewind; empty if
            nothing.
        activity_error: Why the last such request failed; empty if it did not.
        no_rewind: Why the run cannot return to a step; empty if it can.
        no_fork: Why the run cannot be forked; empty if it can.
    """

    key: str
    status: Literal["ready", "running", "paused", "stopped", "finished"]
    steps_done: int
    steps_total: int
    steps_per_s: float
    recipe: str
    options: list[OptionEntry]
    headlines: list[str]
    tokens_about: str
    keeps_samples: bool
    base_model: str
    data: str
    loss: str
    loss_label: str
    last_loss: str
    settings: dict[str, float]
    controls: list[ParamEntry]
    clip: Clip | None
    marks: list[Mark]
    marks_total: int
    baseline: dict[str, float]
    histograms: list[Histogram]
    warnings: list[str]
    failure: Failure | None
    activity: str
    activity_error: str
    no_rewind: str
    no_fork: str


class StateChange(State, total=False):
    """The fields of :class:`State` that changed; the others are absent."""


class SeriesData(TypedDict):
    """One decimated curve: buckets of ``width`` points each, except the last.

    Attributes:
        points: Number of points before decimation.
        steps: Last step of each bucket, float64 ``(n,)``.
        values: float32. ``(n,)`` if ``width`` is 1, else ``(3, n)``: lowest, highest, mean.
    """

    name: str
    width: int
    points: int
    steps: Buffer
    values: Buffer


class HeatData(TypedDict):
    """A histogram over time, decimated like a curve: each column is the mean of ``width`` histograms, as shares.

    Attributes:
        bin: Width of a bin.
        bins: Number of bins.
        points: Number of histograms before decimation.
        steps: Last step of each column, float64 ``(n,)``.
        values: float32 ``(n, bins)``.
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


class BranchData(TypedDict):
    """Steps that a run has left by a rewind, or those of its parent after a fork: faint curves.

    Attributes:
        label: What a legend calls it.
        step: The last step in common with the run; the curves are drawn from there.
        breaks: Steps from which another loss computed the training metrics.
        series: Its curves with the common steps, at which smoothing begins.
    """

    label: str
    step: int
    breaks: list[int]
    series: list[SeriesData]


class Snapshot(TypedDict):
    """The whole run after ``seen`` records and ``number`` messages.

    Attributes:
        epoch: Identifies the run and its rewinds: another epoch has other records.
        branches: Faint curves, the latest last.
        branches_left_out: Number of earlier ones.
        metrics: Metrics by name, for those that the recipe's charts do not show.
    """

    type: Literal["snapshot"]
    protocol: int
    epoch: str
    number: int
    seen: int
    state: State
    charts: list[Chart]
    metrics: dict[str, MetricEntry]
    losses: list[LossEntry]
    series: list[SeriesData]
    heats: list[HeatData]
    branches: list[BranchData]
    branches_left_out: int


class Update(TypedDict):
    """Records ``first`` to ``first + count - 1``, counted from 0, and what changed in the state.

    If ``count`` > 0, two buffers travel beside it: steps, float64 ``(count,)``; values, float32
    ``(len(columns), count)``, nan where a record lacks the metric.

    Attributes:
        full: Whether ``state`` has all fields.
        histograms: Those of the records, in order.
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
    """One number per token.

    Attributes:
        note: What the sign means, in a few words.
        scale: The colour scale. "diverging" is symmetrical about 0, "ratio" about 1 on a logarithmic axis. "sequential"
            runs from the end nearer to 0, which has no colour, to the other end.
        low: Low end of the colour scale; values may lie beyond it.
        high: High end of the colour scale; values may lie beyond it.
    """

    name: str
    unit: str
    note: str
    scale: Literal["diverging", "ratio", "sequential"]
    low: float
    high: float


class TokenRow(TypedDict):
    """One sequence: tokens ``start`` to ``start + length - 1`` of all tokens.

    Attributes:
        item: Rows of the same item belong together, and share their prompt.
        shared: Number of prompt tokens at the start.
    """

    item: int
    title: str
    role: Literal["", "chosen", "rejected"]
    start: int
    length: int
    shared: int


class Tokens(TypedDict):
    """Sequences token by token; ``n`` counts the tokens of all rows.

    Attributes:
        step: Steps of training completed; None if unknown.
        about: The loss whose gradient is shown.
        by: Column that colours at first.
        ids: Token ids, int32 ``(n,)``; -1 if not stored.
        pieces: Index into ``texts`` for each token, int32 ``(n,)``.
        values: float32 ``(len(columns), n)``; nan where a token has no such number. The first token of a sequence has
            none at all, because the model does not predict it.
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
    """One response: tokens ``start`` to ``start + length - 1`` of all tokens.

    Attributes:
        length: 0 if the tokens were not stored.
    """

    source: Literal["training", "held-out"]
    prompt: str
    response: str
    reward: float
    advantage: float | None
    start: int
    length: int


class Samples(TypedDict):
    """Responses of step ``step``.

    Attributes:
        tokens: Tokens of all rows, with the columns "ratio" and "clipped" (0 or 1).
    """

    step: int
    rows: list[SampleRow]
    tokens: Tokens | None


class Reply(TypedDict):
    """The answer to a request.

    Attributes:
        request: Number of the request.
        error: Why the kernel refused; empty if it accepted.
    """

    type: Literal["reply"]
    request: int
    error: str


class Document(TypedDict):
    """The answer to a request for a text, which travels beside it as one buffer of UTF-8.

    Attributes:
        request: Number of the request.
    """

    type: Literal["document"]
    request: int


RequestType: TypeAlias = Literal[
    "sync",
    "start",
    "pause",
    "resume",
    "step",
    "stop",
    "set_loss",
    "set",
    "new_run",
    "continue_earlier",
    "rewind",
    "fork",
    "show_run",
    "tokens",
    "data",
    "cell",
    "csv",
    "figure",
]


class Request(TypedDict, total=False):
    """A request of a page that shows one run.

    A :class:`Document` answers "cell", "csv" (the history) and "figure" (plotly JSON); a :class:`Reply` the others.

    Attributes:
        request: Number of the request, which the answer repeats.
        since: Belongs to "sync": number of records that the page has.
        epoch: Belongs to "sync": the run that the page shows.
        name: Belongs to "set_loss" and "cell" (a loss), to "set" (a setting), and to "fork" (name of the new run; empty
            for the default).
        value: Belongs to "set".
        item: Belongs to "data": the item to show, counted from 0 in the order of the rows.
        row: Belongs to "data": the number of the row to show. Without ``item`` and ``row``, noteworthy rows are shown.
        step: Belongs to "rewind" and "fork": the last step that is kept. Both are answered before they are done; then
            ``activity`` of the state says what happens.
        loss: Belongs to "fork": loss of the new run; empty for that of the run at the step.
        run: Belongs to "show_run": index of the run in the trait ``runs``.
        held_out: Belongs to "data": whether ``row`` is one of the held-out data, if these have numbers of their own.
    """

    type: RequestType
    request: int
    since: int
    epoch: str
    name: str
    value: float
    item: int
    row: int
    step: int
    loss: str
    run: int
    held_out: bool


Message: TypeAlias = Snapshot | Update | Losses | Reply | Document
Buffers: TypeAlias = Sequence[Buffer]
