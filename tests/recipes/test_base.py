"""The base class of recipes: its options, its trainer, and what it must say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from mint_lab.errors import ConfigError
from mint_lab.recipes.base import Recipe, check_recipe, option

from ..runs.bigram import BigramClient


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


def test_recipe_that_names_its_loss_alone_has_the_documented_defaults() -> None:
    recipe = _Steep()
    assert (recipe.default_steps, recipe.default_learning_rate) == (200, 1e-3)
    assert (recipe.charts, recipe.headlines) == (("loss", "grad_norm"), ("loss",))
    assert (recipe.keeps_samples, recipe.batch_before_training, recipe.lower_loss_is_better) == (False, True, True)


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
