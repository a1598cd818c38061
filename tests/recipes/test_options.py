"""An option that a run does not have is refused with the name that was meant."""

from __future__ import annotations

from typing import Any

import pytest

from mint_lab.errors import ConfigError
from mint_lab.losses import LOSSES
from mint_lab.runs.run import Run


def my_loss(data: Any, logprobs_list: Any, width: float = 2.0) -> Any:
    raise AssertionError


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stepz": 3}, "unknown option 'stepz': did you mean steps="),
        ({"lr": 1e-3}, "did you mean learning_rate="),
        ({"max_steps": 3}, "did you mean steps="),
        ({"model": "mint-tiny"}, "did you mean base_model="),
        ({"settings": {}}, "did you mean loss_config="),
        ({"max_seq_length": 64}, "did you mean max_length="),
        ({"max_length": 1}, "max_length is 1, expected a whole number from 2 up"),
        ({"max_rows": 0}, "max_rows is 0, expected a whole number from 1 up"),
        ({"on_bad_row": "drop"}, "on_bad_row is 'drop', expected 'raise' or 'skip'"),
        ({"loss": "dpo", "beta": 1}, r"belongs into loss_config=\{'beta': 0.1\}"),
        ({"loss": "dpo", "bta": 1}, r"did you mean loss_config=\{'beta': ...\}"),
        ({"loss": my_loss, "width": 1}, r"belongs into loss_config=\{'width': 2\}"),
        ({"lr_scheduler_type": "cosine"}, "did you mean schedule="),
        ({"gradient_accumulation_steps": 4}, "did you mean accumulate="),
        ({"num_generations": 4}, "'group_size' is an option of the rl recipe, and this is preference"),
        ({"recipe": "rl", "num_generations": 4}, "did you mean group_size="),
        ({"recipe": "rl", "clip_low_treshold": 4}, r"did you mean loss_config=\{'clip_low_threshold'"),
        ({"seed": -1}, "seed is -1, expected a whole number from 0 up"),
        ({"rank": "8"}, "rank is '8', expected a whole number from 1 up"),
        ({"eval_every": 0}, "eval_every is 0, expected a whole number from 1 up"),
        ({"zzzzzz": 4}, "the options of the preference recipe are accumulate, adam_eps, base_model, batch_size, betas"),
    ],
)
def test_what_was_meant(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Run(**options)
    assert "my_loss" not in LOSSES, "nothing is registered for a run that is refused"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("dpo", r"unknown recipe 'dpo'; it is the name of a loss: Run\(loss='dpo'\)"),
        ("ppo", r"Run\('rl', loss='ppo'\)"),
        ("cross_entropy", r"Run\('sft', loss='cross_entropy'\)"),
        (my_loss, "a loss is given as loss="),
        ("sfft", "did you mean 'sft'"),
    ],
)
def test_a_loss_in_the_place_of_the_recipe(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Run(given)
