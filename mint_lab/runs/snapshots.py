"""Snapshots: copies of a run between two steps, from which it continues to the last bit.

::

    snapshots/00000120/        the run after step 120
        adapter_model.safetensors, adapter_config.json   the adapter, in PEFT's layout
        optimizer.safetensors, mint_lab.json, client.json
        trainer.safetensors    tensors of the trainer: held-out log-probabilities, the sampler's weights, ...
        snapshot.json          step, plan, position in the data, state of the random generators

Each folder appears complete or not at all (:mod:`mint_lab.folders`). The state is copied between two steps, on the
thread that trains; a separate thread writes it. What a snapshot refers to is on the disk before the snapshot: its
records, edits and losses.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import shutil
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError

from ..errors import CheckpointError, MintLabError
from ..folders import flush, recover_all, remove_leftovers, write_folder
from ..recipes.guarded_trainer import TrainerState
from ..tensors import load_tensors, save_tensors

if TYPE_CHECKING:
    from ..client.protocol import ClientSnapshot
    from ..recipes.plan import StepPlan

__all__ = ["SNAPSHOTS", "Position", "RandomState", "RunState", "SnapshotFolder", "fingerprint_of"]

SNAPSHOTS = "snapshots"
FORMAT_VERSION = 1
STATE_FILE, TENSORS_FILE = "snapshot.json", "trainer.safetensors"
_NAME = re.compile(r"\d{8}")
_DRAFT = re.compile(r"\.\d{8}[.-]")  # what a killed process leaves
_TORCH_GENERATOR = "random.torch"


@dataclass(frozen=True)
class RandomState:
    """The global random generators of Python, numpy and torch, which a custom loss or reward may use."""

    python: list[Any]
    numpy: list[Any]
    torch: torch.Tensor

    @classmethod
    def now(cls) -> RandomState:
        """Return the state of the generators."""
        version, numbers, gauss = random.getstate()
        kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
        return cls(
            [version, list(numbers), gauss],
            [kind, np.asarray(keys).tolist(), int(position), int(has_gauss), float(cached)],
            torch.get_rng_state(),
        )

    def set(self) -> None:
        """Put the generators into this state."""
        version, numbers, gauss = self.python
        random.setstate((version, tuple(numbers), gauss))
        kind, keys, *rest = self.numpy
        np.random.set_state((kind, np.array(keys, np.uint32), *rest))
        torch.set_rng_state(self.torch)


@dataclass(frozen=True)
class Position:
    """Where a run is between two steps.

    Attributes:
        step: Steps that are complete.
        seconds: Time spent running.
        plan: Plan of the next step.
        previous_plan: Plan of the last step; None before the first.
    """

    step: int
    seconds: float
    plan: StepPlan
    previous_plan: StepPlan | None


@dataclass(frozen=True)
class RunState:
    """What a run continues from between two steps, besides the weights and the optimizer of its client.

    Attributes:
        step: Steps that are complete.
        seconds: Time spent running.
        plan: Entries of the plan of the next step, see :meth:`mint_lab.recipes.plan.StepPlan.entries`.
        previous_plan: Those of the plan of the last step; None before the first.
        trainer: State of the trainer.
        random: State of the random generators.
        data: Fingerprint of the data.
        score: What the last evaluation came to, higher is better; None without one at this step.
        edited: Whether an edit takes effect at the next step.
    """

    step: int
    seconds: float
    plan: dict[str, Any]
    previous_plan: dict[str, Any] | None
    trainer: TrainerState
    random: RandomState
    data: str = ""
    score: float | None = None
    edited: bool = False

    def write(self, folder: Path) -> None:
        """Write the state into an existing folder."""
        entries = {
            "format": FORMAT_VERSION,
            "trainer": self.trainer.entries,
            "random": {"python": self.random.python, "numpy": self.random.numpy},
            **{name: getattr(self, name) for name in _PLAIN},
        }
        (folder / STATE_FILE).write_text(json.dumps(entries), encoding="utf-8")
        tensors = self.trainer.tensors | {_TORCH_GENERATOR: self.random.torch}
        save_tensors(tensors, folder / TENSORS_FILE, minus_inf=True)  # log-probabilities are among them

    @classmethod
    def read(cls, folder: Path) -> RunState:
        """Return the state in a folder.

        Raises:
            CheckpointError: If it is missing, damaged, or of a newer format.
        """
        try:
            entries = json.loads((folder / STATE_FILE).read_text(encoding="utf-8"))
            if entries["format"] > FORMAT_VERSION:
                raise CheckpointError(
                    f"snapshot {folder} has format {entries['format']}, this version reads up to {FORMAT_VERSION}; "
                    "upgrade mint_lab"
                )
            for file in folder.glob("*.safetensors"):  # the client reads its own files only when the run starts
                if file.name != TENSORS_FILE:
                    load_tensors(file)
            tensors = load_tensors(folder / TENSORS_FILE, minus_inf=True)
            generators = RandomState(**entries["random"], torch=tensors.pop(_TORCH_GENERATOR))
            plain = {name: entries[name] for name in _PLAIN}
            return cls(trainer=TrainerState(entries["trainer"], tensors), random=generators, **plain)
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"snapshot {folder} is damaged: {type(error).__name__}: {error}") from error


_PLAIN = ("step", "seconds", "plan", "previous_plan", "data", "score", "edited")


def fingerprint_of(job: object) -> str:
    """Return the fingerprint of a job's data; empty if the job has none."""
    fingerprint = getattr(job, "fingerprint", None)
    return str(fingerprint()) if callable(fingerprint) else ""


