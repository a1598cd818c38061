r"""One trunk pass, any loss; and the optimizer step.

The graph is cut twice: at the hidden states and at the log-probabilities. Between the cuts stands the loss, built-in or
custom, which sees leaf tensors and nothing of the model. Its gradient :math:`g = dL/d\log p` goes back through the head
(where it is not 0) to :math:`dL/dh` and from there through the trunk, once. A custom loss costs what a built-in costs.

A batch larger than the token budget is cut into micro-batches. A separable loss (the sum of its datums' losses) then
accumulates; a coupled one takes two phases: log-probabilities without a graph, the loss on all of them, then forward
and backward by micro-batch with :math:`g` held fixed. Neither value nor gradient depends on the cut.

Nothing is changed by a pass that fails: gradients are collected aside and added to the adapter at the very end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from ..errors import ConfigError, LossError, ModelError
from .batch import Batch
from .logprobs import TargetLogprobs
from .packing import Layout

if TYPE_CHECKING:
    from ..losses import CustomLoss, LossSpec
    from ..types import AdamParams
    from .models import Adapter

__all__ = ["Builtin", "Custom", "Objective", "Optimizer", "PassResult", "run_pass"]


@dataclass(frozen=True)
class Builtin:
    """A built-in loss with its checked settings."""

    spec: LossSpec
    config: dict[str, float]
    separable: bool = True

    def __call__(self, batch: Batch, logprobs: torch.Tensor) -> tuple[float, torch.Tensor, dict[str, float]]:
        """Loss, its gradient ``(sum N_i,)`` and metrics at ``logprobs``, ``(sum N_i,)``."""
        from ..losses.contract import BUILTIN_KEYWORDS

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
    """A loss function with MinT's contract ``(data, logprobs_list) -> (loss, metrics)``."""

    fn: CustomLoss
    separable: bool = False

    def __call__(self, batch: Batch, logprobs: torch.Tensor) -> tuple[float, torch.Tensor, dict[str, float]]:
        """Loss, its gradient ``(sum N_i,)`` and metrics at ``logprobs``, ``(sum N_i,)``."""
        # On the CPU wherever the model is, as with a hosted client: there the data's own fields are, too.
        leaves = [piece.clone().requires_grad_(True) for piece in logprobs.cpu().split(batch.lengths)]
        with torch.enable_grad():
            result = self.fn(batch.data, leaves)
        loss, metrics = _read_result(result)
        found = torch.autograd.grad(loss, leaves, allow_unused=True)
        for index, gradient in enumerate(found):
            if gradient is None:
                raise LossError(
                    f"no gradient reaches datum {index}: the loss does not depend on logprobs_list[{index}], or "
                    "detaches it; a datum that should not count can be multiplied by 0, or left out of the batch",
                    index=index,
                )
            if not bool(torch.isfinite(gradient).all()):
                position = int((~torch.isfinite(gradient)).nonzero()[0])
                raise LossError(
                    f"the gradient is {float(gradient[position]):g} at datum {index}, position {position} (loss "
                    f"{float(loss.detach()):g}, log-probability {float(leaves[index].detach()[position]):g})",
                    index=index,
                )
        value = float(loss.detach())
        gradient = torch.cat([g for g in found if g is not None]).to(logprobs)
        return value, gradient, {**metrics, "loss": value}


Objective = Builtin | Custom


def _read_result(result: Any) -> tuple[torch.Tensor, dict[str, float]]:
    """The loss and the metrics that a custom function returned, or a :class:`LossError` that says what it returned."""
    if not isinstance(result, tuple) or len(result) != 2:
        found = f"a tuple of {len(result)}" if isinstance(result, tuple) else f"a {type(result).__name__}"
        raise LossError(f"the loss function returned {found}, expected a tuple (loss, metrics)")
    loss, metrics = result
    if not isinstance(loss, torch.Tensor):
        raise LossError(
            f"the loss is a {type(loss).__name__}, expected a scalar torch.Tensor; do not call float() on it"
        )
    if loss.dim() != 0:
        raise LossError(f"the loss has shape {tuple(loss.shape)}, expected a scalar; reduce it with .sum() or .mean()")
    if not loss.is_floating_point():
        raise LossError(f"the loss is of type {loss.dtype}, expected a floating-point tensor")
    if not bool(torch.isfinite(loss.detach())):
        raise LossError(f"the loss is {float(loss.detach()):g}, expected a finite number")
    if not loss.requires_grad:
        raise LossError(
            "the loss has no gradient: it does not depend on logprobs_list, or was made with detach(), .item(), "
            ".data or torch.no_grad()"
        )
    if not isinstance(metrics, dict):
        raise LossError(f"the metrics are a {type(metrics).__name__}, expected a dict of name to float")
    numbers: dict[str, float] = {}
    for name, value in metrics.items():
        try:
            # detached: torch warns of float() on a tensor with a graph
            numbers[str(name)] = float(value.detach() if isinstance(value, torch.Tensor) else value)
        except (TypeError, ValueError, RuntimeError):  # torch's own for a tensor of several numbers
            raise LossError(f"metric {name!r} is a {type(value).__name__}, expected a float") from None
    return loss, numbers


