"""One step and one evaluation, through any client of the API. No threads and no state but the place in the data.

A step that fails leaves nothing behind: ``optim_step`` is only submitted after ``forward_backward`` has succeeded with
a finite loss, and the place in the data moves on only at the very end, so the same step can be made again.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..errors import LossError
from .plan import Plan
from .recipes import Job, Measured, Order
from .record import StepRecord

if TYPE_CHECKING:
    from ..client.protocol import TrainingClient
    from ..types import Datum, ForwardBackwardOutput

__all__ = ["Trainer"]

CHUNK = 256  # datums a forward request of an evaluation
# An evaluation on the way takes this many batches of held-out items, which cost about as much as one step, but at
# least the least, below which a share says little. The first and the last evaluation take all.
QUICK_BATCHES, QUICK_LEAST = 3, 50


class Trainer:
    """Trains one client on one job.

    Attributes:
        client: a training client.
        job: data and what is measured on them.
        baseline: held-out metrics before training; empty until :meth:`measure_baseline`.
    """

    def __init__(self, client: TrainingClient, job: Job, seed: int) -> None:
        self.client = client
        self.job = job
        self.baseline: dict[str, float] = {}
        self._order = Order(job.size, seed)
        self._position = 0
        self._plain = [_plain(datum) for datum in job.held_out]
        self._before: list[torch.Tensor] = []  # held-out log-probabilities before training

    def measure_baseline(self, plan: Plan) -> None:
        """Evaluate all held-out data once, before the first step."""
        every = range(len(self._plain))
        self._before = self._logprobs(every)
        self.baseline = self._evaluate(plan, every, self._before).metrics

    def step(self, number: int, plan: Plan, *, evaluate: bool, last: bool, started: float) -> StepRecord:
        """Make optimizer step ``number`` and measure it.

        Args:
            plan: with which loss and settings.
            evaluate: also on (some of the) held-out data.
            last: then on all of them.
            started: ``time.perf_counter()`` when the run would have started had it never paused.

        Raises:
            LossError: the loss raised, or its value is not finite. Weights and optimizer are untouched.
            DataError: the batch cannot be trained on; likewise.
        """
        from ..types import AdamParams

        began = time.perf_counter()
        items = self._order.items(self._position, plan.batch_size)
        data = self.job.batch(items)
        result = self._forward_backward(plan, data)
        own = _own_metrics(plan, result)
        stepping = self.client.optim_step(AdamParams(learning_rate=plan.learning_rate))
        # Measured while the trainer updates the weights.
        measured = self.job.measure(data, _outputs(result))
        updated = stepping.result().metrics or {}
        self._position += len(items)
        tokens = sum(datum.model_input.length for datum in data)
        step_time = time.perf_counter() - began
        metrics = {**measured.metrics, **updated, "tokens_per_s": tokens / step_time, **own}
        held = self._held_out(plan, last) if evaluate or last else Measured()
        return StepRecord(
            step=number,
            time=time.perf_counter() - started,
            step_time=step_time,
            tokens=tokens,
            loss_name=plan.loss.name,
            loss_version=plan.loss.version,
            metrics={k: float(v) for k, v in metrics.items()},
            held_out=held.metrics,
            histograms=held.histograms or measured.histograms,
            settings=plan.settings(),
        )

    def _forward_backward(self, plan: Plan, data: list[Datum]) -> ForwardBackwardOutput:
        if plan.loss.builtin:
            return self.client.forward_backward(data, plan.loss.name, dict(plan.config) or None).result()
        return self.client.forward_backward_custom(data, plan.loss.bind(plan.config)).result()

    def _held_out(self, plan: Plan, everything: bool) -> Measured:
        unit = self.job.held_out_unit
        items = len(self._plain) // unit
        count = items if everything else min(items, max(QUICK_LEAST, QUICK_BATCHES * plan.batch_size))
        # Evenly spaced, so that a file that is sorted in some way is still fairly sampled.
        picked = [unit * (k * items // count) + side for k in range(count) for side in range(unit)]
        return self._evaluate(plan, picked, self._logprobs(picked))

    def _logprobs(self, picked: Sequence[int]) -> list[torch.Tensor]:
        data = [self._plain[i] for i in picked]
        futures = [self.client.forward(data[i : i + CHUNK], "cross_entropy") for i in range(0, len(data), CHUNK)]
        return [logprobs for future in futures for logprobs in _outputs(future.result())]

    def _evaluate(self, plan: Plan, picked: Sequence[int], logprobs: list[torch.Tensor]) -> Measured:
        data = [self.job.held_out[i] for i in picked]
        measured = self.job.evaluate(data, logprobs, [self._before[i] for i in picked])
        seen = self.job.loss_slice
        own = held_out_loss(plan, data[seen], logprobs[seen], self.job.unit * plan.batch_size)
        # The same referee for every loss: what a loss says of its own accuracy stays out of the held-out numbers. Its
        # mean_margin counts, as in training, so that both lines of that chart mean the same.
        referee = {k: v for k, v in measured.metrics.items() if k != "mean_margin" or k not in own}
        return Measured(own | referee, measured.histograms)


def held_out_loss(plan: Plan, data: list[Datum], logprobs: list[torch.Tensor], size: int) -> dict[str, float]:
    """The loss and its own metrics on held-out data, averaged over batches of ``size`` datums.

    Batches as in training, so that a loss that is a sum has the scale of the training curve; a shorter remainder is
    left out. A loss that fails here and not in training costs the run nothing but these numbers: the result is empty.
    """
    size = min(size, len(data))
    starts = range(0, len(data) - size + 1, size)
    fn = plan.loss.bind(plan.config)
    totals: dict[str, float] = {}
    try:
        with torch.no_grad():
            for start in starts:
                value, metrics = fn(data[start : start + size], [lp.clone() for lp in logprobs[start : start + size]])
                for key, number in {**metrics, "loss": float(value)}.items():
                    totals[key] = totals.get(key, 0.0) + float(number)
    except Exception:
        return {}
    return {key: total / len(starts) for key, total in totals.items() if math.isfinite(total)}


def _plain(datum: Datum) -> Datum:
    """``datum`` with what cross_entropy reads: built-in losses refuse further fields, which a custom loss may want."""
    fields = {key: datum.loss_fn_inputs[key] for key in ("target_tokens", "weights")}
    if len(fields) == len(datum.loss_fn_inputs):
        return datum
    return type(datum)(model_input=datum.model_input, loss_fn_inputs=fields)


def _outputs(result: ForwardBackwardOutput) -> list[torch.Tensor]:
    return [output["logprobs"].to_torch() for output in result.loss_fn_outputs]


def _own_metrics(plan: Plan, result: ForwardBackwardOutput) -> dict[str, float]:
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
    return {k: v for k, v in result.metrics.items() if ":" not in k} | {"loss": loss}
