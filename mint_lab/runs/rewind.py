"""The snapshots of a run that is in memory: when one is due, and how the run returns to one."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..client.protocol import RestorableClient
from ..errors import CheckpointError, MintLabError, RunError
from .reopen import position_of, restore
from .snapshots import SNAPSHOTS, Position, RandomState, RunState, SnapshotFolder, fingerprint_of

if TYPE_CHECKING:
    from ..recipes.guarded_trainer import GuardedTrainer
    from ..recipes.plan import StepPlan
    from ..recipes.record import LossVersion, StepRecord
    from .entries import RunInfo
    from .store import RunStore

__all__ = ["RunSnapshots", "snapshot_problem"]


def snapshot_problem(keep_snapshots: int | None, client: object) -> str:
    """Return why a run has no snapshots to return to; empty if it has some.

    Args:
        keep_snapshots: As in :class:`~mint_lab.runs.run.Run`.
        client: Its training client; None if it is not loaded, which is then a local one.
    """
    if keep_snapshots == 0:
        return "it keeps none (keep_snapshots=0)"
    is_local = client is None or isinstance(client, RestorableClient)
    return "" if is_local else f"its client, a {type(client).__name__}, keeps the weights on a server"


class RunSnapshots:
    """The snapshots of a run.

    Args:
        store: The run's folder.
        keep: As in :class:`~mint_lab.runs.snapshots.SnapshotFolder`.
        trainer: The trainer, with its data.
        score: Turns held-out metrics into a number of which the highest is the best; None if there is none.

    Attributes:
        fingerprint: Hash of the data.
    """

    def __init__(
        self,
        store: RunStore,
        keep: int | None,
        trainer: GuardedTrainer,
        score: Callable[[dict[str, float]], float | None],
    ) -> None:
        self.fingerprint = fingerprint_of(trainer.job)
        self._store, self._score = store, score
        self._folder = SnapshotFolder(store.folder, keep)
        self._latest: tuple[int, StepPlan] | None = None  # step and plan of the last snapshot
        self._positions: dict[int, Position] = {}  # of the snapshots that this object has taken
        self._warnings: list[str] = []  # for the next record

    def begin(self, step: int, position: Position | None) -> None:
        """Delete the snapshots after ``step``, and what killed processes left.

        Args:
            step: Steps that the run has completed.
            position: Of the snapshot that the run continues from; None for a new run.
        """
        self._folder.clean(step)
        if position is not None:
            self._latest = (position.step, position.plan)

    def take(
        self, trainer: GuardedTrainer, position: Position, records: Sequence[StepRecord], *, wait: bool = False
    ) -> None:
        """Take a snapshot, unless there is one, or a step waits for its evaluation. A failure becomes a warning.

        Args:
            trainer: The trainer.
            position: Where the run is.
            records: Those of the run.
            wait: Whether to wait until the snapshot is on the disk.
        """
        plan, previous = position.plan, position.previous_plan
        try:
            is_taken = self._latest == (position.step, plan) and self._folder.has(position.step)
            if not is_taken and trainer.is_between_steps:
                self._latest, self._positions[position.step] = (position.step, plan), position
                assert isinstance(trainer.client, RestorableClient)
                state = RunState(
                    step=position.step,
                    seconds=position.seconds,
                    plan=plan.entries(),
                    previous_plan=None if previous is None else previous.entries(),
                    trainer=trainer.state(),
                    random=RandomState.now(),
                    data=self.fingerprint,
                    score=self._score(records[-1].held_out) if records else None,
                    edited=previous is not None and plan != previous,
                )
                self._folder.write(state, trainer.client.take_snapshot().result(), self._store.written_files)
            if wait:
                self._folder.close()
        except (MintLabError, OSError) as error:  # training continues: only a place to return to is missing
            self._warnings.append(str(error))

    def take_warnings(self) -> list[str]:
        """Return and forget the warnings since the last call."""
        warnings, self._warnings = self._warnings, []
        return warnings

    def nearest(self, step: int) -> RunState:
        """Return the last snapshot up to ``step`` that can be read.

        Raises:
            RunError: If there is none.
            CheckpointError: If none can be read.
        """
        found = [k for k in self._folder.steps() if k <= step]
        if not found:
            raise RunError(f"{self._folder.folder} has no snapshot up to step {step}: they could not be written")
        errors: list[CheckpointError] = []
        for candidate in reversed(found):
            try:
                return self._folder.read(candidate)
            except CheckpointError as error:
                errors.append(error)
        raise errors[0]

    def rewind(self, trainer: GuardedTrainer, step: int, losses: Sequence[LossVersion]) -> tuple[Position, RandomState]:
        """Return to the last snapshot up to ``step``: trainer, client and folder. If that fails, nothing has changed.

        Args:
            trainer: The trainer.
            step: Records of later steps are moved to ``rewinds/``.
            losses: The loss versions that the run has used.

        Raises:
            RunError: If there is no such snapshot, or the folder cannot be written.
            CheckpointError: If the snapshot is damaged.
            ConfigError: If the loss of that time is not known any longer.
        """
        state = self.nearest(step)
        start, position = state.step, self.position(state, losses)
        try:
            restore(trainer, state, self._folder.path(start))
            self._store.rewind(start, past=step)
        except BaseException as error:
            self._restore_latest(trainer)
            if isinstance(error, OSError):
                raise RunError(f"the run cannot return to step {step}: {error}") from error
            raise
        self._folder.clean(start)
        self._latest = (start, position.plan)
        self._positions = {k: known for k, known in self._positions.items() if k <= start}
        return position, state.random

    def copy(self, folder: Path, step: int, info: RunInfo) -> None:
        """Write a folder that has the run up to ``step``, and its snapshot after that step. Raises OSError."""
        self._store.copy(folder, step, info)
        source = self._folder.path(step)
        shutil.copytree(source, folder / SNAPSHOTS / source.name)

    def position(self, state: RunState, losses: Sequence[LossVersion]) -> Position:
        """Return where the run was at a snapshot. Raises ``ConfigError`` if its loss is not known any longer."""
        return self._positions.get(state.step) or position_of(state, losses)

    def _restore_latest(self, trainer: GuardedTrainer) -> None:
        step = self._folder.latest()
        with contextlib.suppress(MintLabError):  # the caller raises what made this necessary
            if step is not None:
                restore(trainer, self._folder.read(step), self._folder.path(step))
