"""The base class of every trainer: a step in phases that can each be retried, with a loss that can be cancelled.

A step computes a gradient, updates the weights, and evaluates. If one of the three fails, only that one is repeated
when the run resumes: no gradient counts twice, and no update is applied twice.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from ..client.protocol import ReferenceChoosingClient
from ..errors import ConfigError, LossError, ModelError
from ..usercode.guarded_loss import CANCEL_AFTER_SECONDS, GuardedLoss

if TYPE_CHECKING:
    import torch

    from ..client.protocol import TrainingClientProtocol
    from ..data.rewards import Reward
    from ..losses import LossSpec
    from ..types import Datum, ForwardBackwardOutput
    from .job import Job
    from .plan import StepPlan
    from .record import StepRecord

__all__ = ["ExampleBatch", "GuardedTrainer", "TrainerState", "logprobs_of", "loss_metrics"]

T = TypeVar("T")

LOSS_PREFIX = "loss/"  # of a loss's metric that has the name of one of the run's
TIMES = ("tokens_per_s", "tokens", "time", "step_time")


@dataclass(frozen=True)
class ExampleBatch:
    """Datums for a person to look at.

    Attributes:
        data: The datums.
        titles: One per datum; None for their positions.
        unit: Datums per item: 2 for pairs.
    """

    data: list[Datum]
    titles: list[str] | None = None
    unit: int = 1


@dataclass(frozen=True)
class _Gradient:
    """Metrics and log-probabilities of a pending gradient: accumulated in the client, not yet applied."""

    metrics: dict[str, float]
    logprobs: list[torch.Tensor]
    seconds: float


@dataclass(frozen=True)
class TrainerState:
    """What a trainer continues from between two steps, besides the client's weights and optimizer.

    Attributes:
        entries: Values that JSON can hold.
        tensors: Numbers of which every bit counts, by name.
    """

    entries: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)


class GuardedTrainer(ABC):
    """Run optimizer steps on a client with a user-written loss; steps can be cancelled and retried.

    Attributes:
        client: A training client.
        reference: The reference model: "start" for the model at the start of the run, "base" for the base model, or the
            path of a saved adapter.
        baseline: Held-out metrics before training; empty until they are measured.
        cancel_requested: Polled while user code runs; returns True to cancel a call that has run too long.
        cancel_after: Seconds from the start of a call before it can be cancelled (twice the longest call so far, if
            that is more).
        last_update: ``(datums, seconds)`` of the last update, its gradient included; None before the first.
        retry_plan: Plan of a step that failed after its gradient or its update; the retry must use it. Otherwise None.
    """

    def __init__(self, client: TrainingClientProtocol) -> None:
        self.client = client
        self.reference = "start"
        self.baseline: dict[str, float] = {}
        self.cancel_requested: Callable[[], bool] = lambda: False
        self.cancel_after = CANCEL_AFTER_SECONDS
        self.last_update: tuple[int, float] | None = None
        self.retry_plan: StepPlan | None = None
        self._gradient: _Gradient | None = None
        self._updated: StepRecord | None = None  # a step whose update is applied and whose evaluation is due
        self._guarded: GuardedLoss | None = None
        self._bound: tuple[Any, ...] = ()
        self._notes: list[str] = []
        self._noted_names: set[str] = set()  # labels of losses whose metrics have a name of the trainer's

    # Names of metrics that the trainer measures, and that mean nothing else, so that a loss cannot replace them.
    own_metrics: ClassVar[frozenset[str]] = frozenset()

    @property
    @abstractmethod
    def job(self) -> Job:
        """What is trained on."""

    def step(self, number: int, plan: StepPlan, *, evaluate: bool, last: bool, started: float) -> StepRecord:
        """Complete optimizer step ``number`` and measure it; of a step that failed, what remains of it.

        Args:
            number: The step, from 1.
            plan: Loss and settings; :attr:`retry_plan` if that is not None.
            evaluate: Evaluate on (some of the) held-out data.
            last: Evaluate on all of them.
            started: ``time.perf_counter()`` at which the run would have started if it had never paused.

        Raises:
            LossError: If the loss raised, was cancelled, or is not finite. On the training batch, weights and optimizer
                are unchanged; on held-out data, the update of this step is applied, and a retry only evaluates.
            RewardError: If the reward raised, was cancelled, or did not return a finite number. On a training response
                weights and optimizer are unchanged; on a held-out response the update is applied, as above.
            DataError: If the batch or a prompt cannot be used; weights and optimizer as above.
            ConfigError: If the loss reads reference log-probabilities and the client computes none.
        """
        if self._updated is None:
            self._updated = self._update_step(number, plan, keep_samples=evaluate or last)
            self.retry_plan = plan
        record = self._evaluate_step(self._updated, plan, evaluate=evaluate or last, everything=last)
        self._updated = self.retry_plan = None
        warnings = [*record.warnings, *self._take_notes()]
        return _timed(record, plan, started, warnings)

    def unevaluated(self, *, started: float) -> StepRecord | None:
        """Give up the evaluation of a step whose update is applied.

        Args:
            started: As in :meth:`step`.

        Returns:
            The record of that step; None if there is no such step.
        """
        record, self._updated = self._updated, None
        plan, self.retry_plan = self.retry_plan, None
        if record is None or plan is None:
            return None
        note = "The run was stopped before this step could be evaluated"
        warnings = [*record.warnings, *self._take_notes(), note]
        return _timed(record, plan, started, warnings)

    @property
    def is_between_steps(self) -> bool:
        """Whether no step has a gradient or an update that its record is still missing."""
        return self._gradient is None and self._updated is None

    @abstractmethod
    def state(self) -> TrainerState:
        """Return what training continues from; called between two steps. The state holds copies."""

    @abstractmethod
    def restore(self, state: TrainerState) -> None:
        """Continue from a state of this recipe and these data; whatever was in progress is discarded.

        Raises:
            KeyError, TypeError, ValueError: If it is not such a state.
        """

    def _common_state(self) -> dict[str, Any]:
        return {"baseline": dict(self.baseline), "noted_names": sorted(self._noted_names)}

    def _restore_common(self, entries: Mapping[str, Any]) -> None:
        self.baseline = {str(name): float(value) for name, value in entries["baseline"].items()}
        self._noted_names = set(entries["noted_names"])
        self._gradient = self._updated = self.retry_plan = None
        self._notes = []

    def set_reference(self) -> None:
        """Make :attr:`reference` the reference of the client, before the first step of a run.

        Raises:
            ConfigError: If the client, a hosted one, knows no other reference than the model at the start.
            CheckpointError: If it is a path and no adapter of the client's shape is there.
        """
        if isinstance(self.client, ReferenceChoosingClient):
            self.client.set_reference(self.reference).result()
            self._forget_references()
        elif self.reference != "start":
            raise ConfigError(
                f"reference is {self.reference!r}, but a {type(self.client).__name__} has no reference other than the "
                "model at the start of the run: use reference='start', or a client of mint_lab.ServiceClient"
            )

    def _forget_references(self) -> None:  # noqa: B027  # a trainer without references has nothing to forget
        """Forget log-probabilities of an earlier reference."""

    @abstractmethod
    def measure_baseline(self, plan: StepPlan) -> None:
        """Evaluate all held-out data once, before the first step."""

    @abstractmethod
    def sample(self, count: int, spec: LossSpec) -> list[Datum]:
        """Return up to ``count`` items of the training data as ``spec`` would see them. Raises as :meth:`step`."""

    @abstractmethod
    def shown(self, count: int, spec: LossSpec) -> ExampleBatch:
        """Return up to ``count`` items for a person to look at.

        Raises:
            DataError: If there is nothing to show (yet).
        """

    @abstractmethod
    def gradient_batch(self, batch_size: int, spec: LossSpec) -> list[Datum]:
        """Return a batch on which the gradients of several losses can be compared, as ``spec`` would see it.

        Args:
            batch_size: Items.
            spec: The loss.

        Raises:
            RunError: If there is no batch yet.
        """

    def new_rewards(self) -> list[Reward]:
        """Return the rewards that began to grade since the last call, the one in use last."""
        return []

    @abstractmethod
    def _update_step(self, number: int, plan: StepPlan, *, keep_samples: bool) -> StepRecord:
        """Compute the gradient and update the weights; nothing may fail once :meth:`_update` has returned.

        Args:
            number: The step, from 1.
            plan: Loss and settings.
            keep_samples: An evaluation follows, and with it what a record keeps for a person to look at.
        """

    @abstractmethod
    def _evaluate_step(self, record: StepRecord, plan: StepPlan, *, evaluate: bool, everything: bool) -> StepRecord:
        """Return the record of an updated step with its evaluation, if one is due. Repeated if it failed."""

    def _update(
        self, number: int, plan: StepPlan, data: list[Datum], measure: Callable[[list[torch.Tensor]], T], unmeasured: T
    ) -> tuple[T, dict[str, float], dict[str, float]]:
        """Apply optimizer step ``number`` on ``data``.

        Args:
            number: The step, from 1.
            plan: Loss and settings.
            data: The batch.
            measure: Called with the log-probabilities from before the update, ``(N_i,)`` each, while the update is in
                progress. If it raises, the error becomes a note.
            unmeasured: Stands for its result then.

        Returns:
            The result of ``measure``, the metrics of the update, and the metrics of the loss.
        """
        began = time.perf_counter()
        if self._gradient is None:
            result = self._forward_backward(plan, data)
            seconds = time.perf_counter() - began
            self._gradient = _Gradient(loss_metrics(plan, result), logprobs_of(result), seconds)
            self.retry_plan = plan
            began = time.perf_counter()
        gradient = self._gradient
        try:
            stepping = self.client.optim_step(plan.adam(number))
            measured = self._measured(lambda: measure(gradient.logprobs), unmeasured)
            updated = stepping.result().metrics or {}
        except ModelError:  # the client has no gradient (any longer), so it has to be computed again
            self._gradient = self.retry_plan = None
            raise
        if not plan.has_constant_rate:
            updated = {**updated, "learning_rate": plan.adam(number).learning_rate}
        self._gradient = None
        self.last_update = len(data), gradient.seconds + time.perf_counter() - began
        return measured, updated, self._renamed(plan, gradient.metrics, {*updated, *self.own_metrics, *TIMES})

    def _renamed(self, plan: StepPlan, metrics: dict[str, float], reserved: set[str]) -> dict[str, float]:
        """Return the metrics of a loss; those with a name that only the run can measure are under ``loss/``."""
        taken = sorted(metrics.keys() & reserved)
        if taken and plan.loss.label not in self._noted_names:
            self._noted_names.add(plan.loss.label)
            names, what = " and ".join(map(repr, taken)), "is a metric" if len(taken) == 1 else "are metrics"
            new = " and ".join(repr(LOSS_PREFIX + name) for name in taken)
            self._notes.append(f"{plan.loss.label} reports {names}, which {what} of the run: recorded as {new}")
        return {LOSS_PREFIX + name if name in reserved else name: value for name, value in metrics.items()}

    def _measured(self, measure: Callable[[], T], unmeasured: T) -> T:
        try:
            return measure()
        except Exception as error:  # the update is applied all the same
            self._notes.append(f"This step could not be measured: {type(error).__name__}: {error}")
            return unmeasured

    def _forward_backward(self, plan: StepPlan, data: list[Datum]) -> ForwardBackwardOutput:
        """Compute value and gradient of the plan's loss, built-in or custom."""
        if plan.loss.builtin:
            return self.client.forward_backward(data, plan.loss.name, dict(plan.config) or None).result()
        return self.client.forward_backward_custom(data, self._loss(plan)).result()

    def _loss(self, plan: StepPlan) -> GuardedLoss:
        """Return the guarded loss of a plan; the same object while loss and settings stay, since it times its calls."""
        bound = (plan.loss, dict(plan.config))
        if self._guarded is None or self._bound != bound:
            fn = plan.loss.bind(plan.config)
            self._guarded = GuardedLoss(plan.loss, fn, self.cancel_requested, self.cancel_after)
            self._bound = bound
        return self._guarded

    def _take_notes(self) -> list[str]:
        """Return and forget the notes since the last call."""
        notes, self._notes = self._notes, []
        return notes + (self._guarded.take_notes() if self._guarded else [])


