"""Read and check the entries of a run's files, which a person may have edited and a disk may have damaged.

The types are plain dataclasses; pydantic checks what was read against their annotations. Fields that only a newer
version knows are ignored. Each function raises ``ValueError`` with what was found and what was expected, in words; the
caller adds file and line.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from ..losses.decorator import RUN_SETTINGS
from ..recipes.record import Edit, LossVersion, Number, StepRecord, Text, Whole

__all__ = ["Evaluation", "RunInfo", "read_edit", "read_evaluation", "read_loss", "read_record", "read_run_info"]

T = TypeVar("T")

MAX_VALUE_LENGTH = 40  # characters of a value that a message quotes

# What was expected, by pydantic's type of error.
_EXPECTED = {
    "dataclass_type": "an object",
    "dict_type": "an object",
    "greater_than_equal": "a whole number of 64 bits",
    "int_type": "a whole number",
    "is_instance_of": "a text",
    "less_than": "a whole number of 64 bits",
    "list_type": "a list",
    "number": "a number",
    "tuple_type": "a list",
}


@dataclass(frozen=True)
class RunInfo:
    """The content of ``run.json``: everything about a run that is not about one step.

    Attributes:
        name: What charts call the run.
        recipe, base_model: As given to :class:`~mint_lab.runs.run.Run`.
        loss, loss_version: The loss of the next step.
        settings: Settings of the optimizer and the loss, by name.
        schedule: Schedule of the learning rate.
        steps, steps_done: Optimizer steps to complete, and completed.
        rank: Rank of the LoRA adapter.
        lora: Options of the adapter, as of :class:`~mint_lab.LoraOptions`; empty if they are not known.
        seed: Seed of the adapter, the order of the data and the held-out split; None if unknown.
        eval_every: Steps between two evaluations.
        options: Options of the recipe.
        data: How the data are found again: ``train`` and ``held_out`` (a path, a name, or None), and ``in_memory``, the
            names of those that were given as objects.
        limits: How much of the data is used, as given to :class:`~mint_lab.runs.run.Run`.
        keep_snapshots: As given to :class:`~mint_lab.runs.run.Run`.
        data_sizes: Number of items to train on, and of held-out items; None before the data are loaded.
        baseline: Held-out metrics before training.
        notes: What was noteworthy about model and data.
        status: Status of the run when the file was written.
        error: Why the run paused; None if it did not fail.
        seconds: Time spent running, without loading and pauses.
        versions: Versions of Python and the libraries that the result depends on, by distribution name.
        parent: Of a fork: ``name`` and ``folder`` of the run it was forked from, and the ``step``; otherwise empty.
        early_stopping: When the run finishes before its last step, as :class:`~mint_lab.EarlyStopping`; empty if never.
        tags, description: What a person wrote about the run.
        reference: The reference model, as given to :class:`~mint_lab.runs.run.Run`.
    """

    name: Text = ""
    recipe: Text = ""
    base_model: Text = ""
    loss: Text = ""
    loss_version: Whole = 1
    settings: dict[Text, Number] = field(default_factory=dict)
    schedule: Text = "constant"
    steps: Whole = 0
    steps_done: Whole = 0
    rank: Whole = 0
    lora: dict[Text, Any] = field(default_factory=dict)
    seed: Whole | None = None
    eval_every: Whole = 0
    options: dict[Text, Any] = field(default_factory=dict)
    data: dict[Text, Any] = field(default_factory=dict)
    limits: dict[Text, Any] = field(default_factory=dict)
    keep_snapshots: Whole | None = None
    data_sizes: tuple[Whole, Whole] | None = None
    baseline: dict[Text, Number] = field(default_factory=dict)
    notes: list[Text] = field(default_factory=list)
    status: Text = ""
    error: Text | None = None
    seconds: Number = 0.0
    versions: dict[Text, Text] = field(default_factory=dict)
    parent: dict[Text, Any] = field(default_factory=dict)
    early_stopping: dict[Text, Any] = field(default_factory=dict)
    tags: list[Text] = field(default_factory=list)
    description: Text = ""
    reference: Text = "start"

    @property
    def config(self) -> dict[str, Any]:
        """Return every setting of a run in one flat dictionary, as trackers of experiments show it.

        A group of settings has a prefix: ``loss/``, ``optimizer/``, ``lora/``, ``option/``, ``data/``, ``limit/``,
        ``early_stopping/`` and ``version/``.
        """
        optimizer = {name: value for name, value in self.settings.items() if name in RUN_SETTINGS}
        loss = {name: value for name, value in self.settings.items() if name not in optimizer}
        sizes = dict(zip(("train_items", "held_out_items"), self.data_sizes or (), strict=False))
        groups: dict[str, Mapping[str, Any]] = {
            "loss": loss,
            "optimizer": optimizer | {"schedule": self.schedule},
            "lora": self.lora or {"rank": self.rank},
            "option": self.options,
            "data": self.data | sizes,
            "limit": self.limits,
            "early_stopping": self.early_stopping,
            "version": self.versions,
        }
        top = ("name", "description", "tags", "recipe", "base_model", "loss", "loss_version", "steps", "eval_every")
        flat: dict[str, Any] = {name: getattr(self, name) for name in (*top, "seed")}
        return flat | {f"{group}/{name}": value for group, own in groups.items() for name, value in own.items()}


@dataclass(frozen=True)
class Evaluation:
    """The part of a record that a list of runs shows."""

    step: Whole = 0
    held_out: dict[Text, Number] = field(default_factory=dict)


@dataclass(frozen=True)
class _LossLine:
    """A line of ``losses.jsonl``."""

    step: Whole
    name: Text
    version: Whole
    file: Text
    config: dict[Text, Number] = field(default_factory=dict)
    described: dict[Text, Any] = field(default_factory=dict)


def read_record(line: bytes) -> StepRecord:
    """Read a line of ``records.jsonl``."""
    return _read(line, StepRecord)


def read_evaluation(line: bytes) -> Evaluation:
    """Read step and held-out metrics of a line of ``records.jsonl``; the other fields are not checked."""
    return _read(line, Evaluation)


def read_edit(line: bytes) -> Edit:
    """Read a line of ``edits.jsonl``."""
    return _read(line, Edit)


def read_loss(line: bytes, source_of: Callable[[str], str]) -> LossVersion:
    """Read a line of ``losses.jsonl``; ``source_of`` returns the text of the source file that the line names."""
    loss = _read(line, _LossLine)
    return LossVersion(loss.step, loss.name, loss.version, source_of(loss.file), loss.config, loss.described)


def read_run_info(content: bytes) -> tuple[RunInfo, list[str]]:
    """Read ``run.json``. An entry that fails its check gets its default value.

    Returns:
        The content, and one reason for each entry that failed.

    Raises:
        ValueError: If ``content`` is not a JSON object.
    """
    entries = _object(content)
    try:
        return _adapter(RunInfo).validate_python(entries), []
    except ValidationError as error:
        # Several values of one entry can fail; the first one is reported.
        reasons = {str(found["loc"][0]): _reason(found) for found in reversed(error.errors(include_url=False))}
    sound = {name: value for name, value in entries.items() if name not in reasons}
    return _adapter(RunInfo).validate_python(sound), list(reasons.values())[::-1]


@cache
def _adapter(kind: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(kind)


def _read(line: bytes, kind: type[T]) -> T:
    try:
        return _adapter(kind).validate_python(_object(line))
    except ValidationError as error:
        raise ValueError(_reason(error.errors(include_url=False)[0])) from error


def _object(text: bytes) -> dict[str, Any]:
    # json and not pydantic parses, because pydantic refuses half a surrogate pair.
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply, expected an object") from None
    if not isinstance(value, dict):
        raise ValueError(f"it is {_quoted(value)}, expected an object")
    return value


def _reason(found: ErrorDetails) -> str:
    """What pydantic found, in our words."""
    where = "/".join(map(str, found["loc"]))
    if found["type"] == "missing":
        return f"{where} is missing"
    allowed = found.get("ctx", {}).get("expected")  # the values of a Literal
    expected = _EXPECTED.get(found["type"]) or allowed
    return f"{where} is {_quoted(found['input'])}" + (f", expected {expected}" if expected else f": {found['msg']}")


def _quoted(value: Any) -> str:
    try:
        text = json.dumps(value)
    except RecursionError:
        return "a deeply nested value"
    return text if len(text) <= MAX_VALUE_LENGTH else f"{text[:MAX_VALUE_LENGTH]}..."
