"""Rollouts and policy updates by hand, with nothing but a client: samples, rewards, advantages, datums, updates.

The functions share no line with the trainer of the recipe ``rl``, so they cannot share a mistake with it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mint_lab.data.render import to_datum
from mint_lab.types import AdamParams, ModelInput, SamplingParams

from ...runs.bigram import BigramClient

__all__ = [
    "MAX_TOKENS",
    "PROMPTS",
    "Rollout",
    "Update",
    "apply",
    "by_hand",
    "even",
    "low",
    "policy_gradient",
    "roll_out",
]

PROMPTS = [{"prompt": f"{chr(97 + i % 26)}:", "answer": "?"} for i in range(40)]
GROUP, MAX_TOKENS, SEED = 8, 4, 0


def low(response_text: str, example: Any) -> float:
    return sum(ord(c) < 64 for c in response_text) / max(len(response_text), 1)


def even(response_text: str, example: Any) -> float:
    return sum(ord(c) % 2 == 0 for c in response_text) / max(len(response_text), 1)


def policy_gradient(data: Any, logprobs_list: Any, scale: float = 1.0) -> Any:
    advantages = [d.loss_fn_inputs["advantages"].to_torch() for d in data]
    return -scale * sum((lp * a).sum() for lp, a in zip(logprobs_list, advantages, strict=True)), {}


@dataclass(frozen=True)
class Update:
    """One optimizer step: a built-in loss by name, or a function."""

    loss: str | Callable[..., Any] = "ppo"
    config: dict[str, float] = field(default_factory=lambda: {"clip_low_threshold": 0.8, "clip_high_threshold": 1.2})
    learning_rate: float = 0.1


@dataclass(frozen=True)
class Rollout:
    """One rollout and the updates on it."""

    updates: Sequence[Update] = (Update(),)
    reward: Callable[[str, Any], float] = low
    batch_size: int = 4


def by_hand(client: BigramClient, rollouts: Sequence[Rollout]) -> tuple[list[float], list[float]]:
    """Return the mean reward of each rollout and the loss of each update."""
    position, rewards, losses = 0, [], []
    for rollout in rollouts:
        batch, mean = roll_out(client, rollout, position)
        position += rollout.batch_size
        rewards.append(mean)
        losses += [apply(client, batch, update) for update in rollout.updates]
    return rewards, losses


def roll_out(client: BigramClient, rollout: Rollout, position: int) -> tuple[list[Any], float]:
    order = np.random.default_rng([SEED, 0]).permutation(len(PROMPTS)).tolist()
    seeds = np.random.default_rng([SEED, 0, position]).integers(2**31, size=rollout.batch_size).tolist()
    sampler = client.save_weights_and_get_sampling_client()
    batch: list[Any] = []
    every: list[float] = []
    for k in range(rollout.batch_size):
        example = PROMPTS[order[position + k]]
        prompt = [ord(c) for c in example["prompt"]]
        params = SamplingParams(max_tokens=MAX_TOKENS, temperature=1.0, seed=seeds[k])
        answers = sampler.sample(ModelInput.from_ints(prompt), GROUP, params).result().sequences
        texts = ["".join(chr(t) for t in answer.tokens if t) for answer in answers]
        rewards = [rollout.reward(text, example) for text in texts]
        every += rewards
        if len(set(rewards)) == 1:
            continue  # nothing to learn from
        for answer, value in zip(answers, rewards, strict=True):
            tokens, before = list(answer.tokens), [0.0] * (len(prompt) - 1)
            advantages = before + [value - float(np.mean(rewards))] * len(tokens)
            logprobs = np.array(before + [float(x) for x in answer.logprobs], np.float32)
            batch.append(
                to_datum(prompt + tokens, len(prompt), logprobs=logprobs, advantages=np.array(advantages, np.float32))
            )
    return batch, float(np.mean(every))


def apply(client: BigramClient, batch: list[Any], update: Update) -> float:
    if isinstance(update.loss, str):
        result = client.forward_backward(batch, update.loss, update.config).result()
    else:
        result = client.forward_backward_custom(batch, functools.partial(update.loss, **update.config)).result()
    client.optim_step(AdamParams(learning_rate=update.learning_rate)).result()
    return float(result.metrics["loss"])
