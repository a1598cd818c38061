r"""LoRA layers and gated MLPs with their arithmetic written out: the same numbers in less time and memory.

PEFT makes the layers, their parameters and the files. What it computes, :math:`y = W x + b + s B A x`, autograd takes
apart into products, a scaling and a sum, each of which crosses memory once more, forward and backward. Here the sum is
part of the product (``addmm``): on a CPU three quarters of the time of a layer.

RMS normalization (Zhang and Sennrich 2019), :math:`w \odot x / \mathrm{rms}(x)`, is five operations to autograd and ten
on the way back; here it is one, which keeps :math:`x` and a number a row.

A gated MLP, :math:`W_d\,(\phi(g) \odot u)` with :math:`g = W_g x` and :math:`u = W_u x`, would keep :math:`g`,
:math:`u`, :math:`\phi(g)` and the product for the way back, which are its largest tensors. Here it keeps the first two.
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

__all__ = ["fuse", "merged"]

# The names that the parts of a gated MLP have in Llama, Qwen, Mistral, Gemma and most others.
_GATED = ("gate_proj", "up_proj", "down_proj", "act_fn")


def fuse(model: Any) -> None:
    """Let the LoRA layers that PEFT has put into ``model``, and the gated MLPs round them, compute as this module does.

    Their state stays as it is. An MLP that has these parts but does something else with them is left alone.
    """
    for module in model.modules():
        if type(module) is Linear:
            module.__class__ = _Fused
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm") and "forward" not in vars(module):
            _fuse_norm(module)
        elif all(hasattr(module, part) for part in _GATED) and "forward" not in vars(module) and _is_gated(module):
            module.forward = functools.partial(_gated_mlp, module)


class _Operands(NamedTuple):
    """Frozen ``W`` (out, in) and ``b`` (out,) or None; LoRA's ``A`` (rank, in) and ``B`` (out, rank), float32."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    a: torch.Tensor
    b: torch.Tensor
    scaling: float


@contextlib.contextmanager
def merged(model: Any, limit: int) -> Generator[None]:
    """In here the active adapter is part of copies of the weights: for generation, whose products are so small that
    LoRA's own take half as long again.

    Nothing is merged where the copies would take more than ``limit`` bytes, or would round (weights in bfloat16).
    """
    layers = [m for m in model.modules() if isinstance(m, _Fused) and m.alone is not None]
    weights: list[Any] = [layer.get_base_layer().weight for layer in layers]
    exact = all(weight.dtype == torch.float32 for weight in weights)
    if not exact or sum(weight.nbytes for weight in weights) > limit:
        yield
        return
    try:
        for layer in layers:
            # Another parameter in its place, not other data in it: an output layer may share it with the embedding.
            layer.get_base_layer().weight = nn.Parameter(layer.merged_weight(), requires_grad=False)
            layer.bypassed = True
        yield
    finally:
        for layer, weight in zip(layers, weights, strict=True):
            layer.get_base_layer().weight = weight
            layer.bypassed = False


class _Fused(Linear):
    """PEFT's layer with one adapter active; whatever else it can do, it does as ever.

    Attributes:
        bypassed: the adapter is part of the weight for now.
    """

    bypassed = False

    def forward(self, x: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        name = self.alone
        if self.bypassed:
            return self.base_layer(x, *args, **kwargs)
        if args or kwargs or name is None:
            return super().forward(x, *args, **kwargs)
        return _Linear.apply(x, *self.operands(name))  # pyright: ignore[reportReturnType]

    @property
    def alone(self) -> str | None:
        """The adapter in use, if it is a plain one and the only one."""
        names = [name for name in self.active_adapters if name in self.lora_A]
        plain = (
            not (self.bypassed or self.disable_adapters or self.merged)
            and len(names) == 1
            and names[0] not in self.lora_variant
        )
        return names[0] if plain else None

    def operands(self, name: str) -> _Operands:
        """What the layer computes with."""
        layer: Any = self.get_base_layer()
        weight = layer.weight.T if self.fan_in_fan_out else layer.weight
        a: Any = self.lora_A[name].weight
        b: Any = self.lora_B[name].weight
        return _Operands(weight, layer.bias, a, b, self.scaling[name])

    @torch.no_grad()
    def merged_weight(self) -> torch.Tensor:
        """:math:`W + s B A`, as the layer below holds it."""
        assert self.alone is not None
        of = self.operands(self.alone)
        found = torch.addmm(of.weight, of.b, of.a, alpha=of.scaling)
        return found.T.contiguous() if self.fan_in_fan_out else found


def _gated_mlp(module: Any, x: torch.Tensor) -> torch.Tensor:
    down = module.down_proj
    name = down.alone if isinstance(down, _Fused) else None
    if name is None:
        return down(module.act_fn(module.gate_proj(x)) * module.up_proj(x))
    return _Gated.apply(module.gate_proj(x), module.up_proj(x), module.act_fn, *down.operands(name))  # pyright: ignore[reportReturnType]


@torch.no_grad()
def _is_gated(module: Any) -> bool:
    generator = torch.Generator().manual_seed(0)
    try:
        weight = module.gate_proj.weight
        x = torch.randn(1, 3, weight.shape[-1], generator=generator).to(weight)
        return torch.allclose(module(x), _gated_mlp(module, x), rtol=1e-3, atol=1e-5)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):  # other parts, other inputs
        return False