def _timed(record: StepRecord, plan: StepPlan, started: float, warnings: list[str]) -> StepRecord:
    """Return a record with its time, its warnings, and what every plan has."""
    seconds = time.perf_counter() - started
    return replace(record, time=seconds, warnings=warnings, schedule=plan.schedule, steps_total=plan.steps)


def logprobs_of(result: ForwardBackwardOutput) -> list[torch.Tensor]:
    """Return the log-probabilities of each datum's targets, ``(N_i,)``, nats."""
    return [output["logprobs"].to_torch() for output in result.loss_fn_outputs]


def loss_metrics(plan: StepPlan, result: ForwardBackwardOutput) -> dict[str, float]:
    """Return the metrics that the loss reports of the batch, its value under ``loss``.

    Raises:
        LossError: If that value is not finite.
    """
    loss = result.metrics.get("loss", result.metrics.get("loss:sum"))
    if loss is None or not math.isfinite(loss):
        raise LossError(
            f"{plan.loss.label}: the loss is {loss}, expected a finite number; no weight was changed. "
            "Look for log(0), exp of something large, or a division by a count that can be 0"
        )
    # Keys with a reduction ("time:sum") are the trainer's own measurements.
    return {k: float(v) for k, v in result.metrics.items() if ":" not in k} | {"loss": loss}
