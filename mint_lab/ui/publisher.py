"""Sends a run to its page: a dedicated thread reads what is new a few times per second and sends it.

The run only sets an event, so nothing here slows a step, except for the interpreter time of a publish (about a
millisecond). The thread runs in a copy of its creator's context, because ipykernel routes messages by context
variables.
"""

from __future__ import annotations

import logging
import math
import struct
import threading
import uuid
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from ..recipes.record import StepRecord
from ..threads import OwnedLock, PackageThread, before_exit
from .heat import HeatHistory
from .history import History
from .loss_catalogue import loss_catalogue
from .messages import PROTOCOL, Buffers, Histogram, Message, Samples, Snapshot, State, StateChange, Tokens, Update
from .samples import samples_of
from .state import RunLike, columns_of, histograms_of, state_of
from .tokens import tokens_of
from .wire_charts import charts_for, metric_entries

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ..runs.token_inspection import HeldOutTokens

__all__ = ["INTERVAL_SECONDS", "MAX_REPEATED_RECORDS", "Publisher", "Send", "SubscribableRun"]

INTERVAL_SECONDS = 0.2
"""Shortest time between two messages."""

MAX_REPEATED_RECORDS = 2048
"""Largest number of records in one update; beyond it, a snapshot is smaller."""

MAX_DOUBLINGS = 6  # of the interval, while something fails
LARGEST_FLOAT32 = 3.4e38

_log = logging.getLogger(__name__)


class Send(Protocol):
    """Sends one message to every page that shows the run."""

    def __call__(self, message: Message, buffers: Buffers) -> None: ...


class SubscribableRun(RunLike, Protocol):
    """A run that notifies subscribers of changes and computes tokens on request."""

    def subscribe(self, callback: Callable[[], None], /) -> Callable[[], None]: ...
    def held_out_tokens(self) -> Future[HeldOutTokens]: ...


_publishers: weakref.WeakSet[Publisher] = weakref.WeakSet()


@before_exit
def _close_all() -> None:
    for publisher in list(_publishers):
        publisher.close()


