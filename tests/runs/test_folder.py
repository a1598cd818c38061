"""A folder of runs: what is listed of each, and that nothing but a run is ever changed."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import filelock
import pytest

from mint_lab.errors import RunError
from mint_lab.recipes.record import Edit, LossVersion
from mint_lab.runs import Run, entries
from mint_lab.runs import folder as module
from mint_lab.runs.entries import RunInfo
from mint_lab.runs.folder import MAX_CURVE_POINTS, NOTE, RunFolder, RunSummary
from mint_lab.runs.folder_lock import LOCK_FILE, FolderLock
from mint_lab.runs.store import RunStore, load_run

from ..waiting import Gate
from .bigram import BigramClient
from .conftest import TIMEOUT, finish
from .test_store import RECORDS

HOSTILE = "<img src=x onerror=alert(1)>\u202egnp.exe \U0001f642"


HUGE = b"1" + b"0" * 400  # JSON holds it, a float does not


def write(folder: Path, steps: int = 30, every: int = 10, **settings: Any) -> Path:
    """A finished run of ``steps`` steps, whose accuracy rises by 0.01 a step."""
    store = RunStore(folder)
    baseline = {"pair_accuracy": 0.5, "loss": 1.0}
    info = RunInfo(name="mine", recipe="preference", seed=7, steps=40, status="stopped", baseline=baseline)
    store.write_info(replace(info, **settings))
    for step in range(1, steps + 1):
        held_out = {"pair_accuracy": 0.5 + step / 100} if step % every == 0 else {}
        begun = {1: 1, 5: 2}.get(step)  # the versions of the loss
        losses = [LossVersion(step, "mine", begun, "def mine(): ...", {})] if begun else []
        store.append(replace(RECORDS[0], step=step, held_out=held_out), losses=losses)
    store.close()
    return folder


def one(folder: RunFolder, name: str) -> RunSummary:
    return next(summary for summary in folder.list() if summary.name == name)


def test_summary_of_a_run(tmp_path: Path) -> None:
    write(tmp_path / "a")
    (summary,) = RunFolder(tmp_path).list()
    assert (summary.name, summary.title, summary.recipe, summary.seed) == ("a", "mine", "preference", 7)
    assert summary.losses == ["mine v1", "mine v2"]
    assert (summary.status, summary.steps, summary.steps_total) == ("stopped", 30, 40)
    assert (summary.before, summary.final) == ({"pair_accuracy": 0.5, "loss": 1.0}, {"pair_accuracy": 0.8})
    assert (summary.main, summary.curve) == ("pair_accuracy", [0.5, 0.6, 0.7, 0.8])
    assert summary.changed == pytest.approx((tmp_path / "a" / "records.jsonl").stat().st_mtime, abs=1)
    assert summary.problem == ""


def test_summary_of_a_live_run(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = finish(make_run(steps=12, name="mine"))
    summary = one(RunFolder(tmp_path), run.folder.name)  # type: ignore[union-attr]
    assert (summary.status, summary.steps, summary.losses) == ("finished", 12, ["pairwise_preference v1"])
    assert summary.final == run.records[-1].held_out
    assert summary.before == run.baseline
    evaluated = [r.held_out["pair_accuracy"] for r in run.records if r.held_out]
    assert summary.curve == [run.baseline["pair_accuracy"], *evaluated]


def test_long_curve_keeps_its_ends(tmp_path: Path) -> None:
    write(tmp_path / "a", steps=200, every=1)
    curve = one(RunFolder(tmp_path), "a").curve
    assert len(curve) == MAX_CURVE_POINTS + 1
    assert (curve[0], curve[1], curve[-1]) == (0.5, 0.51, 2.5)
    assert curve == sorted(curve)


def test_the_last_written_comes_first_and_the_frame_has_a_row_each(tmp_path: Path) -> None:
    for number, name in enumerate(("b", "a", "c")):
        write(tmp_path / name, baseline={"pair_accuracy": 0.5, "logps/chosen": -1.0, "logps/rejected": -3.0})
        for file in (tmp_path / name).glob("*.json*"):
            os.utime(file, (1e9 + number, 1e9 + number))
    (tmp_path / "foreign").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "file.txt").write_text("no folder")
    folder = RunFolder(tmp_path)
    assert [summary.name for summary in folder.list()] == ["c", "a", "b", "foreign"]
    frame = folder.to_frame()
    assert list(frame.index) == ["c", "a", "b", "foreign"]
    assert frame.loc["a", "final/pair_accuracy"] == 0.8
    assert frame.loc["a", "before/mean_margin"] == 2.0
    assert str(frame.loc["c", "changed"]) == "2001-09-09 01:46:42"
    assert frame.loc["foreign", "problem"].startswith("holds no run")
    assert RunFolder(tmp_path / "nowhere").list() == []
    assert list(RunFolder(tmp_path / "nowhere").to_frame().index) == []


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("run.json", b"{", "run.json cannot be read"),
        ("run.json", b"[1]", "run.json cannot be read: it is [1], expected an object"),
        ("run.json", b"\xff\xfe", "run.json cannot be read"),
        ("run.json", b"[" * 100_000, "run.json cannot be read"),
        ("run.json", b'{"steps": "many", "name": ["x"], "baseline": 3, "seed": NaN}', ""),
        ("run.json", b'{"steps": %b, "seed": -%b, "baseline": {"nll": %b}}' % (HUGE, HUGE, HUGE), ""),
        ("records.jsonl", b'{"step": %b, "held_out": {"nll": %b}}\n' % (HUGE, HUGE), ""),
        ("records.jsonl", b"", ""),
        ("records.jsonl", b'{"step": 1', ""),
        ("records.jsonl", b'{"held_out": {"x": \n{"step": []}\n[]\n', ""),
        ("records.jsonl", b'{"step": 3, "held_out": {"pair_accuracy": "nan", "a": [1]}}\nnot json\n', ""),
        ("losses.jsonl", b'{"name": 3}\n{"version": 1}\nx', ""),
        (NOTE, b"\xff\xfe\x00", ""),
    ],
)
def test_damaged_run_is_listed_and_never_raises(tmp_path: Path, file: str, content: bytes, problem: str) -> None:
    (write(tmp_path / "a") / file).write_bytes(content)
    write(tmp_path / "sound")
    folder = RunFolder(tmp_path)
    assert len(folder.list()) == 2
    assert one(folder, "a").problem.startswith(problem)
    assert (one(folder, "a").problem == "") == (problem == "")
    assert one(folder, "sound").problem == ""
    assert len(folder.to_frame()) == 2
    assert folder.open("a").figure() is not None
    assert len(folder.open("a").history) <= 30


def test_incomplete_last_line_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a") / "records.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 31, "held_out": {"pair_accuracy": 0.9')
    summary = one(RunFolder(tmp_path), "a")
    assert (summary.steps, summary.final) == (30, {"pair_accuracy": 0.8})
    path.write_bytes(path.read_bytes()[:-5])
    assert one(RunFolder(tmp_path), "a").steps == 30


def test_unchanged_runs_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        write(tmp_path / name)
    read: list[str] = []
    inner = module._read
    monkeypatch.setattr(module, "_read", lambda path: read.append(path.name) or inner(path))
    folder = RunFolder(tmp_path)
    first = folder.list()
    assert sorted(read) == ["a", "b", "c"]
    assert folder.list() == first
    assert len(read) == 3
    folder.note("b", "look here")
    assert one(folder, "b").note == "look here"
    assert read[3:] == ["b"]


def test_listing_parses_few_lines_of_each_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run with 240 records: run.json, 24 evaluations, the last record, 2 loss versions."""
    first = write(tmp_path / "0", steps=240)
    for number in range(1, 500):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in ("run.json", "records.jsonl", "losses.jsonl"):
            os.link(first / name, folder / name)
    parsed = [0]
    inner = json.loads
    monkeypatch.setattr(entries.json, "loads", lambda text: parsed.__setitem__(0, parsed[0] + 1) or inner(text))
    folder = RunFolder(tmp_path)
    assert len(folder.list()) == 500
    assert parsed[0] == 500 * (1 + 24 + 1 + 2)
    assert len(folder.list()) == 500
    assert parsed[0] == 500 * 28


