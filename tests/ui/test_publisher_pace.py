"""When a publisher sends: at once, then once per interval, with everything that came meanwhile; and after failures."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest

from mint_lab import threads
from mint_lab.runs.token_inspection import HeldOutTokens
from mint_lab.ui import publisher as module
from mint_lab.ui.publisher import MAX_DOUBLINGS, Publisher
from tests.ui.listener import Wire
from tests.ui.scripted import ScriptedRun, record
from tests.waiting import TIMEOUT, Gate, join

INTERVAL = 0.25
SAMPLE = {"source": "held-out", "prompt": "p", "response": "r", "reward": 1.0}


class Pauses:
    """The publisher's "closed" event, whose ``wait`` lasts until the test ends it, whatever the seconds."""

    def __init__(self) -> None:
        self.lengths: list[float] = []
        self._closed = threading.Event()
        self._gate = Gate()

    def is_set(self) -> bool:
        return self._closed.is_set()

    def set(self) -> None:
        self._closed.set()
        self._gate.open(1000)

    def wait(self, timeout: float) -> None:
        self.lengths.append(timeout)
        self._gate()

    def begun(self) -> float:
        """Wait until the thread has done a round; return the seconds that it means to pause."""
        self._gate.wait()
        return self.lengths[-1]

    def end(self) -> None:
        self._gate.open()


Begin = Callable[..., tuple[Publisher, Pauses]]


@pytest.fixture
def run() -> ScriptedRun:
    run = ScriptedRun(1000)
    run.status = "running"
    return run


@pytest.fixture
def begin(run: ScriptedRun) -> Iterator[Begin]:
    """Begin to publish ``run``; return the publisher and its pauses."""
    made: list[Publisher] = []

    def make(send: Any, **options: Any) -> tuple[Publisher, Pauses]:
        made.append(Publisher(run, send, interval=INTERVAL, **options))
        pauses = Pauses()
        made[-1]._closed = pauses  # type: ignore[assignment]
        return made[-1], pauses

    yield make
    for publisher in made:
        publisher.close()
        join(publisher._thread)


def counts(wire: Wire) -> list[tuple[int, int]]:
    """First record and number of records of each message."""
    return [(message["first"], message["count"]) for message, _ in wire.sent]


def test_what_comes_during_a_pause_is_one_message_after_it(run: ScriptedRun, begin: Begin) -> None:
    """Record 1 goes out at once. Records 2, 3 and 4 come during the pause: one message, and with it the new setting."""
    wire = Wire()
    _, pauses = begin(wire)
    run.append(record(1))
    assert pauses.begun() == INTERVAL
    assert counts(wire) == [(0, 1)]
    run.append(record(2))
    run.append(record(3), record(4))
    run.set(beta=3.0)
    assert counts(wire) == [(0, 1)], "the thread pauses"
    pauses.end()
    assert pauses.begun() == INTERVAL
    assert counts(wire) == [(0, 1), (1, 3)]
    assert wire.sent[-1][0]["state"]["settings"]["beta"] == 3.0


def test_last_state_arrives_and_then_nothing_more(run: ScriptedRun, begin: Begin) -> None:
    """The run ends during the pause after its record. The thread sends "finished", calls ``on_idle``, and waits."""
    wire, order = Wire(), []

    def send(message: Any, buffers: Any) -> None:
        wire(message, buffers)
        order.append("send")

    publisher, pauses = begin(send, on_idle=lambda: order.append("idle"))
    run.append(record(1))
    pauses.begun()
    assert order == ["send"], "a running run is not idle"
    run.status = "finished"
    run.notify_all()
    pauses.end()
    assert pauses.begun() == INTERVAL
    assert order == ["send", "send", "idle"]
    assert wire.sent[-1][0]["state"] == {"status": "finished"}
    assert [message["number"] for message, _ in wire.sent] == [1, 2]
    assert not publisher._wake.is_set(), "the thread waits for the next change"


@pytest.mark.parametrize("status", ["ready", "paused", "stopped"])
def test_run_that_is_not_running_is_idle(run: ScriptedRun, begin: Begin, status: Any) -> None:
    idle: list[str] = []
    run.status = status
    _, pauses = begin(Wire(), on_idle=lambda: idle.append(run.status))
    run.notify_all()
    pauses.begun()
    assert idle == [status]


