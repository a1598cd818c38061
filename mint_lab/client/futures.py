"""One worker thread for each base model, and the futures that it returns.

Calls run one at a time, in the order submitted, on the worker's thread; the caller gets a future at once. Consecutive
calls of one kind may run together (:class:`CallBatcher`). The futures are of the SDK's own class, with
``.result(timeout)``, ``await`` and ``.result_async()``.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

from ..errors import RunError
from ..threads import PackageThread, check_process, process_lock
from ..types import AwaitableConcurrentFuture
from ..usercode.guarded_call import hand_back

if TYPE_CHECKING:
    from ..engine.models import BaseModel
    from ..types import APIFuture

__all__ = ["CallBatcher", "SelfFuture", "Worker", "done", "run_now", "worker_of"]

T = TypeVar("T")
Item = TypeVar("Item")

# How long the worker waits for another call that can join a batch. Callers submit the calls of a batch one after the
# other, and one pass of a model takes longer than this.
BATCH_WAIT_SECONDS = 0.001


@dataclass(frozen=True, eq=False)
class CallBatcher(Generic[Item, T]):
    """Runs calls together that are consecutive in the queue.

    Attributes:
        run: Returns a result for each item, in order. An exception in place of a result is raised to that item's
            caller only.
        max_size: The sizes of the items of one run add up to at most this, unless there is only one item.
    """

    run: Callable[[Sequence[Item]], Sequence[T | Exception]]
    max_size: int


@dataclass(frozen=True, eq=False)
class _Call:
    """One call in the queue.

    Attributes:
        future: The caller's future.
        item: An item for ``batcher``; without one, a function without arguments.
        batcher: Runs the call with its neighbours; None for a call that runs by itself.
        size: The size of the item.
        saves: Whether the call writes what must not be lost: it runs even if the interpreter exits.
    """

    future: concurrent.futures.Future[Any]
    item: Any
    batcher: CallBatcher[Any, Any] | None = None
    size: int = 0
    saves: bool = False


class _Queue(queue.SimpleQueue[_Call | None]):
    """Calls that wait for their turn, and None as the end.

    Attributes:
        closed: Whether the interpreter is exiting, so that no call runs any more.
        running: Futures of the calls that run now.
        saving: Futures of the calls that save and have not ended.
    """

    def __init__(self) -> None:
        super().__init__()
        self.closed = False
        self.running: list[concurrent.futures.Future[Any]] = []
        self.saving: set[concurrent.futures.Future[Any]] = set()
        _queues.add(self)

    def add(self, call: _Call) -> None:
        if self.closed:
            call.future.set_exception(RunError("the interpreter is exiting, so no further call can run"))
            return
        if call.saves:
            self.saving.add(call.future)
            call.future.add_done_callback(self.saving.discard)
        self.put(call)

    def close(self) -> None:
        """Let the calls up to the last one that saves run, cancel those after it, and end the thread."""
        self.closed = True
        calls = self.take_all()
        kept = max((number for number, call in enumerate(calls, 1) if call.saves), default=0)
        for call in calls[:kept]:
            self.put(call)
        for call in calls[kept:]:
            call.future.cancel()
        self.put(None)
        concurrent.futures.wait(list(self.saving))

    def refuse_all(self) -> None:
        """In a forked process: nobody runs the calls that were waiting when it was forked."""
        error = RunError("this call was submitted in another process, from which this one was forked")
        for future in [*self.running, *(call.future for call in self.take_all())]:
            with contextlib.suppress(concurrent.futures.InvalidStateError):
                future.set_exception(error)

    def take_all(self) -> list[_Call]:
        calls: list[_Call] = []
        with contextlib.suppress(queue.Empty):
            while True:
                if (call := self.get_nowait()) is not None:
                    calls.append(call)
        return calls


_queues: weakref.WeakSet[_Queue] = weakref.WeakSet()


class Worker:
    """A thread that runs calls in order. It ends when the worker is garbage collected and the queue is empty."""

    def __init__(self, name: str) -> None:
        self._owner = os.getpid()
        calls = self._calls = _Queue()
        # The thread refers to the queue and not to the worker, so that the worker can be collected.
        self._thread = PackageThread(lambda: _run_queue(calls), name, end=calls.close)
        self._thread.start()
        weakref.finalize(self, calls.put, None)

    def submit(self, function: Callable[[], T], *, saves: bool = False) -> APIFuture[T]:
        """Queue ``function``, whose result or exception becomes the future's.

        A future that is cancelled before its turn is skipped. A call that a running call submits (a custom loss that
        requests reference log-probabilities) runs at once: in the queue it would wait for the call that waits for it.
        It runs on this worker's thread even if the custom loss runs on another thread.

        Args:
            function: Takes no arguments.
            saves: Whether it writes what must not be lost. When the interpreter exits, it and all calls before it still
                run; later calls are cancelled.

        Raises:
            RunError: In a process that was forked from the one that created the worker.
        """
        return self._put(_Call(concurrent.futures.Future(), function, saves=saves))

    def submit_to(self, batcher: CallBatcher[Item, T], item: Item, size: int) -> APIFuture[T]:
        """Queue ``item``; it runs together with the items of ``batcher`` that directly follow it.

        The order of calls is kept, so results are the same as if each call ran by itself.
        """
        return self._put(_Call(concurrent.futures.Future(), item, batcher, size))

    def run(self, function: Callable[[], T]) -> T:
        """Queue ``function``, wait for it, and return its result."""
        return self.submit(function).result()

    def _put(self, call: _Call) -> APIFuture[Any]:
        check_process(self._owner, "this client")
        future = call.future
        if threading.current_thread() is self._thread:
            _run_batch([call])
        elif not hand_back(self._thread, lambda: _run_batch([call])):
            self._calls.add(call)
        return AwaitableConcurrentFuture(future)


def _run_queue(calls: _Queue) -> None:
    """Run calls until None is taken from the queue."""
    while (call := calls.get()) is not None:
        while call is not None:
            batch, call, is_end = _take_batch(call, calls)
            calls.running = [one.future for one in batch]
            _run_batch(batch)
            calls.running = []
            del batch  # the next call may come much later: keep no reference to this one
            if is_end:
                return


def _take_batch(first: _Call, calls: _Queue) -> tuple[list[_Call], _Call | None, bool]:
    """Take the calls that run together with ``first``.

    Returns:
        The calls; the call after them, if it was taken from the queue; whether the end of the queue was taken.
    """
    batch, size = [first], first.size
    if first.batcher is None:
        return batch, None, False
    while True:
        try:
            call = _get_soon(calls)
        except queue.Empty:
            return batch, None, False
        if call is None:
            return batch, None, True
        if call.batcher is not first.batcher or size + call.size > first.batcher.max_size:
            return batch, call, False
        batch.append(call)
        size += call.size


def _get_soon(calls: _Queue) -> _Call | None:
    """Take the next call if it arrives within ``BATCH_WAIT_SECONDS``.

    Raises:
        queue.Empty: If it does not.
    """
    # Not get(timeout=...): on a busy machine the timeout can pass before it starts to wait, and then Python 3.11 waits
    # forever.
    end = time.perf_counter() + BATCH_WAIT_SECONDS
    while True:
        try:
            return calls.get_nowait()
        except queue.Empty:
            if time.perf_counter() >= end:
                raise
            time.sleep(BATCH_WAIT_SECONDS / 10)


def _run_batch(batch: list[_Call]) -> None:
    """Run calls that belong together, and set their futures."""
    calls = [call for call in batch if call.future.set_running_or_notify_cancel()]  # without the cancelled ones
    if not calls:
        return
    batcher = calls[0].batcher
    try:
        results = [calls[0].item()] if batcher is None else batcher.run([call.item for call in calls])
        for call, result in zip(calls, results, strict=True):
            if batcher is not None and isinstance(result, Exception):
                call.future.set_exception(result)
            else:
                call.future.set_result(result)
    except BaseException as error:
        for call in calls:
            if not call.future.done():
                call.future.set_exception(error)


_workers: weakref.WeakKeyDictionary[BaseModel, Worker] = weakref.WeakKeyDictionary()
_lock = process_lock()


def _refuse_in_child() -> None:
    for calls in list(_queues):
        calls.refuse_all()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_refuse_in_child)


def worker_of(base: BaseModel) -> Worker:
    """Return the worker of a base model, which runs everything that uses the model."""
    with _lock:
        if base not in _workers:
            _workers[base] = Worker(f"mint_lab {base.name}")
        return _workers[base]


def run_now(function: Callable[[], T]) -> APIFuture[T]:
    """Run ``function``, which needs no model, on the caller's thread; its result or exception is the future's."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()
    _run_batch([_Call(future, function)])
    return AwaitableConcurrentFuture(future)


def done(value: T) -> APIFuture[T]:
    """Return a future that already has its result."""
    future: concurrent.futures.Future[T] = concurrent.futures.Future()
    future.set_result(value)
    return AwaitableConcurrentFuture(future)


class SelfFuture:
    """Mixin that lets a client be used as a future of itself.

    SDKs before 0.3x return clients, later ones futures of clients. Programs written for either work with this. What an
    ``*_async`` call returns has been awaited, and is the client alone: programs that await until there is nothing left
    to await would not end with a client that gives itself.
    """

    def result(self, timeout: float | None = None) -> Self:
        """Return the client itself."""
        return self

    async def result_async(self, timeout: float | None = None) -> Self:
        """Return the client itself."""
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self.result_async().__await__()

    def alone(self) -> Self:
        """Take the mixin off, and return the client: it cannot be awaited any more."""
        self.__class__ = next(kind for kind in type(self).__mro__ if not issubclass(kind, SelfFuture))
        return self
