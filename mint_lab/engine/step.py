r"""One forward and backward pass through the backbone, for any loss.

The autograd graph is detached at the hidden states and at the log-probabilities. The loss, built-in or custom, gets
log-probabilities that are leaf tensors, and no access to the model. Its gradient :math:`g = dL/d\log p` goes back
through the head (where it is not 0) to :math:`dL/dh`, and from there once through the backbone. A custom loss therefore
costs as much as a built-in loss.

The loss runs on the CPU, whatever the model's device. To read its log-probabilities is the only time in a pass that the
host waits for the device. Everything else is queued.

A batch that exceeds the token budget is split into micro-batches. If the loss is the sum or the mean of the
micro-batches' losses, their gradients accumulate. A coupled loss takes two phases: log-probabilities without a graph,
and the loss on all of them; then forward and backward of each micro-batch with :math:`g` held constant. Value and
gradient do not depend on the split.

A failed pass changes nothing: gradients are accumulated aside, and added to the adapter's at the end. A pass that runs
out of memory is retried with half the token budget until it fits (:mod:`mint_lab.engine.micro_batches`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from ..errors import DataError, LossError
from ..usercode.guarded_call import LossCancelled
from ..usercode.guarded_loss import GuardedLoss
from ..usercode.out_of_memory import first_line, is_out_of_memory
from ..usercode.result import evaluate_loss
from .batch import Batch
from .logprobs import TargetLogprobs
from .memory import max_useful_tokens
from .micro_batches import Progress, run_in_micro_batches

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..losses import CustomLoss, LossSpec
    from ..losses.spec import Reduction
    from .lora_dropout import LoraDropout
    from .models import Adapter, BaseModel

__all__ = ["Builtin", "Custom", "Objective", "PassResult", "forward_batch", "run_pass"]

FLOAT32_MAX = torch.finfo(torch.float32).max
# What messages call the fields of one token.
_FIELD_WORDS = {"weights": "weight", "logprobs": "sampler log-probability", "advantages": "advantage"}


@dataclass(frozen=True)
class Builtin:
    """A built-in loss with its checked settings."""

    spec: LossSpec
    config: dict[str, float]

    def __call__(self, batch: Batch, logprobs: torch.Tensor) -> tuple[float, torch.Tensor, dict[str, float]]:
        """Evaluate the loss.

        Args:
            batch: The batch, or a micro-batch of it.
            logprobs: Log-probability of each target, ``(sum N_i,)``, nats, on the CPU.

        Returns:
            The loss, its gradient with respect to ``logprobs``, ``(sum N_i,)``, and no metrics.

        Raises:
            LossError: If the loss is not finite; the message names the first token responsible and the cause.
        """
        from ..losses.spec import BUILTIN_KEYWORDS

        leaf = logprobs.clone().requires_grad_(True)  # a copy: the log-probabilities are returned unchanged
        fields = {BUILTIN_KEYWORDS[name]: value for name, value in batch.fields.items()}
        per_token = self.spec.fn(leaf, **fields, **self.config)  # (sum N_i,)
        loss = per_token.sum()
        if not bool(torch.isfinite(loss)):
            raise self._nonfinite_error(batch, logprobs, per_token.detach())
        (gradient,) = torch.autograd.grad(loss, leaf)
        return float(loss.detach()), gradient, {}

    def _nonfinite_error(self, batch: Batch, logprobs: torch.Tensor, per_token: torch.Tensor) -> LossError:
        nonfinite = (~torch.isfinite(per_token)).nonzero().flatten()
        # If every term is finite, their sum has overflowed, and the largest one is named.
        flat = int(nonfinite[0]) if len(nonfinite) else int(per_token.abs().argmax())
        index, position = batch.locate(flat)
        fields = {name: float(value[flat]) for name, value in batch.fields.items()}
        cause = self._nonfinite_cause(float(per_token[flat]), float(logprobs[flat]), fields)
        return LossError(
            f"{self.spec.name} is {float(per_token.sum()):g}. Datum {index}, position {position} contributes "
            f"{float(per_token[flat]):g}: {cause}",
            index=index,
        )

    def _nonfinite_cause(self, term: float, logprob: float, fields: dict[str, float]) -> str:
        """Return why a token's ``term`` makes the loss nonfinite, and what to do; ``fields`` are that token's."""
        if not math.isfinite(logprob):
            return (
                f"the model's log-probability of the target is {logprob:g}, so its logits are not finite. "
                "Load an earlier checkpoint and lower the learning rate"
            )
        if math.isfinite(term):
            return (
                "it is the largest term; every term is finite, but their sum overflowed. Scale the weights or the "
                "advantages down"
            )
        sampled = fields.get("logprobs")
        if sampled is not None:
            log_ratio = logprob - sampled
            ratio = self.spec.name in ("importance_sampling", "ppo") and log_ratio > math.log(FLOAT32_MAX)
            if ratio or (self.spec.name == "dro" and log_ratio**2 > FLOAT32_MAX):
                return (
                    f"the {'importance ratio' if ratio else 'squared log-ratio'} overflowed (log-probability "
                    f"{logprob:g}, sampler log-probability {sampled:g}). Either the sample is too far off-policy, or "
                    "its logprobs do not match its tokens"
                )
        values = [f"{_FIELD_WORDS.get(name, name)} {value:g}" for name, value in sorted(fields.items(), reverse=True)]
        return (
            f"the term overflowed (log-probability {logprob:g}, {', '.join(values)}). Scale the weights or the "
            "advantages down"
        )


@dataclass(frozen=True)
class Custom:
    """A loss function with MinT's contract ``(data, logprobs_list) -> (loss, metrics)``.

    Attributes:
        fn: The function, or a :class:`~mint_lab.usercode.guarded_loss.GuardedLoss`.
        reduction: What the loss says of a batch that is split: its loss is the "sum" of the micro-batches' losses,
            their "mean" weighted by the number of datums, or neither ("coupled"). A batch that is not split is passed
            to the function whole.
    """

    fn: CustomLoss
    reduction: Reduction = "coupled"

    def __call__(self, batch: Batch, logprobs: torch.Tensor) -> tuple[float, torch.Tensor, dict[str, float]]:
        """Evaluate the loss.

        Args:
            batch: The batch, or a micro-batch of it.
            logprobs: Log-probability of each target, ``(sum N_i,)``, nats, on the CPU.

        Returns:
            The loss, its gradient with respect to ``logprobs``, ``(sum N_i,)``, and the function's metrics with "loss".

        Raises:
            LossError: If the result cannot be trained on. Exceptions of the function propagate unchanged, or as the
                cause of a LossError from a guarded loss.
        """
        leaves = [piece.clone().requires_grad_(True) for piece in logprobs.split(batch.lengths)]
        with torch.enable_grad():
            if isinstance(self.fn, GuardedLoss):
                result = self.fn.evaluate(batch.data, leaves)
            else:
                result = evaluate_loss(self.fn, batch.data, leaves)
        gradient = torch.cat(result.gradient).to(logprobs.dtype)  # (sum N_i,)
        return result.value, gradient, {**result.metrics, "loss": result.value}


Objective = Builtin | Custom


@dataclass
class PassResult:
    """What a pass computed; keeps no reference to the model.

    Attempts that ran out of memory are counted in ``oom_retries`` only; the other counts are those of the last attempt.

    Attributes:
        loss: Value of the loss on the whole batch, nats.
        logprobs: Log-probability of each target, ``(N_i,)`` float32 for each datum, nats.
        gradient: dL/dlogprobs, ``(N_i,)`` float32 for each datum.
        metrics: Metrics of a custom loss on the whole batch.
        passes: Backbone forward passes, in units of the whole batch, rounded up: 1; 2 for a coupled loss on a batch
            that was split; 3 if the loss's ``reduction`` turned out to be wrong, and the two phases came on top.
        micro_batches: Number of micro-batches that the batch was split into.
        stored_tokens: Tokens that the backbone computed in all its forward passes. A shared prefix counts once in each
            micro-batch and pass; padding does not count.
        max_tokens: Token budget that the micro-batches kept to: the requested one, or less if a larger micro-batch
            would be of no use or memory ran out; None for no limit.
        oom_retries: Number of attempts that ran out of memory before.
        note: What a person should know about memory that ran out, in plain words; empty if it did not.
    """

    loss: float = 0.0
    logprobs: list[torch.Tensor] = field(default_factory=list)
    gradient: list[torch.Tensor] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    passes: int = 1
    micro_batches: int = 1
    stored_tokens: int = 0
    max_tokens: int | None = None
    oom_retries: int = 0
    note: str = ""


def run_pass(
    adapter: Adapter,
    batch: Batch,
    objective: Objective,
    *,
    backward: bool = True,
    max_tokens: int | None = None,
    gradient_checkpointing: bool = False,
    dropout: bool = False,
) -> PassResult:
    """Run forward and, if requested, backward; on success add the gradient to the adapter's.

    A custom function is called once, on the whole batch, with these exceptions. If the batch is split and the
    function's reduction is "sum" or "mean", it is called once for each micro-batch and then on the whole batch; if the
    gradients show that the reduction is wrong, or the function rejects a micro-batch, it is called on the whole batch
    again. After running out of memory, all of this is repeated.

    Args:
        adapter: The adapter to train; its base model is run.
        batch: A checked batch.
        objective: The loss.
        backward: Whether to compute the gradient of the adapter's weights.
        max_tokens: Token budget of a micro-batch, shared prefixes counted once; None to run the whole batch at once. A
            single datum may exceed it. While memory runs out, the pass is retried with half the budget.
        gradient_checkpointing: Recompute each layer in the backward pass instead of keeping its activations.
        dropout: Whether the adapter's dropout acts, as in a training pass. The masks depend on the split.

    Raises:
        LossError: If the loss returned something that cannot be trained on. Exceptions of a custom function itself
            propagate unchanged, or as the cause of a LossError from a guarded loss.
        ModelError: If a single sequence does not fit into memory. Weights and accumulated gradient are unchanged.
    """
    base = adapter.base

    def attempt(micro_batches: list[Batch], progress: Progress) -> PassResult:
        settings = {"backward": backward, "gradient_checkpointing": gradient_checkpointing, "dropout": dropout}
        return _Attempt(adapter, objective, progress, **settings).run(batch, micro_batches)

    try:
        fitted = run_in_micro_batches(
            base,
            batch,
            _micro_batch_budget(base, objective, max_tokens),
            attempt,
            gradient_checkpointing=gradient_checkpointing or not backward,
        )
    except Exception as error:
        if is_out_of_memory(error) and isinstance(objective, Custom) and isinstance(objective.fn, GuardedLoss):
            raise LossError(
                f"the loss ran out of memory on {len(batch.data)} datums, {sum(batch.lengths):,} log-probabilities "
                f"({first_line(error)}). No weight was changed. Lower batch_size, or look for a tensor of tokens times "
                "tokens"
            ) from error
        raise
    result = fitted.value
    result.max_tokens, result.oom_retries, result.note = fitted.budget, fitted.retries, fitted.note
    return result


def _micro_batch_budget(base: BaseModel, objective: Objective, max_tokens: int | None) -> int | None:
    """Return the token budget of a micro-batch, or None for no limit.

    A built-in loss is a sum, so micro-batches cost nothing and need not be larger than is of use. A split of a custom
    loss costs a second forward pass, or more calls of the function.
    """
    useful = max_useful_tokens(base.device) if isinstance(objective, Builtin) else None
    return min((tokens for tokens in (max_tokens, useful) if tokens is not None), default=None)


def forward_batch(
    base: BaseModel,
    batch: Batch,
    *,
    needs_graph: bool,
    gradient_checkpointing: bool = False,
    dropout: LoraDropout | None = None,
) -> tuple[torch.Tensor, TargetLogprobs, int]:
    """Run backbone and head once on ``batch``.

    Args:
        base: The model, with the requested adapter active.
        batch: A batch or micro-batch.
        needs_graph: Whether a backward pass follows.
        gradient_checkpointing: Recompute each layer in the backward pass instead of keeping its activations.
        dropout: The adapter's dropout; None for no dropout.

    Returns:
        Hidden states ``(tokens, hidden)``, the log-probabilities, and the number of stored tokens.
    """
    layout = base.layout(batch.tokens)
    with torch.set_grad_enabled(needs_graph):
        checkpointing = needs_graph and gradient_checkpointing
        hidden = base.backbone(layout, gradient_checkpointing=checkpointing, dropout=dropout)
    hidden = hidden.flatten(0, 1)
    logprobs = TargetLogprobs(
        base.head(),
        hidden,
        layout.token_index,
        batch.targets,
        loss_mask=batch.loss_mask if needs_graph else None,
        dropout_mask=base.head_dropout(dropout, hidden),
    )
    return hidden, logprobs, layout.stored


class _Attempt:
    """The state of one attempt at :func:`run_pass`.

    Attributes:
        progress: What it is computing.
        grads: Gradient of each parameter so far; None for a parameter without one.
        forwards: Number of micro-batches that went through the backbone, those of a rejected reduction included.
        stored_tokens: Tokens that the backbone computed for them.
    """

    def __init__(
        self,
        adapter: Adapter,
        objective: Objective,
        progress: Progress,
        *,
        backward: bool,
        gradient_checkpointing: bool,
        dropout: bool,
    ) -> None:
        self.adapter = adapter
        self.base = adapter.base
        self.parameters = list(adapter.parameters.values())
        self.objective = objective
        self.needs_backward = backward
        self.gradient_checkpointing = gradient_checkpointing
        self.uses_dropout = dropout
        self.progress = progress
        self.grads: list[torch.Tensor | None] = [None] * len(self.parameters)
        self.forwards = 0
        self.stored_tokens = 0
        self.result = PassResult()

    def run(self, batch: Batch, micro_batches: list[Batch]) -> PassResult:
        """Run the whole pass, and add its gradient to the adapter's as the last thing."""
        with self.base.using(self.adapter):
            if isinstance(self.objective, Builtin) or len(micro_batches) == 1:
                for number, micro_batch in enumerate(micro_batches):
                    self.run_one_phase(number, micro_batch)
            elif not self.run_by_reduction(batch, micro_batches):
                self.run_two_phases(batch, micro_batches)
        self.result.micro_batches = len(micro_batches)
        # One pass is a forward of every micro-batch. Phase 2 may skip some, and a rejected reduction may end early.
        self.result.passes = math.ceil(self.forwards / len(micro_batches))
        self.result.stored_tokens = self.stored_tokens
        if self.needs_backward:  # a parameter that the loss did not reach has gradient 0
            self.adapter.add_gradients(
                [torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, self.grads, strict=True)]
            )
        self.adapter.dropout_passes += self.uses_dropout  # now: a failed pass is retried with the same masks
        return self.result

    def run_one_phase(self, number: int, batch: Batch) -> None:
        """Run forward, loss and backward of the micro-batch of this number, whose loss needs no other."""
        hidden, logprobs = self.forward(number, batch, needs_graph=self.needs_backward)
        values = logprobs.values.cpu()
        loss, grad_logprobs, metrics = self.compute_loss(batch, values)
        if self.needs_backward:
            self.run_backward(hidden, logprobs, grad_logprobs)
        self.progress.micro_batch = None
        self.record(batch, loss, values, grad_logprobs, metrics)

    def run_by_reduction(self, batch: Batch, micro_batches: list[Batch]) -> bool:
        """Accumulate a custom loss over micro-batches as its reduction says, and check the result.

        Each micro-batch runs forward and backward by itself. Then the loss of the whole batch is evaluated at the same
        log-probabilities: its gradient must be the accumulated one.

        Returns:
            False, with nothing accumulated, if the loss is coupled or its reduction turned out to be wrong.
        """
        reduction = self.objective.reduction if isinstance(self.objective, Custom) else "coupled"
        if reduction == "coupled" or not self.needs_backward:
            return False
        # 1. Forward, loss and backward of each micro-batch.
        values: list[torch.Tensor] = []  # log-probabilities, (sum N_i,) of each micro-batch
        gradients: list[torch.Tensor] = []
        try:
            for number, micro_batch in enumerate(micro_batches):
                hidden, logprobs = self.forward(number, micro_batch, needs_graph=True)
                # mean over n datums = sum over micro-batches of (n_k / n) * mean over its n_k datums
                weight = len(micro_batch.data) / len(batch.data) if reduction == "mean" else 1.0
                values.append(logprobs.values.cpu())
                gradients.append(self.compute_loss(micro_batch, values[-1])[1] * weight)
                self.run_backward(hidden, logprobs, gradients[-1])
                del hidden, logprobs
                self.progress.micro_batch = None
        except LossCancelled:
            raise  # calling the function again would only have to be cancelled again
        except (LossError, DataError):  # the micro-batch is no valid batch for this loss: half a pair, for example
            self.discard_gradients()
            return False
        # 2. The loss of the whole batch, and the check.
        loss, gradient, metrics = self.compute_loss(batch, torch.cat(values))
        # Up to rounding in float32; atol is relative to the largest entry, because others may be 0 in one of the two.
        if not torch.allclose(torch.cat(gradients), gradient, rtol=1e-4, atol=1e-6 * float(gradient.abs().max())):
            self.discard_gradients()
            return False
        self.record(batch, loss, torch.cat(values), gradient, metrics)
        return True

    def discard_gradients(self) -> None:
        """Forget what micro-batches have accumulated; the counts of forward passes stay."""
        self.progress.micro_batch, self.progress.in_loss = None, False
        self.grads = [None] * len(self.parameters)

    def run_two_phases(self, batch: Batch, micro_batches: list[Batch]) -> None:
        """Run a coupled loss on a batch that was split."""
        # Phase 1: log-probabilities of all micro-batches without a graph, and the loss on all of them.
        parts = [self.forward(k, part, needs_graph=False)[1].values for k, part in enumerate(micro_batches)]
        self.progress.micro_batch = None
        values = torch.cat(parts).cpu()  # (sum N_i,)
        loss, grad_logprobs, metrics = self.compute_loss(batch, values)
        self.record(batch, loss, values, grad_logprobs, metrics)
        if not self.needs_backward:
            return
        # Phase 2: forward and backward of each micro-batch with dL/dlogprobs held constant.
        sizes = [sum(micro_batch.lengths) for micro_batch in micro_batches]
        for number, gradient in enumerate(grad_logprobs.split(sizes)):
            if bool((gradient != 0).any()):  # otherwise the loss does not depend on this micro-batch
                hidden, logprobs = self.forward(number, micro_batches[number], needs_graph=True)
                self.run_backward(hidden, logprobs, gradient)
                del hidden, logprobs  # before the next forward pass, which needs the memory
                self.progress.micro_batch = None

    def forward(self, number: int, batch: Batch, *, needs_graph: bool) -> tuple[torch.Tensor, TargetLogprobs]:
        """Run :func:`forward_batch` on the micro-batch of this number, and count it."""
        self.progress.micro_batch = batch
        hidden, logprobs, stored = forward_batch(
            self.base,
            batch,
            needs_graph=needs_graph,
            gradient_checkpointing=self.gradient_checkpointing,
            dropout=self.adapter.dropout(number) if self.uses_dropout else None,
        )
        self.forwards += 1
        self.stored_tokens += stored
        return hidden, logprobs

    def compute_loss(self, batch: Batch, values: torch.Tensor) -> tuple[float, torch.Tensor, dict[str, float]]:
        """Return loss, dL/dlogprobs and metrics at the log-probabilities ``values``, ``(sum N_i,)`` on the CPU."""
        self.progress.in_loss = isinstance(self.objective, Custom)
        result = self.objective(batch, values)
        self.progress.in_loss = False
        return result

    def run_backward(self, hidden: torch.Tensor, logprobs: TargetLogprobs, grad_logprobs: torch.Tensor) -> None:
        """Accumulate the gradient of the parameters from dL/dlogprobs, ``(sum N_i,)``."""
        grad_hidden, head_grads = logprobs.backward(grad_logprobs, self.parameters)  # (tokens, hidden)
        self.accumulate(head_grads)
        if hidden.requires_grad:  # False if the adapter is on the head alone
            grad_hidden = grad_hidden.to(hidden.dtype)
            self.accumulate(torch.autograd.grad(hidden, self.parameters, grad_hidden, allow_unused=True))

    def accumulate(self, grads: Sequence[torch.Tensor | None]) -> None:
        """Add ``grads``, one for each parameter or None, to ``self.grads``."""
        self.grads = [
            new if old is None else old if new is None else old + new
            for old, new in zip(self.grads, grads, strict=True)
        ]

    def record(
        self, batch: Batch, loss: float, values: torch.Tensor, gradient: torch.Tensor, metrics: dict[str, float]
    ) -> None:
        """Append what was computed for ``batch`` to the result, by datum."""
        self.result.loss += loss
        self.result.logprobs += values.split(batch.lengths)
        self.result.gradient += gradient.split(batch.lengths)
        self.result.metrics.update(metrics)
