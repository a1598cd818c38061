"""A comparison on the page: messages of every run, requests, and cosines measured on a separate thread."""

from __future__ import annotations

import gc
import struct
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import mint_lab as ml
from mint_lab.charts.palette import RUNS
from mint_lab.errors import ConfigError
from mint_lab.runs import Comparison
from mint_lab.ui.compare import Compare
from tests.charts.runs import colours, count, image_of
from tests.runs.bigram import BigramClient, letter_pairs
from tests.ui.pages import Comm, comms
from tests.ui.scripted import record
from tests.waiting import TIMEOUT, Attempt, Gate, until

__all__ = ["comms"]

OPTIONS: dict[str, Any] = {"data": letter_pairs(40), "held_out": letter_pairs(8), "batch_size": 4, "eval_every": 5}


@pytest.fixture
def show(comms: list[Comm], tmp_path: Path) -> Iterator[Callable[..., Compare]]:
    made: list[Compare] = []

    def make(losses: Any = ("hinge", "simpo"), **options: Any) -> Compare:
        options = {**OPTIONS, "clients": BigramClient, "steps": 12, "folder": tmp_path / f"c{len(made)}", **options}
        made.append(ml.compare(losses, **options))
        return made[-1]

    yield make
    for widget in made:
        widget.stop()
        assert widget.wait(TIMEOUT)
        widget.close()


def updates(comm: Comm, run: int) -> list[Any]:
    """Return the messages of one run."""
    return [m["message"] for m in comm.custom if m["type"] == "of_run" and m["run"] == run]


def test_first_message_has_every_run(comms: list[Comm], show: Callable[..., Compare]) -> None:
    widget = show({"h": "hinge", "s": "simpo"})
    state = comms[0].opened["state"]
    assert state["part"] == "compare"
    assert [run["label"] for run in state["compared"]["runs"]] == ["h", "s"]
    assert [run["snapshot"]["state"]["loss"] for run in state["compared"]["runs"]] == ["hinge", "simpo"]
    assert state["compared"]["runs"][0]["snapshot"]["state"]["data"] == "your data"
    assert repr(widget) == "Compare(['h', 's'], recipe='preference')"
    assert widget.runs is widget.comparison.runs


def test_start_starts_every_run_and_each_has_its_own_messages(comms: list[Comm], show: Callable[..., Compare]) -> None:
    widget = show()
    comm = comms[0]
    assert comm.ask(type="start", request=1)[-1] == {"type": "reply", "request": 1, "error": ""}
    assert widget.wait(TIMEOUT, check=True)
    for run in (0, 1):
        until(lambda run=run: sum(m.get("count", 0) for m in updates(comm, run)) == 12)
        assert {m["epoch"] for m in updates(comm, run)} == {widget._publishers[run].epoch}
    results = [m["result"] for m in comm.custom if m["type"] == "of_run" and m["run"] == 0 and m["result"]]
    assert [result["step"] for result in results] == sorted({result["step"] for result in results})
    last = widget.runs["hinge"].records[-1].held_out
    assert results[-1]["step"] == 12
    assert results[-1]["final"]["pair_accuracy"] == last["pair_accuracy"]
    assert results[-1]["final"]["mean_margin"] == last["logps/chosen"] - last["logps/rejected"]


def test_page_gets_what_it_missed_of_a_run(comms: list[Comm], show: Callable[..., Compare]) -> None:
    widget = show()
    assert widget.start().wait(TIMEOUT, check=True)
    comm = comms[0]
    answers = comm.ask(type="sync", run=1, since=9, epoch=widget._publishers[1].epoch)
    assert [(m["run"], m["message"]["count"], m["message"]["full"]) for m in answers][-1] == (1, 3, True)
    assert [m["result"]["step"] for m in answers if m["result"]] == [12]
    # A page without records gets the snapshot, with its data in buffers.
    comm.ask(type="sync", run=0, since=0, epoch="another")
    data, buffers = comm.sent[-1]
    message = data["content"]["message"]
    series = message["series"]
    assert len(buffers) == 2 * (len(series) + len(message["heats"])) > 0
    assert series[0]["steps"] == b""
    assert struct.unpack("<12d", buffers[0]) == tuple(range(1, 13))
    for nonsense in ({"run": 9}, {"run": "x"}, {}):
        assert comm.ask(type="sync", **nonsense) == []


