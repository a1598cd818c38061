"""Locate a failure in a user-written function: the line, the datum that the function was processing, and its values.

The datum is the one that the loop around the failing line had reached. The loop is found in the source, and the datum
by identity among the loop's variables. From Python 3.12 on, a list, set or dict comprehension runs in the frame of its
function, which loses the comprehension's variables when it fails. Then the arguments of what it called are searched.
"""

from __future__ import annotations

import ast
import functools
import inspect
import linecache
import traceback
from collections.abc import Callable, Sequence
from types import CodeType, FrameType
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from ..types import Datum

__all__ = ["code_of", "failing_datum", "logprob_range", "own_line"]

# The name of the frame that has the variables, if the comprehension has a frame.
_COMPREHENSIONS = {
    ast.ListComp: "<listcomp>",
    ast.GeneratorExp: "<genexpr>",
    ast.SetComp: "<setcomp>",
    ast.DictComp: "<dictcomp>",
}


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
    calls: list[tuple[FrameType, int, FrameType | None]] = []  # frame, line, the frame that the line called
    while trace is not None:
        if code is not None and trace.tb_frame.f_code.co_filename == code.co_filename:
            calls.append((trace.tb_frame, trace.tb_lineno, trace.tb_next and trace.tb_next.tb_frame))
        trace = trace.tb_next
    for frame, line, called in reversed(calls):
        for target, iterable, scope in _loops_around(frame.f_code.co_filename, line):
            if scope in (None, frame.f_code.co_name):
                index = _index_of_variables(target, iterable, frame, data, logprobs_list)
            else:
                index = _index_of_arguments(called, scope, data, logprobs_list)
                if index is None and _is_over_datums(iterable, frame, data, logprobs_list):
                    return None  # a loop further out has reached another datum
            if index is not None:
                return index
    return None


def _is_over_datums(
    iterable: ast.expr, frame: FrameType, data: Sequence[Datum], logprobs_list: Sequence[torch.Tensor]
) -> bool:
    """Return True if an expression names the datums or their log-probabilities, or a list that has one of them."""
    known = {id(item) for given in (data, logprobs_list) for item in given}
    values = [frame.f_locals.get(node.id) for node in ast.walk(iterable) if isinstance(node, ast.Name)]
    return any(isinstance(value, (list, tuple)) and any(id(item) in known for item in value) for value in values)


def _loops_around(filename: str, line: int) -> list[tuple[ast.expr, ast.expr, str | None]]:
    """Return the loops around a line, innermost first: target, iterable, and the frame's name for a comprehension."""
    try:
        tree = ast.parse("".join(linecache.getlines(filename)))
    except (SyntaxError, ValueError):
        return []
    loops: list[tuple[int, ast.expr, ast.expr, str | None]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.For) and node.lineno <= line <= (node.end_lineno or 0):
            loops.append((node.lineno, node.target, node.iter, None))
        elif isinstance(node, tuple(_COMPREHENSIONS)) and node.lineno <= line <= (node.end_lineno or 0):
            scope = _COMPREHENSIONS[type(node)]
            loops += [(node.lineno, part.target, part.iter, scope) for part in node.generators]
    # The loop that starts last is the innermost one.
    return [loop[1:] for loop in sorted(loops, key=lambda loop: -loop[0])]


def _index_of_variables(
    target: ast.expr, iterable: ast.expr, frame: FrameType, data: Sequence[Datum], logprobs_list: Sequence[torch.Tensor]
) -> int | None:
    """Return the index that the first telling variable of a loop stands for."""
    called = iterable.func.id if isinstance(iterable, ast.Call) and isinstance(iterable.func, ast.Name) else ""
    for name in ast.walk(target):
        if isinstance(name, ast.Name):
            counts = called in ("range", "enumerate")
            index = _index_of(frame.f_locals.get(name.id), counts, data, logprobs_list)
            if index is not None:
                return index
    return None


def _index_of_arguments(
    called: FrameType | None, scope: str, data: Sequence[Datum], logprobs_list: Sequence[torch.Tensor]
) -> int | None:
    """Return the index of the only datum among the arguments of what a comprehension called.

    The comprehension's variables are not read from its function: a variable of the same name has another value there.
    """
    if called is None or called.f_code.co_name == scope:  # the comprehension's own frame, which was searched already
        return None
    code = called.f_code
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    found = {_index_of(called.f_locals.get(name), False, data, logprobs_list) for name in arguments} - {None}
    return found.pop() if len(found) == 1 else None


def _index_of(value: Any, counts: bool, data: Sequence[Datum], logprobs_list: Sequence[torch.Tensor]) -> int | None:
    """Return the index that a loop variable stands for: a datum, its log-probabilities, or a count of datums."""
    for given in (data, logprobs_list):
        for index, item in enumerate(given):
            if item is value:
                return index
    if counts and isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(data):
        return value
    return None
