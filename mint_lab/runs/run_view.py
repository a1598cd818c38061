"""What can be read of a run: its state, its records and its results. Nothing here changes it, except calls by a job."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..losses import DataKind, LossSpec, Param
from ..recipes.plan import StepPlan
from ..recipes.record import Edit, LossVersion, Rewind, Status, StepRecord
from .adapter_export import save_adapter
from .failure import RunFailure
from .store import history_frame, load_parent, samples_frame
from .token_inspection import request_tokens

if TYPE_CHECKING:
    import os
    from concurrent.futures import Future

    import pandas as pd
    import plotly.graph_objects as go

    from ..client.protocol import TrainingClientProtocol
    from ..lora_options import LoraOptions
    from ..recipes.base import Recipe
    from ..recipes.guarded_trainer import GuardedTrainer
    from .early_stopping import EarlyStopping
    from .entries import RunInfo
    from .loading import AdapterRequest, SharedData
    from .loop import Loop
    from .reopen import Past
    from .token_inspection import HeldOutTokens

__all__ = ["RunView"]

T = TypeVar("T")

PACE_STEPS = 20


class RunView:
    """The part of :class:`~mint_lab.runs.run.Run` that reads it.

    Attributes:
        seed, base_model, eval_every, keep_snapshots, name, tags, description, reference: As given to the run.
        reading: A context: while it is entered, the run does not return to an earlier step.
        early_stopping: When the run finishes before its last step; None if never.
        folder: Where the run is recorded; None before the first start, if none was given.
    """

    seed: int
    base_model: str
    eval_every: int
    keep_snapshots: int | None
    reading: AbstractContextManager[object]
    name: str
    folder: Path | None
    tags: tuple[str, ...]
    description: str
    reference: str
    early_stopping: EarlyStopping | None
    _recipe: Recipe
    _adapter: AdapterRequest
    _past: Past | None
    _client: TrainingClientProtocol | None
    _trainer: GuardedTrainer | None
    _loop: Loop
    _data: SharedData
    _has_client: bool
    _info: Callable[[], RunInfo]

    @property
    def status(self) -> Status:
        """One of "ready", "running", "paused", "stopped" and "finished"."""
        return self._loop.status

    @property
    def error(self) -> RunFailure | None:
        """Why the run paused; None if it did not fail, and again once it resumes."""
        return self._loop.error

    @property
    def records(self) -> list[StepRecord]:
        """One record per step. The list only grows, so ``records[seen:]`` gives any thread the new ones; a rewind
        replaces it by a shorter one, see :attr:`rewinds`.
        """
        return self._loop.records

    @property
    def edits(self) -> list[Edit]:
        """Changes of loss, reward or settings, each with the first step that used it; the list only grows."""
        return self._loop.edits

    @property
    def losses(self) -> list[LossVersion]:
        """Every loss version that completed a step, with its source; the list only grows."""
        return self._loop.losses

    @property
    def rewinds(self) -> list[Rewind]:
        """What :meth:`rewind` has taken back: the later steps of each call; the list only grows."""
        return self._loop.rewinds

    @property
    def parent(self) -> dict[str, Any]:
        """Of a fork: ``name`` and ``folder`` of the run that it was forked from, and the ``step``; otherwise empty."""
        return dict(self._past.saved.info.parent) if self._past else {}

    @property
    def notes(self) -> list[str]:
        """What was noteworthy about model and data, in plain words."""
        return self._loop.notes

    @property
    def recipe(self) -> str:
        """Name of the recipe."""
        return self._recipe.name

    @property
    def loss(self) -> LossSpec:
        """The loss that the next step will use."""
        return self._loop.plan.loss

    @property
    def loss_config(self) -> dict[str, float]:
        """Settings of that loss."""
        return dict(self._loop.plan.config)

    @property
    def settings(self) -> dict[str, float]:
        """The numbers that :meth:`set` changes, by name: of the optimizer, of a step's size, and of the loss."""
        return self._loop.plan.settings()

    @property
    def plan(self) -> StepPlan:
        """Loss and all settings that the next step will use."""
        return self._loop.plan

    @property
    def setting_params(self) -> list[Param]:
        """The settings that a page may offer as sliders, with their ranges."""
        return self._loop.plan.params()

    @property
    def steps_done(self) -> int:
        """Optimizer steps completed."""
        return len(self.records)

    @property
    def steps_total(self) -> int:
        """Optimizer steps to complete in total."""
        return self._loop.plan.steps

    @property
    def steps_per_s(self) -> float:
        """Steps per second over the last 20, with evaluations and without pauses; 0 before the second step."""
        recent = self.records[-PACE_STEPS:]
        return (len(recent) - 1) / max(recent[-1].time - recent[0].time, 1e-9) if len(recent) > 1 else 0.0

    @property
    def seconds(self) -> float:
        """Time spent running, without loading and pauses."""
        return self._loop.seconds

    @property
    def baseline(self) -> dict[str, float]:
        """Held-out metrics before training; empty until they are measured."""
        if self._trainer is None and self._past is not None:
            return dict(self._past.saved.baseline)
        return dict(self._trainer.baseline) if self._trainer else {}

    @property
    def lora(self) -> LoraOptions | None:
        """The options of the adapter; None for a saved one that is not loaded yet."""
        return getattr(self.client, "lora", None) or self._adapter.options

    @property
    def client(self) -> TrainingClientProtocol | None:
        """The training client; None until it is loaded."""
        return self._trainer.client if self._trainer else self._client

    @property
    def trainer(self) -> GuardedTrainer | None:
        """The trainer, with its data; None until it is loaded."""
        return self._trainer

    @property
    def data_sizes(self) -> tuple[int, int] | None:
        """Number of items to train on and of held-out items; None until they are loaded."""
        job = self._trainer.job if self._trainer else None
        return (job.size, job.held_out_size) if job else None

    @property
    def evaluation(self) -> str:
        """How held-out prompts are answered, "greedy" or "sampled"; empty if the recipe samples no answers."""
        return self._recipe.evaluation

    @property
    def data_kind(self) -> DataKind:
        """What the datums of the recipe consist of, which decides the losses that fit."""
        return self._recipe.data_kind

    @property
    def options(self) -> dict[str, Any]:
        """The options of the recipe, by name."""
        return self._recipe.option_values()

    @property
    def config(self) -> dict[str, Any]:
        """Every setting of the run in one flat dictionary, as trackers show it, for example ``optimizer/beta2``."""
        return self._info().config

    @property
    def history(self) -> pd.DataFrame:
        """One row per step; columns as in :func:`mint_lab.runs.store.history_frame`."""
        return history_frame(list(self.records))

    @property
    def samples(self) -> pd.DataFrame:
        """One row per response that an evaluation kept; columns as in :func:`mint_lab.runs.store.samples_frame`."""
        return samples_frame(list(self.records))

    def figure(self) -> go.Figure:
        """Draw the recipe's charts so far, and one for each further metric.

        Faint dashed curves are the steps that :meth:`rewind` has taken back, and those of the parent of a fork.
        """
        from .figure import draw_run

        return draw_run(self.recipe, self, load_parent(self.parent))

    def subscribe(self, notify: Callable[[], None]) -> Callable[[], None]:
        """Call ``notify()`` after every change, on a separate thread; several quick changes can cause one call.

        Returns:
            A function that ends the subscription.
        """
        return self._loop.notifier.subscribe(notify)

    def call(self, job: Callable[[], T]) -> Future[T]:
        """Call ``job()`` between two steps; at once, on a separate thread, if the run is not running."""
        return self._loop.call(job)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the current LoRA adapter, between two steps, to a folder in PEFT's layout; return the folder.

        ``peft.AutoPeftModelForCausalLM.from_pretrained(path)`` loads it onto the base model, and so does
        ``ServiceClient().create_sampling_client(path)`` here. ``Run(base_model=path)`` continues it. The tokenizer
        with its chat template and the generation configuration are in the folder too. An adapter that is there already
        is replaced.

        Raises:
            RunError: If no step is complete yet.
            ConfigError: If the folder holds something else, or the client is hosted and keeps its weights on a server.
            CheckpointError: If the folder cannot be written.
        """
        return save_adapter(self.client, path, steps_done=self.steps_done, call=self.call)

    def script(self, path: str | os.PathLike[str] | None = None) -> str:
        """Return a Python script that makes this run again, with the source of its losses and rewards and its edits.

        On a CPU, with the same versions of the libraries, records and weights are then the same to the last bit. A
        script of a run that has not ended trains to its last step.

        Args:
            path: Where to write the script as well, with rows that were in memory in a JSONL file beside it. Without
                it, and for other objects, the script ends with a text that says what to put in their place.

        Raises:
            RunError: If a file cannot be written.
        """
        from .script import RunScript

        given, loop = self._data.given, self._loop
        records, edits, losses = list(loop.records), list(loop.edits), list(loop.losses)
        script = RunScript(self._info(), records, edits, losses, loop.plan, self.folder, given, self._has_client)
        return script.text(None if path is None else Path(path))

    def held_out_tokens(self) -> Future[HeldOutTokens]:
        """Compute a few held-out items, or responses of the last rollout, token by token.

        Raises:
            RunError: If the run has not started.
        """
        return request_tokens(self._loop, self._trainer)
