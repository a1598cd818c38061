"""The optimizer step: AdamW on one adapter, with settings that may change from step to step."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..errors import ConfigError, ModelError
from ..tensors import first_nonfinite
from ..usercode.out_of_memory import first_line, is_out_of_memory

if TYPE_CHECKING:
    from ..types import AdamParams
    from .models import Adapter

__all__ = ["Optimizer", "check_optimizer"]

_MOMENTS = ("exp_avg", "exp_avg_sq")
SAFE_SIZE = 1e37  # float32 ends at 3.4e38; the bounds leave room for rounding
_UNCHANGED = "Weights and optimizer are unchanged, the gradient was discarded."


class Optimizer:
    """AdamW (Loshchilov and Hutter 2019, arXiv:1711.05101) on one adapter's parameters.

    Every step is given its settings; moments and step counts are kept from step to step. No step makes a weight or a
    moment nonfinite: if bounds on its numbers do not exclude that, it is computed on copies and checked before it is
    applied.
    """

    def __init__(self, adapter: Adapter) -> None:
        self._adapter = adapter
        self._parameters = list(adapter.parameters.values())
        self._adam = _adamw(self._parameters)
        # Upper bounds of all |exp_avg| and all exp_avg_sq; not known before the first step and after a load.
        self._bounds = (math.inf, math.inf)

    def step(self, settings: AdamParams) -> dict[str, float]:
        """Apply the accumulated gradient, and discard it.

        A step that fails changes neither weights nor optimizer. It discards the gradient too, unless a setting is out
        of range: the gradient is what the step failed with, and the next one would be added to it.

        Args:
            settings: Learning rate, betas, eps, weight decay, and the norm to clip the gradient to (0 for none).

        Returns:
            ``grad_norm``, the norm of the gradient before clipping.

        Raises:
            ConfigError: If a setting is out of range.
            ModelError: If there is no gradient to apply, it is not finite, the update would make a weight or a moment
                of the optimizer not finite, or memory runs out.
        """
        _check_adam(settings)
        gradients = self._adapter.gradients
        if gradients is None:
            raise ModelError(
                "optim_step has no gradient to apply: call forward_backward first (if that failed, nothing "
                "was accumulated)"
            )
        self._adapter.gradients = None
        try:
            return {"grad_norm": self._apply(gradients, settings)}
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            raise ModelError(
                f"out of memory in the optimizer's step ({first_line(error)}). {_UNCHANGED} Use a smaller LoRA rank, "
                "or free memory held by other programs"
            ) from error

    @torch.no_grad()
    def _apply(self, gradients: list[torch.Tensor], settings: AdamParams) -> float:
        """Check and clip the gradients, apply the step, and return their norm before clipping."""
        names = list(self._adapter.parameters)
        norms = [torch.nn.utils.get_total_norm(tensors) for tensors in (gradients, self._parameters)]
        norm, weight_norm = torch.stack(norms).tolist()  # one read: the host waits for a device once a step
        if not math.isfinite(norm):
            norm = _rescaled_norm(gradients, norm)
        if not math.isfinite(norm):
            name, value = first_nonfinite(zip(names, gradients, strict=True)) or ("", norm)
            raise ModelError(
                f"the gradient of {name} has the value {value:g}, so grad_norm is {norm:g}, expected finite numbers "
                f"(learning rate {settings.learning_rate:g}). {_UNCHANGED} Lower the learning rate, or look for "
                "extreme advantages or weights in the data"
            )
        if settings.grad_clip_norm > 0 and norm > settings.grad_clip_norm:
            gradients = [gradient * (settings.grad_clip_norm / norm) for gradient in gradients]
        bounds = self._bounds_after(min(norm, settings.grad_clip_norm or norm))
        if self._cannot_overflow(weight_norm, *bounds, settings):
            _run(self._adam, self._parameters, gradients, settings)
            self._bounds = bounds
        else:
            self._apply_checked(gradients, norm, settings)
        return norm

    def _bounds_after(self, largest_gradient: float) -> tuple[float, float]:
        """Return bounds of |exp_avg| and exp_avg_sq after a step: both are averages of the old value and the new."""
        largest_mean, largest_square = self._bounds
        return max(largest_mean, largest_gradient), max(largest_square, largest_gradient**2)

    @staticmethod
    def _cannot_overflow(
        largest_weight: float, largest_mean: float, largest_square: float, settings: AdamParams
    ) -> bool:
        r"""Return whether a step cannot make a number nonfinite.

        With :math:`\hat m = m / (1 - \beta_1^t)`, the new weight is at most
        :math:`|w| (1 + \text{lr} \cdot \text{decay}) + \text{lr} \cdot |\hat m| / \epsilon`.
        """
        mean = largest_mean / (1 - settings.beta1)
        update = settings.learning_rate * mean / min(settings.eps, 1.0)
        weight = largest_weight * (1 + settings.learning_rate * settings.weight_decay) + update
        return max(weight, mean, largest_square) < SAFE_SIZE

    def _apply_checked(self, gradients: list[torch.Tensor], norm: float, settings: AdamParams) -> None:
        """Compute the step on copies, check them, and put them in the place of weights and moments."""
        copies = [torch.nn.Parameter(parameter.detach().clone()) for parameter in self._parameters]
        adam = _adamw(copies)
        for copy, parameter in zip(copies, self._parameters, strict=True):
            if parameter in self._adam.state:
                state = self._adam.state[parameter]
                adam.state[copy] = {key: torch.as_tensor(value).clone() for key, value in state.items()}
        _run(adam, copies, gradients, settings)
        self._check(list(self._adapter.parameters), copies, adam, norm, settings)
        for copy, parameter in zip(copies, self._parameters, strict=True):
            parameter.data = copy.data
            self._adam.state[parameter] = adam.state[copy]
        # A norm is a bound of each of its numbers.
        means, squares = ([state[key] for state in adam.state.values()] for key in _MOMENTS)
        norms = [torch.nn.utils.get_total_norm(tensors) for tensors in (means, squares)]
        mean, square = torch.stack(norms).tolist()
        self._bounds = (mean, square)

    @staticmethod
    def _check(
        names: list[str],
        copies: list[torch.nn.Parameter],
        adam: torch.optim.AdamW,
        norm: float,
        settings: AdamParams,
    ) -> None:
        """Raise ModelError if a weight or a moment of the new ones is not finite."""
        weights = list(zip(names, copies, strict=True))
        moments = [(f"{key} of {name}", adam.state[copy][key]) for name, copy in weights for key in _MOMENTS]
        if (found := first_nonfinite([*weights, *moments])) is None:
            return
        name, value = found
        raise ModelError(
            f"the update was refused: it would set {name} to {value:g} (learning rate {settings.learning_rate:g}, "
            f"grad_norm {norm:g}). {_UNCHANGED} Lower the learning rate, or set grad_clip_norm, then compute the "
            "gradient again"
        )

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
        self._bounds = (math.inf, math.inf)
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


def _rescaled_norm(gradients: Sequence[torch.Tensor], norm: float) -> float:
    """Return the norm of all gradients together although the sum of their squares overflows, from 1.8e19 on.

    If one of their numbers is not finite, the result is ``norm``, the norm that was computed plainly.
    """
    largest = max(float(gradient.abs().max()) for gradient in gradients if gradient.numel())
    if not math.isfinite(largest) or not all(bool(gradient.isfinite().all()) for gradient in gradients):
        return norm
    return largest * float(torch.nn.utils.get_total_norm([gradient / largest for gradient in gradients]))


def _adamw(parameters: Sequence[torch.nn.Parameter]) -> torch.optim.AdamW:
    """Return AdamW on ``parameters``; each step sets its own hyperparameters."""
    return torch.optim.AdamW(parameters, lr=0.0, fused=parameters[0].device.type in ("cpu", "cuda"))


def _run(
    adam: torch.optim.AdamW,
    parameters: Sequence[torch.nn.Parameter],
    gradients: Sequence[torch.Tensor],
    settings: AdamParams,
) -> None:
    """Run one step of ``adam``, whose parameters these are."""
    for group in adam.param_groups:
        group["lr"] = settings.learning_rate
        group["betas"] = (settings.beta1, settings.beta2)
        group["eps"] = settings.eps
        group["weight_decay"] = settings.weight_decay
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient
    adam.step()
    adam.zero_grad(set_to_none=True)


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


def check_optimizer(argument: str, given: Any) -> None:
    """Raise ConfigError if the API's settings are of another optimizer than AdamW, the only one here."""
    kind = getattr(given, "type", None)
    if kind is not None and kind != "adamw":
        raise ConfigError(
            f"{argument} is {type(given).__name__}, of the optimizer {kind!r}, which only the hosted service has; "
            "expected AdamParams for a step, or AdamOptimizerConfig for a client: AdamW is the optimizer here"
        )
