"""Training by hand: an explicit loop over a client, in which a test writes out what every step uses.

The loop has no plan, no trainer, no sampler and no worker thread, so it cannot share a mistake with a run.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from mint_lab.losses.preference import pairwise_preference_loss
from mint_lab.types import AdamParams, Datum

__all__ = ["HandRecord", "HandStep", "held_out_loss", "train"]


@dataclass(frozen=True)
class HandStep:
    """What one step uses.

    Attributes:
        loss: Name of a built-in loss, or a function ``(data, logprobs_list, **config)``.
        config: Settings of the loss.
        learning_rate: The rate itself, after any warm-up.
        batch_size: Items.
        grad_clip_norm: 0 for no limit.
    """

    loss: str | Callable[..., Any] = pairwise_preference_loss
    config: Mapping[str, float] = field(default_factory=dict)
    learning_rate: float = 0.05
    batch_size: int = 4
    grad_clip_norm: float = 0.0


@dataclass(frozen=True)
class HandRecord:
    """Loss and gradient norm of a step, and the loss on held-out data after it (nan without such data)."""

    loss: float
    grad_norm: float
    held_out: float


def train(
    client: Any,
    data: Sequence[Datum],
    steps: Sequence[HandStep],
    *,
    unit: int,
    held_out: Sequence[Datum] = (),
    seed: int = 0,
) -> list[HandRecord]:
    """Complete ``steps`` on ``client``; ``unit`` consecutive datums of ``data`` are one item."""
    size, position, records = len(data) // unit, 0, []
    for step in steps:
        items = [_item(place, size, seed) for place in range(position, position + step.batch_size)]
        batch = [datum for item in items for datum in data[unit * item : unit * (item + 1)]]
        position += step.batch_size
        if isinstance(step.loss, str):
            result = client.forward_backward(batch, step.loss, dict(step.config) or None).result()
        else:
            result = client.forward_backward_custom(batch, functools.partial(step.loss, **step.config)).result()
        adam = AdamParams(learning_rate=step.learning_rate, grad_clip_norm=step.grad_clip_norm)
        norm = client.optim_step(adam).result().metrics["grad_norm"]
        evaluated = held_out_loss(client, held_out, step, unit) if held_out else float("nan")
        records.append(HandRecord(result.metrics["loss"], norm, evaluated))
    return records


def _item(place: int, size: int, seed: int) -> int:
    """Return the item at a place in the endless stream: one seeded shuffle per epoch."""
    epoch, rest = divmod(place, size)
    return int(np.random.default_rng([seed, epoch]).permutation(size)[rest])


def held_out_loss(client: Any, data: Sequence[Datum], step: HandStep, unit: int) -> float:
    """Return the mean of a custom loss over whole batches of held-out data."""
    assert callable(step.loss)
    outputs = client.forward(list(data), "cross_entropy").result().loss_fn_outputs
    logprobs = [output["logprobs"].to_torch() for output in outputs]
    count, values = unit * step.batch_size, []
    for start in range(0, len(data) - count + 1, count):
        with torch.no_grad():
            batch = list(data[start : start + count]), logprobs[start : start + count]
            values.append(float(step.loss(*batch, **step.config)[0]))
    return sum(values) / len(values)
