"""What the trainer of the recipe ``rl`` works on: prompts, and the options of sampling and training."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...data.advantages import ADVANTAGES
from ...data.audit import DataView, item_of_prompt
from ...data.render import encode_prompt
from ...data.rewards import REWARDS, Reward, RewardFunction
from ...data.sources import Rows
from ...data.tasks import PromptTask
from ...errors import ConfigError, DataError, one_of
from ..base import option

if TYPE_CHECKING:
    from ...client.protocol import Tokenizer

__all__ = ["EVALUATIONS", "REWARD_VERSION", "Prompts", "RlJob", "RlOptions"]

EVALUATIONS = ("greedy", "sampled")
REWARD_VERSION = "rollout/reward_version"  # in the settings of a record: the version that graded its rollout


@dataclass(frozen=True)
class RlOptions:
    """How a rollout is sampled and used; the declaration of each option describes it.

    Unless ``temperature`` and ``top_p`` are 1 and ``top_k`` is -1, the sampler's log-probabilities differ from the
    trainer's, so ratios do not start at 1. Without ``weights`` the loss ``dro`` also acts on the prompt.

    Raises:
        ConfigError: If a value is not valid.
    """

    reward: str | RewardFunction | None = option(
        None, "name of a registered reward or a function (response_text, example) -> float; None: the task's reward"
    )
    group_size: int = option(8, "samples per prompt")
    max_tokens: int | None = option(None, "longest response, tokens; None: the task's limit")
    stop: tuple[str, ...] | None = option(
        None, "strings that end a response, besides the model's end tokens; None: the task's"
    )
    temperature: float = option(1.0, "of the sampler, above 0")
    top_p: float = option(1.0, "of the sampler, above 0 and up to 1")
    top_k: int = option(-1, "of the sampler; -1: no limit")
    advantages: str = option("centred", '"centred", "normalised" or "leave_one_out"')
    updates_per_rollout: int = option(1, "passes over each rollout")
    minibatches: int = option(1, "optimizer steps per pass, each on whole groups")
    delay: int = option(0, "optimizer steps by which the sampler's weights lag; 0 is on-policy")
    kl_to_base: bool = option(
        False, "measure the KL divergence from the reference model: one more forward pass per rollout"
    )
    evaluation: str = option("greedy", 'how held-out prompts are answered: "greedy" or "sampled" (temperature 1)')
    weights: bool = option(True, "give datums a weights field, 0 on the prompt")

    def __post_init__(self) -> None:
        for name, least in (("group_size", 2), ("updates_per_rollout", 1), ("minibatches", 1), ("delay", 0)):
            _whole(name, getattr(self, name), least)
        if self.max_tokens is not None:
            _whole("max_tokens", self.max_tokens, 1)
        if self.top_k != -1:
            _whole("top_k", self.top_k, 1)
        if self.stop is not None:
            object.__setattr__(self, "stop", _strings("stop", self.stop))
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
    """Examples, and the task that turns them into prompts.

    Attributes:
        task: Turns an example into a prompt.
        examples: The examples.
        tokenizer: The tokenizer of the model.
        what: "training" or "held-out", for messages.
        rows: The number of each example in its data; None if it is its position.
        read: The source of the examples; None if it is unknown. The same object for both parts of one source.
        refused: Why rows that the source accepted were left out, by their number.
    """

    task: PromptTask
    examples: Sequence[Any]
    tokenizer: Tokenizer
    what: str
    rows: Sequence[int] | None = None
    read: Rows | None = None
    refused: Mapping[int, str] = field(default_factory=dict[int, str])

    def __len__(self) -> int:
        return len(self.examples)

    def row(self, index: int) -> int:
        """Return the number of the example at position ``index`` in its data."""
        return index if self.rows is None else self.rows[index]

    def encoded(self, index: int) -> tuple[list[int], str]:
        """Return the tokens and the text of the prompt at position ``index``.

        Raises:
            DataError: If the prompt cannot be tokenized; ``error.index`` is its row.
        """
        prompt = self.task.prompt(self.examples[index])
        try:
            tokens = encode_prompt(self.tokenizer, prompt)
        except DataError as error:
            raise DataError(
                f"{self.what} example: {error.message}", index=self.row(index), field=error.field
            ) from error
        return tokens, prompt if isinstance(prompt, str) else str(self.tokenizer.decode(tokens))


@dataclass(frozen=True)
class RlJob:
    """Prompts to train on and to evaluate on, and the options of the rollouts."""

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

    def view(self) -> DataView:
        """Return the prompts as :func:`mint_lab.audit` reads them."""
        parts = (self.train, self.held_out)
        items = [
            item_of_prompt(part.encoded(index)[0], part.row(index), held_out=part is self.held_out)
            for part in parts
            for index in range(len(part))
        ]
        read = [len(part) if part.read is None else part.read.n_read or len(part) for part in parts]
        skipped = [{**(part.read.skipped if part.read else {}), **part.refused} for part in parts]
        if self.train.read is not None and self.train.read is self.held_out.read:  # a part of the data is held out
            read[1], skipped = 0, [skipped[0] | skipped[1], {}]
        return DataView("prompt", items, (read[0], read[1]), (skipped[0], skipped[1]), room=self.options.max_tokens)

    @property
    def stop(self) -> tuple[str, ...]:
        """Strings that end a response, besides the model's end tokens."""
        return getattr(self.train.task, "stop", ()) if self.options.stop is None else self.options.stop

    def fingerprint(self) -> str:
        """Return a hash of all prompts and examples; an example that is no plain data counts by its prompt alone."""
        digest = hashlib.sha256()
        for prompts in (self.train, self.held_out):
            for example in prompts.examples:
                fields = asdict(example) if is_dataclass(example) and not isinstance(example, type) else example
                digest.update(json.dumps([prompts.task.prompt(example), fields], default=_kind_of).encode())
        return digest.hexdigest()

    def reward(self, prompts: Prompts) -> Reward:
        """Return the reward for responses to ``prompts``: the latest version of the named reward, or the task's own."""
        if isinstance(self.options.reward, str):
            return REWARDS[self.options.reward]
        return Reward(f"{prompts.task.name} reward".replace(" ", "_"), prompts.task.reward, builtin=True)


def _kind_of(value: object) -> str:
    return type(value).__name__


def _strings(name: str, value: Any) -> tuple[str, ...]:
    """Return one text, or several, as a tuple; JSON, which records a run, has lists."""
    strings = (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list | tuple) else ()
    if not all(isinstance(one, str) and one for one in strings) or (not strings and value not in ([], ())):
        raise ConfigError(f"{name} is {value!r}, expected a text or a list of texts, none of them empty")
    return strings


def _whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
        raise ConfigError(f"{name} is {value!r}, expected a whole number from {least} up")


def _within(name: str, value: Any, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not low < value <= high or math.isinf(value):
        up_to = "" if math.isinf(high) else f" and up to {high:g}"
        raise ConfigError(f"{name} is {value!r}, expected a number above {low:g}{up_to}")
