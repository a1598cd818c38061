"""Who writes a run's folder: a lock on the folder itself, which ends with the process that took it.

Nothing is left on the disk. Where the system has no such locks (Windows, some network drives), nobody can tell.
"""

from __future__ import annotations

import contextlib
import os
import weakref
from collections.abc import Generator
from pathlib import Path

from ..errors import RunError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

__all__ = ["Hold", "is_held", "while_free"]


class Hold:
    """Says that this process writes ``folder``, from :meth:`take` to :meth:`release` or until it is forgotten."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._end: weakref.finalize[[int], Hold] | None = None
        self.take()

    def take(self) -> None:
        """Hold on, which changes nothing where it is held already."""
        if fcntl is None or self._end is not None:
            return
        with contextlib.suppress(OSError):  # a run must not fail because its disk knows no locks
            handle = os.open(self._folder, os.O_RDONLY)
            self._end = weakref.finalize(self, os.close, handle)
            fcntl.flock(handle, fcntl.LOCK_SH)

    def release(self) -> None:
        """Let go."""
        if self._end is not None:
            self._end()
            self._end = None


def is_held(folder: Path) -> bool | None:
    """Whether some process writes ``folder``; None where nobody can tell."""
    try:
        with while_free(folder) as known:
            return False if known else None
    except RunError:
        return True


@contextlib.contextmanager
def while_free(folder: Path) -> Generator[bool]:
    """Keep runs out of ``folder`` for the block's length; gives False where that cannot be told.

    Raises:
        RunError: somebody writes it.
    """
    if fcntl is None:
        yield False
        return
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        yield False
        return
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            known = True
        except BlockingIOError:
            raise RunError(f"{folder} is being written by a run; stop it first") from None
        except OSError:
            known = False
        yield known
    finally:
        os.close(handle)