def test_requests_are_answered(comms: list[Comm], show: Callable[..., Compare]) -> None:
    widget = show(steps=2)
    comm = comms[0]
    assert comm.ask(type="nonsense", request=2)[0]["error"] == "unknown request 'nonsense'"
    assert "no run has the label 'x'" in comm.ask(type="cosines", at="x", request=3)[0]["error"]
    assert comm.ask(type="stop", request=4)[-1]["error"] == ""
    assert widget.comparison.status == "stopped"
    assert "every run of this comparison has ended" in comm.ask(type="start", request=5)[-1]["error"]
    comm.receive({"content": {"data": {"method": "custom", "content": "no mapping"}}, "buffers": []})


def test_reason_for_missing_cosines_is_shown_and_runs_continue(comms: list[Comm], show: Callable[..., Compare]) -> None:
    widget = show()
    comms[0].ask(type="start", request=1)
    assert widget.wait(TIMEOUT, check=True)
    until(lambda: widget.cosines is not None and not widget.cosines["busy"])
    assert "BigramClient returns no gradients" in widget.cosines["problem"]
    assert widget.cosines["values"] == []


def test_cosines_are_measured_at_the_start_and_on_request(comms: list[Comm], tmp_path: Path) -> None:
    options: dict[str, Any] = {"data": ml.data.arithmetic_pairs(32), "batch_size": 8, "folder": tmp_path}
    widget = ml.compare(["hinge", "simpo"], steps=3, **options)
    assert widget.start().wait(TIMEOUT, check=True)
    until(lambda: not widget.cosines["busy"])
    cosines = widget.cosines
    assert (cosines["problem"], cosines["at"], cosines["step"], cosines["datums"]) == ("", None, 0, 16)
    frame = widget.gradient_cosines()
    assert cosines["values"] == frame.to_numpy().tolist()
    assert comms[0].ask(type="cosines", at="simpo", request=1)[-1]["error"] == ""
    until(lambda: not widget.cosines["busy"])
    assert (widget.cosines["at"], widget.cosines["step"]) == ("simpo", 3)
    sent = [data["state"]["cosines"] for data, _ in comms[0].sent if "cosines" in data.get("state", {})]
    assert [entry["busy"] for entry in sent] == [True, False, True, False]
    widget.close()


def test_result_is_set_before_the_next_measurement_can_begin(
    comms: list[Comm], show: Callable[..., Compare], monkeypatch: Any
) -> None:
    """Otherwise a result could replace the "busy" of the next measurement."""
    widget = show()
    monkeypatch.setattr(widget.comparison, "measure_cosines", lambda at: 1 / 0)
    free: list[bool] = []
    widget.observe(lambda change: free.append(not widget._measure_lock.locked()), "cosines")
    widget._start_measurement(None)
    until(lambda: not widget._measure_lock.locked())
    assert free == [False, False]  # busy, and done


def test_picture_is_updated_at_every_end(comms: list[Comm], show: Callable[..., Compare], monkeypatch: Any) -> None:
    widget = show(steps=2)
    pictured: list[int] = []
    monkeypatch.setattr(
        widget._outputs, "update", lambda _: pictured.append(sum(len(run.records) for run in widget.runs.values()))
    )
    assert widget.start().wait(TIMEOUT, check=True)
    until(lambda: 4 in pictured)
    for run in widget.runs.values():
        run.set(steps=5)
    for run in widget.runs.values():
        assert run.start().wait(TIMEOUT, check=True)
    until(lambda: 10 in pictured)


