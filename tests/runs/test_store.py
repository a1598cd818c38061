"""The run folder: what is written is read again, and a killed writer leaves a readable folder."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import shutil
import sys
import tempfile
import threading
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.data.rewards import Reward
from mint_lab.errors import RunError
from mint_lab.recipes.record import Edit, LossVersion, StepRecord
from mint_lab.runs.entries import RunInfo
from mint_lab.runs.folder import RunFolder
from mint_lab.runs.folder_lock import is_locked
from mint_lab.runs.store import RunStore, fresh_folder, history_frame, load_run

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
    store.write_info(RunInfo(seed=3, status="finished", baseline={"loss": math.nan, "pair_accuracy": 0.25}))
    for record in RECORDS:
        edits, losses = ([entry for entry in entries if entry.step == record.step] for entries in (EDITS, LOSSES))
        store.append(record, edits=edits, losses=losses)
    store.close()
    return store


def test_the_folder_is_free_once_the_run_is_over_and_not_while_it_is_paused(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "a")
    for options, locked in (({"ended": False}, True), ({"ended": True}, False), ({}, False)):
        store.write_info(RunInfo())
        store.close(**options)
        assert is_locked(tmp_path / "a") == locked


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    write(tmp_path / "deep" / "run")
    saved = load_run(tmp_path / "deep" / "run")
    assert saved.records == RECORDS
    assert saved.edits == EDITS
    assert saved.losses == LOSSES
    assert saved.notes == []
    assert repr(saved) == f"SavedRun({str(tmp_path / 'deep' / 'run')!r}, ?: ?, finished, step 3/?)"
    assert (saved.info.seed, saved.info.status) == (3, "finished")
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
def test_every_complete_line_is_read_whatever_the_end(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as base:
        folder = Path(base) / "run"
        write(folder)
        whole = (folder / "records.jsonl").read_bytes()
        cut = data.draw(st.integers(0, len(whole)))
        (folder / "records.jsonl").write_bytes(whole[:cut])
        saved = load_run(folder)
        lines = whole[:cut].count(b"\n")
        assert saved.records == RECORDS[:lines]
        is_incomplete = not (whole[:cut].endswith(b"\n") or cut == 0)
        assert bool(saved.notes) == is_incomplete
        if is_incomplete:
            assert saved.notes[0].startswith("records.jsonl: the last line is incomplete")
        assert len(saved.history) == lines


def test_every_truncated_file_can_be_read(tmp_path: Path) -> None:
    write(tmp_path / "run")
    for name in ("run.json", "edits.jsonl", "losses.jsonl"):
        whole = (tmp_path / "run" / name).read_bytes()
        for cut in range(len(whole)):
            (tmp_path / "run" / name).write_bytes(whole[:cut])
            assert load_run(tmp_path / "run").records == RECORDS
        (tmp_path / "run" / name).write_bytes(whole)


def test_damaged_line_in_the_middle_is_noted(tmp_path: Path) -> None:
    write(tmp_path / "run")
    file = tmp_path / "run" / "records.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + b"\xff\x00{]\n" + b'["no", "object"]\n' + lines[2])
    saved = load_run(tmp_path / "run")
    assert [r.step for r in saved.records] == [1, 3]
    first, second, third = saved.notes
    assert third == "records.jsonl: 2 of 3 steps can be read, the others are missing"
    assert first.startswith("records.jsonl: line 2 cannot be read (")
    reason = 'it is ["no", "object"], expected an object'
    assert second == f"records.jsonl: line 3 cannot be read ({reason}); it was left out"


def test_missing_source_is_noted(tmp_path: Path) -> None:
    write(tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "losses")
    saved = load_run(tmp_path / "run")
    assert [loss.source for loss in saved.losses] == ["", ""]
    assert len(saved.notes) == 2


def test_failed_write_is_completed_by_the_next(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    store.append(RECORDS[0])
    lines = store._records
    real = lines._file

    class Full:
        """Takes half of what it is given, then has no room."""

        room = True

        def write(self, data: bytes) -> int:
            if not self.room:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.room = False
            return real.write(data[: len(data) // 2])

        def truncate(self, size: int) -> int:
            return real.truncate(size)

        def fileno(self) -> int:
            return real.fileno()

    lines._file = Full()
    with pytest.raises(RunError) as caught:
        store.append(RECORDS[1])
    place = re.escape(str(tmp_path / "run" / "records.jsonl"))
    assert re.fullmatch(
        rf"{place} cannot be written: No space left on device; [\d,]+ MB of the disk are free; free some space there, "
        r"for example delete old runs, then continue the run: nothing is lost",
        str(caught.value),
    )
    lines._file = real
    assert load_run(tmp_path / "run").records == RECORDS[:1]
    assert load_run(tmp_path / "run").notes[1:] == []  # only run.json, which was never written
    store.append(RECORDS[2])
    store.close()
    assert load_run(tmp_path / "run").records == RECORDS


@contextlib.contextmanager
def in_the_way(path: Path) -> Iterator[None]:
    """Nobody can write ``path``: where a file is expected there is a folder, and the other way round."""
    aside = path.with_name("aside")
    if path.exists():
        path.rename(aside)
    if path.name.endswith(".jsonl"):
        path.mkdir()
    else:
        path.write_text("")
    try:
        yield
    finally:
        path.rmdir() if path.is_dir() else path.unlink()
        if aside.exists():
            aside.rename(path)


@pytest.mark.parametrize("place", ["records.jsonl", "edits.jsonl", "losses.jsonl", "losses", "rewards"])
@pytest.mark.parametrize("then", ["append", "write_info", "close"])
def test_whatever_cannot_be_written_is_written_by_the_next_call(tmp_path: Path, place: str, then: str) -> None:
    folder = tmp_path / "run"
    store = RunStore(folder)
    store.write_info(RunInfo())
    store.append(RECORDS[0], losses=LOSSES[:1])
    store.close()
    graded = Reward("grade", lambda response, example: 1.0, source="def grade(): ...\n")
    with in_the_way(folder / place):
        with pytest.raises(RunError, match=place):
            store.append(RECORDS[1], edits=[EDITS[0]], rewards=[graded], losses=[LOSSES[1]])
        with pytest.raises(RunError, match=place):
            store.close()
    if then == "append":
        store.append(RECORDS[2], edits=[EDITS[1]])
    elif then == "write_info":
        store.write_info(RunInfo())
    store.close()
    saved, count = load_run(folder), 3 if then == "append" else 2
    assert saved.records == RECORDS[:count]
    assert saved.edits == EDITS[: count - 1]
    assert saved.losses == LOSSES
    assert saved.notes == []
    assert (folder / "rewards" / "grade-v1.py").read_text() == "def grade(): ...\n"


def test_append_after_close_opens_the_files_again(tmp_path: Path) -> None:
    store = write(tmp_path / "run")
    store.append(RECORDS[0])
    store.close()
    assert [r.step for r in load_run(tmp_path / "run").records] == [1, 2, 3, 1]


def test_used_or_impossible_folder_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "run")
    with pytest.raises(RunError, match="already holds a run"):
        RunStore(tmp_path / "run")
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot create the run folder"):
        RunStore(tmp_path / "file" / "run")


def at_once(count: int, job: Callable[[], Any]) -> list[Any]:
    """Return what ``job`` returns or raises in each of ``count`` threads that call it at the same time."""
    together, found = threading.Barrier(count), []

    def one() -> None:
        together.wait()
        try:
            found.append(job())
        except RunError as error:
            found.append(error)

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


@pytest.fixture
def frequent_thread_switches() -> Iterator[None]:
    """Threads that take turns after every few instructions."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("frequent_thread_switches")
