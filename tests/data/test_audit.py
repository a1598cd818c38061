"""Numbers about prepared data, by hand: lengths, weights, end tokens, repeats, histograms."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.data import to_datum
from mint_lab.data.audit import (
    DataItem,
    DataView,
    SequenceTable,
    TokenMarks,
    count_lengths,
    item_of_prompt,
    items_of_datums,
    noteworthy,
    repeats_of,
    token_key,
)
from mint_lab.data.render import RowFacts
from mint_lab.types import Datum, ModelInput, TensorData

END, BLANK = 0, 10
MARKS = TokenMarks(frozenset({END}), begin=1, unknown=2, is_blank=lambda token: token == BLANK)


def example(tokens: list[int], weights: list[float], **facts: Any) -> DataItem:
    """One completion; ``facts`` are those of the row."""
    row = RowFacts(**{"row": 0, "prompt_length": 1, **facts})
    return DataItem(row, False, ("completion",), (np.array(tokens),), (np.array(weights, dtype=np.float32),))


def table(*items: DataItem) -> SequenceTable:
    return SequenceTable(DataView("completion", items), MARKS)


def test_datums_become_items_with_their_weights() -> None:
    """Tokens 5 6 | 7 0 and 5 6 | 8 0: position 0 has no weight, because nothing predicts it."""
    data = [to_datum([5, 6, 7, 0], 2), to_datum([5, 6, 8, 0], 2)]
    [item] = items_of_datums(data, 2, [RowFacts(9, 2)], held_out=True)
    assert (item.facts.row, item.held_out, item.sides) == (9, True, ("chosen", "rejected"))
    assert [tokens.tolist() for tokens in item.tokens] == [[5, 6, 7, 0], [5, 6, 8, 0]]
    assert [weights.tolist() for weights in item.weights] == [[0, 0, 1, 1]] * 2
    [first, second] = items_of_datums(data, 1, None, held_out=False)
    assert (first.facts, second.facts) == (RowFacts(0, 2), RowFacts(1, 2)), "positions, and tokens before a weight"


def test_datum_without_weights_and_with_soft_targets() -> None:
    """Without weights every target counts. Of soft targets (N, 2) the first is shown; a position counts if one does."""
    plain = Datum(
        model_input=ModelInput.from_ints([4, 5]),
        loss_fn_inputs={"target_tokens": TensorData.from_numpy(np.array([5, 6]))},
    )
    soft = Datum(
        model_input=ModelInput.from_ints([4, 5]),
        loss_fn_inputs={
            "target_tokens": TensorData.from_numpy(np.array([[5, 7], [6, 8]])),
            "weights": TensorData.from_numpy(np.array([[0.0, 0.0], [0.75, 0.25]], dtype=np.float32)),
        },
    )
    [one, other] = items_of_datums([plain, soft], 1, None, held_out=False)
    assert (one.tokens[0].tolist(), one.weights[0].tolist()) == ([4, 5, 6], [0, 1, 1])
    assert (other.tokens[0].tolist(), other.weights[0].tolist()) == ([4, 5, 6], [0, 0, 1])


def test_columns_by_hand() -> None:
    """Two completions: 1 1 | 5 0 ends; 3 | 2 2 5, truncated by 4 tokens, does not and has two unknown tokens."""
    lost = example([3, 2, 2, 5], [0, 1, 1, 1], row=7, lost_ends=(4,), lost_beginning=2)
    found = table(example([1, 1, 5, 0], [0, 0, 1, 1], row=3, prompt_length=2), lost)
    assert found.row.tolist() == [3, 7]
    assert (found.length.tolist(), found.prompt.tolist(), found.completion.tolist()) == ([4, 4], [2, 1], [2, 3])
    assert (found.trained.tolist(), found.ends.tolist(), found.lost_end.tolist()) == ([2, 3], [True, False], [0, 4])
    assert (found.doubled_begin.tolist(), found.unknown.tolist()) == ([True, False], [0, 2])
    frame = found.frame()
    assert frame["side"].tolist() == ["completion"] * 2
    assert frame["lost_beginning"].tolist() == [0, 2]
    assert frame["repeats"].isna().all()


@pytest.mark.parametrize(
    ("tokens", "weights", "ends"),
    [
        ([5, 6, END], [0, 1, 1], True),
        ([5, 6, END], [0, 1, 0], False),  # the end token is there and not trained
        ([5, 6, END, BLANK], [0, 1, 1, 1], True),  # a template writes a line break after it
        ([5, 6, BLANK], [0, 1, 1], False),
        ([5, END, 6], [0, 1, 1], False),
        ([5, BLANK], [0, 1], False),
        ([5, 6], [0, 0], False),
    ],
)
def test_last_trained_token_decides_how_a_sequence_ends(tokens: list[int], weights: list[float], ends: bool) -> None:
    assert table(example(tokens, weights)).ends.tolist() == [ends]


def test_repeats_name_the_first_row() -> None:
    items = [example([5, 6], [0, 1], row=row) for row in (4, 5, 9)]
    items[1] = example([5, 7], [0, 1], row=5)
    assert repeats_of(items) == {2: 4}
    assert token_key(items[0]) == token_key(items[2]) != token_key(items[1])
    assert table(*items).frame()["repeats"].tolist()[2] == 4


def test_histogram_by_hand() -> None:
    """Lengths 3, 4, 4 and 12 fit in ten bins of width 1 that begin at 3."""
    found = count_lengths("tokens", np.array([3, 4, 4, 12]), 9)
    assert (found.start, found.width, found.longest, found.limit) == (3, 1, 12, 9)
    assert found.counts == (1, 2, 0, 0, 0, 0, 0, 0, 0, 1)
    wide = count_lengths("tokens", np.array([7, 399]))
    assert (wide.start, wide.width, len(wide.counts)) == (0, 10, 40)


@pytest.mark.parametrize(("longest", "width", "bins"), [(39, 1, 40), (40, 2, 21), (79, 2, 40), (80, 5, 17)])
def test_a_histogram_has_40_bins_at_most(longest: int, width: int, bins: int) -> None:
    found = count_lengths("tokens", np.array([0, longest]))
    assert (found.width, len(found.counts)) == (width, bins)


@given(st.lists(st.integers(1, 100_000), min_size=1, max_size=50))
def test_histogram_counts_each_length_once(lengths: list[int]) -> None:
    found = count_lengths("tokens", np.array(lengths))
    assert len(found.counts) <= 40
    assert sum(found.counts) == len(lengths)
    for number, count in enumerate(found.counts):
        low = found.start + number * found.width
        assert count == sum(low <= length < low + found.width for length in lengths)


def test_noteworthy_items_are_named_once() -> None:
    items = [
        example([5, 6, 0], [0, 1, 1]),
        example([5, 6, 6, 6, 6], [0, 1, 1, 1, 1], lost_ends=(3,)),
        example([5, 6, 0], [0, 0, 0]),
        example([5, 6], [0, 1]),
        example([5, 6], [0, 1]),
    ]
    assert noteworthy(table(*items)) == [
        (0, "first"),
        (1, "longest, completion lost its end"),
        (2, "no token is trained"),
        (3, "no end token"),
    ]
    prompts = [item_of_prompt([5, 6], 0, held_out=False), item_of_prompt([5, 6, 7], 1, held_out=True)]
    assert noteworthy(SequenceTable(DataView("prompt", prompts), MARKS)) == [(0, "first"), (1, "longest")]


def test_marks_of_a_tokenizer(tokenizer: Any) -> None:
    marks = TokenMarks.of(tokenizer, frozenset({tokenizer.eos_token_id}))
    [line_break], [letter] = tokenizer.encode("\n"), tokenizer.encode("x")
    assert (marks.is_blank(line_break), marks.is_blank(letter)) == (True, False)
    assert (marks.begin, marks.unknown) == (None, None)


def test_the_unknown_token_of_a_tokenizer_is_no_end_token(tokenizer: Any) -> None:
    """GPT-2's tokenizer has one token for both; every complete sequence would have an unknown token."""
    known = copy.deepcopy(tokenizer)  # the fixture belongs to all tests
    known.unk_token, known.bos_token = "<|end|>", "<|user|>"
    end, start = tokenizer.convert_tokens_to_ids(["<|end|>", "<|user|>"])
    marks = TokenMarks.of(known, frozenset({end}))
    assert (marks.begin, marks.unknown) == (start, None)
    assert TokenMarks.of(known, frozenset({start})).unknown == end
