"""What goes wrong on the way to a page costs that page a message, and nothing else."""

from __future__ import annotations

import json
import threading
import time
from dataclasses import replace
from typing import Any

import pytest

from mint_lab.data.rewards import Reward
from mint_lab.losses import LossSpec, Param
from mint_lab.recipes.record import Edit
from mint_lab.ui.publisher import Publisher
from mint_lab.ui.state import columns_of
from tests.ui.listener import Page
from tests.ui.scripted import Failed, ScriptedRun, record
from tests.ui.test_publisher import publisher, run, wire

__all__ = ["publisher", "run", "wire"]

HALF = "so funny \ud83d"
"""Half an emoji, as text that was cut has it: no message can carry it."""


def strict(message: Any, buffers: Any) -> None:
    """What a kernel does with a message before it goes out."""
    json.dumps(message, default=str, ensure_ascii=False).encode("utf-8")


def test_every_text_of_a_run_can_travel(run: ScriptedRun) -> None:
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
    shown = heard[-1]["state"]
    assert shown["failure"]["message"] == shown["warnings"][0] == shown["marks"][0]["label"] == "so funny \\ud83d"
    assert shown["settings"][r"so funny \ud83d"] == 1.0
    assert r"so funny \ud83d" in heard[-1]["columns"]
    strict(publisher.snapshot(), [])
    publisher.close()


def test_what_was_lost_in_a_failed_send_follows(run: ScriptedRun, publisher: Publisher) -> None:
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
    assert page.wants_sync  # nothing is new, and yet it hears that it missed something
    publisher.sync(page.seen, page.epoch)
    assert page.state["steps_total"] == 77
    assert [step for step, _ in page.columns["loss"]] == [1, 2]


@pytest.mark.parametrize("part", ["send", "on_tokens", "on_samples", "on_idle"])
def test_a_failure_costs_its_own_part_alone_and_the_thread_goes_on(
    run: ScriptedRun, caplog: pytest.LogCaptureFixture, part: str
) -> None:
    heard: list[str] = []
    failing = threading.Event()

    def does(name: str) -> Any:
        def do(*_: Any) -> None:
            if name == part and not failing.is_set():
                failing.set()
                raise RuntimeError("it is broken")
            heard.append(name)

        return do

    names = ("on_tokens", "on_samples", "on_idle")
    publisher = Publisher(run, does("send"), interval=0.01, **{name: does(name) for name in names})
    sample = {"source": "held-out", "prompt": "p", "response": "r", "reward": 1.0}
    run.append(replace(record(1), samples=[sample]))
    publisher.request_tokens()
    deadline = time.monotonic() + 10
    while not (failing.is_set() and {"send", "on_idle"} <= set(heard)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert failing.is_set()
    assert publisher._thread.is_alive()
    heard.clear()
    run.append(replace(record(2), samples=[sample]))
    publisher.request_tokens()
    while len(set(heard)) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    publisher.close()
    assert set(heard) == {"send", *names}
    assert [entry.levelname for entry in caplog.records if entry.levelname == "WARNING"] == ["WARNING"]
    assert "it is broken" in caplog.text


def test_a_state_that_is_there_and_gone_does_not_stay_on_a_page(run: ScriptedRun, publisher: Publisher) -> None:
    """A snapshot shows what the pages were told last: only from there on they hear of every change."""
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


def test_records_that_an_interrupt_left_half_taken_count_once(
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
