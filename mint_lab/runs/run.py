"""A training run as a thing one can start, pause, edit, resume and watch. No page, no printing.

Between two steps everything may change; in the middle of one nothing can. The worker thread takes the current
:class:`Plan` when a step begins and holds to it; edits, from any thread, only replace the plan. What a step did is in
``records`` (and on disk) before anyone is told.

==========  =============================================================================================
status      allowed next
==========  =============================================================================================
ready       start, resume, step, stop
running     pause, step (then n more), stop; start and resume withdraw a pause that has not happened yet
paused      start, resume, step, stop. Also the status after a failure, which ``error`` tells
stopped     final
finished    all steps are made; ``set(steps=more)`` turns it into paused
==========  =============================================================================================
"""

from __future__ import annotations

import math
import threading
import warnings
import weakref
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..client import connect
from ..errors import ConfigError, RunError
from ..losses import LOSSES, LossSpec, Param
from .failure import RunFailure
from .loop import Loop
from .plan import Plan, resolve_loss
from .recipes import Recipe, check_loss, recipe_named
from .record import Edit, LossVersion, Status, StepRecord
from .store import RunStore, history_frame
from .trainer import Trainer
from .versions import versions

if TYPE_CHECKING:
    import os

    import pandas as pd
    import plotly.graph_objects as go

    from ..client.protocol import TrainingClient

__all__ = ["Run"]


