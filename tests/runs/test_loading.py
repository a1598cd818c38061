"""From data to a trainer: what is prepared once, and what becomes a note."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from mint_lab.data import Pair
from mint_lab.errors import ConfigError, DataError
from mint_lab.recipes import RECIPES
from mint_lab.recipes.batch_trainer import BatchTrainer
from mint_lab.runs.loading import DataLimits, SharedData, load_trainer, sequence_limit

from .bigram import BigramClient, CharTokenizer, letter_pairs


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


class LongClient(BigramClient):
    """A model that takes ``context`` tokens, with a tokenizer that states no length."""

    def __init__(self, stated: float, context: int | None) -> None:
        super().__init__()
        self._tokenizer = CharTokenizer()
        self._tokenizer.model_max_length = stated  # type: ignore[assignment]
        if context is not None:
            self.context = context

    def get_tokenizer(self) -> Any:
        return self._tokenizer


@pytest.mark.parametrize(
    ("stated", "context", "given", "limit"),
    [
        (64, None, None, 64),
        (1e30, 32, None, 32),
        (64, 32, 48, 32),
        (64, 32, 8, 8),
        (1e30, None, None, None),
        (1e30, None, 9, 9),
        (10_000_000, None, None, None),
        (9_999_999, None, None, 9_999_999),
    ],
)
def test_longest_sequence_is_the_least_that_is_known(
    stated: float, context: int | None, given: int | None, limit: int | None
) -> None:
    assert sequence_limit(LongClient(stated, context), given) == limit  # type: ignore[arg-type]


def test_long_rows_are_truncated_and_named_before_training() -> None:
    """Of rows 0 to 11, row 7 is too long for the model, whose tokenizer does not know it."""
    pairs = [Pair(f"{n}:", "ab", "ba") for n in range(12)]
    pairs[7] = Pair("x" * 80, "ab", "ba")
    trainer, notes = load_trainer(LongClient(1e30, 32), RECIPES["preference"], pairs, letter_pairs(4), seed=0)  # type: ignore[arg-type]
    assert max(d.model_input.length for d in trainer.job.data) == 31
    assert notes == ["truncated to 32 tokens: 1 of 12 prompts lost their beginning (row 7)"]
    _, notes = load_trainer(
        LongClient(1e30, 32),  # type: ignore[arg-type]
        RECIPES["preference"],
        letter_pairs(12),
        pairs,
        seed=0,
        limits=DataLimits(max_length=20),
    )
    assert notes == ["held-out data: truncated to 20 tokens: 1 of 12 prompts lost their beginning (row 7)"]


@pytest.mark.parametrize("recipe", ["preference", "sft"])
def test_rows_that_cannot_be_used(recipe: str) -> None:
    rows = [{"prompt": f"{n}:", "chosen": "ab", "rejected": "ba"} for n in range(12)]
    rows[9] = {"prompt": "9:", "chosen": "", "rejected": "ba"}
    with pytest.raises(DataError, match="datum 9, field 'chosen': empty"):
        load_trainer(BigramClient(), RECIPES[recipe], rows, None, seed=0)
    limits = DataLimits(on_bad_row="skip")
    trainer, notes = load_trainer(BigramClient(), RECIPES[recipe], rows, None, seed=0, limits=limits)
    assert trainer.job.size + trainer.job.held_out_size == 11
    assert notes == [
        "1 of 12 rows were left out: chosen: empty, expected at least one character (row 9)",
    ]
    trainer, notes = load_trainer(
        BigramClient(), RECIPES[recipe], rows, letter_pairs(30), seed=0, limits=DataLimits(max_rows=5)
    )
    assert (trainer.job.size, trainer.job.held_out_size, notes) == (5, 5, [])


def test_limits_of_shared_data() -> None:
    shared = SharedData(letter_pairs(12), letter_pairs(12))
    trainer, _ = load_trainer(BigramClient(), RECIPES["sft"], shared, None, seed=0, limits=DataLimits(max_rows=3))
    assert (trainer.job.size, trainer.job.held_out_size) == (3, 3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_length": 1}, "max_length is 1, expected a whole number from 2 up"),
        ({"max_rows": 0}, "max_rows is 0, expected a whole number from 1 up"),
        ({"on_bad_row": "drop"}, "on_bad_row is 'drop', expected 'raise' or 'skip'"),
    ],
)
def test_limits_that_mean_nothing_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DataLimits(**values)


class TextOnly:
    """A tokenizer and what else is known of a model, without the model."""

    context = 20
    end_tokens = frozenset({0, 7})

    def get_tokenizer(self) -> Any:
        return CharTokenizer()


def test_data_are_prepared_without_a_model_and_trained_on() -> None:
    shared, recipe = SharedData(letter_pairs(12), letter_pairs(4)), CountingRecipe()
    assert shared.prepared is None
    prepared = shared.prepare(TextOnly(), recipe, seed=3)
    assert (prepared.max_length, prepared.end_tokens, prepared.notes) == (20, {0, 7}, ["two pairs are alike"])
    trainer, _ = load_trainer(BigramClient(), recipe, shared, None, seed=3)
    assert trainer.job is prepared.job
    assert recipe.prepared == 1
    other = SharedData(letter_pairs(12), None).prepare(BigramClient(), recipe, seed=3)  # type: ignore[arg-type]
    assert other.end_tokens == {0}, "at least the tokenizer's"
