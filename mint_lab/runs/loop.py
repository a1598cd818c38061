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
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from ..data.rewards import REWARDS
from ..errors import ConfigError, RunError
from ..recipes.plan import StepPlan
from ..recipes.record import Edit, LossVersion, Status, StepRecord
from .advice import Diagnosis
from .failure import RunFailure, describe
from .notifier import Bell

if TYPE_CHECKING:
    from ..recipes.guarded_trainer import GuardedTrainer
    from .store import RunStore

__all__ = ["Loop", "latest_trainer", "losses_in_use"]

T = TypeVar("T")
Kind: TypeAlias = Literal["loss", "reward"]

_live: weakref.WeakSet[Loop] = weakref.WeakSet()
_latest: list[weakref.ref[GuardedTrainer]] = []  # of the run that was loaded last


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
        plan: StepPlan,
        *,
        load: Callable[[], GuardedTrainer],
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
        self._trainer: GuardedTrainer | None = None
        self._diagnosis = Diagnosis()
        self._changed = threading.Condition()
        self._asked: deque[Callable[[], None]] = deque()  # to be called between two steps
        self._stepping = threading.Lock()  # held through a step, and through what is called between two
        self._halt: Status | None = None  # asked for: "paused" or "stopped" after the current step
        self._budget: int | None = None  # steps still to make before pausing; None for no limit
        # The kind and name of the function whose failure paused the run, and the steps that were left then.
        self._mending: tuple[Kind, str, int | None] | None = None
        self._ran: StepPlan | None = None  # what the last step that succeeded was made with
        self._taken: StepPlan | None = None  # what the step in hand is made with
        self._begun = 0  # number of the step in hand, or of the last one
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
            elif halt == "paused":
                self._await_mending(None)  # whoever pauses a run that has failed wants it to stay so
            elif halt == "stopped" and self.status in ("ready", "paused"):
                self._rest("stopped")
        self.bell.ring()

    def edit(self, change: Callable[[StepPlan], StepPlan]) -> None:
        """Replace the plan by ``change(plan)``; what that raises leaves it as it is.

        Raises:
            ConfigError: the new plan would end at a step that is made or begun already, and so without the last
                evaluation.
        """
        with self._changed:
            plan, done = change(self.plan), len(self.records)
            if plan.steps < done:
                raise ConfigError(f"steps is {plan.steps}, but {done} are made already")
            begun = max(done, self._begun)
            if plan.steps != self.plan.steps and plan.steps <= begun:
                raise ConfigError(
                    f"steps is {plan.steps}, but {begun} are made or begun already, and the last step of a run ends "
                    f"with an evaluation on all held-out data: give {begun + 1} or more, or stop() to end here"
                )
            self.plan = plan
            if self.status == "finished" and plan.steps > done:
                self.status = "paused"
        self.bell.ring()

    def mended(self, kind: Kind, name: str) -> None:
        """That loss or reward was registered anew: go on, if it was its failure that paused the run."""
        with self._changed:
            awaited = self._mending
            if self.status != "paused" or awaited is None or awaited[:2] != (kind, name):
                return
            self._launch()
            self._budget = awaited[2]
        self.bell.ring()

    def between(self, job: Callable[[], None]) -> None:
        """Call ``job()``, which must not raise, once: between two steps, or at once while the run is not running."""
        self._asked.append(job)
        if self.status != "running":
            context = contextvars.copy_context()
            threading.Thread(target=context.run, args=(self._serve,), daemon=True, name="mint_lab between").start()

    def call(self, job: Callable[[], T]) -> Future[T]:
        """:meth:`between` for a job that gives a result, or raises."""
        future: Future[T] = Future()

        def carry_out() -> None:
            try:
                future.set_result(job())
            except BaseException as error:  # the asker's, not the run's; also a SystemExit, or nobody would hear of it
                future.set_exception(error)

        self.between(carry_out)
        return future

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

    def _await_mending(self, awaited: tuple[Kind, str, int | None] | None) -> None:
        self._mending = awaited
        if awaited is None and self.error is not None:
            self.error = replace(self.error, loss=None, reward=None)

    def _launch(self) -> None:
        # A copied context: what the worker sends then belongs to the cell or the page that started it.
        worker = threading.Thread(
            target=contextvars.copy_context().run, args=(self._work,), daemon=True, name=f"mint_lab {self.name}"
        )
        before = self.status, self.error
        self.status, self.error, self._halt, self._mending = "running", None, None, None
        try:
            worker.start()
        except RuntimeError:
            self.status, self.error = before
            raise

    def _rest(self, status: Status) -> None:
        """Be ``status``, which is not "running". Call with the lock held; the worker makes no step after this."""
        if status == "stopped":
            self._keep_unevaluated()
        if self._since is not None:
            self._clock += time.perf_counter() - self._since
            self._since = None
        self.status, self._halt, self._budget, self._begun = status, None, None, len(self.records)
        if self._store is not None:
            # A full disk must not hide the status; the records say how far the run came.
            with contextlib.suppress(OSError):
                self._store.write_settings(self._summary())
            with contextlib.suppress(OSError):
                self._store.close(ended=status in ("stopped", "finished"))
        self._changed.notify_all()

    # -- the worker ----------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self._taken = None
            trainer, store = self._with_newest(self._begin)
            while self._may_step():
                with self._stepping:
                    self._with_newest(lambda: self._one_step(trainer, store))
                self.bell.ring()
                if self._asked:
                    self._serve()
        except BaseException as error:  # also SystemExit raised by a loss: never a silent death
            failure = describe(error, self._taken.loss if self._taken else None)
            with self._changed:
                self.error = failure
                halt, left = self._halt, self._budget
                self._rest(halt or "paused")
                awaited: tuple[Kind, str, int | None] | None = None
                if halt is None and failure.loss is not None:
                    awaited = "loss", failure.loss, left
                elif halt is None and failure.reward is not None:
                    awaited = "reward", failure.reward.name, left
                self._await_mending(awaited)
        self.bell.ring()
        self._serve()

    def _serve(self) -> None:
        with self._stepping, contextlib.suppress(IndexError):
            while True:
                self._asked.popleft()()

    def _with_newest(self, job: Callable[[], T]) -> T:
        """Do ``job``; where its loss or reward fails, and there is a newer one meanwhile, do it with that."""
        while True:
            try:
                return job()
            except BaseException as error:
                failure = describe(error, self._taken.loss if self._taken else None)
                lost = failure.loss is not None and self._superseded()
                reward = failure.reward
                lost |= reward is not None and REWARDS.get(reward.name, reward) != reward
                if self._halt is not None or not lost:
                    raise
                self._taken = self.plan

    def _superseded(self) -> bool:
        return self._taken is not None and self.plan.loss is not self._taken.loss

    def _asked_to_break_off(self) -> bool:
        return self._halt is not None or self._superseded()

    def _begin(self) -> tuple[GuardedTrainer, RunStore]:
        trainer = self._trainer = self._load()
        _latest[:] = [weakref.ref(trainer)]
        self._taken = self.plan
        trainer.asked = self._asked_to_break_off
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
            self._begun = len(self.records) + (self.status == "running")
            return self.status == "running"

    def _one_step(self, trainer: GuardedTrainer, store: RunStore) -> None:
        assert self._taken is not None
        newest, begun, number = self._taken, trainer.unfinished, len(self.records) + 1
        # A step that failed on the way ends with the loss and settings that it was begun with: they made its gradient.
        plan = self._taken = newest if begun is None else replace(begun, steps=newest.steps)
        record = trainer.step(
            number,
            plan,
            evaluate=number % self._eval_every == 0,
            last=number >= plan.steps,
            started=time.perf_counter() - self.seconds,
        )
        self._keep(record, plan, newest, trainer, store)

    def _keep_unevaluated(self) -> None:
        """A step whose update is made has changed the model: a run that ends there must not lose its record."""
        trainer, store = self._trainer, self._store
        if trainer is None or store is None or (plan := trainer.unfinished) is None:
            return
        record = trainer.unevaluated(started=time.perf_counter() - self.seconds)
        if record is not None:
            with contextlib.suppress(OSError):  # it is in `records` all the same
                self._keep(record, plan, plan, trainer, store)

    def _keep(
        self, record: StepRecord, plan: StepPlan, newest: StepPlan, trainer: GuardedTrainer, store: RunStore
    ) -> None:
        """Record a step that was made with ``plan``, on disk first; ``newest`` is what edits have made of the plan."""
        number = record.step
        diagnosed = self._diagnosis.update([*self.records[-self._diagnosis.window :], record])
        late = [
            f"Step {number} ends with the loss and settings that it was begun with, because its gradient had been "
            f"taken: {edit.label} counts from step {number + 1}"
            for edit in newest.edits_since(plan, number)
        ]
        warnings = [*record.warnings, *late, *diagnosed]
        record = replace(record, warnings=[*self.notes, *warnings] if number == 1 else warnings)
        edits = [] if self._ran is None else plan.edits_since(self._ran, number)
        rewards = trainer.new_rewards()
        edits += [Edit(number, "reward", reward.label) for reward in rewards if self._ran is not None]
        fresh = self._ran is None or any(edit.kind == "loss" for edit in edits)
        spec = plan.loss
        losses = [LossVersion(number, spec.name, spec.version, spec.source, dict(plan.config))] if fresh else []
        try:
            store.append(record, edits=edits, losses=losses, rewards=rewards)
        finally:  # the model has made this step, whatever the disk says
            with self._changed:
                self.edits += edits
                self.losses += losses
                self.records.append(record)
                self._ran = plan
                if self._budget is not None:
                    self._budget -= 1


def latest_trainer() -> GuardedTrainer | None:
    """The trainer of the run that began or went on last, if it is still there."""
    return _latest[0]() if _latest else None


def losses_in_use() -> set[str]:
    """Names of the losses of all runs that are under way, paused ones among them."""
    return {loop.plan.loss.name for loop in list(_live) if loop.status in ("running", "paused")}


@atexit.register
def _stop_all() -> None:
    # A worker inside torch while the interpreter is torn down can crash the process.
    loops = list(_live)
    for loop in loops:
        loop.ask("stopped")
    for loop in loops:
        loop.wait(2.0)
