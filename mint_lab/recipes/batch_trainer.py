"""One step and one evaluation, through any client of the API. No threads.

``optim_step`` is only submitted after ``forward_backward`` has succeeded with a finite loss, and the place in the data
moves on with the weights: a step that fails before is made again with the same batch, one that fails later goes on
where it failed (:mod:`mint_lab.recipes.guarded_trainer`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ..errors import DataError
from ..usercode.guarded_call import LossInterrupted
from .guarded_trainer import GuardedTrainer, Shown, outputs_of
from .held_out import evaluated_items, held_out_loss
from .plan import StepPlan
from .record import StepRecord
from .reference_cache import References, reads_reference
from .registry import Job, Measured, Order

if TYPE_CHECKING:
    from ..client.protocol import TrainingClient
    from ..losses import LossSpec
    from ..types import Datum

__all__ = ["Trainer"]

CHUNK = 256  # datums a forward request of an evaluation


class Trainer(GuardedTrainer):
    """Trains one client on one job.

    Attributes:
        job: data and what is measured on them.
    """

    def __init__(self, client: TrainingClient, job: Job, seed: int) -> None:
        super().__init__(client)
        self.job = job
        self._order = Order(job.size, seed)
        self._position = 0
        self._references = References(client, job)
        self._plain = [_plain(datum) for datum in job.held_out]
        self._before: list[torch.Tensor] = []  # held-out log-probabilities before training

    def measure_baseline(self, plan: StepPlan) -> None:
        """Evaluate all held-out data once, before the first step."""
        every = range(len(self._plain))
        self._before = self._logprobs(every)
        self.baseline = self._evaluate(plan, every, self._before).metrics

    def _make(self, number: int, plan: StepPlan, *, shown: bool) -> StepRecord:
        items = self._order.items(self._position, plan.batch_size)
        data = self._batch(items, plan, steps=plan.steps - number + 1)
        began = time.perf_counter()
        measured, updated, own = self._update(
            number, plan, data, lambda logprobs: self.job.measure(data, logprobs), unmeasured=Measured()
        )
        self._position += len(items)
        tokens = sum(datum.model_input.length for datum in data)
        step_time = time.perf_counter() - began
        metrics = {**measured.metrics, **updated, "tokens_per_s": tokens / step_time, **own}
        return StepRecord(
            step=number,
            time=0.0,
            step_time=step_time,
            tokens=tokens,
            loss_name=plan.loss.name,
            loss_version=plan.loss.version,
            metrics={k: float(v) for k, v in metrics.items()},
            histograms=measured.histograms,
            settings=plan.settings(),
        )

    def _complete(self, record: StepRecord, plan: StepPlan, *, evaluate: bool, everything: bool) -> StepRecord:
        if not evaluate:
            return record
        held = self._held_out(plan, everything)
        return replace(record, held_out=held.metrics, histograms=held.histograms or record.histograms)

    def sample(self, count: int, spec: LossSpec) -> list[Datum]:
        """The datums of the first ``count`` items, as ``spec`` would see them. Raises as :meth:`step`."""
        items = range(min(count, self.job.size))
        return self._references.batch(items) if reads_reference(spec) else self.job.batch(items)

    def shown(self, count: int, spec: LossSpec) -> Shown:
        """The first ``count`` held-out items, without what ``spec`` may read of a reference.

        Raises:
            DataError: nothing is held out.
        """
        data = list(self.job.held_out[: count * self.job.held_out_unit][self.job.loss_slice])
        if not data:
            raise DataError("nothing is held out, so there are no tokens to show")
        return Shown(data, unit=self.job.unit)

    def _batch(self, items: list[int], plan: StepPlan, *, steps: int) -> list[Datum]:
        if not reads_reference(plan.loss):
            return self.job.batch(items)
        return self._references.batch(items, self._order.stream(self._position, steps * plan.batch_size))

    def _held_out(self, plan: StepPlan, everything: bool) -> Measured:
        unit = self.job.held_out_unit
        items = evaluated_items(len(self._plain) // unit, plan.batch_size, everything=everything)
        picked = [unit * item + side for item in items for side in range(unit)]
        logprobs = self._logprobs(picked)
        try:
            return self._evaluate(plan, picked, logprobs)
        except LossInterrupted as error:
            # The step is made and has to be told, whatever the loss does with other data.
            self._notes.append(f"{plan.loss.label}, on held-out data: {error}")
            return self._evaluate(plan, picked, logprobs, with_loss=False)

    def _logprobs(self, picked: Sequence[int]) -> list[torch.Tensor]:
        data = [self._plain[i] for i in picked]
        futures = [self.client.forward(data[i : i + CHUNK], "cross_entropy") for i in range(0, len(data), CHUNK)]
        return [logprobs for future in futures for logprobs in outputs_of(future.result())]

    def _evaluate(
        self, plan: StepPlan, picked: Sequence[int], logprobs: list[torch.Tensor], *, with_loss: bool = True
    ) -> Measured:
        held_out = self._references.held_out if reads_reference(plan.loss) else self.job.held_out
        data = [held_out[i] for i in picked]
        measured = self.job.evaluate(data, logprobs, [self._before[i] for i in picked])
        seen = self.job.loss_slice
        size = self.job.unit * plan.batch_size
        own = held_out_loss(self._loss(plan), data[seen], logprobs[seen], size) if with_loss else {}
        # The same referee for every loss: what a loss says of its own accuracy stays out of the held-out numbers. Its
        # mean_margin counts, as in training, so that both lines of that chart mean the same.
        referee = {k: v for k, v in measured.metrics.items() if k != "mean_margin" or k not in own}
        return Measured(own | referee, measured.histograms)


def _plain(datum: Datum) -> Datum:
    """``datum`` with what cross_entropy reads: built-in losses refuse further fields, which a custom loss may want."""
    fields = {key: datum.loss_fn_inputs[key] for key in ("target_tokens", "weights")}
    if len(fields) == len(datum.loss_fn_inputs):
        return datum
    return type(datum)(model_input=datum.model_input, loss_fn_inputs=fields)
