"""A rollout: groups of responses from a snapshot of the model, their rewards, and the datums they become."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...data.advantages import group_advantages, has_spread
from ...data.render import to_datum
from ...metrics.rollout import completion_metrics, reward_metrics

if TYPE_CHECKING:
    from ...client.protocol import SamplingClient, TrainingClient
    from ...types import Datum
    from .job import Prompts

__all__ = [
    "Completion",
    "Drawn",
    "Group",
    "Response",
    "Sampler",
    "Snapshots",
    "datum_of",
    "draw",
    "responses_of",
    "rollout_metrics",
    "with_advantages",
]


@dataclass(frozen=True)
class Completion:
    """One response: its tokens, their log-probabilities under the sampler (nats), and its text."""

    tokens: list[int]
    logprobs: list[float]
    text: str
    truncated: bool


@dataclass(frozen=True)
class Drawn:
    """A prompt and the responses drawn to it; ``index`` is the example's place in its data."""

    index: int
    prompt: list[int]
    text: str
    completions: list[Completion]


@dataclass(frozen=True)
class Group:
    """A :class:`Drawn` with a reward and an advantage a response."""

    drawn: Drawn
    rewards: list[float]
    advantages: list[float]

    @property
    def has_spread(self) -> bool:
        """Whether there is something to learn: rewards differ."""
        return has_spread(self.rewards)


@dataclass(frozen=True)
class Response:
    """One graded response."""

    drawn: Drawn
    completion: Completion
    reward: float
    advantage: float


@dataclass(frozen=True)
class Sampler:
    """How responses are drawn."""

    num_samples: int
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    stop: tuple[str, ...] = ()


class Snapshots:
    """Sampling clients on the weights after each number of updates, as far back as ``delay``."""

    def __init__(self, client: TrainingClient, delay: int = 0) -> None:
        self._client = client
        self._delay = delay
        self._kept: dict[int, SamplingClient] = {}

    def current(self, updates: int) -> SamplingClient:
        """On the present weights, which ``updates`` updates have made."""
        if updates not in self._kept:
            self._kept[updates] = self._client.save_weights_and_get_sampling_client()
            for old in [k for k in self._kept if k < updates - self._delay]:
                del self._kept[old]
        return self._kept[updates]

    def delayed(self, updates: int) -> tuple[SamplingClient, int]:
        """On the weights ``delay`` updates before, or the first ones; and the number of updates they had."""
        self.current(updates)
        version = min(k for k in self._kept if k >= updates - self._delay)
        return self._kept[version], version

    def keep(self, updates: int) -> None:
        """Take a snapshot after an update where a later rollout will want it."""
        if self._delay:
            self.current(updates)


def draw(
    client: SamplingClient, prompts: Prompts, items: Sequence[int], sampler: Sampler, seeds: Sequence[int]
) -> list[Drawn]:
    """Responses to the prompts ``items``, one seed a prompt; all are submitted before any is waited for.

    Raises:
        DataError: a prompt cannot be tokenized or is too long for the model.
    """
    from ...types import ModelInput, SamplingParams

    encoded = [prompts.encoded(i) for i in items]
    futures: list[Any] = []
    with warnings.catch_warnings():
        # The run says it in its own words, with the numbers that it makes of it.
        warnings.simplefilter("ignore", UserWarning)
        for (tokens, _), seed in zip(encoded, seeds, strict=True):
            params = SamplingParams(
                max_tokens=sampler.max_tokens,
                temperature=sampler.temperature,
                top_p=sampler.top_p,
                top_k=sampler.top_k,
                seed=seed,
                stop=list(sampler.stop) or None,
            )
            futures.append(client.sample(ModelInput.from_ints(tokens), sampler.num_samples, params))
    return [
        Drawn(item, tokens, text, [_completion(prompts, s) for s in future.result().sequences])
        for item, (tokens, text), future in zip(items, encoded, futures, strict=True)
    ]


def _completion(prompts: Prompts, sequence: Any) -> Completion:
    tokens = [int(t) for t in sequence.tokens]
    text = str(prompts.tokenizer.decode(tokens, skip_special_tokens=True))
    return Completion(tokens, [float(x) for x in sequence.logprobs], text, sequence.stop_reason == "length")


def with_advantages(drawn: Sequence[Drawn], rewards: Sequence[list[float]], kind: str) -> list[Group]:
    """Groups with their advantages, of that kind."""
    return [Group(one, row, group_advantages(row, kind)) for one, row in zip(drawn, rewards, strict=True)]


def rollout_metrics(drawn: Sequence[Drawn], rewards: Sequence[list[float]]) -> dict[str, float]:
    """Reward, spread, length and truncation of all responses."""
    completions = [completion for one in drawn for completion in one.completions]
    return reward_metrics(rewards) | completion_metrics(
        [len(c.tokens) for c in completions], [c.truncated for c in completions]
    )


def responses_of(groups: Sequence[Group]) -> list[Response]:
    """Every response that has a token to learn, one group after another."""
    return [
        Response(group.drawn, completion, reward, advantage)
        for group in groups
        for completion, reward, advantage in zip(group.drawn.completions, group.rewards, group.advantages, strict=True)
        if completion.tokens
    ]


def datum_of(response: Response, *, weights: bool = True) -> Datum:
    """``target_tokens``, ``logprobs`` of the sampler and ``advantages``, the latter two 0 on the prompt.

    Args:
        weights: also ``weights``, 0 on the prompt.
    """
    prompt, tokens = response.drawn.prompt, response.completion.tokens
    start = len(prompt) - 1
    logprobs, advantages = (np.zeros(start + len(tokens), np.float32) for _ in range(2))
    logprobs[start:] = response.completion.logprobs
    advantages[start:] = response.advantage
    datum = to_datum(prompt + tokens, len(prompt), logprobs=logprobs, advantages=advantages)
    if not weights:
        del datum.loss_fn_inputs["weights"]
    return datum