@dataclass
class PassResult:
    """What a pass leaves: nothing in it refers to the model.

    Attributes:
        loss: value of the loss as defined, summed over micro-batches.
        logprobs, gradient: ``(N_i,)`` a datum, float32; the gradient is dL/dlogprobs, empty for a forward only.
        passes: trunk forwards, in units of the whole batch: 1, or 2 for a coupled loss that had to be cut.
        micro_batches: how many parts the batch was cut into.
        stored_tokens: tokens the trunk computed, shared prefixes once.
    """

    loss: float = 0.0
    logprobs: list[torch.Tensor] = field(default_factory=list)
    gradient: list[torch.Tensor] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)
    passes: int = 1
    micro_batches: int = 1
    stored_tokens: int = 0


def run_pass(
    adapter: Adapter, batch: Batch, objective: Objective, *, backward: bool = True, max_tokens: int | None = None
) -> PassResult:
    """Forward and, unless told otherwise, backward; on success the gradient is added to the adapter's.

    Args:
        max_tokens: token budget of a micro-batch, before sharing; None: the whole batch at once.

    Raises:
        LossError: the loss returned something that cannot be trained on. Whatever a custom function raises itself
            passes through as it is.
    """
    parts = _cut(batch.lengths, max_tokens)
    run = _Pass(adapter, objective, backward)
    with adapter.base.using(adapter):
        if len(parts) == 1 or objective.separable:
            for part in parts:
                run.one_phase(batch.select(part) if len(parts) > 1 else batch)
        else:
            run.two_phases(batch, [batch.select(part) for part in parts])
    run.result.micro_batches = len(parts)
    if backward:
        adapter.add_gradients(
            [
                torch.zeros_like(p) if g is None else g
                for p, g in zip(adapter.parameters.values(), run.collected, strict=True)
            ]
        )
    return run.result


class _Pass:
    """The state of one call of :func:`run_pass`."""

    def __init__(self, adapter: Adapter, objective: Objective, backward: bool) -> None:
        self.base = adapter.base
        self.parameters = list(adapter.parameters.values())
        self.objective = objective
        self.backward = backward
        self.collected: list[torch.Tensor | None] = [None] * len(self.parameters)
        self.result = PassResult()

    def one_phase(self, batch: Batch) -> None:
        hidden, logprobs = self.forward(batch, graph=self.backward)
        loss, gradient, metrics = self.objective(batch, logprobs.values)
        if self.backward:
            self.back(hidden, logprobs, gradient)
        self.note(batch, loss, logprobs.values, gradient, metrics)

    def two_phases(self, batch: Batch, parts: list[Batch]) -> None:
        values = torch.cat([self.forward(part, graph=False)[1].values for part in parts])
        loss, gradient, metrics = self.objective(batch, values)
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
        layout: Layout = self.base.layout(batch.tokens)
        with torch.set_grad_enabled(graph):
            hidden = self.base.trunk(layout).flatten(0, 1)
            logprobs = TargetLogprobs(
                self.base.head, hidden, layout.places, batch.targets, self.base.vocab_size, keep_graph=graph
            )
        self.result.stored_tokens += layout.stored
        return hidden, logprobs

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


def _cut(lengths: list[int], max_tokens: int | None) -> list[list[int]]:
    """Consecutive datums into parts of at most ``max_tokens``; neighbours stay together, for they share prompts."""
    parts: list[list[int]] = [[]]
    size = 0
    for index, length in enumerate(lengths):
        if parts[-1] and max_tokens is not None and size + length > max_tokens:
            parts.append([])
            size = 0
        parts[-1].append(index)
        size += length
    return parts


