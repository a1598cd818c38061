r"""One trunk pass, any loss.

The graph is cut twice: at the hidden states and at the log-probabilities. Between the cuts stands the loss, built-in or
custom, which sees leaf tensors and nothing of the model. Its gradient :math:`g = dL/d\log p` goes back through the head
(where it is not 0) to :math:`dL/dh` and from there through the trunk, once. A custom loss costs what a built-in costs.

A batch larger than the token budget is cut into micro-batches. A separable loss (the sum, or the mean, of its parts'
losses) then accumulates; a coupled one takes two phases: log-probabilities without a graph, the loss on all of them,
then forward and backward by micro-batch with :math:`g` held fixed. Neither value nor gradient depends on the cut.

Nothing is changed by a pass that fails: gradients are collected aside and added to the adapter at the very end. One
that runs out of memory is made once more with half the token budget.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from ..errors import DataError, LossError, ModelError
from ..usercode.guarded_loss import GuardedLoss
from ..usercode.result import evaluate_loss
from .batch import Batch
from .logprobs import TargetLogprobs
from .memory import enough, is_out_of_memory, release
from .packing import cut

if TYPE_CHECKING:
    from ..losses import CustomLoss, LossSpec
    from ..losses.spec import Reduction
    from .models import Adapter, BaseModel

__all__ = ["Builtin", "Custom", "Objective", "PassResult", "parts_of", "run_pass", "target_logprobs"]


@dataclass(frozen=True)
class Builtin:
    """A built-in loss with its checked settings."""

    spec: LossSpec
    config: dict[str, float]

    def __call__(self, batch: Batch, logprobs: torch.Tensor) -> tuple[float, torch.Tensor, dict[str, float]]:
        """Loss, its gradient ``(sum N_i,)`` and metrics at ``logprobs``, ``(sum N_i,)``."""
        from ..losses.spec import BUILTIN_KEYWORDS

        leaf = logprobs.clone().requires_grad_(True)
        fields = {BUILTIN_KEYWORDS[name]: value.to(leaf.device) for name, value in batch.fields.items()}
        per_token = self.spec.fn(leaf, **fields, **self.config)
        loss = per_token.sum()
        if not bool(torch.isfinite(loss)):
            self._refuse(batch, logprobs, per_token.detach())
        (gradient,) = torch.autograd.grad(loss, leaf)
        return float(loss.detach()), gradient, {}

    def _refuse(self, batch: Batch, logprobs: torch.Tensor, per_token: torch.Tensor) -> None:
        odd = (~torch.isfinite(per_token)).nonzero().flatten()
        flat = int(odd[0]) if len(odd) else int(per_token.abs().argmax())
        index, position = batch.where(flat)
        sampled = batch.fields.get("logprobs")
        detail = "" if sampled is None else f", the sampler's {float(sampled[flat]):g}"
        raise LossError(
            f"{self.spec.name} is {float(per_token.sum()):g}: datum {index}, position {position} adds "
            f"{float(per_token[flat]):g} (log-probability {float(logprobs[flat]):g}{detail}); the ratio of the two has "
            "overflowed: the sample is too far from this model, or its logprobs belong to other tokens",
            index=index,
        )


@dataclass(frozen=True)
class Custom:
    """A loss function with MinT's contract ``(data, logprobs_list) -> (loss, metrics)``.

    Attributes:
        reduction: What the loss says of a batch that is split: its loss is the "sum" of the micro-batches' losses,
            their "mean" weighted by the number of datums, or neither ("coupled"). A batch that is not split is passed
            to the function whole.
    """

    fn: CustomLoss
    reduction: Reduction = "coupled"

    def __call__(self, batch: Batch, logprobs: torch.Tensor) -> tuple[float, torch.Tensor, dict[str, float]]:
        """Loss, its gradient ``(sum N_i,)`` and metrics at ``logprobs``, ``(sum N_i,)``."""
        # On the CPU, whatever the model's device: a hosted client does the same, and the datums' fields are there.
        leaves = [piece.clone().requires_grad_(True) for piece in logprobs.cpu().split(batch.lengths)]
        with torch.enable_grad():
            if isinstance(self.fn, GuardedLoss):
                result = self.fn.evaluate(batch.data, leaves)
            else:
                result = evaluate_loss(self.fn, batch.data, leaves)
        gradient = torch.cat(result.gradient).to(logprobs)  # (sum N_i,)
        return result.value, gradient, {**result.metrics, "loss": result.value}


Objective = Builtin | Custom


@dataclass
class PassResult:
    """What a pass leaves: nothing in it refers to the model.

    Attributes:
        loss: value of the loss as defined, summed over micro-batches.
        logprobs, gradient: ``(N_i,)`` a datum, float32; the gradient is dL/dlogprobs, empty for a forward only.
        passes: trunk forwards, in units of the whole batch: 1, or 2 for a coupled loss that had to be cut.
        micro_batches: how many parts the batch was cut into.
        stored_tokens: tokens the trunk computed, shared prefixes once.
        max_tokens: the token budget that it ran with; half of the one asked for where memory ran out at first.
        oom_retries: 1 where memory ran out at first.
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


