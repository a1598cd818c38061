"""What all widgets of a run have in common: bundle, snapshot, requests, static picture, closing."""

from __future__ import annotations

import gc
import threading
import weakref
from typing import Any

import pytest
import traitlets

from mint_lab.charts.palette import ROLES
from mint_lab.errors import ConfigError
from mint_lab.losses import LOSSES, LossSpec
from mint_lab.ui import widget as module
from mint_lab.ui.loss_catalogue import loss_catalogue
from mint_lab.ui.parts import LiveCharts
from mint_lab.ui.requests import requested_text
from mint_lab.ui.widget import RunWidget
from tests.charts.runs import colours, count, image_of
from tests.ui.pages import Comm, comms
from tests.ui.scripted import ScriptedRun, record
from tests.waiting import TIMEOUT, Attempt, Gate, join, until

__all__ = ["comms"]


class Bench(RunWidget):
    part = traitlets.Unicode("workbench", read_only=True).tag(sync=True)


def test_snapshot_is_computed_on_request(comms: list[Comm]) -> None:
    run = ScriptedRun()
    charts = LiveCharts(run)
    run.records.extend(record(step) for step in range(1, 8))
    snapshot = charts.get_state("snapshot")["snapshot"]
    assert (snapshot["seen"], snapshot["state"]["steps_done"]) == (7, 7)
    charts.close()
    assert charts.get_state("snapshot")["snapshot"] is None


def test_requests_are_answered(comms: list[Comm]) -> None:
    run = ScriptedRun()
    bench = Bench(run)
    comm = comms[0]
    assert comm.ask(type="set", name="beta", value=3, request=1)[0] == {"type": "reply", "request": 1, "error": ""}
    assert comm.ask(type="nonsense", request=2)[0]["error"].startswith("unknown request")
    run.records.append(record(1))
    answers = comm.ask(type="sync", since=0, epoch=bench._publisher.epoch)  # type: ignore[union-attr]
    assert sum(message["count"] for message in answers if message["type"] == "update") >= 1
    bench.close()


def test_several_widgets_can_show_a_run_and_closing_one_does_not_affect_it(comms: list[Comm]) -> None:
    run = ScriptedRun(30, rate=300)
    first, second = LiveCharts(run), LiveCharts(run)
    run.start()
    first.close()
    assert run.wait()
    until(lambda: sum(m.get("count", 0) for m in comms[1].custom) == 30)
    second.close()
    assert run.subscribers == 0


def test_closed_widget_is_collected(comms: list[Comm]) -> None:
    before = threading.active_count()
    charts = LiveCharts(ScriptedRun())
    gone = weakref.ref(charts)
    charts.close()
    del charts
    comms.clear()
    until(lambda: gc.collect() >= 0 and gone() is None and threading.active_count() <= before)


def test_readers_without_a_kernel_get_a_text_and_a_picture_once_there_are_curves(comms: list[Comm]) -> None:
    run = ScriptedRun()
    charts = LiveCharts(run)
    bundle, _ = charts._repr_mimebundle_()
    assert bundle["text/plain"] == "LiveCharts(recipe='preference')"
    assert set(bundle) == {"text/plain", "application/vnd.jupyter.widget-view+json"}
    run.append(*(record(step) for step in range(1, 12)))
    bundle, _ = charts._repr_mimebundle_()
    seen = colours(image_of(bundle["image/png"]))
    for role, colour in ROLES["light"].items():
        assert count(seen, colour) > 100, role
    assert bundle["application/vnd.jupyter.widget-view+json"] == {
        **{"version_major": 2, "version_minor": 1, "model_id": charts.model_id}
    }
    charts.close()


def test_refused_run_leaves_the_present_run(comms: list[Comm]) -> None:
    run = ScriptedRun()
    charts = LiveCharts(run)
    with pytest.raises(ConfigError):
        charts.show([run])
    assert charts.run is run
    run.append(record(1))
    until(lambda: any(message.get("count") == 1 for message in comms[0].custom))
    charts.close()


