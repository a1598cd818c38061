"""The earlier results of a run that its advice compares with the last ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import TYPE_CHECKING

from ..recipes.record import StepRecord

if TYPE_CHECKING:
    from ..recipes.base import Recipe

__all__ = ["TrendHistory"]

FIRST, SAMPLED = 25, 50  # results from the beginning; at most as many, evenly spaced, from between these and the last


class TrendHistory:
    """The results of a run that compare: the first ones, an even sample of the middle, and the last ones.

    A recipe says which records have a result, and which results compare (:meth:`Recipe.trend_key
    <mint_lab.recipes.base.Recipe.trend_key>`). The history has a fixed size, however long the run is.

    Args:
        recipe: The recipe of the run; None if there is none, and so no results.
        last: Number of the last results that are kept without gaps.
    """

    def __init__(self, recipe: Recipe | None, last: int) -> None:
        self._recipe = recipe
        self._last: deque[StepRecord] = deque(maxlen=last)
        self._begin(None)

    def _begin(self, key: Hashable) -> None:
        self._key = key
        self._first: list[StepRecord] = []
        self._sampled: list[StepRecord] = []
        self._stride, self._skipped = 1, 0  # of `_sampled`; results since the last one that was sampled
        self._last.clear()

    def add(self, record: StepRecord) -> None:
        """Add a record, if it has a result. A result that does not compare with those before starts a new history."""
        key = None if self._recipe is None else self._recipe.trend_key(record)
        if key is None:
            return
        if key != self._key:
            self._begin(key)
        if len(self._first) < FIRST:
            self._first.append(record)
            return
        if len(self._last) == self._last.maxlen:
            self._sample(self._last[0])
        self._last.append(record)

    def before(self, step: int) -> list[StepRecord]:
        """Return the kept records of steps before ``step``, in order."""
        return [record for record in (*self._first, *self._sampled, *self._last) if record.step < step]

    def _sample(self, record: StepRecord) -> None:
        self._skipped += 1
        if self._skipped < self._stride:
            return
        self._sampled.append(record)
        self._skipped = 0
        if len(self._sampled) > SAMPLED:
            self._sampled = self._sampled[1::2]  # without the last one, which is one stride ahead of the new last one
            self._skipped, self._stride = self._stride, 2 * self._stride
