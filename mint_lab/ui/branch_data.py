"""The faint curves of a run as a snapshot has them: steps that the run has left, or those of its parent."""

from __future__ import annotations

from ..runs.branches import Branch, Branches
from .history import History
from .messages import BranchData
from .state import columns_of
from .utf8 import as_utf8

__all__ = ["MAX_BRANCH_BUCKETS", "branch_data"]

MAX_BRANCH_BUCKETS = 256
"""Buckets of a faint curve, half of those of the run's own curves."""


def branch_data(branches: Branches) -> list[BranchData]:
    """Return the branches that are drawn, the latest last."""
    return [_branch(branch) for branch in branches.drawn]


def _branch(branch: Branch) -> BranchData:
    history = History(MAX_BRANCH_BUCKETS)
    for record in branch.records:
        history.add(record.step, columns_of(record))
    breaks = [edit.step for edit in branch.edits if edit.kind == "loss"]
    return BranchData(label=as_utf8(branch.label), step=branch.step, breaks=breaks, series=history.to_data())