def run_pass(
    adapter: Adapter,
    batch: Batch,
    objective: Objective,
    *,
    backward: bool = True,
    max_tokens: int | None = None,
    checkpointing: bool = False,
) -> PassResult:
    """Forward and, unless told otherwise, backward; on success the gradient is added to the adapter's.

    Where memory runs out, all of it is dropped and done again once with half the budget; a custom function is then
    called a second time.

    Args:
        max_tokens: token budget of a micro-batch, shared prefixes counted once; None: the whole batch at once.
        checkpointing: compute the layers again in the backward pass instead of keeping their activations.

    Raises:
        LossError: the loss returned something that cannot be trained on. Whatever a custom function raises itself
            passes through as it is.
        ModelError: memory ran out twice; nothing has been changed.
    """
    run = _Pass(adapter, objective, backward, checkpointing)
    try:
        return run.through(batch, max_tokens)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    # Out of the except clause, for the error's traceback holds the failed pass's tensors.
    del run
    release(adapter.base.device)
    held = adapter.base.size(batch.tokens)
    half = max(1, min(held if max_tokens is None else max_tokens, held) // 2)
    again = _Pass(adapter, objective, backward, checkpointing)
    try:
        result = again.through(batch, half)
    except (RuntimeError, MemoryError) as error:
        if again.in_loss or not is_out_of_memory(error):
            raise
        reason = str(error).strip().partition("\n")[0]
    else:
        result.oom_retries = 1
        return result
    del again
    release(adapter.base.device)
    raise ModelError(
        f"out of memory twice, with {held} tokens in the batch and then with at most {half} at a time ({reason}); "
        "weights and accumulated gradients are as before. Give ServiceClient a smaller max_batch_tokens or "
        "gradient_checkpointing=True, shorten the longest sequence, or free memory held by other programs"
    )


def parts_of(base: BaseModel, batch: Batch, max_tokens: int | None) -> list[Batch]:
    """``batch`` in micro-batches of at most ``max_tokens`` tokens, or of one datum."""
    if max_tokens is None or len(batch.tokens) * max(batch.lengths) <= max_tokens:
        return [batch]
    parts = cut(batch.tokens, max_tokens, base.size)  # pyright: ignore[reportArgumentType]
    return [batch.select(part) for part in parts] if len(parts) > 1 else [batch]


def target_logprobs(
    base: BaseModel, batch: Batch, *, graph: bool, checkpointing: bool = False
) -> tuple[torch.Tensor, TargetLogprobs, int]:
    """One pass of the trunk and the head: hidden states ``(places, hidden)``, log-probabilities, tokens stored."""
    layout = base.layout(batch.tokens)
    with torch.set_grad_enabled(graph):
        hidden = base.trunk(layout, checkpointing=graph and checkpointing).flatten(0, 1)
    logprobs = TargetLogprobs(base.head(), hidden, layout.places, batch.targets, live=batch.live if graph else None)
    return hidden, logprobs, layout.stored


class _Pass:
    """The state of one attempt of :func:`run_pass`.

    Attributes:
        in_loss: the loss is being computed; after an error: it was the loss that raised it.
    """

    def __init__(self, adapter: Adapter, objective: Objective, backward: bool, checkpointing: bool) -> None:
        self.adapter = adapter
        self.base = adapter.base
        self.parameters = list(adapter.parameters.values())
        self.objective = objective
        self.backward = backward
        self.checkpointing = checkpointing
        self.in_loss = False
        self.collected: list[torch.Tensor | None] = [None] * len(self.parameters)
        self.result = PassResult()

    def through(self, batch: Batch, max_tokens: int | None) -> PassResult:
        """The whole pass, the adapter's gradient last."""
        builtin = isinstance(self.objective, Builtin)
        most = enough(self.base.device) if builtin else None
        limits = [tokens for tokens in (max_tokens, most) if tokens is not None]
        parts = parts_of(self.base, batch, min(limits, default=None))
        with self.base.using(self.adapter):
            if builtin or len(parts) == 1:
                for part in parts:
                    self.one_phase(part)
            elif not self.by_parts(batch, parts):
                self.two_phases(batch, parts)
        self.result.micro_batches = len(parts)
        self.result.max_tokens = max_tokens
        if self.backward:
            self.adapter.add_gradients(
                [torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, self.collected, strict=True)]
            )
        return self.result

    def one_phase(self, batch: Batch) -> None:
        hidden, logprobs = self.forward(batch, graph=self.backward)
        loss, gradient, metrics = self.judge(batch, logprobs.values)
        if self.backward:
            self.back(hidden, logprobs, gradient)
        self.note(batch, loss, logprobs.values, gradient, metrics)

    def by_parts(self, batch: Batch, parts: list[Batch]) -> bool:
        """A custom loss that is said to be made of its parts' losses: each part forward and backward by itself, then
        the loss of all of it, whose gradient shows whether that was right. False, and nothing done, where it was not.
        """
        said = self.objective.reduction if isinstance(self.objective, Custom) else "coupled"
        if said == "coupled" or not self.backward:
            return False
        values: list[torch.Tensor] = []
        pieces: list[torch.Tensor] = []
        try:
            for part in parts:
                hidden, logprobs = self.forward(part, graph=True)
                share = len(part.data) / len(batch.data) if said == "mean" else 1.0
                pieces.append(self.judge(part, logprobs.values)[1] * share)
                values.append(logprobs.values)
                self.back(hidden, logprobs, pieces[-1])
        except (LossError, DataError):  # of a part that is no batch to it, half a pair for example
            self._restart()
            return False
        loss, gradient, metrics = self.judge(batch, torch.cat(values))
        if not torch.allclose(torch.cat(pieces), gradient, rtol=1e-4, atol=1e-6 * float(gradient.abs().max())):
            self._restart()
            return False
        self.note(batch, loss, torch.cat(values), gradient, metrics)
        return True

    def _restart(self) -> None:
        self.in_loss = False
        self.collected = [None] * len(self.parameters)
        self.result = PassResult()

    def two_phases(self, batch: Batch, parts: list[Batch]) -> None:
        values = torch.cat([self.forward(part, graph=False)[1].values for part in parts])
        loss, gradient, metrics = self.judge(batch, values)
        self.note(batch, loss, values, gradient, metrics)
        if not self.backward:
            return
        self.result.passes = 2
        sizes = [sum(part.lengths) for part in parts]
        for part, piece in zip(parts, gradient.split(sizes), strict=True):
            if bool((piece != 0).any()):
                hidden, logprobs = self.forward(part, graph=True)
                self.back(hidden, logprobs, piece)

    def forward(self, batch: Batch, *, graph: bool) -> tuple[torch.Tensor, TargetLogprobs]:
        hidden, logprobs, stored = target_logprobs(self.base, batch, graph=graph, checkpointing=self.checkpointing)
        self.result.stored_tokens += stored
        return hidden, logprobs

    def judge(self, batch: Batch, values: torch.Tensor) -> tuple[float, torch.Tensor, dict[str, float]]:
        self.in_loss = True
        verdict = self.objective(batch, values)
        self.in_loss = False
        return verdict

    def back(self, hidden: torch.Tensor, logprobs: TargetLogprobs, gradient: torch.Tensor) -> None:
        into, from_head = logprobs.backward(gradient, self.parameters)
        self.collect(from_head)
        if hidden.requires_grad:
            self.collect(torch.autograd.grad(hidden, self.parameters, into.to(hidden.dtype), allow_unused=True))

    def collect(self, gradients: Any) -> None:
        self.collected = [
            new if old is None else old if new is None else old + new
            for old, new in zip(self.collected, gradients, strict=True)
        ]

    def note(
        self, batch: Batch, loss: float, values: torch.Tensor, gradient: torch.Tensor, metrics: dict[str, float]
    ) -> None:
        self.result.loss += loss
        self.result.logprobs += [piece.cpu() for piece in values.split(batch.lengths)]
        self.result.gradient += [piece.cpu() for piece in gradient.split(batch.lengths)]
        self.result.metrics.update(metrics)
