"""Threads of this package: how they end when the interpreter exits, and what is refused in a forked process.

A thread that is inside torch or another C++ or Rust library while the interpreter shuts down aborts the process
("terminate called without an active exception"). So every thread is a :class:`PackageThread`, and one function ends all
of them at exit, in this order:

1. The callbacks of :func:`before_exit` request the end: runs stop after their step, pages close.
2. Threads that serve others (the worker of a model) finish what they have to, and drop the rest of their queue.
3. In a thread that still runs after ``GRACE_SECONDS``, :class:`ProcessExit` is raised, which reaches it at its next
   line of Python. Only code in C that does not return can outlast this.

A forked process has the objects of its parent, but none of its threads, and locks that nobody will release: calls would
wait forever. :class:`OwnedLock`, :class:`OwnedCondition` and :func:`check_process` raise an error there instead.
"""

from __future__ import annotations

import atexit
import contextlib
import contextvars
import ctypes
import functools
import logging
import os
import queue
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path

from .errors import RunError

__all__ = [
    "OwnedCondition",
    "OwnedLock",
    "PackageThread",
    "ProcessExit",
    "before_exit",
    "check_process",
    "close_later",
    "is_importing",
    "process_lock",
    "raise_in",
    "start_closer",
]

GRACE_SECONDS = 2.0  # for threads to end by themselves
POLL_SECONDS = 0.02  # between two interrupts of a thread
IDLE_SECONDS = 3.0  # a thread that used no processor time for so long is not going to end
LIMIT_SECONDS = 60.0  # for a thread that computes

_log = logging.getLogger(__name__)
_callbacks: list[Callable[[], None]] = []
_threads: weakref.WeakSet[PackageThread] = weakref.WeakSet()
_closing: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()  # its put() may be called anywhere


class ProcessExit(SystemExit):
    """Raised in a thread that still works when the interpreter exits. ``threading`` prints no traceback of it."""


class PackageThread(threading.Thread):
    """A daemon thread that ends when the interpreter exits.

    Args:
        target: What the thread does, in a copy of the caller's context: context variables that a notebook cell has set
            are visible there. None if a subclass has its own ``run``.
        name: Name of the thread.
        end: For a thread that serves others: requests its end, and may wait for what must not be lost.
    """

    def __init__(
        self, target: Callable[[], object] | None, name: str, *, end: Callable[[], object] | None = None
    ) -> None:
        run = None if target is None else functools.partial(contextvars.copy_context().run, target)
        super().__init__(target=run, name=name, daemon=True)
        self.end = end

    def start(self) -> None:
        """Start the thread. Raises ``RuntimeError`` if the system allows no further thread."""
        super().start()
        _threads.add(self)

    def run(self) -> None:
        """Do what the thread is for."""
        with contextlib.suppress(ProcessExit):
            super().run()


def before_exit(callback: Callable[[], None]) -> Callable[[], None]:
    """Call ``callback()`` when the interpreter exits, before any thread is interrupted; usable as a decorator."""
    _callbacks.append(callback)
    return callback


def close_later(close: Callable[[], object]) -> None:
    """Call ``close()`` on another thread: for ``__del__``, which must neither wait for a lock nor raise."""
    _closing.put(close)


class _Closer(PackageThread):
    """Calls what :func:`close_later` was given."""

    def __init__(self) -> None:
        super().__init__(None, "mint_lab close", end=functools.partial(_closing.put, None))

    def run(self) -> None:
        while (close := _closing.get()) is not None:
            _attempt(close)
            del close


def start_closer() -> None:
    """Start the thread of :func:`close_later`, unless it runs: before an object exists that needs it."""
    with _starting:
        if not any(isinstance(thread, _Closer) for thread in _alive()):
            _Closer().start()


