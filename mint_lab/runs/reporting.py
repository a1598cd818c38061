"""Reports of a run to trackers of experiments, on a separate thread.

The thread reads what the run has recorded since it looked last. A tracker that raises is left out from then on, and one
note says so; the run trains on.
"""

from __future__ import annotations

import atexit
import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..recipes.record import StepRecord
from .notifier import ChangeNotifier

if TYPE_CHECKING:
    from .loop import Loop
    from .reporters import Reporter

__all__ = ["Reporting", "metrics_of"]

FLUSH_SECONDS = 20.0
STOP_SECONDS = 2.0


class Reporting:
    """Reports one run to several trackers.

    Args:
        loop: Of the run.
        reporters: The trackers.
        config: Returns all settings of the run; called when the reports begin.
        baseline: Returns the held-out metrics before training.
    """

    def __init__(
        self,
        loop: Loop,
        reporters: Sequence[Reporter],
        config: Callable[[], Mapping[str, Any]],
        baseline: Callable[[], Mapping[str, float]],
    ) -> None:
        self._loop, self._reporters, self._config, self._baseline = loop, list(reporters), config, baseline
        self._records = loop.records
        self._seen, self._seen_edits, self._seen_rewinds = len(loop.records), len(loop.edits), len(loop.rewinds)
        self._active: list[Reporter] = []
        self._lock = threading.Lock()
        self._idle = threading.Condition()
        self._notifier = ChangeNotifier()  # a thread of its own, so that a slow tracker does not delay a page
        if reporters:
            loop.notifier.subscribe(self._notifier.notify)
            self._notifier.subscribe(self._report)
            atexit.register(_end, weakref.ref(self))

    def adopt(self) -> None:
        """Begin after the records that the run has; its trackers have them already."""
        loop = self._loop
        self._records = loop.records
        self._seen, self._seen_edits, self._seen_rewinds = len(loop.records), len(loop.edits), len(loop.rewinds)

    def flush(self, timeout: float = FLUSH_SECONDS) -> None:
        """Wait until the trackers have everything that is recorded; at most ``timeout`` seconds."""
        deadline = time.monotonic() + timeout
        self._notifier.notify()
        with self._idle:
            while self._is_behind() and (left := deadline - time.monotonic()) > 0:
                self._idle.wait(min(left, 0.5))

    def end(self) -> None:
        """End the run, and wait until the trackers know."""
        self._loop.request("stopped")
        self._loop.wait(STOP_SECONDS)
        self.flush()

    def _is_behind(self) -> bool:
        loop = self._loop
        if not self._reporters or (not loop.records and not self._active):
            return False
        has_ended = loop.status in ("finished", "stopped")
        return loop.records is not self._records or len(loop.records) > self._seen or (has_ended and bool(self._active))

    def _report(self) -> None:
        with self._lock:
            self._report_new()
        with self._idle:
            self._idle.notify_all()

    def _report_new(self) -> None:
        loop = self._loop
        status = loop.status  # before the records: a final status is set after the last of them
        records, edits, rewinds = loop.records, loop.edits, loop.rewinds
        if records is not self._records:  # a rewind has replaced them
            steps = [rewind.step for rewind in rewinds[self._seen_rewinds :]]
            self._seen = min([self._seen, *steps, len(records)])
            self._seen_edits = len([edit for edit in edits if edit.step <= self._seen])
            self._seen_rewinds, self._records = len(rewinds), records
            self._each(lambda reporter: reporter.edit(self._seen, f"rewind to step {self._seen}"))
        new, new_edits = list(records[self._seen :]), list(edits[self._seen_edits :])
        if new and not self._active:
            self._begin(is_first=self._seen == 0)
        for record in new:
            for edit in (edit for edit in new_edits if edit.step == record.step):
                self._each(lambda reporter, edit=edit: reporter.edit(edit.step, edit.label))
            self._each(lambda reporter, record=record: reporter.log(record.step, metrics_of(record)))
        self._seen += len(new)
        self._seen_edits += len(new_edits)
        if status in ("finished", "stopped") and self._seen == len(loop.records):
            self._each(lambda reporter: reporter.finish(status))
            self._active = []

    def _begin(self, *, is_first: bool) -> None:
        self._active = list(self._reporters)
        config = self._config()
        self._each(lambda reporter: reporter.start(config))
        baseline = {f"held_out/{name}": value for name, value in self._baseline().items()}
        if is_first and baseline:
            self._each(lambda reporter: reporter.log(0, baseline))

    def _each(self, call: Callable[[Reporter], None]) -> None:
        for reporter in list(self._active):
            try:
                call(reporter)
            except BaseException as error:  # also a SystemExit of a library: it must not end the reports to the others
                self._active.remove(reporter)
                with contextlib.suppress(ValueError):
                    self._reporters.remove(reporter)
                name, text = type(reporter).__name__, str(error).split("\n", 1)[0]
                self._loop.notes.append(f"{name} failed and gets no more reports: {type(error).__name__}: {text}")


def _end(reference: weakref.ref[Reporting]) -> None:
    """End a run and its reports, because the interpreter shuts down."""
    reporting = reference()
    if reporting is not None:
        reporting.end()


def metrics_of(record: StepRecord) -> dict[str, float]:
    """Return the numbers of a record by name; those of held-out data as ``held_out/NAME``, settings likewise."""
    own = {"seconds": record.time, "step_time": record.step_time, "tokens": record.tokens}
    held_out = {f"held_out/{name}": value for name, value in record.held_out.items()}
    return own | record.metrics | held_out | {f"settings/{name}": value for name, value in record.settings.items()}
