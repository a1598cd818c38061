r"""LoRA layers, gated MLPs and RMS normalization with their arithmetic written out, to save time and memory.

PEFT creates the LoRA layers, their parameters and the files. It computes :math:`y = W x + b + s B A x` as products, a
scaling and a sum, and autograd crosses memory once more for each of them, forward and backward. Here the sum is part of
the product (``addmm``), which takes three quarters of the layer's time on a CPU. In bfloat16 the order matters too: an
adapter that has just begun to learn adds less than half a unit in the last place of :math:`W x`, and a sum of two
rounded parts loses half of that. Here the product is added to LoRA's part in the float32 accumulator of the product, so
that the sum is rounded once.

RMS normalization (Zhang and Sennrich 2019), :math:`w \odot x / \mathrm{rms}(x)`, is five operations in autograd and ten
in its backward pass. Here it is one operation, which keeps :math:`x` and one number a row.

A gated MLP, :math:`W_d\,(\phi(g) \odot u)` with :math:`g = W_g x` and :math:`u = W_u x`, keeps :math:`g`, :math:`u`,
:math:`\phi(g)` and the product for the backward pass; these are its largest tensors. Here it keeps the first two.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Generator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from peft.tuners.lora import Linear
from torch import nn

from .lora_dropout import LayerDropout

__all__ = ["fuse", "merged"]

# Attributes of a gated MLP in Llama, Qwen, Mistral, Gemma and most other families.
_GATED_MLP_ATTRIBUTES = ("gate_proj", "up_proj", "down_proj", "act_fn")


def fuse(model: Any) -> None:
    """Let PEFT's LoRA layers, gated MLPs and RMS normalizations in ``model`` compute as this module does.

    Their parameters and state dicts stay as they are. An MLP or a normalization is replaced only if a test input gives
    the same output, and a normalization only if its weight is frozen. Calling this again, after another adapter was
    attached, is safe.
    """
    for module in model.modules():
        if type(module) is Linear:
            module.__class__ = _FusedLoraLinear
    for module in model.modules():
        if "forward" in vars(module):  # replaced before
            continue
        if type(module).__name__.endswith("RMSNorm"):
            _fuse_norm(module)
        elif all(hasattr(module, name) for name in _GATED_MLP_ATTRIBUTES) and _is_gated_mlp(module):
            module.forward = functools.partial(_gated_mlp, module)


class _Operands(NamedTuple):
    """What a LoRA layer computes with.

    Attributes:
        weight: Frozen, ``(out, in)``.
        bias: Frozen, ``(out,)``, or None.
        lora_a: ``(rank, in)``, float32.
        lora_b: ``(out, rank)``, float32.
        scaling: Factor of LoRA's product.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None
    lora_a: torch.Tensor
    lora_b: torch.Tensor
    scaling: float


@contextlib.contextmanager
def merged(model: Any, max_bytes: int) -> Generator[None]:
    """Within this context, the active adapter is merged into copies of the weights it is on.

    This is for generation: its products are so small that LoRA's additional ones take half as long again. Nothing is
    merged if the copies would take more than ``max_bytes``, or if merging would round (weights in bfloat16).
    """
    layers = [m for m in model.modules() if isinstance(m, _FusedLoraLinear) and m.single_adapter is not None]
    weights: list[Any] = [layer.get_base_layer().weight for layer in layers]
    exact = all(weight.dtype == torch.float32 for weight in weights)
    if not exact or sum(weight.nbytes for weight in weights) > max_bytes:
        yield
        return
    try:
        for layer in layers:
            # Replace the parameter, not its data: a head may share its parameter with the embedding.
            layer.get_base_layer().weight = nn.Parameter(layer.merged_weight(), requires_grad=False)
            layer.is_merged_copy = True
        yield
    finally:
        for layer, weight in zip(layers, weights, strict=True):
            layer.get_base_layer().weight = weight
            layer.is_merged_copy = False


