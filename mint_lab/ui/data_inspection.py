"""The data of a run for its page: audited on a thread of their own when a page requests them, and then row by row."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from ..errors import ConfigError, MintLabError
from ..threads import OwnedLock, PackageThread
from .data_messages import DataReport, FindingEntry, LengthsEntry, NumberEntry
from .utf8 import as_utf8

if TYPE_CHECKING:
    from .data_audit import Audit

__all__ = ["DataInspection"]

MAX_PROBLEM_CHARACTERS = 2000

_log = logging.getLogger(__name__)


class DataInspection:
    """Audits the data of one run once, and shows rows of them.

    Loading a tokenizer and data can take minutes, so a thread does it; the kernel's main thread stays free. A row of
    data that are loaded is shown at once.

    Args:
        run: The run.
        show: Called with each report, from the thread of the request or from the thread that loads.
    """

    def __init__(self, run: Any, show: Callable[[DataReport], None]) -> None:
        self._run = run
        self._show = show
        self._lock = OwnedLock("this page")  # held while a report is shown, so that the last one shown is the latest
        self._is_loading = False
        self._audit: Audit | None = None
        self._order: list[int] = []  # positions of the items in the order of their rows

    def request(self, request: Mapping[str, Any]) -> None:
        """Show what a page requested: noteworthy rows, or one row; load the data first if they are not loaded.

        Raises:
            ConfigError: If this kind of run has no data to show, or ``item`` or ``row`` is not a whole number.
            DataError: If there is no such row.
        """
        with self._lock:
            if self._audit is not None:
                self._show(self._report(self._audit, self._requested(self._audit, request)))
            elif not self._is_loading:
                if not hasattr(self._run, "prepare_data"):
                    raise ConfigError(f"a {type(self._run).__name__} does not show its data")
                self._is_loading = True
                self._show(_empty("loading"))
                PackageThread(self._load, "mint-lab data").start()

    def _load(self) -> None:
        from .data_audit import audit_of

        problem = ""
        found: Audit | None = None
        try:
            found = audit_of(self._run)
        except MintLabError as error:
            problem = str(error)
        except Exception as error:  # the page waits for a report, whatever happens
            _log.exception("the data of a run could not be audited")
            problem = f"{type(error).__name__}: {error}".rstrip(": ")
        with self._lock:
            self._is_loading = False
            if found is None:
                self._show(_empty("failed", as_utf8(problem[:MAX_PROBLEM_CHARACTERS])))
                return
            self._audit, self._order = found, _in_row_order(found)
            self._show(self._report(found, None))

    def _requested(self, audit: Audit, request: Mapping[str, Any]) -> int | None:
        """Return the requested item in the order of the rows; None for noteworthy ones."""
        if "row" in request:
            position = audit.position(_whole(request, "row"), held_out=request.get("held_out") is True)
            return self._order.index(position)
        if "item" not in request:
            return None
        return min(max(_whole(request, "item"), 0), len(self._order) - 1)

    def _report(self, audit: Audit, item: int | None) -> DataReport:
        position = None if item is None else self._order[item]
        shown = None if position is None else audit.view.items[position]
        chosen: Sequence[tuple[int, str]] = audit.chosen if position is None else [(position, "")]
        report = DataReport(
            status="ready",
            problem="",
            heading=audit.summary,
            about=audit.about,
            numbers=[NumberEntry(name=name, value=value) for name, value in audit.numbers],
            findings=[
                FindingEntry(severity=one.severity, message=one.message, meaning=one.meaning, advice=one.advice)
                for one in audit.findings
            ],
            lengths=[
                LengthsEntry(
                    name=one.name,
                    start=one.start,
                    width=one.width,
                    counts=list(one.counts),
                    longest=one.longest,
                    limit=one.limit,
                )
                for one in audit.lengths
            ],
            items=len(self._order),
            item=item,
            row=None if shown is None else shown.facts.row,
            held_out=shown is not None and shown.held_out,
            has_two_sources=audit.view.has_two_sources,
            tokens=None,
        )
        return {**as_utf8(report), "tokens": audit.message(chosen)}


def _in_row_order(audit: Audit) -> list[int]:
    """Return the positions of the items in the order of their rows, those of other held-out data last."""
    items = audit.view.items
    is_last = audit.view.has_two_sources
    return sorted(range(len(items)), key=lambda number: (is_last and items[number].held_out, items[number].facts.row))


def _whole(request: Mapping[str, Any], name: str) -> int:
    value = request.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{name} is {value!r}, expected a whole number")
    return value


def _empty(status: Literal["loading", "failed"], problem: str = "") -> DataReport:
    return DataReport(
        status=status,
        problem=problem,
        heading="",
        about="",
        numbers=[],
        findings=[],
        lengths=[],
        items=0,
        item=None,
        row=None,
        held_out=False,
        has_two_sources=False,
        tokens=None,
    )