class Optimizer:
    """AdamW over one adapter's parameters, its settings given anew at each step (Loshchilov and Hutter 2019)."""

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._parameters = list(adapter.parameters.values())
        device = self._parameters[0].device
        self._adam = torch.optim.AdamW(self._parameters, lr=0.0, fused=device.type in ("cpu", "cuda"))

    def step(self, settings: AdamParams) -> dict[str, float]:
        """Apply the accumulated gradient and forget it. Returns ``grad_norm``, before clipping.

        Raises:
            ConfigError: a setting is out of range.
            ModelError: there is no gradient to apply, or it is not finite (it is dropped; nothing else changes).
        """
        _check_adam(settings)
        gradients = self._adapter.gradients
        if gradients is None:
            raise ModelError(
                "optim_step has no gradient to apply: call forward_backward first (if that failed, nothing "
                "was accumulated)"
            )
        norm = torch.nn.utils.get_total_norm(gradients)
        if not math.isfinite(float(norm)):
            self._adapter.gradients = None
            raise ModelError(
                f"the gradient's norm is {float(norm):g}; it was dropped, weights and optimizer are unchanged"
            )
        if settings.grad_clip_norm > 0 and float(norm) > settings.grad_clip_norm:
            gradients = [gradient * (settings.grad_clip_norm / float(norm)) for gradient in gradients]
        for group in self._adam.param_groups:
            group["lr"] = settings.learning_rate
            group["betas"] = (settings.beta1, settings.beta2)
            group["eps"] = settings.eps
            group["weight_decay"] = settings.weight_decay
        for parameter, gradient in zip(self._parameters, gradients, strict=True):
            parameter.grad = gradient
        self._adam.step()
        self._adam.zero_grad(set_to_none=True)
        self._adapter.gradients = None
        return {"grad_norm": float(norm)}

    def state(self) -> dict[str, torch.Tensor]:
        """Moments and step counts by ``exp_avg.NAME`` and the like; empty before the first step."""
        names = list(self._adapter.parameters)
        found = self._adam.state_dict()["state"]
        return {
            f"{key}.{names[index]}": torch.as_tensor(value).clone()
            for index, entry in found.items()
            for key, value in entry.items()
        }

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """The inverse of :meth:`state`; an empty state forgets the moments.

        Raises:
            ModelError: it does not fit this adapter; nothing has been changed then.
        """
        self.check(state)
        index = {name: i for i, name in enumerate(self._adapter.parameters)}
        entries: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in state.items():
            kind, name = key.split(".", 1)
            entries.setdefault(index[name], {})[kind] = value
        self._adam.load_state_dict({"state": entries, "param_groups": self._adam.state_dict()["param_groups"]})

    def check(self, state: dict[str, torch.Tensor]) -> None:
        """Raise :class:`ModelError` unless ``state`` is empty or has every moment of this adapter."""
        shapes = {name: tuple(p.shape) for name, p in self._adapter.parameters.items()}
        wanted = {f"{kind}.{name}": s for name, s in shapes.items() for kind in ("exp_avg", "exp_avg_sq")}
        wanted |= {f"step.{name}": () for name in shapes}
        found = {key: tuple(value.shape) for key, value in state.items()}
        if found and found != wanted:
            odd = sorted(set(found.items()) ^ set(wanted.items()))[0][0]
            raise ModelError(
                f"the optimizer state does not fit this adapter: {odd} has shape {found.get(odd, 'none')}, "
                f"expected {wanted.get(odd, 'none')}"
            )


def _check_adam(settings: AdamParams) -> None:
    ranges: dict[str, Callable[[float], bool]] = {
        "learning_rate": lambda v: v >= 0,
        "beta1": lambda v: 0 <= v < 1,
        "beta2": lambda v: 0 <= v < 1,
        # LoRA starts with gradients of exactly 0, and Adam's 0 / (0 + eps) is nan where float32 has no eps.
        "eps": lambda v: v >= torch.finfo(torch.float32).tiny,
        "weight_decay": lambda v: v >= 0,
        "grad_clip_norm": lambda v: v >= 0,
    }
    for name, fits in ranges.items():
        value = float(getattr(settings, name))
        if not (math.isfinite(value) and fits(value)):
            beta, low = name.startswith("beta"), "1.2e-38 (0 divides by 0)" if name == "eps" else "0"
            expected = "from 0 up to (not including) 1" if beta else f"a finite number from {low} up"
            raise ConfigError(f"AdamParams.{name} is {value:g}, expected {expected}")
