"""Steps that a run has left: those before a rewind, and those of its parent after a fork. Charts draw them faint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from ..recipes.record import Edit, Rewind, StepRecord

__all__ = ["MAX_BRANCHES", "Branch", "Branches", "branches_of"]

MAX_BRANCHES = 3
"""Branches that are drawn, the latest; earlier ones are only counted."""

T = TypeVar("T", StepRecord, Edit)


@dataclass(frozen=True)
class Branch:
    """A course of steps that differs from the run's own from some step on.

    Attributes:
        label: What a legend calls it.
        step: The last step that it has in common with the run; it is drawn from there.
        records: Its records, from the first step: a smoothed curve begins there.
        edits: Its edits, likewise.
    """

    label: str
    step: int
    records: list[StepRecord]
    edits: list[Edit]


@dataclass(frozen=True)
class Branches:
    """The branches that are drawn, the latest last, and the number of those that are left out."""

    drawn: list[Branch] = field(default_factory=list)
    left_out: int = 0


class RecordedRun(Protocol):
    """The part of a run that its forks draw."""

    @property
    def records(self) -> Sequence[StepRecord]: ...
    @property
    def edits(self) -> Sequence[Edit]: ...
    @property
    def rewinds(self) -> Sequence[Rewind]: ...


def branches_of(
    records: Sequence[StepRecord],
    edits: Sequence[Edit],
    rewinds: Sequence[Rewind],
    parent: Mapping[str, Any],
    recorded_parent: RecordedRun | None,
) -> Branches:
    """Return the branches of a run.

    While a run that was rewound computes steps again, the branch that it has left is not drawn.

    Args:
        records, edits, rewinds, parent: As in :class:`~mint_lab.runs.run.Run`.
        recorded_parent: The parent, as :func:`~mint_lab.runs.store.load_parent` reads it; None if there is none.
    """
    courses = list(_courses(records, edits, rewinds))
    found = [
        Branch(label, rewind.step, *course)
        for label, rewind, course in zip(_labels(rewinds), rewinds, reversed(courses), strict=True)
        if _has_common_steps(course, rewind.step)
    ]
    if recorded_parent is not None:
        found[:0] = _parent_branch(records, rewinds, parent, recorded_parent)
    return Branches(found[-MAX_BRANCHES:], max(len(found) - MAX_BRANCHES, 0))


Course = tuple[list[StepRecord], list[Edit]]


def _courses(records: Sequence[StepRecord], edits: Sequence[Edit], rewinds: Sequence[Rewind]) -> Iterator[Course]:
    """Yield records and edits as they were before each rewind, the last rewind first."""
    for rewind in reversed(rewinds):
        records = _joined(records, rewind.step, rewind.records)
        edits = _joined(edits, rewind.step, rewind.edits)
        yield records, edits


def _joined(earlier: Sequence[T], step: int, later: Sequence[T]) -> list[T]:
    return [*(entry for entry in earlier if entry.step <= step), *later]


def _has_common_steps(course: Course, step: int) -> bool:
    """Return False while a run that was rewound computes the steps up to there again."""
    return step == 0 or any(record.step == step for record in course[0])


def _labels(rewinds: Sequence[Rewind]) -> list[str]:
    """Name each rewind by its step; a number tells apart those to the same step."""
    seen: Counter[int] = Counter()
    labels: list[str] = []
    for rewind in rewinds:
        seen[rewind.step] += 1
        repeated = f" ({seen[rewind.step]})" if seen[rewind.step] > 1 else ""
        labels.append(f"before rewind to {rewind.step}{repeated}")
    return labels


def _parent_branch(
    records: Sequence[StepRecord], rewinds: Sequence[Rewind], parent: Mapping[str, Any], recorded: RecordedRun
) -> list[Branch]:
    """Return the steps of the parent after the fork; nothing if it has none."""
    step = parent["step"]
    course = _forked_course(recorded, [record for record in records if record.step <= step])
    common = min([step, *(rewind.step for rewind in rewinds)])
    if not course[0] or course[0][-1].step <= common:
        return []
    return [Branch(str(parent["name"]), common, *course)]


def _forked_course(parent: RecordedRun, copied: Sequence[StepRecord]) -> Course:
    """Return the course of the parent that the fork began on: the parent may have been rewound since.

    It has the most of the records that were copied from it; their times tell repeated steps apart.
    """
    times = {record.step: record.time for record in copied}

    def common_steps(course: Course) -> int:
        return sum(times.get(record.step) == record.time for record in course[0])

    now = list(parent.records), list(parent.edits)
    return max([now, *_courses(parent.records, parent.edits, parent.rewinds)], key=common_steps)
