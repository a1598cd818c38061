"""Held-out data: how they are split off, which items of them an evaluation takes, what the loss says of these."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from ..errors import DataError
from ..usercode.guarded_call import LossInterrupted

if TYPE_CHECKING:
    from ..types import Datum
    from ..usercode.guarded_loss import WatchedLoss

__all__ = ["evaluated_items", "held_out_loss", "split"]

T = TypeVar("T")

HELD_OUT_SHARE = 0.1

# An evaluation on the way takes this many batches of held-out items, which cost about as much as one step, but at
# least the least, below which a share says little. The first and the last evaluation take all.
QUICK_BATCHES, QUICK_LEAST = 3, 50


def split(items: Sequence[T], seed: int) -> tuple[list[T], list[T]]:
    """Items to train on and a tenth to hold out, at least one, each in their order; which ones, ``seed`` says.

    Raises:
        DataError: fewer than two items.
    """
    if len(items) < 2:
        raise DataError("one item cannot be split into training and held-out data; give held_out= as well")
    order = np.random.default_rng(seed).permutation(len(items))
    out = set(order[: max(1, round(HELD_OUT_SHARE * len(items)))].tolist())
    return [x for i, x in enumerate(items) if i not in out], [x for i, x in enumerate(items) if i in out]


def evaluated_items(total: int, batch_size: int, *, everything: bool) -> list[int]:
    """Places of the items, in order: all ``total``, or of as many equal stretches as a few batches hold one each.

    A sorted file is fairly sampled so, and so is one whose kinds of items come in turn, some of which an even stride
    misses. They are the same at every evaluation and in every run, so that curves compare.
    """
    count = total if everything else min(total, max(QUICK_LEAST, QUICK_BATCHES * batch_size))
    chance = random.Random(0)
    return [chance.randrange(k * total // count, (k + 1) * total // count) for k in range(count)]


def held_out_loss(fn: WatchedLoss, data: list[Datum], logprobs: list[torch.Tensor], size: int) -> dict[str, float]:
    """The loss and its own metrics on held-out data, averaged over batches of ``size`` datums.

    Batches as in training, so that a loss that is a sum has the scale of the training curve; a shorter remainder is
    left out. A metric that only some batches report is averaged over these. A loss that fails here and not in training
    costs the run nothing but these numbers: the result is empty.

    Raises:
        LossInterrupted: it did not return, and was broken off.
    """
    size = min(size, len(data))
    starts = range(0, len(data) - size + 1, size)
    found: dict[str, list[float]] = {}
    try:
        with torch.no_grad():
            for start in starts:
                value, metrics = fn(data[start : start + size], [lp.clone() for lp in logprobs[start : start + size]])
                for key, number in {**metrics, "loss": float(value)}.items():
                    found.setdefault(key, []).append(float(number))
    except LossInterrupted:
        raise
    except Exception:
        return {}
    return {key: mean for key, numbers in found.items() if math.isfinite(mean := sum(numbers) / len(numbers))}