def raise_in(thread: threading.Thread, exception: type[BaseException]) -> None:
    """Raise an exception in another thread at its next line of Python."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), ctypes.py_object(exception))


def is_importing(thread: threading.Thread) -> bool:
    """Return whether a thread is importing a module: many modules cannot be imported again if that is interrupted."""
    frame = sys._current_frames().get(thread.ident or 0)  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            return True
        frame = frame.f_back
    return False


@atexit.register
def _end_all() -> None:
    with contextlib.suppress(KeyboardInterrupt):  # Ctrl+C ends the patience, and not the order
        for callback in reversed(_callbacks):
            _attempt(callback)
        _join(thread for thread in _alive() if thread.end is None)
        for thread in _alive():
            if thread.end is not None:
                _attempt(thread.end)
        _join(thread for thread in _alive() if thread.end is not None)
    with contextlib.suppress(KeyboardInterrupt):
        _interrupt(lambda: [thread for thread in _alive() if thread.end is not None])
        _join(_alive())  # what waited for them
        _interrupt(_alive)


def _attempt(callback: Callable[[], object]) -> None:
    try:
        callback()
    except Exception:
        _log.debug("a callback at exit failed", exc_info=True)


def _alive() -> list[PackageThread]:
    return [thread for thread in _threads if thread.is_alive()]


def _join(threads: Iterable[PackageThread]) -> None:
    end = time.monotonic() + GRACE_SECONDS
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))


def _interrupt(remaining: Callable[[], list[PackageThread]]) -> None:
    """Raise :class:`ProcessExit` in threads again and again, until they have ended or do nothing any more."""
    used, start = 0.0, time.monotonic()
    last_progress = start
    while threads := remaining():
        for thread in threads:
            raise_in(thread, ProcessExit)
        threads[0].join(POLL_SECONDS)
        now, seconds = time.monotonic(), sum(map(_processor_seconds, threads))
        if seconds != used:
            used, last_progress = seconds, now
        if now - last_progress > IDLE_SECONDS or now - start > LIMIT_SECONDS:
            return


def _processor_seconds(thread: PackageThread) -> float:
    """Return the processor time that a thread has used; 0 where the system does not say."""
    try:
        return int(Path(f"/proc/self/task/{thread.native_id}/schedstat").read_text(encoding="ascii").split()[0]) / 1e9
    except (OSError, ValueError, IndexError):
        return 0.0


def check_process(owner: int, what: str) -> None:
    """Refuse to use an object of another process.

    Args:
        owner: The process that created it.
        what: What it is, for the message.

    Raises:
        RunError: In a process that was forked after it was created.
    """
    if os.getpid() != owner:
        raise RunError(
            f"{what} belongs to process {owner}, and this is process {os.getpid()}, which was forked from it: the "
            "threads that do the work exist only there. Use it in that process, or start this one with "
            "multiprocessing.get_context('spawn') and create what it needs here"
        )


def process_lock() -> threading.Lock:
    """Return a lock of the whole process; it is open in a forked process, where nobody else could open it.

    It is a plain lock: a thread that is cancelled at ``with lock`` either has it and releases it, or does not have it.
    """
    lock = threading.Lock()
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lock._at_fork_reinit)  # type: ignore[attr-defined]
    return lock


class OwnedLock:
    """A reentrant lock that raises :class:`~mint_lab.errors.RunError` in a forked process, where it might never open.

    Args:
        what: What the lock protects, for the message.
    """

    def __init__(self, what: str) -> None:
        self._lock, self._owner, self._what = threading.RLock(), os.getpid(), what

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As ``threading.RLock.acquire``."""
        check_process(self._owner, self._what)
        return self._lock.acquire(blocking, timeout)

    def release(self) -> None:
        """As ``threading.RLock.release``."""
        self._lock.release()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class OwnedCondition(threading.Condition):
    """A condition whose lock raises :class:`~mint_lab.errors.RunError` in a forked process.

    Args:
        what: What the condition protects, for the message.
    """

    def __init__(self, what: str) -> None:
        super().__init__()
        self._owner, self._what = os.getpid(), what

    def __enter__(self) -> bool:
        self.check()
        return super().__enter__()

    def check(self) -> None:
        """Raise the error without waiting for the lock."""
        check_process(self._owner, self._what)


_starting = process_lock()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_threads.clear)
