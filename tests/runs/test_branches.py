"""Which steps a run has left, by hand: several rewinds, forks, and folders that are gone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mint_lab.recipes.record import Edit, Rewind, StepRecord
from mint_lab.runs.branches import MAX_BRANCHES, Branches, branches_of
from mint_lab.runs.entries import RunInfo
from mint_lab.runs.store import RunStore, load_parent


def record(step: int, time: float) -> StepRecord:
    return StepRecord(step, time, 0.1, 10, "dpo", 1, {"loss": time})


def branches(records: Any, edits: Any, rewinds: Any, parent: dict[str, Any]) -> Branches:
    return branches_of(records, edits, rewinds, parent, load_parent(parent))


def times(records: list[StepRecord]) -> list[float]:
    return [made.time for made in records]


def write(folder: Path, records: list[StepRecord], edits: tuple[Edit, ...] = ()) -> RunStore:
    store = RunStore(folder)
    store.write_info(RunInfo(name="the parent", recipe="preference", steps=9, status="paused"))
    for made in records:
        store.append(made, edits=[edit for edit in edits if edit.step == made.step])
    return store


# Steps 1 to 4 at times 1 to 4; back to 2, and 3 at time 13; back to 1, and 2, 3 at times 22, 23.
TWICE = [Rewind(2, [record(3, 3), record(4, 4)], []), Rewind(1, [record(2, 2), record(3, 13)], [])]
NOW = [record(1, 1), record(2, 22), record(3, 23)]


def test_each_branch_has_the_steps_that_it_had_in_common_with_the_run() -> None:
    """The first one passed through step 2 as it was then, which is in the second rewind, not in the run."""
    found = branches(NOW, [], TWICE, {})
    assert [(b.label, b.step, times(b.records)) for b in found.drawn] == [
        ("before rewind to 2", 2, [1, 2, 3, 4]),
        ("before rewind to 1", 1, [1, 2, 13]),
    ]
    assert found.left_out == 0


def test_edits_of_a_branch_are_its_own() -> None:
    """The run's edit of step 3 is not one of the branch, and the other way round."""
    early, left, new = Edit(2, "loss", "ipo v1"), Edit(3, "loss", "hinge v1"), Edit(3, "loss", "dpo v2")
    rewinds = [Rewind(2, [record(3, 3)], [left])]
    (branch,) = branches([record(1, 1), record(2, 2), record(3, 13)], [early, new], rewinds, {}).drawn
    assert branch.edits == [early, left]


def test_rewinds_to_one_step_have_numbers_and_only_the_latest_are_drawn() -> None:
    rewinds = [Rewind(1, [record(2, float(k))], []) for k in range(2, 7)]
    found = branches([record(1, 1)], [], rewinds, {})
    assert [b.label for b in found.drawn] == [f"before rewind to 1 ({k})" for k in (3, 4, 5)]
    assert (len(found.drawn), found.left_out) == (MAX_BRANCHES, 2)


def test_a_branch_is_not_drawn_while_its_common_steps_are_computed_again() -> None:
    """After a rewind to 2 without a snapshot there, the run is at step 1 for a moment."""
    rewinds = [Rewind(2, [record(3, 3)], [])]
    assert branches([record(1, 1)], [], rewinds, {}).drawn == []
    assert len(branches([record(1, 1), record(2, 12)], [], rewinds, {}).drawn) == 1
    from_the_start = [Rewind(0, [record(1, 1)], [])]
    assert len(branches([], [], from_the_start, {}).drawn) == 1


def test_a_fork_has_the_steps_of_its_parent(tmp_path: Path) -> None:
    edits = (Edit(3, "setting", "beta 2"),)
    write(tmp_path / "parent", [record(k, float(k)) for k in range(1, 6)], edits).close()
    parent = {"name": "the parent", "folder": str(tmp_path / "parent"), "step": 2}
    own = [record(1, 1), record(2, 2), record(3, 13)]
    (branch,) = branches(own, [], [], parent).drawn
    assert (branch.label, branch.step, times(branch.records)) == ("the parent", 2, [1, 2, 3, 4, 5])
    assert branch.edits == list(edits)
    # A rewind to an earlier step than that of the fork: from there on the two differ.
    rewound = branches([record(1, 1)], [], [Rewind(1, own[1:], [])], parent)
    assert [(b.label, b.step) for b in rewound.drawn] == [("the parent", 1), ("before rewind to 1", 1)]


def test_a_parent_that_was_rewound_since_is_drawn_as_it_was(tmp_path: Path) -> None:
    """The fork began at step 3 of time 3; the parent has gone back to 1 and has another step 2 and 3 now."""
    store = write(tmp_path / "parent", [record(k, float(k)) for k in range(1, 6)])
    store.rewind(1, past=1)
    for made in (record(2, 12), record(3, 13), record(4, 14)):
        store.append(made)
    store.close()
    parent = {"name": "the parent", "folder": str(tmp_path / "parent"), "step": 3}
    own = [record(k, float(k)) for k in (1, 2, 3)]
    (branch,) = branches(own, [], [], parent).drawn
    assert times(branch.records) == [1, 2, 3, 4, 5]
    later = branches([record(1, 1)], [], [], parent | {"step": 1})
    assert times(later.drawn[0].records) == [1, 12, 13, 14]


def test_a_parent_without_later_steps_or_without_a_folder_is_not_drawn(tmp_path: Path) -> None:
    write(tmp_path / "parent", [record(1, 1)]).close()
    at_its_end = {"name": "p", "folder": str(tmp_path / "parent"), "step": 1}
    gone = {"name": "p", "folder": str(tmp_path / "gone"), "step": 1}
    for parent in (at_its_end, gone, {"folder": 3, "step": 1}, {"folder": str(tmp_path), "step": "1"}, {}):
        assert branches([record(1, 1)], [], [], parent).drawn == []
