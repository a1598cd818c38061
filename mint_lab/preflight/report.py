"""What preflight found, as text that is the same every time and as HTML."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from ..losses.spec import Reduction, Unit

__all__ = ["Line", "Report", "Verdict"]

Verdict = Literal["ok", "info", "warn", "fail"]
MARKS: dict[Verdict, str] = {"ok": "ok  ", "info": "    ", "warn": "warn", "fail": "FAIL"}
SIGNS: dict[Verdict, str] = {"ok": "✓", "info": "i", "warn": "!", "fail": "✗"}
# White signs stand on these, so that they can be read on a dark page as well as on a light one.
COLOURS: dict[Verdict, str] = {"ok": "#2e7d32", "info": "#66707a", "warn": "#9a5b00", "fail": "#c62828"}
TINTS: dict[Verdict, str] = {"warn": "rgba(230,145,0,.13)", "fail": "rgba(222,50,50,.13)"}
BLOCK = "margin:6px 0;padding:2px 10px;font-size:12px;border-left:3px solid rgba(128,128,128,.45)"
SHOWN = 10  # lines of what the loss printed


@dataclass(frozen=True)
class Line:
    """One answer: what was asked, the verdict, what was found, and what to change (empty where nothing is)."""

    name: str
    verdict: Verdict
    message: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{MARKS[self.verdict]}  {self.name:<19} {self.message}" + (f" -> {self.fix}" if self.fix else "")


@dataclass(frozen=True)
class Report:
    """All answers.

    Attributes:
        lines: in the order of the checks; those that could not be asked any more are missing.
        reduction: How the batch's loss follows from its units' losses: "sum", "mean" or "coupled". It decides how a
            batch that is too large for one pass is computed. None if the check was not reached.
        unit: "datum" or "pair"; "" if it was not determined.
        printed: what the first call printed, cut off where it was too much.
        seconds: that a call took, in the median.
        model_seconds: that the model took for ``model_work``; None without a model.
        model_work: what that was, in words.
    """

    lines: tuple[Line, ...]
    reduction: Reduction | None = None
    unit: Unit = ""
    printed: str = ""
    seconds: float | None = None
    model_seconds: float | None = None
    model_work: str = "the model's forward pass over the same datums"

    @property
    def ok(self) -> bool:
        """Whether nothing failed; warnings do not count."""
        return all(line.verdict != "fail" for line in self.lines)

    @property
    def cost(self) -> str:
        """What a call takes beside the model, in words; empty where a check failed.

        It differs from time to time, so it is no part of the text.
        """
        if self.seconds is None or not self.ok:  # what a call takes that raises says nothing
            return ""
        text = f"A call took {_duration(self.seconds)}"
        if self.model_seconds is None:
            return f"{text}."
        return f"{text}; {self.model_work}, {_duration(self.model_seconds)}."

    def __repr__(self) -> str:
        return "\n".join([self._head(), *(str(line) for line in self.lines), *self._printed_lines("  | ")])

    def to_html(self) -> str:
        """The report as a table, with what a call cost."""
        rows = "".join(map(_row, self.lines))
        printed = "\n".join(self._printed_lines(""))
        return (
            f"<div><b>{html.escape(self._head())}</b>"
            f'<table style="table-layout:auto;width:auto;margin:6px 0;border-collapse:collapse">{rows}</table>'
            + (f'<pre style="{BLOCK}">{html.escape(printed)}</pre>' if printed else "")
            + (f"<small>{html.escape(self.cost)}</small>" if self.cost else "")
            + "</div>"
        )

    def _repr_html_(self) -> str:
        return self.to_html()

    def _head(self) -> str:
        fails = sum(line.verdict == "fail" for line in self.lines)
        warns = sum(line.verdict == "warn" for line in self.lines)
        return "preflight: " + ("ok" if self.ok else f"{fails} failed") + (f", {warns} to look at" if warns else "")

    def _printed_lines(self, mark: str) -> list[str]:
        lines = self.printed.splitlines()
        more = [f"{mark}..."] if len(lines) > SHOWN else []
        return [f"{mark}{line}" for line in lines[:SHOWN]] + more


def _row(line: Line) -> str:
    """A row of the table; every style is in the row, because a page may drop style sheets of outputs."""
    cell = "text-align:left;vertical-align:top;padding:4px 10px 4px 6px"
    disc = "display:inline-block;width:17px;line-height:17px;border-radius:50%;text-align:center"
    sign = f"{disc};background:{COLOURS[line.verdict]};color:#fff;font-size:11px;font-weight:bold"
    fix = f"<br><b>→ {html.escape(line.fix)}</b>" if line.fix else ""
    return (
        f'<tr style="background:{TINTS.get(line.verdict, "none")}"><td style="{cell}">'
        f'<span style="{sign}" role="img" aria-label="{line.verdict}">{SIGNS[line.verdict]}</span></td>'
        f'<td style="{cell};white-space:nowrap">{html.escape(line.name)}</td>'
        f'<td style="{cell};max-width:72em;overflow-wrap:anywhere">{html.escape(line.message)}{fix}</td></tr>'
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.2f} ms"
