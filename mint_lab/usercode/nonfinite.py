"""Explain why a loss is not finite: which part of the batch causes it, and which line of the function.

The part is the first datum, or pair, whose own loss is not finite in a way that explains the batch's loss. The line is
found by calling the function again while the result of every torch operation is checked.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from .guarded_call import call_guarded
from .locate import code_of, logprob_range
from .output import Printed
from .result import NonfiniteLoss

if TYPE_CHECKING:
    from ..types import Datum

__all__ = ["Part", "explain_nonfinite", "first_operation", "first_part"]

MAX_PARTS = 256  # of a batch that are tried
SEARCH_SECONDS = 1.0  # for the part, and again for the operation


@dataclass(frozen=True)
class Part:
    """A datum, or a pair, whose own loss is not finite.

    Attributes:
        index: Index of the datum, or of the first one of the pair.
        size: Number of datums: 1 or 2.
        value: The loss of the part.
        logprobs: The lowest and the highest log-probability, as text.
    """

    index: int
    size: int
    value: float
    logprobs: str

    def __str__(self) -> str:
        who = f"datum {self.index} alone gives"
        if self.size == 2:
            who = f"the pair of datums {self.index} and {self.index + 1} alone gives"
        return f"{who} {self.value:g} ({self.logprobs})"


def explain_nonfinite(
    fault: NonfiniteLoss, fn: Callable[..., Any], data: Sequence[Datum], logprobs_list: Sequence[torch.Tensor]
) -> tuple[NonfiniteLoss, FloatingPointError | None]:
    """Return ``fault`` with the part of the batch that causes it, and the operation, if a search finds them.

    Args:
        fault: What :func:`~mint_lab.usercode.result.evaluate_loss` raised.
        fn: The loss, ``(data, logprobs_list) -> (loss, metrics)``; it is called again.
        data: The datums of the batch.
        logprobs_list: Their log-probabilities, ``(N_i,)`` each.
    """
    broken = next((index for index, lp in enumerate(logprobs_list) if bool(lp.isnan().any())), None)
    if broken is not None:  # the loss is not to blame
        found = f"{fault.found}: the model's log-probabilities of datum {broken} are nan, so its weights have run away"
        return NonfiniteLoss(
            fault.value, found, "load an earlier state and lower the learning rate", index=broken
        ), None
    part = first_part(fn, data, logprobs_list, fault.value)
    found = f"{fault.found}: {part}"
    if part is None:
        values = logprob_range(torch.cat(list(logprobs_list)))
        found = f"{fault.found}, with {values}; no datum or pair alone gives that"
    operation = first_operation(fn, data, logprobs_list)
    fix = fault.fix if operation is None else f"{operation}; {fault.fix}"
    return NonfiniteLoss(fault.value, found, fix, index=None if part is None else part.index), operation


def first_part(
    fn: Callable[..., Any], data: Sequence[Datum], logprobs_list: Sequence[torch.Tensor], whole: float
) -> Part | None:
    """Return the first part of the batch whose own loss explains the loss of the batch.

    Args:
        fn: ``(data, logprobs_list) -> (loss, metrics)``. If it raises on a part, parts of that size are not valid.
        data: The datums of the batch.
        logprobs_list: Their log-probabilities, ``(N_i,)`` each.
        whole: Loss of the batch. The same infinity explains an infinity. A nan explains nan; so does an infinity if
            there is no nan (inf - inf, 0 * inf).

    Returns:
        None if no part explains the loss, or if the search takes more than ``SEARCH_SECONDS``.
    """
    return _search(_find_part, fn, list(data), list(logprobs_list), whole)


def first_operation(
    fn: Callable[..., Any], data: Sequence[Datum], logprobs_list: Sequence[torch.Tensor]
) -> FloatingPointError | None:
    """Return the operation that made the loss not finite, as an error raised at its line of the function's own file.

    It is the first operation on the way to the loss whose result is not finite although its inputs are.

    Returns:
        None if no torch operation is the cause, or if the loss is finite this time.
    """
    return _search(_find_operation, fn, list(data), list(logprobs_list))


def _search(search: Callable[..., Any], *args: Any) -> Any:
    """Return the result of ``search``; None if it fails or takes too long. What the loss prints is dropped."""
    try:
        return call_guarded(search, args, should_cancel=lambda s: s > SEARCH_SECONDS, printed=Printed(0, echo=False))
    except Exception:
        return None


def _leaves(logprobs_list: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [lp.detach().clone().requires_grad_(True) for lp in logprobs_list]


def _find_part(
    fn: Callable[..., Any], data: list[Datum], logprobs_list: list[torch.Tensor], whole: float
) -> Part | None:
    for size in (1, 2):
        found: Part | None = None
        # A mean over pairs is nan for every single datum (the mean of nothing), which does not explain anything. So
        # single datums count only if one of them has a loss that is not nan.
        valid = size == 2 or len(data) == 1
        for start in range(0, min(len(data), size * MAX_PARTS), size):
            part = slice(start, start + size)
            try:
                value = float(fn(data[part], _leaves(logprobs_list[part]))[0].detach())
            except Exception:
                break
            valid = valid or not math.isnan(value)
            exact = found is not None and _same(found.value, whole)
            if not exact and (_same(value, whole) or (found is None and math.isnan(whole) and math.isinf(value))):
                found = Part(start, size, value, logprob_range(torch.cat(logprobs_list[part])))
            if found is not None and valid and _same(found.value, whole):
                break
        if found is not None and valid:
            return found
    return None


def _same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def _find_operation(
    fn: Callable[..., Any], data: list[Datum], logprobs_list: list[torch.Tensor]
) -> FloatingPointError | None:
    code = code_of(fn)
    with _NonfiniteTracer("" if code is None else code.co_filename) as tracer:
        loss = fn(data, _leaves(logprobs_list))[0]
    return tracer.origin(loss)


class _NonfiniteTracer(TorchFunctionMode):
    """Records for every tensor that is not finite which operation caused it."""

    def __init__(self, filename: str) -> None:
        super().__init__()
        self._filename = filename
        # By id. The tensors are kept alive, because Python reuses the ids of deleted objects.
        self._origins: dict[int, tuple[torch.Tensor, FloatingPointError]] = {}

    def origin(self, tensor: Any) -> FloatingPointError | None:
        known = self._origins.get(id(tensor))
        return None if known is None else known[1]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        inputs = pytree.tree_leaves((args, kwargs or {}))
        finite = [x for x in inputs if isinstance(x, torch.Tensor) and not any(_has_nan_and_inf([x]))]
        nan_before, inf_before = _has_nan_and_inf(inputs)
        error = next((e for e in map(self.origin, inputs) if e is not None), None)
        result = func(*args, **(kwargs or {}))
        # An input can be a result too: x[0] = ... returns nothing and changes x.
        outputs = [*pytree.tree_leaves(result), *finite]
        nonfinite = [x for x in outputs if isinstance(x, torch.Tensor) and any(_has_nan_and_inf([x]))]
        nan, _ = _has_nan_and_inf(nonfinite)
        if nonfinite and error is None and not nan_before and (nan or not inf_before):
            error = self._error_here(func, "nan" if nan else "inf")
        if error is not None:
            self._origins |= {id(x): (x, error) for x in nonfinite}
        return result

    def _error_here(self, func: Any, kind: str) -> FloatingPointError | None:
        """Return an error whose traceback ends at the line of the loss's own file that is running now."""
        frame = sys._getframe()  # pyright: ignore[reportPrivateUsage]
        while frame is not None and frame.f_code.co_filename != self._filename:
            frame = frame.f_back
        if frame is None:
            return None
        name = getattr(func, "__name__", "an operation").strip("_")
        error = FloatingPointError(f"{name} makes the first {kind}")
        return error.with_traceback(TracebackType(None, frame, frame.f_lasti, frame.f_lineno))


def _has_nan_and_inf(values: Sequence[Any]) -> tuple[bool, bool]:
    """Return whether there is a nan, and whether there is an inf, among numbers and floating-point tensors."""
    nan = inf = False
    for value in values:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            nan, inf = nan or bool(value.isnan().any()), inf or bool(value.isinf().any())
        elif isinstance(value, float):
            nan, inf = nan or math.isnan(value), inf or math.isinf(value)
    return nan, inf
