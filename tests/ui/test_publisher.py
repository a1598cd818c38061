from __future__ import annotations

import contextvars
import gc
import json
import math
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mint_lab.data.rewards import REWARDS, Reward
from mint_lab.losses import LOSSES
from mint_lab.ui.publisher import MAX_REPEATED_RECORDS, Publisher
from tests.ui.listener import Page, Wire, assert_same_heats, attached
from tests.ui.scripted import Failed, ScriptedRun, record


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
def run() -> ScriptedRun:
    return ScriptedRun(1000)


@pytest.fixture
def publisher(run: ScriptedRun, wire: Wire) -> Iterator[Publisher]:
    # Notified by nobody: the tests call publish() themselves.
    quiet = Publisher(run, wire, interval=60)
    run._subscribers.clear()
    yield quiet
    quiet.close()


def test_an_update_carries_what_is_new_and_what_changed(run: ScriptedRun, publisher: Publisher, wire: Wire) -> None:
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


def test_nothing_new_sends_nothing(run: ScriptedRun, publisher: Publisher, wire: Wire) -> None:
    run.append(record(1))
    publisher.publish()
    sent = len(wire.sent)
    assert publisher.publish() == 0
    assert len(wire.sent) == sent


def test_a_metric_of_some_records_only_is_nan_in_the_others(run: ScriptedRun, publisher: Publisher, wire: Wire) -> None:
    run.append(record(1), record(2, extra=0.5), record(3, extra=1e300))
    publisher.publish()
    message, (_, values) = wire.sent[-1]
    row = message["columns"].index("extra")
    first, second, third = struct.unpack(f"<{3 * len(message['columns'])}f", values)[3 * row : 3 * row + 3]
    assert math.isnan(first)
    assert second == 0.5
    assert math.isnan(third)  # beyond float32


def test_state_is_json_whatever_the_numbers(run: ScriptedRun, publisher: Publisher, wire: Wire) -> None:
    run.baseline = {"loss": math.nan, "pair_accuracy": 0.5}
    run.append(record(1, weird=math.inf))
    publisher.publish()
    assert wire.sent[-1][0]["state"]["baseline"] == {"pair_accuracy": 0.5}
    json.dumps(wire.sent[-1][0], allow_nan=False)


def test_a_message_grows_with_what_is_new_and_never_with_the_run(
    run: ScriptedRun, publisher: Publisher, wire: Wire
) -> None:
    sizes, snapshots = [], []
    for length in (1_000, 20_000):
        run.append(*(record(step) for step in range(len(run.records) + 1, length)))
        publisher.publish()
        run.append(replace(record(400), step=length))  # the same numbers each time
        publisher.publish()
        sizes.append(wire.size())
        series = publisher.snapshot()["series"]
        snapshots.append(sum(len(s["steps"]) + len(s["values"]) for s in series))
    assert abs(sizes[1] - sizes[0]) < 64  # numbers with more digits
    assert sizes[0] < 2000
    # 12 series of at most 512 buckets of 20 bytes.
    assert max(snapshots) <= 12 * 512 * 20


def test_edits_that_travel_are_limited_and_counted(run: ScriptedRun, publisher: Publisher) -> None:
    for step in range(1, 500):
        run.append(record(step))
        run.set(beta=1 + step / 1000)
        run.edits.extend(run._pending)
        run._pending.clear()
    state = publisher.snapshot()["state"]
    assert (len(state["marks"]), state["marks_total"]) == (60, 499)


def test_a_page_that_missed_little_gets_the_records_and_all_of_the_state(
    run: ScriptedRun, publisher: Publisher, wire: Wire
) -> None:
    run.append(*(record(step) for step in range(1, 11)))
    publisher.sync(4, publisher.epoch)
    message, _ = wire.sent[-1]
    assert (message["type"], message["first"], message["count"], message["full"]) == ("update", 4, 6, True)


