"""Rows from files and from memory, and the sources that are refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.data.sources import rows
from mint_lab.errors import DataError

ROWS = [{"prompt": "Say hi.", "answer": " Hi!"}, {"prompt": "And bye.", "answer": " Bye!"}]
CELLS = st.one_of(st.text(), st.integers(), st.lists(st.integers()), st.none())


def written(folder: Path, name: str) -> Path:
    """Write ``ROWS`` to a file in the format of its name."""
    path, text = folder / name, "".join(json.dumps(row) + "\n" for row in ROWS)
    if name.endswith(".gz"):
        path.write_bytes(gzip.compress(text.encode()))
    elif name.lower().endswith(".parquet"):
        pd.DataFrame(ROWS).to_parquet(folder / "rows.parquet")
        (folder / "rows.parquet").rename(path)
    else:
        path.write_text(text + "\n")  # a blank line at the end is skipped
    return path


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "A.PARQUET", "a.parquet"])
def test_files(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name)
    assert list(rows(path)) == list(rows(str(path))) == ROWS


@pytest.mark.parametrize(
    "source", [ROWS, tuple(ROWS), pd.DataFrame(ROWS), datasets.Dataset.from_list(ROWS), iter(ROWS)], ids=type
)
def test_sources_in_memory(source: Any) -> None:
    assert list(rows(source)) == ROWS


def test_objects_of_an_iterable_are_returned_unchanged() -> None:
    objects = ["text", 3, ("a", "b"), None]
    assert list(rows(objects)) == objects


@given(st.lists(st.dictionaries(st.text(max_size=5), CELLS, min_size=1, max_size=3), min_size=1, max_size=5))
def test_json_lines_round_trip(tmp_path_factory: pytest.TempPathFactory, data: list[dict[str, Any]]) -> None:
    path = tmp_path_factory.mktemp("rows") / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in data), encoding="utf-8")
    assert list(rows(path)) == data


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"chosen": "a"\n', "a.jsonl, line 1 is not JSON: "),
        ("a.jsonl", b"\n[1, 2]\n", "a.jsonl, line 2 holds list, expected an object"),
        ("a.jsonl", b"\xff\xfe", "a.jsonl cannot be read as .jsonl"),
        ("a.jsonl.gz", b"plain", "cannot be read as .jsonl.gz"),
        ("a.jsonl.gz", gzip.compress(json.dumps(ROWS[0]).encode(), mtime=0)[:-9], "cannot be read as .jsonl.gz"),
        ("a.parquet", b"plain", "a.parquet is not Parquet"),
        ("a.csv", b"a,b", "a.csv ends with '.csv', expected .jsonl, .jsonl.gz or .parquet"),
        ("a", b"a,b", "a has no suffix, expected .jsonl, .jsonl.gz or .parquet"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        list(rows(tmp_path / name))


def test_missing_files_and_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl is missing, expected a file"):
        list(rows(tmp_path / "none.jsonl"))
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(DataError, match=r"folder\.jsonl is a folder"):
        list(rows(tmp_path / "folder.jsonl"))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS)), "with splits, expected one of them: 'train'"),
        (ROWS[0], "found a single mapping, expected a list of mappings"),
        (7, "found int, expected a path, a data frame, a data set or a list of rows"),
        (None, "found NoneType, expected a path"),
    ],
)
def test_unsupported_sources_are_refused(source: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        list(rows(source))