# -- notes -------------------------------------------------------------------------------------------------------------


def test_note_is_kept_whatever_it_says(tmp_path: Path) -> None:
    path = write(tmp_path / "a")
    folder = RunFolder(tmp_path)
    folder.note("a", HOSTILE)
    assert one(folder, "a").note == HOSTILE
    assert (path / NOTE).read_text(encoding="utf-8") == HOSTILE
    with pytest.raises(RunError, match="the note has 10,001 characters, expected 10,000 at most"):
        folder.note("a", "x" * 10_001)
    assert one(folder, "a").note == HOSTILE
    folder.note("a", "half a pair \ud83d")
    assert one(folder, "a").note == "half a pair \\ud83d"
    for size, shown in ((80_000, "x" * 10_000), (80_001, "")):  # a file of bytes from elsewhere
        (path / NOTE).write_text("x" * size)
        assert one(folder, "a").note == shown
    folder.note("a", " \n")
    assert not (path / NOTE).exists()
    assert sorted(entry.name for entry in path.iterdir()) == ["losses", "losses.jsonl", "records.jsonl", "run.json"]


def test_note_that_cannot_be_written_leaves_the_previous_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a")
    folder = RunFolder(tmp_path)
    folder.note("a", "old")

    def full(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(RunError, match="cannot write the note of a: disk full"):
        folder.note("a", "new")
    assert (path / NOTE).read_text() == "old"
    assert not [entry for entry in path.iterdir() if entry.name.startswith(".")]


# -- deleting ----------------------------------------------------------------------------------------------------------


def test_run_is_deleted_with_all_its_files(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b")
    folder = RunFolder(tmp_path)
    folder.note("a", "gone soon")
    store = RunStore.reopen(load_run(tmp_path / "a"), 3)
    store.rewind(1, past=1)
    store.close()
    assert (tmp_path / "a" / "rewinds" / "001" / "records.jsonl").is_file()
    (tmp_path / "a" / "records.jsonl.part").write_text("half")
    assert folder.delete("a") == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["b"]


def test_other_files_are_not_deleted(tmp_path: Path) -> None:
    """A person may have given a run the folder of a whole project."""
    path = write(tmp_path / "a")
    (path / "thesis.tex").write_text("years of work")
    (path / "losses" / "plot.png").write_bytes(b"png")
    (path / "rewards").mkdir()
    (path / "rewards" / "right-v1.py").write_text("...")
    (path / "rewinds" / "001").mkdir(parents=True)
    (path / "rewinds" / "notes").write_text("mine")
    assert RunFolder(tmp_path).delete("a") == ["losses", "rewinds", "thesis.tex"]
    assert [entry.name for entry in (path / "rewinds").iterdir()] == ["notes"]
    assert (path / "thesis.tex").read_text() == "years of work"
    assert [entry.name for entry in (path / "losses").iterdir()] == ["plot.png"]
    with pytest.raises(RunError, match="a holds no run"):
        RunFolder(tmp_path).delete("a")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../other", "a/..", "a/../../other", "/etc", "a\\b", ".hidden", "a\0", "no"]
)
def test_only_names_of_runs_in_the_folder_are_accepted(tmp_path: Path, name: str) -> None:
    write(tmp_path / "other")
    write(tmp_path / "runs" / "a")
    write(tmp_path / "runs" / ".hidden")
    before = sorted(tmp_path.rglob("*"))
    folder = RunFolder(tmp_path / "runs")
    for act in (folder.delete, folder.open, lambda name: folder.note(name, "x")):
        with pytest.raises(RunError, match=r"cannot name a run of|has no run"):
            act(name)
    assert sorted(tmp_path.rglob("*")) == before


def test_nothing_is_changed_through_a_link(tmp_path: Path) -> None:
    real = write(tmp_path / "elsewhere" / "real")
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "link").symlink_to(real)
    folder = RunFolder(tmp_path / "runs")
    assert one(folder, "link").steps == 30  # reading is fine
    for act in (folder.delete, lambda name: folder.note(name, "x")):
        with pytest.raises(RunError, match="link is a link to somewhere else"):
            act("link")
    # Nor through links inside a run: they go, and what they lead to stays.
    inner = write(tmp_path / "runs" / "a")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious.py").write_text("kept")
    for file in (inner / "losses").iterdir():
        file.unlink()
    (inner / "losses").rmdir()
    (inner / "losses").symlink_to(outside)
    (inner / NOTE).symlink_to(outside / "precious.py")
    assert folder.delete("a") == ["losses"]
    assert (outside / "precious.py").read_text() == "kept"
    assert (real / "run.json").exists()


