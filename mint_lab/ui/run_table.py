"""``RunTable("runs")``: the runs of a folder, to overlay, open, note and delete."""

from __future__ import annotations

import html
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import anywidget
import traitlets

from ..charts.overlay import compared_metrics
from ..errors import ConfigError, RunError
from ..runs.folder import RunFolder, RunSummary
from .protocol_runs import Listing, RunRow, ShownRun
from .requests import reply_to
from .saved import saved_snapshot
from .token_text import visible
from .widget import WIDGET_MIME, bundle
from .wire import travels

if TYPE_CHECKING:
    import pandas as pd

    from ..runs.store import SavedRun

__all__ = ["ROWS", "TICKED", "RunTable"]

ROWS = 500
"""Runs that the page lists, the newest; the others are counted."""

TICKED = 8
"""Runs that may lie on top of each other."""


class RunTable(anywidget.AnyWidget):
    """The run folders in ``folder``, with what came out of each.

    On the page: tick runs to lay their curves on top of each other, open one to see all of its charts, write a note
    beside it (``note.txt`` in its folder), or delete it. Nothing outside ``folder`` is ever changed.

    >>> table = ml.RunTable("runs")                     # doctest: +SKIP
    >>> table.to_frame()["final/pair_accuracy"].max()   # doctest: +SKIP
    >>> table.load("20260101-120000-preference-dpo").figure()  # doctest: +SKIP

    Args:
        folder: where runs are recorded; ``./runs`` is where they are by default. It need not exist yet.

    Attributes:
        part: which widget of the bundle this is; fixed by the class.
        listing: see :class:`~mint_lab.ui.protocol_runs.Listing`; :meth:`refresh` reads it anew.
        shown, opened: the ticked runs, and the one that is open, see :class:`~mint_lab.ui.protocol_runs.ShownRun`.
    """

    _esm = traitlets.Unicode().tag(sync=True)
    part = traitlets.Unicode("run_table", read_only=True).tag(sync=True)
    listing = traitlets.Any(None).tag(sync=True)
    shown = traitlets.List().tag(sync=True)
    opened = traitlets.Any(None).tag(sync=True)

    def __init__(self, folder: str | os.PathLike[str] = "runs") -> None:
        self._folder = RunFolder(folder)
        super().__init__()
        self.on_msg(self._on_message)
        self.refresh()

    def __repr__(self) -> str:
        return f"RunTable({os.fspath(self._folder.folder)!r})"

    def refresh(self) -> RunTable:
        """Read the folder again; what has not changed since the last time is not."""
        found = self._folder.list()
        rows = [_row(summary) for summary in found[:ROWS]]
        self.listing = Listing(folder=travels(str(self._folder.folder)), rows=rows, more=len(found) - len(rows))
        there = {summary.name for summary in found if not summary.problem}
        if any(run["name"] not in there for run in self.shown):
            self.shown = [run for run in self.shown if run["name"] in there]
        if self.opened is not None and self.opened["name"] not in there:
            self.opened = None
        return self

    def to_frame(self) -> pd.DataFrame:
        """As :meth:`RunFolder.to_frame <mint_lab.runs.folder.RunFolder.to_frame>`: one row a run."""
        return self._folder.to_frame()

    def load(self, name: str) -> SavedRun:
        """The whole run of folder ``name``.

        Raises:
            RunError: there is no such run, or it cannot be read.
        """
        return self._folder.open(name)

    def note(self, name: str, text: str) -> None:
        """Keep ``text`` beside the run ``name``; an empty one takes the note away.

        Raises:
            RunError: there is no such run, or the note cannot be written.
        """
        self._folder.note(name, text)
        self.refresh()

    def delete(self, name: str) -> list[str]:
        """Delete the run ``name``, for good, and return what else was in its folder, which stays.

        Raises:
            RunError: there is no such run in this folder, a run writes it now, or the system refuses.
        """
        try:
            return self._folder.delete(name)
        finally:
            self.refresh()

    def show(self, names: Sequence[str]) -> None:
        """Tick these runs, and no others, on the page.

        Raises:
            RunError: there is no such run, or more than ``TICKED`` of them.
        """
        names = list(dict.fromkeys(names))
        if len(names) > TICKED:
            raise RunError(f"{len(names)} runs on top of each other are too many to tell apart, {TICKED} at most")
        known = {run["name"]: run for run in self.shown}
        self.shown = [known.get(name) or self._read(name) for name in names]

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        """The live widget, a fixed text, and a plain table for readers without a kernel."""
        return {
            "text/plain": repr(self),
            "text/html": html_of(self.listing),
            WIDGET_MIME: {"version_major": 2, "version_minor": 1, "model_id": self.model_id},
        }, {}

    def _read(self, name: str) -> ShownRun:
        run = self._folder.open(name)
        try:
            return ShownRun(name=name, snapshot=saved_snapshot(run))
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:  # as its files have it
            raise RunError(f"{run.folder} cannot be drawn: {type(error).__name__}: {error}") from error

    def _on_message(self, _: Any, content: Any, __: Any) -> None:
        if not isinstance(content, dict):
            return
        reply = reply_to(content, self._perform)
        if self.comm is not None:
            self.send(reply)

    def _perform(self, request: Mapping[str, Any]) -> None:
        kind = str(request.get("type"))
        name, text, names = request.get("name", ""), request.get("text", ""), request.get("names", [])
        if not isinstance(name, str) or not isinstance(text, str) or not isinstance(names, list):
            raise ConfigError(f"the request {kind[:60]!r} names no run")
        does: dict[str, Callable[[], Any]] = {
            "list": self.refresh,
            "show": lambda: self.show([str(one) for one in names]),
            "open": lambda: self.set_trait("opened", self._read(name) if name else None),
            "note": lambda: self.note(name, text),
            "delete": lambda: self._delete(name),
        }
        if kind not in does:
            raise ConfigError(f"unknown request {kind[:60]!r}")
        does[kind]()

    def _delete(self, name: str) -> None:
        kept = self.delete(name)
        if kept:
            raise RunError(f"the run is deleted; its folder stays, for it also holds {', '.join(travels(kept[:5]))}")

    @traitlets.default("_esm")
    def _bundle(self) -> str:
        return bundle()


