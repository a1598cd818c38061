"""What trainers have in common: how a step is made in parts that can each be made again, and how a loss is called.

A step takes a gradient, updates the weights, and evaluates. What fails in one of the three is asked of the client once
more when the run goes on, and nothing that came before it: no gradient counts twice, and no update is made twice. A
loss is called so that it can be broken off.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import LossError, ModelError
from ..usercode.guarded_loss import WatchedLoss

if TYPE_CHECKING:
    import torch

    from ..client.protocol import TrainingClient
    from ..data.rewards import Reward
    from ..losses import LossSpec
    from ..types import Datum, ForwardBackwardOutput
    from .plan import StepPlan
    from .record import StepRecord

__all__ = ["PATIENCE", "GuardedTrainer", "Shown", "outputs_of", "own_metrics"]

# Seconds that a function may take, once it is asked to stop, before it counts as one that does not return.
PATIENCE = 2.0


T = TypeVar("T")


@dataclass(frozen=True)
class Shown:
    """What a trainer has to show: datums, and what to call each where that is more than its place."""

    data: list[Datum]
    titles: list[str] | None = None
    unit: int = 1
    """Datums an item: 2 for pairs."""


@dataclass(frozen=True)
class _Gradient:
    """What was said of a gradient that is in the client and not applied yet."""

    metrics: dict[str, float]
    logprobs: list[torch.Tensor]


class GuardedTrainer(ABC):
    """A client with a loss that a person wrote.

    Attributes:
        client: a training client.
        baseline: held-out metrics before training; empty until they are measured.
        asked: whether a function that takes long is to be broken off.
        patience: how long that is, seconds.
        pace: datums and seconds of the last update; None before there is one.
        unfinished: what a step was begun with whose gradient is in the client, or whose update is made, and which has
            failed since; None where there is none.
    """

    def __init__(self, client: TrainingClient) -> None:
        self.client = client
        self.baseline: dict[str, float] = {}
        self.asked: Callable[[], bool] = lambda: False
        self.patience = PATIENCE
        self.pace: tuple[int, float] | None = None
        self.unfinished: StepPlan | None = None
        self._gradient: _Gradient | None = None
        self._made: StepRecord | None = None  # a step that waits for its evaluation
        self._watched: WatchedLoss | None = None
        self._bound: tuple[Any, ...] = ()
        self._notes: list[str] = []
        self._told: set[str] = set()  # labels of losses whose metrics bear a name of ours

    def step(self, number: int, plan: StepPlan, *, evaluate: bool, last: bool, started: float) -> StepRecord:
        """Make optimizer step ``number`` and measure it, or what is left of it where it failed on the way.

        Args:
            plan: with which loss and settings; :attr:`unfinished`, where that is not None.
            evaluate: also on (some of the) held-out data.
            last: then on all of them.
            started: ``time.perf_counter()`` when the run would have started had it never paused.

        Raises:
            LossError: the loss raised, was broken off, or its value is not finite. Weights and optimizer are untouched.
            RewardError: the reward raised, was broken off, or gave no finite number. On a training response, weights
                and optimizer are untouched.
            DataError: the batch or a prompt cannot be used; likewise.
            ConfigError: the loss reads reference log-probabilities, and the client computes none; likewise.
        """
        if self._made is None:
            self._made = self._make(number, plan, shown=evaluate or last)
            self.unfinished = plan
        record = self._complete(self._made, plan, evaluate=evaluate or last, everything=last)
        self._made = self.unfinished = None
        warnings = [*record.warnings, *self._take_notes()]
        return replace(record, time=time.perf_counter() - started, warnings=warnings)

    def unevaluated(self, *, started: float) -> StepRecord | None:
        """The step that is made and waits for its evaluation, as it is; None where there is none. It waits no longer.

        Args:
            started: as in :meth:`step`.
        """
        record, self._made = self._made, None
        if record is None:
            return None
        self.unfinished = None
        note = "The run was stopped before this step could be evaluated"
        warnings = [*record.warnings, *self._take_notes(), note]
        return replace(record, time=time.perf_counter() - started, warnings=warnings)

    @abstractmethod
    def measure_baseline(self, plan: StepPlan) -> None:
        """Evaluate all that is held out once, before the first step."""

    @abstractmethod
    def sample(self, count: int, spec: LossSpec) -> list[Datum]:
        """Up to ``count`` items of the training data as ``spec`` would see them. Raises as :meth:`step`."""

    @abstractmethod
    def shown(self, count: int, spec: LossSpec) -> Shown:
        """Up to ``count`` items for a person to look at.

        Raises:
            DataError: there is nothing to show (yet).
        """

    def new_rewards(self) -> list[Reward]:
        """The rewards that began to grade since the last call, the one in use last; none where nothing is graded."""
        return []

    @abstractmethod
    def _make(self, number: int, plan: StepPlan, *, shown: bool) -> StepRecord:
        """Take the gradient and update the weights; nothing may fail once :meth:`_update` has returned.

        Args:
            shown: an evaluation follows, and with it what a record keeps to be looked at.
        """

    @abstractmethod
    def _complete(self, record: StepRecord, plan: StepPlan, *, evaluate: bool, everything: bool) -> StepRecord:
        """The record of a step that is made, with its evaluation where there is one. Called again where it failed."""

    def _update(
        self, number: int, plan: StepPlan, data: list[Datum], measure: Callable[[list[torch.Tensor]], T], unmeasured: T
    ) -> tuple[T, dict[str, float], dict[str, float]]:
        """Optimizer step ``number``, on ``data``.

        Args:
            measure: called with the log-probabilities from before the update, ``(N_i,)`` each, while that is made.
                What it raises becomes a note.
            unmeasured: stands for its result then.

        Returns:
            What ``measure`` gave, what the client says of the update, and what the loss says of the batch.
        """
        began = time.perf_counter()
        if self._gradient is None:
            result = self._forward_backward(plan, data)
            self._gradient, self.unfinished = _Gradient(own_metrics(plan, result), outputs_of(result)), plan
        gradient = self._gradient
        try:
            stepping = self.client.optim_step(plan.adam(number))
            measured = self._measured(lambda: measure(gradient.logprobs), unmeasured)
            updated = stepping.result().metrics or {}
        except ModelError:  # says that there is no gradient (any longer), so that it has to be taken anew
            self._gradient = self.unfinished = None
            raise
        self._gradient = None
        self.pace = len(data), time.perf_counter() - began
        return measured, updated, self._own(plan, gradient.metrics, {*updated, "tokens_per_s"})

    def _own(self, plan: StepPlan, metrics: dict[str, float], ours: set[str]) -> dict[str, float]:
        """What a loss says of a batch, without what only the trainer can know."""
        taken = sorted(metrics.keys() & ours)
        if taken and plan.loss.label not in self._told:
            self._told.add(plan.loss.label)
            names, what = " and ".join(map(repr, taken)), "a number" if len(taken) == 1 else "numbers"
            self._notes.append(f"{plan.loss.label} reports {names}, {what} of the trainer's own: call it otherwise")
        return {name: value for name, value in metrics.items() if name not in ours}

    def _measured(self, measure: Callable[[], T], unmeasured: T) -> T:
        try:
            return measure()
        except Exception as error:  # the step is made all the same
            self._notes.append(f"This step could not be measured: {type(error).__name__}: {error}")
            return unmeasured

    def _forward_backward(self, plan: StepPlan, data: list[Datum]) -> ForwardBackwardOutput:
        """Value and gradient of the plan's loss, built-in or custom."""
        if plan.loss.builtin:
            return self.client.forward_backward(data, plan.loss.name, dict(plan.config) or None).result()
        return self.client.forward_backward_custom(data, self._loss(plan)).result()

    def _loss(self, plan: StepPlan) -> WatchedLoss:
        """The loss as it is called; the same one as long as loss and settings are, for it learns how long it takes."""
        bound = (plan.loss, dict(plan.config))
        if self._watched is None or self._bound != bound:
            self._watched = WatchedLoss(plan.loss, plan.loss.bind(plan.config), self.asked, self.patience)
            self._bound = bound
        return self._watched

    def _take_notes(self) -> list[str]:
        """What was noteworthy of the calls since this was asked last."""
        notes, self._notes = self._notes, []
        return notes + (self._watched.take_notes() if self._watched else [])


def outputs_of(result: ForwardBackwardOutput) -> list[torch.Tensor]:
    """Log-probabilities of each datum's targets, ``(N_i,)``."""
    return [output["logprobs"].to_torch() for output in result.loss_fn_outputs]


def own_metrics(plan: StepPlan, result: ForwardBackwardOutput) -> dict[str, float]:
    """What the loss says of the batch, its value under ``loss``.

    Raises:
        LossError: that value is not finite.
    """
    loss = result.metrics.get("loss", result.metrics.get("loss:sum"))
    if loss is None or not math.isfinite(loss):
        raise LossError(
            f"{plan.loss.label}: the loss is {loss}, expected a finite number; no weight was changed. "
            "Look for log(0), exp of something large, or a division by a count that can be 0"
        )
    # Keys with a reduction ("time:sum") are the trainer's own accounts.
    return {k: float(v) for k, v in result.metrics.items() if ":" not in k} | {"loss": loss}
