"""From a client, a recipe and data to the trainer that a run steps with."""

from __future__ import annotations

import threading
import warnings
from typing import TYPE_CHECKING, Any, TypeAlias

from ..recipes.batch_trainer import Trainer
from ..recipes.registry import Recipe, context_length
from ..recipes.rl.recipe import Rl, RlJob
from ..recipes.rl.rl_trainer import RlTrainer

if TYPE_CHECKING:
    from ..client.protocol import TrainingClient
    from ..recipes.registry import Job

__all__ = ["ONE_AT_A_TIME", "AnyTrainer", "SharedData", "load_trainer"]

AnyTrainer: TypeAlias = Trainer | RlTrainer

ONE_AT_A_TIME = threading.Lock()
"""Held while a model or data are loaded: the filters for warnings, which both change, are the whole process's."""


class SharedData:
    """Data that several runs of one recipe, one seed and one tokenizer train on: whichever comes first prepares them.

    Args:
        data, held_out: as the recipe takes them.
    """

    def __init__(self, data: Any, held_out: Any) -> None:
        self._given = (data, held_out)
        self._made: tuple[Job | RlJob, list[str]] | None = None

    def job(self, client: TrainingClient, recipe: Recipe | Rl, seed: int) -> tuple[Job | RlJob, list[str]]:
        """The one job, and what was noteworthy about the data. Raises as :func:`load_trainer`."""
        if self._made is None:
            self._made = _prepare(client, recipe, *self._given, seed)
        return self._made


def load_trainer(
    client: TrainingClient, recipe: Recipe | Rl, data: Any, held_out: Any, seed: int
) -> tuple[AnyTrainer, list[str]]:
    """The trainer, with its data tokenized, and what was noteworthy about them, in plain words.

    Args:
        data: as the recipe takes them, or :class:`SharedData`, which know the held-out data too.

    Raises:
        DataError: as :meth:`mint_lab.recipes.registry.Recipe.prepare`.
    """
    if isinstance(data, SharedData):
        job, notes = data.job(client, recipe, seed)
    else:
        job, notes = _prepare(client, recipe, data, held_out, seed)
    trainer = RlTrainer(client, job, seed) if isinstance(job, RlJob) else Trainer(client, job, seed)
    return trainer, list(notes)


def _prepare(
    client: TrainingClient, recipe: Recipe | Rl, data: Any, held_out: Any, seed: int
) -> tuple[Job | RlJob, list[str]]:
    tokenizer = client.get_tokenizer()
    limit = context_length(tokenizer)
    # Said in the run's own words: a worker does not print.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        job = recipe.prepare(tokenizer, data, held_out, seed=seed, max_length=limit)
    return job, [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
