"""From an adapter, a recipe and data to the trainer that a run steps with."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..client import connect
from ..data.sources import OnBadRow, Rows
from ..errors import ConfigError, RunError
from ..lora_options import LoraOptions, adapter_folder, merge_rank, refuse_hosted
from ..recipes.options import check_whole
from ..threads import process_lock
from ..usercode.guarded_call import LossCancelled, call_guarded

if TYPE_CHECKING:
    from ..client.protocol import TextSource, Tokenizer, TrainingClientProtocol
    from ..recipes.base import Recipe
    from ..recipes.guarded_trainer import GuardedTrainer
    from ..recipes.job import Job

__all__ = [
    "DEFAULT_RANK",
    "ONE_AT_A_TIME",
    "AdapterRequest",
    "ClientModel",
    "DataLimits",
    "LoadCancelled",
    "PreparedData",
    "SharedData",
    "load_alone",
    "load_trainer",
    "sequence_limit",
]

T = TypeVar("T")

DEFAULT_RANK = 16
MEANINGLESS_LENGTH = 10_000_000  # transformers writes 1e30 where a tokenizer states no length

ONE_AT_A_TIME = process_lock()
"""Held while a model or data are loaded: both change the warning filters, which belong to the whole process."""


class LoadCancelled(RunError):
    """The run was stopped while it loaded its model or its data."""


def load_alone(load: Callable[[], T], is_stopped: Callable[[], bool]) -> T:
    """Return ``load()``, one call at a time in this process, on a separate thread that is cancelled at a stop.

    A load that waits for another one, or that code in C does not let be cancelled, is abandoned: it is cancelled as
    soon as it returns to Python.

    Raises:
        LoadCancelled: If ``is_stopped()`` before the end.
    """

    def locked() -> T:
        with ONE_AT_A_TIME:
            return load()

    try:
        return call_guarded(locked, (), should_cancel=lambda _: is_stopped())
    except LossCancelled as error:
        raise LoadCancelled("the run was stopped while it was loading") from error


@dataclass(frozen=True)
class AdapterRequest:
    """The adapter that a run is to train.

    Attributes:
        base_model: Name of a base model, or the folder of an adapter that training starts at.
        rank: Rank of the adapter; None if it is not given.
        lora: Options of the adapter; None if they are not given.
        seed: Seed of its initial weights and of dropout.

    Raises:
        ConfigError: If the rank is not valid, or rank and lora disagree.
    """

    base_model: str
    rank: int | None
    lora: LoraOptions | None
    seed: int

    def __post_init__(self) -> None:
        merge_rank(self.rank, self.lora, DEFAULT_RANK)

    @property
    def options(self) -> LoraOptions | None:
        """The options as far as they are known before loading: None for those of a saved adapter."""
        if self.rank is None and self.lora is None and adapter_folder(self.base_model) is not None:
            return None
        return merge_rank(self.rank, self.lora, DEFAULT_RANK)

    def new_client(self) -> TrainingClientProtocol:
        """Create a client on this machine that trains the adapter.

        Raises:
            ModelError: If the model cannot be loaded, or cannot carry such an adapter.
            CheckpointError: If the folder of an adapter is damaged, or has a feature that cannot be trained.
            ConfigError: If a saved adapter has other options than were given.
        """
        rank = self.rank
        if self.lora is None and self.options is not None:
            rank = self.options.rank
        return connect().create_lora_training_client(
            base_model=self.base_model, rank=rank, seed=self.seed, lora=self.lora
        )

    def check_client(self, client: TrainingClientProtocol | None) -> None:
        """Check a client that was given to the run: its adapter is there already.

        Raises:
            ConfigError: If ``lora`` or ``rank`` differs from the client's, or nobody can know.
        """
        own = getattr(client, "lora", None)
        if client is None or (self.lora is None and (self.rank is None or own is None)):
            return
        if not isinstance(own, LoraOptions):
            assert self.lora is not None
            refuse_hosted(self.lora)
            raise ConfigError("client= has its adapter already; give lora= to its create_lora_training_client")
        requested = self.lora or replace(own, rank=self.rank)
        if requested != own:
            raise ConfigError(
                f"the client was created with {own}, but {requested} is requested; leave rank and lora out, or give "
                "lora= to create_lora_training_client"
            )


class ClientModel(NamedTuple):
    """What a client trains: the name of its base model, and the rank of its adapter; None of what it does not tell."""

    base_model: str | None = None
    rank: int | None = None

    @classmethod
    def of(cls, client: TrainingClientProtocol) -> ClientModel:
        """Ask the client; a hosted one asks its service."""
        try:
            info = client.get_info()
            return cls(info.model_data.model_name or info.model_name, info.lora_rank)
        except Exception:  # of a service or an SDK: what run.json says of the model must not prevent the run
            return cls()


@dataclass(frozen=True)
class DataLimits:
    """How much of the data a run uses.

    Attributes:
        max_length: Longest sequence to train on, tokens; None for what the model takes.
        max_rows: Maximum number of rows to read; None for all.
        on_bad_row: What becomes of a row that cannot be used.

    Raises:
        ConfigError: If a value is not valid.
    """

    max_length: int | None = None
    max_rows: int | None = None
    on_bad_row: OnBadRow = "raise"

    def __post_init__(self) -> None:
        for name, least in (("max_length", 2), ("max_rows", 1)):
            if getattr(self, name) is not None:
                check_whole(name, getattr(self, name), least)
        if self.on_bad_row not in {"raise", "skip"}:
            raise ConfigError(f"on_bad_row is {self.on_bad_row!r}, expected 'raise' or 'skip'")

    def of(self, source: Any) -> Any:
        """Return a source of rows with its limits; the source itself if it has none."""
        if source is None or (self.max_rows is None and self.on_bad_row == "raise"):
            return source
        return Rows(source, max_rows=self.max_rows, on_bad_row=self.on_bad_row)


@dataclass(frozen=True)
class PreparedData:
    """A job, and what of the model decided how it was prepared.

    Attributes:
        job: What the recipe prepared.
        notes: What was noteworthy about the data, in plain words.
        tokenizer: The model's.
        max_length: Longest sequence, tokens; None for no limit.
        end_tokens: The tokens that end a sample: the model's, or at least the tokenizer's.
    """

    job: Job
    notes: list[str]
    tokenizer: Tokenizer
    max_length: int | None
    end_tokens: frozenset[int]


class SharedData:
    """Data that several runs of one recipe, seed and tokenizer train on: what needs them first prepares them.

    Args:
        data, held_out: As the recipe takes them.

    Attributes:
        given: The two arguments.
        prepared: The data once they are prepared; None before.
    """

    def __init__(self, data: Any, held_out: Any) -> None:
        self.given = (data, held_out)
        self.prepared: PreparedData | None = None

    def prepare(self, source: TextSource, recipe: Recipe, seed: int, limits: DataLimits | None = None) -> PreparedData:
        """Prepare the data unless they are prepared. Arguments and errors are those of :func:`load_trainer`."""
        if self.prepared is None:
            self.prepared = _prepare(source, recipe, self.given, seed, limits)
        return self.prepared


def load_trainer(
    client: TrainingClientProtocol,
    recipe: Recipe,
    data: Any,
    held_out: Any,
    seed: int,
    *,
    limits: DataLimits | None = None,
) -> tuple[GuardedTrainer, list[str]]:
    """Return the trainer, with its data tokenized, and notes about the data in plain words.

    Args:
        client: A training client.
        recipe: Prepares the data and makes the trainer.
        data: As the recipe takes them; or :class:`SharedData`, which has the held-out data too.
        held_out: As the recipe takes them.
        seed: Seed of the split and of the order of the data.
        limits: How much of the data to use; None for all that the model takes.

    Raises:
        DataError: As :meth:`mint_lab.recipes.Recipe.prepare`.
    """
    shared = data if isinstance(data, SharedData) else SharedData(data, held_out)
    prepared = shared.prepare(client, recipe, seed, limits)
    return recipe.trainer(client, prepared.job, seed), [*getattr(client, "notes", ()), *prepared.notes]


def _prepare(
    source: TextSource, recipe: Recipe, given: tuple[Any, Any], seed: int, limits: DataLimits | None
) -> PreparedData:
    tokenizer = source.get_tokenizer()
    limits = limits or DataLimits()
    limit = sequence_limit(source, limits.max_length)
    data, held_out = map(limits.of, given)
    # Warnings become notes of the run: a worker thread does not print.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        job = recipe.prepare(tokenizer, data, held_out, seed=seed, max_length=limit)
    notes = [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
    ends = getattr(source, "end_tokens", None) or {tokenizer.eos_token_id} - {None}
    return PreparedData(job, notes, tokenizer, limit, frozenset(ends))


def sequence_limit(source: TextSource, max_length: int | None = None) -> int | None:
    """Return the longest sequence to train on, tokens: the least of what is known; None if nothing is.

    Tokenizers state the model's context, or a meaningless number; a local model states it too.

    Args:
        source: A training client, or its tokenizer with what else is known.
        max_length: The limit that a person gave, or None.
    """
    stated = getattr(source.get_tokenizer(), "model_max_length", None)
    known = (stated, getattr(source, "context", None), max_length)
    return min((int(length) for length in known if length is not None and length < MEANINGLESS_LENGTH), default=None)
