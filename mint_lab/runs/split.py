"""Held-out data where none are given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from ..errors import DataError

__all__ = ["split"]

T = TypeVar("T")

HELD_OUT_SHARE = 0.1


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