class Publisher:
    """Sends one run to its pages.

    Args:
        run: The run.
        send: Called with each message, from the publisher's thread or from the thread that calls :meth:`sync`.
        base_model, data: Names that the page shows.
        interval: Shortest time between two messages, seconds.
        on_idle: Called after the last message of a run that paused, stopped or finished.
        on_tokens: Called with requested tokens, from the publisher's thread.
        on_samples: Called with the latest responses that the run stored, when there are new ones.
    """

    def __init__(
        self,
        run: SubscribableRun,
        send: Send,
        *,
        base_model: str = "",
        data: str = "",
        interval: float = INTERVAL_SECONDS,
        on_idle: Callable[[], None] | None = None,
        on_tokens: Callable[[Tokens], None] | None = None,
        on_samples: Callable[[Samples], None] | None = None,
    ) -> None:
        self.run = run
        self.epoch = uuid.uuid4().hex
        self._send = send
        self._names = {"base_model": base_model, "data": data}
        self._interval = interval
        self._on_idle = on_idle
        self._on_tokens = on_tokens
        self._on_samples = on_samples
        self._unshown: StepRecord | None = None  # the latest record with samples, until on_samples was called
        self._tokens: Future[HeldOutTokens] | None = None  # requested, until on_tokens was called
        self._history = History()
        self._heats = HeatHistory()
        self._histograms: dict[str, Histogram] = {}
        self._seen = 0  # records read
        self._number = 0  # of the last message
        self._failures = 0  # consecutive rounds of the thread in which something failed
        self._sent: State | None = None  # the state that pages have
        self._lock = OwnedLock("this page")
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._dispose = run.subscribe(self._wake.set)
        self._thread = PackageThread(self._loop, "mint-lab-page")
        self._thread.start()
        _publishers.add(self)

    def close(self) -> None:
        """Stop; the thread ends within one interval. May be called twice, and from any thread."""
        self._closed.set()
        self._wake.set()
        self._dispose()

    def wait_closed(self, timeout: float) -> None:
        """Wait until the thread has ended, ``timeout`` seconds at most. Not from the thread itself."""
        self._thread.join(timeout)

    def publish(self) -> int:
        """Send what is new, if anything is; return the number of records sent."""
        with self._lock:
            if self._closed.is_set():
                return 0
            first, new = self._read_records()
            state = self._state()
            change = _difference(self._sent, state)
            if not new and not change:
                return 0
            self._number += 1
            self._sent = None  # if sending fails, the next message has the full state
            if len(new) > MAX_REPEATED_RECORDS:
                self._send(*_as_message(self._snapshot(state)))
            else:
                self._send(*self._update(first, new, change))
            self._sent = state
            return len(new)

    def snapshot(self) -> Snapshot:
        """Return the whole run as it is now."""
        with self._lock:
            self.publish()
            return self._snapshot(self._sent_state())

    def sync(self, since: int, epoch: str) -> None:
        """Send what a page has missed, with the full state.

        Args:
            since: Number of records that the page has.
            epoch: The run that the page shows.
        """
        with self._lock:
            self.publish()
            if epoch != self.epoch or not max(0, self._seen - MAX_REPEATED_RECORDS) <= since <= self._seen:
                self.send_snapshot()
                return
            self._number += 1
            records = self.run.records[since : self._seen]
            self._send(*self._update(since, records, cast(StateChange, self._sent_state())))

    def send_snapshot(self) -> None:
        """Send the whole run as a message."""
        with self._lock:
            self._send(*_as_message(self.snapshot()))

    def request_tokens(self) -> None:
        """Let the run compute some tokens, and show them when they are ready; ignored while a request is pending.

        Raises:
            RunError: If the run has no model yet.
        """
        with self._lock:
            if self._tokens is None:
                self._tokens = self.run.held_out_tokens()
                self._tokens.add_done_callback(lambda _: self._wake.set())

    def _show_tokens(self) -> None:
        with self._lock:
            request = self._tokens
            if request is None or not request.done():
                return
            self._tokens = None
        # If the model fails here, the run's own steps fail too, and the run reports it.
        if request.exception() is None and self._on_tokens is not None:
            self._on_tokens(tokens_of(request.result()))

    def _show_samples(self) -> None:
        with self._lock:
            record, self._unshown = self._unshown, None
        if record is not None and self._on_samples is not None:
            self._on_samples(samples_of(record))

    def _read_records(self) -> tuple[int, Sequence[StepRecord]]:
        """Read the new records; return the number of the first one, counted from 0, and the records."""
        first = self._seen
        new = self.run.records[first:]
        for record in new:
            columns, histograms = columns_of(record), histograms_of(record)
            self._seen += 1  # before the record is added: an interrupt may lose it, but must not add it twice
            self._history.add(record.step, columns)
            for histogram in histograms:
                if self._heats.add(histogram):
                    self._histograms[histogram["name"]] = histogram
            if record.samples:
                self._unshown = record
                self._wake.set()  # a run that is not running may never notify again
        return first, new

    def _state(self) -> State:
        return state_of(self.run, list(self._histograms.values()), **self._names)

    def _sent_state(self) -> State:
        """Return the state that was sent last.

        A snapshot with a newer state would be wrong: if the run then returned to the state that was sent, no message
        would say so.
        """
        return self._sent or self._state()

    def _snapshot(self, state: State) -> Snapshot:
        return Snapshot(
            type="snapshot",
            protocol=PROTOCOL,
            epoch=self.epoch,
            number=self._number,
            seen=self._seen,
            state=state,
            charts=charts_for(self.run.recipe),
            metrics=metric_entries(),
            losses=loss_catalogue(self.run.data_kind),
            series=self._history.to_data(),
            heats=self._heats.to_data(),
        )

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
            histograms=self._heat_map_histograms(records),
            state=change,
        )
        if not rows:
            return message, []
        steps = struct.pack(f"<{len(rows)}d", *(record.step for record in records))
        values = [_in_float32(row.get(name, math.nan)) for name in columns for row in rows]
        return message, [steps, struct.pack(f"<{len(values)}f", *values)]

    def _heat_map_histograms(self, records: Sequence[StepRecord]) -> list[Histogram]:
        """Return the histograms of ``records`` that the heat maps contain."""
        sources = {name: heat.source for name, heat in self._heats.heats.items()}
        histograms = (histogram for record in records for histogram in histograms_of(record))
        return [histogram for histogram in histograms if sources[histogram["name"]] == histogram["source"]]

    def _loop(self) -> None:
        while True:
            self._wake.wait()
            if self._closed.is_set():
                return
            self._wake.clear()
            jobs: list[Callable[[], object]] = [self.publish, self._show_tokens, self._show_samples]
            if self.run.status != "running" and self._on_idle is not None:
                jobs.append(self._on_idle)
            failed = sum(not self._attempt(job) for job in jobs)
            self._failures = self._failures + 1 if failed else 0
            if failed:
                self._wake.set()  # a run that is not running may never notify again
            self._closed.wait(self._interval * 2 ** min(self._failures, MAX_DOUBLINGS))

    def _attempt(self, job: Callable[[], object]) -> bool:
        """Call one job; return whether it succeeded. A failure affects only that job: the page keeps updating."""
        try:
            job()
        except Exception:
            level = logging.DEBUG if self._failures else logging.WARNING  # one warning per series of failures
            _log.log(level, "the page could not be updated; trying again", exc_info=True)
            return False
        return True


def _as_message(snapshot: Snapshot) -> tuple[Snapshot, Buffers]:
    """Return a snapshot as a message: a trait may contain bytes anywhere, the JSON of a message may not."""
    parts = [*snapshot["series"], *snapshot["heats"]]
    buffers = [buffer for part in parts for buffer in (part["steps"], part["values"])]
    message = snapshot.copy()
    message["series"] = [{**series, "steps": b"", "values": b""} for series in snapshot["series"]]
    message["heats"] = [{**heat, "steps": b"", "values": b""} for heat in snapshot["heats"]]
    return message, buffers


def _difference(old: State | None, new: State) -> StateChange:
    """Return the fields of ``new`` that differ from ``old``; all of them if there is no old state."""
    if old is None:
        return cast(StateChange, new)
    before = cast("dict[str, Any]", old)
    return cast(StateChange, {key: value for key, value in new.items() if value != before[key]})


def _in_float32(value: float) -> float:
    """Return ``value``, or nan if float32 cannot hold it: a chart draws neither."""
    return value if abs(value) < LARGEST_FLOAT32 else math.nan
