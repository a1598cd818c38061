"""Tell which run folders a process is writing, by a lock that ends with the process.

A run locks the file ``run.lock`` in its folder (with ``filelock``: on Linux, macOS and Windows) from its first write
until it is stopped or finished; then it deletes the file. If the process dies, or the run is garbage-collected, the
lock ends too. The empty file can then stay behind: only the lock on it counts, not the file.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Generator
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from ..errors import RunError

__all__ = ["LOCK_FILE", "FolderLock", "exclude_runs", "is_locked"]

LOCK_FILE = "run.lock"
# A listing or a deletion holds the lock for a moment only.
ACQUIRE_SECONDS, EXCLUDE_SECONDS, POLL_SECONDS = 2.0, 0.2, 0.01


class FolderLock:
    """Marks ``folder`` as written by this process, from :meth:`acquire` until :meth:`release` or garbage collection."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock: BaseFileLock | None = None
        self.acquire()

    def acquire(self) -> None:
        """Lock the folder, unless this object has tried it already; again if the lock file was deleted meanwhile."""
        if self._lock is not None and self._lock.is_locked and not (self._folder / LOCK_FILE).exists():
            _release(self._lock, delete=False)
            self._lock = None
        if self._lock is not None or not self._folder.is_dir():
            return
        self._lock = _file_lock(self._folder)
        # Whatever goes wrong, a run must not fail because its disk has no locks.
        with contextlib.suppress(Exception):
            self._lock.acquire(timeout=ACQUIRE_SECONDS, poll_interval=POLL_SECONDS)

    def release(self) -> None:
        """Unlock the folder and delete the lock file."""
        if self._lock is not None:
            _release(self._lock, delete=True)
            self._lock = None


def is_locked(folder: Path) -> bool | None:
    """Return whether some process writes ``folder``; None if its disk has no locks."""
    lock = _file_lock(folder)
    try:
        if not (folder / LOCK_FILE).exists():  # to look at a folder must not create a file in it
            return False
        lock.acquire(timeout=0)
    except Timeout:
        return True
    except (OSError, NotImplementedError) as error:
        read_only = isinstance(error, OSError) and error.errno == errno.EROFS
        return False if read_only else None
    _release(lock, delete=False)
    return False


@contextlib.contextmanager
def exclude_runs(folder: Path) -> Generator[bool]:
    """Prevent runs from writing ``folder`` during the block. Yields False if its disk has no locks.

    Raises:
        RunError: If a run writes it.
    """
    lock = _file_lock(folder)
    try:
        lock.acquire(timeout=EXCLUDE_SECONDS, poll_interval=POLL_SECONDS)
    except Timeout:
        raise RunError(f"{folder} is being written by a run; stop that run first") from None
    except (OSError, NotImplementedError):
        yield False
        return
    try:
        yield True
    finally:
        _release(lock, delete=True)


def _file_lock(folder: Path) -> BaseFileLock:
    # thread_local=False: the worker thread acquires the lock of a run, and the thread that stops the run releases it.
    return FileLock(folder / LOCK_FILE, thread_local=False)


def _release(lock: BaseFileLock, *, delete: bool) -> None:
    # The file is deleted while it is locked, so that nobody's lock is on a file that is deleted afterwards. Windows
    # refuses to delete a file that is open; there, filelock deletes it when it releases the lock.
    with contextlib.suppress(OSError):
        if delete:
            Path(lock.lock_file).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        lock.release()
