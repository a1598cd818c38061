"""Labelled completions: the formats of rows, labels that are none, and their datums."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.data import Pair, Rows, load_completions, load_pairs, pairs_to_data, unpaired_to_data
from mint_lab.data.chats import Chat
from mint_lab.data.unpaired import LabelledRow, label_of, render_unpaired
from mint_lab.errors import ConfigError, DataError
from mint_lab.types import Datum

from ..runs.bigram import CharTokenizer

ROWS = [
    {"prompt": "a:", "completion": "yes", "label": True},
    {"prompt": "b:", "completion": "no", "label": False},
    {"prompt": "c:", "completion": "ja", "label": True},
]
PAIR = Pair("d:", "good", "bad")


def texts(data: list[Datum]) -> list[tuple[str, int]]:
    """The weighted targets of each datum as text, and its label."""
    found = []
    for datum in data:
        fields = {name: value.to_numpy() for name, value in datum.loss_fn_inputs.items()}
        assert fields["label"].shape == (1,)
        assert fields["label"].dtype == np.int64
        targets = fields["target_tokens"][fields["weights"] > 0]
        found.append(("".join(map(chr, targets.tolist())), int(fields["label"][0])))
    return found


def judged(rows: Any) -> list[tuple[str, int]]:
    return texts(unpaired_to_data(rows, CharTokenizer()))


EXPECTED = [("yes\0", 1), ("no\0", 0), ("ja\0", 1)]


def test_rows_from_every_source(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    frame = pd.DataFrame(ROWS)
    frame.to_parquet(tmp_path / "rows.parquet")
    for source in (
        ROWS,
        iter(ROWS),
        path,
        str(path),
        frame,
        tmp_path / "rows.parquet",
        datasets.Dataset.from_list(ROWS),
    ):
        assert judged(source) == EXPECTED


def test_other_columns_of_a_completion() -> None:
    rows = [
        {"prompt": "a:", "response": "yes", "label": 1},
        {"question": "2+2", "answer": "4", "label": 0},
    ]
    assert judged(rows) == [("yes\0", 1), (" 4\0", 0)]


def test_pairs_become_two_completions() -> None:
    """As TRL's ``unpair_preference_dataset``, but with the two sides of a pair next to each other."""
    row = {"prompt": "d:", "chosen": "good", "rejected": "bad"}
    for pair in (PAIR, row, {**row, "label": False}):  # a pair says itself which side is desirable
        assert judged([*ROWS[:1], pair]) == [("yes\0", 1), ("good\0", 1), ("bad\0", 0)]
    sides = pairs_to_data([PAIR], CharTokenizer())
    assert [d.model_input for d in unpaired_to_data([PAIR], CharTokenizer())] == [d.model_input for d in sides]


def test_chats_keep_the_columns_of_their_row() -> None:
    tokenizer, seen = CharTokenizer(), []

    def rendered(messages: Any, *, add_generation_prompt: bool, **given: Any) -> str:
        seen.append(given.get("tools"))
        turns = "".join(f"<{m['role'][0]}>{m['content']}\0" for m in messages)
        return turns + ("<a>" if add_generation_prompt else "")

    tokenizer.chat_template = "a template"  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.apply_chat_template = rendered  # pyright: ignore[reportAttributeAccessIssue]
    user, answer = {"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}
    tools = [{"type": "function", "function": {"name": "look"}}]
    rows = [
        {"messages": [user, answer], "label": False, "tools": tools},
        {"prompt": [user], "completion": [answer], "label": True},
        {"conversations": [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}], "label": True},
    ]
    assert texts(unpaired_to_data(rows, tokenizer)) == [("hello\0", 0), ("hello\0", 1), ("hello\0", 1)]
    assert tools in seen
    assert isinstance(load_completions(rows[1:])[0][0], Chat)  # type: ignore[index]  # the same rows, read by sft


