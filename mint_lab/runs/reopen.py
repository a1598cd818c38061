"""Continue a run from its folder: which snapshot, which loss, which data.

Nothing of the folder is executed, unless the caller asks for it: a loss or a reward that was written in a cell is taken
from the registry, where running its cell puts it, if its source is the stored one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..client.protocol import RestorableClient
from ..data.rewards import REWARDS
from ..errors import CheckpointError, ConfigError, DataError, RunError
from ..lora_options import LoraOptions
from ..losses import LOSSES, LossSpec
from ..recipes.plan import StepPlan
from .early_stopping import EarlyStopping
from .folder_lock import is_locked
from .from_source import loss_from_source, reward_from_source
from .snapshots import Position, RunState, SnapshotFolder, fingerprint_of
from .store import RunStore, SavedRun, load_run, reward_source

if TYPE_CHECKING:
    from ..recipes.guarded_trainer import GuardedTrainer
    from ..recipes.record import LossVersion

__all__ = ["Past", "describe_data", "end_folder", "position_of", "read_past", "restore"]


@dataclass(frozen=True)
class Past:
    """A run as its folder has it, up to a snapshot.

    Attributes:
        saved: The whole folder.
        state: The snapshot.
        snapshot: Its folder.
        position: Where the run continues.
        notes: What a person should know about the folder.
    """

    saved: SavedRun
    state: RunState
    snapshot: Path
    position: Position
    notes: list[str]

    def arguments(self, data: Any, held_out: Any) -> dict[str, Any]:
        """Return the arguments of a new :class:`~mint_lab.runs.run.Run` that continues from here.

        Args:
            data: Given again; None for the data that the run's folder names.
            held_out: Likewise.
        """
        info = self.saved.info
        return {
            "recipe": info.recipe,
            "loss": self.position.plan.loss,
            "base_model": info.base_model,
            "data": info.data.get("train") if data is None else data,
            "held_out": info.data.get("held_out") if held_out is None else held_out,
            "lora": LoraOptions(**info.lora) if info.lora else None,
            "seed": info.seed or 0,
            "eval_every": info.eval_every,
            "keep_snapshots": info.keep_snapshots,
            "folder": self.saved.folder,
            "name": info.name,
            "early_stopping": EarlyStopping.of(info.early_stopping),
            "tags": info.tags,
            "description": info.description,
            "reference": info.reference,
            **info.limits,
            **info.options,
        }

    def check_given(self, data: Any, held_out: Any) -> None:
        """Make sure that data which were in memory are given again.

        Raises:
            ConfigError: If they are not.
        """
        given = {"train": data, "held_out": held_out}
        for name in self.saved.info.data.get("in_memory", ()):
            if given[name] is None:
                argument = "data" if name == "train" else "held_out"
                raise ConfigError(
                    f"the {name} data of this run were in memory: give them again, Run.open(folder, {argument}=...)"
                )


def read_past(
    folder: str | os.PathLike[str],
    step: int | None = None,
    *,
    run_source: bool = False,
    loss: LossSpec | None = None,
) -> Past:
    """Read a run's folder up to a snapshot.

    Args:
        folder: The folder.
        step: The step to continue from; None for the last one that has a snapshot.
        run_source: Whether to execute the stored source of a loss or a reward that is not registered.
        loss: The loss of the next step, if the caller has it; None to look it up.

    Raises:
        RunError: If the folder holds no run or no snapshot, the step has none, or a process is writing the folder.
        ConfigError: If the loss or the reward of the run is not registered with the stored source.
        CheckpointError: If no snapshot can be read.
    """
    path = Path(folder).absolute()
    saved = load_run(path)
    if is_locked(path):
        raise RunError(f"{path} is being written by a run; stop that run, or end its process, before you open it here")
    state, notes = _state(path, saved, step)
    if saved.info.recipe == "rl":
        _check_reward(path, saved, run_source=run_source)
    position = position_of(state, saved.losses, run_source=run_source, loss=loss)
    return Past(saved, state, SnapshotFolder(path).path(state.step), position, [*saved.notes, *notes])


def end_folder(past: Past) -> None:
    """Write that a run is finished whose process died between its last step and that; also remove what that left.

    A folder that cannot be written stays as it is: the run can be read all the same.
    """
    saved, step = past.saved, past.state.step
    if saved.info.status == "finished":
        return
    with contextlib.suppress(RunError, OSError):
        store = RunStore.reopen(saved, step)
        SnapshotFolder(saved.folder, saved.info.keep_snapshots).clean(step)
        info = replace(saved.info, status="finished", steps_done=step, seconds=past.position.seconds, error=None)
        store.write_info(info)
        store.close()


def position_of(
    state: RunState, losses: Sequence[LossVersion], *, run_source: bool = False, loss: LossSpec | None = None
) -> Position:
    """Return the position of a snapshot.

    Args:
        state: The snapshot.
        losses: The loss versions that the run has used, with their sources.
        run_source: Whether to execute the source of a loss that is not registered.
        loss: The loss of the next step, if the caller has it; None to look it up.

    Raises:
        ConfigError: If the loss is not registered with the stored source.
    """
    plan = state.plan
    if loss is None:
        loss = _loss(plan, _version(losses, plan["loss"], plan["loss_version"]), run_source=run_source)
    previous = None if state.previous_plan is None else _past_plan(state.previous_plan, loss)
    return Position(state.step, state.seconds, StepPlan.of_entries(plan, loss), previous)


def _state(path: Path, saved: SavedRun, step: int | None) -> tuple[RunState, list[str]]:
    """Return the last state that can be read and whose records are there."""
    snapshots = SnapshotFolder(path)
    complete = 0
    while complete < len(saved.records) and saved.records[complete].step == complete + 1:
        complete += 1
    found = [k for k in snapshots.steps() if k <= complete]
    if not found:
        raise RunError(
            f"{path} has no snapshot, so its weights are lost; load_run(folder) reads its records, "
            "and Run(...) starts a new run"
        )
    if step is not None and step not in found:
        raise RunError(
            f"there is no snapshot after step {step}; there are snapshots after {', '.join(map(str, found))}"
        )
    notes: list[str] = []
    for candidate in reversed(found) if step is None else [step]:
        try:
            return snapshots.read(candidate), notes
        except CheckpointError as error:
            notes.append(f"{error}; the one before it is used")
    raise CheckpointError(f"no snapshot of {path} can be read: {notes[0]}")


def _version(losses: Sequence[LossVersion], name: str, version: int) -> LossVersion | None:
    return next((loss for loss in reversed(losses) if (loss.name, loss.version) == (name, version)), None)


def _loss(plan: Mapping[str, Any], version: LossVersion | None, *, run_source: bool) -> LossSpec:
    """Return the loss that a plan names, with the version that the run knows it by."""
    name, number = plan["loss"], plan["loss_version"]
    known = LOSSES.get(name)
    is_bundled = known is not None and LOSSES.first(name) is known and str(known.fn.__module__).startswith("mint_lab.")
    if known is not None and (is_bundled or version is None or known.source == version.source):
        return replace(known, version=number)
    if version is None or not version.source:
        raise ConfigError(
            f"the loss {name} v{number} of this run is not registered, and its source is not in the folder"
        )
    if not run_source:
        found = "is registered with another source" if known is not None else "is not registered"
        raise ConfigError(
            f"the loss {name} v{number} of this run {found}: run its cell first, or execute the source that the folder "
            f"has of it with Run.open(folder, run_source=True), after you have read it"
        )
    return loss_from_source(version.source, name, number, **plan["loss_described"])


def _past_plan(entries: dict[str, Any], current: LossSpec) -> StepPlan:
    """Return a plan to compare with: its loss has the right name and version, and cannot be called."""
    loss = replace(current, name=entries["loss"], version=entries["loss_version"])
    plain = {name: value for name, value in entries.items() if not name.startswith("loss")}
    return StepPlan(loss=loss, **plain)


def _check_reward(path: Path, saved: SavedRun, *, run_source: bool) -> None:
    """Make sure that the reward of the run is registered; nothing is checked of a task's own reward."""
    name = saved.info.options.get("reward")
    if name is None or name in REWARDS:
        return
    source = reward_source(path, str(name))
    if not run_source or not source:
        raise ConfigError(
            f"the reward {name} of this run is not registered: run its cell first"
            + (", or open the run with run_source=True, which executes the stored source" if source else "")
        )
    reward_from_source(source, str(name))


