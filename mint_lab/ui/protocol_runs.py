"""What kernel and page say of several runs: the twin of ``widgets/src/protocol_runs.ts``; see :mod:`.protocol`.

A comparison:

* the trait ``compared`` (:class:`Compared`): every run's snapshot, made when somebody asks for it.
* :class:`OfRun`: a message of one run, as its own publisher sends it, with its buffers. A page asks for what it missed
  of one with ``{"type": "sync", "run": <place>, ...}``.
* the trait ``cosines`` (:class:`CosineMatrix`): between the runs' gradients, once they are measured.

A table of runs:

* the trait ``listing`` (:class:`Listing`): one row a folder.
* the traits ``shown`` and ``opened``: the runs that are ticked, and the one that is open, each as a :class:`ShownRun`.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, TypedDict

from .protocol import Message, Snapshot

__all__ = [
    "CompareRequest",
    "CompareRequestType",
    "Compared",
    "ComparedRun",
    "CosineMatrix",
    "Listing",
    "OfRun",
    "Result",
    "RunRow",
    "ShownRun",
    "TableRequest",
    "TableRequestType",
]


class Result(TypedDict):
    """Held-out metrics before training and at the last evaluation, after ``step`` steps; only finite numbers.

    ``mean_margin`` is chosen minus rejected score, nats, whatever the loss reports under that name.
    """

    step: int
    before: dict[str, float]
    final: dict[str, float]


class ComparedRun(TypedDict):
    """One run of a comparison; its place in the list is its number, colour and line style."""

    label: str
    result: Result
    snapshot: Snapshot


class Compared(TypedDict):
    """A comparison as a whole."""

    recipe: str
    runs: list[ComparedRun]


class OfRun(TypedDict):
    """``message`` of run number ``run``; ``result`` where it has changed."""

    type: Literal["of_run"]
    run: int
    result: Result | None
    message: Message


class CosineMatrix(TypedDict):
    """Cosines between gradients, row by row; None where a gradient is 0. ``norms`` are the gradients' lengths.

    Measured on ``datums`` datums at the weights of run ``at`` after ``step`` steps; ``at`` None: before training.
    ``busy`` while another is being measured; ``problem`` says why the last one could not be.
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
    """One folder; ``changed`` in seconds since 1970. ``problem`` says why it cannot be read, or is empty."""

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
    """The newest runs of a folder, and how many more there are."""

    folder: str
    rows: list[RunRow]
    more: int


class ShownRun(TypedDict):
    """A run read from its folder."""

    name: str
    snapshot: Snapshot


CompareRequestType: TypeAlias = Literal["sync", "start", "pause", "resume", "stop", "cosines"]


class CompareRequest(TypedDict, total=False):
    """What a comparison's page may ask for. ``run``, ``since`` and ``epoch`` belong to sync, ``at`` to cosines."""

    type: CompareRequestType
    request: int
    run: int
    since: int
    epoch: str
    at: str | None


TableRequestType: TypeAlias = Literal["list", "show", "open", "note", "delete"]


class TableRequest(TypedDict, total=False):
    """What a table's page may ask for. ``names`` belongs to show, ``name`` to the others, ``text`` to note.

    An ``open`` with an empty name closes what is open.
    """

    type: TableRequestType
    request: int
    name: str
    names: list[str]
    text: str
