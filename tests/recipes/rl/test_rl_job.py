"""Options of reinforcement learning, and its prompts and reward."""

from __future__ import annotations

import math
from typing import Any

import pytest

from mint_lab.data import ExampleTask
from mint_lab.data.rewards import reward
from mint_lab.errors import ConfigError, DataError
from mint_lab.recipes.rl.rl_job import Prompts, RlJob, RlOptions

from ...runs.bigram import CharTokenizer


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_size": 1}, "group_size is 1, expected a whole number from 2 up"),
        ({"group_size": 4.0}, "group_size is 4.0, expected a whole number"),
        ({"max_tokens": 0}, "max_tokens is 0"),
        ({"minibatches": True}, "minibatches is True"),
        ({"delay": -1}, "delay is -1, expected a whole number from 0 up"),
        ({"temperature": 0}, "temperature is 0, expected a number above 0"),
        ({"temperature": math.nan}, "temperature is nan"),
        ({"temperature": math.inf}, "temperature is inf"),
        ({"top_p": 1.5}, "top_p is 1.5, expected a number above 0 and up to 1"),
        ({"top_k": 0}, "top_k is 0"),
        ({"advantages": "centered"}, "advantages is 'centered'.*did you mean 'centred'"),
        ({"evaluation": "beam"}, "evaluation is 'beam'; expected one of: greedy, sampled"),
        ({"kl_to_base": 1}, "kl_to_base is 1, expected True or False"),
    ],
)
def test_invalid_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RlOptions(**options)


def test_record_keeps_the_settings_of_the_rollout() -> None:
    settings = {
        "rollout/group_size": 8,
        "rollout/temperature": 0.7,
        "rollout/top_p": 1,
        "rollout/top_k": -1,
        "rollout/updates_per_rollout": 1,
        "rollout/minibatches": 1,
        "rollout/delay": 0,
    }
    assert RlOptions(temperature=0.7).settings() == settings
    assert RlOptions(temperature=0.7, max_tokens=9).settings() == settings | {"rollout/max_tokens": 9}


def task(**options: Any) -> ExampleTask:
    return ExampleTask(
        "my task", ["x", "y"], prompt_of=lambda x: f"{x}:", reward_of=lambda t, x: float(t == x), **options
    )


def job(**options: Any) -> RlJob:
    train = Prompts(task(), ["x", "y"], CharTokenizer(), "training")
    return RlJob(train, Prompts(task(), ["x"], CharTokenizer(), "held-out"), RlOptions(**options))


def test_prompt_has_tokens_and_text() -> None:
    assert job().train.encoded(1) == ([ord("y"), ord(":")], "y:")
    assert (job().size, job().held_out_size) == (2, 1)


def test_chat_prompt_is_shown_as_the_tokens_read() -> None:
    tokenizer: Any = CharTokenizer()
    tokenizer.chat_template = "a template"
    tokenizer.apply_chat_template = lambda messages, **_: f"<u>{messages[0]['content']}<a>"
    chat = ExampleTask("chat", ["hi"], prompt_of=lambda x: [{"role": "user", "content": x}], reward_of=lambda t, x: 0.0)
    tokens, text = Prompts(chat, ["hi"], tokenizer, "training").encoded(0)
    assert text == "".join(map(chr, tokens)) == "<u>hi<a>"


def test_prompt_that_cannot_be_tokenized_is_named() -> None:
    chat = ExampleTask("chat", ["hi"], prompt_of=lambda x: [{"role": "user", "content": x}], reward_of=lambda t, x: 0.0)
    with pytest.raises(DataError, match=r"datum 0, field 'prompt'.*held-out example.*no chat template") as caught:
        Prompts(chat, ["hi"], CharTokenizer(), "held-out").encoded(0)
    assert caught.value.index == 0


def test_reward_of_the_task_is_built_in() -> None:
    own = job().reward(job().train)
    assert (own.label, own.builtin, own.fn("x", "x"), own.fn("y", "x")) == ("my_task_reward v1", True, 1.0, 0.0)


def test_named_reward_is_looked_up_at_each_use() -> None:
    named = job(reward="length")
    reward(name="length")(lambda response_text, example: len(response_text))
    assert named.reward(named.train).fn("abc", None) == 3
    reward(name="length")(lambda response_text, example: -len(response_text))
    assert (named.reward(named.held_out).label, named.reward(named.train).fn("abc", None)) == ("length v2", -3)


def test_stop_strings_are_those_of_the_task() -> None:
    assert job().stop == ()
    train = Prompts(task(stop=("\n\n",)), ["x"], CharTokenizer(), "training")
    assert RlJob(train, train, RlOptions()).stop == ("\n\n",)