@pytest.mark.parametrize("since", [-1, 5])
def test_a_page_that_makes_no_sense_gets_the_whole_picture(
    run: ScriptedRun, publisher: Publisher, wire: Wire, since: int
) -> None:
    run.append(record(1))
    publisher.sync(since, publisher.epoch)
    assert wire.sent[-1][0]["type"] == "snapshot"


def test_a_page_that_missed_much_or_showed_another_run_gets_the_whole_picture(
    run: ScriptedRun, publisher: Publisher, wire: Wire
) -> None:
    run.append(*(record(step) for step in range(1, MAX_REPEATED_RECORDS + 3)))
    publisher.sync(1, publisher.epoch)
    assert wire.sent[-1][0]["type"] == "snapshot"
    publisher.sync(MAX_REPEATED_RECORDS, "another run")
    assert wire.sent[-1][0]["type"] == "snapshot"


def test_many_records_at_once_travel_as_a_snapshot(run: ScriptedRun, publisher: Publisher, wire: Wire) -> None:
    run.append(*(replace(record(400), step=step) for step in range(1, MAX_REPEATED_RECORDS + 2)))
    assert publisher.publish() == MAX_REPEATED_RECORDS + 1
    message, buffers = wire.sent[-1]
    assert (message["type"], message["seen"]) == ("snapshot", MAX_REPEATED_RECORDS + 1)
    assert wire.size() < 200_000
    assert publisher.publish() == 0
    series = {part["name"]: part for part in attached(message, buffers)["series"]}
    assert series["loss"]["points"] == MAX_REPEATED_RECORDS + 1


def test_a_page_that_comes_to_a_run_with_a_past_gets_all_of_it_as_buffers(
    run: ScriptedRun, publisher: Publisher, wire: Wire
) -> None:
    run.append(*(record(step) for step in range(1, 101)))
    publisher.sync(0, "")
    message, buffers = wire.sent[-1]
    assert message["type"] == "snapshot"
    # The JSON holds none of the bytes: as text they would be lost on the page.
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
def test_no_record_is_lost_or_doubled_whatever_gets_lost_on_the_way(actions: Any, lost: Any) -> None:
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


def test_the_thread_follows_the_run_and_ends_with_its_last_word(wire: Wire) -> None:
    idle = threading.Event()
    run = ScriptedRun(40, rate=400)
    publisher = Publisher(run, wire, interval=0.02, on_idle=idle.set)
    run.start()
    assert run.wait()
    assert idle.wait(5)
    deadline = time.monotonic() + 5
    while publisher._state()["status"] != publisher._sent["status"] and time.monotonic() < deadline:  # type: ignore[index]
        time.sleep(0.01)
    publisher.close()
    updates = [message for message, _ in wire.sent]
    assert sum(message["count"] for message in updates) == 40
    assert [message["number"] for message in updates] == list(range(1, len(updates) + 1))
    final: dict[str, Any] = {}
    for message in updates:
        final |= message["state"]
    assert (final["status"], final["steps_done"]) == ("finished", 40)


def test_messages_are_throttled(wire: Wire) -> None:
    run = ScriptedRun(200, rate=1000)
    publisher = Publisher(run, wire, interval=0.1)
    began = time.monotonic()
    run.start()
    assert run.wait()
    time.sleep(0.15)
    took = time.monotonic() - began
    publisher.close()
    assert len(wire.sent) <= took / 0.1 + 2


def test_the_thread_runs_in_its_creators_context(run: ScriptedRun) -> None:
    # ipykernel finds out by context variables where a message belongs.
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="elsewhere")
    variable.set("here")
    found: list[str] = []
    heard = threading.Event()

    def send(message: Any, buffers: Any) -> None:
        found.append(variable.get())
        heard.set()

    publisher = Publisher(run, send, interval=0.01)
    run.append(record(1))
    assert heard.wait(5)
    publisher.close()
    assert found[0] == "here"


def test_closing_leaves_nothing_behind(wire: Wire) -> None:
    run = ScriptedRun()
    publisher = Publisher(run, wire, interval=0.01)
    thread = publisher._thread
    publisher.close()
    publisher.close()
    thread.join(5)
    assert not thread.is_alive()
    assert run.subscribers == 0
    run.append(record(1))
    assert publisher.publish() == 0
    assert wire.sent == []


