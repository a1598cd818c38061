"""Requests whose results are fetched later: each runs once, in its order, and its result survives a lost connection.

The SDK submits a request, gets an id, and polls for the result. It repeats a submit whose answer was lost, so a request
is identified by its number within its sequence (``seq_id``) and not by the connection. Requests of one model arrive on
several connections in any order, but must run in the order of their numbers. All of this runs on the event loop.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import RunError

__all__ = ["OrderedRequests", "PendingRequest", "Requests"]

KEPT = 256  # results of a sequence that were fetched and stay, because the answer to a fetch may be lost too
MAX_UNFINISHED = 8192  # requests of one key
GAP_SECONDS = 360.0  # how long a request waits for those before it: the SDK repeats a submit for five minutes


@dataclass(eq=False)
class PendingRequest:
    """A request that was accepted.

    Attributes:
        id: What the client fetches the result with.
        task: Runs the request; its result or exception is the request's.
        answer: Further fields of the answer to the submit.
        is_fetched: Whether the result was sent to the client at least once.
    """

    id: str
    task: asyncio.Task[Any]
    answer: Mapping[str, Any] = field(default_factory=dict)
    is_fetched: bool = False


class Requests:
    """The requests of one sequence, in no order among each other.

    Args:
        index: All requests of the key by their ids; this object adds its own.
    """

    def __init__(self, index: dict[str, PendingRequest]) -> None:
        self._index = index
        self._known: dict[Hashable, PendingRequest] = {}  # in the order submitted

    def submit(
        self, seq_id: int | None, work: Callable[[], Awaitable[Any]], answer: Mapping[str, Any] | None = None
    ) -> PendingRequest:
        """Start a request, or return the one of that number if it was submitted before.

        Args:
            seq_id: Number of the request; None for one that is never repeated.
            work: Starts the work and returns what to wait for. It may raise, as may the waiting.
            answer: Further fields of the answer to the submit.

        Raises:
            asyncio.QueueFull: If the key has too many unfinished requests.
        """
        if seq_id is not None and seq_id in self._known:
            return self._known[seq_id]
        if (
            len(self._index) >= MAX_UNFINISHED
            and sum(not p.task.done() for p in self._index.values()) >= MAX_UNFINISHED
        ):
            raise asyncio.QueueFull
        task = asyncio.ensure_future(self._run(seq_id, work))
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # it is read, or nobody wants it
        pending = PendingRequest(secrets.token_hex(12), task, answer or {})
        self._known[pending.id if seq_id is None else seq_id] = pending
        self._index[pending.id] = pending
        self._drop_fetched()
        return pending

    def close(self) -> None:
        """Forget all requests; those that run are completed, but nobody gets their results."""
        for pending in self._known.values():
            self._index.pop(pending.id, None)
        self._known.clear()

    async def _run(self, seq_id: int | None, work: Callable[[], Awaitable[Any]]) -> Any:
        return await work()

    def _drop_fetched(self) -> None:
        while len(self._known) > KEPT:
            key, oldest = next(iter(self._known.items()))
            if not oldest.is_fetched:
                return
            del self._known[key], self._index[oldest.id]


class OrderedRequests(Requests):
    """The requests of one sequence that start in the order of their numbers, from 1 up.

    A request starts when those before it have started: what they start is a queue itself.

    Args:
        index: As in :class:`Requests`.
        gap_seconds: How long a request waits for missing ones before it. Then it fails, and with it all that wait.
    """

    def __init__(self, index: dict[str, PendingRequest], gap_seconds: float = GAP_SECONDS) -> None:
        super().__init__(index)
        self._next = 1
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._gap_seconds = gap_seconds

    async def _run(self, seq_id: int | None, work: Callable[[], Awaitable[Any]]) -> Any:
        if seq_id is None:
            return await work()
        await self._turn(seq_id)
        try:
            started = work()
        finally:
            self._start_next()
        return await started

    async def _turn(self, seq_id: int) -> None:
        if seq_id < self._next:
            raise RunError(
                f"request {seq_id} arrived when request {self._next} was due: it was completed long ago, or it comes "
                f"more than {self._gap_seconds:g} s late"
            )
        if seq_id == self._next:
            return
        turn = self._waiting[seq_id] = asyncio.get_running_loop().create_future()
        await asyncio.wait({turn}, timeout=self._gap_seconds)
        if not turn.done():
            self._give_up()
        await turn  # raises if the requests that wait were given up

    def _start_next(self) -> None:
        self._next += 1
        if turn := self._waiting.pop(self._next, None):
            turn.set_result(None)

    def _give_up(self) -> None:
        """Fail all requests that wait, and continue after them."""
        error = RunError(
            f"request {self._next} of this model did not arrive within {self._gap_seconds:g} s, so the requests after "
            "it cannot run; an answer of the server to it was an error, or the connection was lost for too long"
        )
        self._next = max(self._waiting) + 1
        for turn in self._waiting.values():
            turn.set_exception(error)
        self._waiting.clear()
