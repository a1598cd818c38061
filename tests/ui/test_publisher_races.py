"""A publisher is used by its own thread and by the kernel's: each message is complete, numbered once, and in order."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import pytest

from mint_lab.recipes.record import Edit
from mint_lab.ui.publisher import Publisher
from tests.ui.listener import Page
from tests.ui.scripted import ScriptedRun, record
from tests.waiting import Attempt, Gate, join


class SlowWire:
    """Records messages; who sends the first one after ``hold`` was called stops at the gate in the middle."""

    def __init__(self) -> None:
        self.sent: list[tuple[Any, Any]] = []
        self.gate = Gate(holds=1)
        self.holds = False

    def __call__(self, message: Any, buffers: Any) -> None:
        if self.holds:
            self.gate()
        self.sent.append((message, buffers))


@pytest.fixture
def run() -> ScriptedRun:
    return ScriptedRun(1000)


@pytest.fixture
def publisher(run: ScriptedRun) -> Iterator[Publisher]:
    """Without notifications: the tests say who publishes."""
    publisher = Publisher(run, SlowWire(), interval=60)
    run._subscribers.clear()
    run.append(*(record(step) for step in range(1, 4)))
    publisher.publish()
    yield publisher
    publisher.close()


CALLS: dict[str, Callable[[Publisher], Any]] = {
    "publish": lambda publisher: publisher.publish(),
    "sync": lambda publisher: publisher.sync(1, publisher.epoch),
    "sync of another run": lambda publisher: publisher.sync(1, "another"),
    "send_snapshot": lambda publisher: publisher.send_snapshot(),
    "snapshot": lambda publisher: publisher.snapshot()["seen"],
}


def begin(publisher: Publisher, call: str) -> tuple[threading.Thread, Gate]:
    """Begin a call on a thread of its own, after a new record; it is held while it sends."""
    publisher.run.append(record(len(publisher.run.records) + 1))  # type: ignore[attr-defined]
    wire: Any = publisher._send
    wire.holds = True
    thread = threading.Thread(target=CALLS[call], args=(publisher,))
    thread.start()
    wire.gate.wait()
    return thread, wire.gate


@pytest.mark.parametrize("first", CALLS)
@pytest.mark.parametrize("second", CALLS)
def test_messages_of_two_threads_are_in_order(publisher: Publisher, first: str, second: str) -> None:
    """The second call waits. The numbers have no gap and no duplicate, and a page has the whole run at the end."""
    page = Page()
    page.receive(publisher.snapshot(), [])
    thread, gate = begin(publisher, first)
    publisher.run.append(record(5))  # type: ignore[attr-defined]
    attempt = Attempt(lambda: CALLS[second](publisher), publisher, "_lock")
    assert attempt.waits
    gate.open()
    join(thread)
    attempt.result()
    wire: Any = publisher._send
    numbers = [message["number"] for message, _ in wire.sent]
    assert sorted(set(numbers)) == list(range(1, max(numbers) + 1))
    assert numbers == sorted(numbers)
    updates = [message["number"] for message, _ in wire.sent if message["type"] == "update"]
    assert len(set(updates)) == len(updates)
    publisher.publish()
    for message, buffers in wire.sent:
        page.receive(message, buffers)
    assert page.seen == 5
    assert [step for step, _ in page.columns["loss"]] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("call", ["sync", "sync of another run", "send_snapshot"])
def test_answer_to_a_page_is_not_overtaken(publisher: Publisher, call: str) -> None:
    """Nothing is new when a page asks. A record that comes while the answer is sent follows it."""
    wire: Any = publisher._send
    wire.holds = True
    page = Page()
    page.receive(publisher.snapshot(), [])
    sent = len(wire.sent)
    thread = threading.Thread(target=CALLS[call], args=(publisher,))
    thread.start()
    wire.gate.wait()
    publisher.run.append(record(4))  # type: ignore[attr-defined]
    attempt = Attempt(publisher.publish, publisher, "_lock")
    assert attempt.waits
    answered = publisher._number
    wire.gate.open()
    join(thread)
    assert attempt.result() == 1
    numbers = [message["number"] for message, _ in wire.sent[sent:]]
    assert numbers == [answered, answered + 1]
    for message, buffers in wire.sent:
        page.receive(message, buffers)
    assert [step for step, _ in page.columns["loss"]] == [1, 2, 3, 4]


@pytest.mark.parametrize("call", ["publish", "snapshot"])
def test_nobody_reads_records_while_a_snapshot_is_made(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    """Otherwise its curves, heat maps and number could be of different moments."""
    gate, real = Gate(holds=1), publisher._history.to_data
    monkeypatch.setattr(publisher._history, "to_data", lambda: (gate(), real())[1])
    made: list[Any] = []
    thread = threading.Thread(target=lambda: made.append(publisher.snapshot()))
    thread.start()
    gate.wait()
    publisher.run.append(record(4))  # type: ignore[attr-defined]
    attempt = Attempt(lambda: CALLS[call](publisher), publisher, "_lock")
    assert attempt.waits
    gate.open()
    join(thread)
    attempt.result()
    points = {series["points"] for series in made[0]["series"] if series["name"] == "loss"}
    assert (made[0]["seen"], points, made[0]["number"]) == (3, {3}, 1)


def test_requests_for_tokens_wait_for_each_other(publisher: Publisher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pages ask at once: the model computes the tokens once."""
    gate, asked = Gate(holds=1), []

    def slow() -> Future[Any]:
        asked.append(1)
        gate()
        return Future()

    monkeypatch.setattr(publisher.run, "held_out_tokens", slow)
    first = threading.Thread(target=publisher.request_tokens)
    first.start()
    gate.wait()
    attempts = [Attempt(call, publisher, "_lock") for call in (publisher.request_tokens, publisher._show_tokens)]
    assert [attempt.waits for attempt in attempts] == [True, True]
    gate.open()
    join(first)
    for attempt in attempts:
        attempt.result()
    assert asked == [1]


