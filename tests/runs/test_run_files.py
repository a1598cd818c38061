"""Files that are written again from memory, by hand on small ones."""

from __future__ import annotations

import errno
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mint_lab.runs import run_files
from mint_lab.runs.run_files import (
    LineFile,
    WholeFile,
    damage_of,
    lines_of_steps,
    replace_file,
    size_of,
    storage_problem,
    to_json,
)


@dataclass
class Line:
    step: int
    text: str = "a"


def line_file(path: Path, *steps: int) -> LineFile[Line]:
    file = LineFile[Line](path, vars)
    for step in steps:
        file.add(Line(step))
    file.write()
    return file


def steps_in(path: Path) -> list[int]:
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_lines_are_appended_and_continued(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    file = line_file(path)
    assert not path.exists(), "a file without entries"
    file.add(Line(1))
    file.add(Line(2))
    file.write()
    file.write()
    file.close()
    assert path.read_bytes() == b'{"step": 1, "text": "a"}\n{"step": 2, "text": "a"}\n'
    again = LineFile[Line](path, vars, [Line(1), Line(2)])
    again.add(Line(3))
    again.write()
    again.close()
    assert steps_in(path) == [1, 2, 3]


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda path: path.unlink(), "is gone"),
        (lambda path: path.write_bytes(path.read_bytes()[:-3]), "has 47 bytes, expected 50"),
        (lambda path: path.write_bytes(path.read_bytes() + b"x"), "has 51 bytes, expected 50"),
        (lambda path: (path.unlink(), path.mkdir()), "is no file any more"),
    ],
)
def test_what_was_done_to_a_file_is_said_once_and_repaired(harm: Any, words: str, tmp_path: Path) -> None:
    path = tmp_path / "lines"
    file = line_file(path, 1, 2)
    assert file.damage() == ""
    harm(path)
    assert file.damage() == words
    assert file.damage() == ""
    if path.is_dir():
        path.rmdir()
    file.add(Line(3))
    file.write()
    assert steps_in(path) == [1, 2, 3]
    assert file.damage() == ""
    file.add(Line(4))
    file.write()
    file.close()
    assert steps_in(path) == [1, 2, 3, 4]


def test_an_equal_file_in_its_place_is_written_on(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    file = line_file(path, 1)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content)
    assert file.damage() == ""
    file.add(Line(2))
    file.write()
    file.close()
    assert steps_in(path) == [1, 2]


def test_a_full_disk_leaves_complete_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "lines"
    file = line_file(path, 1)
    real = file._file
    assert real is not None

    class Full:
        """Writes the half of what it is given, and then nothing."""

        def __init__(self) -> None:
            self.left = 1

        def write(self, data: bytes) -> int:
            if not self.left:
                raise OSError(errno.ENOSPC, "No space left on device")
            self.left -= 1
            return real.write(data[: len(data) // 2]) or 0

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

    monkeypatch.setattr(file, "_file", Full())
    file.add(Line(2))
    with pytest.raises(OSError, match="No space left") as raised:
        file.write()
    assert raised.value.filename == str(path)
    assert steps_in(path) == [1]
    monkeypatch.setattr(file, "_file", real)
    file.write()
    file.close()
    assert steps_in(path) == [1, 2]


def test_later_entries_are_removed(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    file = line_file(path, 1, 2, 3)
    file.keep_to(2)
    assert (steps_in(path), [entry.step for entry in file.entries]) == ([1, 2], [1, 2])
    file.add(Line(3, "b"))
    file.write()
    file.close()
    assert steps_in(path) == [1, 2, 3]


def test_a_whole_file_is_replaced_and_repaired(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "whole"
    file = WholeFile(path, b"one", flushed=True)
    assert file.damage() == "", "nothing was written yet"
    file.write()
    assert path.read_bytes() == b"one"
    path.write_bytes(b"other")
    assert file.damage() == "has 5 bytes, expected 3"
    file.write()
    assert path.read_bytes() == b"one"
    file.set(b"two")
    file.write()
    assert [entry.name for entry in path.parent.iterdir()] == ["whole"]
    found = WholeFile(path)
    path.unlink()
    assert found.damage() == "is gone"
    found.write()
    assert path.read_bytes() == b"two"
    unknown = WholeFile(tmp_path / "none")
    unknown.write()
    assert not (tmp_path / "none").exists()


def test_a_replacement_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def full(file: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(run_files, "flush", full)
    with pytest.raises(OSError, match="No space left"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert (size_of(path), size_of(tmp_path / "b"), damage_of(path, 3)) == (3, 0, "")


def test_lines_that_cannot_be_read_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b'{"step": 1}\nnonsense\n{"other": 2}\n{"step": 3}\n{"step": 2}')
    assert lines_of_steps(path, lambda step: step <= 2) == b'{"step": 1}\n{"step": 2}\n'
    assert lines_of_steps(tmp_path / "none", lambda step: True) == b""


def test_a_storage_problem_has_place_and_advice(tmp_path: Path) -> None:
    full = storage_problem(
        tmp_path / "not" / "there", OSError(errno.ENOSPC, "No space left on device", "x/records.jsonl")
    )
    assert full.startswith("x/records.jsonl cannot be written: No space left on device; ")
    assert "MB of the disk are free; free some space there" in full
    assert full.endswith("then continue the run: nothing is lost")
    denied = storage_problem(tmp_path, OSError(errno.EACCES, "Permission denied"))
    assert denied.startswith(f"{tmp_path} cannot be written: Permission denied; make it writable again, then")


def test_json_is_strict() -> None:
    entry = {"a": math.nan, "b": [math.inf, np.float32(1.5)], "c": (1, None), "d": Path("x"), "e": {2: True}}
    assert json.loads(to_json(entry)) == {"a": "nan", "b": ["inf", 1.5], "c": [1, None], "d": "x", "e": {"2": True}}
