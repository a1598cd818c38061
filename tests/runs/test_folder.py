"""A folder of runs: what is told of each, and that nothing but a run is ever changed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mint_lab.errors import RunError
from mint_lab.recipes.record import Edit, LossVersion
from mint_lab.runs import Run
from mint_lab.runs import folder as module
from mint_lab.runs.folder import NOTE, POINTS, RunFolder, RunSummary
from mint_lab.runs.folder_lock import Hold, is_held
from mint_lab.runs.store import RunStore

from .bigram import BigramClient, Gate
from .conftest import TIMEOUT, finish
from .test_store import RECORDS

HOSTILE = "<img src=x onerror=alert(1)>\u202egnp.exe \U0001f642"


HUGE = b"1" + b"0" * 400  # JSON holds it, a float does not


def write(folder: Path, steps: int = 30, every: int = 10, **settings: Any) -> Path:
    """A finished run of ``steps`` steps, whose accuracy rises by 0.01 a step."""
    store = RunStore(folder)
    known = {"name": "mine", "recipe": "preference", "seed": 7, "steps": 40, "status": "stopped"}
    store.write_settings({**known, "baseline": {"pair_accuracy": 0.5, "loss": 1.0}, **settings})
    for step in range(1, steps + 1):
        held_out = {"pair_accuracy": 0.5 + step / 100} if step % every == 0 else {}
        begun = {1: 1, 5: 2}.get(step)  # the versions of the loss
        losses = [LossVersion(step, "mine", begun, "def mine(): ...", {})] if begun else []
        store.append(replace(RECORDS[0], step=step, held_out=held_out), losses=losses)
    store.close()
    return folder


def one(folder: RunFolder, name: str) -> RunSummary:
    return next(summary for summary in folder.list() if summary.name == name)


def test_a_run_is_told_at_a_glance(tmp_path: Path) -> None:
    write(tmp_path / "a")
    (summary,) = RunFolder(tmp_path).list()
    assert (summary.name, summary.title, summary.recipe, summary.seed) == ("a", "mine", "preference", 7)
    assert summary.losses == ["mine v1", "mine v2"]
    assert (summary.status, summary.steps, summary.steps_total) == ("stopped", 30, 40)
    assert (summary.before, summary.final) == ({"pair_accuracy": 0.5, "loss": 1.0}, {"pair_accuracy": 0.8})
    assert (summary.main, summary.curve) == ("pair_accuracy", [0.5, 0.6, 0.7, 0.8])
    assert summary.changed == pytest.approx((tmp_path / "a" / "records.jsonl").stat().st_mtime, abs=1)
    assert summary.problem == ""


def test_a_real_run_is_told_as_it_is(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = finish(make_run(steps=12, name="mine"))
    summary = one(RunFolder(tmp_path), run.folder.name)  # type: ignore[union-attr]
    assert (summary.status, summary.steps, summary.losses) == ("finished", 12, ["pairwise_preference v1"])
    assert summary.final == run.records[-1].held_out
    assert summary.before == run.baseline
    told = [r.held_out["pair_accuracy"] for r in run.records if r.held_out]
    assert summary.curve == [run.baseline["pair_accuracy"], *told]


def test_a_long_curve_keeps_its_ends(tmp_path: Path) -> None:
    write(tmp_path / "a", steps=200, every=1)
    curve = one(RunFolder(tmp_path), "a").curve
    assert len(curve) == POINTS + 1
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
        ("run.json", b"[1]", "run.json holds a list, no settings"),
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
def test_a_damaged_run_is_listed_and_never_raises(tmp_path: Path, file: str, content: bytes, problem: str) -> None:
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


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = write(tmp_path / "a") / "records.jsonl"
    path.write_bytes(path.read_bytes() + b'{"step": 31, "held_out": {"pair_accuracy": 0.9')
    summary = one(RunFolder(tmp_path), "a")
    assert (summary.steps, summary.final) == (30, {"pair_accuracy": 0.8})
    path.write_bytes(path.read_bytes()[:-5])
    assert one(RunFolder(tmp_path), "a").steps == 30


def test_what_has_not_changed_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_five_hundred_runs_are_read_by_their_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 240 records with 24 evaluations no more than the evaluations and the last are parsed."""
    first = write(tmp_path / "0", steps=240)
    for number in range(1, 500):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in ("run.json", "records.jsonl", "losses.jsonl"):
            os.link(first / name, folder / name)
    parsed = [0]
    inner = json.loads
    monkeypatch.setattr(module.json, "loads", lambda text: parsed.__setitem__(0, parsed[0] + 1) or inner(text))
    folder = RunFolder(tmp_path)
    assert len(folder.list()) == 500
    assert parsed[0] == 500 * (1 + 24 + 1 + 2)
    assert len(folder.list()) == 500
    assert parsed[0] == 500 * 28


# -- notes -------------------------------------------------------------------------------------------------------------


def test_a_note_stays_beside_the_run_whatever_it_says(tmp_path: Path) -> None:
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
    folder.note("a", " \n")
    assert not (path / NOTE).exists()
    assert sorted(entry.name for entry in path.iterdir()) == ["losses", "losses.jsonl", "records.jsonl", "run.json"]


