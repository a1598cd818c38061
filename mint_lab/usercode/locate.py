"""Which datum led a loss to raise, and with which values.

It is the datum that the loop around the failing line had in hand: the loop is found in the source, the datum by
identity among the loop's variables.
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

__all__ = ["code_of", "datum_in_hand", "own_line", "span"]

_COMPREHENSIONS = (ast.ListComp, ast.GeneratorExp, ast.SetComp, ast.DictComp)


def code_of(fn: Callable[..., Any]) -> CodeType | None:
    """The code of a function, looked for under partials and decorators."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return getattr(inspect.unwrap(fn), "__code__", None)


def own_line(fn: Callable[..., Any], error: BaseException) -> traceback.FrameSummary | None:
    """The deepest line of the function's own file that led to ``error``."""
    code = code_of(fn)
    own = [f for f in traceback.extract_tb(error.__traceback__) if code is not None and f.filename == code.co_filename]
    return own[-1] if own else None


def span(logprobs: torch.Tensor) -> str:
    """The log-probabilities of a datum in a few words."""
    values = logprobs.detach()
    if not len(values):
        return "no log-probabilities"
    return f"log-probabilities {float(values.min()):.4g} to {float(values.max()):.4g} nats"


def datum_in_hand(
    fn: Callable[..., Any], error: BaseException, data: Sequence[Datum], logprobs_list: Sequence[torch.Tensor]
) -> int | None:
    """Index of the datum that the innermost loop around the failing line was at; None where no loop tells."""
    code = code_of(fn)
    found = error.__traceback__
    frames: list[tuple[FrameType, int]] = []
    while found is not None:
        if code is not None and found.tb_frame.f_code.co_filename == code.co_filename:
            frames.append((found.tb_frame, found.tb_lineno))
        found = found.tb_next
    for frame, line in reversed(frames):
        for name, counts in _loop_names(frame.f_code.co_filename, line):
            index = _index_of(frame.f_locals.get(name), counts, data, logprobs_list)
            if index is not None:
                return index
    return None


def _loop_names(filename: str, line: int) -> Iterator[tuple[str, bool]]:
    """Variables of the loops around a line, innermost first; True for one that may count datums."""
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
    for _, target, over in sorted(loops, key=lambda loop: -loop[0]):
        called = over.func.id if isinstance(over, ast.Call) and isinstance(over.func, ast.Name) else ""
        for name in ast.walk(target):
            if isinstance(name, ast.Name):
                yield name.id, called in ("range", "enumerate")


def _index_of(value: Any, counts: bool, data: Sequence[Datum], logprobs_list: Sequence[torch.Tensor]) -> int | None:
    for given in (data, logprobs_list):
        for index, item in enumerate(given):
            if item is value:
                return index
    if counts and isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(data):
        return value
    return None
