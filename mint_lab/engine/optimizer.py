"""The optimizer step: AdamW on one adapter, with settings that may change from step to step."""

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
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) on one adapter's parameters.

    Every step is given its settings; moments and step counts are kept from step to step.
    """

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._parameters = list(adapter.parameters.values())
        device = self._parameters[0].device
        self._adam = torch.optim.AdamW(self._parameters, lr=0.0, fused=device.type in ("cpu", "cuda"))

    def step(self, settings: AdamParams) -> dict[str, float]:
        """Apply the accumulated gradient, and discard it.

        Args:
            settings: Learning rate, betas, eps, weight decay, and the norm to clip the gradient to (0 for none).

        Returns:
            ``grad_norm``, the norm of the gradient before clipping.

        Raises:
            ConfigError: If a setting is out of range.
            ModelError: If there is no gradient to apply, or it is not finite. A nonfinite gradient is discarded, and
                nothing else changes.
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
                f"the gradient's norm is {float(norm):g}, expected a finite number; the gradient was discarded, "
                "weights and optimizer are unchanged. Lower the learning rate, or look for extreme advantages"
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
        """Return copies of ``exp_avg.NAME``, ``exp_avg_sq.NAME`` and ``step.NAME`` for every parameter.

        The dict is empty before the first step.
        """
        names = list(self._adapter.parameters)
        state = self._adam.state_dict()["state"]
        return {
            f"{key}.{names[index]}": torch.as_tensor(value).clone()
            for index, entry in state.items()
            for key, value in entry.items()
        }

    def load(self, state: dict[str, torch.Tensor]) -> None:
        """Restore what :meth:`state` returned; an empty state resets the optimizer.

        Raises:
            ModelError: If ``state`` does not fit this adapter. Nothing is changed then.
        """
        self.check(state)
        index = {name: i for i, name in enumerate(self._adapter.parameters)}
        entries: dict[int, dict[str, torch.Tensor]] = {}
        for key, value in state.items():
            kind, name = key.split(".", 1)
            entries.setdefault(index[name], {})[kind] = value
        self._adam.load_state_dict({"state": entries, "param_groups": self._adam.state_dict()["param_groups"]})

    def check(self, state: dict[str, torch.Tensor]) -> None:
        """Raise ModelError unless ``state`` is empty or has the moments of all parameters of this adapter."""
        shapes = {name: tuple(p.shape) for name, p in self._adapter.parameters.items()}
        expected = {f"{kind}.{name}": shape for name, shape in shapes.items() for kind in ("exp_avg", "exp_avg_sq")}
        expected |= {f"step.{name}": () for name in shapes}
        given = {key: tuple(value.shape) for key, value in state.items()}
        if given and given != expected:
            key = sorted(set(given.items()) ^ set(expected.items()))[0][0]  # the first that differs
            raise ModelError(
                f"the optimizer state does not fit this adapter: {key} has shape {given.get(key, 'none')}, "
                f"expected {expected.get(key, 'none')}"
            )


def _check_adam(settings: AdamParams) -> None:
    """Raise ConfigError if a setting is out of range."""
    ranges: dict[str, Callable[[float], bool]] = {
        "learning_rate": lambda v: v >= 0,
        "beta1": lambda v: 0 <= v < 1,
        "beta2": lambda v: 0 <= v < 1,
        # LoRA's A starts with a gradient of exactly 0. Adam's 0 / (0 + eps) is nan if eps is 0 in float32.
        "eps": lambda v: v >= torch.finfo(torch.float32).tiny,
        "weight_decay": lambda v: v >= 0,
        "grad_clip_norm": lambda v: v >= 0,
    }
    for name, is_in_range in ranges.items():
        value = float(getattr(settings, name))
        if not (math.isfinite(value) and is_in_range(value)):
            minimum = "1.2e-38 (with 0, Adam divides 0 by 0)" if name == "eps" else "0"
            is_beta = name.startswith("beta")
            expected = "at least 0 and less than 1" if is_beta else f"a finite number of at least {minimum}"
            raise ConfigError(f"AdamParams.{name} is {value:g}, expected {expected}")