def test_pause_doubles_while_sending_fails(run: ScriptedRun, begin: Begin, caplog: pytest.LogCaptureFixture) -> None:
    """Two intervals after the first failure, then 4, 8, 16, 32, 64 and 64; one after a success. One warning in all."""
    caplog.set_level(logging.DEBUG, module.__name__)
    wire, broken = Wire(), True

    def send(message: Any, buffers: Any) -> None:
        if broken:
            raise OSError("the socket is closed")
        wire(message, buffers)

    publisher, pauses = begin(send)
    run.append(record(1))  # the only notification: the thread tries again without one
    lengths = []
    for _ in range(7):
        lengths.append(pauses.begun())
        if len(lengths) < 7:
            pauses.end()
    assert MAX_DOUBLINGS == 6
    assert lengths == [INTERVAL * factor for factor in (2, 4, 8, 16, 32, 64, 64)]
    levels = [entry.levelname for entry in caplog.records]
    assert levels == ["WARNING", *["DEBUG"] * 6]
    assert caplog.messages[0] == "the page could not be updated; trying again"
    broken = False
    pauses.end()
    assert pauses.begun() == INTERVAL
    assert counts(wire) == [(1, 0)], "the record counts as sent; the page asks for what it missed"
    assert wire.sent[-1][0]["full"]
    assert not publisher._wake.is_set()


def test_samples_of_a_record_are_shown_in_the_next_round(run: ScriptedRun, begin: Begin) -> None:
    """A snapshot reads the record before the thread does; the thread shows the samples without a notification."""
    shown: list[Any] = []
    publisher, pauses = begin(Wire(), on_samples=shown.append)
    run.records.append(replace(record(3), samples=[SAMPLE]))
    publisher.snapshot()
    pauses.begun()
    assert [samples["step"] for samples in shown] == [3]
    run.append(record(4))
    pauses.end()
    pauses.begun()
    assert len(shown) == 1, "record 4 has no samples"


def test_interval_of_a_page_and_the_end_of_the_interpreter(run: ScriptedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five messages per second. At the exit all are closed; ``mint_lab.threads`` waits for their threads."""
    publishers = [Publisher(run, Wire()), Publisher(run, Wire())]
    assert publishers[0]._interval == 0.2
    monkeypatch.setattr(module, "_publishers", publishers)
    assert module._close_all in threads._callbacks
    module._close_all()
    for publisher in publishers:
        publisher.wait_closed(TIMEOUT)
        join(publisher._thread)


# -- requested tokens -------------------------------------------------------------------------------------------------


@pytest.fixture
def requested(run: ScriptedRun) -> list[Future[HeldOutTokens]]:
    """What the run was asked for, in order; the test answers."""
    futures: list[Future[HeldOutTokens]] = []

    def compute() -> Future[HeldOutTokens]:
        futures.append(Future())
        return futures[-1]

    run.records.extend(record(step) for step in range(1, 4))
    run.held_out_tokens = compute  # type: ignore[method-assign]
    return futures


def computed(run: ScriptedRun) -> HeldOutTokens:
    return ScriptedRun.held_out_tokens(run).result()


def test_one_request_of_tokens_is_pending_at_a_time(
    run: ScriptedRun, begin: Begin, requested: list[Future[HeldOutTokens]]
) -> None:
    """A second request before the answer asks the run for nothing; one after the answer does."""
    shown: list[Any] = []
    publisher, pauses = begin(Wire(), on_tokens=shown.append)
    publisher.request_tokens()
    publisher.request_tokens()
    assert len(requested) == 1
    run.notify_all()
    pauses.begun()
    assert shown == [], "they are not ready"
    requested[0].set_result(computed(run))  # wakes the thread
    pauses.end()
    pauses.begun()
    assert [(tokens["step"], tokens["about"]) for tokens in shown] == [(3, "pairwise_preference v1")]
    publisher.request_tokens()
    assert len(requested) == 2


def test_tokens_that_could_not_be_computed_can_be_requested_again(
    run: ScriptedRun, begin: Begin, requested: list[Future[HeldOutTokens]], caplog: pytest.LogCaptureFixture
) -> None:
    shown: list[Any] = []
    publisher, pauses = begin(Wire(), on_tokens=shown.append)
    publisher.request_tokens()
    requested[0].set_exception(RuntimeError("out of memory"))
    assert pauses.begun() == INTERVAL, "a failure of the model is none of the page"
    assert (shown, caplog.records) == ([], [])
    publisher.request_tokens()
    requested[1].set_result(computed(run))
    pauses.end()
    pauses.begun()
    assert [tokens["step"] for tokens in shown] == [3]
