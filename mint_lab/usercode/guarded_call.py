"""Run a user-written function on a worker thread, so that it can be cancelled and nothing else can.

Losses and rewards run here, and so does the search for the cause of a loss that is not finite. :func:`call_guarded`
blocks the caller while the worker runs. To cancel, it raises an exception in the worker thread with
``PyThreadState_SetAsyncExc``, and repeats until the worker exits. Trainer code never runs on the worker, so a cancel
cannot leave weights half updated. C code (``time.sleep(1e9)``) does not see the exception until it returns: after
``CANCEL_TIMEOUT_SECONDS`` the caller abandons the worker and continues without it.

If the function asks a model for something (reference log-probabilities, for example), :func:`hand_back` passes that job
to the thread that waits for the function, so all model work stays on that thread.
"""

from __future__ import annotations

import collections
import contextlib
import contextvars
import functools
import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import torch

from ..errors import LossError
from ..threads import PackageThread, ProcessExit, is_importing, raise_in
from .output import Printed, capture_output

__all__ = ["LossCancelled", "call_guarded", "hand_back"]

CANCEL_POLL_SECONDS = 0.05  # between two calls of should_cancel
CANCEL_TIMEOUT_SECONDS = 1.0  # from the first exception in a worker until the worker is abandoned
CANCEL_RETRY_SECONDS = 0.02  # between two exceptions in a worker that is being cancelled
ABANDONED_RETRY_SECONDS = 0.1  # between two exceptions in an abandoned worker


class LossCancelled(LossError):
    """A user-written function was cancelled before it returned.

    Attributes:
        abandoned: The function did not exit, and its thread was abandoned.
        seconds: How long the function had run.
    """

    def __init__(self, message: str, *, abandoned: bool = False, seconds: float = 0.0) -> None:
        super().__init__(message)
        self.abandoned = abandoned
        self.seconds = seconds


class _Cancel(BaseException):
    """Raised inside the function. Not an ``Exception``, so that ``except Exception`` there does not swallow it."""


class _CallbackQueue:
    """Jobs that the waiting caller runs, and None after the last one.

    It replaces ``queue.SimpleQueue``, whose ``get(timeout)`` in Python 3.11 waits forever if the timeout expires before
    the wait begins. Each step is one call into C, so a worker that is cancelled inside a step leaves the queue intact.
    """

    def __init__(self) -> None:
        self._items: collections.deque[Callable[[], None] | None] = collections.deque()
        self._signal = threading.Lock()  # released: an item was added since the last wait
        self._signal.acquire()

    def put(self, item: Callable[[], None] | None) -> None:
        self._items.append(item)
        with contextlib.suppress(RuntimeError):  # the signal is already set
            self._signal.release()

    def get(self, timeout: float) -> Callable[[], None] | None:
        """Return the next item; raise ``queue.Empty`` after ``timeout`` seconds, or earlier."""
        if not self._items:
            self._signal.acquire(timeout=timeout)
        try:
            return self._items.popleft()
        except IndexError:
            raise queue.Empty from None


class _Call:
    """One call: the job, its callback queue, and its result or its error."""

    def __init__(self, job: Callable[[], Any]) -> None:
        self.job = job
        self.caller = threading.current_thread()
        self.grad_enabled = torch.is_grad_enabled()
        # A copied context: output and warnings of the function belong to the cell that started the call.
        self.context = contextvars.copy_context()
        self.callbacks = _CallbackQueue()
        self.result: Any = None
        self.error: BaseException | None = None
        self.closed = False  # the caller has stopped waiting

    def run(self) -> None:
        try:
            with torch.set_grad_enabled(self.grad_enabled):  # the grad mode is per thread
                self.result = self.job()
        except BaseException as error:
            self.error = error


