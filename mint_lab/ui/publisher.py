"""Carries a run to its page: a thread of its own reads what is new a few times a second and sends it.

The run only sets an event; nothing here can slow a step but the share of the interpreter that a publish takes (about a
millisecond). The thread runs in a copy of its creator's context: ipykernel routes messages by context variables.
"""

from __future__ import annotations

import contextvars
import logging
import math
import struct
import threading
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

from ..recipes.record import StepRecord
from .heat import HeatHistory
from .history import History
from .loss_catalogue import loss_catalogue
from .protocol import PROTOCOL, Buffers, Histogram, Message, Samples, Snapshot, State, StateChange, Tokens, Update
from .samples import samples_of
from .state import RunLike, columns_of, histograms_of, state_of
from .tokens import tokens_of
from .wire_charts import charts_for, metric_entries

if TYPE_CHECKING:
    from concurrent.futures import Future

    from ..runs.token_inspection import HeldOutTokens

__all__ = ["INTERVAL", "REPEATABLE", "Publisher", "Send"]

_log = logging.getLogger(__name__)

INTERVAL = 0.2
"""Seconds between two messages at least."""

REPEATABLE = 2048
"""Records that are sent one by one at most; beyond, a snapshot is smaller."""


_PATIENCE = 6  # times that the pause between two rounds doubles while something fails


class Send(Protocol):
    """Hands one message to every page that shows the run."""

    def __call__(self, message: Message, buffers: Buffers) -> None: ...


class SubscribableRun(RunLike, Protocol):
    """A run that says when it changed, and shows tokens when asked."""

    def subscribe(self, notify: Callable[[], None]) -> Callable[[], None]: ...
    def held_out_tokens(self) -> Future[HeldOutTokens]: ...