def test_picture_is_updated_at_every_end_of_the_run(comms: list[Comm], monkeypatch: pytest.MonkeyPatch) -> None:
    run = ScriptedRun(4, rate=1000)
    charts = LiveCharts(run)
    pictured: list[int] = []
    monkeypatch.setattr(charts._outputs, "update", lambda _: pictured.append(run.steps_done))
    run.start()
    until(lambda: pictured == [4])
    run.steps_total, run.status = 9, "paused"
    run.start()
    until(lambda: pictured == [4, 9])
    charts._on_cell_done()
    publisher, idled = charts._publisher, threading.Semaphore(0)
    assert publisher is not None
    publisher._on_idle = lambda: (charts._on_idle(), idled.release())
    for _ in range(2):
        run.notify_all()
        assert idled.acquire(timeout=TIMEOUT)
    assert pictured == [4, 9]
    charts.close()


def test_late_tokens_of_the_previous_run_are_not_shown(comms: list[Comm]) -> None:
    """Its tokens may be computed while a person presses "New run"."""
    first, second = ScriptedRun(), ScriptedRun()
    bench = Bench(first)
    show_tokens = bench._publisher._on_tokens  # type: ignore[union-attr]
    bench.show(second)
    assert show_tokens is not None
    show_tokens({"step": 1})  # type: ignore[typeddict-item]
    assert bench.tokens is None
    bench.close()


def test_tokens_are_computed_only_on_request(comms: list[Comm]) -> None:
    run = ScriptedRun()
    bench = Bench(run)
    assert comms[0].opened["state"]["tokens"] is None
    assert comms[0].ask(type="tokens", request=1)[-1]["error"] == "the run has not started"
    run.append(*(record(step) for step in range(1, 4)))
    assert bench.tokens is None
    assert run.calls == ["tokens"]
    assert comms[0].ask(type="tokens", request=2)[-1] == {"type": "reply", "request": 2, "error": ""}
    until(lambda: bench.tokens is not None)
    assert (bench.tokens["step"], bench.tokens["by"], len(bench.tokens["rows"])) == (3, "gradient", 4)
    sent = [data["state"]["tokens"] for data, _ in comms[0].sent if "tokens" in data.get("state", {})]
    assert sent[-1]["step"] == 3
    bench.show(ScriptedRun())
    assert bench.tokens is None
    bench.close()


# -- another run, and the end -----------------------------------------------------------------------------------------


def test_other_run_replaces_all_of_the_present_one(comms: list[Comm]) -> None:
    first, second = ScriptedRun(7), ScriptedRun(9)
    bench = Bench(first, base_model="a-model", data="my pairs")
    first.records.append(record(1))
    old: Any = bench._publisher
    old._on_tokens({"step": 1})
    old._on_samples({"step": 2})
    assert (bench.tokens, bench.samples) == ({"step": 1}, {"step": 2})
    bench.show(second)
    assert (first.subscribers, second.subscribers) == (0, 1)
    assert (bench.run, bench.tokens, bench.samples) == (second, None, None)
    snapshot = comms[0].custom[-1]
    assert (snapshot["type"], snapshot["seen"], snapshot["state"]["steps_total"]) == ("snapshot", 0, 9)
    assert (snapshot["state"]["base_model"], snapshot["state"]["data"]) == ("a-model", "my pairs")
    assert snapshot["epoch"] not in ("", old.epoch)
    old._on_samples({"step": 3})  # late
    assert bench.samples is None
    comms[0].ask(type="set", name="beta", value=2, request=1)
    assert (first.settings["beta"], second.settings["beta"]) == (1.0, 2.0)
    bench.close()
    assert second.subscribers == 0


