"""Subscribers are notified, and can never delay the thread that reports a change."""

from __future__ import annotations

import threading

import pytest

from mint_lab.runs.notifier import ChangeNotifier

from ..waiting import TIMEOUT, join


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


def test_subscriber_that_raises_does_not_silence_the_next() -> None:
    notifier, notified = ChangeNotifier(), threading.Event()

    def broken() -> None:
        raise ValueError("a broken page")

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
