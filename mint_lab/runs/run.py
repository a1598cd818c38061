"""A training run as a thing one can start, pause, edit, resume and watch. No page, no printing.

Between two steps everything may change; in the middle of one nothing can. The worker thread takes the current
:class:`StepPlan` when a step begins and holds to it; edits, from any thread, only replace the plan. What a step did is
in ``records`` (and on disk) before anyone is told.

==========  =============================================================================================
status      allowed next
==========  =============================================================================================
ready       start, resume, step, stop
running     pause, step (then n more), stop; start and resume withdraw a pause that has not happened yet
paused      start, resume, step, stop. Also after a failure, which ``error`` tells; registering the loss or the reward
            anew whose failure it was resumes the run
stopped     final
finished    all steps are made; ``set(steps=more)`` turns it into paused
==========  =============================================================================================
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..client import connect
from ..errors import ConfigError, RunError
from ..losses import LossSpec, Param
from ..recipes.options import check_whole
from ..recipes.plan import StepPlan, resolve_loss
from ..recipes.record import Edit, LossVersion, Status, StepRecord
from ..recipes.registry import check_loss, check_model, recipe_named
from ..recipes.rl.recipe import Rl
from .adapter_export import save_adapter
from .failure import RunFailure
from .hot_reload import follow_registries
from .loading import ONE_AT_A_TIME, load_trainer
from .loop import Loop
from .store import RunStore, check_unused, fresh_folder, history_frame, samples_frame
from .token_inspection import ask
from .versions import summary_of

if TYPE_CHECKING:
    import os
    from concurrent.futures import Future

    import pandas as pd
    import plotly.graph_objects as go

    from ..client.protocol import TrainingClient
    from .loading import AnyTrainer
    from .token_inspection import HeldOutTokens

__all__ = ["Run"]

T = TypeVar("T")


class Run:
    """One training run. Making it is quick: model and data are loaded when it first starts.

    Args:
        recipe: "preference", "sft" or "rl".
        loss: a name of ``LOSSES``, a ``LossSpec`` or a function in the custom contract; None for the recipe's own.
        base_model: "mint-tiny", a local directory, or a hub name.
        data, held_out: as the recipe takes them. Without ``held_out`` a seeded tenth of ``data`` is held out; without
            either, the recipe's default data.
        client: a training client to use instead of a new local one.
        steps: optimizer steps in all; None for the recipe's default.
        batch_size: items a step (pairs, examples), or a rollout (prompts).
        learning_rate: of AdamW; None for the recipe's default.
        warmup_steps: steps over which it rises evenly to that value; 0 for none.
        grad_clip_norm: longer gradients are scaled down to this norm; 0 to leave them alone.
        rank: of the LoRA adapter.
        seed: of the adapter's start, the order of the data, and the held-out split.
        loss_config: settings of the loss.
        eval_every: steps between evaluations on held-out data; there is one before the first and after the last step.
        folder: where the run is recorded; None for ``./runs/<time>-<recipe>-<loss>``, made at the first start.
        name: what charts call the run.
        options: of the recipe; those of "rl" are in :class:`mint_lab.recipes.rl.recipe.RlOptions`, for example ``reward``
            and ``group_size``.

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
        warmup_steps: int = 0,
        grad_clip_norm: float = 0.0,
        rank: int = 16,
        seed: int = 0,
        loss_config: dict[str, float] | None = None,
        eval_every: int = 10,
        folder: str | os.PathLike[str] | None = None,
        name: str | None = None,
        **options: Any,
    ) -> None:
        arguments = [name for name in inspect.signature(Run).parameters if name != "options"]
        self._recipe = recipe_named(recipe, options, own=arguments, loss=loss)
        spec = resolve_loss(self._recipe.default_loss if loss is None else loss)
        check_loss(self._recipe, spec)
        check_model(base_model)
        for number, value, least in (("eval_every", eval_every, 1), ("rank", rank, 1), ("seed", seed, 0)):
            check_whole(number, value, least)
        plan = StepPlan.first(
            spec,
            loss_config or {},
            learning_rate=self._recipe.default_learning_rate if learning_rate is None else learning_rate,
            warmup_steps=warmup_steps,
            grad_clip_norm=grad_clip_norm,
            batch_size=batch_size,
            steps=self._recipe.default_steps if steps is None else steps,
        )
        self.seed = seed
        self.base_model = base_model
        self.eval_every = eval_every
        self.name = name or f"{recipe}-{spec.name}-{seed}"
        self.folder: Path | None = None if folder is None else Path(folder)
        self._rank = rank
        self._given = (data, held_out)
        self._client = client
        self._trainer: AnyTrainer | None = None
        self._loop = Loop(
            self.name, plan, load=self._load, open_store=self._open_store, summary=self._summary, eval_every=eval_every
        )
        follow_registries(self._loop, self._recipe)

    def __repr__(self) -> str:
        failed = f", error: {self.error.message}" if self.error else ""
        steps = f"step {self.steps_done}/{self.steps_total}"
        return f"Run({self.name}: {self._loop.plan.loss.label}, {self.status}, {steps}{failed})"

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
        """``learning_rate``, ``warmup_steps``, ``grad_clip_norm``, ``batch_size`` and those of the loss."""
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
        return (len(recent) - 1) / max(recent[-1].time - recent[0].time, 1e-9) if len(recent) > 1 else 0.0

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
    def trainer(self) -> AnyTrainer | None:
        """What makes the steps, with its data; None until it is loaded."""
        return self._trainer

    @property
    def data_sizes(self) -> tuple[int, int] | None:
        """Items to train on and held out; None until they are loaded."""
        job = self._trainer.job if self._trainer else None
        return (job.size, len(job.held_out) // job.held_out_unit) if job else None

    @property
    def evaluation(self) -> str:
        """How held-out prompts are answered, "greedy" or "sampled"; empty where the recipe asks none."""
        return self._recipe.options.evaluation if isinstance(self._recipe, Rl) else ""

    @property
    def history(self) -> pd.DataFrame:
        """One row a step; columns as in :func:`mint_lab.runs.store.history_frame`."""
        return history_frame(list(self.records))

    @property
    def samples(self) -> pd.DataFrame:
        """Responses kept at evaluations, one a row; columns as in :func:`mint_lab.runs.store.samples_frame`."""
        return samples_frame(list(self.records))

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

    def call(self, job: Callable[[], T]) -> Future[T]:
        """Call ``job()`` between two steps; at once, on a thread of its own, while the run is not running."""
        return self._loop.call(job)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the LoRA adapter as it is now, between two steps, to a folder in PEFT's layout; gives the folder.

        ``peft.AutoPeftModelForCausalLM.from_pretrained(path)`` loads it onto the base model, and so does
        ``ServiceClient().create_sampling_client(path)`` here. An adapter that is there already is replaced.

        Raises:
            RunError: no step is made yet.
            ConfigError: the folder holds something else, or the client is hosted and keeps its weights on its server.
            CheckpointError: the folder cannot be written.
        """
        return save_adapter(self, path)

    def held_out_tokens(self) -> Future[HeldOutTokens]:
        """A few held-out items, or responses of the last rollout, token by token; ``RunError`` without a model yet."""
        return ask(self._loop, self._trainer)

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
        """Pause after the current step; a loss that does not return is broken off. A failed run then stays paused."""
        self._loop.ask("paused")
        return self

    def stop(self) -> Run:
        """End the run after the current step, for good; a loss that does not return as :meth:`pause`."""
        self._loop.ask("stopped")
        return self

    def wait(self, timeout: float | None = None, *, check: bool = True) -> bool:
        """Wait until the run is not running: paused, stopped or finished. Interrupting the wait leaves the run going.

        Args:
            timeout: seconds; None to wait as long as it takes.
            check: raise where the run failed or was never started, so that no script takes its model for a trained one.

        Returns:
            False when the time was up first.

        Raises:
            RunError: with ``check``, what :attr:`error` says, or that the run was never started.
        """
        rested = self._loop.wait(timeout)
        if check and self.status == "ready":
            raise RunError("this run was never started, so there is nothing to wait for; call run.start().wait()")
        if check and rested and self.error is not None:
            raise RunError(self.error.message)
        return rested

    def prepare(self) -> Run:
        """Load model and data now, in this thread; a started run has done it.

        Raises:
            ModelError, DataError: they cannot be loaded. RunError: the given folder already holds a run.
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

    def set(self, /, **settings: float) -> Run:
        """Change what :attr:`settings` names, or ``steps``, from the next step on.

        Raises:
            ConfigError: an unknown setting, a value that makes no sense, or no more steps than are made or begun.
        """
        self._loop.edit(lambda plan: plan.with_settings(settings))
        return self

    # -- what the loop asks for ----------------------------------------------------------------------------------------

    def _load(self) -> AnyTrainer:
        if self._trainer is not None:
            return self._trainer
        check_unused(self.folder)  # rather than after minutes of loading
        with ONE_AT_A_TIME:
            if self._trainer is not None:
                return self._trainer
            if self._client is None:
                self._client = connect().create_lora_training_client(
                    base_model=self.base_model, rank=self._rank, seed=self.seed
                )
            self._trainer, notes = load_trainer(self._client, self._recipe, *self._given, self.seed)
            self._loop.notes += notes
            return self._trainer

    def _open_store(self) -> RunStore:
        self.folder = self.folder or fresh_folder(f"{self.recipe}-{self.loss.name}")
        return RunStore(self.folder)

    def _summary(self) -> dict[str, Any]:
        return summary_of(self, self._recipe, self._rank)