def test_two_runs_never_get_one_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(100):
        stores = at_once(4, lambda n=number: RunStore(fresh_folder(f"x{n}")))
        assert len({store.folder for store in stores}) == 4


@pytest.mark.usefixtures("frequent_thread_switches")
def test_of_two_runs_for_one_folder_one_is_refused(tmp_path: Path) -> None:
    for number in range(100):
        found = at_once(3, lambda n=number: RunStore(tmp_path / str(n)))
        refused = [error for error in found if isinstance(error, RunError)]
        assert len(refused) == 2
        assert all("already holds a run" in str(error) for error in refused)


def test_fresh_folder_that_cannot_be_created(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").write_text("")
    with pytest.raises(RunError, match=r"cannot create the run folder .*runs is not a folder"):
        fresh_folder("x")
    (tmp_path / "runs").unlink()
    with pytest.raises(RunError, match="cannot create the run folder"):
        fresh_folder("x" * 300)


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no run"):
        load_run(tmp_path)


def test_a_loss_name_cannot_leave_the_folder(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    store.write_info(RunInfo())
    store.append(RECORDS[0], losses=[LossVersion(1, "../../evil", 1, "x = 1\n", {})])
    store.close()
    (file,) = (tmp_path / "run" / "losses").iterdir()
    assert file.name.startswith(".._.._evil-")
    assert load_run(tmp_path / "run").losses[0].source == "x = 1\n"


# One letter in two spellings, a ligature, other letter case, signs, and more than a file name holds.
OTHER_LETTERS = ["β", "λ", "损失"]
ALIKE = ["mine", "Mine", "MINE", "a b", "a_b", "a/b", "\u00e5", "a\u030a", "\u212b", "fi", "\ufb01", "\U00020000" * 300]
NAMES = [*OTHER_LETTERS, *ALIKE]


def test_every_loss_name_has_a_different_file(tmp_path: Path) -> None:
    losses = [LossVersion(1, name, 1, f"# {number}\n", {}) for number, name in enumerate(NAMES)]
    store = RunStore(tmp_path / "run")
    store.write_info(RunInfo())
    store.append(RECORDS[0], losses=losses)
    store.close()
    files = [file.name for file in (tmp_path / "run" / "losses").iterdir()]
    assert len({unicodedata.normalize("NFKC", name).casefold() for name in files}) == len(NAMES)
    assert {"β-v1.py", "损失-v1.py", "mine-v1.py", "a_b-v1.py"} <= set(files)
    saved = load_run(tmp_path / "run")
    assert (saved.losses, saved.notes) == (losses, [])


def test_numbers_of_numpy_are_numbers(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    options = {"on": np.bool_(True), "lr": np.float32(0.5), "none": np.float64("nan"), "nested": [{"n": np.uint8(4)}]}
    store.write_info(RunInfo(seed=np.int64(3), options=options))  # type: ignore[arg-type]
    store.append(replace(RECORDS[0], tokens=np.int64(7), metrics={"loss": np.float32(0.5)}))  # type: ignore[arg-type]
    store.close()
    saved = load_run(tmp_path / "run")
    assert saved.notes == []
    assert saved.info == RunInfo(seed=3, options={"on": True, "lr": 0.5, "none": "nan", "nested": [{"n": 4}]})
    assert (saved.records[0].tokens, saved.records[0].metrics) == (7, {"loss": 0.5})
    assert RunFolder(tmp_path).list()[0].seed == 3


def test_earlier_file_names_of_sources_are_read(tmp_path: Path) -> None:
    write(tmp_path / "run")
    losses = tmp_path / "run" / "losses"
    (losses / "mine-v2.py").rename(losses / "Mine-v2.py")
    entry = json.dumps({"step": 3, "name": "Mine", "version": 2, "config": {}, "file": "Mine-v2.py"})
    (tmp_path / "run" / "losses.jsonl").write_text(entry + "\n")
    assert load_run(tmp_path / "run").losses == [LossVersion(3, "Mine", 2, "# ü\n", {})]


def test_history_orders_its_columns() -> None:
    frame = history_frame(RECORDS)
    assert list(frame.columns) == [
        *("time", "step_time", "tokens", "loss_name", "loss_version"),
        *("loss", "grad_norm", "ü <b>", "held_out/pair_accuracy", "settings/learning_rate"),
    ]
    assert frame.loc[2, "held_out/pair_accuracy"] == 0.5
    assert math.isnan(frame.loc[3, "held_out/pair_accuracy"])


def test_no_metric_replaces_another_column() -> None:
    names = ["step", "time", "step_time", "tokens", "loss_name", "loss_version", "metrics/tokens"]
    names += ["held_out/pair_accuracy", "settings/learning_rate"]
    record = replace(RECORDS[1], metrics={"loss": 0.5} | {name: -1.0 - n for n, name in enumerate(names)})
    frame = history_frame([record])
    plain = history_frame([replace(RECORDS[1], metrics={"loss": 0.5})])
    pd.testing.assert_frame_equal(frame[list(plain.columns)], plain)
    assert {c: frame.loc[2, c] for c in frame if c not in plain} == {
        f"metrics/{name}": -1.0 - n for n, name in enumerate(names)
    }
    assert list(frame.reset_index().columns).count("step") == 1


# -- a folder that something else changes in mid-run -------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    files = {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    return {name: content for name, content in files.items() if name != "run.lock"}


def begun(folder: Path) -> tuple[RunStore, dict[str, bytes]]:
    """Return the store of a run in progress that has rewound once, and what its files contain."""
    store = write(folder)
    graded = Reward("grade", lambda response, example: 1.0, source="def grade(): ...\n")
    store.append(replace(RECORDS[2], step=4), rewards=[graded])
    store.rewind(3, past=3)
    store.append(replace(RECORDS[0], step=4), edits=[Edit(4, "setting", "beta 1")])
    return store, contents(folder)


def shorten(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-3])


def lengthen(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"x")


def in_place_of(file: Path) -> None:
    file.unlink()
    file.mkdir()


CHANGES = [(Path.unlink, "is gone"), (shorten, "has"), (lengthen, "has")]
FILES = ["run.json", "records.jsonl", "edits.jsonl", "losses.jsonl", "losses/mine-v2.py", "rewards/grade-v1.py"]
FILES += ["rewinds/001/records.jsonl", "rewinds/001/edits.jsonl"]


@pytest.mark.parametrize(
    ("name", "change", "words"),
    # The file of the edits that a rewind took back is empty: it cannot be shorter.
    [(name, *change) for name in FILES for change in CHANGES if (name, change[0]) != (FILES[-1], shorten)],
)
def test_a_file_that_something_else_changes_is_written_again_and_noted(
    tmp_path: Path, name: str, change: Callable[[Path], object], words: str
) -> None:
    store, before = begun(tmp_path / "run")
    change(tmp_path / "run" / name)
    (note,) = store.take_notes()
    assert store.take_notes() == []
    assert note.startswith(f"In {tmp_path / 'run'}, {name} {words}")
    assert note.endswith("It is written again from memory.")
    store.close()
    assert contents(tmp_path / "run") == before
    assert store.take_notes() == []


def test_a_folder_that_is_deleted_in_mid_run_is_written_again_and_locked(tmp_path: Path) -> None:
    store, before = begun(tmp_path / "run")
    shutil.rmtree(tmp_path / "run")
    last = replace(RECORDS[1], step=5)
    store.append(last, edits=[Edit(5, "setting", "beta 2")])
    assert is_locked(tmp_path / "run")
    (note,) = store.take_notes()
    assert note.startswith(f"The folder {tmp_path / 'run'} was deleted or moved while the run was writing it: ")
    after = contents(tmp_path / "run")
    assert after.keys() == before.keys()
    changed = {name for name in before if after[name] != before[name]}
    assert changed == {"records.jsonl", "edits.jsonl"}
    assert all(after[name].startswith(before[name]) for name in changed)
    saved = load_run(tmp_path / "run")
    assert [record.step for record in saved.records] == [1, 2, 3, 4, 5]
    assert saved.records[-1] == last
    assert (saved.notes, store.take_notes()) == ([], [])


def test_a_reopened_run_writes_its_earlier_steps_again_too(tmp_path: Path) -> None:
    first, before = begun(tmp_path / "run")
    first.close()
    store = RunStore.reopen(load_run(tmp_path / "run"), 4)
    assert contents(tmp_path / "run") == before
    shutil.rmtree(tmp_path / "run")
    store.close()
    assert contents(tmp_path / "run") == before


def test_a_file_that_was_copied_back_is_written_on(tmp_path: Path) -> None:
    """The open file is another one by then; what is appended to it would be lost."""
    store, _ = begun(tmp_path / "run")
    file = tmp_path / "run" / "records.jsonl"
    content = file.read_bytes()
    file.unlink()
    file.write_bytes(content)
    store.append(replace(RECORDS[1], step=5))
    store.close()
    assert [record.step for record in load_run(tmp_path / "run").records] == [1, 2, 3, 4, 5]
    assert store.take_notes() == []


def test_what_cannot_be_restored_stays_damaged_until_it_can(tmp_path: Path) -> None:
    store, before = begun(tmp_path / "run")
    in_place_of(tmp_path / "run" / "records.jsonl")
    with pytest.raises(RunError, match=r"records\.jsonl cannot be written: .*; make it writable again, then continue"):
        store.close(ended=False)
    (tmp_path / "run" / "records.jsonl").rmdir()
    store.close()
    leftovers = [name for name in contents(tmp_path / "run") if name.endswith(".part")]
    assert leftovers == []
    assert contents(tmp_path / "run") == before


def test_leftovers_of_a_killed_write_are_removed_when_the_run_is_opened_again(tmp_path: Path) -> None:
    store, before = begun(tmp_path / "run")
    store.close()
    draft = tmp_path / "run" / "rewinds" / ".002.0a1b2c3d.draft"
    draft.mkdir()
    draft.with_suffix(".lock").touch()
    for name in ("run.json.part", "losses/mine-v2.py.part", "rewinds/.002.0a1b2c3d.draft/records.jsonl"):
        (tmp_path / "run" / name).write_text("half")
    RunStore.reopen(load_run(tmp_path / "run"), 4).close()
    assert contents(tmp_path / "run") == before
    assert not draft.exists()


# -- what is read of a run whose process has died ----------------------------------------------------------------------


def test_a_run_is_interrupted_if_its_process_died_while_it_was_running(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "run")
    store.write_info(RunInfo(status="running", steps=9))
    store.append(RECORDS[0])
    assert load_run(tmp_path / "run").info.status == "running"
    store._folder_lock.release()
    saved = load_run(tmp_path / "run")
    assert saved.info.status == "interrupted"
    assert repr(saved).endswith(", interrupted, step 1/9)")
    store.write_info(RunInfo(status="paused"))
    store.close()
    assert load_run(tmp_path / "run").info.status == "paused"


@pytest.mark.parametrize(("kept", "steps_done", "expected"), [(2, 3, 3), (3, 2, None), (0, 1, 1), (3, 3, None)])
def test_missing_steps_are_noted(tmp_path: Path, kept: int, steps_done: int, expected: int | None) -> None:
    """``run.json`` is written when the status changes: it may say less than the records, never more."""
    store = RunStore(tmp_path / "run")
    store.write_info(RunInfo(steps_done=steps_done))
    for record in RECORDS[:kept]:
        store.append(record)
    store.close()
    note = f"records.jsonl: {kept} of {expected} steps can be read, the others are missing"
    assert load_run(tmp_path / "run").notes == ([] if expected is None else [note])
