"""A run whose folder cannot be written for a while pauses, and loses nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mint_lab.runs import load_run
from mint_lab.runs.folder_lock import is_locked

from .conftest import TIMEOUT, finish
from .test_store import in_the_way


@pytest.mark.parametrize("steps", [12, 4])
@pytest.mark.parametrize("place", ["records.jsonl", "edits.jsonl", "losses.jsonl", "losses"])
def test_full_disk_pauses_the_run_and_loses_nothing(make_run: Any, place: str, steps: int) -> None:
    run = make_run(steps=steps)
    assert run.step(3).wait(TIMEOUT)
    run.set_loss("hinge")
    with in_the_way(run.folder / place):
        run.start()
        assert run.wait(TIMEOUT, check=False)
        assert run.status == "paused"
        assert place in run.error.message
        assert run.steps_done == 4  # the weights were updated
        if steps == 4:  # all are complete, but the run is not finished before the record is on disk
            assert run.start().wait(TIMEOUT, check=False)
            assert run.status == "paused"
            assert place in run.error.message
    finish(run)
    saved = load_run(run.folder)
    assert saved.notes == []
    assert (saved.edits, saved.losses) == (run.edits, run.losses)
    assert [edit.step for edit in run.edits] == [loss.step for loss in run.losses[1:]] == [4]
    assert [r.step for r in saved.records] == list(range(1, steps + 1))


def test_stop_on_a_full_disk_releases_the_folder(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run()
    assert run.step(3).wait(TIMEOUT)

    def full(*_: Any, **__: Any) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", full)
        run.stop()
    assert is_locked(run.folder) is not True
