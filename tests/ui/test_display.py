"""Outputs with display ids, and the calls after each cell."""

from __future__ import annotations

import contextvars
from types import SimpleNamespace
from typing import Any

import pytest
from IPython.core.events import EventManager, available_events

from mint_lab.ui import display as module
from mint_lab.ui.display import Outputs, after_each_cell, load_cell_magics

CELL: contextvars.ContextVar[str] = contextvars.ContextVar("CELL", default="none")


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """The cell and the options of every call of IPython's ``display``."""
    calls: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(module, "display", lambda bundle, **options: calls.append((CELL.get(), {**options, **bundle})))
    return calls


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> Any:
    """IPython's own event manager, in a shell that does nothing else."""
    loaded: list[str] = []
    shell = SimpleNamespace(loaded=loaded, extension_manager=SimpleNamespace(load_extension=loaded.append))
    shell.events = EventManager(shell, available_events)
    monkeypatch.setattr(module, "get_ipython", lambda: shell)
    return shell


def test_each_output_has_an_id_and_update_replaces_all(shown: list[Any]) -> None:
    outputs = Outputs()
    outputs.add({"text/plain": "a"})
    outputs.add({"text/plain": "a"})
    first, second = (options["display_id"] for _, options in shown)
    assert first != second
    shown.clear()
    outputs.update({"text/plain": "b"})
    assert [(o["display_id"], o["update"], o["text/plain"]) for _, o in shown] == [
        (first, True, "b"),
        (second, True, "b"),
    ]


def test_update_belongs_to_no_cell(shown: list[Any]) -> None:
    """The kernel then attributes it to the cell that is running, not to the cell of the caller's context."""
    CELL.set("first cell")
    outputs = Outputs()
    outputs.add({})
    outputs.update({})
    assert [cell for cell, _ in shown] == ["first cell", "none"]


def test_nothing_displayed_updates_nothing(shown: list[Any]) -> None:
    Outputs().update({"text/plain": "b"})
    assert shown == []


def test_callback_runs_after_each_cell_until_disposed(shell: Any) -> None:
    calls: list[int] = []
    dispose = after_each_cell(lambda: calls.append(1))
    for _ in range(2):
        shell.events.trigger("post_run_cell", SimpleNamespace())
    dispose()
    dispose()
    shell.events.trigger("post_run_cell", SimpleNamespace())
    assert len(calls) == 2


def test_cell_magics_are_loaded(shell: Any) -> None:
    load_cell_magics()
    assert shell.loaded == ["mint_lab"]


def test_without_ipython_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "get_ipython", lambda: None)
    load_cell_magics()
    after_each_cell(lambda: pytest.fail("called"))()


def test_outputs_are_mimebundles(shown: list[Any]) -> None:
    """Without ``raw`` IPython shows the dict itself."""
    outputs = Outputs()
    outputs.add({"text/plain": "a"})
    outputs.update({"text/plain": "b"})
    (_, added), (_, updated) = shown
    assert added == {"raw": True, "display_id": added["display_id"], "text/plain": "a"}
    assert updated == {"raw": True, "display_id": added["display_id"], "update": True, "text/plain": "b"}
