"""Calls a loss that a person wrote, so that it can always be broken off, and so that nothing else ever is.

The function runs on a thread of its own, while the caller waits. To break it off, an exception is raised in that thread
(``PyThreadState_SetAsyncExc``), again and again until it takes. That thread does nothing but call the function, so the
exception cannot reach the trainer, wherever it strikes: no weight is half updated. Code in C (``time.sleep(1e9)``)
notices nothing until it returns; then the thread is left behind, and the caller goes on without it.

A function that asks a model for something (reference log-probabilities, say) is served by the thread that waits for it:
all work on a model stays where it was.
"""

from __future__ import annotations

import collections
import contextlib
import contextvars
import ctypes
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import torch

from ..errors import LossError
from .output import Printed, watching

__all__ = ["LossInterrupted", "call_guarded", "hand_back"]

SLICE = 0.05  # seconds between two looks whether to give up
INSISTING = 1.0  # seconds that a function has to take notice, before it is left behind
AGAIN = 0.02  # seconds until it is told again


class LossInterrupted(LossError):
    """A loss function was broken off before it returned.

    Attributes:
        stuck: it did not take notice, and its thread was left behind.
        seconds: how long it had run.
    """

    def __init__(self, message: str, *, stuck: bool = False, seconds: float = 0.0) -> None:
        super().__init__(message)
        self.stuck = stuck
        self.seconds = seconds


class _BreakOff(BaseException):
    """Raised inside the function. No ``Exception``, so that ``except Exception`` in it does not hold it up."""


class _News:
    """Jobs that the caller does while it waits, and at the end None.

    No ``queue.SimpleQueue``: where its ``get(timeout)`` runs out before it begins to wait, Python 3.11 waits for ever.
    Every step is a single call into C, so that a function that is broken off in one leaves nothing half done.
    """

    def __init__(self) -> None:
        self._items: collections.deque[Callable[[], None] | None] = collections.deque()
        self._bell = threading.Lock()
        self._bell.acquire()

    def put(self, item: Callable[[], None] | None) -> None:
        self._items.append(item)
        with contextlib.suppress(RuntimeError):  # it has rung already
            self._bell.release()

    def get(self, timeout: float) -> Callable[[], None] | None:
        """The next item; raises ``queue.Empty`` after ``timeout`` seconds, or sooner."""
        if not self._items:
            self._bell.acquire(timeout=timeout)
        try:
            return self._items.popleft()
        except IndexError:
            raise queue.Empty from None


class _Call:
    """One call: what to do, and what came of it."""

    def __init__(self, job: Callable[[], Any]) -> None:
        self.job = job
        self.waiting = threading.current_thread()
        self.grad = torch.is_grad_enabled()
        # A copied context: what the function prints or warns of belongs to the cell that asked for it.
        self.context = contextvars.copy_context()
        self.news = _News()
        self.result: Any = None
        self.error: BaseException | None = None
        self.over = False

    def make(self) -> None:
        try:
            with torch.set_grad_enabled(self.grad):
                self.result = self.job()
        except BaseException as error:
            self.error = error


class _Helper(threading.Thread):
    """Makes calls, one after another, until it has been told to break one off."""

    def __init__(self) -> None:
        super().__init__(name="mint_lab loss", daemon=True)
        self.calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self.call: _Call | None = None
        self.spent = False
        self._over = False
        self._telling = threading.Lock()

    def run(self) -> None:
        # It may also strike just after the function has returned.
        with contextlib.suppress(_BreakOff):
            while not self.spent:
                self.call = call = self.calls.get()
                if call is None:
                    break
                call.context.run(call.make)
                news, self.call = call.news, None
                del call  # the next one may be long in coming: hold on to nothing
                news.put(None)
                del news
        while not self._over:
            with contextlib.suppress(_BreakOff), self._telling:
                self._over = True
        _strike()  # in place of what is under way and has not struck yet

    def tell(self) -> None:
        """Raise :class:`_BreakOff` in this thread, unless it is about to end."""
        if self._telling.acquire(timeout=AGAIN):
            if not self._over:
                _raise_in(self, ctypes.py_object(_BreakOff))
            self._telling.release()


def _raise_in(thread: threading.Thread, kind: Any) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread.ident or 0), kind)


def _strike() -> None:
    """Raise :class:`_BreakOff` in this very thread, and wait until it strikes.

    The interpreter has one flag for such exceptions in all threads, and lowers it when one strikes, not when one is
    taken back or its thread ends. While it is up, Python 3.11 cannot trace a function: a debugger would hang.
    """
    with contextlib.suppress(_BreakOff):
        _raise_in(threading.current_thread(), ctypes.py_object(_BreakOff))
        while True:
            pass


