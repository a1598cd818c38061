"""The recipe ``rl``: reinforcement learning on rewards for the model's own answers: its options, prompts and reward.

How a step is made is in :mod:`mint_lab.recipes.rl.rl_trainer`:

prompts -> groups of samples from a snapshot -> rewards -> advantages within each group -> datums -> a policy loss
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ...charts.spec import CHARTS, LineSpec
from ...data.advantages import ADVANTAGES
from ...data.render import encode_prompt
from ...data.rewards import REWARDS, Reward, RewardFunction, exact_match, reward_of
from ...data.tasks import ExampleTask, PromptTask, task_of
from ...errors import ConfigError, DataError, one_of
from ...losses import DataKind
from ...losses.spec import REFERENCE
from ..base import Recipe, option
from ..held_out import split

if TYPE_CHECKING:
    from ...client.protocol import Tokenizer, TrainingClient
    from ..guarded_trainer import GuardedTrainer

__all__ = ["EVALUATIONS", "Prompts", "Rl", "RlJob", "RlOptions"]

TRAIN_PROMPTS, HELD_OUT_PROMPTS = 4000, 400
EVALUATIONS = ("greedy", "sampled")


@dataclass(frozen=True)
class RlOptions:
    """How a rollout is sampled and used; each option describes itself in its declaration.

    Away from a temperature of 1, top_p of 1 and top_k of -1 the sampler's log-probabilities are not the trainer's, so
    ratios do not start at 1. Without ``weights`` the loss ``dro`` also pulls on the prompt.

    Raises:
        ConfigError: If a value is not valid.
    """

    reward: str | RewardFunction | None = option(
        None, "name of a registered reward or a function (response_text, example) -> float; None for the task's"
    )
    group_size: int = option(8, "samples per prompt")
    max_tokens: int | None = option(None, "longest response, tokens; None for the task's limit")
    temperature: float = option(1.0, "of the sampler")
    top_p: float = option(1.0, "of the sampler")
    top_k: int = option(-1, "of the sampler; -1 for no limit")
    advantages: str = option("centred", '"centred", "normalised" or "leave_one_out"')
    updates_per_rollout: int = option(1, "passes over each rollout")
    minibatches: int = option(1, "optimizer steps per pass, each on whole groups")
    delay: int = option(0, "optimizer steps by which the sampler's weights lag; 0 is on-policy")
    kl_to_base: bool = option(False, "measure the divergence from the base model, one more forward pass per rollout")
    evaluation: str = option("greedy", 'how held-out prompts are answered: "greedy" or "sampled" (temperature 1)')
    weights: bool = option(True, "give datums a weights field, 0 on the prompt")

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
        """Return the options that a record keeps, with the prefix ``rollout/``."""
        kept = ("group_size", "temperature", "top_p", "top_k", "updates_per_rollout", "minibatches", "delay")
        limit = {} if self.max_tokens is None else {"rollout/max_tokens": float(self.max_tokens)}
        return {f"rollout/{name}": float(getattr(self, name)) for name in kept} | limit


@dataclass(frozen=True)
class Prompts:
    """Examples, and the task that makes prompts of them.

    Attributes:
        task: Makes a prompt of an example.
        examples: The examples.
        tokenizer: The model's.
        what: "training" or "held-out", for messages.
    """

    task: PromptTask
    examples: Sequence[Any]
    tokenizer: Tokenizer
    what: str

    def __len__(self) -> int:
        return len(self.examples)

    def encoded(self, index: int) -> tuple[list[int], str]:
        """Return the tokens and the text of a prompt.

        Raises:
            DataError: If it cannot be tokenized; ``error.index`` is its position.
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

    @property
    def size(self) -> int:
        """Prompts to train on."""
        return len(self.train)

    @property
    def held_out_size(self) -> int:
        """Prompts held out."""
        return len(self.held_out)

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings that end a response, besides the end-of-text token."""
        return getattr(self.train.task, "stop", ())

    def reward(self, prompts: Prompts) -> Reward:
        """Return what grades responses to ``prompts``: the named reward as registered now, or the task's own."""
        if isinstance(self.options.reward, str):
            return REWARDS[self.options.reward]
        return Reward(f"{prompts.task.name} reward".replace(" ", "_"), prompts.task.reward, builtin=True)


class Rl(Recipe):
    """Learn from rewards for the model's own answers."""

    name = "rl"
    summary = "Reinforcement learning: learn from rewards for the model's own answers."
    default_loss = "ppo"
    default_steps = 100
    default_learning_rate = 1e-3
    default_data = "two-digit additions"
    charts = (
        *("reward", "log_ratio", "clip_frac", "kl", "ess", "entropy_est", "ratio", "frac_reward_zero_std"),
        *("completion_length", "grad_norm"),
        # A policy loss is measured on rollouts only, and its value is in the unit of the reward.
        replace(CHARTS["loss"], lines=(LineSpec("loss"),), unit=""),
    )
    headlines = ("reward", "loss")
    examples = "responses of the last rollout"
    keeps_samples = True
    batch_before_training = False
    Options = RlOptions

    @property
    def data_kind(self) -> DataKind:
        """Groups of samples; the trainer adds the reference log-probabilities for a loss that reads them."""
        fields = {"logprobs", "advantages", REFERENCE}
        return DataKind(frozenset(fields | {"weights"} if self.options.weights else fields), "group", "advantages")

    @property
    def reward(self) -> str | None:
        """Name of the registered reward; None if the task's own grades."""
        return self.options.reward

    @property
    def evaluation(self) -> str:
        """How held-out prompts are answered."""
        return self.options.evaluation

    def with_options(self, given: Mapping[str, Any]) -> Rl:
        """Return this recipe with other options; a reward that is a function is registered, as a loss would be.

        Raises:
            ConfigError: As :class:`RlOptions`.
        """
        options = replace(self.options, **given)
        return Rl(replace(options, reward=_registered(options.reward)))

    def trainer(self, client: TrainingClient, job: Any, seed: int) -> GuardedTrainer:
        """As :meth:`Recipe.trainer`: samples rollouts and trains on them."""
        from .rl_trainer import RlTrainer

        return RlTrainer(client, job, seed)

    def prepare(
        self, tokenizer: Tokenizer, data: Any, held_out: Any, *, seed: int, max_length: int | None = None
    ) -> RlJob:
        """Load the prompts.

        Args:
            tokenizer: The model's.
            data: None for two-digit additions, or what :func:`mint_lab.data.task_of` takes.
            held_out: Likewise; None for the task's own, or a seeded tenth of ``data``.
            seed: Seed of that split.
            max_length: Not used: the sampler refuses prompts that are too long.

        Raises:
            DataError: If there are no prompts, an example has none, or there are neither answers nor a reward.
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
    """Return the registered name of a reward; a function is registered first, and replaces no other."""
    if reward is None:
        return None
    if isinstance(reward, str):
        return REWARDS[reward].name
    return REWARDS.add(reward if isinstance(reward, Reward) else reward_of(reward)).name


def _count(task: PromptTask, generated: int) -> int:
    """Return the number of examples: all that were given, or ``generated`` of a task that generates them."""
    return max(len(task.examples), len(task.held_out)) if isinstance(task, ExampleTask) else generated


def _held_out(task: PromptTask, given: Any) -> tuple[PromptTask, list[Any]]:
    """Return the task that grades held-out examples, and the examples."""
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
