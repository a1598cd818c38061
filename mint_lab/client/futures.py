"""One worker a base model, and the futures it hands out.

Calls run in the order submitted, one at a time, on a thread of their own; the caller gets a future at once. The futures
are the SDK's own class: ``.result(timeout)``, ``await``, ``.result_async()``.
"""

from __future__ import annotations

import concurrent.futures
import contextvars
import queue
import threading
import weakref
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any, Self, TypeVar

from ..types import AwaitableConcurrentFuture

if TYPE_CHECKING:
    from ..engine.models import BaseModel
    from ..types import APIFuture

__all__ = ["Ready", "Worker", "at_once", "done", "worker_of"]

T = TypeVar("T")
_Job = tuple[Callable[[], Any], "concurrent.futures.Future[Any]"]


class Worker:
    """A thread that runs jobs in order. It ends when nobody holds the worker any more."""

    def __init__(self, name: str) -> None:
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # A copied context: what the submitting notebook cell has set stays visible to the thread.
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(_work, self._jobs), name=name, daemon=True)
        self._thread.start()
        weakref.finalize(self, self._jobs.put, None)

    def submit(self, job: Callable[[], T]) -> APIFuture[T]:
        """Queue ``job``; its result or exception is the future's. A future cancelled before its turn is skipped.

        A job submitted by a running job (a custom loss that asks a model for reference log-probabilities) runs at once:
        in the queue it would wait for the job that waits for it.
        """
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        if threading.current_thread() is self._thread:
            _carry_out(job, future)
        else:
            self._jobs.put((job, future))
        return AwaitableConcurrentFuture(future)

    def run(self, job: Callable[[], T]) -> T:
        """Queue ``job`` and wait for it."""
        return self.submit(job).result()


def _work(jobs: queue.SimpleQueue[_Job | None]) -> None:
    while (item := jobs.get()) is not None:
        _carry_out(*item)
        del item  # the queue may be silent for long: hold on to nothing


def _carry_out(job: Callable[[], T], future: concurrent.futures.Future[T]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(job())
    except BaseException as error:
        future.set_exception(error)


_workers: weakref.WeakKeyDictionary[BaseModel, Worker] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def worker_of(base: BaseModel) -> Worker:
    """The worker of a base model: everything that touches the model runs there."""
    with _lock:
        if base not in _workers:
            _workers[base] = Worker(f"mint_lab {base.name}")
        return _workers[base]


def at_once(job: Callable[[], T]) -> APIFuture[T]:
    """``job`` done here and now, its result or exception in a future: for calls that need no model."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()
    _carry_out(job, future)
    return AwaitableConcurrentFuture(future)


def done(value: T) -> APIFuture[T]:
    """A future that has its result already."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()
    future.set_result(value)
    return AwaitableConcurrentFuture(future)


class Ready:
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
