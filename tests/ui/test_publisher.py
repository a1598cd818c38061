"""Messages of a run to its pages: complete, bounded, throttled, and the same picture whatever is lost or fails."""

from __future__ import annotations

import contextvars
import json
import math
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mint_lab.data.rewards import Reward
from mint_lab.losses import LossSpec, Param
from mint_lab.recipes.record import Edit
from mint_lab.ui.loss_catalogue import loss_catalogue
from mint_lab.ui.messages import PROTOCOL
from mint_lab.ui.publisher import MAX_REPEATED_RECORDS, Publisher
from mint_lab.ui.state import columns_of, histograms_of
from mint_lab.ui.wire_charts import charts_for
from tests.ui.listener import Page, Wire, assert_same_heats, attached
from tests.ui.scripted import Failed, ScriptedRun, record
from tests.waiting import TIMEOUT, join, until


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def run() -> ScriptedRun:
    return ScriptedRun(1000)


@pytest.fixture
def publisher(run: ScriptedRun, wire: Wire) -> Iterator[Publisher]:
    publisher = Publisher(run, wire, interval=60)
    run._subscribers.clear()  # the tests call publish() themselves
    yield publisher
    publisher.close()


def test_update_has_new_records_and_changed_state(run: ScriptedRun, publisher: Publisher, wire: Wire) -> None:
    run.append(record(1), record(2))
    assert publisher.publish() == 2
    message, (steps, values) = wire.sent[-1]
    assert (message["first"], message["count"], message["full"]) == (0, 2, True)
    assert struct.unpack("<2d", steps) == (1, 2)
    row = message["columns"].index("loss")
    sent = struct.unpack(f"<{2 * len(message['columns'])}f", values)[2 * row : 2 * row + 2]
    assert sent == pytest.approx([record(1).metrics["loss"], record(2).metrics["loss"]], rel=1e-6)
    run.append(record(3))
    publisher.publish()
    message, _ = wire.sent[-1]
    assert (message["first"], message["count"], message["full"]) == (2, 1, False)
    assert set(message["state"]) == {"steps_done", "histograms"}


def test_without_changes_nothing_is_sent(run: ScriptedRun, publisher: Publisher, wire: Wire) -> None:
    run.append(record(1))
    publisher.publish()
    sent = len(wire.sent)
    assert publisher.publish() == 0
    assert len(wire.sent) == sent


def test_metric_of_some_records_is_nan_in_the_others(run: ScriptedRun, publisher: Publisher, wire: Wire) -> None:
    run.append(record(1), record(2, extra=0.5), record(3, extra=1e300))
    publisher.publish()
    message, (_, values) = wire.sent[-1]
    row = message["columns"].index("extra")
    first, second, third = struct.unpack(f"<{3 * len(message['columns'])}f", values)[3 * row : 3 * row + 3]
    assert math.isnan(first)
    assert second == 0.5
    assert math.isnan(third)  # beyond float32


def test_message_size_does_not_depend_on_the_length_of_the_run(
    run: ScriptedRun, publisher: Publisher, wire: Wire
) -> None:
    sizes, snapshots = [], []
    same = record(400)
    for length in (1_000, 20_000):
        run.append(*(replace(same, step=step) for step in range(len(run.records) + 1, length)))
        publisher.publish()
        run.append(replace(same, step=length))
        publisher.publish()
        sizes.append(wire.size())
        series = publisher.snapshot()["series"]
        snapshots.append(sum(len(s["steps"]) + len(s["values"]) for s in series))
    assert abs(sizes[1] - sizes[0]) < 64  # numbers with more digits
    assert sizes[0] < 2000
    # 12 series of at most 512 buckets of 20 bytes.
    assert max(snapshots) <= 12 * 512 * 20


