"""Rows of every format become a prompt and a completion; errors name the row and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from mint_lab.data import Pair, load_completions
from mint_lab.errors import DataError

QUESTION = {"role": "user", "content": "2+2?"}
ANSWER = {"role": "assistant", "content": "4"}


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"prompt": "2+2?", "completion": " 4"}, ("2+2?", " 4")),
        ({"prompt": "2+2?", "response": " 4", "source": "x"}, ("2+2?", " 4")),
        ({"question": "2+2?", "answer": "4"}, ("Question: 2+2?\nAnswer:", " 4")),
        ({"messages": [QUESTION, ANSWER]}, ([QUESTION], "4")),
        ({"prompt": [QUESTION], "completion": [ANSWER]}, ([QUESTION], "4")),
        ({"prompt": "2+2?", "completion": [ANSWER]}, ([QUESTION], "4")),
        ({"prompt": [QUESTION], "completion": "4"}, ([QUESTION], "4")),
        (("2+2?", " 4"), ("2+2?", " 4")),
        (([QUESTION], "4"), ([QUESTION], "4")),
        (Pair("2+2?", " 4", " 5"), Pair("2+2?", " 4", " 5")),
        ({"prompt": "2+2?", "chosen": " 4", "rejected": " 5"}, Pair("2+2?", " 4", " 5")),
    ],
)
def test_formats(row: Any, expected: Any) -> None:
    assert load_completions([row]) == [expected]


@pytest.mark.parametrize("columns", [("prompt", "completion"), ("prompt", "response"), ("question", "answer"), None])
def test_every_source_gives_the_same_completions(tmp_path: Path, columns: tuple[str, str] | None) -> None:
    rows: list[dict[str, Any]] = [
        {"messages": [QUESTION, ANSWER]} if columns is None else {columns[0]: f"{n}+1", columns[1]: str(n + 1)}
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
        ({"text": "x", "label": 1}, "columns 'text', 'label', expected .* 'messages', 'prompt' and 'completion'", None),
        ({}, "columns none", None),
        ("text", "found str, expected a row with named columns", None),
        ({"prompt": "a", "completion": ""}, "empty", "completion"),
        ({"prompt": "a", "completion": None}, r"nothing \(None\)", "completion"),
        ({"prompt": 3, "completion": "b"}, "found int", "prompt"),
        ({"question": ["a"], "answer": "b"}, "found list", "question"),
        ({"messages": []}, "an empty list", "messages"),
        ({"messages": "hi"}, "found text", "messages"),
        ({"messages": [ANSWER]}, "at least two", "messages"),
        ({"messages": [QUESTION, ANSWER, QUESTION]}, "the last must be the assistant's", "messages"),
        ({"messages": [QUESTION, {"role": "assistant", "content": ""}]}, "not empty", "messages"),
        ({"messages": [QUESTION, {"role": "assistant"}]}, "expected text or chat messages", "messages"),
    ],
)
def test_error_names_the_bad_row(row: Any, message: str, field: str | None) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_completions([("a", "b"), row])
    assert (caught.value.index, caught.value.field) == (1, field)


def test_empty_sources_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "none.jsonl"
    path.touch()
    for source in ([], path):
        with pytest.raises(DataError, match="empty"):
            load_completions(source)