class _FusedLoraLinear(Linear):
    """PEFT's LoRA layer, fused if exactly one plain adapter is active; otherwise PEFT's own code runs.

    The plain equivalent, and PEFT's own forward pass, is::

        y = F.linear(x, weight, bias) + scaling * F.linear(F.linear(x, lora_a), lora_b)

    Attributes:
        is_merged_copy: True while the base layer's weight is a copy with the adapter merged into it.
        dropout: The dropout of LoRA's input; None outside of training passes. PEFT's own dropout stays off, because
            its modules are in inference mode.
    """

    is_merged_copy = False
    dropout: LayerDropout | None = None

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        name = self.single_adapter
        if self.is_merged_copy:
            return self.base_layer(x, *args, **kwargs)
        if self.dropout is not None and name is not None:
            return self._forward_with_dropout(x, self.dropout, self.operands(name), *args, **kwargs)
        if args or kwargs or name is None:
            return super().forward(x, *args, **kwargs)
        return _LoraLinear.apply(x, *self.operands(name))  # pyright: ignore[reportReturnType]

    def _forward_with_dropout(
        self, x: torch.Tensor, dropout: LayerDropout, operands: _Operands, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        r"""Compute :math:`W x + b + s B A (m \odot x)`, not fused: the two products have different inputs."""
        kept = x.to(operands.lora_a.dtype) * dropout.mask(x)  # (..., in)
        update = kept @ operands.lora_a.T @ operands.lora_b.T * operands.scaling  # (..., out)
        if x.dtype == update.dtype or args or kwargs:
            return self.base_layer(x, *args, **kwargs) + update.to(x.dtype)
        y = _rounded_once(update.flatten(0, -2), x.flatten(0, -2), operands.weight, operands.bias)
        return y.view(*x.shape[:-1], -1)

    @property
    def single_adapter(self) -> str | None:
        """The name of the active adapter if it is the only one and plain LoRA; otherwise None."""
        names = [name for name in self.active_adapters if name in self.lora_A]
        plain = (
            not (self.is_merged_copy or self.disable_adapters or self.merged)
            and len(names) == 1
            and names[0] not in self.lora_variant
        )
        return names[0] if plain else None

    def operands(self, name: str) -> _Operands:
        """Return the tensors that the layer computes with if adapter ``name`` is active."""
        layer: Any = self.get_base_layer()
        weight = layer.weight.T if self.fan_in_fan_out else layer.weight  # GPT-2's Conv1D stores (in, out)
        lora_a: Any = self.lora_A[name].weight
        lora_b: Any = self.lora_B[name].weight
        return _Operands(weight, layer.bias, lora_a, lora_b, self.scaling[name])

    @torch.no_grad()
    def merged_weight(self) -> torch.Tensor:
        """Return :math:`W + s B A` in the layout of the base layer's weight."""
        assert self.single_adapter is not None
        weight, _, lora_a, lora_b, scaling = self.operands(self.single_adapter)
        merged = torch.addmm(weight, lora_b, lora_a, alpha=scaling)  # (out, in)
        return merged.T.contiguous() if self.fan_in_fan_out else merged


def _gated_mlp(module: Any, x: torch.Tensor) -> torch.Tensor:
    """Compute ``down_proj(act_fn(gate_proj(x)) * up_proj(x))``, fused if ``down_proj`` has LoRA without dropout."""
    down = module.down_proj
    name = down.single_adapter if isinstance(down, _FusedLoraLinear) and down.dropout is None else None
    if name is None:
        return down(module.act_fn(module.gate_proj(x)) * module.up_proj(x))
    return _GatedLoraLinear.apply(module.gate_proj(x), module.up_proj(x), module.act_fn, *down.operands(name))  # pyright: ignore[reportReturnType]


@torch.no_grad()
def _is_gated_mlp(module: Any) -> bool:
    """Return True if ``module`` computes what :func:`_gated_mlp` does, tested on one random input."""
    generator = torch.Generator().manual_seed(0)
    try:
        weight = module.gate_proj.weight
        x = torch.randn(1, 3, weight.shape[-1], generator=generator).to(weight)
        return torch.allclose(module(x), _gated_mlp(module, x), rtol=1e-3, atol=1e-5)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):  # other attributes, other inputs
        return False


