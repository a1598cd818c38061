"""How a test waits: for a condition, never for an amount of time.

A test that needs another thread at a certain point puts a :class:`Gate` there. :func:`until` is for conditions that
nothing signals. All limits are generous, because they only end a test that fails: a busy machine may take a hundred
times as long as a quiet one.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

__all__ = ["TIMEOUT", "Attempt", "Gate", "WatchedLock", "join", "open_all_gates", "until"]

TIMEOUT = 120.0
"""Seconds after which a wait fails its test."""

POLL_SECONDS = 0.005


def until(
    condition: Callable[[], object],
    what: Callable[[], str] = lambda: "the condition is not true",
    *,
    pause: Callable[[], object] = lambda: threading.Event().wait(POLL_SECONDS),
    limit: float = TIMEOUT,
) -> None:
    """Return once ``condition()`` is true.

    Args:
        condition: Checked again and again.
        what: Says what is wrong, for the message of a test that waited in vain.
        pause: Called between two checks.
        limit: Seconds until the test fails.
    """
    deadline = time.monotonic() + limit
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"after {limit:g} s: {what()}")
        pause()


def join(thread: threading.Thread) -> None:
    """Wait until ``thread`` has ended."""
    thread.join(TIMEOUT)
    assert not thread.is_alive(), f"the thread {thread.name!r} has not ended after {TIMEOUT:g} s"


_gates: weakref.WeakSet[Gate] = weakref.WeakSet()


def open_all_gates() -> None:
    """Let every thread go on: a test that fails leaves none at a gate, where the end of the test would wait for it."""
    for gate in list(_gates):
        gate.open(1000)


class Gate:
    """A point at which a thread stops: it calls the gate, and continues when the test calls ``open``.

    ``wait`` returns once a thread has arrived, so the test knows where that thread is and does what it wants to happen
    at that moment.

    Args:
        holds: Number of calls that are held; later ones pass. None: all.
    """

    def __init__(self, holds: int | None = None) -> None:
        self.arrived = threading.Semaphore(0)
        self._permits = threading.Semaphore(0)
        self._places = None if holds is None else threading.Semaphore(holds)
        _gates.add(self)

    def __call__(self, *_: Any, **__: Any) -> None:
        if self._places is not None and not self._places.acquire(blocking=False):
            return
        self.arrived.release()
        assert self._permits.acquire(timeout=TIMEOUT), "nobody opened the gate"

    def wait(self) -> None:
        assert self.arrived.acquire(timeout=TIMEOUT), "no thread has arrived at the gate"

    def open(self, times: int = 1) -> None:
        self._permits.release(times)


class Attempt:
    """A call on a thread of its own, begun while another thread holds a lock that the call needs.

    The constructor returns when the call either waits for the lock or has ended without it, which is what happens if
    the lock is missing on one of the two sides.

    Args:
        call: The call.
        owner, lock: The lock is the attribute ``lock`` of ``owner``.

    Attributes:
        waits: The call waits for the lock.
    """

    def __init__(self, call: Callable[[], Any], owner: Any, lock: str) -> None:
        self._moved = threading.Semaphore(0)
        self._done = threading.Event()
        self._result: Any = None
        self._error: BaseException | None = None
        real = getattr(owner, lock)
        setattr(owner, lock, WatchedLock(real, self._moved.release))
        self._thread = threading.Thread(target=self._run, args=(call,), name="attempt", daemon=True)
        self._thread.start()
        moved = self._moved.acquire(timeout=TIMEOUT)
        setattr(owner, lock, real)
        assert moved, "the call neither waits for the lock nor ends"
        self.waits = not self._done.is_set()

    def result(self) -> Any:
        """Wait for the end of the call, and return its result or raise its error."""
        join(self._thread)
        if self._error is not None:
            raise self._error
        return self._result

    def _run(self, call: Callable[[], Any]) -> None:
        try:
            self._result = call()
        except BaseException as error:
            self._error = error
        self._done.set()
        self._moved.release()


class WatchedLock:
    """Stands in front of a lock, and calls ``waits`` before a thread waits for it."""

    def __init__(self, lock: Any, waits: Callable[[], object]) -> None:
        self._lock, self._waits = lock, waits

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._lock.acquire(blocking=False):
            return True
        if not blocking:
            return False
        self._waits()
        return self._lock.acquire(timeout=timeout)

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: Any) -> None:
        self._lock.release()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._lock, name)
