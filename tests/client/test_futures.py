"""One worker per base model: order, futures, cancelling, errors, and what remains."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import threading
import weakref
from typing import Any

import pytest

from mint_lab.client import futures
from mint_lab.client.futures import CallBatcher, SelfFuture, Worker, done, run_now
from mint_lab.types import APIFuture
from tests.waiting import TIMEOUT, Attempt, Gate, join


class Thing:
    """Something a weak reference can point to."""


def test_calls_run_in_order_on_one_thread() -> None:
    worker = Worker("t")
    seen: list[tuple[int, str]] = []
    futures = [worker.submit(lambda i=i: seen.append((i, threading.current_thread().name))) for i in range(50)]
    futures[-1].result(TIMEOUT)
    assert seen == [(i, "t") for i in range(50)]


def test_submit_does_not_wait() -> None:
    worker, gate = Worker("t"), threading.Event()
    future = worker.submit(gate.wait)
    second = worker.submit(lambda: "second")
    assert not second.future().done()
    gate.set()
    assert (future.result(TIMEOUT), second.result(TIMEOUT)) == (True, "second")


def test_every_form_of_waiting() -> None:
    worker = Worker("t")

    async def wait() -> list[Any]:
        future = worker.submit(lambda: 7)
        return [await future, await future.result_async(timeout=TIMEOUT), await future, future.result()]

    assert asyncio.run(wait()) == [7, 7, 7, 7]
    assert isinstance(worker.submit(int), APIFuture)
    assert concurrent.futures.wait([worker.submit(int).future()], timeout=TIMEOUT).not_done == set()


def test_error_reaches_the_future_only() -> None:
    worker = Worker("t")
    bad = worker.submit(lambda: 1 // 0)
    good = worker.submit(lambda: 3)
    with pytest.raises(ZeroDivisionError):
        bad.result(TIMEOUT)
    with pytest.raises(ZeroDivisionError):
        asyncio.run(bad.result_async())
    with pytest.raises(SystemExit):
        worker.submit(lambda: exec("raise SystemExit(3)")).result(TIMEOUT)
    assert good.result(TIMEOUT) == 3
    assert worker.run(lambda: 4) == 4


def test_cancelled_call_is_skipped() -> None:
    worker, gate = Worker("t"), threading.Event()
    ran: list[str] = []
    worker.submit(gate.wait)
    cancelled = worker.submit(lambda: ran.append("cancelled"))
    after = worker.submit(lambda: ran.append("after"))
    assert cancelled.future().cancel()
    gate.set()
    after.result(TIMEOUT)
    assert ran == ["after"]
    with pytest.raises(concurrent.futures.CancelledError):
        cancelled.result(TIMEOUT)


def test_call_may_wait_for_another_of_its_worker() -> None:
    """In the queue the inner call would wait for the outer one, which waits for it."""
    worker = Worker("t")
    assert worker.submit(lambda: worker.submit(lambda: 5).result(TIMEOUT) + 1).result(TIMEOUT) == 6
    with pytest.raises(ZeroDivisionError):
        worker.submit(lambda: worker.submit(lambda: 1 // 0).result(TIMEOUT)).result(TIMEOUT)


@pytest.mark.parametrize("ending", ["result", "error", "cancelled"])
def test_finished_call_is_not_kept_alive(ending: str) -> None:
    worker, thing = Worker("t"), Thing()
    seen = weakref.ref(thing)
    gate = threading.Event()

    def job(held: Thing = thing) -> None:
        assert held
        if ending == "error":
            raise ValueError

    worker.submit(gate.wait)
    future = worker.submit(job)
    if ending == "cancelled":
        assert future.future().cancel()
    gate.set()
    worker.run(int)  # not the last job any more
    del thing, job, future
    gc.collect()
    assert seen() is None


def test_thread_ends_with_its_worker() -> None:
    worker, gate = Worker("short-lived"), threading.Event()
    thread = worker._thread
    last = worker.submit(lambda: gate.wait(TIMEOUT) and "done")
    del worker
    gate.set()
    assert last.result(TIMEOUT) == "done"
    thread.join(TIMEOUT)
    assert not thread.is_alive()


def test_wait_for_a_batch_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is over before the wait for another call begins, as on a busy machine."""
    monkeypatch.setattr(futures, "BATCH_WAIT_SECONDS", 1e-6)
    worker = Worker("test")
    doubled = CallBatcher(lambda items: [2 * item for item in items], max_size=8)
    for item in range(10_000):
        assert worker.submit_to(doubled, item, 1).result(timeout=TIMEOUT) == 2 * item


def test_finished_futures() -> None:
    assert done(3).result(0) == 3
    assert run_now(lambda: 4).result(0) == 4
    failed = run_now(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        failed.result(0)


def test_client_is_a_future_of_itself() -> None:
    client = SelfFuture()

    async def wait() -> bool:
        return await client is client and await client.result_async(timeout=TIMEOUT) is client

    assert client.result(timeout=TIMEOUT) is client
    assert asyncio.run(wait())


def test_first_calls_from_two_threads_share_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two workers would use one model at the same time."""
    gate, made, worker_class = Gate(holds=1), [], futures.Worker

    def slow(name: str) -> Worker:
        made.append(name)
        gate()
        return worker_class(name)

    class Base(Thing):
        name = "b"

    base: Any = Base()
    monkeypatch.setattr(futures, "Worker", slow)
    found: list[Worker] = []
    first = threading.Thread(target=lambda: found.append(futures.worker_of(base)))
    first.start()
    gate.wait()
    attempt = Attempt(lambda: futures.worker_of(base), futures, "_lock")
    assert attempt.waits
    gate.open()
    join(first)
    assert attempt.result() is found[0] is futures.worker_of(base)
    assert made == ["mint_lab b"]


@pytest.mark.parametrize("batched", [False, True])
def test_call_that_runs_cannot_be_cancelled(batched: bool) -> None:
    """Its future gets the result, and the next call runs after it."""
    worker, gate, order = Worker("t"), Gate(holds=1), []

    def double(items: Any) -> list[int]:
        gate()
        order.extend(items)
        return [2 * item for item in items]

    batcher = CallBatcher(double, max_size=1)
    running = worker.submit_to(batcher, 1, 1) if batched else worker.submit(lambda: double([1])[0])
    gate.wait()
    after = worker.submit(lambda: order.append("after"))
    assert not running.future().cancel()
    assert not after.future().done()
    gate.open()
    assert running.result(TIMEOUT) == 2
    after.result(TIMEOUT)
    assert order == [1, "after"]
