"""Widgets are kept while a page shows them or a program refers to them, and not longer."""

from __future__ import annotations

import gc
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ipywidgets
import pytest
from ipywidgets.widgets.widget import _instances

import mint_lab as ml
from mint_lab.data import to_datum
from mint_lab.errors import RunError
from mint_lab.runs import Run
from mint_lab.runs.comparison.comparison import Comparison
from mint_lab.ui import display, page_widget
from mint_lab.ui.compare import Compare
from mint_lab.ui.page_widget import PageWidget, weakly
from mint_lab.ui.parts import LiveCharts, RunControls, SamplesTable
from mint_lab.ui.run_table import RunTable
from mint_lab.ui.workbench import Workbench
from tests.runs.bigram import BigramClient, letter_pairs
from tests.ui.pages import Comm
from tests.ui.scripted import ScriptedRun
from tests.waiting import TIMEOUT, Gate, until


@pytest.fixture
def comms(monkeypatch: pytest.MonkeyPatch) -> dict[str, Comm]:
    """The channel of each widget, those of layouts included, by its number."""
    created: dict[str, Comm] = {}
    monkeypatch.setattr(page_widget, "_removed", deque[PageWidget](maxlen=1))

    def create(**options: Any) -> Comm:
        comm = Comm(**options)
        comm.comm_id = f"page {len(created)}"
        created[comm.comm_id] = comm
        return comm

    monkeypatch.setattr("comm.create_comm", create)
    return created


def workbench() -> Workbench:
    return Workbench(data=letter_pairs(12), client=BigramClient(), steps=2)


def compare() -> Compare:
    return Compare(Comparison(["hinge", "simpo"], data=letter_pairs(12), clients=BigramClient, steps=2))


WIDGETS: dict[str, Callable[[], PageWidget]] = {
    "workbench": workbench,
    "compare": compare,
    "charts": lambda: LiveCharts(ScriptedRun()),
    "controls": lambda: RunControls(ScriptedRun()),
    "samples": lambda: SamplesTable(ScriptedRun()),
    "table": lambda: RunTable("runs"),
    "tokens": lambda: ml.show_tokens(to_datum([1, 2, 3], 1)),
}


def died(reference: weakref.ref[Any]) -> bool:
    gc.collect()
    return reference() is None


def has_ended(*references: weakref.ref[Any]) -> None:
    """Return once all objects are gone: a widget is closed on another thread."""
    until(lambda: all(map(died, references)), lambda: f"kept: {[one() for one in references if one() is not None]}")


@pytest.mark.parametrize("kind", WIDGETS)
def test_a_widget_that_nobody_refers_to_is_freed_with_its_comms_and_threads(kind: str, comms: dict[str, Comm]) -> None:
    WIDGETS[kind]().close()  # the thread that closes widgets stays
    before, entries = set(threading.enumerate()), set(_instances)
    reference = weakref.ref(WIDGETS[kind]())
    has_ended(reference)
    until(lambda: set(_instances) <= entries)
    until(lambda: set(threading.enumerate()) <= before, lambda: str(set(threading.enumerate()) - before))
    assert all(comm.closed for comm in comms.values())


@pytest.mark.parametrize("kind", WIDGETS)
def test_a_widget_that_a_program_refers_to_can_be_described_to_a_page(kind: str, comms: dict[str, Comm]) -> None:
    """As ipywidgets does it for a page that is loaded again, and for ``embed_minimal_html``."""
    widget = WIDGETS[kind]()
    gc.collect()
    state = ipywidgets.Widget.get_manager_state()["state"]
    assert state[widget.model_id]["model_module"] == "anywidget"
    widget.close()
    assert widget._model_id not in _instances


def test_a_widget_on_a_page_is_kept_until_it_leaves_the_page(comms: dict[str, Comm]) -> None:
    widget = LiveCharts(ScriptedRun())
    reference = weakref.ref(widget)
    comms[widget.model_id].ask(type="sync", since=0, epoch="")  # a page has rendered it
    del widget
    gc.collect()
    kept = reference()
    assert kept is not None
    assert _instances[kept.model_id] is kept
    kept.leave_page()
    del kept
    gc.collect()
    assert reference() is not None, "the removal of the last one can be undone"
    LiveCharts(ScriptedRun()).leave_page()
    has_ended(reference)


