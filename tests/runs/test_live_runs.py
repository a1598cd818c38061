"""The runs of a process are known as long as they exist."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from mint_lab.runs import Run, live_runs
from mint_lab.runs.live_runs import add_loop, latest_trainer, losses_in_use, set_latest_trainer


class Loop:
    def __init__(self, status: str, loss: str) -> None:
        self.status, self.plan = status, SimpleNamespace(loss=SimpleNamespace(name=loss))
        self.calls: list[Any] = []

    def request(self, status: str) -> None:
        self.calls.append(status)

    def wait(self, timeout: float | None) -> bool:
        self.calls.append(timeout)
        return True


@pytest.fixture(autouse=True)
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_runs, "_live_loops", weakref.WeakSet())
    monkeypatch.setattr(live_runs, "_latest_trainer", [])


def test_losses_of_running_and_paused_runs_are_in_use() -> None:
    loops = [Loop(status, status) for status in ("ready", "running", "paused", "stopped", "finished")]
    for loop in loops:
        add_loop(loop)  # type: ignore[arg-type]
    assert losses_in_use() == {"running", "paused"}
    loops.clear()
    del loop
    gc.collect()
    assert losses_in_use() == set()


def test_the_latest_trainer_is_not_kept_alive(make_run: Callable[..., Run]) -> None:
    assert latest_trainer() is None
    first, second = make_run().prepare(), make_run().prepare()
    set_latest_trainer(second.trainer)
    set_latest_trainer(first.trainer)
    assert latest_trainer() is first.trainer
    first._trainer = None
    first._loop._trainer = None
    gc.collect()
    assert latest_trainer() is None


def test_all_runs_are_stopped_at_exit_and_none_is_waited_for() -> None:
    """They end side by side, not one after the other: their threads are joined together, by mint_lab.threads."""
    order: list[tuple[int, Any]] = []
    loops = [Loop("running", "dpo"), Loop("running", "dpo")]
    for number, loop in enumerate(loops):
        loop.request = lambda status, number=number: order.append((number, status))  # type: ignore[method-assign]
        loop.wait = lambda timeout, number=number: order.append((number, timeout))  # type: ignore[method-assign]
        add_loop(loop)  # type: ignore[arg-type]
    live_runs._stop_all()
    assert sorted(order) == [(0, "stopped"), (1, "stopped")]
