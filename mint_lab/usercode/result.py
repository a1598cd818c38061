"""The one check of what a custom loss returned and did. A client, a run and preflight all use it.

:func:`evaluate_loss` calls a loss and makes these checks, in this order. ``ResultError.check`` has the name of the one
that failed; a line of preflight's report has the same name.

========  ============================================================================================================
returns   a tuple ``(loss, metrics)``
inputs    the function did not edit ``logprobs_list`` or ``loss_fn_inputs`` in place, nor call ``backward()`` itself
loss      a scalar floating-point tensor on the device of ``logprobs_list``, finite, with a gradient
metrics   a dict of names to numbers
gradient  reaches every datum and is finite
========  ============================================================================================================

An edit of ``loss_fn_inputs`` is undone before the error is raised: a trainer uses the same datums again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import LossError
from .out_of_memory import first_line, is_out_of_memory

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..types import Datum

__all__ = ["NONFINITE_FIX", "LossResult", "NonfiniteLoss", "ResultError", "evaluate_loss", "first_few", "metric_number"]

MAX_INDICES_SHOWN = 3
NONFINITE_FIX = "look for log(0), exp of something large, or a division by 0"

# What the message says in front of what was found; a report's line has the name of the check there.
_SUBJECTS = {"loss": "the loss ", "metrics": "metrics: ", "gradient": "the gradient "}


class ResultError(LossError):
    """What a custom loss returned or did cannot be trained on.

    Attributes:
        check: Name of the check that failed: "returns", "inputs", "loss", "metrics" or "gradient".
        found: What was found.
        fix: What to change.
    """

    def __init__(self, check: str, found: str, fix: str, *, index: int | None = None) -> None:
        super().__init__(f"{_SUBJECTS.get(check, '')}{found}; {fix}", index=index)
        self.check = check
        self.found = found
        self.fix = fix


class NonfiniteLoss(ResultError):
    """The loss is nan or infinite.

    Attributes:
        value: The loss.
    """

    def __init__(self, value: float, found: str = "", fix: str = NONFINITE_FIX, *, index: int | None = None) -> None:
        super().__init__("loss", found or f"is {value:g}", fix, index=index)
        self.value = value


@dataclass(frozen=True)
class LossResult:
    """A loss that passed the check.

    Attributes:
        loss: The scalar tensor that the function returned.
        value: The same as a number, nats.
        metrics: The metrics that the function returned, as numbers.
        gradient: dLoss/dlogprob, ``(N_i,)`` for each datum; empty if the log-probabilities require no gradient.
    """

    loss: torch.Tensor
    value: float
    metrics: dict[str, float]
    gradient: list[torch.Tensor]


def _ignore(check: str, value: Any) -> None: ...


def evaluate_loss(
    fn: Callable[..., Any],
    data: Sequence[Datum],
    logprobs_list: Sequence[torch.Tensor],
    *,
    keep_graph: bool = False,
    on_pass: Callable[[str, Any], None] = _ignore,
) -> LossResult:
    """Call a custom loss, check what it returned and did, and differentiate it.

    Args:
        fn: ``(data, logprobs_list) -> (loss, metrics)``. It gets copies of the two lists, not of what is in them.
        data: The datums.
        logprobs_list: ``(N_i,)`` each: leaf tensors that require grad. Without grad, as in an evaluation, the loss
            needs no gradient either.
        keep_graph: Keep the loss's graph, for a caller that differentiates it again.
        on_pass: Called with the name of each check that passed and what it looked at: the tuple ("returns"), None
            ("inputs"), the tensor ("loss"), the dict ("metrics"), the list of gradients ("gradient").

    Raises:
        ResultError: If a check failed. Exceptions of the function itself propagate unchanged.
    """
    inputs = _Inputs(data, logprobs_list)
    try:
        result = fn(list(data), list(logprobs_list))
    except BaseException:
        inputs.undo_edits()
        raise
    edit = inputs.undo_edits()
    if not isinstance(result, tuple) or len(result) != 2:
        found = f"a tuple of {len(result)}" if isinstance(result, tuple) else f"a {type(result).__name__}"
        raise ResultError("returns", f"the function returned {found}", "return loss, metrics")
    on_pass("returns", result)
    if edit is not None:
        raise edit
    on_pass("inputs", None)
    loss, metrics = result
    differentiable = torch.is_grad_enabled() and any(lp.requires_grad for lp in logprobs_list)
    value = _check_loss(loss, logprobs_list, differentiable)
    on_pass("loss", loss)
    numbers = _check_metrics(metrics)
    on_pass("metrics", metrics)
    gradient = _gradient(loss, logprobs_list, keep_graph) if differentiable else []
    on_pass("gradient", gradient)
    return LossResult(loss, value, numbers, gradient)


def metric_number(value: Any) -> float:
    """Return a metric as a float.

    Raises:
        TypeError, ValueError, OverflowError, RuntimeError: If the value is not one number.
    """
    if isinstance(value, str | bytes | bytearray):  # float() would accept some of these
        raise TypeError
    # item() of a tensor and of an array: float() of one with a graph, or of a vector of one number, warns.
    return float(value.item() if hasattr(value, "item") else value)


def first_few(indices: Sequence[int]) -> str:
    """Return the first indices as text, and how many more there are."""
    shown = ", ".join(map(str, indices[:MAX_INDICES_SHOWN]))
    more = len(indices) - MAX_INDICES_SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _check_loss(loss: Any, logprobs_list: Sequence[torch.Tensor], differentiable: bool) -> float:
    """Return the loss as a number."""
    if not isinstance(loss, torch.Tensor):
        fix = "return the tensor itself, without float(), .item() or .numpy()"
        raise ResultError("loss", f"is a {type(loss).__name__}", fix)
    if loss.dim() != 0:
        raise ResultError("loss", f"has shape {tuple(loss.shape)}", "reduce it to a scalar with .sum() or .mean()")
    if not loss.is_floating_point():
        fix = "compute it from logprobs_list, which are floating point"
        raise ResultError("loss", f"is of type {loss.dtype}", fix)
    device = logprobs_list[0].device if logprobs_list else loss.device
    if loss.device != device:
        fix = "make new tensors with device=logprobs_list[0].device"
        raise ResultError("loss", f"is on {loss.device}, logprobs_list on {device}", fix)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise NonfiniteLoss(value)
    if differentiable and not loss.requires_grad:
        fix = "compute it from logprobs_list without detach(), .item(), .data or no_grad"
        raise ResultError("loss", "has no gradient", fix)
    return value


def _check_metrics(metrics: Any) -> dict[str, float]:
    if not isinstance(metrics, dict):
        found = f"a {type(metrics).__name__} instead of a dict"
        raise ResultError("metrics", found, "return a dict of names to floats, {} for none")
    numbers: dict[str, float] = {}
    for name, value in metrics.items():
        if not isinstance(name, str):
            raise ResultError("metrics", f"the name {name!r} is a {type(name).__name__}", "use text as names")
        try:
            numbers[name] = metric_number(value)
        except (TypeError, ValueError, OverflowError, RuntimeError):  # the last: a tensor of several numbers
            fix = "write float(x), or float(x.detach()) for a tensor"
            raise ResultError("metrics", f"{name!r} is a {type(value).__name__}", fix) from None
    return numbers


def _gradient(loss: torch.Tensor, logprobs_list: Sequence[torch.Tensor], keep_graph: bool) -> list[torch.Tensor]:
    """Return dLoss/dlogprob, ``(N_i,)`` for each datum."""
    try:
        gradient = torch.autograd.grad(loss, logprobs_list, allow_unused=True, retain_graph=keep_graph or None)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise
        found = f"cannot be computed: {first_line(error)}"
        fix = "look for edits in place, and for tensors of an earlier call"
        raise ResultError("gradient", found, fix) from error
    missing = [index for index, piece in enumerate(gradient) if piece is None]
    if missing:
        fix = (
            "use every logprobs_list[i] in the loss, times 0 if datum i is not to count; "
            "look for an index that skips some, for .item() and detach()"
        )
        found = f"does not reach datum {first_few(missing)} of {len(gradient)}"
        raise ResultError("gradient", found, fix, index=missing[0])
    if not bool(torch.isfinite(torch.cat(gradient)).all()):
        raise _nonfinite_gradient(gradient, logprobs_list)
    return list(gradient)


def _nonfinite_gradient(gradient: Sequence[torch.Tensor], logprobs_list: Sequence[torch.Tensor]) -> ResultError:
    datums = [index for index, piece in enumerate(gradient) if not bool(torch.isfinite(piece).all())]
    index = datums[0]
    position = int((~torch.isfinite(gradient[index])).nonzero()[0])
    found = (
        f"is {float(gradient[index][position]):g} at datum {index}, position {position} "
        f"(log-probability {float(logprobs_list[index].detach()[position]):g})"
    )
    if len(datums) > 1:
        found += f", and nan or inf at datum {first_few(datums[1:])}"
    fix = "look for log(0), sqrt(0), 0/0 or exp of something large; torch.where does not stop a nan gradient"
    return ResultError("gradient", found, fix, index=index)


class _Inputs:
    """What a loss was given, as it was before the call. Finds edits in place, and undoes those of the data.

    Numbers are compared with nan equal to nan: a loss that only reads nan has not edited anything.
    """

    def __init__(self, data: Sequence[Datum], logprobs_list: Sequence[torch.Tensor]) -> None:
        self._data = data
        self._logprobs_list = logprobs_list
        self._logprobs_before = _concatenated(logprobs_list)
        self._shapes = [lp.shape for lp in logprobs_list]
        self._fields_before = [dict(datum.loss_fn_inputs) for datum in data]
        # Bytes, because a datum's arrays are short: np.array_equal with nan costs many times what comparing bytes does.
        self._bytes_before = [
            {name: array.tobytes() for name, value in fields.items() if (array := _shared_array(value)) is not None}
            for fields in self._fields_before
        ]

    def undo_edits(self) -> ResultError | None:
        """Restore the datums; return the error for a ``backward()`` or for the first edit, None if there is none."""
        edits = [edit for index in range(len(self._data)) if (edit := self._restore(index)) is not None]
        if any(lp.is_leaf and lp.grad is not None for lp in self._logprobs_list):
            fix = "return the loss; the trainer differentiates it"
            return ResultError("inputs", "the function called backward() itself", fix)
        index = self._edited_logprobs()
        if index is not None:
            fix = "work on a copy: logprobs_list[i].clone()"
            return ResultError("inputs", f"logprobs_list[{index}] was changed in place", fix, index=index)
        return edits[0] if edits else None

    def _edited_logprobs(self) -> int | None:
        """Return the first datum whose log-probabilities are not as before."""
        for index, (lp, shape) in enumerate(zip(self._logprobs_list, self._shapes, strict=True)):
            if lp.shape != shape:
                return index
        now, before = _concatenated(self._logprobs_list), self._logprobs_before
        if torch.equal(now, before):  # the usual case; False if there is a nan
            return None
        edited = (now != before) & ~(now.isnan() & before.isnan())
        pieces = edited.split([shape.numel() for shape in self._shapes])
        return next((index for index, piece in enumerate(pieces) if bool(piece.any())), None)

    def _restore(self, index: int) -> ResultError | None:
        fields, before = self._data[index].loss_fn_inputs, self._fields_before[index]
        edited = sorted(fields.keys() ^ before.keys(), key=str)
        for name, value in before.items():
            bytes_before = self._bytes_before[index].get(name)
            array = _shared_array(value)
            if array is not None and bytes_before is not None and array.tobytes() != bytes_before:
                array_before = np.frombuffer(bytes_before, array.dtype).reshape(array.shape)
                if not _equal_arrays(array, array_before):
                    edited.append(name)
                if array.flags.writeable:
                    np.copyto(array, array_before)
            if name in fields and fields[name] is not value and not _equal_fields(fields[name], value):
                edited.append(name)
        if not edited:
            return None
        fields.clear()
        fields.update(before)
        fix = "work on a copy: .to_torch() shares the datum's memory, .to_torch().clone() does not"
        return ResultError("inputs", f'data[{index}].loss_fn_inputs["{edited[0]}"] was changed', fix, index=index)


def _concatenated(logprobs_list: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return a copy of all log-probabilities, ``(sum N_i,)``."""
    return torch.cat([lp.detach().flatten() for lp in logprobs_list]) if logprobs_list else torch.empty(0)


def _shared_array(value: Any) -> NDArray[Any] | None:
    """Return the array whose memory ``value.to_torch()`` shares; None if that makes a copy, as of a sparse tensor."""
    if getattr(value, "sparse_crow_indices", None) is not None or not hasattr(value, "to_numpy"):
        return None
    return value.to_numpy()


def _equal_fields(now: Any, before: Any) -> bool:
    if not hasattr(now, "to_numpy") or not hasattr(before, "to_numpy"):
        return False
    return _equal_arrays(now.to_numpy(), before.to_numpy())


def _equal_arrays(now: NDArray[Any], before: NDArray[Any]) -> bool:
    return now.shape == before.shape and np.array_equal(now, before, equal_nan=True)
