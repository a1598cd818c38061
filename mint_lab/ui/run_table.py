"""``RunTable("runs")``: the recorded runs of a folder, to overlay, open, annotate and delete."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import traitlets

from ..charts.overlay import compared_metrics
from ..errors import ConfigError, RunError
from ..runs.folder import RunFolder, RunSummary
from .bundle import widget_view
from .page_widget import PageWidget
from .requests import reply_to, unknown_request
from .run_messages import Listing, RunRow, ShownRun
from .saved import saved_snapshot
from .token_text import visible
from .utf8 import as_utf8

if TYPE_CHECKING:
    import pandas as pd

    from ..runs.store import SavedRun

__all__ = ["MAX_ROWS", "MAX_TICKED", "RunTable"]

MAX_ROWS = 500
"""Runs that the page lists, the newest ones; the others are only counted."""

MAX_TICKED = 8
"""Runs whose curves can be overlaid."""

HTML_ROWS = 50  # of the table for readers without a kernel
MAX_LOSSES = 20  # names in a row


class RunTable(PageWidget):
    """The recorded runs in ``folder``, with their results.

    On the page: tick runs to overlay their curves, open one to see all its charts, write a note (``note.txt`` in its
    folder), or delete it. Nothing outside ``folder`` is ever changed.

    >>> table = ml.RunTable("runs")                     # doctest: +SKIP
    >>> table.to_frame()["final/pair_accuracy"].max()   # doctest: +SKIP
    >>> table.load("20260101-120000-preference-dpo").figure()  # doctest: +SKIP

    Args:
        folder: Folder of the runs; the default of a run is ``./runs``. It need not exist yet.

    Attributes:
        part: The widget of the bundle; fixed by the class.
        listing: See :class:`~mint_lab.ui.run_messages.Listing`; :meth:`refresh` updates it.
        shown, opened: The ticked runs, and the open run, as :class:`~mint_lab.ui.run_messages.ShownRun`.
    """

    part = traitlets.Unicode("run_table", read_only=True).tag(sync=True)
    listing = traitlets.Any(None).tag(sync=True)
    shown = traitlets.List().tag(sync=True)
    opened = traitlets.Any(None).tag(sync=True)

    def __init__(self, folder: str | os.PathLike[str] = "runs") -> None:
        self._folder = RunFolder(folder)
        super().__init__()
        self.refresh()

    def __repr__(self) -> str:
        return f"RunTable({os.fspath(self._folder.folder)!r})"

    def refresh(self) -> RunTable:
        """Read the folder again; runs that have not changed since the last time are not read."""
        summaries = self._folder.list()
        rows = [_row(summary) for summary in summaries[:MAX_ROWS]]
        self.listing = Listing(folder=as_utf8(str(self._folder.folder)), rows=rows, more=len(summaries) - len(rows))
        readable = {summary.name for summary in summaries if not summary.problem}
        if any(run["name"] not in readable for run in self.shown):
            self.shown = [run for run in self.shown if run["name"] in readable]
        if self.opened is not None and self.opened["name"] not in readable:
            self.opened = None
        return self

    def to_frame(self) -> pd.DataFrame:
        """As :meth:`RunFolder.to_frame <mint_lab.runs.folder.RunFolder.to_frame>`: one row per run."""
        return self._folder.to_frame()

    def load(self, name: str) -> SavedRun:
        """Return the whole run in folder ``name``.

        Raises:
            RunError: If there is no such run, or it cannot be read.
        """
        return self._folder.open(name)

    def note(self, name: str, text: str) -> None:
        """Store ``text`` as the note of run ``name``; an empty text removes the note.

        Raises:
            RunError: If there is no such run, or the note cannot be written.
        """
        self._folder.note(name, text)
        self.refresh()

    def delete(self, name: str) -> list[str]:
        """Delete the run ``name`` for good; other files in its folder stay.

        Returns:
            The names of these files.

        Raises:
            RunError: If there is no such run in this folder, the run is being written, or the system refuses.
        """
        try:
            return self._folder.delete(name)
        finally:
            self.refresh()

    def show(self, names: Sequence[str]) -> None:
        """Tick these runs, and only these, on the page.

        Raises:
            RunError: If there is no such run, or there are more than ``MAX_TICKED`` names.
        """
        names = list(dict.fromkeys(names))
        if len(names) > MAX_TICKED:
            raise RunError(f"{len(names)} runs are too many to tell apart in one chart; tick {MAX_TICKED} at most")
        already_read = {run["name"]: run for run in self.shown}
        self.shown = [already_read.get(name) or self._read(name) for name in names]

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """Return the live widget, a text, and a plain table for readers without a kernel."""
        self.show_on_page()
        return {"text/plain": repr(self), "text/html": html_of(self.listing), **widget_view(self.model_id)}, {}

    def _read(self, name: str) -> ShownRun:
        return ShownRun(name=name, snapshot=saved_snapshot(self._folder.open(name)))

    def _on_message(self, content: dict[str, Any]) -> None:
        reply = reply_to(content, self._perform)
        if self.comm is not None:
            self.send(reply)

    def _perform(self, request: Mapping[str, Any]) -> None:
        kind = str(request.get("type"))
        name, text, names = request.get("name", ""), request.get("text", ""), request.get("names", [])
        if not isinstance(name, str) or not isinstance(text, str) or not isinstance(names, list):
            raise ConfigError(f"the request {kind[:60]!r} has a name, names or a text of the wrong type")
        actions: dict[str, Callable[[], Any]] = {
            "list": self.refresh,
            "show": lambda: self.show([str(one) for one in names]),
            "open": lambda: self.set_trait("opened", self._read(name) if name else None),
            "note": lambda: self.note(name, text),
            "delete": lambda: self._delete(name),
        }
        if kind not in actions:
            raise unknown_request(kind)
        actions[kind]()

    def _delete(self, name: str) -> None:
        kept = self.delete(name)
        if kept:
            others = ", ".join(as_utf8(kept[:5]))
            raise RunError(f"the run is deleted; its folder stays, because it also contains {others}")


def html_of(listing: Listing) -> str:
    """Return a table without scripts and style sheets; every text is escaped."""
    titles = ("run", "losses", "steps", "metric", "before", "final", "note")
    rows = [_cells(row) for row in listing["rows"][:HTML_ROWS]]
    lines = [f"<tr>{''.join(f'<td>{html.escape(visible(cell))}</td>' for cell in row)}</tr>" for row in rows]
    head = "".join(f"<th>{title}</th>" for title in titles)
    remaining = len(listing["rows"]) + listing["more"] - len(rows)
    more = f"<p>and {remaining} more</p>" if remaining else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>{more}"


def _cells(row: RunRow) -> tuple[str, ...]:
    numbers = [f"{row[when][row['main']]:.4g}" if row["main"] in row[when] else "" for when in ("before", "final")]
    note = row["problem"] or " ".join(row["note"].split())[:100]
    return (row["name"], ", ".join(row["losses"]), f"{row['steps']}/{row['steps_total']}", row["main"], *numbers, note)


def _row(summary: RunSummary) -> RunRow:
    return RunRow(
        name=as_utf8(summary.name),
        title=summary.title,
        recipe=summary.recipe,
        losses=summary.losses[:MAX_LOSSES],
        status=summary.status,
        steps=summary.steps,
        steps_total=summary.steps_total,
        changed=summary.changed,
        before=compared_metrics(summary.before),
        final=compared_metrics(summary.final),
        main=summary.main,
        curve=summary.curve,
        note=summary.note,
        problem=as_utf8(summary.problem),
    )
