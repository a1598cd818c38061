"""From a client, a recipe and data to the trainer that a run steps with."""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Any

from ..recipes.registry import context_length

if TYPE_CHECKING:
    from ..client.protocol import TrainingClientProtocol
    from ..recipes.base import Recipe
    from ..recipes.guarded_trainer import GuardedTrainer
    from ..recipes.job import Job

__all__ = ["ONE_AT_A_TIME", "SharedData", "load_trainer"]

ONE_AT_A_TIME = threading.Lock()
"""Held while a model or data are loaded: both change the warning filters, which belong to the whole process."""


class SharedData:
    """Data that several runs of one recipe, seed and tokenizer train on: the first run that needs them prepares them.

    Args:
        data, held_out: As the recipe takes them.
    """

    def __init__(self, data: Any, held_out: Any) -> None:
        self._given = (data, held_out)
        self._prepared: tuple[Job, list[str]] | None = None

    def job(self, client: TrainingClientProtocol, recipe: Recipe, seed: int) -> tuple[Job, list[str]]:
        """Return the one job, and notes about the data. Raises as :func:`load_trainer`."""
        if self._prepared is None:
            self._prepared = _prepare(client, recipe, *self._given, seed)
        return self._prepared


def load_trainer(
    client: TrainingClientProtocol, recipe: Recipe, data: Any, held_out: Any, seed: int
) -> tuple[GuardedTrainer, list[str]]:
    """Return the trainer, with its data tokenized, and notes about the data in plain words.

    Args:
        client: A training client.
        recipe: Prepares the data and makes the trainer.
        data: As the recipe takes them; or :class:`SharedData`, which has the held-out data too.
        held_out: As the recipe takes them.
        seed: Seed of the split and of the order of the data.

    Raises:
        DataError: As :meth:`mint_lab.recipes.Recipe.prepare`.
    """
    if isinstance(data, SharedData):
        job, notes = data.job(client, recipe, seed)
    else:
        job, notes = _prepare(client, recipe, data, held_out, seed)
    return recipe.trainer(client, job, seed), list(notes)


def _prepare(
    client: TrainingClientProtocol, recipe: Recipe, data: Any, held_out: Any, seed: int
) -> tuple[Job, list[str]]:
    tokenizer = client.get_tokenizer()
    limit = context_length(tokenizer)
    # Warnings become notes of the run: a worker thread does not print.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        job = recipe.prepare(tokenizer, data, held_out, seed=seed, max_length=limit)
    return job, [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