def _fuse_norm(module: Any) -> None:
    """Replace the forward method of an RMS normalization if it scales by its weight, or by 1 + weight (Gemma)."""
    plain, weight = module.forward, getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(weight, nn.Parameter) or weight.requires_grad or weight.dim() != 1 or not isinstance(eps, float):
        return
    x = torch.randn(3, len(weight), generator=torch.Generator().manual_seed(0)).to(weight)
    with torch.no_grad():
        for shift in (0, 1):
            scale = weight.detach() + shift if shift else weight
            if torch.allclose(plain(x), _RmsNorm.apply(x, scale, eps), rtol=1e-5, atol=1e-6):  # pyright: ignore[reportArgumentType]
                module.forward = functools.partial(_rms_norm, plain, scale, eps)
                return


def _rms_norm(plain: Any, scale: torch.Tensor, eps: float, x: torch.Tensor) -> torch.Tensor:
    """Normalize ``x`` in float32; other types keep the family's own order of rounding."""
    return _RmsNorm.apply(x, scale, eps) if x.dtype == scale.dtype == torch.float32 else plain(x)  # pyright: ignore[reportReturnType]


class _RmsNorm(torch.autograd.Function):
    r"""RMS normalization over the last axis with a frozen weight.

    The plain equivalent, differentiated by autograd, is::

        y = x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weight

    With :math:`r = (\mathrm{mean}(x^2) + \epsilon)^{-1/2}`, :math:`n` features and :math:`s = w \odot dL/dy`,

    .. math:: \frac{dL}{dx} = r \left( s - x \, \frac{r^2}{n} \sum_j s_j x_j \right)
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)  # (..., 1)
        inverse = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()  # r, (..., 1)
        ctx.save_for_backward(x, inverse, weight)
        return (x * inverse).mul_(weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: torch.Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, inverse, weight = ctx.saved_tensors
        scaled = grad_y * weight  # s, (..., features)
        along_x = (scaled * x).sum(-1, keepdim=True).mul_(inverse.square().div_(-x.shape[-1]))  # (..., 1)
        return scaled.addcmul_(x, along_x).mul_(inverse), None, None


def _lora_forward(x: torch.Tensor, operands: _Operands) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute a LoRA layer.

    Args:
        x: ``(tokens, in)``.
        operands: The layer's tensors.

    Returns:
        :math:`W x + b + s B A x`, ``(tokens, out)``, and :math:`A x`, ``(tokens, rank)``.
    """
    weight, bias, lora_a, lora_b, scaling = operands
    low = x.to(lora_a.dtype) @ lora_a.T  # (tokens, rank)
    if x.dtype == lora_b.dtype:
        return F.linear(x, weight, bias).addmm_(low, lora_b.T, alpha=scaling), low  # (tokens, out)
    return _rounded_once((low @ lora_b.T).mul_(scaling), x, weight, bias), low


