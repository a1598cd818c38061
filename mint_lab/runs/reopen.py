"""Continue a run from its folder: which snapshot, which loss, which data.

Nothing of the folder is executed, unless the caller asks for it: a loss or a reward that was written in a cell is taken
from the registry, where running its cell puts it, if its source is the stored one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..client.protocol import RestorableClient
from ..data.rewards import REWARDS, reward_of
from ..errors import CheckpointError, ConfigError, DataError, RunError
from ..losses import LOSSES, LossSpec
from ..losses.decorator import spec_of
from ..recipes.plan import StepPlan
from ..usercode.compile_cell import compile_cell
from .folder_lock import is_locked
from .snapshots import RunState, SnapshotFolder, fingerprint_of
from .store import SavedRun, load_run, reward_source

if TYPE_CHECKING:
    from ..recipes.guarded_trainer import GuardedTrainer
    from ..recipes.record import LossVersion

__all__ = ["Past", "describe_data", "read_past", "restore"]


@dataclass(frozen=True)
class Past:
    """A run as its folder has it, up to a snapshot.

    Attributes:
        saved: The whole folder.
        state: The snapshot.
        snapshot: Its folder.
        plan: Plan of the next step.
        previous_plan: Plan of the last step; None before the first.
        notes: What a person should know about the folder.
    """

    saved: SavedRun
    state: RunState
    snapshot: Path
    plan: StepPlan
    previous_plan: StepPlan | None
    notes: list[str]


def read_past(folder: str | os.PathLike[str], step: int | None = None, *, run_source: bool = False) -> Past:
    """Read a run's folder up to a snapshot.

    Args:
        folder: The folder.
        step: The step to continue from; None for the last one that has a snapshot.
        run_source: Whether to execute the stored source of a loss or a reward that is not registered.

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
    plan = state.plan
    version = _version(saved, plan["loss"], plan["loss_version"])
    spec = _loss(plan, version, run_source=run_source)
    if saved.info.recipe == "rl":
        _check_reward(path, saved, run_source=run_source)
    previous = None if state.previous_plan is None else _past_plan(state.previous_plan, spec)
    snapshot = SnapshotFolder(path).path(state.step)
    return Past(saved, state, snapshot, StepPlan.of_entries(plan, spec), previous, [*saved.notes, *notes])


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


def _version(saved: SavedRun, name: str, version: int) -> LossVersion | None:
    return next((loss for loss in reversed(saved.losses) if (loss.name, loss.version) == (name, version)), None)


def _loss(plan: Mapping[str, Any], version: LossVersion | None, *, run_source: bool) -> LossSpec:
    """Return the loss that a plan names, with the version that the run knows it by."""
    name, number = plan["loss"], plan["loss_version"]
    known = LOSSES.get(name)
    is_bundled = known is not None and LOSSES.first(name) is known and known.fn.__module__.startswith("mint_lab.")
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
    compiled = compile_cell(version.source, name, number, {}, "loss")
    spec = spec_of(compiled.fn, name, source=version.source)
    described = {key: tuple(v) if isinstance(v, list) else v for key, v in plan["loss_described"].items()}
    return replace(spec, version=number, **described)


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
    REWARDS.register(reward_of(compile_cell(source, str(name), 1, {}, "reward").fn, str(name), source=source))


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


def restore(trainer: GuardedTrainer, past: Past) -> None:
    """Put a new trainer and its client into the state of a snapshot.

    Raises:
        DataError: If the data have changed since.
        RunError: If the client keeps its weights on a server.
        CheckpointError: If the snapshot does not fit.
    """
    found = fingerprint_of(trainer.job)
    if past.state.data and found != past.state.data:
        raise DataError(
            f"the data of this run have changed since it began (their hash is {found[:12]}, expected "
            f"{past.state.data[:12]}): restore the file, or start a new run with the data as they are now"
        )
    client = trainer.client
    if not isinstance(client, RestorableClient):
        raise RunError(f"a {type(client).__name__} cannot continue from a folder; give one of mint_lab.ServiceClient")
    client.restore_snapshot(past.snapshot).result()
    try:
        trainer.restore(past.state.trainer)
    except (LookupError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{past.snapshot} does not fit this run: {type(error).__name__}: {error}") from error
