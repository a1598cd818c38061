"""A user-written function on a worker thread: it can be cancelled, and nothing else can."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import sys
import threading
from typing import Any

import pytest
import torch

from mint_lab.errors import LossError
from mint_lab.usercode import guarded_call
from mint_lab.usercode.guarded_call import CANCEL_POLL_SECONDS, LossCancelled, _CallbackQueue, call_guarded, hand_back
from tests.waiting import TIMEOUT, Attempt, Gate, join, until


def never(seconds: float) -> bool:
    return False


def soon(seconds: float) -> bool:
    return seconds > 0.1


def test_result_error_and_gradient_mode_come_through() -> None:
    def function(x: int) -> tuple[int, bool]:
        return x + 1, torch.is_grad_enabled()

    assert call_guarded(function, (1,), should_cancel=never) == (2, True)
    with torch.no_grad():
        assert call_guarded(function, (1,), should_cancel=never) == (2, False)

    def fails() -> None:
        raise ValueError("a planted bug")

    with pytest.raises(ValueError, match="a planted bug") as caught:
        call_guarded(fails, (), should_cancel=never)
    names = [entry.name for entry in caught.traceback]
    assert names[-1] == "fails"


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_exceptions_that_would_end_something_else_are_wrapped(kind: type[BaseException]) -> None:
    def raises() -> None:
        raise kind

    with pytest.raises(LossError, match=f"raised {kind.__name__}") as caught:
        call_guarded(raises, (), should_cancel=never)
    assert isinstance(caught.value.__cause__, kind)


def test_a_worker_serves_many_calls_until_it_is_cancelled() -> None:
    first = call_guarded(threading.current_thread, (), should_cancel=never)
    assert call_guarded(threading.current_thread, (), should_cancel=never) is first
    assert first is not threading.current_thread()

    def endless() -> None:
        while True:
            pass

    with pytest.raises(LossCancelled) as caught:
        call_guarded(endless, (), should_cancel=soon)
    assert not caught.value.abandoned
    assert caught.value.seconds >= 0.1
    assert call_guarded(threading.current_thread, (), should_cancel=never) is not first
    join(first)


def test_the_cause_shows_where_the_function_was() -> None:
    def endless() -> None:
        while True:
            pass

    with pytest.raises(LossCancelled) as caught:
        call_guarded(endless, (), should_cancel=soon)
    cause = caught.value.__cause__
    assert cause is not None
    found = cause.__traceback__
    names = []
    while found is not None:
        names.append(found.tb_frame.f_code.co_name)
        found = found.tb_next
    assert names[-1] == "endless"


def test_calls_can_be_nested() -> None:
    def outer() -> int:
        return 1 + call_guarded(lambda: 1, (), should_cancel=never)

    assert call_guarded(outer, (), should_cancel=never) == 2


def test_a_job_is_handed_back_to_the_waiting_thread_only() -> None:
    here = threading.current_thread()
    done: list[Any] = []
    came = threading.Event()

    def asks() -> bool:
        other = threading.Thread(target=lambda: None)
        assert not hand_back(other, lambda: done.append("no"))
        assert hand_back(here, lambda: (done.append(threading.current_thread()), came.set()))
        return came.wait(TIMEOUT)

    assert call_guarded(asks, (), should_cancel=never)
    assert done == [here]
    assert not hand_back(here, lambda: done.append("no"))  # outside of any call


def test_a_cancel_is_no_exception_that_a_function_handles() -> None:
    """``except Exception`` is common around a part that may fail."""
    handled: list[Exception] = []

    def careful() -> None:
        try:
            while True:
                pass
        except Exception as error:
            handled.append(error)

    with pytest.raises(LossCancelled):
        call_guarded(careful, (), should_cancel=soon)
    assert handled == []


def test_a_job_that_is_handed_back_is_run_during_a_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The function waits for it in C, where it does not see the exception: without the job it would be abandoned."""
    monkeypatch.setattr(guarded_call, "CANCEL_TIMEOUT_SECONDS", TIMEOUT / 4)
    here, asked, came = threading.current_thread(), threading.Event(), threading.Lock()
    came.acquire()
    workers: list[Any] = []

    def waits() -> None:
        workers.append(threading.current_thread())
        asked.wait(TIMEOUT)
        hand_back(here, came.release)
        came.acquire()

    last_line = waits.__code__.co_firstlineno + 4

    def is_waiting() -> bool:
        frame = sys._current_frames()[workers[0].ident]
        return (frame.f_code, frame.f_lineno) == (waits.__code__, last_line)

    def cancel(seconds: float) -> bool:
        asked.set()
        until(is_waiting)
        return True

    with pytest.raises(LossCancelled) as caught:
        call_guarded(waits, (), should_cancel=cancel)
    assert not caught.value.abandoned
    join(workers[0])