def describe_data(train: Any, held_out: Any) -> dict[str, Any]:
    """Return how data are found again: an absolute path or a name of each, and the names of those in memory."""
    given = {"train": train, "held_out": held_out}
    found: dict[str, Any] = {name: _place(source) for name, source in given.items()}
    in_memory = [name for name, source in given.items() if source is not None and found[name] is None]
    return found | ({"in_memory": in_memory} if in_memory else {})


def _place(source: Any) -> str | None:
    if not isinstance(source, (str, os.PathLike)):
        return None
    path = Path(source).expanduser()
    return str(path.absolute()) if path.exists() else os.fspath(source)


def restore(trainer: GuardedTrainer, state: RunState, folder: Path) -> None:
    """Put a trainer and its client into the state of a snapshot.

    Args:
        trainer: The trainer.
        state: The snapshot.
        folder: Its folder.

    Raises:
        DataError: If the data have changed since.
        RunError: If the client keeps its weights on a server.
        CheckpointError: If the snapshot does not fit.
    """
    found = fingerprint_of(trainer.job)
    if state.data and found != state.data:
        raise DataError(
            f"the data of this run have changed since it began (their hash is {found[:12]}, expected "
            f"{state.data[:12]}): restore the file, or start a new run with the data as they are now"
        )
    client = trainer.client
    if not isinstance(client, RestorableClient):
        raise RunError(f"a {type(client).__name__} cannot continue from a folder; give one of mint_lab.ServiceClient")
    client.restore_snapshot(folder).result()
    try:
        trainer.restore(state.trainer)
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder} does not fit this run: {type(error).__name__}: {error}") from error
