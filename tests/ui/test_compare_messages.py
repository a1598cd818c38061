"""What a comparison's page is sent, and what its requests call, with made-up runs and no training."""

from __future__ import annotations

import contextvars
import math
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from mint_lab.charts.palette import RUNS
from mint_lab.runs.comparison.gradient_cosines import Cosines
from mint_lab.ui import compare as module
from mint_lab.ui.compare import Compare
from tests.charts.runs import colours, count, image_of
from tests.ui.pages import Comm, comms
from tests.ui.scripted import ScriptedRun, record
from tests.waiting import Gate, join, until

__all__ = ["comms"]


class FakeComparison:
    """Two runs, and a record of every call."""

    def __init__(self) -> None:
        self.recipe = "preference"
        self.runs = {"soft": ScriptedRun(40), "hard": ScriptedRun(40)}
        self.status = "ready"
        self.calls: list[Any] = []
        self.answers: list[Any] = []  # of measure_cosines: a result, or an exception

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args, **options: self.calls.append((name, args, options)) or name

    def __getitem__(self, label: str) -> Any:
        return SimpleNamespace(name=f"run of {label}")

    def measure_cosines(self, at: str | None) -> Cosines:
        self.calls.append(("measure_cosines", at))
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer() if callable(answer) else answer


@pytest.fixture
def comparison() -> FakeComparison:
    return FakeComparison()


@pytest.fixture
def widget(comms: list[Comm], comparison: FakeComparison) -> Iterator[Compare]:
    widget = Compare(comparison, data="my pairs")  # type: ignore[arg-type]
    yield widget
    threads = [publisher._thread for publisher in widget._publishers]
    widget.close()
    for thread in threads:
        join(thread)
    assert [run.subscribers for run in comparison.runs.values()] == [0, 0]


def measured(widget: Compare) -> None:
    until(lambda: not widget.cosines["busy"] and not widget._measure_lock.locked())


# -- results and messages of the runs ---------------------------------------------------------------------------------


def test_whole_comparison_by_hand(comms: list[Comm], comparison: FakeComparison, widget: Compare) -> None:
    """The margin is chosen minus rejected, whatever the loss reports; numbers that are not finite are left out."""
    hard = comparison.runs["hard"]
    hard.baseline = {"loss": math.nan, "mean_margin": 9.0, "logps/chosen": -3.0, "logps/rejected": -5.0}
    hard.records.extend(record(step, 40) for step in range(10, 22))
    compared = widget.get_state("compared")["compared"]
    assert (compared["recipe"], compared["batch_before_training"]) == ("preference", True)
    soft, other = compared["runs"]
    assert (soft["label"], other["label"]) == ("soft", "hard")
    assert soft["result"] == {"step": 0, "before": {}, "final": {}}
    before = {"mean_margin": 2.0, "logps/chosen": -3.0, "logps/rejected": -5.0}
    assert other["result"] == {"step": 20, "before": before, "final": record(20, 40).held_out}
    assert (soft["snapshot"]["seen"], other["snapshot"]["seen"]) == (0, 12)
    assert other["snapshot"]["state"]["data"] == "my pairs"


def test_result_is_sent_with_the_run_that_has_a_new_one(
    comms: list[Comm], comparison: FakeComparison, widget: Compare
) -> None:
    """Step 10 alone has an evaluation; the result before it came with the whole comparison."""
    sent: list[Any] = []
    for step in (9, 10, 11):
        comparison.runs["hard"].records.append(record(step, 40))
        widget._publishers[1].publish()
        sent.extend(comms[0].custom[len(sent) :])
    assert [(message["type"], message["run"], message["message"]["count"]) for message in sent] == [
        ("of_run", 1, 1)
    ] * 3
    assert [message["result"] and message["result"]["step"] for message in sent] == [None, 10, None]


def test_page_that_missed_messages_gets_the_result_again(
    comms: list[Comm], comparison: FakeComparison, widget: Compare
) -> None:
    for run in comparison.runs.values():
        run.records.append(record(10, 40))
    for publisher in widget._publishers:
        publisher.publish()
    epoch = widget._publishers[1].epoch
    (answer,) = comms[0].ask(type="sync", run=1, since=1, epoch=epoch)
    assert (answer["run"], answer["result"]["step"], answer["message"]["type"]) == (1, 10, "update")
    (answer,) = comms[0].ask(type="sync", run=0, since=1, epoch=widget._publishers[0].epoch)
    assert (answer["run"], answer["message"]["type"]) == (0, "update")
    (answer,) = comms[0].ask(type="sync", run=1, since=None, epoch=epoch)
    assert answer["message"]["type"] == "snapshot"
    for run in (-1, 2, "1", None):
        assert comms[0].ask(type="sync", run=run, since=1, epoch=epoch) == []
    comparison.runs["soft"].records.append(record(11, 40))
    widget._publishers[0].publish()
    assert comms[0].custom[-1]["result"] is None, "run 0 has had its result"