def test_page_that_missed_a_few_records_gets_them_and_the_full_state(
    run: ScriptedRun, publisher: Publisher, wire: Wire
) -> None:
    run.append(*(record(step) for step in range(1, 11)))
    publisher.sync(4, publisher.epoch)
    message, _ = wire.sent[-1]
    assert (message["type"], message["first"], message["count"], message["full"]) == ("update", 4, 6, True)


@pytest.mark.parametrize("since", [-1, 5])
def test_page_with_an_impossible_count_gets_a_snapshot(
    run: ScriptedRun, publisher: Publisher, wire: Wire, since: int
) -> None:
    run.append(record(1))
    publisher.sync(since, publisher.epoch)
    assert wire.sent[-1][0]["type"] == "snapshot"


def test_page_that_missed_many_records_or_showed_another_run_gets_a_snapshot(
    run: ScriptedRun, publisher: Publisher, wire: Wire
) -> None:
    run.append(*(record(step) for step in range(1, MAX_REPEATED_RECORDS + 3)))
    publisher.sync(1, publisher.epoch)
    assert wire.sent[-1][0]["type"] == "snapshot"
    publisher.sync(MAX_REPEATED_RECORDS, "another run")
    assert wire.sent[-1][0]["type"] == "snapshot"


def test_most_records_that_are_repeated(
    run: ScriptedRun, publisher: Publisher, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At most 4 here. New records: 4 are an update, 5 a snapshot. After 9: since 5 to 9 an update, 4 and 10 not."""
    monkeypatch.setattr("mint_lab.ui.publisher.MAX_REPEATED_RECORDS", 4)
    run.append(*(record(step) for step in range(1, 5)))
    assert publisher.publish() == 4
    assert (wire.sent[-1][0]["type"], wire.sent[-1][0]["count"]) == ("update", 4)
    run.append(*(record(step) for step in range(5, 10)))
    assert publisher.publish() == 5
    assert wire.sent[-1][0]["type"] == "snapshot"
    repeated = {}
    for since in (-1, 0, 4, 5, 8, 9, 10):
        sent = len(wire.sent)
        publisher.sync(since, publisher.epoch)
        ((message, buffers),) = wire.sent[sent:]
        repeated[since] = (message["first"], message["count"]) if message["type"] == "update" else None
        if message["type"] == "update":
            assert message["full"]
            assert struct.unpack(f"<{message['count']}d", buffers[0] if buffers else b"") == tuple(range(since + 1, 10))
    assert repeated == {-1: None, 0: None, 4: None, 5: (5, 4), 8: (8, 1), 9: (9, 0), 10: None}
    publisher.sync(8, "another run")
    assert wire.sent[-1][0]["type"] == "snapshot"
    numbers = [message["number"] for message, _ in wire.sent]
    assert numbers == [1, 2, 2, 2, 2, 3, 4, 5, 5, 5], "a snapshot has the number of the last message"


def test_values_beyond_float32_are_nan(run: ScriptedRun, publisher: Publisher, wire: Wire) -> None:
    run.append(*(record(step, odd=value) for step, value in enumerate((-3e38, 3e38, -1e39, math.inf, -math.inf), 1)))
    publisher.publish()
    message, (_, values) = wire.sent[-1]
    row = 5 * message["columns"].index("odd")
    sent = struct.unpack(f"<{len(values) // 4}f", values)[row : row + 5]
    assert sent[:2] == pytest.approx((-3e38, 3e38), rel=1e-6)
    assert all(map(math.isnan, sent[2:]))


def test_update_has_the_columns_of_its_records_only(run: ScriptedRun, publisher: Publisher, wire: Wire) -> None:
    """Record 10 has an evaluation, record 11 none; in between comes a message without records, and without buffers."""
    run.append(record(10))
    publisher.publish()
    assert "held_out/loss" in wire.sent[-1][0]["columns"]
    run.set(beta=2.0)
    publisher.publish()
    message, buffers = wire.sent[-1]
    assert (message["first"], message["count"], message["columns"], buffers) == (1, 0, [], [])
    assert set(message["state"]) == {"settings"}
    run.append(record(11))
    publisher.publish()
    message, (steps, values) = wire.sent[-1]
    assert set(message["columns"]) == set(record(11).metrics)
    assert (len(steps), len(values)) == (8, 4 * len(message["columns"]))
    assert message["histograms"] == [], "held-out ones have replaced those of training batches"


def test_snapshot_names_run_protocol_and_what_it_contains(run: ScriptedRun) -> None:
    publisher = Publisher(run, Wire(), base_model="a-model", data="my pairs", interval=60)
    run._subscribers.clear()
    run.append(record(1), record(2))
    first, second = publisher.snapshot(), publisher.snapshot()
    assert (first["type"], first["protocol"], first["epoch"]) == ("snapshot", PROTOCOL, publisher.epoch)
    assert (first["number"], first["seen"]) == (second["number"], second["seen"]) == (1, 2)
    assert (first["state"]["base_model"], first["state"]["data"]) == ("a-model", "my pairs")
    assert first["charts"] == charts_for("preference")
    assert first["losses"] == loss_catalogue(run.data_kind)
    assert [heat["name"] for heat in first["heats"]] == ["margin"]
    assert {series["name"]: series["points"] for series in first["series"]} == dict.fromkeys(columns_of(record(1)), 2)
    publisher.close()


def test_many_records_at_once_are_sent_as_a_snapshot(run: ScriptedRun, publisher: Publisher, wire: Wire) -> None:
    run.append(*(replace(record(400), step=step) for step in range(1, MAX_REPEATED_RECORDS + 2)))
    assert publisher.publish() == MAX_REPEATED_RECORDS + 1
    message, buffers = wire.sent[-1]
    assert (message["type"], message["seen"]) == ("snapshot", MAX_REPEATED_RECORDS + 1)
    assert wire.size() < 200_000
    assert publisher.publish() == 0
    series = {part["name"]: part for part in attached(message, buffers)["series"]}
    assert series["loss"]["points"] == MAX_REPEATED_RECORDS + 1


def test_snapshot_message_has_its_data_in_buffers(run: ScriptedRun, publisher: Publisher, wire: Wire) -> None:
    run.append(*(record(step) for step in range(1, 101)))
    publisher.sync(0, "")
    message, buffers = wire.sent[-1]
    assert message["type"] == "snapshot"
    # The JSON has no bytes: as text they would be lost in the page.
    assert {part[key] for part in message["series"] + message["heats"] for key in ("steps", "values")} == {"<0 bytes>"}
    page = Page()
    page.receive(message, buffers)
    assert page.columns["loss"] == [(r.step, pytest.approx(r.metrics["loss"], rel=1e-6)) for r in run.records]
    assert_same_heats(page, publisher)


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("records"), st.integers(1, 5)), st.sampled_from([("publish", 0), ("sync", 0), ("edit", 0)])
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=60)
@given(actions=ACTIONS, lost=st.randoms(use_true_random=False))
def test_page_is_complete_whatever_messages_are_lost(actions: Any, lost: Any) -> None:
    run, page = ScriptedRun(1000), Page()
    reliable = False

    def unreliable(message: Any, buffers: Any) -> None:
        if reliable or lost.random() > 0.4:
            page.receive(message, buffers)

    publisher = Publisher(run, unreliable, interval=60)
    run._subscribers.clear()
    page.receive(publisher.snapshot(), [])
    for action, count in actions:
        if action == "records":
            done = len(run.records)
            run.append(*(record(step) for step in range(done + 1, done + 1 + count)))
        elif action == "edit":
            run.set(beta=1 + len(run._pending) / 100)
        elif action == "publish":
            publisher.publish()
        if action == "sync" or page.wants_sync:
            publisher.sync(page.seen, page.epoch)
    reliable = True
    publisher.publish()
    publisher.sync(page.seen, page.epoch)
    publisher.close()
    assert page.seen == len(run.records)
    assert [step for step, _ in page.columns.get("loss", [])] == [r.step for r in run.records]
    assert page.state == publisher.snapshot()["state"]
    assert_same_heats(page, publisher)


def test_thread_sends_every_record_and_the_final_state(wire: Wire) -> None:
    idle = threading.Event()
    run = ScriptedRun(40, rate=400)
    publisher = Publisher(run, wire, interval=0.02, on_idle=idle.set)
    run.start()
    assert run.wait()
    assert idle.wait(TIMEOUT)
    until(lambda: publisher._state()["status"] == publisher._sent["status"])  # type: ignore[index]
    publisher.close()
    updates = [message for message, _ in wire.sent]
    assert sum(message["count"] for message in updates) == 40
    assert [message["number"] for message in updates] == list(range(1, len(updates) + 1))
    final: dict[str, Any] = {}
    for message in updates:
        final |= message["state"]
    assert (final["status"], final["steps_done"]) == ("finished", 40)


def test_thread_runs_in_the_context_of_its_creator(run: ScriptedRun) -> None:
    # ipykernel finds the cell of a message by context variables.
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="elsewhere")
    variable.set("here")
    found: list[str] = []
    heard = threading.Event()

    def send(message: Any, buffers: Any) -> None:
        found.append(variable.get())
        heard.set()

    publisher = Publisher(run, send, interval=0.01)
    run.append(record(1))
    assert heard.wait(TIMEOUT)
    publisher.close()
    assert found[0] == "here"


def test_closing_ends_thread_and_subscription(wire: Wire) -> None:
    run = ScriptedRun()
    publisher = Publisher(run, wire, interval=0.01)
    thread = publisher._thread
    publisher.close()
    publisher.close()
    join(thread)
    assert run.subscribers == 0
    run.append(record(1))
    assert publisher.publish() == 0
    assert wire.sent == []


def test_publishing_reads_only_what_is_new(
    run: ScriptedRun, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its cost does not grow with the run: five times per second, each record that was sent would cost a step."""
    run.append(*(record(step) for step in range(1, 1_001)))
    publisher.publish()
    read: list[int] = []
    for name, real in (("columns_of", columns_of), ("histograms_of", histograms_of)):
        monkeypatch.setattr(
            f"mint_lab.ui.publisher.{name}", lambda made, real=real: (read.append(made.step), real(made))[1]
        )
    run.append(*(record(step) for step in range(1_001, 1_005)))
    assert publisher.publish() == 4
    assert sorted(set(read)) == [1_001, 1_002, 1_003, 1_004]
    assert len(read) == 4 * 4  # once for the history, and once for the message


def test_latest_samples_are_shown_once(wire: Wire) -> None:
    """Also if several records with samples arrive at once, and later ones have none."""
    run, shown = ScriptedRun(100, recipe="rl"), []
    publisher = Publisher(run, wire, interval=0.01, on_samples=shown.append)
    sample = {"source": "held-out", "prompt": "p", "response": "r", "reward": 1.0}
    run.append(*(replace(record(step), samples=[sample] if step in (2, 3) else []) for step in (1, 2, 3, 4)))
    until(lambda: bool(shown))
    run.append(record(5))
    until(lambda: publisher.snapshot()["seen"] == 5)
    publisher.close()
    assert [made["step"] for made in shown] == [3]


def test_samples_of_an_idle_run_are_shown(wire: Wire) -> None:
    run, shown = ScriptedRun(100, recipe="rl"), threading.Event()
    sample = {"source": "held-out", "prompt": "p", "response": "r", "reward": 1.0}
    run.append(replace(record(1), samples=[sample]))
    publisher = Publisher(run, wire, interval=0.01, on_samples=lambda _: shown.set())
    publisher.send_snapshot()
    assert shown.wait(TIMEOUT)
    publisher.close()


def test_heat_maps_from_updates_are_those_of_a_snapshot(run: ScriptedRun, publisher: Publisher) -> None:
    """Training histograms first, then held-out ones every tenth step; merged twice; and again after a resync."""
    page = Page()
    publisher._send = page.receive  # also what a sync sends
    page.receive(publisher.snapshot(), [])
    for step in range(1, 2_801):
        run.append(record(step, 2_800))
        if step % 7 == 0 or step < 12:
            publisher.publish()
        if step == 8:
            assert page.heats.heats["margin"].source == "training"
    publisher.publish()
    margin = page.heats.heats["margin"]
    assert (margin.source, margin.points, margin.width) == ("held-out", 280, 4)
    assert_same_heats(page, publisher)
    run.append(*(record(step, 2_800) for step in range(2_801, 2_860)))
    publisher._send = lambda message, buffers: None  # lost on the way
    publisher.publish()
    publisher._send = page.receive
    publisher.sync(page.seen, page.epoch)
    assert page.heats.heats["margin"].points == 285
    assert_same_heats(page, publisher)


# -- failures ---------------------------------------------------------------------------------------------------------

HALF = "so funny \ud83d"
"""Text with half an emoji, as truncation leaves it; UTF-8 cannot encode it."""


def strict(message: Any, buffers: Any) -> None:
    """Serialize a message as a kernel does."""
    json.dumps(message, default=str, ensure_ascii=False).encode("utf-8")


def test_every_text_of_a_run_is_sent_as_utf8(run: ScriptedRun) -> None:
    heard: list[Any] = []
    publisher = Publisher(run, lambda *sent: (strict(*sent), heard.append(sent[0])), base_model=HALF, data=HALF)
    run._subscribers.clear()
    run.loss = LossSpec(
        name=HALF, family="custom", fn=lambda data, logprobs: None, params=(Param(HALF, 1.0, 0.5, 2.0, HALF),)
    )
    run._config = {HALF: 1.0}
    run.baseline = {HALF: 0.5}
    run.edits.append(Edit(1, "loss", HALF))
    run.error = Failed(HALF, traceback=HALF, loss=HALF, reward=Reward(HALF, max))
    run.append(replace(record(1, **{HALF: 2.0}), warnings=[HALF]))
    assert publisher.publish() == 1
    state = heard[-1]["state"]
    assert state["failure"]["message"] == state["warnings"][0] == state["marks"][0]["label"] == "so funny \\ud83d"
    assert state["settings"][r"so funny \ud83d"] == 1.0
    assert r"so funny \ud83d" in heard[-1]["columns"]
    strict(publisher.snapshot(), [])
    publisher.close()


def test_failed_send_is_followed_by_the_full_state(run: ScriptedRun, publisher: Publisher) -> None:
    page, broken = Page(), True

    def send(message: Any, buffers: Any) -> None:
        if broken:
            raise OSError("the socket is closed")
        page.receive(message, buffers)

    page.receive(publisher.snapshot(), [])
    publisher._send = send
    run.append(record(1), record(2))
    run.steps_total = 77
    with pytest.raises(OSError, match="socket"):
        publisher.publish()
    broken = False
    assert publisher.publish() == 0
    assert page.wants_sync  # an empty update shows the page that it missed one
    publisher.sync(page.seen, page.epoch)
    assert page.state["steps_total"] == 77
    assert [step for step, _ in page.columns["loss"]] == [1, 2]


def test_state_that_arrived_although_sending_failed_is_taken_back(run: ScriptedRun, publisher: Publisher) -> None:
    """One page has the message when another page's socket fails; then the state is what it was before."""
    page = Page()

    def send(message: Any, buffers: Any) -> None:
        page.receive(message, buffers)
        if page.state["steps_total"] == 77:
            raise OSError("the socket is closed")

    publisher.publish()
    page.receive(publisher.snapshot(), [])
    publisher._send = send
    run.steps_total = 77
    with pytest.raises(OSError, match="socket"):
        publisher.publish()
    assert page.state["steps_total"] == 77
    run.steps_total = 1000
    publisher.publish()
    assert page.state["steps_total"] == 1000


@pytest.mark.parametrize("job", ["send", "on_tokens", "on_samples", "on_idle"])
def test_failure_affects_only_its_own_job(run: ScriptedRun, caplog: pytest.LogCaptureFixture, job: str) -> None:
    heard: list[str] = []
    failing = threading.Event()

    def does(name: str) -> Any:
        def do(*_: Any) -> None:
            if name == job and not failing.is_set():
                failing.set()
                raise RuntimeError("it is broken")
            heard.append(name)

        return do

    names = ("on_tokens", "on_samples", "on_idle")
    publisher = Publisher(run, does("send"), interval=0.01, **{name: does(name) for name in names})
    sample = {"source": "held-out", "prompt": "p", "response": "r", "reward": 1.0}
    run.append(replace(record(1), samples=[sample]))
    publisher.request_tokens()
    until(lambda: failing.is_set() and {"send", "on_idle"} <= set(heard))
    assert publisher._thread.is_alive()
    heard.clear()
    run.append(replace(record(2), samples=[sample]))
    publisher.request_tokens()
    until(lambda: len(set(heard)) == 4)
    publisher.close()
    assert set(heard) == {"send", *names}
    assert [entry.levelname for entry in caplog.records if entry.levelname == "WARNING"] == ["WARNING"]
    assert "it is broken" in caplog.text


def test_snapshot_has_the_state_that_was_sent(run: ScriptedRun, publisher: Publisher) -> None:
    """With a newer state, no message would report that the run returns to the state that was sent."""
    page, whole = Page(), publisher._state
    statuses = iter(["ready", "running"])

    def flickering() -> Any:
        state = whole()
        state["status"] = next(statuses, "ready")  # type: ignore[typeddict-item]
        return state

    publisher._state = flickering  # type: ignore[method-assign]
    publisher._send = page.receive
    page.receive(publisher.snapshot(), [])
    for _ in range(3):
        publisher.publish()
    assert page.state["status"] == "ready"


def test_record_that_was_interrupted_is_counted_once(
    run: ScriptedRun, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.append(*(record(step) for step in range(1, 13)))
    calls = iter(range(1, 100))

    def interrupted(entry: Any) -> dict[str, float]:
        if next(calls) == 9:
            raise KeyboardInterrupt
        return columns_of(entry)

    monkeypatch.setattr("mint_lab.ui.publisher.columns_of", interrupted)
    with pytest.raises(KeyboardInterrupt):
        publisher.snapshot()
    monkeypatch.undo()
    snapshot = publisher.snapshot()
    assert snapshot["seen"] == 12
    assert {series["points"] for series in snapshot["series"] if series["name"] == "loss"} == {12}
    assert {heat["points"] for heat in snapshot["heats"]} == {len([r for r in run.records if r.held_out])}


AT_EXIT = """
import sys, threading
sys.path.insert(0, {root!r})
from mint_lab.ui.pictures import picture_of_run
from mint_lab.ui.publisher import Publisher
from tests.ui.scripted import ScriptedRun

drawing, run = threading.Event(), ScriptedRun(40, rate=1e9)

def draw():
    picture_of_run(run)
    drawing.set()
    while not publisher._closed.is_set():
        picture_of_run(run)

publisher = Publisher(run, lambda message, buffers: None, on_idle=draw)
run.start()
assert drawing.wait(60)
"""


def test_a_script_that_ends_while_a_picture_is_drawn_exits_cleanly() -> None:
    """The publisher's thread is drawing when the interpreter exits; without an orderly end the process would abort."""
    code = AT_EXIT.format(root=str(Path(__file__).resolve().parents[2]))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
