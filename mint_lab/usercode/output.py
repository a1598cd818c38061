"""Capture what a user-written function prints: separate from all other output, counted, and limited in length.

``sys.stdout`` belongs to the whole process, and a loss runs at the same time as the person's other cells. So the stream
is not redirected. While a loss is called, a proxy stands in front of the stream. The proxy knows from a context
variable which text comes from the loss, and passes all other text through unchanged.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Generator
from contextvars import Context, ContextVar
from typing import Any

__all__ = ["CHARACTERS_PER_LINE", "Printed", "capture_output"]

CHARACTERS_PER_LINE = 500  # limits text without line ends: a call may print this times its limit of lines


class Printed:
    """What one call printed.

    Args:
        limit: Number of lines that are kept; further lines are counted and dropped.
        echo: Whether kept text also goes to the stream.

    Attributes:
        lines: Number of lines printed.
        kept: Text of the first ``limit`` lines.
    """

    def __init__(self, limit: int, *, echo: bool) -> None:
        self.limit = limit
        self.echo = echo
        self.lines = 0
        self.kept = ""
        self._characters_left = limit * CHARACTERS_PER_LINE

    def __bool__(self) -> bool:
        return self.lines > 0 or bool(self.kept)

    def add(self, text: str, stream: Any) -> None:
        """Count ``text``; keep and echo the part within the limits."""
        before = self.lines
        self.lines += text.count("\n")
        if before >= self.limit or self._characters_left <= 0:
            return
        if self.lines > self.limit:
            text = "".join(text.splitlines(keepends=True)[: self.limit - before])
        text = text[: self._characters_left]
        self._characters_left -= len(text)
        self.kept += text
        if self.echo:
            stream.write(text)

    @property
    def truncated(self) -> bool:
        """Whether some text was dropped."""
        return self.lines > self.limit or self._characters_left <= 0


_printed: ContextVar[Printed | None] = ContextVar("mint_lab_printed", default=None)
_lock = threading.Lock()
_captures = 0  # calls that are being captured; the proxies stay while there is one


class _StreamProxy:
    """Stands in front of a stream; text of a captured call goes to its :class:`Printed`."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        printed = _printed.get()
        if printed is None:
            return self.stream.write(text)
        printed.add(text, self.stream)
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextlib.contextmanager
def capture_output(context: Context, printed: Printed) -> Generator[None, None, None]:
    """Send what code in ``context`` prints, on stdout and stderr, to ``printed``."""
    context.run(_printed.set, printed)
    _install_proxies()
    try:
        yield
    finally:
        _remove_proxies()


def _install_proxies() -> None:
    global _captures  # noqa: PLW0603
    with _lock:
        _captures += 1
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and not isinstance(stream, _StreamProxy):
                setattr(sys, name, _StreamProxy(stream))


def _remove_proxies() -> None:
    global _captures  # noqa: PLW0603
    with _lock:
        _captures -= 1
        if _captures > 0:
            return
        for name in ("stdout", "stderr"):
            # Other code may have replaced the stream in the meantime; that code then also removes its own.
            stream = getattr(sys, name)
            if isinstance(stream, _StreamProxy):
                setattr(sys, name, stream.stream)