def test_a_function_that_hands_back_without_end_is_cancelled() -> None:
    here = threading.current_thread()

    def asks() -> None:
        while True:
            came = threading.Event()
            hand_back(here, came.set)
            came.wait()

    with pytest.raises(LossCancelled):
        call_guarded(asks, (), should_cancel=soon)


def test_functions_can_be_traced_after_a_cancel() -> None:
    """In a separate process: if this fails (Python 3.11), the interpreter hangs."""
    program = """
import faulthandler, sys, threading
from mint_lab.usercode.guarded_call import LossCancelled, call_guarded
faulthandler.dump_traceback_later(100, exit=True)

def endless():
    while True: pass

def traced(): return 1

gate = threading.Lock()
gate.acquire()
for fn in (endless, lambda: gate.acquire()):  # the second one is abandoned, and has not returned when it is traced
    try:
        call_guarded(fn, (), should_cancel=lambda seconds: True)
    except LossCancelled:
        pass
    events = []
    sys.settrace(lambda frame, event, arg: events.append(event))
    traced()
    sys.settrace(None)
    assert "call" in events
gate.release()
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=2 * TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_function_in_c_is_abandoned_and_its_late_result_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mint_lab.usercode.guarded_call.CANCEL_TIMEOUT_SECONDS", 0.05)
    returned: list[int] = []
    gate = threading.Lock()
    gate.acquire()

    def stuck() -> None:
        gate.acquire()
        returned.append(1)  # cancelled before this line

    with pytest.raises(LossCancelled, match="it was abandoned, because code in C") as caught:
        call_guarded(stuck, (), should_cancel=soon)
    assert caught.value.abandoned
    worker = next(t for t in threading.enumerate() if t.name == "mint_lab loss abandoned")
    gate.release()
    join(worker)
    assert returned == []
    assert call_guarded(lambda: 7, (), should_cancel=never) == 7


def test_should_cancel_gets_the_seconds_since_the_start() -> None:
    polled: list[float] = []

    def poll(seconds: float) -> bool:
        polled.append(seconds)
        return len(polled) == 3

    def endless() -> None:
        while True:
            pass

    with pytest.raises(LossCancelled) as caught:
        call_guarded(endless, (), should_cancel=poll)
    assert polled == sorted(polled)
    assert polled[0] >= CANCEL_POLL_SECONDS
    assert caught.value.seconds == polled[-1]


def test_callback_queue_get_always_ends() -> None:
    callbacks = _CallbackQueue()
    for timeout in (0.0, 1e-9, 1e-6, 0.01):
        with pytest.raises(queue.Empty):
            callbacks.get(timeout)
    callbacks.put(print)
    callbacks.put(None)
    assert (callbacks.get(0), callbacks.get(0)) == (print, None)
    with pytest.raises(queue.Empty):  # the signal was for items that have been taken since
        callbacks.get(1e-6)
    with pytest.raises(queue.Empty):
        callbacks.get(0.01)


# -- races of a cancel ------------------------------------------------------------------------------------------------


@pytest.fixture
def leaks(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Exceptions that left a thread."""
    found: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", found.append)
    return found


def test_cancel_that_comes_after_the_function_has_returned(leaks: list[Any]) -> None:
    """The function returns while ``should_cancel`` thinks. The worker ends, and no exception leaves it."""
    returned, workers, answer = threading.Event(), [], []

    def function() -> int:
        workers.append(threading.current_thread())
        returned.wait(TIMEOUT)
        return 7

    def late(seconds: float) -> bool:
        returned.set()
        until(lambda: workers[0].call is None)  # the worker waits for its next call
        return True

    with pytest.raises(LossCancelled) as caught:
        answer.append(call_guarded(function, (), should_cancel=late))
    assert (caught.value.abandoned, answer) == (False, [])
    join(workers[0])
    assert workers[0] not in guarded_call._idle
    assert call_guarded(lambda: 8, (), should_cancel=never) == 8
    assert leaks == []


