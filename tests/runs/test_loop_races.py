"""Races of a run's loop, each at a gate: steps, calls between them, starts, and the end of the worker."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest

from mint_lab.runs import Run

from ..waiting import TIMEOUT, Attempt, Gate, WatchedLock, join
from .bigram import BigramClient
from .conftest import finish, in_state


def worker_of(run: Run) -> threading.Thread:
    [worker] = [thread for thread in threading.enumerate() if thread.name == f"mint_lab {run._loop.name}"]
    return worker


class SlowAppend(deque[Callable[[], None]]):
    """Pending calls; who appends one stops at a gate before or after it is there."""

    def __init__(self, gate: Gate, *, before: bool) -> None:
        super().__init__()
        self.gate, self.before = gate, before

    def append(self, item: Callable[[], None]) -> None:
        if self.before:
            self.gate()
        super().append(item)
        if not self.before:
            self.gate()


def test_a_step_waits_for_a_call_that_began_while_the_run_was_paused(make_run: Any) -> None:
    run = in_state(make_run, "paused")
    gate, step = Gate(), Gate()
    future = run._loop.call(gate)
    gate.wait()
    run.client.gate = step
    run._loop._step_lock = WatchedLock(run._loop._step_lock, step.arrived.release)
    run.step()
    step.wait()  # the worker is at the lock, or in the step
    assert run.client.calls.count("forward_backward") == 1, "the step runs beside the call"
    assert run.status == "running"
    gate.open()
    assert future.result(TIMEOUT) is None
    step.open()
    assert run.wait(TIMEOUT)
    assert run.client.calls.count("forward_backward") == 2


def test_a_call_waits_for_the_step_in_progress(make_run: Any) -> None:
    """A call on a paused run has a thread of its own, which may begin when a step is in progress by then."""
    run = in_state(make_run, "running")
    order: list[Any] = []
    run._loop._pending_calls.append(lambda: order.append(run.steps_done))
    attempt = Attempt(run._loop._run_pending_calls, run._loop, "_step_lock")
    assert attempt.waits
    assert order == []
    run.client.gate.open(10)
    attempt.result()
    assert run.wait(TIMEOUT)
    assert order == [1]


def test_calls_run_between_two_steps_in_order(make_run: Any) -> None:
    """Also the calls after one that raises: even a SystemExit ends neither the worker nor the calls."""
    run = in_state(make_run, "running")

    def leaves() -> None:
        raise SystemExit(3)

    seen: list[tuple[str, int, int]] = []
    calls = run.client.calls

    def look(name: str) -> None:
        seen.append((name, run.steps_done, calls.count("forward_backward")))

    futures = [run._loop.call(job) for job in (lambda: look("a"), leaves, lambda: look("b"), lambda: look("c"))]
    run.client.gate.open(10)
    assert run.wait(TIMEOUT)
    assert isinstance(futures[1].exception(TIMEOUT), SystemExit)
    assert [future.result(TIMEOUT) for future in (futures[0], *futures[2:])] == [None] * 3
    assert seen == [("a", 1, 1), ("b", 1, 1), ("c", 1, 1)]
    assert (run.status, run.steps_done) == ("finished", 4)


@pytest.mark.parametrize("before", [True, False])
def test_call_that_comes_as_the_worker_leaves_runs_once(make_run: Any, before: bool) -> None:
    """The worker ends while the caller is about to submit the call, or has just submitted it."""
    run = in_state(make_run, "running")
    worker, gate, ran = worker_of(run), Gate(), []
    run._loop._pending_calls = SlowAppend(gate, before=before)
    futures: list[Any] = []
    caller = threading.Thread(target=lambda: futures.append(run._loop.call(lambda: ran.append(1))))
    caller.start()
    gate.wait()
    run.client.gate.open(10)
    assert run.wait(TIMEOUT)
    join(worker)
    assert ran == ([] if before else [1])
    gate.open()
    join(caller)
    others = [thread for thread in threading.enumerate() if thread.name == "mint_lab call"]
    assert others or futures[0].done(), "nobody is left who would run the call"
    assert futures[0].result(TIMEOUT) is None
    for thread in others:
        join(thread)
    assert ran == [1]


def test_call_that_comes_after_the_last_step_is_run_by_the_worker(make_run: Any) -> None:
    """The worker has looked for calls after its last step, and has not left yet."""
    run = in_state(make_run, "running")
    worker, gate, leave = worker_of(run), Gate(), run._loop._leave_running
    run._loop._leave_running = lambda status: (gate(), leave(status))  # type: ignore[method-assign]
    run.client.gate.open(10)
    gate.wait()
    future = run._loop.call(lambda: threading.current_thread())
    gate.open()
    join(worker)
    assert future.done()
    assert future.result() is worker


def test_start_while_the_worker_leaves_runs_on(make_run: Any) -> None:
    """The run is about to pause after a step; who starts it meanwhile waits, and then starts another worker."""
    run = make_run(steps=3, client=BigramClient())
    gate, leave = Gate(holds=1), run._loop._leave_running
    run._loop._leave_running = lambda status: (gate(), leave(status))  # type: ignore[method-assign]
    run.step()
    gate.wait()
    attempt = Attempt(run.start, run._loop, "_changed")
    assert attempt.waits
    gate.open()
    attempt.result()
    assert run.wait(TIMEOUT)
    assert (run.status, run.steps_done) == ("finished", 3)


@pytest.mark.parametrize("edit", ["set", "pause", "stop", "start", "seconds"])
def test_what_changes_the_state_waits_while_it_is_read(make_run: Any, edit: str) -> None:
    """The worker decides under the lock whether another step begins, and with which plan."""
    run = make_run(steps=2, client=BigramClient(gate=Gate()))
    changes = {
        "set": lambda: run.set(learning_rate=0.5),
        "pause": run.pause,
        "stop": run.stop,
        "start": run.start,
        "seconds": lambda: run._loop.seconds,
    }
    gate = Gate(holds=1)

    class SlowRecords(list[Any]):
        def __len__(self) -> int:
            if threading.current_thread().name == f"mint_lab {run._loop.name}":
                gate()
            return super().__len__()

    run.prepare()
    inner = run._loop._begin_step

    def begin(*arguments: Any) -> bool:
        run._loop.records = SlowRecords(run._loop.records)
        return inner(*arguments)

    run._loop._begin_step = begin  # type: ignore[method-assign]
    run.start()
    gate.wait()
    attempt = Attempt(changes[edit], run._loop, "_changed")
    assert attempt.waits
    gate.open()
    attempt.result()
    run.client.gate.open(10)  # step 1 has begun without the change
    assert run.wait(TIMEOUT)
    if edit == "set":
        assert [record.settings["learning_rate"] for record in run.records] == [0.05, 0.5]
    else:
        assert run.steps_done == {"pause": 1, "stop": 1}.get(edit, 2)


def test_an_edit_waits_while_the_first_run_json_is_made(make_run: Any) -> None:
    """Otherwise the file could have the loss from before the edit and the settings from after it."""
    run = make_run(steps=1)
    gate, describe, written = Gate(holds=1), run._loop._describe_run, []

    def slow() -> Any:
        gate()
        written.append(describe())
        return written[-1]

    run._loop._describe_run = slow
    run.start()
    gate.wait()
    attempt = Attempt(lambda: run.set(learning_rate=0.5), run._loop, "_changed")
    assert attempt.waits
    gate.open()
    attempt.result()
    assert run.wait(TIMEOUT)
    assert written[0].settings["learning_rate"] == 0.05


def test_two_starts_at_once_have_one_worker(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(steps=3)
    gate, started, start = Gate(holds=1), [], threading.Thread.start

    def slow_start(thread: threading.Thread) -> None:
        if thread.name == f"mint_lab {run._loop.name}":
            started.append(thread)
            gate()
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", slow_start)
    first = threading.Thread(target=run.start)
    first.start()
    gate.wait()
    attempt = Attempt(run.start, run._loop, "_changed")
    assert attempt.waits
    gate.open()
    attempt.result()
    join(first)
    assert run.wait(TIMEOUT)
    assert len(started) == 1
    assert run.steps_done == 3


def test_one_model_is_made_for_first_calls_from_two_threads(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever thread comes first loads; the other one waits and finds the trainer."""
    from mint_lab.runs import loading
    from mint_lab.runs import run as run_module

    run = make_run(steps=1)
    gate, loads, load = Gate(holds=1), [], run_module.load_trainer

    def slow(*args: Any, **options: Any) -> Any:
        loads.append(threading.current_thread().name)
        gate()
        return load(*args, **options)

    monkeypatch.setattr(run_module, "load_trainer", slow)
    first = threading.Thread(target=run.prepare)
    first.start()
    gate.wait()
    attempt = Attempt(run.prepare, loading, "ONE_AT_A_TIME")
    assert attempt.waits
    gate.open()
    attempt.result()
    join(first)
    assert len(loads) == 1
    finish(run)