def test_a_widget_in_a_container_is_kept_by_it(comms: dict[str, Comm]) -> None:
    box = ipywidgets.HBox([LiveCharts(ScriptedRun())])
    gc.collect()
    (charts,) = box.children
    comms[charts.model_id].ask(type="sync", since=0, epoch="")
    assert isinstance(charts, LiveCharts)
    charts.close()
    box.close()


def test_what_a_workbench_trained_is_freed_with_it(comms: dict[str, Comm], tmp_path: Path) -> None:
    """Three times: nothing grows. The run, its loop, its trainer, its client, and the publisher are gone."""
    others, before = set(threading.enumerate()), 0

    def new_threads(start: str) -> int:
        return sum(thread.name.startswith(start) for thread in set(threading.enumerate()) - others)

    for number in range(3):
        bench = Workbench(data=letter_pairs(12), client=BigramClient(), steps=3, folder=tmp_path / str(number))
        run = bench.run
        assert run.start().wait()
        bench._on_idle()
        bench._repr_mimebundle_()
        things = (bench, run, run._loop, run.trainer, run.client, bench._publisher)
        references = [weakref.ref(thing) for thing in things]
        del bench, run, things
        has_ended(*references)
        until(lambda: not new_threads("mint-lab"))
        before = before or new_threads("mint")
        assert new_threads("mint") == before


def test_a_run_outlives_its_workbench(comms: dict[str, Comm], tmp_path: Path) -> None:
    bench = Workbench(data=letter_pairs(12), client=BigramClient(), steps=3, folder=tmp_path / "run")
    run, reference = bench.run, weakref.ref(bench)
    del bench
    has_ended(reference)
    assert run.start().wait()
    assert run.steps_done == 3


def test_runs_and_clients_that_are_dropped_are_freed(tmp_path: Path) -> None:
    for number in range(2):
        run = Run(data=letter_pairs(12), client=BigramClient(), steps=3, folder=tmp_path / str(number))
        assert run.start().wait()
        references = [weakref.ref(run), weakref.ref(run._loop), weakref.ref(run.trainer), weakref.ref(run.client)]
        del run
        has_ended(*references)


def test_weakly_calls_a_method_while_its_object_exists() -> None:
    seen: list[int] = []

    class Thing:
        def see(self, number: int) -> None:
            seen.append(number)

    thing = Thing()
    call = weakly(thing.see)
    call(1)
    del thing
    gc.collect()
    call(2)
    assert seen == [1]


# -- nothing trains unseen ---------------------------------------------------------------------------------------------


class Cells:
    """A notebook's kernel, as far as it says which cell is running."""

    def __init__(self) -> None:
        self.parent: dict[str, Any] = {}
        self.executions = 0

    def get_parent(self, channel: str) -> dict[str, Any]:
        assert channel == "shell"
        return self.parent

    def run(self, cell: str | None, code: str = "code") -> None:
        self.executions += 1
        self.parent = {
            "header": {"msg_type": "execute_request", "msg_id": str(self.executions)},
            "metadata": {} if cell is None else {"cellId": cell},
            "content": {"code": code},
        }


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> Cells:
    kernel = Cells()
    monkeypatch.setattr(display, "get_ipython", lambda: SimpleNamespace(kernel=kernel, user_ns={}, events=None))
    monkeypatch.setattr(page_widget, "_controls", [])
    return kernel


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Callable[..., Workbench]]:
    """``bench(steps)`` returns a workbench whose run has completed so many steps and is running, in a gate."""
    gates: list[Gate] = []
    made: list[Workbench] = []

    def make(steps: int = 2) -> Workbench:
        gate = Gate()
        gates.append(gate)

        class Client(BigramClient):
            def optim_step(self, *args: Any, **options: Any) -> Any:
                gate()
                return super().optim_step(*args, **options)

        found = Workbench(data=letter_pairs(12), client=Client(), steps=9, folder=tmp_path / str(len(made)))
        made.append(found)
        found.run.start()
        for _ in range(steps):
            gate.wait()
            gate.open()
        gate.wait()
        return found

    make.gates = gates  # type: ignore[attr-defined]
    yield make
    for gate in gates:
        gate.open(1000)
    for one in made:
        one.run.stop().wait(TIMEOUT, check=False)


