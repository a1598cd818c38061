"""The runs of this process: which trainer is the latest, which losses are in use, and how all of them end."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Protocol

from ..threads import before_exit

if TYPE_CHECKING:
    from ..recipes.guarded_trainer import GuardedTrainer
    from ..recipes.plan import StepPlan
    from ..recipes.record import Status

__all__ = ["add_loop", "latest_trainer", "losses_in_use", "set_latest_trainer"]


class _Loop(Protocol):
    @property
    def status(self) -> Status: ...
    @property
    def plan(self) -> StepPlan: ...
    def request(self, status: Status) -> None: ...


_live_loops: weakref.WeakSet[_Loop] = weakref.WeakSet()
_latest_trainer: list[weakref.ref[GuardedTrainer]] = []  # of the run that started or resumed last


def add_loop(loop: _Loop) -> None:
    """Count this loop among the runs of this process, as long as it exists."""
    _live_loops.add(loop)


def set_latest_trainer(trainer: GuardedTrainer) -> None:
    """Take this trainer for the latest one, as long as it exists."""
    _latest_trainer[:] = [weakref.ref(trainer)]


def latest_trainer() -> GuardedTrainer | None:
    """Return the trainer of the run that started or resumed last, if it still exists."""
    return _latest_trainer[0]() if _latest_trainer else None


def losses_in_use() -> set[str]:
    """Return the names of the losses of all running and paused runs."""
    return {loop.plan.loss.name for loop in list(_live_loops) if loop.status in ("running", "paused")}


@before_exit
def _stop_all() -> None:
    for loop in list(_live_loops):
        loop.request("stopped")
