from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.engine.packing import _split_point, pack, pad, split_batch, stored_tokens

# Few different tokens, so that prefixes are really shared; lengths from 1.
sequences = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=9), min_size=1, max_size=9)


def test_pair_stores_prompt_once() -> None:
    """[7 8 9 1 2] and [7 8 9 3]: 3 + 2 + 1 tokens; the second continuation is at position 3."""
    layout = pack([[7, 8, 9, 3], [7, 8, 9, 1, 2]])
    # In sorted order [7 8 9 1 2] comes first.
    assert layout.tokens.tolist() == [[7, 8, 9, 1, 2, 3]]
    assert layout.positions.tolist() == [[0, 1, 2, 3, 4, 3]]
    assert [p.tolist() for p in layout.token_index] == [[0, 1, 2, 5], [0, 1, 2, 3, 4]]
    assert layout.shared_lengths == [3, 0]
    assert layout.stored == 6
    assert layout.attention_mask.tolist() == [[1] * 6]
    assert not layout.padded


def test_prefixes_within_prefixes() -> None:
    """[1 2 3 5] and [1 2 4] share two tokens with [1 2], and [1 6] shares one."""
    layout = pack([[1, 6], [1, 2, 3, 5], [1, 2, 4], [1, 2]])
    assert layout.tokens.tolist() == [[1, 2, 3, 5, 4, 6]]
    assert layout.positions.tolist() == [[0, 1, 2, 3, 2, 1]]
    assert [p.tolist() for p in layout.token_index] == [[0, 5], [0, 1, 2, 3], [0, 1, 4], [0, 1]]
    # [1 2] comes first in sorted order, so it stores its tokens.
    assert layout.shared_lengths == [1, 2, 2, 0]
    assert layout.stored == 6


@given(sequences)
def test_token_index_selects_each_sequence(batch: list[list[int]]) -> None:
    layout = pack(batch)
    tokens, positions = layout.tokens.flatten(), layout.positions.flatten()
    for sequence, place, shared in zip(batch, layout.token_index, layout.shared_lengths, strict=True):
        assert tokens[torch.from_numpy(place)].tolist() == sequence
        assert positions[torch.from_numpy(place)].tolist() == list(range(len(sequence)))
        own = place[shared:].tolist()
        assert own == list(range(own[0], own[0] + len(own))) if own else shared == len(sequence)
    owned = sorted(
        int(p) for place, shared in zip(layout.token_index, layout.shared_lengths, strict=True) for p in place[shared:]
    )
    assert owned == list(range(tokens.numel())), "every token is one sequence's own"


@given(sequences)
def test_stored_tokens_are_distinct_prefixes(batch: list[list[int]]) -> None:
    """Distinct prefixes of the batch = nodes of its tree = tokens stored."""
    nodes = {tuple(s[: k + 1]) for s in batch for k in range(len(s))}
    layout = pack(batch)
    assert layout.stored == layout.tokens.numel() == int(layout.attention_mask.sum()) == len(nodes)
    assert stored_tokens(batch) == len(nodes)


@pytest.mark.parametrize("copies", [1, 2, 7])
def test_duplicates_are_stored_once(copies: int) -> None:
    layout = pack([[5, 6, 7]] * copies)
    assert layout.tokens.tolist() == [[5, 6, 7]]
    assert layout.shared_lengths == [0] + [3] * (copies - 1)
    assert [p.tolist() for p in layout.token_index] == [[0, 1, 2]] * copies


def test_padded_layout_by_hand() -> None:
    layout = pad([[1, 2, 3], [1, 2]])
    assert layout.padded
    assert layout.tokens.tolist() == [[1, 2, 3], [1, 2, 0]]
    assert layout.positions.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert layout.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert [p.tolist() for p in layout.token_index] == [[0, 1, 2], [3, 4]]
    assert layout.stored == 5


@given(sequences)
def test_padded_layout_shares_nothing(batch: list[list[int]]) -> None:
    layout = pad(batch)
    assert layout.tokens.shape == (len(batch), max(map(len, batch)))
    assert layout.stored == int(layout.attention_mask.sum()) == sum(map(len, batch))
    for row, (sequence, place) in enumerate(zip(batch, layout.token_index, strict=True)):
        assert layout.tokens.flatten()[torch.from_numpy(place)].tolist() == sequence
        assert layout.attention_mask[row].tolist() == [1] * len(sequence) + [0] * (
            layout.tokens.shape[1] - len(sequence)
        )


# --- splitting a batch into micro-batches ----------------------------------------------------------------------------


def padded_size(sequences: Sequence[Sequence[int]]) -> int:
    return len(sequences) * max(map(len, sequences))


@pytest.mark.parametrize("size", [stored_tokens, padded_size])
@given(batch=sequences, limit=st.integers(1, 40))
def test_micro_batches_are_consecutive_and_within_budget(batch: list[list[int]], limit: int, size: object) -> None:
    parts = split_batch(batch, limit, size)  # type: ignore[arg-type]
    assert [i for part in parts for i in part] == list(range(len(batch)))
    for part in parts:
        assert part
        assert len(part) == 1 or size([batch[i] for i in part]) <= limit  # type: ignore[operator]


@given(sequences)
def test_batch_that_fits_is_not_split(batch: list[list[int]]) -> None:
    assert len(split_batch(batch, stored_tokens(batch), stored_tokens)) == 1


def test_pairs_and_groups_stay_together() -> None:
    """Pairs of 5 + 1 + 1 tokens: 27 hold three of them and one half; groups of 4 + 4 x 1: 21 hold two and a half."""
    pairs = [[n, n, n, n, n, end] for n in range(2, 9) for end in (0, 1)]
    assert [len(part) for part in split_batch(pairs, 27, stored_tokens)] == [6, 6, 2]
    groups = [[n, n, n, n, end] for n in range(10, 14) for end in range(4)]
    assert [len(part) for part in split_batch(groups, 21, stored_tokens)] == [8, 8]
    assert [len(part) for part in split_batch(groups, 6, stored_tokens)] == [2] * 8, "a group above the limit"


def test_split_point_is_last_with_short_shared_prefix() -> None:
    """Five of six fit, so three to five may be taken. Splits after 5, 4 and 3 separate neighbours that share 5, 1 and 0
    tokens: (0 + 5) / 2 = 2.5 allows 4 and 3, and 4 is the larger, though a split after 3 would repeat less.
    """
    batch = [[9] * 6, [9] * 6, [9] * 6, [1, 2, 2, 2, 2, 2], [1, 3, 3, 3, 3, 3], [1, 3, 3, 3, 3, 4]]
    assert _split_point(batch, 5) == 4
    assert _split_point([[7, 1], [7, 2], [7, 3], [7, 4], [7, 5]], 4) == 4, "all neighbours share alike"
    assert _split_point([[1], [1]], 1) == 1
