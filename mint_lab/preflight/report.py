"""What preflight found, as text (the same for the same loss and data) and as HTML."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..charts.palette import VERDICT_GROUNDS, VERDICTS

if TYPE_CHECKING:
    from ..losses.spec import Reduction, Unit

__all__ = ["Report", "ReportLine", "Verdict"]

Verdict = Literal["ok", "info", "warn", "fail"]
MARKS: dict[Verdict, str] = {"ok": "ok  ", "info": "    ", "warn": "warn", "fail": "FAIL"}
SIGNS: dict[Verdict, str] = {"ok": "✓", "info": "i", "warn": "!", "fail": "✗"}
BLOCK = "margin:6px 0;padding:2px 10px;font-size:12px;border-left:3px solid rgba(128,128,128,.45)"
MAX_PRINTED_LINES = 10  # that the report shows of what the loss printed


@dataclass(frozen=True)
class ReportLine:
    """The result of one check.

    Attributes:
        name: The check.
        verdict: "ok"; "info" (neither right nor wrong); "warn" (may be meant); or "fail" (the loss cannot train).
        message: What was found.
        fix: What to change; "" if nothing is wrong.
    """

    name: str
    verdict: Verdict
    message: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{MARKS[self.verdict]}  {self.name:<19} {self.message}" + (f" -> {self.fix}" if self.fix else "")


@dataclass(frozen=True)
class Report:
    """All lines, and what else preflight found.

    Attributes:
        lines: One or more for each check that was made, in that order. A failure ends the checks.
        reduction: How the batch's loss follows from its units' losses: "sum", "mean" or "coupled". It decides how a
            batch that is too large for one pass is computed. None if the check was not reached.
        unit: "datum" or "pair"; "" if it was not determined.
        printed: What the first call printed, truncated if it was too much.
        seconds: Median time of a call; None if the loss was not called.
        model_seconds: Time of the model for ``model_work``; None without a model.
        model_work: What the model did in that time, as text.
    """

    lines: tuple[ReportLine, ...]
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
        """Time of a call, and of the model, as a sentence; "" if a check failed.

        The text of the report does not contain it, because it differs from time to time.
        """
        if self.seconds is None or not self.ok:  # the time of a call that fails is not meaningful
            return ""
        text = f"A call took {_duration(self.seconds)}"
        if self.model_seconds is None:
            return f"{text}."
        return f"{text}; {self.model_work}, {_duration(self.model_seconds)}."

    def __repr__(self) -> str:
        return "\n".join([self._head(), *(str(line) for line in self.lines), *self._printed_lines("  | ")])

    def to_html(self) -> str:
        """Return the report as an HTML table, with the time of a call."""
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
        more = [f"{mark}..."] if len(lines) > MAX_PRINTED_LINES else []
        return [f"{mark}{line}" for line in lines[:MAX_PRINTED_LINES]] + more


def _row(line: ReportLine) -> str:
    """Return a row of the table. Every style is inline, because a page may drop the style sheets of outputs."""
    cell = "text-align:left;vertical-align:top;padding:4px 10px 4px 6px"
    disc = "display:inline-block;width:17px;line-height:17px;border-radius:50%;text-align:center"
    sign = f"{disc};background:{VERDICTS[line.verdict]};color:#fff;font-size:11px;font-weight:bold"
    fix = f"<br><b>→ {html.escape(line.fix)}</b>" if line.fix else ""
    return (
        f'<tr style="background:{VERDICT_GROUNDS.get(line.verdict, "none")}"><td style="{cell}">'
        f'<span style="{sign}" role="img" aria-label="{line.verdict}">{SIGNS[line.verdict]}</span></td>'
        f'<td style="{cell};white-space:nowrap">{html.escape(line.name)}</td>'
        f'<td style="{cell};max-width:72em;overflow-wrap:anywhere">{html.escape(line.message)}{fix}</td></tr>'
    )


def _duration(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1000 * seconds:.2f} ms"