def test_one_measurement_at_a_time(comms: list[Comm], show: Callable[..., Compare], monkeypatch: Any) -> None:
    widget = show()
    gate = threading.Event()
    monkeypatch.setattr(widget.comparison, "measure_cosines", lambda at: gate.wait(TIMEOUT) and 1 / 0)
    assert comms[0].ask(type="cosines", at=None, request=1)[-1]["error"] == ""
    assert "being measured" in comms[0].ask(type="cosines", at=None, request=2)[-1]["error"]
    gate.set()
    until(lambda: not widget.cosines["busy"])
    assert widget.cosines["problem"] == "division by zero"


def test_message_size_does_not_depend_on_the_length_of_the_run(comms: list[Comm], show: Callable[..., Compare]) -> None:
    widget = show(steps=10_000)
    run = widget.runs["hinge"]

    def size() -> int:
        before = len(comms[0].sent)
        run.records.append(record(len(run.records) + 1, 10_000))
        widget._publishers[0].publish()
        data, buffers = comms[0].sent[-1]
        assert len(comms[0].sent) == before + 1
        return len(repr(data)) + sum(map(len, buffers))

    size()
    early = size()
    run.records.extend(record(step, 10_000) for step in range(3, 4001))
    widget._publishers[0].publish()
    assert 100 < size() <= early
    run.records.clear()


def test_closed_widget_is_collected_and_the_runs_continue(comms: list[Comm], tmp_path: Path) -> None:
    before = threading.active_count()
    comparison = Comparison(["hinge", "simpo"], clients=BigramClient, steps=12, folder=tmp_path, **OPTIONS)
    widget = Compare(comparison)
    gone = weakref.ref(widget)
    comparison.start()
    widget.close()
    assert widget.get_state("compared")["compared"] is None
    del widget
    comms.clear()
    assert comparison.wait(TIMEOUT, check=True)
    until(lambda: gc.collect() >= 0 and gone() is None and threading.active_count() <= before)


def test_readers_without_a_kernel_get_a_text_and_a_picture_once_there_are_curves(
    comms: list[Comm], show: Callable[..., Compare]
) -> None:
    widget = show()
    assert set(widget._repr_mimebundle_()[0]) == {"text/plain", "application/vnd.jupyter.widget-view+json"}
    assert widget.start().wait(TIMEOUT, check=True)
    seen = colours(image_of(widget._repr_mimebundle_()[0]["image/png"]))
    for colour in RUNS["light"][:2]:
        assert count(seen, colour) > 200, colour


def test_refused_comparison_creates_no_widget(comms: list[Comm]) -> None:
    with pytest.raises(ConfigError, match="two runs would have the label 'dpo'"):
        ml.compare(["dpo", "dpo"])
    assert comms == []


def test_runs_that_end_together_update_the_picture_once(
    comms: list[Comm], show: Callable[..., Compare], monkeypatch: Any
) -> None:
    widget = show()
    gate, pictured = Gate(holds=1), []
    monkeypatch.setattr(widget._outputs, "update", lambda _: (pictured.append(1), gate()))
    widget.start()
    gate.wait()  # the publisher of one run is drawing
    attempt = Attempt(widget._on_idle, widget, "_idle_lock")
    assert attempt.waits
    gate.open()
    attempt.result()
    assert pictured == [1]


def test_options_reach_every_run(comms: list[Comm], show: Callable[..., Compare], tmp_path: Path) -> None:
    widget = show(seed=7, steps=9, folder=tmp_path / "mine")
    for run in widget.runs.values():
        assert (run.seed, run.steps_total, run.settings["batch_size"], run.eval_every) == (7, 9, 4, 5)
    assert {run.seed for run in show().runs.values()} == {0}
    losses = {"a": "cross_entropy", "b": "cross_entropy"}
    other = ml.compare(losses, recipe="sft", clients=BigramClient, data="folder/rows.csv")
    assert [run.recipe for run in other.runs.values()] == ["sft", "sft"]
    states = [run["snapshot"]["state"] for run in comms[-1].opened["state"]["compared"]["runs"]]
    assert [(state["recipe"], state["data"]) for state in states] == [("sft", "rows.csv")] * 2
    other.close()
    widget.start()
    assert widget.wait(30, check=True)
    assert {run.folder.parent for run in widget.runs.values() if run.folder} == {tmp_path / "mine"}