def test_cancel_that_comes_as_the_worker_reports_its_result(leaks: list[Any]) -> None:
    """The exception strikes between the end of the function and the report: later code never sees it."""
    call = guarded_call._Call(lambda: 7)
    worker = guarded_call._Worker()
    gate, put = Gate(), call.callbacks.put

    def report(item: Any) -> None:
        gate()
        put(item)

    call.callbacks.put = report  # type: ignore[method-assign]
    worker.start()
    worker.calls.put(call)
    gate.wait()
    worker.retired = True
    worker.cancel()
    gate.open()
    join(worker)
    assert call.result == 7
    with pytest.raises(queue.Empty):
        call.callbacks.get(0)
    assert leaks == []


def test_worker_that_has_ended_its_calls_is_not_cancelled(monkeypatch: pytest.MonkeyPatch, leaks: list[Any]) -> None:
    """Its last lines of code are not the function's. Whoever cancels waits until the worker has said that it ends."""
    raised: list[Any] = []
    monkeypatch.setattr(guarded_call, "raise_in", lambda thread, exception: raised.append(thread))
    monkeypatch.setattr(guarded_call, "_absorb_pending_cancel", lambda: None)
    worker, gate = guarded_call._Worker(), Gate(holds=1)
    worker.cancel()
    assert raised == [worker]
    monkeypatch.setattr(guarded_call, "CANCEL_RETRY_SECONDS", -1)

    class Exiting(guarded_call._Worker):
        def __setattr__(self, name: str, value: Any) -> None:
            if name == "_exiting" and value:
                gate()
            super().__setattr__(name, value)

    last = Exiting()
    last.calls.put(None)
    last.start()
    gate.wait()
    attempt = Attempt(last.cancel, last, "_exit_lock")
    assert attempt.waits
    gate.open()
    attempt.result()
    join(last)
    assert raised == [worker]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError("the page is gone")])
def test_worker_is_cancelled_if_the_waiting_thread_is_interrupted(error: Any, leaks: list[Any]) -> None:
    """Ctrl+C in the waiting thread, or a callback that failed: the function does not run on unobserved."""
    workers: list[Any] = []

    def endless() -> None:
        workers.append(threading.current_thread())
        while True:
            pass

    def interrupted(seconds: float) -> bool:
        until(lambda: bool(workers))
        raise error

    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        call_guarded(endless, (), should_cancel=interrupted)
    join(workers[0])
    assert workers[0] not in guarded_call._idle
    assert leaks == []


def test_abandoned_function_cannot_hand_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for it any more. It survives its cancel here, as a bare except does."""
    monkeypatch.setattr(guarded_call, "CANCEL_TIMEOUT_SECONDS", 0.05)
    monkeypatch.setattr(guarded_call, "_keep_cancelling", lambda worker: None)  # one exception is pending
    here, gate = threading.current_thread(), threading.Lock()
    gate.acquire()
    workers: list[Any] = []
    answers: list[bool] = []
    done: list[str] = []

    def stubborn() -> None:
        workers.append(threading.current_thread())
        with contextlib.suppress(BaseException):
            gate.acquire()
        answers.append(hand_back(here, lambda: done.append("no")))

    with pytest.raises(LossCancelled) as caught:
        call_guarded(stubborn, (), should_cancel=soon)
    assert caught.value.abandoned
    gate.release()
    join(workers[0])
    assert (answers, done) == ([False], [])
    assert workers[0] not in guarded_call._idle


def test_workers_of_calls_at_the_same_time_differ() -> None:
    """A worker is idle only after its call: two calls never share one."""
    gate, seen = Gate(), []

    def held() -> None:
        seen.append(threading.current_thread())
        gate()

    callers = [
        threading.Thread(target=lambda: call_guarded(held, (), should_cancel=never), name="caller") for _ in range(3)
    ]
    for caller in callers:
        caller.start()
    for _ in callers:
        gate.wait()
    assert len(set(seen)) == 3
    assert not set(seen) & set(guarded_call._idle)
    gate.open(3)
    for caller in callers:
        join(caller)
    assert set(seen) <= set(guarded_call._idle)
