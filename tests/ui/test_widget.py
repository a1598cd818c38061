"""What all widgets of a run have in common: bundle, snapshot, requests, static picture, closing."""

from __future__ import annotations

import base64
import gc
import threading
import weakref
from typing import Any

import pytest
import traitlets

from mint_lab.errors import ConfigError, RunError
from mint_lab.ui.parts import LiveCharts
from mint_lab.ui.widget import BUNDLE, RunWidget
from tests.ui.pages import Comm, comms
from tests.ui.scripted import ScriptedRun, record
from tests.waiting import TIMEOUT, until

__all__ = ["comms"]


class Bench(RunWidget):
    part = traitlets.Unicode("workbench", read_only=True).tag(sync=True)


def test_bundle_is_sent_with_the_widget(comms: list[Comm]) -> None:
    charts = LiveCharts(ScriptedRun())
    state = comms[0].opened["state"]
    assert state["_esm"] == BUNDLE.read_text(encoding="utf-8")
    assert state["part"] == "live_charts"
    charts.close()


def test_page_that_was_not_built_is_an_error_with_the_command(
    comms: list[Comm], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr("mint_lab.ui.widget.BUNDLE", tmp_path / "widgets.js")
    with pytest.raises(RunError, match="pip install -e"):
        LiveCharts(ScriptedRun())


def test_bundle_loads_nothing_from_the_network() -> None:
    # plotly.js contains the address of its maps, which are not in the bundle; browser tests check that it is not used.
    text = BUNDLE.read_text(encoding="utf-8").replace('"https://cdn.plot.ly/un/"', "")
    for host in ("unpkg.com", "jsdelivr", "cdn.", "googleapis", "cdnjs"):
        assert f"//{host}" not in text, host


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
    picture = bundle["image/png"]
    assert (picture if isinstance(picture, bytes) else base64.b64decode(picture)).startswith(b"\x89PNG")
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
