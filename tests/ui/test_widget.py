from __future__ import annotations

import base64
import gc
import inspect
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import traitlets

from mint_lab.errors import ConfigError, RunError
from mint_lab.losses import LOSSES, LossSpec
from mint_lab.runs.entries import RunInfo
from mint_lab.runs.run import Run
from mint_lab.runs.store import SavedRun
from mint_lab.ui import parts
from mint_lab.ui.parts import LiveCharts
from mint_lab.ui.widget import BUNDLE, RunWidget
from mint_lab.ui.workbench import Workbench
from tests.runs.bigram import BigramClient
from tests.ui.pages import Comm, comms
from tests.ui.scripted import ScriptedRun, record

__all__ = ["comms"]


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
    old.set(learning_rate=1e-3, batch_size=16, steps=9)
    old.stop()
    old.wait(10)
    epoch = lab._publisher.epoch  # type: ignore[union-attr]
    assert comms[0].ask(type="new_run", request=4)[-1] == {"type": "reply", "request": 4, "error": ""}
    assert lab.run is not old
    assert (lab.run.status, lab.run.loss.name) == ("ready", "simpo")
    assert (lab.run.settings["learning_rate"], lab.run.loss_config["gamma"]) == (1e-3, 2.0)
    assert (lab.run.settings["batch_size"], lab.run.steps_total) == (16, 9)
    assert comms[0].custom[-2]["epoch"] != epoch
    lab.close()


@pytest.mark.parametrize("kind", ["LiveCharts", "RunControls", "LossPicker", "SamplesTable", "Warnings"])
@pytest.mark.parametrize(
    ("run", "hint"),
    [
        ([ScriptedRun(), ScriptedRun()], r"shows one run, got list; ml\.compare"),
        (SavedRun(Path("run"), RunInfo(), [], [], []), r"got SavedRun; .*run\.figure\(\)"),
        (SimpleNamespace(run=1), r"got SimpleNamespace; show its run: \.run"),
        (SimpleNamespace(runs={}), r"\.runs\[label\]"),
        (None, r"got NoneType; make one with ml\.Run"),
    ],
)
def test_a_part_shows_one_run_and_says_what_shows_others(comms: list[Comm], kind: str, run: Any, hint: str) -> None:
    with pytest.raises(ConfigError, match=f"{kind} .*{hint}"):
        getattr(parts, kind)(run)
    assert comms == []


def test_what_cannot_be_shown_leaves_the_present_run_on_show(comms: list[Comm]) -> None:
    run = ScriptedRun()
    charts = LiveCharts(run)
    with pytest.raises(ConfigError):
        charts.show([run])
    assert charts.run is run
    run.append(record(1))
    until(lambda: any(message.get("count") == 1 for message in comms[0].custom))
    charts.close()


@pytest.mark.parametrize(
    ("args", "options", "hint"),
    [
        (("dpo",), {}, "unknown recipe 'dpo'.*loss='dpo'"),
        (("org/model",), {}, "a model is given as base_model='org/model'"),
        ((), {"base_model": "rl"}, "base_model is 'rl', which is not a model but a recipe: recipe='rl'"),
        ((), {"base_model": "dpo"}, "not a model but a loss: loss='dpo'"),
    ],
)
def test_a_name_in_the_wrong_place_is_told_its_right_one(
    comms: list[Comm], args: tuple[str, ...], options: dict[str, str], hint: str
) -> None:
    with pytest.raises(ConfigError, match=hint):
        Workbench(*args, **options)  # type: ignore[arg-type]


def test_a_workbench_takes_its_arguments_in_the_order_of_a_run(comms: list[Comm]) -> None:
    lab = Workbench("rl", "grpo")
    assert (lab.run.recipe, lab.run.loss.name, lab.run.base_model) == ("rl", "grpo", "mint-tiny")
    lab.close()
    taken = [list(inspect.signature(each).parameters.values())[:2] for each in (Workbench, Run)]
    assert [[p.name for p in each] for each in taken] == [["recipe", "loss"]] * 2


def test_there_is_no_new_run_for_a_client_that_is_trained_by_now(comms: list[Comm]) -> None:
    lab = Workbench(client=BigramClient())
    old = lab.run.stop()
    assert "make a new client" in comms[0].ask(type="new_run", request=1)[-1]["error"]
    assert lab.run is old
    lab.close()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_picture_of_a_run_that_went_on_after_its_end_is_that_of_its_last_end(
    comms: list[Comm], monkeypatch: pytest.MonkeyPatch
) -> None:
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
    run.ring()
    time.sleep(0.5)
    assert pictured == [4, 9]
    charts.close()


def test_what_a_run_still_says_when_another_is_on_show_is_not_shown(comms: list[Comm]) -> None:
    """Its tokens may be under way while the person presses "New run"."""
    first, second = ScriptedRun(), ScriptedRun()
    bench = Bench(first)
    say = bench._publisher._on_tokens  # type: ignore[union-attr]
    bench.show(second)
    assert say is not None
    say({"step": 1})  # type: ignore[typeddict-item]
    assert bench.tokens is None
    bench.close()


def test_the_picker_hears_of_a_new_loss_until_it_is_closed(comms: list[Comm]) -> None:
    lab = Workbench()
    LOSSES.register(LossSpec(name="<b>mine</b>", family="custom", fn=lambda data, logprobs: None, unit="pair"))
    heard = [message for message in comms[0].custom if message["type"] == "losses"]
    assert "<b>mine</b>" in [entry["name"] for entry in heard[-1]["losses"]]
    lab.close()
    LOSSES.register(LossSpec(name="later", family="custom", fn=lambda data, logprobs: None, unit="pair"))
    assert len([message for message in comms[0].custom if message["type"] == "losses"]) == len(heard)


def test_tokens_are_shown_once_a_page_has_asked_for_them(comms: list[Comm]) -> None:
    run = ScriptedRun()
    bench = Bench(run)
    assert comms[0].opened["state"]["tokens"] is None
    assert comms[0].ask(type="tokens", request=1)[-1]["error"] == "the run has not started"
    run.append(*(record(step) for step in range(1, 4)))
    assert bench.tokens is None
    assert run.calls == ["tokens"]  # nobody asked again
    assert comms[0].ask(type="tokens", request=2)[-1] == {"type": "reply", "request": 2, "error": ""}
    deadline = time.monotonic() + 5
    while bench.tokens is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (bench.tokens["step"], bench.tokens["by"], len(bench.tokens["rows"])) == (3, "gradient", 4)
    sent = [data["state"]["tokens"] for data, _ in comms[0].sent if "tokens" in data.get("state", {})]
    assert sent[-1]["step"] == 3
    bench.show(ScriptedRun())
    assert bench.tokens is None
    bench.close()