def go_on(bench: Any, number: int) -> None:
    bench.gates[number].open(1000)


RERUN = "Paused after 2 steps, because its cell was run again."


def test_a_cell_that_is_run_again_pauses_its_earlier_run_and_offers_to_continue_it(
    cells: Cells, bench: Any, comms: dict[str, Comm]
) -> None:
    cells.run("a")
    first = bench()
    assert first.earlier is None
    cells.run("a")
    second = Workbench(data=letter_pairs(12), client=BigramClient(), steps=5)
    go_on(bench, 0)
    assert first.run.wait(TIMEOUT)
    assert (first.run.status, first.run.steps_done, second.run.status) == ("paused", 3, "ready")
    assert RERUN in first.run.notes
    assert first.run.loss.label == "pairwise_preference v1"
    assert second.earlier == {"loss_label": "pairwise_preference v1", "steps_done": 2, "steps_total": 9}
    unused = second._snapshot()["state"]["key"]

    answer = comms[second.model_id].ask(type="continue_earlier", request=4)
    assert {"type": "reply", "request": 4, "error": ""} in answer
    assert second.run is first.run
    assert second._snapshot()["state"]["key"] == first._snapshot()["state"]["key"] != unused, "one run, twice"
    assert second.earlier is None, "a run that has not begun is not offered"
    assert first.run.wait(TIMEOUT)
    assert (first.run.status, first.run.steps_done) == ("finished", 9)
    with pytest.raises(RunError, match=r"^no earlier run of this cell can be continued$"):
        second.continue_earlier()


def test_the_present_run_is_paused_and_offered_when_the_earlier_one_is_continued(
    cells: Cells, bench: Any, comms: dict[str, Comm]
) -> None:
    cells.run("a")
    first = bench()
    cells.run("a")
    second = bench(steps=1)
    present = second.run
    for number in (0, 1):
        go_on(bench, number)
    assert first.run.wait(TIMEOUT)
    present.step(1).wait(TIMEOUT)
    second.continue_earlier()
    assert first.run.wait(TIMEOUT)
    assert first.run.status == "finished"
    assert second.earlier["steps_done"] == present.steps_done
    assert second.continue_earlier() is present


def test_the_old_output_of_a_cell_does_not_pause_the_run_that_the_new_one_continues(
    cells: Cells, bench: Any, comms: dict[str, Comm]
) -> None:
    """A page reports that an output is gone a while later."""
    cells.run("a")
    first = bench()
    comms[first.model_id].ask(type="sync", since=0, epoch="")
    cells.run("a")
    second = Workbench(data=letter_pairs(12), client=BigramClient(), steps=5)
    second.continue_earlier()
    comms[first.model_id].ask(type="unseen")
    go_on(bench, 0)
    assert first.run.wait(TIMEOUT)
    assert (second.run.status, second.run.steps_done) == ("finished", 9)


def test_a_person_who_has_the_run_in_a_variable_continues_it(cells: Cells, bench: Any, comms: dict[str, Comm]) -> None:
    cells.run("a")
    run = bench().run
    cells.run("a")
    other = Workbench(data=letter_pairs(12), client=BigramClient(), steps=5)
    go_on(bench, 0)
    assert run.wait(TIMEOUT)
    assert run.start().wait(TIMEOUT)
    assert run.steps_done == 9
    other.close()


@pytest.mark.parametrize(
    ("before", "after", "paused"),
    [
        (("a", "x"), ("a", "another source"), True),
        (("a", "x"), ("b", "x"), False),
        ((None, "x"), (None, " x\n"), True),
        ((None, "x"), (None, "y"), False),
        ((None, "x"), ("x", "x"), False),
    ],
)
def test_what_the_same_cell_is(  # noqa: PLR0917 - fixtures and a case
    cells: Cells, bench: Any, comms: dict[str, Comm], before: Any, after: Any, paused: bool
) -> None:
    """By its identifier; by its source only if the program sends no identifier."""
    cells.run(*before)
    first = bench()
    cells.run(*after)
    Workbench(data=letter_pairs(12), client=BigramClient(), steps=5).close()
    assert bool(first.run.notes and "its cell was run again" in first.run.notes[-1]) == paused


