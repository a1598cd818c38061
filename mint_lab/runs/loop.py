"""The worker behind a run: a state machine, one thread while there is something to do, and the rules between the two.

- The worker takes the current plan when a step begins and holds to it; an edit, from any thread, only replaces it.
- What a step did is on disk and in ``records`` before anyone is told.
- Every change of status happens with the lock held, and the worker makes no step after it has left "running".
- The thread lives only while the run is running: a paused run that is forgotten can be collected.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, RunError
from .bell import Bell
from .diagnosis import Diagnosis
from .failure import RunFailure, describe
from .plan import Plan
from .record import Edit, LossVersion, Status, StepRecord

if TYPE_CHECKING:
    from .store import RunStore
    from .trainer import Trainer

__all__ = ["Loop", "latest_trainer"]

_live: weakref.WeakSet[Loop] = weakref.WeakSet()
_latest: list[weakref.ref[Trainer]] = []  # of the run that was loaded last


class Loop:
    """Steps, one after another, as long as it is allowed to.

    Args:
        name: of the thread.
        plan: for the first step.
        load: gives the trainer; called on the worker before the first step.
        open_store: gives the run's folder; called once, after ``load``.
        summary: what the folder says of the run as a whole; called with the lock held.
        eval_every: steps between evaluations.

    Attributes:
        plan: what the next step will be made with; replaced through :meth:`edit`.
        status, error: as :class:`mint_lab.runs.run.Run` explains.
        records, edits, losses: append-only.
        notes: what was noteworthy while loading, in plain words.
        bell: rings after every change.
    """

    def __init__(
        self,
        name: str,
        plan: Plan,
        *,
        load: Callable[[], Trainer],
        open_store: Callable[[], RunStore],
        summary: Callable[[], dict[str, Any]],
        eval_every: int,
    ) -> None:
        self.name = name
        self.plan = plan
        self.status: Status = "ready"
        self.error: RunFailure | None = None
        self.records: list[StepRecord] = []
        self.edits: list[Edit] = []
        self.losses: list[LossVersion] = []
        self.notes: list[str] = []
        self.bell = Bell()
        self._load, self._open_store, self._summary = load, open_store, summary
        self._eval_every = eval_every
        self._store: RunStore | None = None
        self._diagnosis = Diagnosis()
        self._changed = threading.Condition()
        self._halt: Status | None = None  # asked for: "paused" or "stopped" after the current step
        self._budget: int | None = None  # steps still to make before pausing; None for no limit
        self._ran: Plan | None = None  # what the last step that succeeded was made with
        self._taken: Plan | None = None  # what the step in hand is made with
        self._clock = 0.0  # seconds of running before the present stretch
        self._since: float | None = None  # when the present stretch of running began
        _live.add(self)

    @property
    def seconds(self) -> float:
        """Time spent running, without loading and pauses."""
        with self._changed:
            return self._clock + (time.perf_counter() - self._since if self._since is not None else 0.0)

    # -- any thread ----------------------------------------------------------------------------------------------------

    def go(self, budget: int | None) -> None:
        """Run: ``budget`` steps, or to the end.

        Raises:
            RunError: the run is stopped or finished.
        """
        with self._changed:
            if self.status == "stopped":
                raise RunError("this run was stopped, which is final; make a new Run, and pause() one to go on with")
            if self.status == "finished":
                raise RunError(
                    f"this run is finished: {len(self.records)} of {self.plan.steps} steps are made; "
                    f"give it more with run.set(steps={2 * self.plan.steps}), then start() again"
                )
            if self.status == "running":
                self._halt = None if self._halt == "paused" else self._halt
            else:
                self._launch()
            self._budget = budget
        self.bell.ring()

    def ask(self, halt: Status) -> None:
        """Be ``halt`` ("paused" or "stopped") after the current step."""
        with self._changed:
            if self.status == "running":
                self._halt = "stopped" if self._halt == "stopped" else halt
            elif halt == "stopped" and self.status in ("ready", "paused"):
                self._rest("stopped")
        self.bell.ring()

    def edit(self, change: Callable[[Plan], Plan]) -> None:
        """Replace the plan by ``change(plan)``; what that raises leaves it as it is.

        Raises:
            ConfigError: the new plan has fewer steps than are made.
        """
        with self._changed:
            plan, done = change(self.plan), len(self.records)
            if plan.steps < done:
                raise ConfigError(f"steps is {plan.steps}, but {done} are made already")
            self.plan = plan
            if self.status == "finished" and plan.steps > done:
                self.status = "paused"
        self.bell.ring()

    def wait(self, timeout: float | None) -> bool:
        """Wait until the status is not "running"; False when ``timeout`` seconds were not enough."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while self.status == "running":
                left = 0.5 if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, 0.5))  # in slices: not every platform interrupts a wait without end
        return True

    def _launch(self) -> None:
        # A copied context: what the worker sends then belongs to the cell or the page that started it.
        worker = threading.Thread(
            target=contextvars.copy_context().run, args=(self._work,), daemon=True, name=f"mint_lab {self.name}"
        )
        before = self.status, self.error
        self.status, self.error, self._halt = "running", None, None
        try:
            worker.start()
        except RuntimeError:
            self.status, self.error = before
            raise

    def _rest(self, status: Status) -> None:
        """Be ``status``, which is not "running". Call with the lock held; the worker makes no step after this."""
        if self._since is not None:
            self._clock += time.perf_counter() - self._since
            self._since = None
        self.status, self._halt, self._budget = status, None, None
        if self._store is not None:
            # A full disk must not hide the status; the records say how far the run came.
            with contextlib.suppress(OSError):
                self._store.write_settings(self._summary())
                self._store.close()
        self._changed.notify_all()

    # -- the worker ----------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self._taken = None
            trainer, store = self._begin()
            while self._may_step():
                self._one_step(trainer, store)
                self.bell.ring()
        except BaseException as error:  # also SystemExit raised by a loss: never a silent death
            failure = describe(error, self._taken.loss if self._taken else None)
            with self._changed:
                self.error = failure
                self._rest(self._halt or "paused")
        self.bell.ring()

    def _begin(self) -> tuple[Trainer, RunStore]:
        trainer = self._load()
        _latest[:] = [weakref.ref(trainer)]
        self._taken = self.plan
        if not trainer.baseline:
            trainer.measure_baseline(self._taken)
        if self._store is None:
            self._store = self._open_store()
        with self._changed:
            self._store.write_settings(self._summary())
            self._since = time.perf_counter()
        self.bell.ring()
        return trainer, self._store

    def _may_step(self) -> bool:
        with self._changed:
            if len(self.records) >= self.plan.steps:
                self._rest("finished")
            elif self._halt is not None or self._budget == 0:
                self._rest(self._halt or "paused")
            self._taken = self.plan
            return self.status == "running"

    def _one_step(self, trainer: Trainer, store: RunStore) -> None:
        assert self._taken is not None
        plan, number = self._taken, len(self.records) + 1
        record = trainer.step(
            number,
            plan,
            evaluate=number % self._eval_every == 0,
            last=number >= plan.steps,
            started=time.perf_counter() - self.seconds,
        )
        warnings = self._diagnosis.update([*self.records[-self._diagnosis.window :], record])
        record = replace(record, warnings=[*self.notes, *warnings] if number == 1 else warnings)
        edits = [] if self._ran is None else plan.edits_since(self._ran, number)
        fresh = self._ran is None or any(edit.kind == "loss" for edit in edits)
        spec = plan.loss
        losses = [LossVersion(number, spec.name, spec.version, spec.source, dict(plan.config))] if fresh else []
        try:
            for edit in edits:
                store.append_edit(edit)
            for version in losses:
                store.append_loss(version)
            store.append(record)
        finally:  # the model has made this step, whatever the disk says
            with self._changed:
                self.edits += edits
                self.losses += losses
                self.records.append(record)
                self._ran = plan
                if self._budget is not None:
                    self._budget -= 1


def latest_trainer() -> Trainer | None:
    """The trainer of the run that began or went on last, if it is still there."""
    return _latest[0]() if _latest else None


@atexit.register
def _stop_all() -> None:
    # A worker inside torch while the interpreter is torn down can crash the process.
    loops = list(_live)
    for loop in loops:
        loop.ask("stopped")
    for loop in loops:
        loop.wait(2.0)