def test_a_page_costs_the_interpreter_little(run: ScriptedRun, publisher: Publisher) -> None:
    # Five publishes a second of a few records each: below 2 % of one core, generously measured.
    run.append(*(record(step) for step in range(1, 5_001)))
    publisher.publish()
    gc.disable()
    try:
        took = []
        for i in range(50):
            run.append(*(record(5_001 + 4 * i + k) for k in range(4)))
            began = time.perf_counter()
            publisher.publish()
            took.append(time.perf_counter() - began)
    finally:
        gc.enable()
    assert sorted(took)[25] < 0.004


def test_the_latest_samples_are_shown_once(wire: Wire) -> None:
    """Also where several records with samples come at once, and later ones have none."""
    run, shown = ScriptedRun(100, recipe="rl"), []
    publisher = Publisher(run, wire, interval=0.01, on_samples=shown.append)
    sample = {"source": "held-out", "prompt": "p", "response": "r", "reward": 1.0}
    run.append(*(replace(record(step), samples=[sample] if step in (2, 3) else []) for step in (1, 2, 3, 4)))
    deadline = time.monotonic() + 10
    while not shown and time.monotonic() < deadline:
        time.sleep(0.01)
    run.append(record(5))
    while publisher.snapshot()["seen"] < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    publisher.close()
    assert [made["step"] for made in shown] == [3]


def test_the_clip_that_acted_and_the_one_that_will(run: ScriptedRun, publisher: Publisher) -> None:
    run.recipe, run.loss, run._config = "rl", LOSSES["ppo"], LOSSES["ppo"].config({"clip_low_threshold": 0.5})
    counts = {"log_ratio/positive": [1] * 41, "log_ratio/negative": [0] * 41}
    run.append(replace(record(1), loss_name="ppo", histograms=counts, settings=LOSSES["ppo"].config(), clip=(0.8, 1.2)))
    state = publisher.snapshot()["state"]
    assert [histogram["clip"] for histogram in state["histograms"]] == [[0.8, 1.2], [0.8, 1.2]]
    assert state["clip"] == {
        "low": {"setting": "clip_low_threshold", "base": 0.0, "slope": 1.0},
        "high": {"setting": "clip_high_threshold", "base": 0.0, "slope": 1.0},
        "both": False,
    }
    assert state["settings"]["clip_low_threshold"] == 0.5
    run.loss, run._config = LOSSES["gspo"], LOSSES["gspo"].config()  # clips whole samples
    run.append(replace(record(2), loss_name="gspo", histograms=counts, settings=LOSSES["gspo"].config()))
    state = publisher.snapshot()["state"]
    assert state["clip"] is None
    assert [histogram["clip"] for histogram in state["histograms"]] == [None, None]


def test_samples_of_a_run_that_rests_are_shown(wire: Wire) -> None:
    run, shown = ScriptedRun(100, recipe="rl"), threading.Event()
    sample = {"source": "held-out", "prompt": "p", "response": "r", "reward": 1.0}
    run.append(replace(record(1), samples=[sample]))
    publisher = Publisher(run, wire, interval=0.01, on_samples=lambda _: shown.set())
    publisher.send_snapshot()
    assert shown.wait(10)
    publisher.close()


def test_heat_maps_built_from_updates_are_those_of_a_snapshot(run: ScriptedRun, publisher: Publisher) -> None:
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


def test_a_failed_reward_is_named_unless_it_is_built_in(run: ScriptedRun, publisher: Publisher) -> None:
    run.error = Failed("mine v1: ZeroDivisionError", line=2, reward=Reward("mine", max))
    failure = publisher.snapshot()["state"]["failure"]
    assert failure is not None
    assert (failure["loss"], failure["reward"]) == (None, "mine")
    run.error = Failed("gsm8k v1: KeyError", reward=REWARDS["gsm8k"])
    failure = publisher.snapshot()["state"]["failure"]
    assert failure is not None
    assert failure["reward"] is None