class Run:
    """One training run. Making it is quick: model and data are loaded when it first starts.

    Args:
        recipe: "preference" or "sft".
        loss: a name of ``LOSSES``, a ``LossSpec`` or a function in the custom contract; None for the recipe's own.
        base_model: "mint-tiny", a local directory, or a hub name.
        data, held_out: as the recipe takes them. Without ``held_out`` a seeded tenth of ``data`` is held out; without
            either, the recipe's default data.
        client: a training client to use instead of a new local one.
        steps: optimizer steps in all; None for the recipe's default.
        batch_size: items (pairs, examples) a step.
        learning_rate: of AdamW; None for the recipe's default.
        rank: of the LoRA adapter.
        seed: of the adapter's start, the order of the data, and the held-out split.
        loss_config: settings of the loss.
        eval_every: steps between evaluations on held-out data; there is one before the first and after the last step.
        folder: where the run is recorded; None for ``./runs/<time>-<recipe>-<loss>``, made at the first start.
        name: what charts call the run.

    Raises:
        ConfigError: an unknown name or setting, or a loss that the recipe has no data for.
    """

    def __init__(
        self,
        recipe: str = "preference",
        loss: str | LossSpec | Callable[..., Any] | None = None,
        *,
        base_model: str = "mint-tiny",
        data: Any = None,
        held_out: Any = None,
        client: TrainingClient | None = None,
        steps: int | None = None,
        batch_size: int = 32,
        learning_rate: float | None = None,
        rank: int = 16,
        seed: int = 0,
        loss_config: dict[str, float] | None = None,
        eval_every: int = 10,
        folder: str | os.PathLike[str] | None = None,
        name: str | None = None,
    ) -> None:
        self._recipe = chosen_recipe = recipe_named(recipe)
        spec = resolve_loss(self._recipe.default_loss if loss is None else loss)
        check_loss(self._recipe, spec)
        if eval_every < 1:
            raise ConfigError(f"eval_every is {eval_every!r}, expected a whole number of steps from 1 up")
        plan = Plan(spec, {}, 0.0, 1, 1).with_loss(spec, loss_config or {})
        plan = plan.with_settings(
            {
                "learning_rate": self._recipe.default_learning_rate if learning_rate is None else learning_rate,
                "batch_size": batch_size,
                "steps": self._recipe.default_steps if steps is None else steps,
            }
        )
        self.seed = seed
        self.base_model = base_model
        self.eval_every = eval_every
        self.name = name or f"{recipe}-{spec.name}-{seed}"
        self.folder: Path | None = None if folder is None else Path(folder)
        self._rank = rank
        self._given = (data, held_out)
        self._client = client
        self._trainer: Trainer | None = None
        self._loading = threading.Lock()
        self._loop = Loop(
            self.name, plan, load=self._load, open_store=self._open_store, summary=self._summary, eval_every=eval_every
        )
        # Through weak references: the registry must not keep a forgotten run and its model alive.
        this = weakref.ref(self._loop)
        weakref.finalize(self._loop, LOSSES.subscribe(lambda spec: _hot_swap(this(), chosen_recipe, spec)))

    def __repr__(self) -> str:
        text = (
            f"Run({self.name}: {self._loop.plan.loss.label}, {self.status}, step {self.steps_done}/{self.steps_total}"
        )
        return text + (f", error: {self.error.message})" if self.error else ")")

    # -- what there is to see ------------------------------------------------------------------------------------------

    @property
    def status(self) -> Status:
        """One of "ready", "running", "paused", "stopped" and "finished"."""
        return self._loop.status

    @property
    def error(self) -> RunFailure | None:
        """Why the run paused by itself; None when it did not, and again once it goes on."""
        return self._loop.error

    @property
    def records(self) -> list[StepRecord]:
        """One a step; only ever added to, so ``records[seen:]`` is what is new, from any thread."""
        return self._loop.records

    @property
    def edits(self) -> list[Edit]:
        """Changes of loss or settings, at the step that first ran with them; only ever added to."""
        return self._loop.edits

    @property
    def losses(self) -> list[LossVersion]:
        """Every loss version that made a step, with its source; only ever added to."""
        return self._loop.losses

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
        """Its settings."""
        return dict(self._loop.plan.config)

    @property
    def settings(self) -> dict[str, float]:
        """``learning_rate``, ``batch_size`` and the loss's settings, as the next step will use them."""
        return self._loop.plan.settings()

    @property
    def setting_params(self) -> list[Param]:
        """The settings a slider may show, with their ranges."""
        return self._loop.plan.params()

    @property
    def steps_done(self) -> int:
        """Optimizer steps made."""
        return len(self.records)

    @property
    def steps_total(self) -> int:
        """Optimizer steps to make in all."""
        return self._loop.plan.steps

    @property
    def steps_per_s(self) -> float:
        """Of the last 20 steps, evaluations included, pauses left out; 0 before there are two."""
        recent = self.records[-20:]
        if len(recent) < 2:
            return 0.0
        return (len(recent) - 1) / max(recent[-1].time - recent[0].time, 1e-9)

    @property
    def seconds(self) -> float:
        """Time spent running, without loading and pauses."""
        return self._loop.seconds

    @property
    def baseline(self) -> dict[str, float]:
        """Held-out metrics before training; empty until known."""
        return dict(self._trainer.baseline) if self._trainer else {}

    @property
    def client(self) -> TrainingClient | None:
        """The training client; None until it is loaded."""
        return self._trainer.client if self._trainer else self._client

    @property
    def data_sizes(self) -> tuple[int, int] | None:
        """Items to train on and held out; None until they are loaded."""
        job = self._trainer.job if self._trainer else None
        return (job.size, len(job.held_out) // job.held_out_unit) if job else None

    @property
    def history(self) -> pd.DataFrame:
        """One row a step; columns as in :func:`mint_lab.runs.store.history_frame`."""
        return history_frame(list(self.records))

    def figure(self) -> go.Figure:
        """Loss, accuracy, margins and log-probabilities so far, as one picture."""
        from .figure import draw

        return draw(list(self.records), list(self.edits), self.baseline)

    def subscribe(self, notify: Callable[[], None]) -> Callable[[], None]:
        """Call ``notify()`` after every change, from a thread of its own; several quick changes may be told as one.

        Returns:
            A function that ends the subscription.
        """
        return self._loop.bell.subscribe(notify)

    # -- control: any thread, returns at once --------------------------------------------------------------------------

    def start(self) -> Run:
        """Begin, or go on after a pause.

        Raises:
            RunError: the run is stopped or finished.
        """
        self._loop.go(None)
        return self

    def resume(self) -> Run:
        """Go on after a pause; a step that failed is made again, with the same batch. Raises as :meth:`start`."""
        self._loop.go(None)
        return self

    def step(self, n: int = 1) -> Run:
        """Make ``n`` steps, then be paused (or finished). Raises as :meth:`start`, and ``ConfigError`` for n < 1."""
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ConfigError(f"step({n!r}): expected a whole number of steps from 1 up")
        self._loop.go(n)
        return self

    def pause(self) -> Run:
        """Pause after the current step. Does nothing to a run that is not running."""
        self._loop.ask("paused")
        return self

    def stop(self) -> Run:
        """End the run after the current step, for good."""
        self._loop.ask("stopped")
        return self

    def wait(self, timeout: float | None = None, *, check: bool = False) -> bool:
        """Wait until the run is not running: paused, stopped or finished. Interrupting the wait leaves the run going.

        Args:
            timeout: seconds; None to wait as long as it takes.
            check: raise when the run paused because of a failure.

        Returns:
            False when the time was up first.

        Raises:
            RunError: with ``check``, what :attr:`error` says.
        """
        rested = self._loop.wait(timeout)
        if check and rested and self.error is not None:
            raise RunError(self.error.message)
        return rested

    def prepare(self) -> Run:
        """Load model and data now, in this thread; a started run has done it.

        Raises:
            ModelError, DataError: they cannot be loaded.
        """
        self._load()
        return self

    # -- edits: any thread, take effect at the next step ---------------------------------------------------------------

    def set_loss(self, loss: str | LossSpec | Callable[..., Any], **config: float) -> Run:
        """Train with another loss from the next step on; the optimizer's state stays.

        Raises:
            ConfigError: an unknown loss or setting, or a loss that the recipe has no data for.
        """
        spec = resolve_loss(loss)
        check_loss(self._recipe, spec)
        self._loop.edit(lambda plan: plan.with_loss(spec, config))
        return self

    def set(self, **settings: float) -> Run:
        """Change ``learning_rate``, ``batch_size``, ``steps`` or settings of the loss from the next step on.

        Raises:
            ConfigError: an unknown setting, a value that makes no sense, or fewer steps than are made.
        """
        self._loop.edit(lambda plan: plan.with_settings(settings))
        return self

    # -- what the loop asks for ----------------------------------------------------------------------------------------

    def _load(self) -> Trainer:
        with self._loading:
            if self._trainer is not None:
                return self._trainer
            if self._client is None:
                self._client = connect().create_lora_training_client(
                    base_model=self.base_model, rank=self._rank, seed=self.seed
                )
            tokenizer = self._client.get_tokenizer()
            data, held_out = self._given
            # Said in the run's own words: a worker does not print.
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                job = self._recipe.prepare(
                    tokenizer, data, held_out, seed=self.seed, max_length=_context_length(tokenizer)
                )
            self._loop.notes += [str(w.message) for w in caught if issubclass(w.category, UserWarning)]
            self._trainer = Trainer(self._client, job, self.seed)
            return self._trainer

    def _open_store(self) -> RunStore:
        if self.folder is None:
            self.folder = _fresh_folder(f"{self.recipe}-{self.loss.name}")
        return RunStore(self.folder)

    def _summary(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "recipe": self.recipe,
            "base_model": self.base_model,
            "loss": self.loss.name,
            "loss_version": self.loss.version,
            "settings": self.settings,
            "steps": self.steps_total,
            "steps_done": self.steps_done,
            "rank": self._rank,
            "seed": self.seed,
            "eval_every": self.eval_every,
            "data_sizes": self.data_sizes,
            "baseline": self.baseline,
            "notes": self.notes,
            "status": self.status,
            "error": self.error.message if self.error else None,
            "seconds": self.seconds,
            "versions": versions(),
        }


def _hot_swap(loop: Loop | None, recipe: Recipe, spec: LossSpec) -> None:
    """A loss was registered: a run that uses that name takes the new version at its next step."""
    if loop is not None and loop.plan.loss.name == spec.name:
        check_loss(recipe, spec)
        loop.edit(lambda plan: plan.with_loss(spec, {}))


def _context_length(tokenizer: Any) -> int | None:
    """What the tokenizer says of its model's context, tokens; some say a number beyond all meaning."""
    length = getattr(tokenizer, "model_max_length", math.inf)
    return int(length) if length < 10_000_000 else None


def _fresh_folder(what: str) -> Path:
    base = Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{what}"
    folder, number = base, 2
    while folder.exists():
        folder, number = base.with_name(f"{base.name}-{number}"), number + 1
    return folder.absolute()
