r"""Pack the sequences of a batch into one row without padding, and store each shared prefix once.

The hidden states of a prefix do not depend on what follows it, so sequences that begin alike can share them. In
lexicographic order the longest prefix that a sequence shares with any earlier sequence is the one that it shares with
the sequence directly before it. Each sequence therefore stores only the tokens after that prefix. Positions restart at
every sequence, and each token attends only to the tokens before it in its own sequence::

    stored   Q : 1 + 2 A : 3 <eos> | 4 <eos>
    position 0 1 2 3 4 5 6 7 8     | 7 8
             prompt and chosen      rejected

The result is exact: each packed sequence has the hidden states that it would have alone. Attention over the packed row
is in :mod:`mint_lab.engine.attention`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["Layout", "pack", "pad", "split_batch", "stored_tokens"]


@dataclass(frozen=True)
class Layout:
    """A batch as the backbone receives it.

    Attributes:
        tokens: Token ids, int64: ``(1, stored)`` if packed, ``(sequences, longest)`` if padded.
        positions: Position of each token in its own sequence, int64, of the shape of ``tokens``.
        token_index: For each sequence, ``(N_i,)`` int64: the indices of all its tokens, shared prefix included and in
            order, in the flattened ``tokens``.
        shared_lengths: For each sequence, the number of its tokens that an earlier sequence already stores. The
            remaining tokens are stored by the sequence itself, contiguously.
        padded: True if each sequence has a separate row that starts at column 0, and attention is the family's own.
    """

    tokens: torch.Tensor
    positions: torch.Tensor
    token_index: list[NDArray[np.int64]]
    shared_lengths: list[int]
    padded: bool

    @property
    def stored(self) -> int:
        """The number of stored tokens; padding, which the backbone also computes, is not counted."""
        return sum(len(index) - shared for index, shared in zip(self.token_index, self.shared_lengths, strict=True))

    @property
    def attention_mask(self) -> torch.Tensor:
        """1 at every stored token and 0 at padding, int64, of the shape of ``tokens``."""
        mask = torch.zeros(self.tokens.numel(), dtype=torch.int64)
        mask[torch.from_numpy(np.concatenate(self.token_index))] = 1
        return mask.view_as(self.tokens)


def pack(sequences: Sequence[Sequence[int]]) -> Layout:
    """Pack ``sequences`` (token ids, each of length at least 1) end to end and store each shared prefix once."""
    token_index: list[NDArray[np.int64]] = [np.empty(0, np.int64)] * len(sequences)
    shared_lengths = [0] * len(sequences)
    tokens: list[int] = []
    positions: list[NDArray[np.int64]] = []
    previous = np.empty(0, np.int64)  # token_index of the sequence before, in sorted order
    for i, shared in _sorted_with_prefix(sequences):
        suffix = sequences[i][shared:]
        new = np.arange(len(tokens), len(tokens) + len(suffix))
        previous = np.concatenate([previous[:shared], new])  # (N_i,)
        token_index[i], shared_lengths[i] = previous, shared
        tokens.extend(suffix)
        positions.append(np.arange(shared, len(previous)))  # of the suffix, in its own sequence
    return Layout(
        torch.tensor([tokens], dtype=torch.int64),  # (1, stored)
        torch.from_numpy(np.concatenate(positions))[None],  # (1, stored)
        token_index,
        shared_lengths,
        padded=False,
    )


def pad(sequences: Sequence[Sequence[int]]) -> Layout:
    """Lay out ``sequences`` one a row, padded at the end, for families whose attention cannot run on a packed row."""
    width = max(map(len, sequences))
    tokens = np.zeros((len(sequences), width), dtype=np.int64)  # 0 as padding: any token, since it is masked
    token_index: list[NDArray[np.int64]] = []
    for row, sequence in enumerate(sequences):
        tokens[row, : len(sequence)] = sequence
        token_index.append(np.arange(row * width, row * width + len(sequence)))
    positions = torch.arange(width).expand(len(sequences), width)
    return Layout(torch.from_numpy(tokens), positions, token_index, [0] * len(sequences), padded=True)


def stored_tokens(sequences: Sequence[Sequence[int]]) -> int:
    """Return the number of tokens that :func:`pack` would store, without building the layout."""
    return sum(len(sequences[i]) - shared for i, shared in _sorted_with_prefix(sequences))


def split_batch(
    sequences: Sequence[Sequence[int]], max_tokens: int, size: Callable[[Sequence[Sequence[int]]], int]
) -> list[list[int]]:
    """Split a batch into micro-batches of consecutive sequences whose ``size`` is at most ``max_tokens``.

    A micro-batch first takes as many sequences as fit. If others remain, its end then moves back, past less than half
    of those taken, to a boundary where the two neighbours share a short prefix (:func:`_split_point` has the rule). So
    pairs and groups, which share a long prompt, stay together if they fit. A prefix shared across a boundary is
    computed twice.

    Args:
        sequences: Token ids of each sequence.
        max_tokens: Token budget of a micro-batch. A single sequence that exceeds it is a micro-batch by itself.
        size: Returns the number of tokens that some sequences take together.

    Returns:
        The indices of the sequences in each micro-batch.
    """
    micro_batches: list[list[int]] = []
    start = 0
    while start < len(sequences):
        remaining = sequences[start:]
        count = _count_that_fits(remaining, max_tokens, size)
        if count < len(remaining):
            count = _split_point(remaining, count)
        micro_batches.append(list(range(start, start + count)))
        start += count
    return micro_batches


def _sorted_with_prefix(sequences: Sequence[Sequence[int]]) -> list[tuple[int, int]]:
    """Return, in lexicographic order, each sequence's index and the length of the prefix shared with the one before."""
    order = sorted(range(len(sequences)), key=lambda i: list(sequences[i]))
    shared = [0, *(_common_prefix(sequences[a], sequences[b]) for a, b in pairwise(order))]
    return list(zip(order, shared, strict=True))


def _common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    length = min(len(a), len(b))
    if a[:length] == b[:length]:  # the slices compare in C, and equal prompts are the usual case
        return length
    return next(k for k in range(length) if a[k] != b[k])


def _count_that_fits(
    sequences: Sequence[Sequence[int]], max_tokens: int, size: Callable[[Sequence[Sequence[int]]], int]
) -> int:
    """Return how many of the first sequences fit into ``max_tokens``, at least 1, by doubling and then bisection."""
    low, high = 1, 2  # ``low`` sequences fit (or are the minimum of 1); ``high`` may not
    while high <= len(sequences) and size(sequences[:high]) <= max_tokens:
        low, high = high, 2 * high
    high = min(high, len(sequences) + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(sequences[:middle]) <= max_tokens else (low, middle)
    return low


def _split_point(sequences: Sequence[Sequence[int]], count: int) -> int:
    """Return after how many of the first ``count`` sequences to split: at most ``count``, and more than half of it.

    A split after ``k`` sequences separates neighbours that share ``s_k`` tokens. The result is the largest ``k`` in
    that range whose ``s_k`` is at most ``(min s + max s) / 2``, with both taken over the range.
    """
    candidates = range(count, count // 2, -1)
    shared = [_common_prefix(sequences[k - 1], sequences[k]) for k in candidates]
    return next(k for k, s in zip(candidates, shared, strict=True) if 2 * s <= min(shared) + max(shared))
