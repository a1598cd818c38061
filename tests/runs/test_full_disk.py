"""A run whose folder cannot be written for a while pauses, and loses nothing."""

from __future__ import annotations

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from mint_lab.runs import load_run
from mint_lab.runs.folder_lock import is_locked
from mint_lab.runs.run_files import LineFile

from ..waiting import Gate
from .bigram import BigramClient
from .conftest import TIMEOUT, finish
from .test_store import in_the_way


@pytest.mark.parametrize("steps", [12, 4])
@pytest.mark.parametrize("place", ["records.jsonl", "edits.jsonl", "losses.jsonl"])
def test_full_disk_pauses_the_run_and_loses_nothing(
    make_run: Any, place: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(steps=steps)
    assert run.step(3).wait(TIMEOUT)
    run.set_loss("hinge")
    real = LineFile._append

    def append(file: LineFile[Any], handle: Any, lines: bytes) -> None:
        """Write a part of the line, as a disk does that has no room for more."""
        if file.path.name != place:
            return real(file, handle, lines)
        handle.write(lines[:7])
        handle.truncate(file._size)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as full:
        full.setattr(LineFile, "_append", append)
        run.start()
        assert run.wait(TIMEOUT, check=False)
        assert run.status == "paused"
        found = run.error.message
        assert found.startswith(f"{run.folder / place} cannot be written: No space left on device; ")
        assert found.endswith(" for example delete old runs, then continue the run: nothing is lost")
        assert run.steps_done == 4  # the weights were updated
        if steps == 4:  # all are complete, but the run is not finished before the record is on disk
            assert run.start().wait(TIMEOUT, check=False)
            assert run.status == "paused"
            assert place in run.error.message
    finish(run)
    saved = load_run(run.folder)
    assert (saved.notes, run.notes) == ([], [])
    assert (saved.edits, saved.losses) == (run.edits, run.losses)
    assert [edit.step for edit in run.edits] == [loss.step for loss in run.losses[1:]] == [4]
    assert [r.step for r in saved.records] == list(range(1, steps + 1))


@pytest.mark.parametrize("place", ["records.jsonl", "losses.jsonl", "losses"])
def test_folder_that_cannot_be_restored_pauses_the_run(make_run: Any, place: str) -> None:
    run = make_run()
    assert run.step(3).wait(TIMEOUT)
    with in_the_way(run.folder / place):
        run.start()
        assert run.wait(TIMEOUT, check=False)
        assert (run.status, run.steps_done) == ("paused", 3)
        assert place in run.error.message
        assert "make it writable again" in run.error.message
    finish(run)
    saved = load_run(run.folder)
    assert saved.notes == []
    assert (saved.records, saved.losses) == (run.records, run.losses)
    assert any(place in note and "written again from memory" in note for note in saved.info.notes)


@pytest.mark.parametrize("change", ["delete", "truncate"])
def test_a_running_run_restores_its_folder_and_says_so(make_run: Any, change: str) -> None:
    gate = Gate()
    run = make_run(client=BigramClient(gate=gate)).start()
    for _ in range(3):
        gate.wait()
        gate.open()
    gate.wait()
    if change == "delete":
        shutil.rmtree(run.folder)
    else:
        (run.folder / "records.jsonl").write_bytes(b"")
    gate.open(1000)
    assert run.wait(TIMEOUT)
    saved = load_run(run.folder)
    assert (saved.notes, saved.info.status) == ([], "finished")
    assert (saved.records, saved.losses) == (run.records, run.losses)
    expected = "was deleted or moved while" if change == "delete" else "records.jsonl has 0 bytes, expected "
    (note,) = (note for note in run.notes if expected in note)
    assert saved.info.notes == run.notes
    assert [record.step for record in run.records if note in record.warnings] == [4]
    assert is_locked(run.folder) is False


def test_stop_on_a_full_disk_releases_the_folder(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    assert run.step(3).wait(TIMEOUT)

    def full(*_: Any, **__: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        run.stop()
    assert run.notes[-1].startswith("The folder does not say that the run is stopped: ")
    assert is_locked(run.folder) is not True
