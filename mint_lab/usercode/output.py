"""What a loss prints: kept apart from what anybody else prints, counted, and cut off where it would flood a notebook.

``sys.stdout`` belongs to the whole process, and a loss runs beside the person's other cells. So nothing is redirected:
while a loss is called a doorman stands in front of the stream, who knows by a context variable whose words these are
and lets everybody else's through untouched.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Generator
from contextvars import Context, ContextVar
from typing import Any

__all__ = ["Printed", "watching"]

CHARACTERS_A_LINE = 500  # a flood may also come without line ends


class Printed:
    """What one call printed.

    Args:
        limit: lines that are let through; the rest is counted and dropped.
        echo: pass them on to the stream (else only keep them).

    Attributes:
        lines: how many were printed.
        kept: the text of the first ``limit`` lines.
    """

    def __init__(self, limit: int, *, echo: bool) -> None:
        self.limit = limit
        self.echo = echo
        self.lines = 0
        self.kept = ""
        self._left = limit * CHARACTERS_A_LINE

    def __bool__(self) -> bool:
        return self.lines > 0 or bool(self.kept)

    def take(self, text: str, stream: Any) -> None:
        """Count ``text``; keep and pass on what is within the limits."""
        before = self.lines
        self.lines += text.count("\n")
        if before >= self.limit or self._left <= 0:
            return
        if self.lines > self.limit:
            text = "".join(text.splitlines(keepends=True)[: self.limit - before])
        text = text[: self._left]
        self._left -= len(text)
        self.kept += text
        if self.echo:
            stream.write(text)

    @property
    def dropped(self) -> bool:
        """Whether there was more than was let through."""
        return self.lines > self.limit or self._left <= 0


_printed: ContextVar[Printed | None] = ContextVar("mint_lab_printed", default=None)
_lock = threading.Lock()
_standing = 0


class _Doorman:
    """Stands in front of a stream."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        printed = _printed.get()
        if printed is None:
            return self.stream.write(text)
        printed.take(text, self.stream)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def watching(context: Context, printed: Printed) -> Generator[None, None, None]:
    """Meanwhile, whatever ``context`` prints goes to ``printed``, on stdout and stderr."""
    context.run(_printed.set, printed)
    _post()
    try:
        yield
    finally:
        _leave()


def _post() -> None:
    global _standing  # noqa: PLW0603
    with _lock:
        _standing += 1
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and not isinstance(stream, _Doorman):
                setattr(sys, name, _Doorman(stream))


def _leave() -> None:
    global _standing  # noqa: PLW0603
    with _lock:
        _standing -= 1
        if _standing > 0:
            return
        for name in ("stdout", "stderr"):
            # Somebody else may have put a stream of their own here meanwhile; then it is theirs to take away.
            stream = getattr(sys, name)
            if isinstance(stream, _Doorman):
                setattr(sys, name, stream.stream)
