"""Subscribers are notified, and can never delay the thread that reports a change."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import pytest

from mint_lab.runs.notifier import ChangeNotifier

from ..waiting import TIMEOUT, Attempt, Gate, join, until


def test_stuck_subscriber_delays_nobody_and_gets_the_last_change() -> None:
    notifier, entered, release, again = ChangeNotifier(), threading.Event(), threading.Event(), threading.Event()

    def stuck() -> None:
        if entered.is_set():
            again.set()
        entered.set()
        release.wait(TIMEOUT)

    dispose = notifier.subscribe(stuck)
    notifier.notify()
    assert entered.wait(TIMEOUT)
    for _ in range(1000):  # each returns at once, though the subscriber is stuck
        notifier.notify()
    release.set()
    assert again.wait(TIMEOUT)
    dispose()


@pytest.mark.parametrize("error", [ValueError("a broken page"), SystemExit(3), KeyboardInterrupt()])
def test_subscriber_that_raises_does_not_silence_the_next(error: BaseException) -> None:
    notifier, notified = ChangeNotifier(), threading.Event()

    def broken() -> None:
        raise error

    first, second = notifier.subscribe(broken), notifier.subscribe(notified.set)
    for _ in range(3):
        notified.clear()
        notifier.notify()
        assert notified.wait(TIMEOUT)
    first()
    second()


def test_thread_ends_with_the_last_subscriber_and_starts_again() -> None:
    notifier, notified = ChangeNotifier(), threading.Event()
    dispose = notifier.subscribe(notified.set)
    thread = notifier._thread
    assert thread is not None
    dispose()
    dispose()
    join(thread)
    dispose = notifier.subscribe(notified.set)
    notifier.notify()
    assert notified.wait(TIMEOUT)
    dispose()


def test_subscription_that_gets_no_thread_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    notifier, notified = ChangeNotifier(), threading.Event()

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            notifier.subscribe(notified.set)
    assert notifier._subscribers == []
    dispose = notifier.subscribe(notified.set)
    notifier.notify()
    assert notified.wait(TIMEOUT), "the next subscription has a thread"
    dispose()


def test_first_subscribers_from_two_threads_share_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    notifier, gate, start = ChangeNotifier(), Gate(holds=1), threading.Thread.start
    started: list[threading.Thread] = []

    def slow_start(thread: threading.Thread) -> None:
        if thread.name == "mint_lab-notifier":
            started.append(thread)
            gate()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", slow_start)
    notified = [threading.Event(), threading.Event()]
    first = threading.Thread(target=notifier.subscribe, args=(notified[0].set,))
    first.start()
    gate.wait()
    attempt = Attempt(lambda: notifier.subscribe(notified[1].set), notifier, "_lock")
    assert attempt.waits
    gate.open()
    join(first)
    dispose = attempt.result()
    assert len(started) == 1
    notifier.notify()
    assert all(event.wait(TIMEOUT) for event in notified)
    dispose()
    notifier._subscribers.clear()
    notifier.notify()
    join(started[0])


def test_no_call_without_a_change() -> None:
    """After its calls the thread waits, and is not busy: the signal was cleared."""
    notifier, states = ChangeNotifier(), []

    class Watched(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            states.append(self.is_set())
            return super().wait(timeout)

    notifier._changed = Watched()
    called = threading.Semaphore(0)
    dispose = notifier.subscribe(called.release)
    notifier.notify()
    assert called.acquire(timeout=TIMEOUT)
    until(lambda: len(states) == 2)
    assert states[1] is False
    thread = notifier._thread
    assert thread is not None
    dispose()
    join(thread)
    assert not called.acquire(blocking=False)


class SlowCopy(list[Callable[[], None]]):
    """Subscribers; who copies them stops at a gate afterwards."""

    def __init__(self, gate: Gate) -> None:
        super().__init__()
        self.gate = gate

    def __iter__(self) -> Iterator[Callable[[], None]]:
        yield from list.__iter__(self)
        self.gate()


def test_subscriber_that_comes_as_the_thread_ends_gets_another_thread() -> None:
    """The thread has seen that nobody is left, and has not said so yet."""
    notifier, gate, notified = ChangeNotifier(), Gate(holds=1), threading.Event()
    notifier.subscribe(lambda: None)()
    if notifier._thread is not None:
        join(notifier._thread)
    notifier._subscribers = SlowCopy(gate)
    notifier.subscribe(lambda: None)()
    first = notifier._thread
    assert first is not None
    gate.wait()
    attempt = Attempt(lambda: notifier.subscribe(notified.set), notifier, "_lock")
    assert attempt.waits
    gate.open()
    dispose = attempt.result()
    join(first)
    notifier.notify()
    assert notified.wait(TIMEOUT)
    dispose()


def test_change_during_a_call_leads_to_another_call() -> None:
    """One more, however many changes there were, with what they brought."""
    notifier, gate = ChangeNotifier(), Gate()
    calls = 0

    def subscriber() -> None:
        nonlocal calls
        calls += 1
        gate()

    dispose = notifier.subscribe(subscriber)
    notifier.notify()
    gate.wait()
    for _ in range(5):
        notifier.notify()
    gate.open()
    gate.wait()
    dispose()
    thread = notifier._thread
    assert thread is not None
    gate.open()
    join(thread)
    assert calls == 2
