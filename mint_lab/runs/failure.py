"""Why a step failed, in the words and lines of the person who wrote the loss.

A failure inside a loss comes back through the trainer wrapped in several layers. What helps is the one line of the cell
that raised: this module finds it along the chain of causes, by the file name the loss's code was compiled under.
"""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import CodeType
from typing import Any, Protocol

from ..data.rewards import Reward
from ..errors import LossError, MintLabError, RewardError
from ..losses import LossSpec
from ..usercode.locate import code_of

__all__ = ["RunFailure", "describe"]

CONTEXT_LINES = 2


@dataclass(frozen=True)
class RunFailure:
    """What a run shows when a step failed.

    Attributes:
        message: one sentence or a few: what, where, and what to do.
        line: line of the loss's own source (``run.loss.source``; of the cell, for a cell), 1-based, where known.
        index: datum index, where known.
        traceback: text, trimmed to the loss's own lines with the failing one marked; the whole traceback when the
            failure lies elsewhere.
        loss: name of the loss whose registration anew lets the run go on; None where the failure is not its own, or
            the run was paused or stopped on purpose.
        reward: likewise the reward that failed.
    """

    message: str
    line: int | None = None
    index: int | None = None
    traceback: str = ""
    loss: str | None = None
    reward: Reward | None = None

    def __str__(self) -> str:
        return self.message


class Written(Protocol):
    """A function that a person wrote: a loss or a reward."""

    @property
    def name(self) -> str: ...
    @property
    def fn(self) -> Callable[..., Any]: ...
    @property
    def source(self) -> str: ...
    @property
    def label(self) -> str: ...


def describe(error: BaseException, spec: LossSpec | None = None) -> RunFailure:
    """The failure behind ``error``, seen from the loss ``spec``, or from the reward that raised it."""
    chain = list(_causes(error))
    reward = next((e.reward for e in chain if isinstance(e, RewardError)), None)
    if reward is None:
        return _described(error, chain, spec)
    return replace(_described(error, chain, reward), loss=None, reward=reward)


def _described(error: BaseException, chain: list[BaseException], spec: Written | None) -> RunFailure:
    index = next((i for e in chain if isinstance(i := getattr(e, "index", None), int)), None)
    found = _own_frame(chain, spec) if spec is not None else None
    if found is None or spec is None:
        line = next((n for e in chain if isinstance(n := getattr(e, "line", None), int)), None)
        text = "".join(traceback.format_exception(error))
        blamed = spec.name if spec is not None and any(isinstance(e, LossError) for e in chain) else None
        return RunFailure(_message(error, spec.label if spec and blamed else None), line, index, text, blamed)
    line, text, raised = found
    label = f"{spec.label}, line {line}"
    return RunFailure(_message(error, label), line, index, f"{label}:\n{text}\n{_one_line(raised)}", spec.name)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """``error`` and what led to it, outermost first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _message(error: BaseException, place: str | None) -> str:
    text = str(error) if isinstance(error, MintLabError) else _one_line(error)
    if place is not None and isinstance(error, RewardError):
        text = text.removeprefix(f"{error.reward.label}: ")
    return text if place is None or place in text else f"{place}: {text}"


def _one_line(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip()


def _own_frame(chain: list[BaseException], spec: Written) -> tuple[int, str, BaseException] | None:
    """The deepest frame in the loss's own source: (line there, source around it, the error raised)."""
    code = code_of(spec.fn)
    if code is None:
        return None
    for error in reversed(chain):  # the innermost cause is where it began
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == code.co_filename]
        for frame in reversed(frames):
            place = _place(frame.lineno or 0, code, spec.source)
            if place is not None:
                line, source = place
                return line, _excerpt(source, line), error
    return None


def _place(lineno: int, code: CodeType, source: str) -> tuple[int, list[str]] | None:
    """``lineno`` of the file, as a line of ``source``; None when it lies outside of it."""
    lines = source.splitlines()
    whole_file = "".join(linecache.getlines(code.co_filename)).splitlines()
    line = lineno if lines and lines == whole_file else lineno - code.co_firstlineno + 1
    return (line, lines) if 1 <= line <= len(lines) else None


def _excerpt(lines: list[str], line: int) -> str:
    first, last = max(1, line - CONTEXT_LINES), min(len(lines), line + CONTEXT_LINES)
    return "\n".join(f"{'-->' if n == line else '   '} {n:>3} {lines[n - 1]}" for n in range(first, last + 1))
