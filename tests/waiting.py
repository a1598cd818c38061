"""How a test waits: for a condition, never for an amount of time.

A test that needs another thread at a certain point puts a :class:`Gate` there. :func:`until` is for conditions that
nothing signals. All limits are generous, because they only end a test that fails: a busy machine may take a hundred
times as long as a quiet one.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

__all__ = ["TIMEOUT", "Gate", "join", "until"]

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


class Gate:
    """A point at which a thread stops: it calls the gate, and goes on when the test calls ``open``.

    ``wait`` returns once a thread has arrived, so the test knows where that thread is and does what it wants to happen
    at that moment.
    """

    def __init__(self) -> None:
        self.arrived = threading.Semaphore(0)
        self._permits = threading.Semaphore(0)

    def __call__(self) -> None:
        self.arrived.release()
        assert self._permits.acquire(timeout=TIMEOUT), "nobody opened the gate"

    def wait(self) -> None:
        assert self.arrived.acquire(timeout=TIMEOUT), "no thread has arrived at the gate"

    def open(self, times: int = 1) -> None:
        self._permits.release(times)