class Publisher:
    """One run on its way to the page.

    Args:
        run: what is shown.
        send: called with each message, from the publisher's thread or from the one that calls :meth:`sync`.
        base_model, data: words for the page.
        interval: seconds between two messages at least.
        settled: called after the last message of a run that paused, stopped or finished.
        show_tokens: called with tokens that were asked for, from the publisher's thread.
        show_samples: called with the latest responses that the run kept, when there are new ones.
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
        show_tokens: Callable[[Tokens], None] | None = None,
        show_samples: Callable[[Samples], None] | None = None,
    ) -> None:
        self.run = run
        self.epoch = uuid.uuid4().hex
        self._send = send
        self._words = {"base_model": base_model, "data": data}
        self._interval = interval
        self._settled = settled
        self._show_tokens = show_tokens
        self._show_samples = show_samples
        self._sampled: StepRecord | None = None  # has samples that have not been shown yet
        self._tokens: Future[HeldOutTokens] | None = None  # asked for, and not shown yet
        self._history = History()
        self._heats = HeatHistory()
        self._histograms: dict[str, Histogram] = {}
        self._seen = 0
        self._number = 0
        self._failures = 0  # rounds of the thread, one after another, in which something failed
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
            self._number += 1
            self._sent = None  # until it is out: what fails on the way is followed by the full state
            if len(new) > REPEATABLE:
                self._send(*_detached(self._whole(state)))
            else:
                self._send(*self._update(first, new, change))
            self._sent = state
            return len(new)

    def snapshot(self) -> Snapshot:
        """The whole picture as of now."""
        with self._lock:
            self.publish()
            return self._whole(self._told())

    def sync(self, since: int, epoch: str) -> None:
        """Send what a page that holds ``since`` records of run ``epoch`` has missed, with the full state."""
        with self._lock:
            self.publish()
            if epoch != self.epoch or not max(0, self._seen - REPEATABLE) <= since <= self._seen:
                self.send_snapshot()
                return
            self._number += 1
            records = self.run.records[since : self._seen]
            self._send(*self._update(since, records, cast(StateChange, self._told())))

    def send_snapshot(self) -> None:
        """Send the whole picture as a message."""
        with self._lock:
            self._send(*_detached(self.snapshot()))

    def ask_tokens(self) -> None:
        """Have the run look at some tokens, and show them when it has. While an answer is due, more asking is vain.

        Raises:
            RunError: the run has no model yet.
        """
        with self._lock:
            if self._tokens is None:
                self._tokens = self.run.held_out_tokens()
                self._tokens.add_done_callback(lambda _: self._wake.set())

    def _take_tokens(self) -> None:
        with self._lock:
            asked = self._tokens
            if asked is None or not asked.done():
                return
            self._tokens = None
        # A model that cannot be asked fails the run's own steps too, which is told there.
        if asked.exception() is None and self._show_tokens is not None:
            self._show_tokens(tokens_of(asked.result()))

    def _give_samples(self) -> None:
        with self._lock:
            record, self._sampled = self._sampled, None
        if record is not None and self._show_samples is not None:
            self._show_samples(samples_of(record))

    def _take(self) -> tuple[int, Sequence[StepRecord]]:
        first = self._seen
        new = self.run.records[first:]
        for record in new:
            columns, histograms = columns_of(record), histograms_of(record)
            self._seen += 1  # here, so that a record that an interrupt cuts short is not taken twice
            self._history.add(record.step, columns)
            for histogram in histograms:
                if self._heats.add(histogram):
                    self._histograms[histogram["name"]] = histogram
            if record.samples:
                self._sampled = record
                self._wake.set()  # also where somebody else took the records, of a run that rests
        return first, new

    def _state(self) -> State:
        return state_of(self.run, list(self._histograms.values()), **self._words)

    def _told(self) -> State:
        """The state that pages were told last. Were another one shown, a change back from it would never be told."""
        return self._sent or self._state()

    def _whole(self, state: State) -> Snapshot:
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
            histograms=self._counted(records),
            state=change,
        )
        if not rows:
            return message, []
        steps = struct.pack(f"<{len(rows)}d", *(record.step for record in records))
        values = [_packable(row.get(name, math.nan)) for name in columns for row in rows]
        return message, [steps, struct.pack(f"<{len(values)}f", *values)]

    def _counted(self, records: Sequence[StepRecord]) -> list[Histogram]:
        """The histograms of ``records`` that are part of the heat maps as they now stand."""
        sources = {name: heat.source for name, heat in self._heats.heats.items()}
        every = (histogram for record in records for histogram in histograms_of(record))
        return [histogram for histogram in every if sources[histogram["name"]] == histogram["source"]]

    def _loop(self) -> None:
        while True:
            self._wake.wait()
            if self._closed.is_set():
                return
            self._wake.clear()
            status = self.run.status
            parts = [self.publish, self._take_tokens, self._give_samples]
            if status != "running" and self._settled is not None:
                parts.append(self._settled)
            failed = sum(not self._done(part) for part in parts)
            self._failures = self._failures + 1 if failed else 0
            if failed:
                self._wake.set()  # a run that rests may never say anything again
            self._closed.wait(self._interval * 2 ** min(self._failures, _PATIENCE))

    def _done(self, part: Callable[[], object]) -> bool:
        """Do one part of the work. A failure costs that part alone: no page stands still while its run goes on."""
        try:
            part()
        except Exception:
            level = logging.DEBUG if self._failures else logging.WARNING  # said once
            _log.log(level, "the page could not be brought up to date; trying again", exc_info=True)
            return False
        return True


def _detached(snapshot: Snapshot) -> tuple[Snapshot, Buffers]:
    """A snapshot as a message: a trait may hold bytes anywhere, the JSON of a message nowhere."""
    parts = [*snapshot["series"], *snapshot["heats"]]
    buffers = [buffer for part in parts for buffer in (part["steps"], part["values"])]
    message = snapshot.copy()
    message["series"] = [{**series, "steps": b"", "values": b""} for series in snapshot["series"]]
    message["heats"] = [{**heat, "steps": b"", "values": b""} for heat in snapshot["heats"]]
    return message, buffers


def _difference(old: State | None, new: State) -> StateChange:
    if old is None:
        return cast(StateChange, new)
    before = cast("dict[str, Any]", old)
    return cast(StateChange, {key: value for key, value in new.items() if value != before[key]})


def _packable(value: float) -> float:
    """``value`` where float32 can hold it, else nan: neither would be drawn."""
    return value if abs(value) < 3.4e38 else math.nan
