"""Locate a failure in a user-written function: the line, the datum that the function was processing, and its values.

The datum is the one that the loop around the failing line had reached. The loop is found in the source, and the datum
by identity among the loop's variables.
"""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from ..types import Datum

__all__ = ["code_of", "failing_datum", "logprob_range", "own_line"]

_COMPREHENSIONS = (ast.ListComp, ast.GeneratorExp, ast.SetComp, ast.DictComp)


def code_of(fn: Callable[..., Any]) -> CodeType | None:
    """Return the code of a function, also of one inside partials and decorators; None if it is not in Python."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return getattr(inspect.unwrap(fn), "__code__", None)


def own_line(fn: Callable[..., Any], error: BaseException) -> traceback.FrameSummary | None:
    """Return the deepest line of the function's own file in the traceback of ``error``."""
    code = code_of(fn)
    own = [f for f in traceback.extract_tb(error.__traceback__) if code is not None and f.filename == code.co_filename]
    return own[-1] if own else None


def logprob_range(logprobs: torch.Tensor) -> str:
    """Describe the log-probabilities of a datum, ``(N,)``, by their lowest and their highest."""
    values = logprobs.detach()
    if not len(values):
        return "no log-probabilities"
    return f"log-probabilities {float(values.min()):.4g} to {float(values.max()):.4g} nats"


def failing_datum(
    fn: Callable[..., Any], error: BaseException, data: Sequence[Datum], logprobs_list: Sequence[torch.Tensor]
) -> int | None:
    """Return the index of the datum that the innermost loop around the failing line had reached; None if unknown."""
    code = code_of(fn)
    trace = error.__traceback__
    frames: list[tuple[FrameType, int]] = []
    while trace is not None:
        if code is not None and trace.tb_frame.f_code.co_filename == code.co_filename:
            frames.append((trace.tb_frame, trace.tb_lineno))
        trace = trace.tb_next
    for frame, line in reversed(frames):
        for name, counts in _loop_names(frame.f_code.co_filename, line):
            index = _index_of(frame.f_locals.get(name), counts, data, logprobs_list)
            if index is not None:
                return index
    return None


def _loop_names(filename: str, line: int) -> Iterator[tuple[str, bool]]:
    """Yield the variables of the loops around a line, innermost loop first; True for one that may count datums."""
    try:
        tree = ast.parse("".join(linecache.getlines(filename)))
    except (SyntaxError, ValueError):
        return
    loops: list[tuple[int, ast.expr, ast.expr]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.For) and node.lineno <= line <= (node.end_lineno or 0):
            loops.append((node.lineno, node.target, node.iter))
        elif isinstance(node, _COMPREHENSIONS) and node.lineno <= line <= (node.end_lineno or 0):
            loops += [(node.lineno, part.target, part.iter) for part in node.generators]
    # The loop that starts last is the innermost one.
    for _, target, iterable in sorted(loops, key=lambda loop: -loop[0]):
        called = iterable.func.id if isinstance(iterable, ast.Call) and isinstance(iterable.func, ast.Name) else ""
        for name in ast.walk(target):
            if isinstance(name, ast.Name):
                yield name.id, called in ("range", "enumerate")


def _index_of(value: Any, counts: bool, data: Sequence[Datum], logprobs_list: Sequence[torch.Tensor]) -> int | None:
    """Return the index that a loop variable stands for: a datum, its log-probabilities, or a count of datums."""
    for given in (data, logprobs_list):
        for index, item in enumerate(given):
            if item is value:
                return index
    if counts and isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(data):
        return value
    return None
