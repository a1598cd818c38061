"""From a call's ``loss_fn`` argument to the engine's objective.

``forward_backward`` takes the name of a built-in loss, ``forward_backward_custom`` a function. If a loss is passed to
the wrong call, the error names the right one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from ..engine.step import Builtin, Custom
from ..errors import ConfigError
from ..losses import LOSSES, CustomLoss, LossSpec

if TYPE_CHECKING:
    from ..losses.spec import Reduction

__all__ = ["builtin_objective", "custom_objective"]


def builtin_objective(name: Any, config: Mapping[str, float] | None) -> Builtin:
    """Return the built-in loss of a name with its settings.

    Raises:
        ConfigError: If ``name`` is not the name of a built-in loss, or a setting is unknown or out of range.
    """
    if isinstance(name, LossSpec):
        raise ConfigError(f"loss_fn is {name!r}, expected a name; {_right_call(name)}")
    if not isinstance(name, str):
        raise ConfigError(f"loss_fn is {name!r}, expected a name; functions go to forward_backward_custom")
    spec = LOSSES[name]
    if not spec.builtin:
        raise ConfigError(f"{name!r} is a custom loss; {_right_call(spec)}")
    return Builtin(spec, spec.config(config))


def custom_objective(loss_fn: Any) -> Custom:
    """Return a function as a custom loss.

    Raises:
        ConfigError: If ``loss_fn`` is not callable.
    """
    if not callable(loss_fn):
        known = LOSSES.get(loss_fn) if isinstance(loss_fn, str) else None
        spec = loss_fn if isinstance(loss_fn, LossSpec) else known
        raise ConfigError(
            f"loss_fn is {loss_fn!r}, expected a function (data, logprobs_list) -> (loss, metrics)"
            + ("" if spec is None else f"; {_right_call(spec)}")
        )
    return Custom(cast("CustomLoss", loss_fn), _reduction_of(loss_fn))


def _reduction_of(loss_fn: Any) -> Reduction:
    """Return the reduction of a bound or guarded loss; that of a plain function is unknown, so it counts as coupled."""
    spec = getattr(loss_fn, "spec", None)
    return spec.reduction if isinstance(spec, LossSpec) else "coupled"


def _right_call(spec: LossSpec) -> str:
    if spec.builtin:
        return f"call forward_backward(data, {spec.name!r})"
    return f"call forward_backward_custom(data, mint_lab.LOSSES[{spec.name!r}].bind())"