@pytest.mark.parametrize(
    ("value", "label"),
    [
        *((True, True), (False, False), (1, True), (0, False)),
        *((np.True_, True), (np.False_, False), (np.int8(1), True), (np.uint64(0), False)),
    ],
)
def test_labels(value: Any, label: bool) -> None:
    assert label_of(value) is label


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ("good", "'good'"),
        ("1", "'1'"),
        (None, r"nothing \(None\)"),
        (float("nan"), r"nothing \(None\)"),
        (np.float32("nan"), r"nothing \(None\)"),
        (0.5, r"0\.5"),
        (1.0, r"1\.0"),
        (np.float64(0.0), r"0\.0"),
        (2, "2"),
        (-1, "-1"),
        (np.int64(7), "7"),
        (10**400, "1000"),
        ([True], "list"),
        (np.array([1]), "ndarray"),
        (pd.NA, "NAType"),
    ],
)
def test_labels_that_are_none(value: Any, found: str) -> None:
    words = rf"found {found}.*, expected True \(desirable\) or False \(undesirable\), or 1 or 0"
    with pytest.raises(DataError, match=words) as caught:
        judged([*ROWS, {**ROWS[0], "label": value}])
    assert (caught.value.index, caught.value.field) == (3, "label")


@pytest.mark.parametrize(
    ("row", "field", "words"),
    [
        (
            {"prompt": "a:", "completion": "b"},
            "label",
            r"columns 'prompt', 'completion'; expected 'label' \(True: desir",
        ),
        ({}, "label", "columns none; expected 'label'"),
        (
            {"text": "a", "label": 1},
            None,
            "columns 'text', 'label', expected for unpaired preferences, beside 'label',",
        ),
        ({"prompt": "a:", "completion": "", "label": 1}, "completion", "empty, expected at least one character"),
        ({"prompt": "a:", "completion": None, "label": 1}, "completion", r"nothing \(None\)"),
        ({"messages": "hi", "label": 1}, "messages", "found text, expected chat messages"),
        ({"chosen": "a", "rejected": 3}, "rejected", "found int"),
        (("a:", "b"), None, "found tuple, expected a row with named columns, or a Pair"),
        (3, None, "found int, expected a row with named columns, or a Pair"),
    ],
)
def test_rows_that_cannot_be_used(row: Any, field: str | None, words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        judged([*ROWS, row])
    assert (caught.value.index, caught.value.field) == (3, field)


def test_no_rows_and_no_tokenizer() -> None:
    with pytest.raises(DataError, match="is empty, expected at least one row"):
        judged([])
    with pytest.raises(ConfigError, match="the tokenizer is 'gpt2', expected a transformers tokenizer"):
        unpaired_to_data(ROWS, "gpt2")


def test_bad_rows_are_skipped_and_counted() -> None:
    given = Rows([ROWS[0], {**ROWS[0], "label": "good"}, {"prompt": "a:"}, ROWS[1]], on_bad_row="skip")
    with pytest.warns(UserWarning, match=r"2 of 4 rows were left out: label: found 'good', expected .* \(row 1\); "):
        data = unpaired_to_data(given, CharTokenizer())
    assert texts(data) == EXPECTED[:2]
    assert texts(unpaired_to_data(Rows(ROWS, max_rows=2), CharTokenizer())) == EXPECTED[:2]


def test_long_rows_are_named() -> None:
    """Room for 5 tokens: "xx:" loses one beside "ab" with its end; both sides of the pair lose the same ones."""
    rows = [*ROWS[1:], {"prompt": "xx:", "completion": "ab", "label": 1}, Pair("xx:", "abc", "d")]
    told = r"truncated to 5 tokens: 2 of 4 prompts lost their beginning|lost their beginning \(rows 2 and 3\)$"
    with pytest.warns(UserWarning, match=told):
        data = unpaired_to_data(rows, CharTokenizer(), max_length=5)
    assert [d.model_input.length for d in data] == [4, 4, 4, 4, 2]


def test_other_recipes_point_here() -> None:
    with pytest.raises(DataError, match=r"no column 'chosen' and 'rejected'.* are for recipe='unpaired'"):
        load_pairs(ROWS)
    with pytest.raises(DataError, match=r"leave the row out, or learn from .* recipe='unpaired'"):
        load_completions(ROWS)


@given(labels=st.lists(st.booleans(), min_size=1, max_size=8))
def test_every_label_reaches_its_datum(labels: list[bool]) -> None:
    rows = [{"prompt": f"{i}:", "completion": "x" * (i + 1), "label": label} for i, label in enumerate(labels)]
    found = render_unpaired(Rows(rows), CharTokenizer())
    assert [row.index for row in found] == list(range(len(labels)))
    assert all(isinstance(row, LabelledRow) for row in found)
    assert judged(rows) == [("x" * (i + 1) + "\0", int(label)) for i, label in enumerate(labels)]
