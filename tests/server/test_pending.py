"""Requests run once and in their order, and results outlive connections."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from mint_lab.errors import RunError
from mint_lab.server import pending
from mint_lab.server.pending import OrderedRequests, PendingRequest, Requests


def work(log: list[int], number: int) -> Callable[[], Awaitable[int]]:
    """Note the start, and return a coroutine of the number."""

    async def value() -> int:
        return number

    def start() -> Awaitable[int]:
        log.append(number)
        return value()

    return start


def raises() -> Awaitable[None]:
    raise ValueError("bad batch")


def test_request_runs_once() -> None:
    async def main() -> None:
        index: dict[str, PendingRequest] = {}
        requests, log = Requests(index), list[int]()
        first = requests.submit(7, work(log, 7), {"more": 1})
        assert requests.submit(7, work(log, 8)) is first
        assert (await first.task, log, first.answer) == (7, [7], {"more": 1})
        assert index == {first.id: first}
        unnumbered = [requests.submit(None, work(log, n)) for n in (1, 2)]
        assert [await p.task for p in unnumbered] == [1, 2]
        requests.close()
        assert index == {}

    asyncio.run(main())


@pytest.mark.parametrize("arrival", [[2, 3, 1], [1, 2, 3], [3, 2, 1]])
def test_order_of_numbers_is_kept(arrival: list[int]) -> None:
    async def main() -> None:
        requests, log = OrderedRequests({}), list[int]()
        found = [requests.submit(n, work(log, n)) for n in arrival]
        assert [await p.task for p in found] == arrival
        assert log == [1, 2, 3]

    asyncio.run(main())


def test_a_failed_request_does_not_hold_up_the_next() -> None:
    async def main() -> None:
        requests, log = OrderedRequests({}), list[int]()
        after = requests.submit(2, work(log, 2))
        failed = requests.submit(1, raises)
        assert await after.task == 2
        with pytest.raises(ValueError, match="bad batch"):
            await failed.task

    asyncio.run(main())


def test_missing_request_fails_those_that_wait() -> None:
    """Request 1 never arrives: 2 and 3 fail, 4 is next, and 1 comes too late."""

    async def main() -> None:
        requests, log = OrderedRequests({}, gap_seconds=0.01), list[int]()
        for waiting in [requests.submit(n, work(log, n)) for n in (3, 2)]:
            with pytest.raises(RunError, match=r"request 1 of this model did not arrive within 0.01 s"):
                await waiting.task
        assert await requests.submit(4, work(log, 4)).task == 4
        with pytest.raises(RunError, match="request 1 arrived when request 5 was due"):
            await requests.submit(1, work(log, 1)).task
        assert log == [4]

    asyncio.run(main())


def test_fetched_results_are_dropped_first_in_first_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "KEPT", 2)

    async def main() -> None:
        index: dict[str, PendingRequest] = {}
        requests = Requests(index)
        found = [requests.submit(n, work([], n)) for n in range(3)]
        assert len(index) == 3, "a result that nobody has fetched stays"
        found[0].is_fetched = found[2].is_fetched = True
        requests.submit(3, work([], 3))
        assert {p.id for p in found} & index.keys() == {found[1].id, found[2].id}
        assert len(index) == 3

    asyncio.run(main())


def test_too_many_unfinished_requests_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MAX_UNFINISHED", 2)

    async def main() -> None:
        requests, gate = Requests({}), asyncio.Event()
        held = [requests.submit(n, gate.wait) for n in range(2)]
        with pytest.raises(asyncio.QueueFull):
            requests.submit(2, gate.wait)
        assert requests.submit(1, gate.wait) is held[1], "a repeated submit is no new request"
        gate.set()
        assert await asyncio.gather(*(p.task for p in held)) == [True, True]
        assert await requests.submit(2, gate.wait).task

    asyncio.run(main())


def test_errors_that_nobody_fetches_are_not_reported() -> None:
    """The event loop reports an exception that nobody has read when its task is collected."""

    async def main() -> list[dict[str, Any]]:
        reported: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
        await asyncio.wait({Requests({}).submit(None, raises).task})
        gc.collect()
        return reported

    assert asyncio.run(main()) == []
