"""Faint curves in a snapshot: their series, their size, and where smoothing restarts."""

from __future__ import annotations

from mint_lab.recipes.record import Edit
from mint_lab.runs.branches import Branch, Branches
from mint_lab.ui.branch_data import MAX_BRANCH_BUCKETS, branch_data
from tests.ui.listener import points
from tests.ui.scripted import record


def test_a_branch_has_all_curves_and_the_steps_of_another_loss() -> None:
    records = [record(step) for step in range(1, 5)]
    edits = [Edit(2, "loss", "hinge v1"), Edit(3, "setting", "beta 2"), Edit(4, "loss", "ipo v1")]
    (data,) = branch_data(Branches([Branch("before\ud800", 2, records, edits)]))
    assert (data["label"], data["step"], data["breaks"]) == ("before\\ud800", 2, [2, 4])
    loss = next(series for series in data["series"] if series["name"] == "loss")
    assert [step for step, _ in points(loss)] == [1, 2, 3, 4]


def test_the_size_of_a_branch_is_bounded() -> None:
    """1,000 steps are in 250 buckets of 4."""
    (data,) = branch_data(Branches([Branch("long", 500, [record(step) for step in range(1, 1001)], [])]))
    loss = next(series for series in data["series"] if series["name"] == "loss")
    assert (loss["width"], loss["points"], len(loss["steps"]) // 8) == (4, 1000, 250)
    assert MAX_BRANCH_BUCKETS >= 250
