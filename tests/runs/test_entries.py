"""What is damaged in a run's files is left out, with the reason, and the rest is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mint_lab.runs.store import load_run

from .test_store import RECORDS, write


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"step": None}, "step is null, expected a whole number"),
        ({"step": True}, "step is true, expected a whole number"),
        ({"time": "late"}, 'time is "late", expected a number'),
        ({"tokens": 1.5}, "tokens is 1.5, expected a whole number"),
        ({"metrics": None}, "metrics is null, expected an object"),
        ({"metrics": {"loss": "much"}}, 'metrics/loss is "much", expected a number'),
        ({"metrics": {"loss": None}}, "metrics/loss is null, expected a number"),
        ({"held_out": {"nll": 10**400}}, f"held_out/nll is 1{'0' * 39}..., expected a number"),
        ({"histograms": {"margin": 3}}, "margin is 3, expected a list"),
        ({"histograms": {"margin": ["many"]}}, 'histograms/margin is "many", expected a whole number'),
        ({"warnings": "one"}, 'warnings is "one", expected a list'),
        ({"samples": [3]}, "samples is 3, expected an object"),
    ],
)
def test_a_record_with_something_else_in_it_is_left_out_with_the_reason(
    tmp_path: Path, change: dict[str, Any], found: str
) -> None:
    write(tmp_path / "run")
    file = tmp_path / "run" / "records.jsonl"
    entry = json.loads(file.read_text().splitlines()[1]) | change
    file.write_text(file.read_text() + json.dumps(entry) + "\n")
    saved = load_run(tmp_path / "run")
    assert saved.records == RECORDS
    assert saved.notes == [f"records.jsonl: line 4 cannot be read ({found}); it was left out"]
    del entry[next(iter(change))]
    file.write_text(json.dumps(entry) + "\n")
    missing = len(load_run(tmp_path / "run").records) == 0
    assert missing == (set(change) <= {"step", "time", "tokens"}), "what records of old did not have may be missing"


@pytest.mark.parametrize(
    ("file", "content", "note"),
    [
        ("run.json", "[]", "run.json cannot be read (it is [], expected an object); settings are unknown"),
        ("run.json", "[" * 100_000, "settings are unknown"),
        ("run.json", '{"baseline": 3}', "run.json: baseline is 3, expected an object; what was measured before"),
        ("run.json", '{"baseline": {"nll": []}}', "run.json: baseline/nll is [], expected a number; what was"),
        (
            "edits.jsonl",
            '{"step": "one"}\n',
            'edits.jsonl: line 1 cannot be read (step is "one", expected a whole number',
        ),
        ("losses.jsonl", '{"step": 1, "name": 3}\n', "line 1 cannot be read (name is 3, expected a text)"),
        ("losses.jsonl", '{"step": 1, "name": "x", "version": 1}\n', "line 1 cannot be read (file is null, expected"),
        ("losses.jsonl", "[" * 100_000 + "\n", "losses.jsonl: line 1 cannot be read"),
    ],
)
def test_a_damaged_file_is_noted_and_the_rest_is_drawn(tmp_path: Path, file: str, content: str, note: str) -> None:
    write(tmp_path / "run")
    (tmp_path / "run" / file).write_text(content)
    saved = load_run(tmp_path / "run")
    assert len(saved.notes) == 1
    assert note in saved.notes[0]
    assert saved.records == RECORDS
    assert len(saved.history) == len(RECORDS)
    assert saved.figure().data


def test_a_file_that_cannot_be_opened_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "run")
    real = Path.read_bytes

    def refused(path: Path) -> bytes:
        if path.name == "records.jsonl":
            raise PermissionError(13, "Permission denied")
        return real(path)

    monkeypatch.setattr(Path, "read_bytes", refused)
    saved = load_run(tmp_path / "run")
    assert saved.records == []
    assert saved.notes == ["records.jsonl cannot be read ([Errno 13] Permission denied); it was left out"]
