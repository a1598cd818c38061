"""A training run that can be started, paused, edited, resumed and watched. It has no page and prints nothing.

Edits take effect between two steps, never inside one. The worker thread reads the current
:class:`~mint_lab.recipes.plan.StepPlan` when a step begins and uses it to the step's end; an edit, from any thread,
replaces the plan for the next step. Before subscribers are notified of a step, its record is on disk and in
``records``.

==========  =============================================================================================
status      what is allowed
==========  =============================================================================================
ready       start, resume, step, stop
running     pause, step (n more), stop; start and resume withdraw a pause that has not taken effect yet
paused      start, resume, step, stop. A failure also pauses the run, and ``error`` describes it;
            registering the failed loss or reward again resumes the run
stopped     nothing: the status is final
finished    all steps are complete; ``set(steps=more)`` changes the status to "paused"
==========  =============================================================================================
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..client import connect, text_source
from ..errors import ConfigError, RunError
from ..lora_options import LoraOptions
from ..losses import LossSpec
from ..recipes.options import check_whole, checked_tags, checked_text
from ..recipes.plan import StepPlan, resolve_loss
from ..recipes.registry import check_loss, check_model, recipe_named, unchecked_note
from .advice import RunAdvice
from .describe import describe_run
from .early_stopping import EarlyStopping, Ending
from .fork import changed, copy_run
from .hot_reload import follow_registries
from .loading import AdapterRequest, ClientModel, DataLimits, PreparedData, SharedData, load_alone, load_trainer
from .loop import Loop
from .reopen import Past, end_folder, read_past, restore
from .reporters import ReportTo, reporters_of
from .reporting import Reporting
from .run_view import RunView
from .store import RunStore, check_unused, fresh_folder

if TYPE_CHECKING:
    import os

    from ..client.protocol import TrainingClientProtocol
    from ..data.sources import OnBadRow
    from ..recipes.guarded_trainer import GuardedTrainer

__all__ = ["Run"]

T = TypeVar("T")


# Of the arguments of a run those that another one on the same data and model is given too; its loss and the settings of
# its steps are the present ones.
_KEPT_ARGUMENTS = {
    *("recipe", "base_model", "data", "held_out", "reference", "rank", "lora", "seed", "max_length", "max_rows"),
    *("on_bad_row", "eval_every", "keep_snapshots", "name", "tags", "description", "early_stopping", "report_to"),
}


class Run(RunView):
    """One training run. Creating it is quick: model and data are loaded when it first starts.

    Args:
        recipe: Name of a recipe: "preference", "sft", "rl", "unpaired", or a registered one.
        loss: A name of ``LOSSES``, a ``LossSpec``, or a function in the custom call form; None for the default of the
            recipe.
        base_model: "mint-tiny", a local directory, or a hub name. Or the folder of a LoRA adapter in PEFT's layout:
            its base model is loaded, and training starts at its weights, which also give ``baseline``.
        data, held_out: As the recipe takes them. Without ``held_out``, a seeded tenth of ``data`` is held out; without
            either, the recipe's default data are used.
        client: A training client; None for a new local one.
        reference: The model that losses such as "dpo" and "grpo" compare with: "start" for the model at the start of
            this run, whatever the client has learned before; "base" for the base model; or a saved adapter of the same
            shape (its folder, or what ``save_state`` returned). Snapshots keep it, so that the run has the same one
            after it was opened, rewound or forked.
        steps: Optimizer steps in total; None for the recipe's default.
        batch_size: Items per batch (pairs, examples), or prompts per rollout.
        accumulate: Batches per optimizer step. The gradient is that of one batch that is so many times as large (for
            "rl", of so many times as many prompts per rollout); the trainer divides it into what fits in memory.
        learning_rate: Of AdamW; None for the recipe's default.
        warmup_steps: Steps over which the learning rate rises linearly to its value; 0 for none.
        schedule: The learning rate after the warm-up: "constant", "linear" or "cosine"; the last two are 0 at the last
            step. The metric ``learning_rate`` has the rate of each step, unless it is constant.
        weight_decay: Of AdamW, decoupled from the gradient.
        betas, adam_eps: Of AdamW; the default is that of the API's ``AdamParams``.
        grad_clip_norm: A gradient with a larger norm is scaled down to this norm; 0 for no limit.
        rank: Of the LoRA adapter; the short form of ``lora=LoraOptions(rank)``. None for 16, or for that of the adapter
            in ``base_model`` or ``client``.
        lora: :class:`~mint_lab.LoraOptions`: rank, alpha, dropout, and the layers that carry LoRA; None for those of
            ``rank``.
        seed: Of the adapter's initial weights and dropout, the order of the data, and the held-out split.
        loss_config: Settings of the loss.
        max_length: Longest sequence to train on, tokens: a longer one loses the beginning of its prompt, then the end
            of its completion, and ``notes`` name it. None for what the model takes; never more than that.
        max_rows: Maximum number of rows of ``data`` to read, and of ``held_out``; None for all.
        on_bad_row: "raise" for an error at a row that cannot be used, or "skip" to leave it out; ``notes`` count them.
        eval_every: Steps between evaluations on held-out data. There is one more before the first step, and one after
            the last.
        keep_snapshots: The folder gets a snapshot before the first step, at each evaluation and edit, and whenever the
            run is not running: :meth:`open` continues from it. Of these the first, the best and those at edits are
            kept, and this number of the last ones; None for all, 0 for no snapshots.
        folder: Where the run is recorded; None for ``./runs/<time>-<recipe>-<loss>``, created at the first start.
        name: What charts call the run.
        tags, description: Words to find the run by, and a text about it; kept in ``run.json``.
        early_stopping: Evaluations without an improvement of the recipe's headline after which the run finishes, or
            :class:`~mint_lab.EarlyStopping`; None to train to the last step.
        report_to: Trackers of experiments that get every record: "tensorboard", "trackio", "wandb", or a
            :class:`~mint_lab.runs.reporters.Reporter`; or a list of these.
        options: Options of the recipe; those of "rl" are in :class:`~mint_lab.recipes.rl.rl_job.RlOptions`, for example
            ``reward`` and ``group_size``.

    Raises:
        ConfigError: If a name or a setting is unknown, the recipe's data do not fit the loss, or ``rank``, ``lora`` and
            ``client`` disagree.
    """

    def __init__(
        self,
        recipe: str = "preference",
        loss: str | LossSpec | Callable[..., Any] | None = None,
        *,
        base_model: str = "mint-tiny",
        data: Any = None,
        held_out: Any = None,
        client: TrainingClientProtocol | None = None,
        reference: str | Path = "start",
        steps: int | None = None,
        batch_size: int = 32,
        accumulate: int = 1,
        learning_rate: float | None = None,
        warmup_steps: int = 0,
        schedule: str = "constant",
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.95),
        adam_eps: float = 1e-12,
        grad_clip_norm: float = 0.0,
        rank: int | None = None,
        lora: LoraOptions | None = None,
        seed: int = 0,
        loss_config: dict[str, float] | None = None,
        max_length: int | None = None,
        max_rows: int | None = None,
        on_bad_row: OnBadRow = "raise",
        eval_every: int = 10,
        keep_snapshots: int | None = 2,
        folder: str | os.PathLike[str] | None = None,
        name: str | None = None,
        tags: Sequence[str] = (),
        description: str = "",
        early_stopping: int | EarlyStopping | None = None,
        report_to: ReportTo = None,
        **options: Any,
    ) -> None:
        self._arguments = {name: value for name, value in locals().items() if name in _KEPT_ARGUMENTS} | options
        arguments = [name for name in inspect.signature(Run).parameters if name != "options"]
        self._recipe = recipe_named(recipe, options, arguments=arguments, loss=loss)
        spec = resolve_loss(self._recipe.default_loss if loss is None else loss)
        check_loss(self._recipe, spec)
        check_model(base_model)
        for number, value, least in (("eval_every", eval_every, 1), ("seed", seed, 0)):
            check_whole(number, value, least)
        self._adapter = AdapterRequest(base_model, rank, lora, seed)
        self._adapter.check_client(client)
        if keep_snapshots is not None:
            check_whole("keep_snapshots", keep_snapshots, 0)
        reporters = reporters_of(report_to)
        self._limits = DataLimits(max_length, max_rows, on_bad_row)
        self._past: Past | None = None
        plan = StepPlan.first(
            spec,
            loss_config or {},
            learning_rate=self._recipe.default_learning_rate if learning_rate is None else learning_rate,
            warmup_steps=warmup_steps,
            schedule=schedule,
            weight_decay=weight_decay,
            betas=betas,
            adam_eps=adam_eps,
            grad_clip_norm=grad_clip_norm,
            batch_size=batch_size,
            accumulate=accumulate,
            steps=self._recipe.default_steps if steps is None else steps,
        )
        self.seed, self.base_model = seed, base_model
        self.reference = checked_text("reference", str(reference) if isinstance(reference, Path) else reference)
        self.eval_every, self.keep_snapshots = eval_every, keep_snapshots
        self.early_stopping = EarlyStopping.of(early_stopping)
        self.tags, self.description = checked_tags(tags), checked_text("description", description)
        self.name = name or f"{recipe}-{spec.name}-{seed}"
        self.folder: Path | None = None if folder is None else Path(folder)
        self._data = data if isinstance(data, SharedData) else SharedData(data, held_out)
        self._client = client
        self._trainer: GuardedTrainer | None = None
        self._has_client = client is not None
        self._client_model = ClientModel()
        self._info = lambda: describe_run(self, self._client_model, self._data.given, self._limits, keep_snapshots)
        self._loop = self._new_loop(plan, keep_snapshots)
        self.reading = self._loop.reading
        self._reporting = Reporting(
            self._loop, reporters, lambda: {**self.config, "folder": str(self.folder)}, lambda: self.baseline
        )
        self._note_unchecked(spec)
        follow_registries(self._loop, self._recipe)

    def _new_loop(self, plan: StepPlan, keep_snapshots: int | None) -> Loop:
        return Loop(
            self.name,
            plan,
            load=self._load,
            open_store=self._open_store,
            describe_run=self._info,
            eval_every=self.eval_every,
            advice=RunAdvice(self._recipe),
            ending=Ending(self._recipe.headlines, self.early_stopping, keeps_snapshots=keep_snapshots != 0),
            keep_snapshots=keep_snapshots,
        )

    @classmethod
    def open(
        cls,
        folder: str | os.PathLike[str],
        *,
        data: Any = None,
        held_out: Any = None,
        client: TrainingClientProtocol | None = None,
        run_source: bool = False,
        report_to: ReportTo = None,
    ) -> Run:
        """Return the run of a folder, paused after its last snapshot, whatever ended it.

        ``start()`` continues it. On a CPU its records and weights are those of a run that was never interrupted, to the
        last bit, except for times. Steps after the snapshot are computed again. Model and data are loaded at the start.

        Args:
            folder: Of the run; no process may be writing it.
            data, held_out: As the run was given them, if they were in memory; they must be the same data.
            client: A new training client of the same shape, if the run was given one; None for a new local one.
            run_source: Whether to execute the source that the folder has of a custom loss or reward. Without it, the
                loss or reward has to be registered, with the same source: run its cell first.
            report_to: As given to the run; the trackers continue the same run.

        Raises:
            RunError: If the folder holds no run or no snapshot, or a process is writing it.
            ConfigError: If the loss or the reward of the run is not registered, or data that were in memory are not
                given again.
            CheckpointError: If no snapshot can be read.
        """
        past = read_past(folder, run_source=run_source)
        past.check_given(data, held_out)
        return cls._continue(past, data, held_out, client, report_to)

    @classmethod
    def _continue(
        cls,
        past: Past,
        data: Any,
        held_out: Any,
        client: TrainingClientProtocol | None,
        report_to: ReportTo = None,
    ) -> Run:
        run = cls(client=client, report_to=report_to, **past.arguments(data, held_out))
        run._past = past
        run._loop.adopt(past)
        if run.status == "finished":
            end_folder(past)
        run._reporting.adopt()
        run._loop.notes += past.notes
        return run

    def __repr__(self) -> str:
        failed = f", error: {self.error.message}" if self.error else ""
        steps = f"step {self.steps_done}/{self.steps_total}"
        return f"Run({self.name}: {self._loop.plan.loss.label}, {self.status}, {steps}{failed})"

    # -- control: for any thread, returns at once ----------------------------------------------------------------------

    def start(self) -> Run:
        """Start the run, or resume it after a pause.

        Raises:
            RunError: If the run is stopped or finished.
        """
        self._loop.start()
        return self

    @property
    def data(self) -> Any:
        """The data as they were given; None for the recipe's default."""
        return self._data.given[0]

    def again(self, folder: str | os.PathLike[str] | None = None) -> Run:
        """Return a new run on the same data and base model, with the present loss and settings. It is not started.

        Args:
            folder: Its folder; None for a new one in ``./runs``.

        Raises:
            RunError: If the run trains a client that was given, whose weights are changed.
        """
        if self._has_client:
            raise RunError(
                "this run was given a training client, whose weights are trained already; make a new client, and with "
                "it a new run"
            )
        return Run(loss=self.loss, folder=folder, **(self._arguments | self.plan.arguments()))

    def resume(self) -> Run:
        """Resume after a pause; a failed step is retried with the same batch. Raises as :meth:`start`."""
        self._loop.start()
        return self

    def step(self, n: int = 1) -> Run:
        """Complete ``n`` steps, then pause (or finish). Raises as :meth:`start`, and ``ConfigError`` for n < 1."""
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise ConfigError(f"step({n!r}): expected a whole number of steps from 1 up")
        self._loop.start(max_steps=n)
        return self

    def pause(self) -> Run:
        """Pause after the current step; a loss that does not return is cancelled. A failed run then stays paused."""
        self._loop.request("paused")
        return self

    def stop(self) -> Run:
        """End the run for good after the current step; a loss that does not return is cancelled."""
        self._loop.request("stopped")
        return self

    def rewind(self, step: int) -> Run:
        """Return to the state after ``step``, and pause there; returns once that is done.

        Weights, optimizer, position in the data, loss and settings are those of that moment: on a CPU, a run that then
        starts again repeats its records to the last bit. An edit that took effect at the next step is kept, later ones
        are undone. The later records move to :attr:`rewinds`. Without a snapshot after that step, the steps from the
        last snapshot before it are computed again.

        Raises:
            ConfigError: If the run has not completed that step.
            RunError: If the run is stopped or has no snapshots, or a step cannot be computed again.
            CheckpointError: If the snapshot is damaged.
        """
        self._loop.rewind(step)
        return self

    def fork(
        self,
        step: int | None = None,
        *,
        loss: str | LossSpec | Callable[..., Any] | None = None,
        loss_config: dict[str, float] | None = None,
        name: str | None = None,
        folder: str | os.PathLike[str] | None = None,
        client: TrainingClientProtocol | None = None,
        **settings: float,
    ) -> Run:
        """Return a new run that continues from this one's state after ``step``; this run is not changed.

        Args:
            step: The step; None for the last complete one.
            loss: Loss of the new run; None for that of this run at that step.
            loss_config: Settings of the loss.
            name: What charts call the new run; None for ``NAME@STEP``.
            folder: Where it is recorded; None for a new one in ``./runs``.
            client: As in :meth:`open`.
            settings: As in :meth:`set`.

        Raises:
            ConfigError: If the run has not completed that step, or the loss or a setting is not valid.
            RunError: If the run has no snapshots, or the folder is in use or cannot be written, or a step cannot be
                computed again.
            CheckpointError: If the snapshot is damaged.
        """
        step, spec = self.steps_done if step is None else step, None if loss is None else resolve_loss(loss)
        if spec is not None:
            check_loss(self._recipe, spec)
        change = partial(changed, loss=spec, config=loss_config or {}, settings=settings)
        change(self._loop.plan)  # refuses a change that is not valid before anything is written
        past = copy_run(self._loop, step, name or f"{self.name}@{step}", folder)
        run = self._continue(past, self._data, None, client)
        if run.steps_done < step:
            run.step(step - run.steps_done).wait()
        run._loop.edit(change)
        if spec is not None:
            run._note_unchecked(spec)
        return run

    def wait(self, timeout: float | None = None, *, check: bool = True) -> bool:
        """Wait until the run is paused, stopped or finished. Interrupting the wait does not interrupt the run.

        Args:
            timeout: Seconds; None for no limit.
            check: Raise if the run failed or was never started, so that a script does not mistake its model for a
                trained one.

        Returns:
            False if the run is still running after ``timeout`` seconds.

        Raises:
            RunError: With ``check``, if the run failed (the message is that of :attr:`error`) or was never started.
        """
        is_done = self._loop.wait(timeout)
        if is_done:
            self._reporting.flush()
        if check and self.status == "ready":
            raise RunError("this run was never started, so there is nothing to wait for; call run.start().wait()")
        if check and is_done and self.error is not None:
            raise RunError(self.error.message)
        return is_done

    def prepare(self) -> Run:
        """Load model and data now, in this thread; otherwise the first start loads them.

        Raises:
            ModelError: If the model cannot be loaded.
            DataError: If the data cannot be loaded.
            RunError: If the given folder already holds a run.
        """
        self._load()
        return self

    def prepare_data(self) -> PreparedData:
        """Load and tokenize the data now, in this thread, without the model; the run then trains on them.

        Raises:
            ModelError: If the tokenizer cannot be loaded.
            DataError: If the data cannot be loaded.
        """
        if self._data.prepared is not None:
            return self._data.prepared

        def prepare() -> PreparedData:
            source = self._client or text_source(self.base_model)
            return self._data.prepare(source, self._recipe, self.seed, self._limits)

        return load_alone(prepare, lambda: False)

    # -- edits: for any thread, take effect at the next step -----------------------------------------------------------

    def set_loss(self, loss: str | LossSpec | Callable[..., Any], **config: float) -> Run:
        """Use another loss from the next step on; the optimizer keeps its state.

        Raises:
            ConfigError: If the loss or a setting is unknown, or the recipe's data do not fit the loss.
        """
        spec = resolve_loss(loss)
        check_loss(self._recipe, spec)
        self._loop.edit(lambda plan: plan.with_loss(spec, config))
        self._note_unchecked(spec)
        return self

    def set(self, /, **settings: Any) -> Run:
        """Change some of :attr:`settings`, ``steps``, ``schedule`` or ``betas``, from the next step on.

        Raises:
            ConfigError: If a setting is unknown or a value is not valid, or if ``steps`` is not above the number of
                steps that are complete or in progress.
        """
        self._loop.edit(lambda plan: plan.with_settings(settings))
        return self

    def _note_unchecked(self, spec: LossSpec) -> None:
        note = unchecked_note(spec)
        if note is not None and note not in self._loop.notes:
            self._loop.notes.append(note)

    # -- called by the loop --------------------------------------------------------------------------------------------

    def _load(self) -> GuardedTrainer:
        if self._trainer is not None:
            return self._trainer
        if self._past is None:
            check_unused(self.folder)  # before loading, which can take minutes
        was_stopped = self.status == "stopped"
        return load_alone(self._load_now, lambda: self._loop.is_stopping and not was_stopped)

    def _load_now(self) -> GuardedTrainer:
        if self._trainer is not None:
            return self._trainer
        if self._client is None and self._past is not None:
            self._client = connect().create_training_client_from_state_with_optimizer(str(self._past.snapshot))
        elif self._client is None:
            self._client = self._adapter.new_client()
        else:
            self._client_model = ClientModel.of(self._client)
        trainer, notes = load_trainer(self._client, self._recipe, self._data, None, self.seed, limits=self._limits)
        trainer.reference = self.reference
        if self._past is not None:
            restore(trainer, self._past.state, self._past.snapshot)
        self._trainer = trainer
        self._loop.notes += [note for note in notes if note not in self._loop.notes]
        return trainer

    def _open_store(self) -> RunStore:
        if self._past is not None:
            return RunStore.reopen(self._past.saved, self._past.state.step)
        self.folder = self.folder or fresh_folder(f"{self.recipe}-{self.loss.name}")
        return RunStore(self.folder)
