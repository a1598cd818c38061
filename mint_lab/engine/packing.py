r"""Sequences laid into rows without padding, shared prefixes stored once.

Sequences that begin with the same tokens have the same hidden states there, whatever follows. So the batch is a forest
of prefix trees, and a tree fits into one row: sequences in sorted order, each storing only what it does not share with
the one before. Position ids restart at every sequence, and a mask lets each token see exactly its own path::

    row      Q : 1 + 2 A : | 3 <eos> | 4 <eos>
    position 0 1 2 3 4 5 6 | 7 8     | 7 8
                            chosen     rejected

The result is exact: a packed sequence has the hidden states it would have had alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Layout", "cut", "grid_tokens", "pack"]


@dataclass(frozen=True)
class Layout:
    """A batch as the trunk takes it.

    Attributes:
        tokens: ``(rows, width)``, int64.
        positions: ``(rows, width)``, int64; position of each token in its own sequence.
        mask: ``(rows, 1, width, width)``, bool; True where a query (third axis) may see a key (fourth).
        places: for each sequence ``(N_i,)`` indices into the flattened ``(rows * width,)`` grid, in order.
        stored: tokens stored, without padding: what the trunk really has to compute.
        padded: each sequence has a row of its own, from column 0.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    mask: torch.Tensor
    places: list[NDArray[np.int64]]
    stored: int
    padded: bool

    @property
    def present(self) -> torch.Tensor:
        """``(rows, width)``, int64: 1 where a token is stored, 0 where there is padding."""
        present = torch.zeros(self.tokens.numel(), dtype=torch.int64)
        present[torch.from_numpy(np.concatenate(self.places))] = 1
        return present.view_as(self.tokens)


def pack(sequences: Sequence[Sequence[int]], row_tokens: int, *, share: bool = True) -> Layout:
    """Lay ``sequences`` into rows of at most ``row_tokens`` tokens (or the longest sequence, where that is longer).

    Args:
        sequences: token ids, each of length >= 1.
        row_tokens: attention costs rows x width^2, so a row should not be much wider than the model's hidden size.
        share: store common prefixes once; with False each sequence has a row of its own, padded at the end.
    """
    return _fill(sequences, _plan(sequences, row_tokens, share=share), padded=not share)


def grid_tokens(sequences: Sequence[Sequence[int]], row_tokens: int, *, share: bool = True) -> int:
    """Rows times width of :func:`pack` with the same arguments: what it costs, without making it."""
    rows = _plan(sequences, row_tokens, share=share)
    return len(rows) * _width(sequences, rows)


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


def _plan(sequences: Sequence[Sequence[int]], row_tokens: int, *, share: bool) -> list[_Tree]:
    """What goes into which row."""
    if not share:
        return [[(i, 0)] for i in range(len(sequences))]
    width = max(row_tokens, *map(len, sequences))
    return _rows(sequences, _trees(sequences, width), width)


def _width(sequences: Sequence[Sequence[int]], rows: list[_Tree]) -> int:
    return max(sum(len(sequences[i]) - shared for i, shared in row) for row in rows)


# A tree is a list of (sequence index, length of the prefix shared with the sequence before it in the tree).
_Tree = list[tuple[int, int]]


def _trees(sequences: Sequence[Sequence[int]], width: int) -> list[_Tree]:
    """Neighbours in sorted order that share a prefix, cut where a row would overflow."""
    order = sorted(range(len(sequences)), key=lambda i: list(sequences[i]))
    trees: list[_Tree] = []
    size, last = 0, -1
    for i in order:
        shared = _common_prefix(sequences[last], sequences[i]) if trees else 0
        if shared and size + len(sequences[i]) - shared <= width:
            trees[-1].append((i, shared))
            size += len(sequences[i]) - shared
        else:
            trees.append([(i, 0)])
            size = len(sequences[i])
        last = i
    return trees


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    length = min(len(a), len(b))
    if a[:length] == b[:length]:
        return length
    return next(k for k in range(length) if a[k] != b[k])


def _rows(sequences: Sequence[Sequence[int]], trees: list[_Tree], width: int) -> list[_Tree]:
    """First-fit decreasing: each tree into the first row that has room for it."""
    sized = sorted(((sum(len(sequences[i]) - shared for i, shared in t), t) for t in trees), key=lambda st: -st[0])
    rows: list[_Tree] = []
    room: list[int] = []
    for size, tree in sized:
        place = next((r for r, left in enumerate(room) if left >= size), None)
        if place is None:
            rows.append(list(tree))
            room.append(width - size)
        else:
            rows[place].extend(tree)
            room[place] -= size
    return rows


def _fill(sequences: Sequence[Sequence[int]], rows: list[_Tree], *, padded: bool) -> Layout:
    width = _width(sequences, rows)
    tokens = np.zeros((len(rows), width), dtype=np.int64)
    positions = np.zeros((len(rows), width), dtype=np.int64)
    # Every token sees itself: a padding token that saw nothing would have no softmax.
    mask = np.broadcast_to(np.eye(width, dtype=bool), (len(rows), width, width)).copy()
    places: list[NDArray[np.int64]] = [np.empty(0, np.int64)] * len(sequences)
    triangle = np.tri(width, dtype=bool)
    stored = 0
    for r, row in enumerate(rows):
        column, path = 0, np.empty(0, np.int64)
        for i, shared in row:
            length = len(sequences[i])
            end = column + length - shared
            own = np.arange(column, end)
            path = np.concatenate([path[:shared], own])
            tokens[r, column:end] = sequences[i][shared:]
            positions[r, column:end] = np.arange(shared, length)
            mask[r, column:end, path[:shared]] = True
            mask[r, column:end, column:end] = triangle[: len(own), : len(own)]
            places[i] = path + r * width
            column = end
        stored += column
    return Layout(
        torch.from_numpy(tokens),
        torch.from_numpy(positions),
        torch.from_numpy(mask[:, None]),
        places,
        stored,
        padded,
    )