def _rounded_once(
    update: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Return ``update + x @ weight.T + bias`` in the type of ``x``; the first sum is made in float32."""
    y = torch.addmm(update.to(x.dtype), x, weight.T)  # (tokens, out)
    return y if bias is None else y + bias


def _lora_backward(
    grad_y: torch.Tensor, x: torch.Tensor, low: torch.Tensor, operands: _Operands, *, needs_grad_x: bool
) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
    """Compute the gradients of a LoRA layer.

    Args:
        grad_y: dL/dy, ``(tokens, out)``.
        x: The layer's input, ``(tokens, in)``.
        low: :math:`A x`, ``(tokens, rank)``.
        operands: The layer's tensors.
        needs_grad_x: Whether dL/dx is needed; a model's first layer does not need it.

    Returns:
        dL/dx, ``(tokens, in)``, or None; dL/dA, ``(rank, in)``; dL/dB, ``(out, rank)``.
    """
    weight, _, lora_a, lora_b, scaling = operands
    grad_y_fp32 = grad_y.to(lora_b.dtype)
    grad_low = (grad_y_fp32 @ lora_b).mul_(scaling)  # (tokens, rank); dL/d(A x), from dL/dy cast to LoRA's float32
    grad_a = grad_low.T @ x.to(lora_a.dtype)  # (rank, in)
    grad_b = (grad_y_fp32.T @ low).mul_(scaling)  # (out, rank); low = A x, (tokens, rank)
    if not needs_grad_x:
        return None, grad_a, grad_b
    if grad_y.dtype == lora_a.dtype:
        return (grad_y @ weight).addmm_(grad_low, lora_a), grad_a, grad_b  # (tokens, in)
    return torch.addmm((grad_low @ lora_a).to(grad_y.dtype), grad_y, weight), grad_a, grad_b


class _LoraLinear(torch.autograd.Function):
    """A linear layer with LoRA; ``weight`` and ``bias`` are frozen. ``x`` is ``(..., in)``, the output ``(..., out)``.

    The plain equivalent is in the docstring of :class:`_FusedLoraLinear`.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *operands: Any) -> torch.Tensor:
        layer = _Operands(*operands)
        y, low = _lora_forward(x.flatten(0, -2), layer)
        ctx.save_for_backward(x, low, *layer[:-1])
        ctx.scaling = layer.scaling
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: torch.Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, low, weight, bias, lora_a, lora_b = ctx.saved_tensors
        operands = _Operands(weight, bias, lora_a, lora_b, ctx.scaling)
        grad_x, grad_a, grad_b = _lora_backward(
            grad_y.flatten(0, -2), x.flatten(0, -2), low, operands, needs_grad_x=ctx.needs_input_grad[0]
        )
        # In the order of forward's arguments: x, weight, bias, lora_a, lora_b, scaling.
        return None if grad_x is None else grad_x.view_as(x), None, None, grad_a, grad_b, None


class _GatedLoraLinear(torch.autograd.Function):
    """A linear layer with LoRA on the product of a gated MLP: ``gate`` and ``up`` are ``(..., in)``.

    The plain equivalent keeps the activation and the product for the backward pass; here they are recomputed::

        x = act(gate) * up
        y = F.linear(x, weight, bias) + scaling * F.linear(F.linear(x, lora_a), lora_b)
    """

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor, act: Any, *operands: Any) -> torch.Tensor:
        layer = _Operands(*operands)
        y, low = _lora_forward((act(gate) * up).flatten(0, -2), layer)
        ctx.save_for_backward(gate, up, low, *layer[:-1])
        ctx.act, ctx.scaling = act, layer.scaling
        return y.view(*gate.shape[:-1], -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_y: torch.Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        gate, up, low, weight, bias, lora_a, lora_b = ctx.saved_tensors
        operands = _Operands(weight, bias, lora_a, lora_b, ctx.scaling)
        # 1. Recompute the activation, with a separate graph for its derivative.
        with torch.enable_grad():
            gate_leaf = gate.detach().requires_grad_()
            activated = ctx.act(gate_leaf)  # (..., in)
        x = (activated.detach() * up).flatten(0, -2)  # (tokens, in)
        # 2. Through the linear layer.
        grad_x, grad_a, grad_b = _lora_backward(grad_y.flatten(0, -2), x, low, operands, needs_grad_x=True)
        assert grad_x is not None
        grad_x = grad_x.view_as(gate)
        # 3. Through the product, x = activated * up. The second product overwrites grad_x.
        grad_up = grad_x * activated.detach()
        (grad_gate,) = torch.autograd.grad(activated, gate_leaf, grad_x.mul_(up))
        # In the order of forward's arguments: gate, up, act, weight, bias, lora_a, lora_b, scaling.
        return grad_gate, grad_up, None, None, None, grad_a, grad_b, None
