"""A rollout: groups of responses that a snapshot of the model samples, their rewards, and the datums made of them.

A prompt and its responses are a :class:`SampledGroup`; with rewards and advantages, a :class:`GradedGroup`. Its
responses one by one are :class:`GradedResponse` objects, and each of these becomes one datum.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...client.protocol import RestorableClient, WeightsClient
from ...data.advantages import group_advantages, has_spread
from ...data.render import to_datum
from ...metrics.rollout import completion_metrics, reward_metrics

if TYPE_CHECKING:
    import torch

    from ...client.protocol import SamplingClientProtocol, TrainingClientProtocol
    from ...types import Datum
    from .rl_job import Prompts

__all__ = [
    "GradedGroup",
    "GradedResponse",
    "SampledGroup",
    "SampledResponse",
    "SamplerSettings",
    "Snapshots",
    "datum_of",
    "responses_of",
    "rollout_metrics",
    "sample_groups",
    "with_advantages",
]


@dataclass(frozen=True)
class SampledResponse:
    """One response: its tokens, their log-probabilities under the sampler (nats), and its text.

    Attributes:
        truncated: True if the token limit ended it.
    """

    tokens: list[int]
    logprobs: list[float]
    text: str
    truncated: bool


@dataclass(frozen=True)
class SampledGroup:
    """A prompt and the responses sampled for it.

    Attributes:
        index: Position of the example in its data.
        prompt: Tokens of the prompt.
        text: Text of the prompt.
        responses: The responses.
    """

    index: int
    prompt: list[int]
    text: str
    responses: list[SampledResponse]


@dataclass(frozen=True)
class GradedGroup:
    """A :class:`SampledGroup` with one reward and one advantage per response."""

    sampled: SampledGroup
    rewards: list[float]
    advantages: list[float]

    @property
    def has_spread(self) -> bool:
        """Whether the rewards differ; otherwise the group teaches nothing."""
        return has_spread(self.rewards)


@dataclass(frozen=True)
class GradedResponse:
    """One graded response, and the group that it belongs to."""

    group: SampledGroup
    sampled: SampledResponse
    reward: float
    advantage: float


@dataclass(frozen=True)
class SamplerSettings:
    """How responses are sampled."""

    num_samples: int
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = -1
    stop: tuple[str, ...] = ()


class Snapshots:
    """Sampling clients on the weights after each number of updates, as far back as ``delay`` updates."""

    def __init__(self, client: TrainingClientProtocol, delay: int = 0) -> None:
        self._client = client
        self._delay = delay
        self._kept: dict[int, SamplingClientProtocol] = {}  # by number of updates

    def current(self, updates: int) -> SamplingClientProtocol:
        """Return a client on the current weights, which have received ``updates`` updates."""
        if updates not in self._kept:
            self._kept[updates] = self._client.save_weights_and_get_sampling_client()
            for old in [k for k in self._kept if k < updates - self._delay]:
                del self._kept[old]
        return self._kept[updates]

    def delayed(self, updates: int) -> tuple[SamplingClientProtocol, int]:
        """Return a client on the weights of ``delay`` updates ago, or on the first ones, and their number of updates.

        Args:
            updates: Updates that the current weights have received.
        """
        self.current(updates)
        version = min(k for k in self._kept if k >= updates - self._delay)
        return self._kept[version], version

    def weights(self) -> dict[int, Mapping[str, torch.Tensor]]:
        """Return the weights that later rollouts may sample from, by number of updates; none if the client has none."""
        found: dict[int, Mapping[str, torch.Tensor]] = {}
        for updates, client in self._kept.items():
            weights = client.weights() if isinstance(client, WeightsClient) else None
            if weights is not None:
                found[updates] = weights
        return found

    def restore(self, kept: Mapping[int, Mapping[str, torch.Tensor]]) -> None:
        """Sample from these weights, as :meth:`weights` returned them."""
        self._kept = {}
        if isinstance(self._client, RestorableClient):
            self._kept = {updates: self._client.sampling_client_on(weights) for updates, weights in kept.items()}

    def keep(self, updates: int) -> None:
        """Take a snapshot after an update if a later rollout will need it.

        Args:
            updates: Updates that the current weights have received.
        """
        if self._delay:
            self.current(updates)


def sample_groups(
    client: SamplingClientProtocol,
    prompts: Prompts,
    items: Sequence[int],
    settings: SamplerSettings,
    seeds: Sequence[int],
) -> list[SampledGroup]:
    """Sample responses to the prompts ``items``; all requests are submitted before the first result is awaited.

    Args:
        client: Samples.
        prompts: The prompts.
        items: Positions of the prompts to use.
        settings: How to sample.
        seeds: One seed per prompt.

    Raises:
        DataError: If a prompt cannot be tokenized or is too long for the model.
    """
    from ...types import ModelInput, SamplingParams

    encoded = [prompts.encoded(i) for i in items]
    futures: list[Any] = []
    with warnings.catch_warnings():
        # The advice of the run says the same, with the numbers that follow from it.
        warnings.simplefilter("ignore", UserWarning)
        for (tokens, _), seed in zip(encoded, seeds, strict=True):
            params = SamplingParams(
                max_tokens=settings.max_tokens,
                temperature=settings.temperature,
                top_p=settings.top_p,
                top_k=settings.top_k,
                seed=seed,
                stop=list(settings.stop) or None,
            )
            futures.append(client.sample(ModelInput.from_ints(tokens), settings.num_samples, params))
    return [
        SampledGroup(item, tokens, text, [_response(prompts, sequence) for sequence in future.result().sequences])
        for item, (tokens, text), future in zip(items, encoded, futures, strict=True)
    ]


def _response(prompts: Prompts, sequence: Any) -> SampledResponse:
    tokens = [int(t) for t in sequence.tokens]
    text = str(prompts.tokenizer.decode(tokens, skip_special_tokens=True))
    return SampledResponse(tokens, [float(x) for x in sequence.logprobs], text, sequence.stop_reason == "length")


def with_advantages(groups: Sequence[SampledGroup], rewards: Sequence[list[float]], kind: str) -> list[GradedGroup]:
    """Return graded groups.

    Args:
        groups: The groups.
        rewards: One list per group, one reward per response.
        kind: Kind of advantage, one of ``ADVANTAGES``.
    """
    return [GradedGroup(group, row, group_advantages(row, kind)) for group, row in zip(groups, rewards, strict=True)]


def rollout_metrics(groups: Sequence[SampledGroup], rewards: Sequence[list[float]]) -> dict[str, float]:
    """Return metrics of all responses: reward, its spread, length and truncation."""
    responses = [response for group in groups for response in group.responses]
    return reward_metrics(rewards) | completion_metrics(
        [len(response.tokens) for response in responses], [response.truncated for response in responses]
    )


def responses_of(groups: Sequence[GradedGroup]) -> list[GradedResponse]:
    """Return every response that has a token to train on, one group after another."""
    return [
        GradedResponse(group.sampled, response, reward, advantage)
        for group in groups
        for response, reward, advantage in zip(group.sampled.responses, group.rewards, group.advantages, strict=True)
        if response.tokens
    ]


def datum_of(response: GradedResponse, *, weights: bool = True) -> Datum:
    """Return the datum of a response: ``target_tokens``, the sampler's ``logprobs``, and ``advantages``.

    The latter two are 0 on the prompt. All fields have the shape ``(prompt tokens - 1 + response tokens,)``.

    Args:
        response: The response.
        weights: Add ``weights``, 0 on the prompt and 1 on the response.
    """
    prompt, tokens = response.group.prompt, response.sampled.tokens
    start = len(prompt) - 1  # position i predicts token i + 1
    logprobs, advantages = (np.zeros(start + len(tokens), np.float32) for _ in range(2))
    logprobs[start:] = response.sampled.logprobs
    advantages[start:] = response.advantage
    datum = to_datum(prompt + tokens, len(prompt), logprobs=logprobs, advantages=advantages)
    if not weights:
        del datum.loss_fn_inputs["weights"]
    return datum
