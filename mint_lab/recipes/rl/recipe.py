"""The recipe of reinforcement learning: its settings, its prompts, its reward. What one step does is in ``trainer``.

prompts -> groups of samples from a snapshot -> rewards -> advantages within each group -> datums -> a policy loss
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...data.advantages import ADVANTAGES
from ...data.render import encode_prompt
from ...data.rewards import REWARDS, Reward, RewardFunction, exact_match, reward_of
from ...data.tasks import ExampleTask, PromptTask, task_of
from ...errors import ConfigError, DataError, one_of
from ...losses.spec import Family
from ..held_out import split

if TYPE_CHECKING:
    from ...client.protocol import Tokenizer

__all__ = ["EVALUATIONS", "Prompts", "Rl", "RlJob", "RlOptions"]

TRAIN_PROMPTS, HELD_OUT_PROMPTS = 4000, 400
EVALUATIONS = ("greedy", "sampled")


@dataclass(frozen=True)
class RlOptions:
    """How a rollout is drawn and used.

    Attributes:
        reward: name of a registered reward or a function ``(response_text, example) -> float``; None for the task's.
        group_size: samples a prompt.
        max_tokens: longest response, tokens; None for the task's own limit.
        temperature, top_p, top_k: of the sampler. Away from 1, 1 and -1 its log-probabilities are not the trainer's, so
            ratios do not start at 1.
        advantages: "centred", "normalised" or "leave_one_out", see :mod:`mint_lab.data.advantages`.
        updates_per_rollout: passes over each rollout; minibatches: optimizer steps a pass, each on whole groups.
        delay: optimizer steps by which the sampler's weights lag behind: 0 is on-policy.
        kl_to_base: also measure the divergence from the model before training, for one more forward pass a rollout.
        evaluation: how held-out prompts are answered: "greedy" or "sampled" (at temperature 1).
        weights: give datums a ``weights`` field, 0 on the prompt. Without it ``dro`` also pulls on the prompt.

    Raises:
        ConfigError: a value that makes no sense.
    """

    reward: str | RewardFunction | None = None
    group_size: int = 8
    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    advantages: str = "centred"
    updates_per_rollout: int = 1
    minibatches: int = 1
    delay: int = 0
    kl_to_base: bool = False
    evaluation: str = "greedy"
    weights: bool = True

    def __post_init__(self) -> None:
        for name, least in (("group_size", 2), ("updates_per_rollout", 1), ("minibatches", 1), ("delay", 0)):
            _whole(name, getattr(self, name), least)
        if self.max_tokens is not None:
            _whole("max_tokens", self.max_tokens, 1)
        if self.top_k != -1:
            _whole("top_k", self.top_k, 1)
        _within("temperature", self.temperature, 0.0, math.inf)
        _within("top_p", self.top_p, 0.0, 1.0)
        for name, choices in (("advantages", ADVANTAGES), ("evaluation", EVALUATIONS)):
            if getattr(self, name) not in choices:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; {one_of(choices, str(getattr(self, name)))}")
        for name in ("kl_to_base", "weights"):
            if not isinstance(getattr(self, name), bool):
                raise ConfigError(f"{name} is {getattr(self, name)!r}, expected True or False")

    def settings(self) -> dict[str, float]:
        """What a record keeps of it, every name with ``rollout/`` in front."""
        kept = ("group_size", "temperature", "top_p", "top_k", "updates_per_rollout", "minibatches", "delay")
        limit = {} if self.max_tokens is None else {"rollout/max_tokens": float(self.max_tokens)}
        return {f"rollout/{name}": float(getattr(self, name)) for name in kept} | limit


@dataclass(frozen=True)
class Prompts:
    """Examples with the task that makes prompts of them.

    Attributes:
        what: "training" or "held-out", for messages.
    """

    task: PromptTask
    examples: Sequence[Any]
    tokenizer: Tokenizer
    what: str

    def __len__(self) -> int:
        return len(self.examples)

    def encoded(self, index: int) -> tuple[list[int], str]:
        """Tokens and text of a prompt.

        Raises:
            DataError: it cannot be tokenized; ``error.index`` is its place.
        """
        prompt = self.task.prompt(self.examples[index])
        try:
            tokens = encode_prompt(self.tokenizer, prompt)
        except DataError as error:
            raise DataError(f"{self.what} example: {error}", index=index, field=error.field) from error
        return tokens, prompt if isinstance(prompt, str) else str(self.tokenizer.decode(tokens))


@dataclass(frozen=True)
class RlJob:
    """Prompts to train on and to evaluate on, and how rollouts are made of them."""

    train: Prompts
    held_out: Prompts
    options: RlOptions
    held_out_unit: int = 1
    _task_reward: Reward | None = field(default=None, repr=False)

    @property
    def size(self) -> int:
        return len(self.train)

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings that end a response, besides the end-of-text token."""
        return getattr(self.train.task, "stop", ())

    def reward(self, prompts: Prompts) -> Reward:
        """What grades responses to ``prompts``: the named reward as it is registered now, or the task's own."""
        if isinstance(self.options.reward, str):
            return REWARDS[self.options.reward]
        return Reward(f"{prompts.task.name} reward".replace(" ", "_"), prompts.task.reward, builtin=True)