def test_workbenches_of_one_execution_and_of_no_cell_leave_each_other_alone(
    cells: Cells, bench: Any, comms: dict[str, Comm]
) -> None:
    cells.run("a")
    first = bench()
    assert Workbench(data=letter_pairs(12), client=BigramClient()).earlier is None
    cells.parent = {"header": {"msg_type": "comm_msg", "msg_id": "9"}, "metadata": {"cellId": "a"}, "content": {}}
    assert Workbench(data=letter_pairs(12), client=BigramClient()).earlier is None
    assert (first.run.status, first.run.notes) == ("running", [])


def test_a_comparison_is_paused_when_its_cell_is_run_again(
    cells: Cells, comms: dict[str, Comm], tmp_path: Path
) -> None:
    cells.run("a")
    gate = Gate()

    class Client(BigramClient):
        def optim_step(self, *args: Any, **options: Any) -> Any:
            gate()
            return super().optim_step(*args, **options)

    options: dict[str, Any] = {"data": letter_pairs(12), "steps": 9, "folder": tmp_path}
    first = Compare(Comparison(["hinge", "simpo"], clients=Client, **options)).start()
    gate.wait()
    gate.wait()
    cells.run("a")
    second = Compare(Comparison(["hinge", "simpo"], clients=BigramClient, **options))
    gate.open(1000)
    assert first.wait(TIMEOUT)
    for run in first.runs.values():
        assert run.status == "paused"
        assert "its cell was run again" in run.notes[-1]
    comms[first.model_id].ask(type="start", request=1)
    comms[first.model_id].ask(type="stop", run=1, request=2)
    assert first.wait(TIMEOUT)
    assert [run.status for run in first.runs.values()] == ["finished", "stopped"]
    answer = comms[first.model_id].ask(type="stop", run=2, request=3)
    assert answer == [{"type": "reply", "request": 3, "error": "run 2 is not one of the 2 runs of this page"}]
    second.close()


def test_a_page_that_loses_its_last_output_pauses_its_run_until_it_is_back(
    cells: Cells, bench: Any, comms: dict[str, Comm]
) -> None:
    cells.run("a")
    first = bench()
    page = comms[first.model_id]
    page.ask(type="sync", since=0, epoch="")
    page.ask(type="unseen")
    go_on(bench, 0)
    assert first.run.wait(TIMEOUT)
    assert first.run.status == "paused"
    assert first.run.notes[-1] == "Paused after 2 steps, because its output was removed."
    assert not first._is_shown
    page.ask(type="seen")
    assert first._is_shown
    assert first.run.start().wait(TIMEOUT)


def test_closing_a_workbench_pauses_its_run_and_closing_charts_does_not(
    cells: Cells, bench: Any, comms: dict[str, Comm]
) -> None:
    first = bench()
    charts = LiveCharts(first.run)
    comms[charts.model_id].ask(type="unseen")
    charts.close()
    assert first.run.notes == []
    first.close()
    go_on(bench, 0)
    assert first.run.wait(TIMEOUT)
    assert first.run.notes == ["Paused after 2 steps, because its page was closed."]
    assert first.run.start().wait(TIMEOUT)


def test_a_removed_output_is_no_result_of_a_cell_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """IPython's own names go; a person's variable stays, and so do other results."""
    value, other = object(), object()
    names = {"_": value, "__": other, "___": value, "_7": value, "_8": other, "mine": value, "_i7": "1"}
    results = {7: value, 8: other}
    hook = SimpleNamespace(_=value, __=other, ___=value)
    shell = SimpleNamespace(user_ns=names | {"_oh": results, "Out": results}, displayhook=hook)
    monkeypatch.setattr(display, "get_ipython", lambda: shell)
    display.forget_output(value)
    kept = {name: kept for name, kept in shell.user_ns.items() if name not in ("_oh", "Out")}
    assert kept == {"_": "", "__": other, "___": "", "_8": other, "mine": value, "_i7": "1"}
    assert results == {8: other}
    assert vars(hook) == {"_": "", "__": other, "___": ""}
    monkeypatch.setattr(display, "get_ipython", lambda: None)
    display.forget_output(value)
