"""What a call's ``loss_fn`` stands for; what is of the other kind is refused with the call that takes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from ..engine.step import Builtin, Custom
from ..errors import ConfigError
from ..losses import LOSSES, CustomLoss, LossSpec
from ..losses.spec import Reduction

__all__ = ["builtin", "custom"]


def builtin(name: Any, config: Mapping[str, float] | None) -> Builtin:
    """The built-in loss of a name; raises :class:`ConfigError` for anything else."""
    if isinstance(name, LossSpec):
        raise ConfigError(f"loss_fn is {name!r}, expected a name; {_right_call(name)}")
    if not isinstance(name, str):
        raise ConfigError(f"loss_fn is {name!r}, expected a name; functions go to forward_backward_custom")
    spec = LOSSES[name]
    if not spec.builtin:
        raise ConfigError(f"{name!r} is a custom loss; {_right_call(spec)}")
    return Builtin(spec, spec.config(config))


def custom(loss_fn: Any) -> Custom:
    """A function as a loss; raises :class:`ConfigError` for anything else."""
    if not callable(loss_fn):
        known = LOSSES.get(loss_fn) if isinstance(loss_fn, str) else None
        spec = loss_fn if isinstance(loss_fn, LossSpec) else known
        raise ConfigError(
            f"loss_fn is {loss_fn!r}, expected a function (data, logprobs_list) -> (loss, metrics)"
            + ("" if spec is None else f"; {_right_call(spec)}")
        )
    return Custom(cast("CustomLoss", loss_fn), _reduction_of(loss_fn))


def _reduction_of(loss_fn: Any) -> Reduction:
    """Return what a bound or guarded loss says of its reduction; nothing is known of a plain function."""
    spec = getattr(loss_fn, "spec", None)
    return spec.reduction if isinstance(spec, LossSpec) else "coupled"


def _right_call(spec: LossSpec) -> str:
    if spec.builtin:
        return f"call forward_backward(data, {spec.name!r})"
    return f"call forward_backward_custom(data, mint_lab.LOSSES[{spec.name!r}].bind())"
