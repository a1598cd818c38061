from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.engine.packing import pack

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
