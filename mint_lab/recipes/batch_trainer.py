"""The trainer on a fixed data set: one step and one evaluation, through any client of the API. No threads.

``optim_step`` is submitted only after ``forward_backward`` has succeeded with a finite loss, and the position in the
data advances with the weights. So a step that fails before the update is repeated with the same batch; of a step that
fails later only the rest is repeated (:mod:`mint_lab.recipes.guarded_trainer`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ..errors import DataError
from ..usercode.guarded_call import LossCancelled
from .guarded_trainer import ExampleBatch, GuardedTrainer, TrainerState, logprobs_of
from .held_out import evaluated_items, held_out_loss
from .job import BatchJob, Measured, ShuffledSampler
from .plan import StepPlan
from .record import StepRecord
from .reference_cache import ReferenceCache, reads_reference

if TYPE_CHECKING:
    from ..client.protocol import TrainingClientProtocol
    from ..losses import LossSpec
    from ..types import Datum

__all__ = ["BatchTrainer"]

EVALUATION_CHUNK = 256  # datums per forward request of an evaluation


class BatchTrainer(GuardedTrainer):
    """Train one client on one :class:`~mint_lab.recipes.BatchJob`."""

    def __init__(self, client: TrainingClientProtocol, job: BatchJob, seed: int) -> None:
        super().__init__(client)
        self._job = job
        self._sampler = ShuffledSampler(job.size, seed)
        self._position = 0
        self._references = ReferenceCache(client, job)
        self._plain = [_plain(datum) for datum in job.held_out]
        self._before: list[torch.Tensor] = []  # held-out log-probabilities before training

    @property
    def job(self) -> BatchJob:
        """The data, and what is measured on them."""
        return self._job

    def state(self) -> TrainerState:
        """Return the position in the data, and the held-out log-probabilities and metrics from before training."""
        tensors = {"before": torch.cat(self._before)} if self._before else {}
        return TrainerState(self._common_state() | {"position": self._position}, tensors)

    def restore(self, state: TrainerState) -> None:
        """Continue from what :meth:`state` returned."""
        lengths = [datum.model_input.length for datum in self._plain]
        before = list(state.tensors["before"].split(lengths)) if "before" in state.tensors else []
        position = int(state.entries["position"])
        self._restore_common(state.entries)
        self._before, self._position = before, position

    def _forget_references(self) -> None:
        self._references = ReferenceCache(self.client, self._job)

    def measure_baseline(self, plan: StepPlan) -> None:
        """Evaluate all held-out data once, before the first step."""
        every = range(len(self._plain))
        self._before = self._logprobs(every)
        self.baseline = self._evaluate(plan, every, self._before).metrics

    def _update_step(self, number: int, plan: StepPlan, *, keep_samples: bool) -> StepRecord:
        items = self._sampler.items(self._position, plan.items_per_step)
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
            clip=plan.clip_range,
        )

    def _evaluate_step(self, record: StepRecord, plan: StepPlan, *, evaluate: bool, everything: bool) -> StepRecord:
        if not evaluate:
            return record
        held = self._held_out(plan, everything)
        return replace(record, held_out=held.metrics, histograms=held.histograms or record.histograms)

    def sample(self, count: int, spec: LossSpec) -> list[Datum]:
        """Return the datums of the first ``count`` items, as ``spec`` would see them. Raises as :meth:`step`."""
        return self._as_seen(range(min(count, self.job.size)), spec)

    def shown(self, count: int, spec: LossSpec) -> ExampleBatch:
        """Return the first ``count`` held-out items, without the reference log-probabilities that ``spec`` may read.

        Raises:
            DataError: If nothing is held out.
        """
        data = list(self.job.held_out[: count * self.job.held_out_unit][self.job.loss_slice])
        if not data:
            raise DataError("nothing is held out, so there are no tokens to show")
        return ExampleBatch(data, unit=self.job.unit)

    def gradient_batch(self, batch_size: int, spec: LossSpec) -> list[Datum]:
        """Return the first training batch, as ``spec`` would see it. Raises as :meth:`step`."""
        return self._as_seen(self._sampler.items(0, batch_size), spec)

    def _as_seen(self, items: Sequence[int], spec: LossSpec) -> list[Datum]:
        return self._references.batch(items) if reads_reference(spec) else self.job.batch(items)

    def _batch(self, items: list[int], plan: StepPlan, *, steps: int) -> list[Datum]:
        if not reads_reference(plan.loss):
            return self.job.batch(items)
        return self._references.batch(items, self._sampler.stream(self._position, steps * plan.items_per_step))

    def _held_out(self, plan: StepPlan, everything: bool) -> Measured:
        unit = self.job.held_out_unit
        items = evaluated_items(len(self._plain) // unit, plan.items_per_step, everything=everything)
        datums = [unit * item + side for item in items for side in range(unit)]
        logprobs = self._logprobs(datums)
        try:
            return self._evaluate(plan, datums, logprobs)
        except LossCancelled as error:
            # The update is applied and has to be recorded, whatever the loss does on other data.
            self._notes.append(f"{plan.loss.label}, on held-out data: {error}")
            return self._evaluate(plan, datums, logprobs, with_loss=False)

    def _logprobs(self, datums: Sequence[int]) -> list[torch.Tensor]:
        """Return the log-probabilities of these held-out datums, ``(N_i,)`` each."""
        data = [self._plain[i] for i in datums]
        starts = range(0, len(data), EVALUATION_CHUNK)
        futures = [self.client.forward(data[i : i + EVALUATION_CHUNK], "cross_entropy") for i in starts]
        return [logprobs for future in futures for logprobs in logprobs_of(future.result())]

    def _evaluate(
        self, plan: StepPlan, datums: Sequence[int], logprobs: list[torch.Tensor], *, with_loss: bool = True
    ) -> Measured:
        held_out = self._references.held_out if reads_reference(plan.loss) else self.job.held_out
        data = [held_out[i] for i in datums]
        measured = self.job.evaluate(data, logprobs, [self._before[i] for i in datums])
        seen = self.job.loss_slice
        size = self.job.unit * plan.items_per_step
        own = held_out_loss(self._loss(plan), data[seen], logprobs[seen], size) if with_loss else {}
        # Held-out metrics are computed alike for every loss, so what a loss reports of its own accuracy is left out.
        # Its mean_margin counts, as in training, so that both curves of that chart mean the same.
        common = {k: v for k, v in measured.metrics.items() if k != "mean_margin" or k not in own}
        return Measured(own | common, measured.histograms)


def _plain(datum: Datum) -> Datum:
    """Return ``datum`` with the fields that cross_entropy reads: built-in losses refuse any other field."""
    fields = {key: datum.loss_fn_inputs[key] for key in ("target_tokens", "weights")}
    if len(fields) == len(datum.loss_fn_inputs):
        return datum
    return type(datum)(model_input=datum.model_input, loss_fn_inputs=fields)