def html_of(listing: Listing) -> str:
    """A table without a script or a style sheet; every text is escaped."""
    head = ("run", "losses", "steps", "metric", "before", "final", "note")
    rows = [_cells(row) for row in listing["rows"][:50]]
    lines = [f"<tr>{''.join(f'<td>{html.escape(visible(cell))}</td>' for cell in row)}</tr>" for row in rows]
    titles = "".join(f"<th>{title}</th>" for title in head)
    rest = len(listing["rows"]) + listing["more"] - len(rows)
    more = f"<p>and {rest} more</p>" if rest else ""
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{''.join(lines)}</tbody></table>{more}"


def _cells(row: RunRow) -> tuple[str, ...]:
    numbers = [f"{row[when][row['main']]:.4g}" if row["main"] in row[when] else "" for when in ("before", "final")]
    known = row["problem"] or " ".join(row["note"].split())[:100]
    return (row["name"], ", ".join(row["losses"]), f"{row['steps']}/{row['steps_total']}", row["main"], *numbers, known)


def _row(summary: RunSummary) -> RunRow:
    return RunRow(
        name=travels(summary.name),
        title=summary.title,
        recipe=summary.recipe,
        losses=summary.losses[:20],
        status=summary.status,
        steps=summary.steps,
        steps_total=summary.steps_total,
        changed=summary.changed,
        before=compared_metrics(summary.before),
        final=compared_metrics(summary.final),
        main=summary.main,
        curve=summary.curve,
        note=summary.note,
        problem=travels(summary.problem),
    )
