"""Rows of every shape become a prompt and a completion, or are told what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mint_lab.data import Pair, load_completions
from mint_lab.errors import DataError

ASKED = {"role": "user", "content": "2+2?"}
ANSWERED = {"role": "assistant", "content": "4"}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "2+2?", "completion": " 4"}, ("2+2?", " 4")),
        ({"prompt": "2+2?", "response": " 4", "source": "x"}, ("2+2?", " 4")),
        ({"question": "2+2?", "answer": "4"}, ("Question: 2+2?\nAnswer:", " 4")),
        ({"messages": [ASKED, ANSWERED]}, ([ASKED], "4")),
        ({"prompt": [ASKED], "completion": [ANSWERED]}, ([ASKED], "4")),
        ({"prompt": "2+2?", "completion": [ANSWERED]}, ([ASKED], "4")),
        ({"prompt": [ASKED], "completion": "4"}, ([ASKED], "4")),
        (("2+2?", " 4"), ("2+2?", " 4")),
        (([ASKED], "4"), ([ASKED], "4")),
        (Pair("2+2?", " 4", " 5"), Pair("2+2?", " 4", " 5")),
        ({"prompt": "2+2?", "chosen": " 4", "rejected": " 5"}, Pair("2+2?", " 4", " 5")),
    ],
)
def test_shapes(row: Any, expected: Any) -> None:
    assert load_completions([row]) == [expected]


@pytest.mark.parametrize("columns", [("prompt", "completion"), ("prompt", "response"), ("question", "answer"), None])
def test_files_frames_and_lists_are_read_alike(tmp_path: Path, columns: tuple[str, str] | None) -> None:
    rows: list[dict[str, Any]] = [
        {"messages": [ASKED, ANSWERED]} if columns is None else {columns[0]: f"{n}+1", columns[1]: str(n + 1)}
        for n in range(5)
    ]
    expected = load_completions(rows)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    frame = pd.DataFrame(rows)
    frame.to_parquet(tmp_path / "rows.parquet")
    assert load_completions(str(tmp_path / "rows.jsonl")) == expected
    assert load_completions(tmp_path / "rows.parquet") == expected
    assert load_completions(frame) == expected
    assert load_completions(row for row in rows) == expected


@pytest.mark.parametrize(
    ("row", "message", "field"),
    [
        ({"text": "x", "label": 1}, "columns 'text', 'label'; .* expected 'messages', 'prompt' and 'completion'", None),
        ({}, "columns none", None),
        ("text", "found str, expected a row with named columns", None),
        ({"prompt": "a", "completion": ""}, "empty", "completion"),
        ({"prompt": "a", "completion": None}, r"nothing \(None\)", "completion"),
        ({"prompt": 3, "completion": "b"}, "found int", "prompt"),
        ({"question": ["a"], "answer": "b"}, "found list", "question"),
        ({"messages": []}, "an empty list", "messages"),
        ({"messages": "hi"}, "found text", "messages"),
        ({"messages": [ANSWERED]}, "at least two", "messages"),
        ({"messages": [ASKED, ANSWERED, ASKED]}, "the last is the assistant's", "messages"),
        ({"messages": [ASKED, {"role": "assistant", "content": ""}]}, "not empty", "messages"),
        ({"messages": [ASKED, {"role": "assistant"}]}, "expected text or chat messages", "messages"),
    ],
)
def test_a_row_of_no_shape_is_named(row: Any, message: str, field: str | None) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_completions([("a", "b"), row])
    assert (caught.value.index, caught.value.field) == (1, field)


def test_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "none.jsonl"
    path.touch()
    for source in ([], path):
        with pytest.raises(DataError, match="empty"):
            load_completions(source)