def _fuse_norm(module: Any) -> None:
    """Let ``module`` compute by :class:`_RmsNorm`, if that is what it computes: with its weight, or with 1 + weight."""
    plain, weight = module.forward, getattr(module, "weight", None)
    eps = getattr(module, "variance_epsilon", getattr(module, "eps", None))
    if not isinstance(weight, nn.Parameter) or weight.requires_grad or weight.dim() != 1 or not isinstance(eps, float):
        return
    x = torch.randn(3, len(weight), generator=torch.Generator().manual_seed(0)).to(weight)
    with torch.no_grad():
        for shift in (0, 1):
            scale = weight.detach() + shift if shift else weight
            if torch.allclose(plain(x), _RmsNorm.apply(x, scale, eps), rtol=1e-5, atol=1e-6):  # pyright: ignore[reportArgumentType]
                module.forward = functools.partial(_normed, plain, scale, eps)
                return


def _normed(plain: Any, scale: torch.Tensor, eps: float, x: torch.Tensor) -> torch.Tensor:
    return _RmsNorm.apply(x, scale, eps) if x.dtype == scale.dtype == torch.float32 else plain(x)  # pyright: ignore[reportReturnType]


class _RmsNorm(torch.autograd.Function):
    """``x / sqrt(mean(x ** 2) + eps) * weight`` over the last axis, with ``weight`` frozen."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True)
        inverse = norm.square_().div_(x.shape[-1]).add_(eps).rsqrt_()
        ctx.save_for_backward(x, inverse, weight)
        return (x * inverse).mul_(weight)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, inverse, weight = ctx.saved_tensors
        scaled = gradient * weight
        along = (scaled * x).sum(-1, keepdim=True).mul_(inverse.square().div_(-x.shape[-1]))
        return scaled.addcmul_(x, along).mul_(inverse), None, None


def _forward(x: torch.Tensor, of: _Operands) -> tuple[torch.Tensor, torch.Tensor]:
    """:math:`W x + b + s B A x` for ``x`` of ``(tokens, in)``, and :math:`A x`."""
    low = x.to(of.a.dtype) @ of.a.T
    y = F.linear(x, of.weight, of.bias)
    # A model in bfloat16 gets LoRA's part rounded once, at the end.
    exact = y.dtype == of.b.dtype
    return y.addmm_(low, of.b.T, alpha=of.scaling) if exact else y + (low @ of.b.T * of.scaling).to(y.dtype), low


def _backward(
    rows: torch.Tensor, x: torch.Tensor, low: torch.Tensor, of: _Operands, *, down: bool
) -> tuple[torch.Tensor | None, torch.Tensor, torch.Tensor]:
    """From dL/dy, ``(tokens, out)``, to those of ``x`` (where ``down``), ``A`` and ``B``."""
    exact = rows.to(of.b.dtype)
    scaled = (exact @ of.b).mul_(of.scaling)
    into_a, into_b = scaled.T @ x.to(of.a.dtype), (exact.T @ low).mul_(of.scaling)
    if not down:
        return None, into_a, into_b
    into_x = rows @ of.weight
    same = into_x.dtype == of.a.dtype
    return into_x.addmm_(scaled, of.a) if same else into_x + (scaled @ of.a).to(into_x.dtype), into_a, into_b


class _Linear(torch.autograd.Function):
    """A linear layer with LoRA; ``W`` and ``b`` are frozen."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, *operands: Any) -> torch.Tensor:
        of = _Operands(*operands)
        y, low = _forward(x.flatten(0, -2), of)
        ctx.save_for_backward(x, low, *of[:-1])
        ctx.scaling = of.scaling
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, low, weight, bias, a, b = ctx.saved_tensors
        rows, down = gradient.flatten(0, -2), ctx.needs_input_grad[0]
        of = _Operands(weight, bias, a, b, ctx.scaling)
        into_x, into_a, into_b = _backward(rows, x.flatten(0, -2), low, of, down=down)
        return None if into_x is None else into_x.view_as(x), None, None, into_a, into_b, None


class _Gated(torch.autograd.Function):
    """The same of ``act(gate) * up``."""

    @staticmethod
    def forward(ctx: Any, gate: torch.Tensor, up: torch.Tensor, act: Any, *operands: Any) -> torch.Tensor:
        of = _Operands(*operands)
        y, low = _forward((act(gate) * up).flatten(0, -2), of)
        ctx.save_for_backward(gate, up, low, *of[:-1])
        ctx.act, ctx.scaling = act, of.scaling
        return y.view(*gate.shape[:-1], -1)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        gate, up, low, weight, bias, a, b = ctx.saved_tensors
        with torch.enable_grad():
            leaf = gate.detach().requires_grad_()
            activated = ctx.act(leaf)
        x = (activated.detach() * up).flatten(0, -2)
        of = _Operands(weight, bias, a, b, ctx.scaling)
        into_x, into_a, into_b = _backward(gradient.flatten(0, -2), x, low, of, down=True)
        assert into_x is not None
        into_x = into_x.view_as(gate)
        into_up = into_x * activated.detach()
        (into_gate,) = torch.autograd.grad(activated, leaf, into_x.mul_(up))
        return into_gate, into_up, None, None, None, into_a, into_b, None
