"""Held-out data: how they are split off, which items an evaluation uses, and what the loss reports on them."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch

from ..errors import DataError
from ..usercode.guarded_call import LossCancelled

if TYPE_CHECKING:
    from ..types import Datum
    from ..usercode.guarded_loss import GuardedLoss

__all__ = ["evaluated_items", "held_out_loss", "split"]

T = TypeVar("T")

HELD_OUT_SHARE = 0.1

# An evaluation between two steps uses this many batches of held-out items, which cost about as much as one step, and at
# least this many items: a share of fewer items says little. The first and the last evaluation use all items.
QUICK_BATCHES, QUICK_MIN_ITEMS = 3, 50


def split(items: Sequence[T], seed: int) -> tuple[list[T], list[T]]:
    """Return items to train on and a tenth to hold out, at least one; ``seed`` selects them, their order stays.

    Raises:
        DataError: If there are fewer than two items.
    """
    if len(items) < 2:
        raise DataError("one item cannot be split into training and held-out data; give held_out= as well")
    order = np.random.default_rng(seed).permutation(len(items))
    out = set(order[: max(1, round(HELD_OUT_SHARE * len(items)))].tolist())
    return [x for i, x in enumerate(items) if i not in out], [x for i, x in enumerate(items) if i in out]


def evaluated_items(total: int, batch_size: int, *, everything: bool) -> list[int]:
    """Return the positions of the held-out items that an evaluation uses, in order.

    All ``total`` of them, or one random item of each of as many equal stretches as a few batches hold. That samples a
    sorted file fairly, and a file in which kinds of items alternate, some of which an even stride would miss. The
    positions are the same at every evaluation and in every run, so that curves compare.
    """
    count = total if everything else min(total, max(QUICK_MIN_ITEMS, QUICK_BATCHES * batch_size))
    rng = random.Random(0)
    return [rng.randrange(k * total // count, (k + 1) * total // count) for k in range(count)]


def held_out_loss(fn: GuardedLoss, data: list[Datum], logprobs: list[torch.Tensor], size: int) -> dict[str, float]:
    """Return the loss and its own metrics on held-out data, averaged over batches of ``size`` datums.

    The batches are as large as in training, so that a loss that is a sum has the scale of the training curve; a shorter
    remainder is left out. A metric that only some batches report is averaged over these. A loss that fails here and not
    in training costs the run only these numbers: the result is empty.

    Args:
        fn: The loss.
        data: Held-out datums.
        logprobs: Log-probabilities of their targets, ``(N_i,)`` each, nats.
        size: Datums per batch.

    Raises:
        LossCancelled: If the loss did not return and was cancelled.
    """
    size = min(size, len(data))
    starts = range(0, len(data) - size + 1, size)
    values: dict[str, list[float]] = {}
    try:
        with torch.no_grad():
            for start in starts:
                value, metrics = fn(data[start : start + size], [lp.clone() for lp in logprobs[start : start + size]])
                for key, number in {**metrics, "loss": float(value)}.items():
                    values.setdefault(key, []).append(float(number))
    except LossCancelled:
        raise
    except Exception:
        return {}
    return {key: mean for key, numbers in values.items() if math.isfinite(mean := sum(numbers) / len(numbers))}
