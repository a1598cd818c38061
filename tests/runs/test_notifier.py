"""Subscribers are told, and can never hold anyone up."""

from __future__ import annotations

import threading

from mint_lab.runs.notifier import Bell

TIMEOUT = 30


def test_a_stuck_subscriber_does_not_hold_up_the_ringer_and_hears_of_the_last_ring() -> None:
    bell, entered, release, again = Bell(), threading.Event(), threading.Event(), threading.Event()

    def stuck() -> None:
        if entered.is_set():
            again.set()
        entered.set()
        release.wait(TIMEOUT)

    dispose = bell.subscribe(stuck)
    bell.ring()
    assert entered.wait(TIMEOUT)
    for _ in range(1000):  # returns at once, though the subscriber is stuck
        bell.ring()
    release.set()
    assert again.wait(TIMEOUT)
    dispose()


def test_one_that_raises_does_not_silence_the_next() -> None:
    bell, heard = Bell(), threading.Event()

    def broken() -> None:
        raise ValueError("a broken page")

    first, second = bell.subscribe(broken), bell.subscribe(heard.set)
    for _ in range(3):
        heard.clear()
        bell.ring()
        assert heard.wait(TIMEOUT)
    first()
    second()


def test_the_thread_ends_with_the_last_subscriber_and_comes_back() -> None:
    bell, heard = Bell(), threading.Event()
    dispose = bell.subscribe(heard.set)
    thread = bell._thread
    assert thread is not None
    dispose()
    dispose()
    thread.join(TIMEOUT)
    assert not thread.is_alive()
    dispose = bell.subscribe(heard.set)
    bell.ring()
    assert heard.wait(TIMEOUT)
    dispose()