def test_samples_that_are_read_meanwhile_are_shown_next(publisher: Publisher) -> None:
    """The thread takes the record to show, and another thread must not read a new one in between."""
    thread, gate = begin(publisher, "publish")
    attempt = Attempt(publisher._show_samples, publisher, "_lock")
    assert attempt.waits
    gate.open()
    join(thread)
    attempt.result()


def test_tokens_are_shown_without_the_lock(run: ScriptedRun) -> None:
    """The widget takes its own lock to show them, and holds that lock when it asks for a snapshot."""
    waits: list[bool] = []
    publisher = Publisher(
        run,
        lambda message, buffers: None,
        interval=60,
        on_tokens=lambda tokens: waits.append(Attempt(publisher.snapshot, publisher, "_lock").waits),
    )
    run._subscribers.clear()
    run.append(record(1))
    future = run.held_out_tokens()
    publisher._tokens = future
    publisher._show_tokens()
    publisher.close()
    assert waits == [False]


def test_change_during_a_round_leads_to_another_round(run: ScriptedRun) -> None:
    """The thread clears the signal before it looks, and not after."""
    gate, counts = Gate(), []

    def send(message: Any, buffers: Any) -> None:
        counts.append(message["count"])
        gate()

    publisher = Publisher(run, send, interval=0)
    run.append(record(1))
    gate.wait()
    run.append(record(2))
    gate.open()
    gate.wait()
    assert counts == [1, 1]
    publisher.close()
    gate.open()
    join(publisher._thread)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("moment", ["before the state", "in the state"])
def test_a_rewind_never_mixes_old_and_new_steps(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch, call: str, moment: str
) -> None:
    """The run goes back to step 1 and on with another edit while a message is made."""
    run: Any = publisher.run
    run.edits.append(Edit(2, "setting", "old"))
    page = Page()
    page.receive(publisher.snapshot(), [])
    gate, real = Gate(holds=1), publisher._state
    if moment == "before the state":
        read = publisher._read_records
        monkeypatch.setattr(publisher, "_read_records", lambda: (read(), gate())[0])
    else:
        monkeypatch.setattr(publisher, "_state", lambda: (gate(), real())[1])
    run.append(record(4))
    made: list[Any] = []
    thread = threading.Thread(target=lambda: made.append(CALLS[call](publisher)))
    thread.start()
    gate.wait()

    def rewind() -> None:
        run.rewind(1)
        with run.reading:
            run.edits.append(Edit(2, "setting", "new"))
            run.records.append(record(2, 99))

    rewinding = threading.Thread(target=rewind)
    rewinding.start()
    if moment == "before the state":
        join(rewinding)  # the run does not wait for a page
    gate.open()
    join(thread)
    join(rewinding)
    publisher.publish()
    wire: Any = publisher._send
    assert wire.sent
    for message, buffers in wire.sent:
        page.receive(message, buffers)
        assert page.state["steps_done"] == len(page.columns["loss"])
        labels = [mark["label"] for mark in page.state["marks"]]
        assert labels in ([["old"]] if page.seen > 2 else [[], ["new"]])
    assert [value for _, value in page.columns["loss"]] == pytest.approx(
        [made.metrics["loss"] for made in run.records], rel=1e-6
    )