def test_page_of_the_previous_run_gets_a_snapshot_of_the_present_one(comms: list[Comm]) -> None:
    """It has three records of the old run, and says so; the new run has five."""
    bench = Bench(ScriptedRun())
    old: Any = bench._publisher
    run = ScriptedRun()
    run.records.extend(record(step) for step in range(1, 6))
    bench.show(run)
    for request in ({"since": 3, "epoch": old.epoch}, {"since": "3", "epoch": bench._publisher.epoch}, {}):  # type: ignore[union-attr]
        (answer,) = comms[0].ask(type="sync", **request)
        assert (answer["type"], answer["seen"]) == ("snapshot", 5)
    (answer,) = comms[0].ask(type="sync", since=3, epoch=bench._publisher.epoch)  # type: ignore[union-attr]
    assert (answer["type"], answer["first"], answer["count"]) == ("update", 3, 2)
    bench.close()


def test_picture_of_another_run_is_drawn_even_if_it_has_as_many_steps(
    comms: list[Comm], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A paused run has no picture; an ended one has one per number of steps."""
    bench = Bench(ScriptedRun())
    outputs: list[Any] = []
    monkeypatch.setattr(bench._outputs, "update", outputs.append)
    for _ in range(2):
        run = ScriptedRun()
        run.records.extend(record(step) for step in range(1, 4))
        bench.show(run)
        for status in ("paused", "running", "finished", "stopped"):
            run.status = status  # type: ignore[assignment]
            bench._on_cell_done()
            bench._on_idle()
            assert len(outputs) == (status in ("finished", "stopped"))
        assert "image/png" in outputs.pop()
    bench.close()


def test_idle_run_stores_its_snapshot(comms: list[Comm]) -> None:
    """What a saved notebook has of the widget is the last state that was sent."""
    run = ScriptedRun()
    bench = Bench(run)
    run.records.append(record(1))
    run.status = "paused"
    before = len(comms[0].sent)
    bench._on_idle()
    states = [data["state"] for data, _ in comms[0].sent[before:] if data["method"] == "update"]
    assert [(state["snapshot"]["seen"], state["snapshot"]["state"]["status"]) for state in states] == [(1, "paused")]
    bench.close()


def test_close_ends_every_subscription(comms: list[Comm], monkeypatch: pytest.MonkeyPatch) -> None:
    class Picker(Bench):
        _has_loss_picker = True

    displayed: list[str] = []
    monkeypatch.setattr(module, "load_cell_magics", lambda: displayed.append("magics"))
    monkeypatch.setattr(module, "after_each_cell", lambda call: lambda: displayed.append("ended"))
    run, listeners = ScriptedRun(), len(LOSSES._subscribers)
    bench = Picker(run)
    monkeypatch.setattr(bench._outputs, "add", lambda bundle: displayed.append(bundle["text/plain"]))
    thread = bench._publisher._thread  # type: ignore[union-attr]
    assert (run.subscribers, len(LOSSES._subscribers)) == (1, listeners + 1)
    bench._ipython_display_()
    bench._ipython_display_()
    assert displayed == ["Picker('scripted')", "magics"] * 2
    displayed.clear()
    bench.close()
    assert displayed == ["ended"], "registered once, although displayed twice"
    assert (run.subscribers, len(LOSSES._subscribers), comms[0].closed) == (0, listeners, True)
    join(thread)
    comms[0].receive({"content": {"data": {"method": "custom", "content": {"type": "start"}}}, "buffers": []})
    assert run.calls == []


def test_name_of_the_run_is_in_the_text(comms: list[Comm]) -> None:
    run = ScriptedRun()
    bench = Bench(run)
    assert repr(bench) == "Bench('scripted')"
    run.name = ""
    assert repr(bench) == "Bench"
    bench.close()


# -- replies and documents --------------------------------------------------------------------------------------------


def test_each_request_has_one_answer_with_its_number(comms: list[Comm]) -> None:
    run = ScriptedRun()
    bench = Bench(run)
    run.records.extend(record(step) for step in range(1, 4))
    bench._publisher.publish()  # type: ignore[union-attr]
    for number, kind in enumerate(("pause", "set", "nonsense", "tokens", "cell", "csv", "figure", "new_run"), 40):
        answers = [
            m for m in comms[0].ask(type=kind, name="simpo", request=number) if m["type"] in ("reply", "document")
        ]
        assert [answer["request"] for answer in answers] == [number]
        assert answers[0]["type"] == ("document" if kind in ("cell", "csv", "figure") else "reply")
    comms[0].receive({"content": {"data": {"method": "custom", "content": ["start"]}}, "buffers": []})
    assert run.calls == ["pause", "tokens"]
    bench.close()


@pytest.mark.parametrize("request_", [{"type": "csv"}, {"type": "figure"}, {"type": "cell", "name": "simpo"}])
def test_document_has_its_text_in_one_buffer(comms: list[Comm], request_: dict[str, Any]) -> None:
    run = ScriptedRun()
    bench = Bench(run)
    run.records.extend(record(step) for step in range(1, 4))
    assert comms[0].ask(request=5, **request_)[-1] == {"type": "document", "request": 5}
    _, buffers = comms[0].sent[-1]
    assert [bytes(buffer).decode("utf-8") for buffer in buffers] == [requested_text(run, request_)]
    bench.close()


def test_document_that_cannot_be_made_is_a_reply(comms: list[Comm], monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(ScriptedRun())
    (answer,) = comms[0].ask(type="cell", name="simop", request=6)
    assert (answer["type"], answer["request"]) == ("reply", 6)
    assert answer["error"].startswith("unknown loss 'simop'")
    monkeypatch.setattr(module, "requested_text", lambda run, request: "half \ud83d")
    comms[0].ask(type="csv", request=7)
    assert comms[0].sent[-1][1] == [b"half \\ud83d"]
    bench.close()


def test_new_losses_are_those_for_the_data_of_the_run(comms: list[Comm]) -> None:
    class Picker(Bench):
        _has_loss_picker = True

    run = ScriptedRun(recipe="rl")
    bench = Picker(run)
    LOSSES.register(LossSpec(name="mine", family="custom", fn=lambda data, logprobs: None))
    assert comms[0].custom[-1] == {"type": "losses", "losses": loss_catalogue(run.data_kind)}
    bench.close()


def test_run_cannot_change_while_something_of_it_is_shown(comms: list[Comm], monkeypatch: pytest.MonkeyPatch) -> None:
    """The publisher's thread stores the state of a run that ended; a person presses "New run"."""
    first, second = ScriptedRun(), ScriptedRun()
    bench = Bench(first)
    gate, send_state = Gate(holds=1), bench.send_state
    monkeypatch.setattr(bench, "send_state", lambda *names: (gate(), send_state(*names)))
    thread = threading.Thread(target=bench._on_idle)
    thread.start()
    gate.wait()
    attempts = [
        Attempt(call, bench, "_show_lock")
        for call in (lambda: bench.show(second), lambda: bench._set_trait_of(first, "tokens", None), bench._on_idle)
    ]
    assert [attempt.waits for attempt in attempts] == [True, True, True]
    gate.open()
    join(thread)
    for attempt in attempts:
        attempt.result()
    assert bench.run is second
    bench.close()


def test_nothing_is_shown_while_the_run_changes(comms: list[Comm], monkeypatch: pytest.MonkeyPatch) -> None:
    bench, gate = Bench(ScriptedRun()), Gate(holds=1)
    old = bench.run
    assert bench._publisher is not None
    monkeypatch.setattr(bench._publisher, "close", lambda close=bench._publisher.close: (gate(), close()))
    thread = threading.Thread(target=bench.show, args=(ScriptedRun(),))
    thread.start()
    gate.wait()
    attempt = Attempt(lambda: bench._set_trait_of(old, "tokens", {"step": 1}), bench, "_show_lock")
    assert attempt.waits
    gate.open()
    join(thread)
    attempt.result()
    assert bench.tokens is None
    bench.close()