def test_note_is_not_written_through_a_link(tmp_path: Path) -> None:
    path = write(tmp_path / "a")
    (tmp_path / "precious").write_text("kept")
    (path / NOTE).symlink_to(tmp_path / "precious")
    RunFolder(tmp_path).note("a", "mine")
    assert (tmp_path / "precious").read_text() == "kept"
    assert (path / NOTE).read_text() == "mine"


def test_run_that_is_being_written_is_not_deleted(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run(client=BigramClient(gate=(gate := Gate())), steps=3)
    run.start()
    gate.wait()
    folder, name = RunFolder(tmp_path), "run0"
    assert one(folder, name).status == "running"
    with pytest.raises(RunError, match="is being written by a run; stop that run first"):
        folder.delete(name)
    gate.open()
    run.pause()
    gate.open(5)
    assert run.wait(TIMEOUT)
    assert run.status == "paused"  # it may resume
    with pytest.raises(RunError, match="is being written by a run"):
        folder.delete(name)
    run.stop()
    assert folder.delete(name) == []
    assert not (tmp_path / name).exists()


def test_running_status_holds_only_while_a_process_has_the_lock(tmp_path: Path) -> None:
    path = write(tmp_path / "a", status="running")
    folder = RunFolder(tmp_path)
    assert one(folder, "a").status == "interrupted"
    lock = FolderLock(path)
    assert one(folder, "a").status == "running"
    with pytest.raises(RunError, match="is being written by a run"):
        folder.delete("a")
    del lock  # as a process that is killed; the lock file stays
    assert (path / LOCK_FILE).exists()
    assert one(folder, "a").status == "interrupted"
    assert folder.delete("a") == []
    assert not path.exists()


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks available"), NotImplementedError("no flock")])
def test_running_run_on_a_disk_without_locks_is_not_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def refuse(self: Any, *_: Any, **__: Any) -> None:
        Path(self.lock_file).touch()
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    for name, status in (("a", "running"), ("b", "finished"), ("c", "paused")):
        (write(tmp_path / name, status=status) / LOCK_FILE).touch()
    folder = RunFolder(tmp_path)
    assert one(folder, "a").status == "running"
    for name, status in (("a", "running"), ("c", "paused")):
        with pytest.raises(RunError, match=rf"the status of {name} is '{status}', and its disk has no locks"):
            folder.delete(name)
        assert (tmp_path / name / "records.jsonl").exists()
    assert folder.delete("b") == []
    assert not (tmp_path / "b").exists()


def test_open_reads_the_whole_run(tmp_path: Path) -> None:
    write(tmp_path / "a")
    assert [record.step for record in RunFolder(tmp_path).open("a").records] == list(range(1, 31))
    (tmp_path / "a" / "edits.jsonl").write_text('{"step": 1, "kind": "loss", "label": "x", "more": 2}\n{"step": 2}\n')
    saved = RunFolder(tmp_path).open("a")
    assert saved.edits == [Edit(1, "loss", "x")]
    assert saved.notes == ["edits.jsonl: line 2 cannot be read (kind is missing); it was left out"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="holds no run"):
        RunFolder(tmp_path).open("empty")
