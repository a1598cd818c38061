r"""Sequences laid end to end without padding, shared prefixes stored once.

Sequences that begin with the same tokens have the same hidden states there, whatever follows. In sorted order the
longest prefix that a sequence shares with any before it is the one it shares with its neighbour, so each stores only
what comes after that. Positions restart at every sequence, and each token sees exactly its own path::

    stored   Q : 1 + 2 A : 3 <eos> | 4 <eos>
    position 0 1 2 3 4 5 6 7 8     | 7 8
             prompt and chosen      rejected

The result is exact: a packed sequence has the hidden states it would have had alone. What attention needs for that is
in :mod:`mint_lab.engine.attention`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Layout", "cut", "pack", "pad", "stored_tokens"]


@dataclass(frozen=True)
class Layout:
    """A batch as the trunk takes it.

    Attributes:
        tokens: ``(1, stored)`` where packed, ``(sequences, longest)`` where padded; int64.
        positions: the same shape, int64; position of each token in its own sequence.
        places: for each sequence ``(N_i,)`` indices into the flattened tokens, in order: its path.
        shared: for each sequence how many tokens of its path were stored before it; the rest are its own and stand
            side by side.
        padded: each sequence has a row of its own, from column 0, and attention is the family's own.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    places: list[NDArray[np.int64]]
    shared: list[int]
    padded: bool

    @property
    def stored(self) -> int:
        """Tokens stored, without padding: what the trunk really has to compute."""
        return sum(len(place) - shared for place, shared in zip(self.places, self.shared, strict=True))

    @property
    def present(self) -> torch.Tensor:
        """Shaped as ``tokens``, int64: 1 where a token is stored, 0 where there is padding."""
        present = torch.zeros(self.tokens.numel(), dtype=torch.int64)
        present[torch.from_numpy(np.concatenate(self.places))] = 1
        return present.view_as(self.tokens)


def pack(sequences: Sequence[Sequence[int]]) -> Layout:
    """Lay ``sequences``, token ids, each of length >= 1, end to end, each common prefix stored once."""
    places: list[NDArray[np.int64]] = [np.empty(0, np.int64)] * len(sequences)
    shares = [0] * len(sequences)
    tokens: list[int] = []
    positions: list[NDArray[np.int64]] = []
    path = np.empty(0, np.int64)
    for i, shared in _in_order(sequences):
        own = sequences[i][shared:]
        path = np.concatenate([path[:shared], np.arange(len(tokens), len(tokens) + len(own))])
        places[i], shares[i] = path, shared
        tokens.extend(own)
        positions.append(np.arange(shared, len(path)))
    return Layout(
        torch.tensor([tokens], dtype=torch.int64),
        torch.from_numpy(np.concatenate(positions))[None],
        places,
        shares,
        padded=False,
    )


def pad(sequences: Sequence[Sequence[int]]) -> Layout:
    """Lay ``sequences`` one a row, padded at the end: for families whose attention cannot be told who sees whom."""
    width = max(map(len, sequences))
    tokens = np.zeros((len(sequences), width), dtype=np.int64)
    places: list[NDArray[np.int64]] = []
    for row, sequence in enumerate(sequences):
        tokens[row, : len(sequence)] = sequence
        places.append(np.arange(row * width, row * width + len(sequence)))
    columns = torch.arange(width).expand(len(sequences), width)
    return Layout(torch.from_numpy(tokens), columns, places, [0] * len(sequences), padded=True)


def stored_tokens(sequences: Sequence[Sequence[int]]) -> int:
    """Tokens that :func:`pack` stores, without laying them."""
    return sum(len(sequences[i]) - shared for i, shared in _in_order(sequences))


def cut(
    sequences: Sequence[Sequence[int]], limit: int, size: Callable[[Sequence[Sequence[int]]], int]
) -> list[list[int]]:
    """Indices of consecutive sequences, in parts of ``size`` at most ``limit``; one too large by itself is a part.

    A part ends where neighbours share least, so that pairs and groups stay together where there is room for them: a
    prefix shared across a cut is computed twice.

    Args:
        size: tokens that some sequences take together.
    """
    parts: list[list[int]] = []
    start = 0
    while start < len(sequences):
        rest = sequences[start:]
        count = _fitting(rest, limit, size)
        if count < len(rest):
            count = _between_groups(rest, count)
        parts.append(list(range(start, start + count)))
        start += count
    return parts


def _in_order(sequences: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """(index, length of the prefix that it shares with the one before) in sorted order."""
    order = sorted(range(len(sequences)), key=lambda i: list(sequences[i]))
    shared = [0, *(_common_prefix(sequences[a], sequences[b]) for a, b in pairwise(order))]
    return list(zip(order, shared, strict=True))


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    length = min(len(a), len(b))
    if a[:length] == b[:length]:
        return length
    return next(k for k in range(length) if a[k] != b[k])


def _fitting(sequences: Sequence[Sequence[int]], limit: int, size: Callable[[Sequence[Sequence[int]]], int]) -> int:
    """How many sequences from the first on are within ``limit``; at least one."""
    low, high = 1, 2  # low fits; high is not known to
    while high <= len(sequences) and size(sequences[:high]) <= limit:
        low, high = high, 2 * high
    high = min(high, len(sequences) + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(sequences[:middle]) <= limit else (low, middle)
    return low


def _between_groups(sequences: Sequence[Sequence[int]], count: int) -> int:
    """The largest number up to ``count``, above its half, after which neighbours share less than most do there."""
    candidates = range(count, count // 2, -1)
    shared = [_common_prefix(sequences[k - 1], sequences[k]) for k in candidates]
    return next(k for k, s in zip(candidates, shared, strict=True) if 2 * s <= min(shared) + max(shared))
