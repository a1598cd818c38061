"""The optimizer step: AdamW over one adapter, with settings that may change from step to step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from ..errors import ConfigError, ModelError

if TYPE_CHECKING:
    from ..types import AdamParams
    from .models import Adapter

__all__ = ["Optimizer"]


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