def test_a_note_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_run_goes_with_all_its_files(tmp_path: Path) -> None:
    write(tmp_path / "a")
    write(tmp_path / "b")
    folder = RunFolder(tmp_path)
    folder.note("a", "gone soon")
    assert folder.delete("a") == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["b"]


def test_what_is_not_a_runs_own_stays(tmp_path: Path) -> None:
    """Somebody may have told a run to record in the folder of a whole project."""
    path = write(tmp_path / "a")
    (path / "thesis.tex").write_text("years of work")
    (path / "losses" / "plot.png").write_bytes(b"png")
    (path / "rewards").mkdir()
    (path / "rewards" / "right-v1.py").write_text("...")
    assert RunFolder(tmp_path).delete("a") == ["losses", "thesis.tex"]
    assert (path / "thesis.tex").read_text() == "years of work"
    assert [entry.name for entry in (path / "losses").iterdir()] == ["plot.png"]
    with pytest.raises(RunError, match="a holds no run"):
        RunFolder(tmp_path).delete("a")


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../other", "a/..", "a/../../other", "/etc", "a\\b", ".hidden", "a\0", "no"]
)
def test_only_names_of_runs_in_the_folder_are_taken(tmp_path: Path, name: str) -> None:
    write(tmp_path / "other")
    write(tmp_path / "runs" / "a")
    write(tmp_path / "runs" / ".hidden")
    before = sorted(tmp_path.rglob("*"))
    folder = RunFolder(tmp_path / "runs")
    for act in (folder.delete, folder.open, lambda name: folder.note(name, "x")):
        with pytest.raises(RunError, match=r"names no run of|has no run"):
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


def test_a_note_is_not_written_through_a_link(tmp_path: Path) -> None:
    path = write(tmp_path / "a")
    (tmp_path / "precious").write_text("kept")
    (path / NOTE).symlink_to(tmp_path / "precious")
    RunFolder(tmp_path).note("a", "mine")
    assert (tmp_path / "precious").read_text() == "kept"
    assert (path / NOTE).read_text() == "mine"


def test_a_run_that_is_being_written_is_not_deleted(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = make_run(client=BigramClient(gate=(gate := Gate())), steps=3)
    run.start()
    gate.wait()
    folder, name = RunFolder(tmp_path), "run0"
    assert one(folder, name).status == "running"
    with pytest.raises(RunError, match="is being written by a run; stop it first"):
        folder.delete(name)
    gate.open()
    run.pause()
    gate.open(5)
    assert run.wait(TIMEOUT)
    assert run.status == "paused"  # it may go on
    with pytest.raises(RunError, match="is being written by a run"):
        folder.delete(name)
    run.stop()
    assert folder.delete(name) == []
    assert not (tmp_path / name).exists()


def test_a_run_with_more_steps_holds_its_folder_again(make_run: Callable[..., Run], tmp_path: Path) -> None:
    run = finish(make_run(steps=2))
    assert run.folder is not None
    assert is_held(run.folder) is False
    run.set(steps=4)
    assert run.step().wait(TIMEOUT, check=True)
    assert run.status == "paused"
    assert is_held(run.folder) is True


def test_another_process_holds_its_folder_until_it_ends(tmp_path: Path) -> None:
    write(tmp_path / "a", status="running")
    folder = RunFolder(tmp_path)
    assert one(folder, "a").status == "interrupted"
    script = (
        "import sys, pathlib; from mint_lab.runs.folder_lock import Hold\n"
        "held = Hold(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "a")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert one(folder, "a").status == "running"
        with pytest.raises(RunError, match="is being written by a run"):
            folder.delete("a")
    finally:
        holder.kill()
        holder.communicate()
    deadline = time.monotonic() + 10
    while is_held(tmp_path / "a") and time.monotonic() < deadline:
        time.sleep(0.02)
    assert folder.delete("a") == []


def test_where_nobody_can_tell_a_running_run_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mint_lab.runs.folder_lock.fcntl", None)
    write(tmp_path / "a", status="running")
    write(tmp_path / "b", status="finished")
    assert is_held(tmp_path / "a") is None
    folder = RunFolder(tmp_path)
    assert one(folder, "a").status == "running"
    with pytest.raises(RunError, match=r"this system cannot tell; delete .* by hand"):
        folder.delete("a")
    assert folder.delete("b") == []


def test_a_hold_that_is_forgotten_is_none(tmp_path: Path) -> None:
    hold = Hold(tmp_path)
    assert is_held(tmp_path) is True
    del hold
    assert is_held(tmp_path) is False
    Hold(tmp_path / "nowhere").release()


def test_opening(tmp_path: Path) -> None:
    write(tmp_path / "a")
    assert [record.step for record in RunFolder(tmp_path).open("a").records] == list(range(1, 31))
    (tmp_path / "a" / "edits.jsonl").write_text('{"step": 1, "kind": "loss", "label": "x", "more": 2}\n{"step": 2}\n')
    saved = RunFolder(tmp_path).open("a")
    assert saved.edits == [Edit(1, "loss", "x")]
    assert saved.notes == ["edits.jsonl: line 2 cannot be read (kind is null, expected a text); it was left out"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(RunError, match="holds no run"):
        RunFolder(tmp_path).open("empty")
