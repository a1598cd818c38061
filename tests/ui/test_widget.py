from __future__ import annotations

import base64
import gc
import threading
import time
import weakref
from typing import Any

import pytest
import traitlets

from mint_lab.errors import ConfigError, RunError
from mint_lab.losses import LOSSES, LossSpec
from mint_lab.ui.charts import LiveCharts
from mint_lab.ui.widget import BUNDLE, RunWidget
from mint_lab.ui.workbench import Workbench
from tests.ui.scripted import ScriptedRun, record


class Comm:
    """A channel to a page that remembers what went through."""

    comm_id = "a-page"

    def __init__(self, data: Any = None, buffers: Any = None, **_: Any) -> None:
        self.opened, self.sent, self.closed = data, [], False

    def send(self, data: Any = None, metadata: Any = None, buffers: Any = None) -> None:
        assert not self.closed
        self.sent.append((data, buffers or []))

    def on_msg(self, callback: Any) -> None:
        self.receive = callback

    def close(self, *_: Any, **__: Any) -> None:
        self.closed = True

    @property
    def custom(self) -> list[Any]:
        return [data["content"] for data, _ in self.sent if data["method"] == "custom"]

    def ask(self, **request: Any) -> list[Any]:
        before = len(self.custom)
        self.receive({"content": {"data": {"method": "custom", "content": request}}, "buffers": []})
        return self.custom[before:]


@pytest.fixture
def comms(monkeypatch: pytest.MonkeyPatch) -> list[Comm]:
    made: list[Comm] = []

    def create(**options: Any) -> Comm:
        comm = Comm(**options)
        if "part" in comm.opened["state"]:  # and not that of the widget's layout
            made.append(comm)
        return comm

    monkeypatch.setattr("comm.create_comm", create)
    return made


class Bench(RunWidget):
    part = traitlets.Unicode("workbench", read_only=True).tag(sync=True)


def test_the_bundle_travels_with_the_widget(comms: list[Comm]) -> None:
    charts = LiveCharts(ScriptedRun())
    state = comms[0].opened["state"]
    assert state["_esm"] == BUNDLE.read_text(encoding="utf-8")
    assert state["part"] == "live_charts"
    charts.close()


def test_a_page_that_was_not_built_is_an_error_that_says_what_to_do(
    comms: list[Comm], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.setattr("mint_lab.ui.widget.BUNDLE", tmp_path / "widgets.js")
    with pytest.raises(RunError, match="pip install -e"):
        LiveCharts(ScriptedRun())


def test_the_page_refers_to_nothing_outside() -> None:
    # plotly.js knows an address for its maps, which are not in the bundle; the browser tests see that nobody calls it.
    text = BUNDLE.read_text(encoding="utf-8").replace('"https://cdn.plot.ly/un/"', "")
    for host in ("unpkg.com", "jsdelivr", "cdn.", "googleapis", "cdnjs"):
        assert f"//{host}" not in text, host


def test_the_snapshot_is_made_when_it_is_asked_for(comms: list[Comm]) -> None:
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


def test_any_number_of_widgets_may_show_a_run_and_closing_one_leaves_it_alone(comms: list[Comm]) -> None:
    run = ScriptedRun(30, rate=300)
    first, second = LiveCharts(run), LiveCharts(run)
    run.start()
    first.close()
    assert run.wait()
    deadline = time.monotonic() + 5
    while sum(m.get("count", 0) for m in comms[1].custom) < 30 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert sum(m.get("count", 0) for m in comms[1].custom) == 30
    second.close()
    assert run.subscribers == 0


def test_a_closed_widget_can_be_forgotten(comms: list[Comm]) -> None:
    before = threading.active_count()
    charts = LiveCharts(ScriptedRun())
    gone = weakref.ref(charts)
    charts.close()
    del charts
    comms.clear()
    deadline = time.monotonic() + 5
    while (gone() is not None or threading.active_count() > before) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.02)
    assert gone() is None
    assert threading.active_count() <= before


def test_static_readers_get_a_fixed_text_and_a_picture_once_there_is_one(comms: list[Comm]) -> None:
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


def test_a_workbench_is_quick_to_make_and_names_its_parts(comms: list[Comm]) -> None:
    lab = Workbench(steps=7)
    assert repr(lab) == "Workbench(recipe='preference', loss='pairwise_preference', base_model='mint-tiny')"
    assert (lab.run.status, lab.run.steps_total, lab.run.folder) == ("ready", 7, None)
    state = lab.get_state("snapshot")["snapshot"]["state"]
    assert state["data"] == "arithmetic pairs"
    assert [control["name"] for control in state["controls"]] == ["learning_rate", "beta"]
    lab.close()


@pytest.mark.parametrize("options", [{"loss": "no_such_loss"}, {"recipe": "no_such_recipe"}])
def test_a_workbench_refuses_what_its_run_refuses(comms: list[Comm], options: dict[str, str]) -> None:
    with pytest.raises(ConfigError):
        Workbench(**options)  # type: ignore[arg-type]


def test_a_new_run_takes_over_the_loss_and_the_settings_shown(comms: list[Comm]) -> None:
    lab = Workbench(steps=7)
    old = lab.run
    with pytest.raises(RunError, match="stop it"):
        lab.new_run()
    old.set_loss("simpo", gamma=2.0)
    old.set(learning_rate=1e-3)
    old.stop()
    old.wait(10)
    epoch = lab._publisher.epoch  # type: ignore[union-attr]
    assert comms[0].ask(type="new_run", request=4)[-1] == {"type": "reply", "request": 4, "error": ""}
    assert lab.run is not old
    assert (lab.run.status, lab.run.loss.name) == ("ready", "simpo")
    assert (lab.run.settings["learning_rate"], lab.run.loss_config["gamma"]) == (1e-3, 2.0)
    assert comms[0].custom[-2]["epoch"] != epoch
    lab.close()


def test_the_picker_hears_of_a_new_loss_until_it_is_closed(comms: list[Comm], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOSSES, "_specs", dict(LOSSES._specs))
    lab = Workbench()
    LOSSES.register(LossSpec(name="<b>mine</b>", family="custom", fn=lambda data, logprobs: None, pairs=True))
    heard = [message for message in comms[0].custom if message["type"] == "losses"]
    assert "<b>mine</b>" in [entry["name"] for entry in heard[-1]["losses"]]
    lab.close()
    LOSSES.register(LossSpec(name="later", family="custom", fn=lambda data, logprobs: None, pairs=True))
    assert len([message for message in comms[0].custom if message["type"] == "losses"]) == len(heard)