@dataclass(frozen=True)
class Rl:
    """Learn from rewards for the model's own answers."""

    name: str = "rl"
    default_loss: str = "ppo"
    default_steps: int = 100
    default_learning_rate: float = 1e-3
    families: tuple[Family, ...] = ("policy", "custom")
    options: RlOptions = field(default_factory=RlOptions)

    @property
    def option_names(self) -> list[str]:
        return [option.name for option in fields(RlOptions)]

    def with_options(self, given: Mapping[str, Any]) -> Rl:
        """This recipe with other options; a reward that is a function is registered, as a loss would be.

        Raises:
            ConfigError: as :class:`RlOptions`.
        """
        options = replace(self.options, **given)
        return replace(self, options=replace(options, reward=_registered(options.reward)))

    def prepare(
        self, tokenizer: Tokenizer, data: Any, held_out: Any, *, seed: int, max_length: int | None = None
    ) -> RlJob:
        """Load the prompts.

        Args:
            data: None for two-digit additions, or what :func:`mint_lab.data.task_of` takes.
            held_out: likewise; None for the task's own, or a seeded tenth of ``data``.
            seed: of that split.
            max_length: not used: the sampler refuses prompts that are too long.

        Raises:
            DataError: no prompts, an example without one, or prompts without answers and no reward to grade by.
        """
        task = task_of(data)
        if self.options.reward is None:
            _check_answers(task)
        train = list(task.problems(_count(task, TRAIN_PROMPTS), split="train"))
        judge, test = _held_out(task, held_out)
        if held_out is None and not test:
            train, test = split(train, seed)
        if not train:
            raise DataError("there is nothing to train on: the data are empty")
        if not test:
            raise DataError("there is nothing to evaluate on: the held-out data are empty")
        options = self.options
        if options.max_tokens is None:
            options = replace(options, max_tokens=getattr(task, "max_tokens", ExampleTask.max_tokens))
        return RlJob(Prompts(task, train, tokenizer, "training"), Prompts(judge, test, tokenizer, "held-out"), options)


def _registered(reward: str | Callable[..., Any] | None) -> str | None:
    """The registry's name of a reward; a function that is not registered is, in the place of no other."""
    if reward is None:
        return None
    if isinstance(reward, str):
        return REWARDS[reward].name
    return REWARDS.add(reward if isinstance(reward, Reward) else reward_of(reward)).name


def _count(task: PromptTask, generated: int) -> int:
    """All of given examples; of a task that makes them up, so many."""
    return max(len(task.examples), len(task.held_out)) if isinstance(task, ExampleTask) else generated


def _held_out(task: PromptTask, given: Any) -> tuple[PromptTask, list[Any]]:
    """The task that grades held-out examples, and these."""
    if given is None:
        return task, list(task.problems(_count(task, HELD_OUT_PROMPTS), split="held_out"))
    other = task_of(given)
    split = "train" if isinstance(other, ExampleTask) else "held_out"
    # Plain rows belong to the task that the training examples belong to.
    judge = task if isinstance(task, ExampleTask) and isinstance(given, list) else other
    return judge, list(other.problems(_count(other, HELD_OUT_PROMPTS), split=split))


def _check_answers(task: PromptTask) -> None:
    if not isinstance(task, ExampleTask) or task.reward_of is not exact_match:
        return
    for index, example in enumerate(task.examples):
        if not isinstance(example, Mapping) or "answer" not in example:
            raise DataError(
                "the prompt comes without an 'answer' to compare with; give reward=, a function "
                "(response_text, example) -> float or the name of a registered one",
                index=index,
            )


def _whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigError(f"{name} is {value!r}, expected a whole number from {least} up")


def _within(name: str, value: Any, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value <= high or math.isinf(value):
        up_to = "" if math.isinf(high) else f" and up to {high:g}"
        raise ConfigError(f"{name} is {value!r}, expected a number above {low:g}{up_to}")
