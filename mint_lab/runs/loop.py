"""The training loop of a run: a state machine, a worker thread while the run is running, and the rules between the two.

- The worker reads the current plan when a step begins and uses it to the step's end; an edit, from any thread, replaces
  the plan for the next step.
- Before subscribers are notified of a step, its record is on disk and in ``records``.
- The status changes only while the lock is held, and the worker begins no step after the run has left "running".
- The worker thread exists only while the run is running, so that a paused run which nobody refers to can be collected.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from ..data.rewards import REWARDS
from ..errors import ConfigError, RunError
from ..recipes.options import check_whole
from ..recipes.plan import StepPlan
from ..recipes.record import Edit, LossVersion, Rewind, Status, StepRecord
from ..threads import OwnedCondition, PackageThread, ProcessExit
from .advice import RunAdvice
from .early_stopping import Ending
from .entries import RunInfo
from .failure import Awaited, Kind, RunFailure, awaited, describe
from .live_runs import add_loop, set_latest_trainer
from .loading import LoadCancelled
from .notifier import ChangeNotifier
from .rewind import RunSnapshots, snapshot_problem
from .snapshots import Position, RandomState

if TYPE_CHECKING:
    from pathlib import Path

    from ..losses import LossSpec
    from ..recipes.guarded_trainer import GuardedTrainer
    from .reopen import Past
    from .store import RunStore

__all__ = ["Loop"]

T = TypeVar("T")

WAIT_SLICE_SECONDS = 0.5  # not every platform can interrupt a longer wait


class Loop:
    """Completes one step after another while the run is running.

    Args:
        name: Name of the worker thread.
        plan: Plan of the first step.
        load: Returns the trainer; called on the worker before the first step.
        open_store: Creates the run's folder; called once, after ``load``.
        describe_run: Returns the content of ``run.json``; called while the lock is held.
        eval_every: Steps between evaluations.
        advice: Turns the records of the run into warnings.
        ending: Which evaluation is the best, and whether the run finishes early.
        keep_snapshots: As in :class:`~mint_lab.runs.snapshots.SnapshotFolder`; 0 for no snapshots.

    Attributes:
        plan: Plan of the next step; change it with :meth:`edit`.
        status, error: As in :class:`mint_lab.runs.run.Run`.
        records, edits, losses: As in :class:`mint_lab.runs.run.Run`; append-only.
        notes: What was noteworthy about model and data, in plain words.
        notifier: Notifies subscribers of every change.
        reading: As in :class:`mint_lab.runs.run.Run`.
    """

    def __init__(
        self,
        name: str,
        plan: StepPlan,
        *,
        load: Callable[[], GuardedTrainer],
        open_store: Callable[[], RunStore],
        describe_run: Callable[[], RunInfo],
        eval_every: int,
        advice: RunAdvice,
        ending: Ending | None = None,
        keep_snapshots: int | None = 2,
    ) -> None:
        self.name = name
        self.plan = plan
        self.status: Status = "ready"
        self.error: RunFailure | None = None
        self.records: list[StepRecord] = []
        self.edits: list[Edit] = []
        self.losses: list[LossVersion] = []
        self.rewinds: list[Rewind] = []
        self.notes: list[str] = []
        self.notifier = ChangeNotifier()
        self._load, self._open_store, self._describe_run = load, open_store, describe_run
        self._eval_every = eval_every
        self._ending = ending or Ending(())
        self._keep_snapshots = keep_snapshots
        self._store: RunStore | None = None
        self._snapshots: RunSnapshots | None = None
        self._position: Position | None = None  # of the snapshot that a run continues from, until its folder is open
        self._random: RandomState | None = None  # of that snapshot, until the run starts
        self._trainer: GuardedTrainer | None = None
        self._advice = advice
        self._changed = self.reading = OwnedCondition("this run")
        self._pending_calls: deque[Callable[[], None]] = deque()  # for the time between two steps
        self._step_lock = threading.Lock()  # held during a step, and during calls between two steps
        self._requested_status: Status | None = None  # "paused" or "stopped", applied after the current step
        self._steps_left: int | None = None  # before the run pauses; None for no limit
        self._waiting_for: Awaited | None = None
        self._current_plan: StepPlan | None = None  # of the step in progress
        self._previous_plan: StepPlan | None = None  # of the last step that was completed
        self._begun_step = 0  # number of the step in progress, or of the last one
        self._earlier_seconds = 0.0  # time spent running before the last start or resume
        self._running_since: float | None = None  # time of the last start or resume; None unless running
        add_loop(self)

    @property
    def fingerprint(self) -> str:
        """Hash of the data; empty before the first start, and if there are no snapshots."""
        return self._snapshots.fingerprint if self._snapshots else ""

    @property
    def seconds(self) -> float:
        """Time spent running, without loading and pauses."""
        with self._changed:
            since = self._running_since
            return self._earlier_seconds + (time.perf_counter() - since if since is not None else 0.0)

    @property
    def is_halting(self) -> bool:
        """Whether a pause or a stop was requested that has not taken effect yet."""
        return self._requested_status is not None

    @property
    def is_stopping(self) -> bool:
        """Whether the run is stopped, or a stop was requested that has not taken effect yet."""
        return "stopped" in (self.status, self._requested_status)

    def adopt(self, past: Past) -> None:
        """Take over the state of a run that is continued from its folder, before the first start."""
        saved, position = past.saved, past.position
        self.records, self.edits, self.losses = saved.records, saved.edits, saved.losses
        self.rewinds = list(saved.rewinds)
        self._return_to(position, past.state.random)
        self._position = position
        self.status = self._resting_status()
        if self.status == "finished" and (note := self._ending.note(self.records)):
            self.notes.append(note)

    def _return_to(self, position: Position, random: RandomState) -> None:
        """Take over plans, records, edits and losses up to a position. Readers of the old lists keep those."""
        step = position.step
        self.plan, self._previous_plan = position.plan, position.previous_plan
        self.edits = [edit for edit in self.edits if edit.step <= step]
        self.losses = [loss for loss in self.losses if loss.step <= step]
        self.records = self.records[:step]
        self._advice.restart(self.records)
        self._earlier_seconds, self._random, self._begun_step = position.seconds, random, step

    def _resting_status(self) -> Status:
        """Return the status of a run that is not running."""
        step = len(self.records)
        return "finished" if self._is_complete() else "paused" if step else "ready"

    def _is_complete(self) -> bool:
        return len(self.records) >= self.plan.steps or bool(self._ending.note(self.records))

    # -- for any thread ------------------------------------------------------------------------------------------------

    def start(self, max_steps: int | None = None) -> None:
        """Run for ``max_steps`` steps, then pause; None: run to the end. Withdraws a requested pause.

        Raises:
            RunError: If the run is stopped or finished.
        """
        with self._changed:
            if self.status == "stopped":
                raise RunError("this run is stopped, which is final; make a new Run, and use pause() to resume later")
            if self.status == "finished":
                raise RunError(
                    f"this run is finished: {len(self.records)} of {self.plan.steps} steps are complete; "
                    f"give it more with run.set(steps={2 * self.plan.steps}), then call start() again"
                )
            if self.status == "running":
                self._requested_status = None if self._requested_status == "paused" else self._requested_status
            else:
                self._start_worker()
            self._steps_left = max_steps
        self.notifier.notify()

    def request(self, status: Status) -> None:
        """Change the status to "paused" or "stopped" after the current step; at once if none is in progress."""
        with self._changed:
            if self.status == "running":
                self._requested_status = "stopped" if self._requested_status == "stopped" else status
            elif status == "paused":
                self._wait_for(None)  # a person who pauses a run that has failed wants it to stay paused
            elif status == "stopped" and self.status in ("ready", "paused"):
                self._leave_running("stopped")
        self.notifier.notify()

    def edit(self, change: Callable[[StepPlan], StepPlan]) -> None:
        """Replace the plan by ``change(plan)``; if that raises, the plan stays as it is.

        Raises:
            ConfigError: If the new plan ends at a step that is complete or in progress, and so without the evaluation
                on all held-out data that follows the last step.
        """
        with self._changed:
            plan, completed = change(self.plan), len(self.records)
            if plan.steps < completed:
                raise ConfigError(f"steps={plan.steps}, but {_steps(completed)} already complete")
            begun = max(completed, self._begun_step)
            if plan.steps != self.plan.steps and plan.steps <= begun:
                raise ConfigError(
                    f"steps={plan.steps}, but {_steps(begun)} already complete or in progress, and the last step of a "
                    f"run is followed by an evaluation on all held-out data: give {begun + 1} or more, or stop() to "
                    "end here"
                )
            self.plan = plan
            if self.status == "finished" and plan.steps > completed:
                self.status = "paused"
                self._ending.resume(completed)
        self.notifier.notify()

    def rewind(self, step: int) -> None:
        """Return to the state after ``step``, and wait until the run is paused there.

        The snapshot after that step is restored; without one, the snapshot before it, and the steps in between are
        computed again. If that is impossible, nothing has changed.

        Raises:
            ConfigError: If the run has not completed that step.
            RunError: If the run is stopped, or has no snapshots, or a repeated step fails.
            CheckpointError: If the snapshot is damaged.
        """
        self._check_completed(step)
        if self.status == "stopped":
            raise RunError("this run is stopped, which is final: use fork(step) to continue from one of its steps")
        self.call(lambda: self._rewind(step)).result()
        self.wait(None)
        if self.error is not None:
            raise RunError(f"the steps up to {step} cannot be repeated: {self.error.message}")

    def copy(self, folder: Callable[[], Path], step: int, name: str) -> tuple[int, LossSpec, Path]:
        """Write the run as it was after ``step`` into an unused folder, as a run of its own that has not ended.

        Args:
            folder: Returns the folder; called once nothing speaks against the copy.
            step: The step; without a snapshot after it, the copy ends at the last snapshot before it.
            name: Name of the copy.

        Returns:
            Steps of the copy, the loss of its next step, and the folder.

        Raises:
            ConfigError: If the run has not completed that step.
            RunError: If the run has no snapshots, or the folder cannot be written.
        """
        self._check_completed(step)
        return self.call(lambda: self._copy(folder, step, name)).result()

    def resume_if_waiting_for(self, kind: Kind, name: str) -> None:
        """Resume the run if the failure of this loss or reward paused it; called when it is registered again."""
        with self._changed:
            awaited = self._waiting_for
            if self.status != "paused" or awaited is None or (awaited.kind, awaited.name) != (kind, name):
                return
            self._start_worker()
            self._steps_left = awaited.steps_left
        self.notifier.notify()

    def call(self, job: Callable[[], T]) -> Future[T]:
        """Call ``job()`` between two steps; at once, on a separate thread, if the run is not running."""
        future: Future[T] = Future()

        def run_job() -> None:
            try:
                future.set_result(job())
            except BaseException as error:  # the caller's error, also a SystemExit: it must not end the worker
                future.set_exception(error)

        self._changed.check()
        self._pending_calls.append(run_job)
        if self.status != "running":
            try:
                PackageThread(self._run_pending_calls, "mint_lab call").start()
            except RuntimeError:  # the system allows no further thread: the job must not be called later
                with contextlib.suppress(ValueError):
                    self._pending_calls.remove(run_job)
                raise
        return future

    def wait(self, timeout: float | None) -> bool:
        """Wait until the status is not "running"; return False if ``timeout`` seconds were not enough."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while self.status == "running":
                left = WAIT_SLICE_SECONDS if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, WAIT_SLICE_SECONDS))
        return True

    def _wait_for(self, awaited: Awaited | None) -> None:
        self._waiting_for = awaited
        if awaited is None and self.error is not None:
            self.error = replace(self.error, loss=None, reward=None)

    def _start_worker(self) -> None:
        # A copied context, so that what the worker sends belongs to the cell or the page that started the run.
        worker = PackageThread(self._work, f"mint_lab {self.name}")
        before = self.status, self.error, self._waiting_for
        self.status, self.error, self._waiting_for, self._requested_status = "running", None, None, None
        try:
            worker.start()
        except RuntimeError:  # the system allows no further thread
            self.status, self.error, self._waiting_for = before
            raise

    def _leave_running(self, status: Status) -> None:
        """Change the status to one that is not "running"; the worker begins no step afterwards. Needs the lock."""
        if status == "stopped":
            self._record_unevaluated()
        if self._running_since is not None:
            self._earlier_seconds += time.perf_counter() - self._running_since
            self._running_since = None
        self.status, self._requested_status, self._steps_left = status, None, None
        self._begun_step = len(self.records)
        if self._store is not None:
            is_ended = status in ("stopped", "finished")
            try:  # a full disk must not hide the status
                self._write_info(self._store)
            except RunError as error:
                self.notes += [f"The folder does not say that the run is {status}: {error}"] if is_ended else []
            with contextlib.suppress(RunError):
                self._store.close(ended=is_ended)
        self._changed.notify_all()

    def _write_info(self, store: RunStore) -> None:
        self.notes += store.take_notes()
        store.write_info(self._describe_run())

    # -- between two steps: on the worker thread, or on that of a call ------------------------------------------------

    def _rewind(self, step: int) -> None:
        trainer, snapshots = self._with_snapshots()
        position, random = snapshots.rewind(trainer, step, self.losses)
        later = self.records[step:], [edit for edit in self.edits if edit.step > step]
        missing = step - position.step
        with self._changed:
            self._return_to(position, random)
            if later[0]:
                self.rewinds.append(Rewind(step, *later))
            self.error = self._waiting_for = None
            if self.status == "running":
                self._running_since = time.perf_counter()
                random.set()
                self._random = None
                self._requested_status = self._requested_status or ("paused" if not missing else None)
            else:
                self.status = self._resting_status()
                if missing:
                    self._start_worker()
            self._steps_left = missing or None
            assert self._store is not None
            with contextlib.suppress(RunError):  # the records tell where the run is
                self._write_info(self._store)
            self._changed.notify_all()
        self.notifier.notify()

    def _copy(self, folder: Callable[[], Path], step: int, name: str) -> tuple[int, LossSpec, Path]:
        _, snapshots = self._with_snapshots()
        assert self._store is not None
        state = snapshots.nearest(step)
        start, plan = state.step, snapshots.position(state, self.losses).plan
        parent = {"name": self.name, "folder": str(self._store.folder.absolute()), "step": step}
        info = replace(
            self._describe_run(), name=name, parent=parent, steps_done=start, steps=plan.steps, status="paused"
        )
        target = folder()
        try:
            target.mkdir(parents=True, exist_ok=True)
            snapshots.copy(target, start, info)
        except OSError as error:
            raise RunError(f"the fork cannot be written to {target}: {error}") from error
        return start, plan.loss, target

    def _with_snapshots(self) -> tuple[GuardedTrainer, RunSnapshots]:
        """Return the trainer and its snapshots, of which the last one is of now."""
        trainer = self._trainer = self._load()
        self._open_folder(trainer)
        if self._snapshots is None:
            raise RunError(
                f"this run has no snapshots to return to: {snapshot_problem(self._keep_snapshots, trainer.client)}"
            )
        self._snapshot(trainer, wait=True)
        return trainer, self._snapshots

    def _check_completed(self, step: int) -> None:
        check_whole("step", step, 0)
        done = len(self.records)
        if step > done:
            raise ConfigError(f"step {step} is not complete: {_steps(done)} complete, so give 0 to {done}")

    # -- on the worker thread ------------------------------------------------------------------------------------------

    def _work(self) -> None:
        try:
            self._current_plan = None
            trainer, store = self._retry_with_newer(self._prepare)
            while self._begin_step(trainer):
                with self._step_lock:
                    self._retry_with_newer(lambda: self._run_step(trainer, store))
                if self.records[-1].held_out:
                    self._snapshot(trainer)
                self.notifier.notify()
                if self._pending_calls:
                    self._run_pending_calls()
            self._snapshot(trainer, wait=True)  # if a pause came just before the status changed
        except BaseException as error:  # also a SystemExit that a loss raised: the worker must not end silently
            is_cancelled = isinstance(error, (ProcessExit, LoadCancelled))
            failure = describe(error, self._current_plan.loss if self._current_plan else None)
            if self._trainer is not None:
                self._snapshot(self._trainer, wait=True)
            with self._changed:
                self.error = None if is_cancelled else failure
                requested, steps_left = self._requested_status, self._steps_left
                self._leave_running(requested or "paused")
                self._wait_for(None if requested else awaited(failure, steps_left))
        self.notifier.notify()
        self._run_pending_calls()

    def _run_pending_calls(self) -> None:
        with self._step_lock, contextlib.suppress(IndexError):
            while True:
                self._pending_calls.popleft()()

    def _retry_with_newer(self, job: Callable[[], T]) -> T:
        """Call ``job``; if its loss or reward fails and a newer version was registered meanwhile, retry with that."""
        while True:
            try:
                return job()
            except BaseException as error:
                failure = describe(error, self._current_plan.loss if self._current_plan else None)
                reward = failure.reward
                is_outdated = failure.loss is not None and self._has_newer_loss()
                is_outdated |= reward is not None and REWARDS.get(reward.name, reward) != reward
                if self._requested_status is not None or not is_outdated:
                    raise
                self._current_plan = self.plan

    def _has_newer_loss(self) -> bool:
        return self._current_plan is not None and self.plan.loss is not self._current_plan.loss

    def _cancel_requested(self) -> bool:
        return self._requested_status is not None or self._has_newer_loss()

    def _prepare(self) -> tuple[GuardedTrainer, RunStore]:
        trainer = self._trainer = self._load()
        set_latest_trainer(trainer)
        self._current_plan = self.plan
        trainer.cancel_requested = self._cancel_requested
        if not self.records:
            trainer.set_reference()
        if not trainer.baseline:
            trainer.measure_baseline(self._current_plan)
        self._ending.check(trainer.baseline)
        store = self._open_folder(trainer)
        with self._changed:
            self._write_info(store)
            self._running_since = time.perf_counter()
        if not self.records:
            self._snapshot(trainer)
        if self._random is not None:
            self._random.set()
            self._random = None
        self.notifier.notify()
        return trainer, store

    def _open_folder(self, trainer: GuardedTrainer) -> RunStore:
        """Return the store; create or reopen the run's folder at the first call."""
        if self._store is None:
            self._store = self._open_store()
            if not snapshot_problem(self._keep_snapshots, trainer.client):
                self._snapshots = RunSnapshots(self._store, self._keep_snapshots, trainer, self._ending.score)
                self._snapshots.begin(len(self.records), self._position)
        return self._store

    def _begin_step(self, trainer: GuardedTrainer) -> bool:
        """Return whether the worker may complete another step; otherwise leave "running".

        A snapshot is taken first if the run leaves "running", or if the plan has been edited since the last step.
        """
        with self._changed:
            is_leaving = self._next_status() != "running"
            is_edited = self._previous_plan is not None and self.plan != self._previous_plan
            if not is_leaving and not is_edited:
                return self._decide()
        self._snapshot(trainer, wait=is_leaving)
        with self._changed:
            return self._decide()

    def _decide(self) -> bool:
        """Fix the plan of the next step, or leave "running"; return whether there is a next step. Needs the lock."""
        if (status := self._next_status()) != "running":
            self._leave_running(status)
        self._current_plan = self.plan
        self._begun_step = len(self.records) + (self.status == "running")
        return self.status == "running"

    def _next_status(self) -> Status:
        """Return the status that follows the last step. Needs the lock."""
        if self._is_complete():
            return "finished"
        if self._requested_status is not None or self._steps_left == 0:
            return self._requested_status or "paused"
        return "running"

    def _snapshot(self, trainer: GuardedTrainer, *, wait: bool = False) -> None:
        """Take a snapshot, unless there is one, or a step waits for its evaluation.

        Args:
            trainer: The trainer.
            wait: Whether to wait until the snapshot is on the disk.
        """
        if self._snapshots is not None:
            position = Position(len(self.records), self.seconds, self.plan, self._previous_plan)
            self._snapshots.take(trainer, position, self.records, wait=wait)

    def _run_step(self, trainer: GuardedTrainer, store: RunStore) -> None:
        assert self._current_plan is not None
        newest, retry_plan, number = self._current_plan, trainer.retry_plan, len(self.records) + 1
        # A step that failed after its gradient is retried with the loss and settings that computed the gradient.
        plan = self._current_plan = newest if retry_plan is None else replace(retry_plan, steps=newest.steps)
        record = trainer.step(
            number,
            plan,
            evaluate=number % self._eval_every == 0,
            last=number >= plan.steps,
            started=time.perf_counter() - self.seconds,
        )
        self._record(record, plan, newest, trainer, store)

    def _record_unevaluated(self) -> None:
        """Record a step that has updated the weights and waits for its evaluation, because the run ends here."""
        trainer, store = self._trainer, self._store
        if trainer is None or store is None or (plan := trainer.retry_plan) is None:
            return
        record = trainer.unevaluated(started=time.perf_counter() - self.seconds)
        if record is not None:
            with contextlib.suppress(RunError):  # it is in `records` all the same
                self._record(record, plan, plan, trainer, store)

    def _record(
        self, record: StepRecord, plan: StepPlan, newest: StepPlan, trainer: GuardedTrainer, store: RunStore
    ) -> None:
        """Store a record of a step that used ``plan``, on disk first; ``newest`` is the plan with all edits so far."""
        number = record.step
        advice = self._advice.update([*self.records[-self._advice.window :], record])
        delayed = [
            f"Step {number} ends with the loss and settings that it began with, because its gradient had been computed "
            f"with them: {edit.label} takes effect at step {number + 1}"
            for edit in newest.edits_since(plan, number)
        ]
        failed = self._snapshots.take_warnings() if self._snapshots else []
        # A client may have a new note, for example that memory ran out.
        new_notes = [note for note in getattr(trainer.client, "notes", ()) if note not in self.notes]
        ending = self._ending.note([*self.records, record]) if record.held_out and number < plan.steps else ""
        new_notes += [*([ending] if ending else []), *store.take_notes()]
        self.notes += new_notes
        notes = self.notes if number == 1 else new_notes
        record = replace(record, warnings=[*notes, *record.warnings, *delayed, *advice, *failed]).sharing(self.records)
        is_first = self._previous_plan is None
        edits = [] if self._previous_plan is None else plan.edits_since(self._previous_plan, number)
        rewards = trainer.new_rewards()
        edits += [Edit(number, "reward", reward.label) for reward in rewards if not is_first]
        losses: list[LossVersion] = []
        if is_first or any(edit.kind == "loss" for edit in edits):
            losses = [plan.loss_version(number)]
        try:
            store.append(record, edits=edits, losses=losses, rewards=rewards)
        finally:  # the weights are updated, even if the disk is full
            with self._changed:
                self.edits += edits
                self.losses += losses
                self.records.append(record)
                self._previous_plan = plan
                if self._steps_left is not None:
                    self._steps_left -= 1


def _steps(count: int) -> str:
    return "1 step is" if count == 1 else f"{count} steps are"
