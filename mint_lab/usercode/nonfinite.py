"""Why the value of a loss is not finite: which part of the batch, and which line of the function.

The part is the first datum, or pair, whose own loss is not finite in a way that explains the whole. The line is found
by calling the function once more while every operation's result is looked at.
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
from .locate import code_of, span
from .output import Printed

if TYPE_CHECKING:
    from ..types import Datum

__all__ = ["Part", "first_operation", "first_part"]

PARTS = 256  # of a batch that are tried at most
SEARCH = 1.0  # seconds to look for the part at fault, and for the operation


@dataclass(frozen=True)
class Part:
    """A datum, or a pair, whose own loss is not finite.

    Attributes:
        index: of its (first) datum; ``size`` is 1 or 2.
        value: its loss.
        logprobs: lowest and highest, in words.
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


def first_part(
    fn: Callable[..., Any], data: Sequence[Datum], logprobs_list: Sequence[torch.Tensor], whole: float
) -> Part | None:
    """The first part of the batch whose own loss explains that of the ``whole``.

    None where there is none, or where the search takes too long.

    Args:
        fn: ``(data, logprobs_list) -> (loss, metrics)``; what it raises on a part says that this is no part.
        whole: inf is explained by the same inf, nan by nan or else by inf (inf - inf, 0 * inf).
    """
    return _quietly(_search, fn, list(data), list(logprobs_list), whole)


def first_operation(
    fn: Callable[..., Any], data: Sequence[Datum], logprobs_list: Sequence[torch.Tensor]
) -> FloatingPointError | None:
    """The operation that made the loss not finite, as an error raised at its line of the function's own file.

    That is the first one on the way to the loss with a result that is not finite from numbers that are. None where no
    operation of torch is at fault, or where the value is finite this time.
    """
    return _quietly(_watch, fn, list(data), list(logprobs_list))


def _quietly(search: Callable[..., Any], *args: Any) -> Any:
    try:
        return call_guarded(search, args, give_up=lambda s: s > SEARCH, printed=Printed(0, echo=False))
    except Exception:
        return None


def _leaves(logprobs_list: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [lp.detach().clone().requires_grad_(True) for lp in logprobs_list]


def _search(fn: Callable[..., Any], data: list[Datum], logprobs_list: list[torch.Tensor], whole: float) -> Part | None:
    for size in (1, 2):
        found: Part | None = None
        sound = size == 2 or len(data) == 1  # a mean over pairs is nan for every single datum: the mean of nothing
        for start in range(0, min(len(data), size * PARTS), size):
            part = slice(start, start + size)
            try:
                value = float(fn(data[part], _leaves(logprobs_list[part]))[0].detach())
            except Exception:
                break
            sound = sound or not math.isnan(value)
            exact = found is not None and _same(found.value, whole)
            if not exact and (_same(value, whole) or (found is None and math.isnan(whole) and math.isinf(value))):
                found = Part(start, size, value, span(torch.cat(logprobs_list[part])))
            if found is not None and sound and _same(found.value, whole):
                break
        if found is not None and sound:
            return found
    return None


def _same(a: float, b: float) -> bool:
    return a == b or (math.isnan(a) and math.isnan(b))


def _watch(fn: Callable[..., Any], data: list[Datum], logprobs_list: list[torch.Tensor]) -> FloatingPointError | None:
    code = code_of(fn)
    with _Watching("" if code is None else code.co_filename) as watching:
        loss = fn(data, _leaves(logprobs_list))[0]
    return watching.origin(loss)


class _Watching(TorchFunctionMode):
    """Remembers of every tensor that is not finite which operation began it."""

    def __init__(self, filename: str) -> None:
        super().__init__()
        self._filename = filename
        self._known: dict[int, tuple[torch.Tensor, FloatingPointError]] = {}  # holds on to them: ids are used again

    def origin(self, tensor: Any) -> FloatingPointError | None:
        known = self._known.get(id(tensor))
        return None if known is None else known[1]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = pytree.tree_leaves((args, kwargs or {}))
        sound = [x for x in given if isinstance(x, torch.Tensor) and not any(_odd([x]))]
        nan_before, inf_before = _odd(given)
        error = next((e for e in map(self.origin, given) if e is not None), None)
        result = func(*args, **(kwargs or {}))
        # What it was given is among the results too: x[0] = ... returns nothing.
        made = [x for x in [*pytree.tree_leaves(result), *sound] if isinstance(x, torch.Tensor) and any(_odd([x]))]
        nan = _odd(made)[0]
        if made and error is None and not nan_before and (nan or not inf_before):
            error = self._here(func, "nan" if nan else "inf")
        if error is not None:
            self._known |= {id(x): (x, error) for x in made}
        return result

    def _here(self, func: Any, made: str) -> FloatingPointError | None:
        frame = sys._getframe()  # pyright: ignore[reportPrivateUsage]
        while frame is not None and frame.f_code.co_filename != self._filename:
            frame = frame.f_back
        if frame is None:
            return None
        name = getattr(func, "__name__", "an operation").strip("_")
        error = FloatingPointError(f"{name} makes the first {made}")
        return error.with_traceback(TracebackType(None, frame, frame.f_lasti, frame.f_lineno))


def _odd(values: Sequence[Any]) -> tuple[bool, bool]:
    """Whether there is a nan, and an inf, among numbers and floating-point tensors."""
    nan = inf = False
    for value in values:
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            nan, inf = nan or bool(value.isnan().any()), inf or bool(value.isinf().any())
        elif isinstance(value, float):
            nan, inf = nan or math.isnan(value), inf or math.isinf(value)
    return nan, inf