def test_idle_runs_store_what_a_saved_notebook_shows(
    comms: list[Comm], comparison: FakeComparison, widget: Compare, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing while a run trains; the state when all have paused; a picture at every end with more steps."""
    outputs: list[Any] = []
    monkeypatch.setattr(widget._outputs, "update", outputs.append)
    comparison.runs["soft"].records.extend(record(step, 40) for step in (9, 10))
    seen = []
    for status in ("running", "paused", "ready", "stopped", "stopped", "finished"):
        comparison.status = status
        before = len(comms[0].sent)
        widget._on_idle()
        states = [data["state"] for data, _ in comms[0].sent[before:] if data["method"] == "update"]
        seen.append((len(outputs), [state["compared"]["runs"][0]["snapshot"]["seen"] for state in states]))
    assert seen == [(0, []), (0, [2]), (0, [2]), (1, [2]), (1, [2]), (1, [2])]
    comparison.runs["hard"].records.append(record(1))
    widget._on_idle()
    assert len(outputs) == 2
    picture = colours(image_of(outputs[-1]["image/png"]))
    assert all(count(picture, colour, 40) > 30 for colour in RUNS["light"][:2])


# -- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["pause", "resume", "stop", "start"])
def test_button_calls_the_comparison_once_and_has_one_answer(
    comms: list[Comm], comparison: FakeComparison, widget: Compare, kind: str
) -> None:
    comparison.answers = [Cosines([], [], [], None, 0, 0)]
    answers = comms[0].ask(type=kind, request=31)
    assert answers == [{"type": "reply", "request": 31, "error": ""}]
    if kind == "start":
        measured(widget)
    assert comparison.calls == [(kind, (), {}), *([("measure_cosines", None)] if kind == "start" else [])]


def test_methods_pass_their_arguments_on(comparison: FakeComparison, widget: Compare) -> None:
    assert widget.pause() is widget
    assert widget.stop() is widget
    answers: Any = (widget.wait(3.0, check=False), widget.table(), widget.figure(), widget.gradient_cosines("soft", []))
    assert answers == ("wait", "table", "figure", "gradient_cosines")
    assert comparison.calls == [
        *(("pause", (), {}), ("stop", (), {}), ("wait", (3.0,), {"check": False})),
        *(("table", (), {}), ("figure", (), {}), ("gradient_cosines", ("soft", []), {})),
    ]


def test_closed_comparison_answers_nothing(comms: list[Comm], comparison: FakeComparison, widget: Compare) -> None:
    comparison.status = "stopped"
    widget.close()
    assert comms[0].closed
    comms[0].receive({"content": {"data": {"method": "custom", "content": {"type": "start"}}}, "buffers": []})
    sent: list[Any] = []
    widget._outputs.update = sent.append
    widget._pictured_steps = -1  # the picture is out of date
    widget._on_idle()
    assert (comparison.calls, sent) == ([], [])


# -- cosines ----------------------------------------------------------------------------------------------------------

MEASURED = Cosines(["soft", "hard"], [[1.0, math.nan], [math.nan, -0.5]], [2.0, 0.0], "hard", 7, 16)


def test_cosines_by_hand(comms: list[Comm], comparison: FakeComparison, widget: Compare) -> None:
    """A cosine with a gradient of 0 is None, because JSON has no nan."""
    comparison.answers = [MEASURED]
    assert comms[0].ask(type="cosines", at="hard", request=1)[-1]["error"] == ""
    measured(widget)
    assert comparison.calls == [("measure_cosines", "run of hard")]
    assert widget.cosines == {
        **{"labels": ["soft", "hard"], "values": [[1.0, None], [None, -0.5]], "norms": [2.0, 0.0]},
        **{"at": "hard", "step": 7, "datums": 16, "busy": False, "problem": ""},
    }
    states = [data["state"]["cosines"] for data, _ in comms[0].sent if "cosines" in data.get("state", {})]
    assert [(state["busy"], state["labels"]) for state in states] == [(True, []), (False, ["soft", "hard"])]


def test_failed_measurement_keeps_the_last_cosines(comparison: FakeComparison, widget: Compare) -> None:
    comparison.answers = [MEASURED, ValueError("x\ud83d" + "y" * 9000), KeyError(), RuntimeError(), MEASURED]
    problems = []
    for _ in range(5):
        widget._start_measurement(None)
        assert widget.cosines["busy"] or not widget._measure_lock.locked()
        measured(widget)
        problems.append(widget.cosines["problem"])
        assert widget.cosines["values"] == [[1.0, None], [None, -0.5]]
    assert problems == ["", "x\\ud83d" + "y" * 3998, "KeyError", "RuntimeError", ""]
    assert module.MAX_CHARACTERS == 4000


def test_only_one_measurement_and_only_the_first_start_measures(
    comms: list[Comm], comparison: FakeComparison, widget: Compare
) -> None:
    gate = Gate()
    comparison.answers = [lambda: gate() or MEASURED]
    widget.start()
    gate.wait()
    assert widget.cosines["busy"]
    error = comms[0].ask(type="cosines", at=None, request=2)[-1]["error"]
    assert error == "cosines are being measured; wait for them"
    gate.open()
    measured(widget)
    assert widget.start() is widget
    assert [call[0] for call in comparison.calls] == ["start", "measure_cosines", "start"]


def test_without_a_batch_before_training_nothing_is_measured(comparison: FakeComparison, widget: Compare) -> None:
    comparison.recipe = "rl"
    widget.start()
    assert (comparison.calls, widget.cosines) == ([("start", (), {})], None)
    assert not widget.get_state("compared")["compared"]["batch_before_training"]


def test_measurement_runs_in_the_context_of_its_request(comparison: FakeComparison, widget: Compare) -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="elsewhere")
    variable.set("here")
    found: list[str] = []
    comparison.answers = [lambda: found.append(variable.get()) or MEASURED]
    widget._start_measurement(None)
    measured(widget)
    assert found == ["here"]


def test_text_and_view_of_the_output(comparison: FakeComparison, widget: Compare) -> None:
    bundle, metadata = widget._repr_mimebundle_()
    assert (bundle["text/plain"], metadata) == ("Compare(['soft', 'hard'], recipe='preference')", {})
    assert bundle["application/vnd.jupyter.widget-view+json"]["model_id"] == widget.model_id


def test_display_adds_an_output_that_can_be_updated(widget: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    added: list[Any] = []
    monkeypatch.setattr(widget._outputs, "add", added.append)
    widget._ipython_display_()
    assert added == [widget._repr_mimebundle_()[0]]
