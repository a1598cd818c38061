"""Rows from files and from memory, and the sources that are refused."""

from __future__ import annotations

import gzip
import itertools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.data import load_completions, load_pairs
from mint_lab.data.sources import Rows, named_rows, rows
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
        (
            "a",
            b"a,b",
            "a has no suffix, expected .jsonl, .jsonl.gz or .parquet, or the name of a data set on the hub",
        ),
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


# -- rows with limits, and rows that cannot be used --------------------------------------------------------------------


def number(row: Any, index: int) -> int:
    if not isinstance(row, Mapping) or not isinstance(row.get("n"), int):
        raise DataError("found no number", field="n")
    return row["n"] * 10 + index


def test_rows_are_numbered_and_limited() -> None:
    rows_of_two = Rows(iter([{"n": 1}, {"n": 2}, {"n": "x"}]), max_rows=2)
    assert rows_of_two.map(number) == [10, 21]
    assert (rows_of_two.n_read, rows_of_two.skipped, rows_of_two.note()) == (2, {}, "")
    assert Rows(Rows([{"n": 1}] * 5, max_rows=3), max_rows=4).max_rows == 3


def test_a_bad_row_is_an_error_or_is_left_out_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"n": 1}\n{"n": "x"}\nnot JSON\n{"n": 4}\n{"n": null}\n')
    with pytest.raises(DataError, match=r"^datum 1, field 'n': found no number$") as caught:
        Rows(path).map(number)
    assert caught.value.index == 1
    skipping = Rows(path, on_bad_row="skip")
    assert skipping.map(number) == [10, 43]
    assert list(skipping.skipped) == [1, 2, 4]
    assert skipping.note() == (
        f"3 of 5 rows were left out: n: found no number (rows 1 and 4); {path}, line 3 is not JSON: Expecting value at "
        "character 1 (row 2)"
    )


def test_one_bad_row_of_ten_thousand() -> None:
    data = [{"prompt": f"{n}", "chosen": " a", "rejected": " b"} for n in range(10_000)]
    data[7654]["rejected"] = float("nan")
    with pytest.raises(DataError, match=r"datum 7654, field 'rejected': found nothing \(None\)"):
        load_pairs(pd.DataFrame(data))
    given = Rows(pd.DataFrame(data), on_bad_row="skip")
    assert len(load_pairs(given)) == 9_999
    data[7654]["rejected"] = " a"
    with pytest.raises(DataError, match="datum 7654: chosen and rejected are equal"):
        load_pairs(data)


def test_a_line_that_is_not_utf_8_is_a_bad_row(tmp_path: Path) -> None:
    """Latin-1 writes "é" as the byte 0xe9, here byte 8 of line 2; a line separator is no end of a line."""
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"n": 1}\r\n{"n": "\xe9"}\n{"n": 3, "t": "\xe2\x80\xa8"}\n')
    with pytest.raises(
        DataError,
        match=r"cannot be read as .jsonl: line 2 is not UTF-8 \(byte 0xe9 at byte 8\); save the file as UTF-8",
    ):
        Rows(path).map(number)
    skipping = Rows(path, on_bad_row="skip")
    assert skipping.map(number) == [10, 32]
    assert list(skipping.skipped) == [1]


@pytest.mark.parametrize("missing", [pd.NA, pd.NaT, None])
def test_missing_cells_of_a_data_frame_are_none(missing: Any) -> None:
    """NA has no truth value, so that a test of it raises an error of pandas."""
    chat = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    columns = {"messages": [chat, chat], "tools": [[{"name": "f"}], missing], "system": ["s", missing]}
    frame = pd.DataFrame(columns, dtype=object)
    assert list(rows(frame))[1] == {"messages": chat, "tools": None, "system": None}
    assert load_completions(frame)[1] == ([chat[0]], "b")
    with pytest.raises(DataError, match=r"datum 1, field 'chosen': found nothing \(None\)"):
        load_pairs(pd.DataFrame({"prompt": ["a", "b"], "chosen": [" c", missing], "rejected": " d"}, dtype=object))


