"""From a client, a recipe and data to the trainer that a run steps with."""

from __future__ import annotations

import threading
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..data.sources import OnBadRow, Rows
from ..errors import ConfigError
from ..recipes.options import check_whole

if TYPE_CHECKING:
    from ..client.protocol import TrainingClientProtocol
    from ..recipes.base import Recipe
    from ..recipes.guarded_trainer import GuardedTrainer
    from ..recipes.job import Job

__all__ = ["ONE_AT_A_TIME", "DataLimits", "SharedData", "load_trainer", "sequence_limit"]

MEANINGLESS_LENGTH = 10_000_000  # transformers writes 1e30 where a tokenizer states no length

ONE_AT_A_TIME = threading.Lock()
"""Held while a model or data are loaded: both change the warning filters, which belong to the whole process."""


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


class SharedData:
    """Data that several runs of one recipe, seed and tokenizer train on: the first run that needs them prepares them.

    Args:
        data, held_out: As the recipe takes them.
    """

    def __init__(self, data: Any, held_out: Any) -> None:
        self._given = (data, held_out)
        self._prepared: tuple[Job, list[str]] | None = None

    def job(
        self, client: TrainingClientProtocol, recipe: Recipe, seed: int, limits: DataLimits | None = None
    ) -> tuple[Job, list[str]]:
        """Return the one job, and notes about the data. Raises as :func:`load_trainer`."""
        if self._prepared is None:
            self._prepared = _prepare(client, recipe, self._given, seed, limits)
        return self._prepared


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
    if isinstance(data, SharedData):
        job, notes = data.job(client, recipe, seed, limits)
    else:
        job, notes = _prepare(client, recipe, (data, held_out), seed, limits)
    return recipe.trainer(client, job, seed), [*getattr(client, "notes", ()), *notes]


def _prepare(
    client: TrainingClientProtocol, recipe: Recipe, given: tuple[Any, Any], seed: int, limits: DataLimits | None
) -> tuple[Job, list[str]]:
    tokenizer = client.get_tokenizer()
    limits = limits or DataLimits()
    limit = sequence_limit(client, limits.max_length)
    data, held_out = map(limits.of, given)
    # Warnings become notes of the run: a worker thread does not print.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        job = recipe.prepare(tokenizer, data, held_out, seed=seed, max_length=limit)
    return job, [str(w.message) for w in caught if issubclass(w.category, UserWarning)]


def sequence_limit(client: TrainingClientProtocol, max_length: int | None = None) -> int | None:
    """Return the longest sequence to train on, tokens: the least of what is known; None if nothing is.

    Tokenizers state the model's context, or a meaningless number; a local model states it too.

    Args:
        client: A training client.
        max_length: The limit that a person gave, or None.
    """
    stated = getattr(client.get_tokenizer(), "model_max_length", None)
    known = (stated, getattr(client, "context", None), max_length)
    return min((int(length) for length in known if length is not None and length < MEANINGLESS_LENGTH), default=None)
