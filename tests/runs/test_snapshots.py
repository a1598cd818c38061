"""Snapshots: every bit comes back, the right ones are kept, and a failed one is said."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from mint_lab.errors import CheckpointError
from mint_lab.recipes.guarded_trainer import TrainerState
from mint_lab.runs.snapshots import SNAPSHOTS, RandomState, RunState, SnapshotFolder, fingerprint_of


class Weights:
    """A client's copy of its weights."""

    def __init__(self, text: str = "w", fail: Exception | None = None) -> None:
        self.text, self.fail = text, fail

    def write(self, folder: Path) -> None:
        if self.fail is not None:
            raise self.fail
        (folder / "weights").write_text(self.text)


def state(step: int, score: float | None = None, *, edited: bool = False, **entries: Any) -> RunState:
    trainer = TrainerState({"position": step, **entries}, {"before": torch.tensor([0.1, -1 / 3, float("-inf")])})
    return RunState(step, 1.5, {"steps": 9}, None, trainer, RandomState.now(), "hash", score, edited)


def test_a_state_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    value = 0.1 + 0.2
    given = state(7, score=1 / 3, value=value, tiny=5e-324)
    given.write(tmp_path)
    found = RunState.read(tmp_path)
    assert found.trainer.entries == given.trainer.entries
    assert found.trainer.entries["value"].hex() == value.hex()
    assert torch.equal(found.trainer.tensors["before"], given.trainer.tensors["before"])
    assert list(found.trainer.tensors) == ["before"]
    for name in ("step", "seconds", "plan", "previous_plan", "data", "score", "edited"):
        assert getattr(found, name) == getattr(given, name)


def test_the_generators_continue_where_they_were(tmp_path: Path) -> None:
    def draw() -> tuple[float, float, float, float]:
        return random.random(), random.gauss(0, 1), float(np.random.standard_normal()), float(torch.rand(()))

    draw()  # an odd number of normal draws: the second of a pair is kept for later
    state(1).write(tmp_path)
    expected = [draw() for _ in range(3)]
    draw()
    RunState.read(tmp_path).random.set()
    assert [draw() for _ in range(3)] == expected


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: (folder / "snapshot.json").unlink(), "is damaged: FileNotFoundError"),
        (lambda folder: (folder / "snapshot.json").write_text("{"), "is damaged: JSONDecodeError"),
        (lambda folder: (folder / "trainer.safetensors").write_bytes(b"x"), "is damaged: SafetensorError"),
        (
            lambda folder: save_file({"before": torch.tensor([torch.inf])}, folder / "trainer.safetensors"),
            "trainer.safetensors is damaged: before has the value inf, expected finite numbers",
        ),
        (lambda folder: edit(folder, step=None), "is damaged: KeyError: 'step'"),
        (lambda folder: edit(folder, format=99), "has format 99, this version reads up to 1; upgrade mint_lab"),
    ],
)
def test_a_damaged_snapshot_is_refused(damage: Any, message: str, tmp_path: Path) -> None:
    state(1).write(tmp_path)
    damage(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        RunState.read(tmp_path)


def edit(folder: Path, **changes: Any) -> None:
    entries = json.loads((folder / "snapshot.json").read_text()) | changes
    (folder / "snapshot.json").write_text(json.dumps({k: v for k, v in entries.items() if v is not None}))


def written(folder: SnapshotFolder, *states: RunState) -> list[int]:
    for each in states:
        folder.write(each, Weights())
    folder.close()
    return folder.steps()


def test_kept_are_the_first_the_last_those_at_edits_and_the_best(tmp_path: Path) -> None:
    scores = [None, 0.1, 0.9, 0.3, 0.9, 0.2, 0.4]
    states = [state(10 * k, score, edited=k == 3) for k, score in enumerate(scores)]
    # 0 first; 20 the earlier of two that are equally good; 30 at an edit; 50 and 60 last.
    assert written(SnapshotFolder(tmp_path), *states) == [0, 20, 30, 50, 60]
    assert written(SnapshotFolder(tmp_path, keep=1), state(70, 1.0)) == [0, 30, 70], "as another process sees it"
    assert written(SnapshotFolder(tmp_path, keep=None), state(80), state(90)) == [0, 30, 70, 80, 90]


def test_a_step_can_be_written_again(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path)
    folder.write(state(3, 0.5), Weights("old"))
    folder.write(state(3, 0.5, edited=True), Weights("new"))
    folder.close()
    assert (folder.path(3) / "weights").read_text() == "new"
    assert folder.read(3).edited


def test_what_it_refers_to_is_on_the_disk_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr("mint_lab.runs.snapshots.flush", lambda path: order.append(path.name))
    client = Weights()
    monkeypatch.setattr(client, "write", lambda folder: order.append("weights"))
    folder = SnapshotFolder(tmp_path)
    folder.write(state(1), client, [tmp_path / "records.jsonl"])
    folder.close()
    assert order == ["records.jsonl", "weights"]


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), CheckpointError("no room")])
def test_a_failed_snapshot_is_raised_by_the_next_call_and_leaves_the_others(fault: Exception, tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path)
    folder.write(state(1), Weights())
    folder.write(state(2), Weights(fail=fault))
    with pytest.raises(CheckpointError, match=r"no room|after step 2 cannot be written to .*No space left on device"):
        folder.close()
    assert folder.steps() == [1]
    assert [entry.name for entry in (tmp_path / SNAPSHOTS).iterdir()] == ["00000001"]
    assert written(folder, state(3)) == [1, 3], "it can be used again"


def test_without_a_further_thread_it_is_written_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    monkeypatch.setattr("mint_lab.runs.snapshots.ThreadPoolExecutor", refuse)
    folder = SnapshotFolder(tmp_path)
    folder.write(state(4), Weights())
    assert folder.steps() == [4]


def test_clean_removes_later_ones_and_what_was_killed(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path)
    written(folder, state(2), state(4), state(6))
    (tmp_path / SNAPSHOTS / ".00000008-x1").mkdir()
    folder.clean(4)
    assert sorted(entry.name for entry in (tmp_path / SNAPSHOTS).iterdir()) == ["00000002", "00000004"]


def test_delete_leaves_what_a_person_put_there(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path)
    written(folder, state(0), state(4))
    (tmp_path / SNAPSHOTS / "mine.txt").write_text("x")
    folder.delete()
    assert [entry.name for entry in (tmp_path / SNAPSHOTS).iterdir()] == ["mine.txt"]
    (tmp_path / SNAPSHOTS / "mine.txt").unlink()
    written(folder, state(2))
    folder.delete()
    assert list(tmp_path.iterdir()) == []


def test_an_empty_folder_has_none(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path)
    assert (folder.steps(), folder.latest()) == ([], None)
    folder.clean(3)
    folder.close()
    assert list(tmp_path.iterdir()) == []


def test_a_job_without_a_fingerprint_has_an_empty_one() -> None:
    assert fingerprint_of(object()) == ""
