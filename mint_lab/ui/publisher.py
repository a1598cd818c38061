"""Carries a run to its page: a thread of its own reads what is new a few times a second and sends it.

The run only sets an event; nothing here can slow a step but the share of the interpreter that a publish takes (about a
millisecond). The thread runs in a copy of its creator's context: ipykernel routes messages by context variables.
"""

from __future__ import annotations

import contextvars
import math
import struct
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

from ..runs.record import StepRecord
from .catalogue import catalogue
from .history import History
from .layout import charts_for
from .protocol import PROTOCOL, Buffers, Histogram, Message, Snapshot, State, StateChange, Update
from .state import RunLike, columns_of, histograms_of, state_of

__all__ = ["INTERVAL", "REPEATABLE", "Publisher", "Send"]

INTERVAL = 0.2
"""Seconds between two messages at least."""

REPEATABLE = 2048
"""Records that are repeated one by one to a page that missed them; beyond, a snapshot is smaller."""


class Send(Protocol):
    """Hands one message to every page that shows the run."""

    def __call__(self, message: Message, buffers: Buffers) -> None: ...


class SubscribableRun(RunLike, Protocol):
    """A run that says when it changed."""

    def subscribe(self, notify: Callable[[], None]) -> Callable[[], None]: ...


class Publisher:
    """One run on its way to the page.

    Args:
        run: what is shown.
        send: called with each message, from the publisher's thread or from the one that calls :meth:`sync`.
        base_model, data: words for the page.
        interval: seconds between two messages at least.
        settled: called after the last message of a run that paused, stopped or finished.
    """

    def __init__(
        self,
        run: SubscribableRun,
        send: Send,
        *,
        base_model: str = "",
        data: str = "",
        interval: float = INTERVAL,
        settled: Callable[[], None] | None = None,
    ) -> None:
        self.run = run
        self.epoch = uuid.uuid4().hex
        self._send = send
        self._words = {"base_model": base_model, "data": data}
        self._interval = interval
        self._settled = settled
        self._history = History()
        self._histograms: dict[str, Histogram] = {}
        self._seen = 0
        self._number = 0
        self._sent: State | None = None
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._dispose = run.subscribe(self._wake.set)
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._loop,), name="mint-lab-page", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; the thread ends within one interval. May be called twice, and from any thread."""
        self._closed.set()
        self._wake.set()
        self._dispose()

    def publish(self) -> int:
        """Send what is new, if anything is; returns how many records went out."""
        with self._lock:
            if self._closed.is_set():
                return 0
            first, new = self._take()
            state = self._state()
            change = _difference(self._sent, state)
            if not new and not change:
                return 0
            self._sent = state
            self._number += 1
            self._send(*self._update(first, new, change))
            return len(new)

    def snapshot(self) -> Snapshot:
        """The whole picture as of now."""
        with self._lock:
            self.publish()
            return Snapshot(
                type="snapshot",
                protocol=PROTOCOL,
                epoch=self.epoch,
                number=self._number,
                seen=self._seen,
                state=self._state(),
                charts=charts_for(self.run.recipe),
                losses=catalogue(self.run.recipe),
                series=self._history.to_data(),
            )

    def sync(self, since: int, epoch: str) -> None:
        """Send what a page that holds ``since`` records of run ``epoch`` has missed, with the full state."""
        with self._lock:
            self.publish()
            if epoch != self.epoch or not max(0, self._seen - REPEATABLE) <= since <= self._seen:
                self.send_snapshot()
                return
            self._number += 1
            records = self.run.records[since : self._seen]
            self._send(*self._update(since, records, cast(StateChange, self._state())))

    def send_snapshot(self) -> None:
        """Send the whole picture as a message."""
        with self._lock:
            message = self.snapshot()
            self._send(message, [])

    def _take(self) -> tuple[int, Sequence[StepRecord]]:
        first = self._seen
        new = self.run.records[first:]
        for record in new:
            self._history.add(record.step, columns_of(record))
            for histogram in histograms_of(record):
                self._keep(histogram)
        self._seen += len(new)
        return first, new

    def _keep(self, histogram: Histogram) -> None:
        # Once held-out histograms arrive, those of single training batches would only make the bars flicker.
        old = self._histograms.get(histogram["name"])
        if old is None or old["source"] != "held-out" or histogram["source"] == "held-out":
            self._histograms[histogram["name"]] = histogram

    def _state(self) -> State:
        return state_of(self.run, list(self._histograms.values()), **self._words)

    def _update(self, first: int, records: Sequence[StepRecord], change: StateChange) -> tuple[Update, Buffers]:
        rows = [columns_of(record) for record in records]
        columns = [name for name in self._history.series if any(name in row for row in rows)]
        message = Update(
            type="update",
            epoch=self.epoch,
            number=self._number,
            first=first,
            count=len(rows),
            columns=columns,
            full=len(change) == len(State.__annotations__),
            state=change,
        )
        if not rows:
            return message, []
        steps = struct.pack(f"<{len(rows)}d", *(record.step for record in records))
        values = [_packable(row.get(name, math.nan)) for name in columns for row in rows]
        return message, [steps, struct.pack(f"<{len(values)}f", *values)]

    def _loop(self) -> None:
        while True:
            self._wake.wait()
            if self._closed.is_set():
                return
            self._wake.clear()
            status = self.run.status
            self.publish()
            if status != "running" and self._settled is not None:
                self._settled()
            self._closed.wait(self._interval)


def _difference(old: State | None, new: State) -> StateChange:
    if old is None:
        return cast(StateChange, new)
    before = cast("dict[str, Any]", old)
    return cast(StateChange, {key: value for key, value in new.items() if value != before[key]})


def _packable(value: float) -> float:
    """``value`` where float32 can hold it, else nan: neither would be drawn."""
    return value if abs(value) < 3.4e38 else math.nan
