"""One worker a base model, and the futures it hands out.

Calls run in the order submitted, one at a time, on a thread of their own; the caller gets a future at once. Calls of
one kind that stand directly behind each other may run as one (:class:`CallBatcher`). The futures are the SDK's own
class: ``.result(timeout)``, ``await``, ``.result_async()``.
"""

from __future__ import annotations

import concurrent.futures
import contextvars
import queue
import threading
import time
import weakref
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from ..types import AwaitableConcurrentFuture
from ..usercode.guarded_call import hand_back

if TYPE_CHECKING:
    from ..engine.models import BaseModel
    from ..types import APIFuture

__all__ = ["CallBatcher", "SelfFuture", "Worker", "done", "run_now", "worker_of"]

T = TypeVar("T")
Item = TypeVar("Item")

# How long a call that may have company waits for the next one to arrive, seconds: the callers of a batch submit it one
# after the other, and a model's pass takes longer than this.
PATIENCE = 0.001


@dataclass(frozen=True, eq=False)
class CallBatcher(Generic[Item, T]):
    """Calls that run as one where they meet in the queue.

    Attributes:
        run: results in the order of the items; an exception in place of a result is that item's alone.
        limit: sizes of the items of one run add up to no more than this, unless there is only one.
    """

    run: Callable[[Sequence[Item]], Sequence[T | Exception]]
    limit: int


@dataclass(frozen=True, eq=False)
class _Job:
    """One call: ``item`` for ``together``, or a function of its own."""

    future: concurrent.futures.Future[Any]
    item: Any
    together: CallBatcher[Any, Any] | None = None
    size: int = 0


_Queue = queue.SimpleQueue[_Job | None]


class Worker:
    """A thread that runs jobs in order. It ends when nobody holds the worker any more."""

    def __init__(self, name: str) -> None:
        self._jobs: _Queue = queue.SimpleQueue()
        # A copied context: what the submitting notebook cell has set stays visible to the thread.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(_work, self._jobs), name=name, daemon=True)
        self._thread.start()
        weakref.finalize(self, self._jobs.put, None)

    def submit(self, job: Callable[[], T]) -> APIFuture[T]:
        """Queue ``job``; its result or exception is the future's. A future cancelled before its turn is skipped.

        A job submitted by a running job (a custom loss that asks a model for reference log-probabilities) runs at once:
        in the queue it would wait for the job that waits for it. It runs on this worker's thread in any case, also
        where the loss is called on another one.
        """
        return self._put(_Job(concurrent.futures.Future(), job))

    def submit_to(self, together: CallBatcher[Item, T], item: Item, size: int) -> APIFuture[T]:
        """Queue ``item``; it runs with those of ``together`` that stand directly behind it when its turn comes.

        Nothing is overtaken, so results are those of running the calls one by one.
        """
        return self._put(_Job(concurrent.futures.Future(), item, together, size))

    def run(self, job: Callable[[], T]) -> T:
        """Queue ``job`` and wait for it."""
        return self.submit(job).result()

    def _put(self, job: _Job) -> APIFuture[Any]:
        future = job.future
        if threading.current_thread() is self._thread:
            _carry_out([job])
        elif not hand_back(self._thread, lambda: _carry_out([job])):
            self._jobs.put(job)
        return AwaitableConcurrentFuture(future)


def _work(jobs: _Queue) -> None:
    while (job := jobs.get()) is not None:
        while job is not None:
            batch, job, ended = _with_company(job, jobs)
            _carry_out(batch)
            del batch  # the queue may be silent for long: hold on to nothing
            if ended:
                return


def _with_company(first: _Job, jobs: _Queue) -> tuple[list[_Job], _Job | None, bool]:
    """``first`` and what runs with it; the job after them, if it had to be taken from the queue; whether that ends."""
    batch, size = [first], first.size
    if first.together is None:
        return batch, None, False
    while True:
        try:
            job = _soon(jobs)
        except queue.Empty:
            return batch, None, False
        if job is None:
            return batch, None, True
        if job.together is not first.together or size + job.size > first.together.limit:
            return batch, job, False
        batch.append(job)
        size += job.size


def _soon(jobs: _Queue) -> _Job | None:
    """The next job, if it comes within ``PATIENCE``.

    Raises:
        queue.Empty: it does not.
    """
    # No get(timeout): where that runs out before it begins to wait, on a busy machine, Python 3.11 waits for ever.
    end = time.perf_counter() + PATIENCE
    while True:
        try:
            return jobs.get_nowait()
        except queue.Empty:
            if time.perf_counter() >= end:
                raise
            time.sleep(PATIENCE / 10)


def _carry_out(batch: list[_Job]) -> None:
    live = [job for job in batch if job.future.set_running_or_notify_cancel()]
    if not live:
        return
    together = live[0].together
    try:
        found = [live[0].item()] if together is None else together.run([job.item for job in live])
        for job, result in zip(live, found, strict=True):
            if together is not None and isinstance(result, Exception):
                job.future.set_exception(result)
            else:
                job.future.set_result(result)
    except BaseException as error:
        for job in live:
            if not job.future.done():
                job.future.set_exception(error)


_workers: weakref.WeakKeyDictionary[BaseModel, Worker] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def worker_of(base: BaseModel) -> Worker:
    """The worker of a base model: everything that touches the model runs there."""
    with _lock:
        if base not in _workers:
            _workers[base] = Worker(f"mint_lab {base.name}")
        return _workers[base]


def run_now(job: Callable[[], T]) -> APIFuture[T]:
    """``job`` done here and now, its result or exception in a future: for calls that need no model."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()
    _carry_out([_Job(future, job)])
    return AwaitableConcurrentFuture(future)


def done(value: T) -> APIFuture[T]:
    """A future that has its result already."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()
    future.set_result(value)
    return AwaitableConcurrentFuture(future)


class SelfFuture:
    """Mixin of a client that also answers as the future of itself.

    SDKs before 0.3x return clients, later ones futures of clients; programs written for either work.
    """

    def result(self, timeout: float | None = None) -> Self:
        """The client itself."""
        return self

    async def result_async(self, timeout: float | None = None) -> Self:
        """The client itself."""
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self.result_async().__await__()
