"""The base class of recipes: its job, its sampler, its options."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.errors import ConfigError
from mint_lab.recipes.base import Recipe, check_recipe, option
from mint_lab.recipes.job import BatchJob, ShuffledSampler

from ..runs.bigram import BigramClient


@given(st.integers(1, 30), st.integers(0, 5), st.integers(0, 100), st.integers(1, 40))
def test_sampler_shuffles_each_epoch_by_seed_and_position(size: int, seed: int, start: int, count: int) -> None:
    sampler = ShuffledSampler(size, seed)
    stream = [sampler.items(k, 1)[0] for k in range(3 * size)]
    for epoch in range(3):
        assert sorted(stream[epoch * size : (epoch + 1) * size]) == list(range(size))
    items = ShuffledSampler(size, seed).items(start, count)  # a fresh one, asked for the middle at once
    assert items == [sampler.items(k, 1)[0] for k in range(start, start + min(count, size))]
    assert items == list(sampler.stream(start, count))


def test_sampler_epochs_and_seeds_differ() -> None:
    assert ShuffledSampler(50, 0).items(0, 50) != ShuffledSampler(50, 0).items(50, 50)
    assert ShuffledSampler(50, 0).items(0, 50) != ShuffledSampler(50, 1).items(0, 50)


def test_batch_job_counts_items_of_several_datums() -> None:
    """Seven letters stand for datums: items of one datum to train on, of two held out, of which the loss sees one."""
    job = BatchJob(list("abc"), list("uvwxyz"), unit=1, held_out_unit=2)
    assert (job.size, job.held_out_size) == (3, 3)
    assert job.batch([2, 0]) == ["c", "a"]
    assert job.held_out[job.loss_slice] == ["u", "w", "y"]
    pairs = BatchJob(list("abcd"), list("uv"), unit=2)
    assert (pairs.size, pairs.held_out_size, pairs.held_out_unit) == (2, 1, 2)
    assert pairs.batch([1]) == ["c", "d"]
    assert pairs.held_out[pairs.loss_slice] == ["u", "v"]


@dataclass(frozen=True)
class _Options:
    steepness: float = option(2.0, "how steep, per nat")


class _Steep(Recipe):
    name = "steep"
    default_loss = "cross_entropy"
    Options = _Options

    def prepare(self, tokenizer: Any, data: Any, held_out: Any, *, seed: int, max_length: int | None = None) -> Any:
        return "no batch job"


def test_options_are_the_fields_of_a_dataclass() -> None:
    assert _Steep.option_names() == ["steepness"]
    assert _Steep.option_docs() == {"steepness": "how steep, per nat"}
    assert _Steep().option_values() == {"steepness": 2.0}
    assert _Steep().with_options({"steepness": 3.0}).option_values() == {"steepness": 3.0}


def test_default_trainer_needs_a_batch_job() -> None:
    recipe = _Steep()
    job = recipe.prepare(None, None, None, seed=0)
    with pytest.raises(ConfigError, match="the steep recipe prepared a str, expected a BatchJob"):
        recipe.trainer(BigramClient(), job, 0)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, r"name is None"),
        ({"name": "two words", "default_loss": "ppo"}, "name is 'two words'"),
        ({"name": "ok", "default_loss": 3}, "default_loss is 3"),
        ({"name": "ok", "default_loss": "ppo", "Options": dict}, "Options is <class 'dict'>, expected a dataclass"),
    ],
)
def test_incomplete_recipe_is_refused(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_recipe(type("Made", (Recipe,), attributes))


def test_something_else_is_not_a_recipe() -> None:
    with pytest.raises(ConfigError, match=r"expected a subclass of mint_lab\.recipes\.Recipe"):
        check_recipe(int)  # pyright: ignore[reportArgumentType]