def test_nothing_that_can_be_used_is_an_error() -> None:
    with pytest.raises(DataError, match=r"none of the 2 rows of the list can be used; 2 of 2 rows were left out: n: "):
        Rows([{}, {}], on_bad_row="skip").map(number)
    with pytest.raises(DataError, match="the list is empty, expected at least one row"):
        Rows([], on_bad_row="skip").map(number)


@pytest.mark.parametrize(
    ("numbers", "told"),
    [([7], "row 7"), ([7, 9], "rows 7 and 9"), ([1, 2, 3], "rows 1, 2 and 3")],
)
def test_named_rows(numbers: list[int], told: str) -> None:
    assert named_rows(numbers) == told
    assert named_rows(list(range(12))) == "rows 0, 1, 2, 3, 4 and 7 more"


@pytest.mark.parametrize(("limits", "field"), [({"max_rows": 0}, "max_rows"), ({"on_bad_row": "drop"}, "on_bad_row")])
def test_limits_that_mean_nothing_are_refused(limits: dict[str, Any], field: str) -> None:
    with pytest.raises(DataError) as caught:
        Rows(ROWS, **limits)
    assert caught.value.field == field


def test_byte_order_mark_of_windows(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(ROWS[0]).encode() + b"\r\n")
    assert list(rows(path)) == ROWS[:1]


# -- the Hugging Face hub ----------------------------------------------------------------------------------------------


def set_offline(monkeypatch: pytest.MonkeyPatch, offline: bool) -> None:
    """As ``HF_HUB_OFFLINE`` says, which huggingface_hub reads when it is imported."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("Anthropic/hh-rlhf", ("Anthropic/hh-rlhf", None, "train")),
        ("openai/gsm8k:main:test", ("openai/gsm8k", "main", "test")),
        ("a.b/c-d_e::validation", ("a.b/c-d_e", None, "validation")),
        ("a/b:c", ("a/b", "c", "train")),
    ],
)
def test_a_data_set_by_name_is_streamed(monkeypatch: pytest.MonkeyPatch, name: str, arguments: Any) -> None:
    asked: list[Any] = []

    def load_dataset(path: str, config: str | None, *, split: str, streaming: bool) -> Iterator[Any]:
        asked.append((path, config, split))
        assert streaming
        yield from ({"n": n} for n in itertools.count())

    set_offline(monkeypatch, True)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert Rows(name, max_rows=3).map(number) == [0, 11, 22]
    assert asked == [arguments]


@pytest.mark.parametrize("fails", [False, True])
def test_the_hub_is_asked_once_before_a_data_set_is_read(monkeypatch: pytest.MonkeyPatch, fails: bool) -> None:
    """``datasets`` alone would retry for a minute before it says that there is no network."""
    asked: list[Any] = []

    class Session:
        def head(self, address: str, timeout: float) -> None:
            asked.append((address, timeout))
            if fails:
                raise ConnectionError("no network")

    set_offline(monkeypatch, False)
    monkeypatch.setattr("huggingface_hub.get_session", Session)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "https://hub.example")
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: asked.append("data") or iter(ROWS))
    if fails:
        with pytest.raises(DataError, match=r"Hugging Face hub \(ConnectionError: no network\); check its name"):
            list(rows("a/b"))
        assert asked == [("https://hub.example", 5.0)]
    else:
        assert list(rows("a/b")) == ROWS
        assert asked == [("https://hub.example", 5.0), "data"]


def test_a_data_set_that_cannot_be_read_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    set_offline(monkeypatch, True)
    with pytest.raises(
        DataError, match=r"'Anthropic/hh-rlhf' cannot be read from the Hugging Face hub .*path of a file"
    ):
        load_pairs("Anthropic/hh-rlhf", limit=2)


def test_a_file_is_not_taken_for_a_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    written(tmp_path / "data", "a.jsonl")
    assert list(rows("data/a.jsonl")) == ROWS
    with pytest.raises(DataError, match=r"data/b\.jsonl is missing, expected a file"):
        list(rows("data/b.jsonl"))
    with pytest.raises(DataError, match=r"data/a\.csv ends with '\.csv', expected"):
        list(rows("data/a.csv"))
    (tmp_path / "data" / "pairs").mkdir()
    with pytest.raises(DataError, match=r"^data/pairs has no suffix, expected \.jsonl"):
        list(rows("data/pairs"))
