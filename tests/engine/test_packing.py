from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.engine.packing import cut, grid_tokens, pack

# Few different tokens, so that prefixes are really shared; lengths from 1.
sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=9)


def test_a_pair_stores_its_prompt_once_by_hand() -> None:
    """[7 8 9 1 2] and [7 8 9 3]: 3 + 2 + 1 tokens; the second continuation is at position 3 and sees columns 0-2."""
    layout = pack([[7, 8, 9, 1, 2], [7, 8, 9, 3]], 16)
    assert layout.stored == 6
    # In sorted order [7 8 9 1 2] comes first.
    assert layout.tokens.tolist() == [[7, 8, 9, 1, 2, 3]]
    assert layout.positions.tolist() == [[0, 1, 2, 3, 4, 3]]
    assert layout.mask[0, 0, 5].tolist() == [True, True, True, False, False, True]
    assert [p.tolist() for p in layout.places] == [[0, 1, 2, 3, 4], [0, 1, 2, 5]]


@given(sequences, st.integers(1, 24), st.booleans())
def test_every_token_sees_exactly_its_own_sequence(batch: list[list[int]], row: int, share: bool) -> None:
    layout = pack(batch, row, share=share)
    rows, width = layout.tokens.shape
    for sequence, place in zip(batch, layout.places, strict=True):
        assert layout.tokens.flatten()[torch.from_numpy(place)].tolist() == sequence
        assert layout.positions.flatten()[torch.from_numpy(place)].tolist() == list(range(len(sequence)))
        assert len({int(p) // width for p in place}) == 1, "a sequence stays in one row"
        for k, spot in enumerate(place):
            r, column = divmod(int(spot), width)
            seen = np.flatnonzero(layout.mask[r, 0, column].numpy()) + r * width
            assert seen.tolist() == sorted(place[: k + 1].tolist())
    assert layout.mask.shape == (rows, 1, width, width)
    assert bool(layout.mask.any(-1).all()), "every query sees something, or softmax has no value"


@given(sequences, st.integers(1, 24))
def test_rows_keep_to_the_budget_and_nothing_is_stored_twice_without_need(batch: list[list[int]], row: int) -> None:
    layout = pack(batch, row)
    assert layout.tokens.shape[1] <= max(row, *map(len, batch))
    assert layout.stored <= sum(map(len, batch))
    assert int(layout.present.sum()) == layout.stored


def test_with_room_for_all_the_batch_is_its_prefix_tree() -> None:
    """Distinct prefixes of the batch = nodes of its tree = tokens stored, where one row holds everything."""
    batch = [[1, 1, 1], [1, 1, 2], [1, 2], [1, 1, 1, 4], [2]]
    nodes = {tuple(s[: k + 1]) for s in batch for k in range(len(s))}
    assert pack(batch, 100).stored == len(nodes) == 7


def test_without_sharing_every_sequence_has_its_row() -> None:
    layout = pack([[1, 2, 3], [1, 2]], 100, share=False)
    assert layout.padded
    assert layout.present.tolist() == [[1, 1, 1], [1, 1, 0]]


@pytest.mark.parametrize("copies", [1, 2, 7])
def test_duplicates_cost_nothing(copies: int) -> None:
    assert pack([[5, 6, 7]] * copies, 100).stored == 3


# --- cutting a batch into parts --------------------------------------------------------------------------------------


def size(sequences: Sequence[Sequence[int]]) -> int:
    return grid_tokens(sequences, 16)


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=12),
    st.integers(1, 40),
)
def test_parts_are_consecutive_and_within_the_limit(sequences: list[list[int]], limit: int) -> None:
    parts = cut(sequences, limit, size)
    assert [i for part in parts for i in part] == list(range(len(sequences)))
    for part in parts:
        assert part
        assert len(part) == 1 or size([sequences[i] for i in part]) <= limit


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=12), st.booleans())
def test_the_size_is_known_before_packing(sequences: list[list[int]], share: bool) -> None:
    assert grid_tokens(sequences, 16, share=share) == pack(sequences, 16, share=share).tokens.numel()


def test_pairs_and_groups_stay_together() -> None:
    """Pairs of 5 + 1 + 1 tokens: 24 hold three of them and one half; groups of 4 + 4 x 1: 20 hold two and a half."""
    pairs = [[n, n, n, n, n, end] for n in range(2, 9) for end in (0, 1)]
    assert [len(part) for part in cut(pairs, 27, lambda s: grid_tokens(s, 64))] == [6, 6, 2]
    groups = [[n, n, n, n, end] for n in range(10, 14) for end in range(4)]
    assert [len(part) for part in cut(groups, 21, lambda s: grid_tokens(s, 64))] == [8, 8]
    assert [len(part) for part in cut(groups, 6, lambda s: grid_tokens(s, 64))] == [2] * 8, "a group above the limit"
