"""The messages between kernel and page about several runs; see :mod:`mint_lab.ui.messages`.

``widgets/generate_from_python.py`` writes the TypeScript types in ``widgets/src/run_messages.ts`` from this module.

A comparison:

* the trait ``compared`` (:class:`Compared`): the snapshot of every run, computed on request.
* :class:`OfRun`: a message of one run, as its own publisher sends it, with its buffers. To get what it missed of a run,
  a page sends ``{"type": "sync", "run": <index>, ...}``.
* the trait ``cosines`` (:class:`CosineMatrix`): cosines between the gradients of the runs, once measured.

A table of runs:

* the trait ``listing`` (:class:`Listing`): one row per folder.
* the traits ``shown`` and ``opened``: the ticked runs and the open run, each as a :class:`ShownRun`.

A workbench:

* the trait ``runs`` (:class:`RunTabs`): the run and its forks.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, TypedDict

from .messages import Message, Snapshot

__all__ = [
    "CompareRequest",
    "CompareRequestType",
    "Compared",
    "ComparedRun",
    "CosineMatrix",
    "Earlier",
    "Listing",
    "OfRun",
    "Result",
    "RunRow",
    "RunTab",
    "RunTabs",
    "ShownRun",
    "TableRequest",
    "TableRequestType",
]


class Result(TypedDict):
    """Held-out metrics of a run; only finite numbers.

    ``mean_margin`` is chosen minus rejected score, nats, whatever the loss reports under that name.

    Attributes:
        step: Steps completed at the last evaluation; 0 before the first.
        before: Metrics before training.
        final: Metrics at the last evaluation.
    """

    step: int
    before: dict[str, float]
    final: dict[str, float]


class ComparedRun(TypedDict):
    """One run of a comparison. Its index in the list is its number and selects its colour and line style."""

    label: str
    result: Result
    snapshot: Snapshot


class Compared(TypedDict):
    """A comparison as a whole.

    Attributes:
        batch_before_training: Whether gradients can be compared before training; false if the first batch is a rollout.
    """

    recipe: str
    batch_before_training: bool
    runs: list[ComparedRun]


class OfRun(TypedDict):
    """A message of run number ``run``.

    Attributes:
        result: The run's result, if it changed.
    """

    type: Literal["of_run"]
    run: int
    result: Result | None
    message: Message


class CosineMatrix(TypedDict):
    """Cosines between the gradients of the runs' losses, on one batch of ``datums`` datums at the same weights.

    Attributes:
        values: Row by row; None if a gradient is 0.
        norms: Norm of each gradient.
        at: Run whose weights were used, after ``step`` steps; None: before training.
        busy: Whether another measurement is in progress.
        problem: Why the last measurement failed; empty if it did not.
    """

    labels: list[str]
    values: list[list[float | None]]
    norms: list[float]
    at: str | None
    step: int
    datums: int
    busy: bool
    problem: str


class RunRow(TypedDict):
    """One folder of the table.

    Attributes:
        changed: Time of the last write, seconds since 1970.
        before: Held-out metrics before training.
        final: Held-out metrics at the last evaluation.
        main: Name of the metric that ``curve`` shows.
        curve: Held-out values of ``main``, in order.
        problem: Why the folder cannot be read; empty if it can.
    """

    name: str
    title: str
    recipe: str
    losses: list[str]
    status: str
    steps: int
    steps_total: int
    changed: float
    before: dict[str, float]
    final: dict[str, float]
    main: str
    curve: list[float]
    note: str
    problem: str


class Listing(TypedDict):
    """The newest runs of a folder.

    Attributes:
        more: Number of runs that are not listed.
    """

    folder: str
    rows: list[RunRow]
    more: int


class ShownRun(TypedDict):
    """A run read from its folder."""

    name: str
    snapshot: Snapshot


class Earlier(TypedDict):
    """A run that an earlier execution of the cell left, which can be continued."""

    loss_label: str
    steps_done: int
    steps_total: int


class RunTab(TypedDict):
    """A run that a workbench can show.

    Attributes:
        about: Where it comes from, in a few words; empty for a run that is no fork.
    """

    name: str
    about: str


class RunTabs(TypedDict):
    """The runs of a workbench; ``shown`` is the index of the one on the page."""

    runs: list[RunTab]
    shown: int


CompareRequestType: TypeAlias = Literal["sync", "start", "pause", "resume", "stop", "cosines"]


class CompareRequest(TypedDict, total=False):
    """A request of a page that shows a comparison.

    Attributes:
        request: Number of the request, which the answer repeats.
        run: Belongs to "sync" and "stop": index of the run; "stop" without it is for all runs.
        since: Belongs to "sync": number of records that the page has.
        epoch: Belongs to "sync": the run that the page shows.
        at: Belongs to "cosines": label of the run whose weights to use; None: before training.
    """

    type: CompareRequestType
    request: int
    run: int
    since: int
    epoch: str
    at: str | None


TableRequestType: TypeAlias = Literal["list", "show", "open", "note", "delete"]


class TableRequest(TypedDict, total=False):
    """A request of a page that shows a table of runs.

    Attributes:
        request: Number of the request, which the answer repeats.
        name: Belongs to "open", "note" and "delete": the run. An "open" with an empty name closes the open run.
        names: Belongs to "show": the ticked runs.
        text: Belongs to "note".
    """

    type: TableRequestType
    request: int
    name: str
    names: list[str]
    text: str
