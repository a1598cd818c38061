"""Widgets are kept while a page shows them or a program refers to them, and not longer."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets
import pytest
from ipywidgets.widgets.widget import _instances

import mint_lab as ml
from mint_lab.data import to_datum
from mint_lab.runs import Run
from mint_lab.runs.comparison.comparison import Comparison
from mint_lab.ui.compare import Compare
from mint_lab.ui.page_widget import PageWidget, weakly
from mint_lab.ui.parts import LiveCharts, RunControls, SamplesTable
from mint_lab.ui.run_table import RunTable
from mint_lab.ui.workbench import Workbench
from tests.runs.bigram import BigramClient, letter_pairs
from tests.ui.pages import Comm
from tests.ui.scripted import ScriptedRun
from tests.waiting import until


@pytest.fixture
def comms(monkeypatch: pytest.MonkeyPatch) -> dict[str, Comm]:
    """The channel of each widget, those of layouts included, by its number."""
    created: dict[str, Comm] = {}

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
