"""Describe why a step failed, in terms of the function that a person wrote and its lines.

An error inside a loss reaches the trainer wrapped in several others. Helpful is the line of the cell that raised: this
module finds it along the chain of causes, by the file name that the loss was compiled under.
"""

from __future__ import annotations

import linecache
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import CodeType
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

from ..data.rewards import Reward
from ..errors import LossError, MintLabError, RewardError
from ..losses import LossSpec
from ..usercode.locate import code_of

__all__ = ["Awaited", "Kind", "RunFailure", "awaited", "describe"]

Kind: TypeAlias = Literal["loss", "reward"]

CONTEXT_LINES = 2  # displayed before and after the failing line


@dataclass(frozen=True)
class RunFailure:
    """Why a step failed.

    Attributes:
        message: What failed, where, and what to do.
        line: Line of the loss's source (``run.loss.source``: the cell, if it was written in one), from 1; None if
            unknown.
        index: Index of the datum; None if unknown.
        traceback: Excerpt of the loss's source with the failing line marked; the whole traceback if the error was not
            raised in that source.
        loss: Name of the loss that resumes the run when it is registered again; None if the loss is not the cause, or
            if a person paused or stopped the run.
        reward: Likewise the reward that failed.
    """

    message: str
    line: int | None = None
    index: int | None = None
    traceback: str = ""
    loss: str | None = None
    reward: Reward | None = None

    def __str__(self) -> str:
        return self.message


class Awaited(NamedTuple):
    """A function whose failure paused the run; registering it again resumes the run.

    Attributes:
        steps_left: Steps to complete before the run pauses; None for no limit.
    """

    kind: Kind
    name: str
    steps_left: int | None


class UserFunction(Protocol):
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
    """Describe ``error``, which was raised while ``spec`` was used, or by the reward that it names."""
    chain = list(_causes(error))
    reward = next((e.reward for e in chain if isinstance(e, RewardError)), None)
    if reward is None:
        return _describe(error, chain, spec)
    return replace(_describe(error, chain, reward), loss=None, reward=reward)


def _describe(error: BaseException, chain: list[BaseException], spec: UserFunction | None) -> RunFailure:
    index = next((i for e in chain if isinstance(i := getattr(e, "index", None), int)), None)
    own_frame = _own_frame(chain, spec) if spec is not None else None
    if own_frame is None or spec is None:
        line = next((n for e in chain if isinstance(n := getattr(e, "line", None), int)), None)
        text = "".join(traceback.format_exception(error))
        is_loss_error = any(isinstance(e, LossError) for e in chain)
        cause = spec if is_loss_error else None
        return RunFailure(
            _message(error, cause.label if cause else None), line, index, text, cause.name if cause else None
        )
    line, excerpt, raised = own_frame
    label = f"{spec.label}, line {line}"
    return RunFailure(_message(error, label), line, index, f"{label}:\n{excerpt}\n{_one_line(raised)}", spec.name)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error`` and the errors that caused it, outermost first."""
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def awaited(failure: RunFailure, steps_left: int | None) -> Awaited | None:
    """Return what would resume a run that failed; None if registering something again does not help."""
    if failure.loss is not None:
        return Awaited("loss", failure.loss, steps_left)
    return None if failure.reward is None else Awaited("reward", failure.reward.name, steps_left)


def _message(error: BaseException, place: str | None) -> str:
    text = str(error) if isinstance(error, MintLabError) else _one_line(error)
    if place is not None and isinstance(error, RewardError):
        text = text.removeprefix(f"{error.reward.label}: ")
    return text if place is None or place in text else f"{place}: {text}"


def _one_line(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip()


def _own_frame(chain: list[BaseException], spec: UserFunction) -> tuple[int, str, BaseException] | None:
    """Return the deepest line in the function's source, the source around it, and the error that was raised there."""
    code = code_of(spec.fn)
    if code is None:
        return None
    for error in reversed(chain):  # the innermost cause first
        frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename == code.co_filename]
        for frame in reversed(frames):
            place = _line_in_source(frame.lineno or 0, code, spec.source)
            if place is not None:
                line, lines = place
                return line, _excerpt(lines, line), error
    return None


def _line_in_source(file_line: int, code: CodeType, source: str) -> tuple[int, list[str]] | None:
    """Translate a line of the file into a line of ``source``, and return its lines; None if it lies outside."""
    lines = source.splitlines()
    file_lines = "".join(linecache.getlines(code.co_filename)).splitlines()
    line = file_line if lines and lines == file_lines else file_line - code.co_firstlineno + 1
    return (line, lines) if 1 <= line <= len(lines) else None


def _excerpt(lines: list[str], line: int) -> str:
    first, last = max(1, line - CONTEXT_LINES), min(len(lines), line + CONTEXT_LINES)
    return "\n".join(f"{'-->' if n == line else '   '} {n:>3} {lines[n - 1]}" for n in range(first, last + 1))
