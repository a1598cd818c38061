"""From data to a trainer: what is prepared once, and what becomes a note."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from mint_lab.errors import DataError
from mint_lab.recipes import RECIPES
from mint_lab.recipes.batch_trainer import BatchTrainer
from mint_lab.runs.loading import SharedData, load_trainer

from .bigram import BigramClient, letter_pairs


class CountingRecipe(type(RECIPES["preference"])):  # type: ignore[misc]
    """The recipe "preference"; counts its preparations and warns of something in each."""

    prepared = 0

    def prepare(self, *args: Any, **options: Any) -> Any:
        self.prepared += 1
        self.limit = options["max_length"]
        warnings.warn("two pairs are alike", UserWarning, stacklevel=1)
        warnings.warn("not for people who train", DeprecationWarning, stacklevel=1)
        return super().prepare(*args, **options)


def test_trainer_has_the_data_and_notes_their_warnings() -> None:
    recipe, client = CountingRecipe(), BigramClient()
    trainer, notes = load_trainer(client, recipe, letter_pairs(12), letter_pairs(4), seed=3)
    assert isinstance(trainer, BatchTrainer)
    assert trainer.client is client
    assert (trainer.job.size, trainer.job.held_out_size) == (12, 4)
    assert notes == ["two pairs are alike"]
    assert recipe.limit == client.get_tokenizer().model_max_length


def test_shared_data_are_prepared_once_for_several_trainers() -> None:
    recipe, shared = CountingRecipe(), SharedData(letter_pairs(12), letter_pairs(4))
    first, notes = load_trainer(BigramClient(), recipe, shared, None, seed=3)
    second, again = load_trainer(BigramClient(), recipe, shared, None, seed=3)
    assert recipe.prepared == 1
    assert first.job is second.job
    assert first.client is not second.client
    assert notes == again == ["two pairs are alike"]
    assert notes is not again, "each run adds to its own"


def test_data_that_cannot_be_used_raise() -> None:
    shared = SharedData([], None)
    for _ in range(2):  # a failed preparation is not kept
        with pytest.raises(DataError):
            load_trainer(BigramClient(), CountingRecipe(), shared, None, seed=0)