@dataclass(frozen=True)
class _Kept:
    """What decides whether a snapshot is kept."""

    score: float | None
    edited: bool


@dataclass
class SnapshotFolder:
    """The snapshots of one run.

    Args:
        folder: The run's folder.
        keep: Number of the last snapshots that are kept, besides the first one, those at edits, and the one with the
            best evaluation; None for all.
    """

    folder: Path
    keep: int | None = 2
    _facts: dict[int, _Kept] = field(default_factory=dict)
    _writer: ThreadPoolExecutor | None = None
    _pending: Future[None] | None = None

    def __post_init__(self) -> None:
        self.folder = self.folder / SNAPSHOTS
        if self.folder.is_dir():
            recover_all(self.folder)
        for step in self.steps():
            try:
                state = json.loads((self.path(step) / STATE_FILE).read_text(encoding="utf-8"))
                self._facts[step] = _Kept(state["score"], bool(state["edited"]))
            except (OSError, ValueError, KeyError, TypeError):
                self._facts[step] = _Kept(None, edited=False)

    def path(self, step: int) -> Path:
        """Return the folder of the snapshot after ``step``."""
        return self.folder / f"{step:08d}"

    def steps(self) -> list[int]:
        """Return the steps that have a snapshot, in order."""
        if not self.folder.is_dir():
            return []
        return sorted(int(entry.name) for entry in self.folder.iterdir() if _NAME.fullmatch(entry.name))

    def has(self, step: int) -> bool:
        """Whether there is a snapshot after ``step``, or the last one is being written."""
        return self._pending is not None or self.path(step).is_dir()

    def latest(self) -> int | None:
        """Return the last step that has a snapshot; None without one."""
        return max(self.steps(), default=None)

    def read(self, step: int) -> RunState:
        """Return the state after ``step``. Raises as :meth:`RunState.read`."""
        return RunState.read(self.path(step))

    def write(self, state: RunState, client: ClientSnapshot, after: Sequence[Path] = ()) -> None:
        """Write a snapshot on a separate thread, after the one before it is complete.

        Args:
            state: The state of the run.
            client: The client's copy of weights and optimizer.
            after: Files that the snapshot refers to: it appears once these are on the disk.

        Raises:
            CheckpointError: If the snapshot before this one could not be written.
        """
        self.flush()
        try:
            if self._writer is None:
                self._writer = ThreadPoolExecutor(1, thread_name_prefix="mint_lab snapshot")
            self._pending = self._writer.submit(self._write, state, client, after)
        except RuntimeError:  # the system allows no further thread, or the interpreter is about to exit
            self._write(state, client, after)

    def flush(self) -> None:
        """Wait until what :meth:`write` was given is on the disk.

        Raises:
            CheckpointError: If it could not be written.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """As :meth:`flush`, and end the thread; a later :meth:`write` starts another one."""
        writer, self._writer = self._writer, None
        try:
            self.flush()
        finally:
            if writer is not None:
                writer.shutdown()

    def clean(self, step: int) -> None:
        """Delete the snapshots after ``step``, and what killed processes left: the caller has the folder's lock."""
        for later in [k for k in self.steps() if k > step]:
            self._delete(later)
        if self.folder.is_dir():
            flush(self.folder)  # before other steps get these numbers
            remove_leftovers(self.folder)
            for entry in self.folder.iterdir():
                if _DRAFT.match(entry.name):
                    shutil.rmtree(entry, ignore_errors=True)
        self._prune()

    def delete(self) -> None:
        """Delete all snapshots, and their folder if nothing else is in it; a link is left alone."""
        if self.folder.is_dir() and not self.folder.is_symlink():
            self.clean(-1)
            with contextlib.suppress(OSError):  # something else is in it
                self.folder.rmdir()

    def _write(self, state: RunState, client: ClientSnapshot, after: Sequence[Path]) -> None:
        def fill(draft: Path) -> None:
            for file in after:
                flush(file)
            client.write(draft)
            state.write(draft)

        try:
            self.folder.mkdir(parents=True, exist_ok=True)  # before the names in the run's folder are flushed
            write_folder(self.path(state.step), fill)
        except MintLabError:
            raise
        except (OSError, SafetensorError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"the snapshot after step {state.step} cannot be written to {self.path(state.step)}: {error}; "
                "the run continues without it"
            ) from error
        self._facts[state.step] = _Kept(state.score, state.edited)
        self._prune()

    def _prune(self) -> None:
        if self.keep is None:
            return
        steps = sorted(self._facts)
        scores = {step: facts.score for step, facts in self._facts.items() if facts.score is not None}
        best = {max(scores, key=lambda step: (scores[step], -step))} if scores else set[int]()
        edited = {step for step, facts in self._facts.items() if facts.edited}
        kept = {*steps[:1], *steps[len(steps) - self.keep :], *best, *edited}
        for step in steps:
            if step not in kept:
                self._delete(step)

    def _delete(self, step: int) -> None:
        """Delete a snapshot; it is renamed first, so that one that is half deleted is not taken for a complete one."""
        self._facts.pop(step, None)
        hidden = self.folder / f".{step:08d}.deleted"
        try:
            self.path(step).replace(hidden)
        except OSError:
            return
        shutil.rmtree(hidden, ignore_errors=True)