_idle: list[_Helper] = []


def call_guarded(
    fn: Callable[..., Any],
    args: Sequence[Any],
    *,
    give_up: Callable[[float], bool],
    printed: Printed | None = None,
) -> Any:
    """``fn(*args)``, on a thread of its own; what it raises is raised here.

    Args:
        give_up: asked every few hundredths of a second, with the seconds since the call began: break it off?
        printed: takes what the function prints; None lets it print.

    Raises:
        LossInterrupted: it was broken off, at the place that the traceback of its cause shows.
        LossError: it raised ``SystemExit``, ``KeyboardInterrupt`` or the like, which would mean something else here.
    """
    call = _Call(lambda: fn(*args))
    helper = _take_helper()
    try:
        with contextlib.nullcontext() if printed is None else watching(call.context, printed):
            helper.calls.put(call)
            seconds = _wait(call, give_up)
    except BaseException:  # Ctrl+C in the thread that waits, or a failed job of a model
        _break_off(helper, call)
        raise
    if seconds is not None:
        raise _interrupted(helper, call, seconds)
    _idle.append(helper)
    if call.error is not None and not isinstance(call.error, Exception):
        raise LossError(f"the function raised {type(call.error).__name__}; raise an Exception instead") from call.error
    if call.error is not None:
        raise call.error
    return call.result


def hand_back(thread: threading.Thread, job: Callable[[], None]) -> bool:
    """From inside a guarded function: have ``job`` done by ``thread``, if that is what waits for this function."""
    helper = threading.current_thread()
    call = helper.call if isinstance(helper, _Helper) else None
    if call is None or call.over or call.waiting is not thread:
        return False
    call.news.put(job)
    return True


def _take_helper() -> _Helper:
    try:
        return _idle.pop()
    except IndexError:
        helper = _Helper()
        helper.start()
        return helper


def _wait(call: _Call, give_up: Callable[[float], bool]) -> float | None:
    """Until the call has returned (None), or it is time to give up: then the seconds it has taken."""
    began = asked = time.perf_counter()
    while True:
        with contextlib.suppress(queue.Empty):
            job = call.news.get(timeout=SLICE)
            if job is None:
                return None
            job()
        now = time.perf_counter()
        if now - asked >= SLICE:
            asked = now
            if give_up(now - began):
                return now - began


def _interrupted(helper: _Helper, call: _Call, seconds: float) -> LossInterrupted:
    place = TimeoutError("it did not return").with_traceback(_traceback_of(helper))
    if _break_off(helper, call):
        error = LossInterrupted("it was broken off", seconds=seconds)
    else:
        # What waits for the thread that is left behind goes up again when that wakes.
        threading.Thread(target=_strike, daemon=True).start()
        error = LossInterrupted(
            "it was left behind, because code in C (time.sleep, a long tensor operation) cannot be broken off, nor can "
            "what catches every exception: its thread ends when that returns, or with the kernel",
            stuck=True,
            seconds=seconds,
        )
    error.__cause__ = place
    return error


def _break_off(helper: _Helper, call: _Call) -> bool:
    """Raise :class:`_BreakOff` in the helper's thread until that ends; False when it takes no notice."""
    helper.spent = True
    helper.calls.put(None)  # it may have returned just now, and wait for the next call
    end = time.perf_counter() + INSISTING
    while helper.is_alive() and time.perf_counter() < end:
        helper.tell()
        # It may be waiting for something of the model: a thread that waits for a lock takes no notice.
        try:
            job = call.news.get(timeout=AGAIN)
        except queue.Empty:
            continue
        if job is None:
            helper.join(AGAIN)
        else:
            job()
    call.over = True
    if helper.is_alive():
        threading.Thread(target=_insist, args=(helper,), name="mint_lab loss left behind", daemon=True).start()
        return False
    return True


def _insist(helper: _Helper) -> None:
    """A loop that swallows the exception now may not do so at another place in it."""
    while helper.is_alive():
        helper.tell()
        helper.join(INSISTING / 10)


def _traceback_of(helper: _Helper) -> TracebackType | None:
    """Where a thread stands now, as a traceback."""
    frame = sys._current_frames().get(helper.ident or 0)  # pyright: ignore[reportPrivateUsage]
    found: TracebackType | None = None
    while frame is not None:
        found = TracebackType(found, frame, frame.f_lasti, frame.f_lineno)
        frame = frame.f_back
    return found
