"""From a call's ``loss_fn`` argument to the engine's objective.

``forward_backward`` takes the name of a built-in loss, ``forward_backward_custom`` a function, or the handle of one
that was traced. If a loss is passed to the wrong call, the error names the right one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast

from ..engine.step import Builtin, Custom
from ..errors import ConfigError, DataError
from ..losses import LOSSES, CustomLoss, LossSpec

if TYPE_CHECKING:
    import torch

    from ..losses.spec import Reduction
    from ..types import Datum, LossHandle

LOCAL_SESSION = "local"

__all__ = ["builtin_objective", "custom_objective", "traced_loss"]


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


def traced_loss(fn: Any, input_ranks: Mapping[str, Any]) -> LossHandle:
    """Trace a loss of one datum, as the API's ``create_custom_loss`` does it, by the SDK's own code.

    Args:
        fn: ``(logprobs, *inputs) -> (loss, metrics)``: tensors of one datum, a scalar, and scalars by names such as
            ``custom/name:sum`` or ``custom/name:mean``. The inputs' names are those of the datum's fields.
        input_ranks: Rank of each of its arguments: 0 for a scalar, 1 for ``(T,)``, 2 for ``(T, K)``.

    Raises:
        ConfigError: If it cannot be traced, or the installed SDK has no such call.
    """
    try:
        from ..types import trace_loss
    except ImportError:
        raise ConfigError(
            f"create_custom_loss needs a later version of tinker than {version('tinker')}; upgrade it with "
            "pip install -U tinker, or pass the function itself to forward_backward_custom"
        ) from None
    try:
        return trace_loss(fn, input_ranks, LOCAL_SESSION)
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error).removeprefix("create_custom_loss: ")) from error


def _traced_objective(handle: LossHandle) -> Custom:
    """Return the traced loss of a datum as one of a batch: the losses of all datums are summed."""
    from ..types import check_loss_inputs, run_loss_handle

    def loss_of_batch(data: Sequence[Datum], logprobs: Sequence[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        try:
            check_loss_inputs(handle, list(data))
        except ValueError as error:
            raise DataError(str(error)) from None
        return run_loss_handle(handle, list(data), list(logprobs))

    return Custom(loss_of_batch)


def custom_objective(loss_fn: Any) -> Custom:
    """Return a function, or a handle of :func:`traced_loss`, as a custom loss.

    Raises:
        ConfigError: If ``loss_fn`` is neither.
    """
    if type(loss_fn).__name__ == "LossHandle" and hasattr(loss_fn, "graph"):
        if loss_fn.session_id != LOCAL_SESSION:
            raise ConfigError(
                f"the loss {loss_fn.name!r} was created in session {loss_fn.session_id} of a server; create it with "
                "create_custom_loss of this service"
            )
        return _traced_objective(loss_fn)
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