class _Worker(PackageThread):
    """Runs one call after another, until one of them is cancelled."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        super().__init__(None, "mint_lab loss", end=functools.partial(self.calls.put, None))
        self.call: _Call | None = None
        self.retired = False
        self._exiting = False
        self._exit_lock = threading.Lock()

    def run(self) -> None:
        # The exception can also arrive just after the function has returned. Not contextlib.suppress: its methods are
        # Python code, in which the exception can arrive too, and which it then leaves.
        try:
            while not self.retired:
                self.call = call = self.calls.get()
                if call is None:
                    break
                call.context.run(call.run)
                callbacks, self.call = call.callbacks, None
                del call  # the next call may come much later: do not keep this one's tensors alive
                callbacks.put(None)
                del callbacks
        except (_Cancel, ProcessExit):
            pass
        while not self._exiting:
            try:
                with self._exit_lock:
                    self._exiting = True
            except (_Cancel, ProcessExit):
                pass
        _absorb_pending_cancel()

    def cancel(self) -> None:
        """Raise :class:`_Cancel` in this thread, unless the thread is about to end, or imports a module."""
        if self._exit_lock.acquire(timeout=CANCEL_RETRY_SECONDS):
            if not self._exiting and not is_importing(self):
                raise_in(self, _Cancel)
            self._exit_lock.release()


def _absorb_pending_cancel() -> None:
    """Raise :class:`_Cancel` in the current thread and wait until it arrives, in place of one that is still pending.

    The interpreter has one flag for such exceptions in all threads. The flag is cleared when an exception arrives, but
    not when one is withdrawn or its thread ends. While the flag is set, Python 3.11 cannot trace a function, and a
    debugger would hang.
    """
    with contextlib.suppress(_Cancel):
        raise_in(threading.current_thread(), _Cancel)
        while True:
            pass


_idle: list[_Worker] = []

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # their threads exist in the parent only


def call_guarded(
    fn: Callable[..., Any],
    args: Sequence[Any],
    *,
    should_cancel: Callable[[float], bool],
    printed: Printed | None = None,
) -> Any:
    """Call ``fn(*args)`` on a worker thread and return its result; an ``Exception`` of ``fn`` is raised here.

    Args:
        fn: The function.
        args: Its positional arguments.
        should_cancel: Called every ``CANCEL_POLL_SECONDS`` with the seconds since the start of the call; True cancels.
        printed: Receives what the function prints; None leaves the output alone.

    Raises:
        LossCancelled: If the call was cancelled. The traceback of its cause shows where the function was.
        LossError: If the function raised ``SystemExit``, ``KeyboardInterrupt`` or another exception that is not an
            ``Exception``; raised here, it would end or interrupt something else.
    """
    call = _Call(lambda: fn(*args))
    worker = _take_worker()
    try:
        with contextlib.nullcontext() if printed is None else capture_output(call.context, printed):
            worker.calls.put(call)
            seconds = _wait(call, should_cancel)
    except BaseException:  # Ctrl+C in the waiting thread, or a callback that failed
        _cancel(worker, call)
        raise
    if seconds is not None:
        raise _cancelled(worker, call, seconds)
    _idle.append(worker)
    if isinstance(call.error, ProcessExit):
        raise call.error
    if call.error is not None and not isinstance(call.error, Exception):
        raise LossError(f"the function raised {type(call.error).__name__}; raise an Exception instead") from call.error
    if call.error is not None:
        raise call.error
    return call.result


def hand_back(thread: threading.Thread, job: Callable[[], None]) -> bool:
    """Pass ``job`` from inside a guarded function to ``thread``; False if ``thread`` is not waiting for it."""
    worker = threading.current_thread()
    call = worker.call if isinstance(worker, _Worker) else None
    if call is None or call.closed or call.caller is not thread:
        return False
    call.callbacks.put(job)
    return True


def _take_worker() -> _Worker:
    try:
        return _idle.pop()
    except IndexError:
        worker = _Worker()
        worker.start()
        return worker


def _wait(call: _Call, should_cancel: Callable[[float], bool]) -> float | None:
    """Wait until the call has returned (None) or is to be cancelled (the seconds it has run), and run its callbacks."""
    start = last_poll = time.perf_counter()
    while True:
        with contextlib.suppress(queue.Empty):
            job = call.callbacks.get(timeout=CANCEL_POLL_SECONDS)
            if job is None:
                return None
            job()
        # Also after a callback: a function that asks the model without end can be cancelled too.
        now = time.perf_counter()
        if now - last_poll >= CANCEL_POLL_SECONDS:
            last_poll = now
            if should_cancel(now - start):
                return now - start


def _cancelled(worker: _Worker, call: _Call, seconds: float) -> LossCancelled:
    """Cancel the call and return the error to raise; the traceback of its cause is where the function was."""
    place = TimeoutError("it did not return").with_traceback(_traceback_of(worker))
    if _cancel(worker, call):
        error = LossCancelled("it was cancelled", seconds=seconds)
    else:
        error = LossCancelled(
            "it was abandoned, because code in C (time.sleep, a long tensor operation) cannot be cancelled, nor can "
            "code that catches every exception: its thread ends when that returns, or with the kernel",
            abandoned=True,
            seconds=seconds,
        )
    error.__cause__ = place
    return error


def _cancel(worker: _Worker, call: _Call) -> bool:
    """Raise :class:`_Cancel` in the worker until it exits; return False if it does not, and has been abandoned."""
    worker.retired = True
    worker.calls.put(None)  # the function may just have returned, and the worker may be waiting for the next call
    end = time.perf_counter() + CANCEL_TIMEOUT_SECONDS
    while worker.is_alive() and time.perf_counter() < end:
        worker.cancel()
        # The function may be waiting for the model: a thread that waits for a lock does not see the exception.
        try:
            job = call.callbacks.get(timeout=CANCEL_RETRY_SECONDS)
        except queue.Empty:
            continue
        if job is None:
            worker.join(CANCEL_RETRY_SECONDS)
        else:
            job()
    call.closed = True
    if worker.is_alive():
        threading.Thread(target=_keep_cancelling, args=(worker,), name="mint_lab loss abandoned", daemon=True).start()
        return False
    return True


def _keep_cancelling(worker: _Worker) -> None:
    """Cancel an abandoned worker again and again: a loop that swallows the exception may not do so everywhere.

    In between, the worker's exception stays pending without the interpreter's flag: code in C may take hours, and
    nobody could debug for that time. When the worker takes the interpreter lock again, the flag is set again.
    """
    while worker.is_alive():
        worker.cancel()
        _absorb_pending_cancel()
        worker.join(ABANDONED_RETRY_SECONDS)


def _traceback_of(worker: _Worker) -> TracebackType | None:
    """Return the worker's current stack as a traceback."""
    frame = sys._current_frames().get(worker.ident or 0)  # pyright: ignore[reportPrivateUsage]
    trace: TracebackType | None = None
    while frame is not None:
        trace = TracebackType(trace, frame, frame.f_lasti, frame.f_lineno)
        frame = frame.f_back
    return trace
