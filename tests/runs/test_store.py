"""The run folder: what goes in comes out, and a killed writer leaves something readable."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.errors import RunError
from mint_lab.runs.record import Edit, LossVersion, StepRecord
from mint_lab.runs.store import RunStore, history_frame, load_run

RECORDS = [
    StepRecord(
        step=n,
        time=0.5 * n,
        step_time=0.25,
        tokens=10 * n,
        loss_name="mine",
        loss_version=1 + n // 3,
        metrics={"loss": 1.0 / n, "grad_norm": math.inf if n == 2 else 1.0, "ü <b>": 2.0},
        held_out={"pair_accuracy": 0.5} if n == 2 else {},
        histograms={"margin": [0] * 19 + [n, 1] + [0] * 19},
        settings={"learning_rate": 1e-3},
        warnings=["one\nline"] if n == 3 else [],
    )
    for n in (1, 2, 3)
]
EDITS = [Edit(3, "loss", "mine v2"), Edit(3, "setting", "beta 0.5")]
LOSSES = [LossVersion(1, "mine", 1, "def mine(): ...\n", {}), LossVersion(3, "mine", 2, "# ü\n", {"beta": 0.5})]


def write(folder: Path) -> RunStore:
    store = RunStore(folder)
    store.write_settings({"seed": 3, "status": "finished", "baseline": {"loss": math.nan, "pair_accuracy": 0.25}})
    for record in RECORDS:
        store.append(record)
    for edit in EDITS:
        store.append_edit(edit)
    for loss in LOSSES:
        store.append_loss(loss)
    store.close()
    return store


def test_what_goes_in_comes_out(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "run")
    saved = load_run(tmp_path / "deep" / "run")
    assert saved.records == RECORDS
    assert saved.edits == EDITS
    assert saved.losses == LOSSES
    assert saved.notes == []
    assert saved.settings["seed"] == 3
    assert math.isnan(saved.baseline["loss"])
    assert saved.baseline["pair_accuracy"] == 0.25
    assert list(saved.history.index) == [1, 2, 3]
    assert saved.figure().data
    assert (tmp_path / "deep" / "run" / "losses" / "mine-v2.py").read_text(encoding="utf-8") == "# ü\n"


def test_the_files_are_strict_json(tmp_path: Path) -> None:
    write(tmp_path / "run")

    def refuse(constant: str) -> Any:
        raise AssertionError(constant)

    text = (tmp_path / "run" / "records.jsonl").read_text()
    entries = [json.loads(line, parse_constant=refuse) for line in text.splitlines()]
    assert entries[1]["metrics"]["grad_norm"] == "inf"
    json.loads((tmp_path / "run" / "run.json").read_text(), parse_constant=refuse)


@given(st.data())
def test_any_torn_end_leaves_every_whole_line(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / "run"
        write(folder)
        whole = (folder / "records.jsonl").read_bytes()
        cut = data.draw(st.integers(0, len(whole)))
        (folder / "records.jsonl").write_bytes(whole[:cut])
        saved = load_run(folder)
        lines = whole[:cut].count(b"\n")
        assert saved.records == RECORDS[:lines]
        torn = not (whole[:cut].endswith(b"\n") or cut == 0)
        assert bool(saved.notes) == torn
        if torn:
            assert saved.notes[0].startswith("records.jsonl: the last line is torn")
        assert len(saved.history) == lines


def test_every_cut_of_every_file_can_be_read(tmp_path: Path) -> None:
    write(tmp_path / "run")
    for name in ("run.json", "edits.jsonl", "losses.jsonl"):
        whole = (tmp_path / "run" / name).read_bytes()
        for cut in range(len(whole)):
            (tmp_path / "run" / name).write_bytes(whole[:cut])
            assert load_run(tmp_path / "run").records == RECORDS
        (tmp_path / "run" / name).write_bytes(whole)


def test_a_spoilt_line_in_the_middle_is_noted(tmp_path: Path) -> None:
    write(tmp_path / "run")
    file = tmp_path / "run" / "records.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + b"\xff\x00{]\n" + b'["no", "object"]\n' + lines[2])
    saved = load_run(tmp_path / "run")
    assert [r.step for r in saved.records] == [1, 3]
    assert [note.split(";")[0] for note in saved.notes] == [
        "records.jsonl: line 2 cannot be read",
        "records.jsonl: line 3 cannot be read",
    ]


def test_a_missing_source_is_noted(tmp_path: Path) -> None:
    write(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "losses")
    saved = load_run(tmp_path / "run")
    assert [loss.source for loss in saved.losses] == ["", ""]
    assert len(saved.notes) == 2


def test_a_failed_write_is_made_good_by_the_next(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    store.append(RECORDS[0])
    lines = store._lines["records.jsonl"]
    real = lines._file

    class Full:
        """Takes half of what it is given, then has no room."""

        room = True

        def write(self, data: bytes) -> int:
            if not self.room:
                raise OSError(28, "No space left on device")
            self.room = False
            return real.write(data[: len(data) // 2])

        def truncate(self, size: int) -> int:
            return real.truncate(size)

    lines._file = Full()
    with pytest.raises(OSError, match="No space left"):
        store.append(RECORDS[1])
    lines._file = real
    assert load_run(tmp_path / "run").records == RECORDS[:1]
    assert load_run(tmp_path / "run").notes[1:] == []  # only run.json, which was never written
    store.append(RECORDS[2])
    store.close()
    assert load_run(tmp_path / "run").records == RECORDS


def test_appending_after_close_goes_on(tmp_path: Path) -> None:
    store = write(tmp_path / "run")
    store.append(RECORDS[0])
    store.close()
    assert [r.step for r in load_run(tmp_path / "run").records] == [1, 2, 3, 1]


def test_a_used_folder_and_an_impossible_one_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "run")
    with pytest.raises(RunError, match="already holds a run"):
        RunStore(tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot make the run folder"):
        RunStore(tmp_path / "file" / "run")


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        load_run(tmp_path)


def test_a_loss_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    store.write_settings({})
    store.append_loss(LossVersion(1, "../../evil", 1, "x = 1\n", {}))
    store.close()
    assert [f.name for f in (tmp_path / "run" / "losses").iterdir()] == [".._.._evil-v1.py"]
    assert load_run(tmp_path / "run").losses[0].source == "x = 1\n"


def test_history_orders_its_columns() -> None:
    frame = history_frame(RECORDS)
    assert list(frame.columns) == [
        *("time", "step_time", "tokens", "loss_name", "loss_version"),
        *("loss", "grad_norm", "ü <b>", "held_out/pair_accuracy", "settings/learning_rate"),
    ]
    assert frame.loc[2, "held_out/pair_accuracy"] == 0.5
    assert math.isnan(frame.loc[3, "held_out/pair_accuracy"])
