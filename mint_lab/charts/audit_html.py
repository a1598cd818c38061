"""An audit of data as HTML without a script or a style sheet, for the output of a cell."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from .palette import ROLES, VERDICT_GROUNDS, VERDICTS

__all__ = ["AuditHtml", "AuditLine", "LengthBars", "audit_html"]

HEIGHT_PX = 64
MUTED = "opacity:.75"
# A part of the text colour, so that it is visible in light and dark mode.
RULE = "1px solid rgba(128,128,128,.45)"
SIGNS = {"warning": ("!", "warn"), "note": ("i", "info")}


@dataclass(frozen=True)
class AuditLine:
    """A finding: what was found, what follows, and what to do."""

    severity: Literal["warning", "note"]
    message: str
    meaning: str
    advice: str


@dataclass(frozen=True)
class LengthBars:
    """A histogram of lengths.

    Attributes:
        title: What is measured.
        start: Smallest length of the first bar, tokens.
        width: Lengths of a bar.
        counts: Sequences by bar.
        longest: The largest length, tokens.
        limit: Longest sequence that is trained on; None for no mark.
    """

    title: str
    start: int
    width: int
    counts: Sequence[int]
    longest: int
    limit: int | None = None

    @property
    def end(self) -> int:
        """The length after the last bar, tokens."""
        return self.start + self.width * len(self.counts)

    @property
    def limit_place(self) -> float | None:
        """Where the limit lies across the bars, 0 to 1; None if it lies beyond them."""
        if self.limit is None or not self.start <= self.limit + 1 <= self.end:
            return None
        return (self.limit + 1 - self.start) / (self.end - self.start)


@dataclass(frozen=True)
class AuditHtml:
    """The parts of an audit, as plain texts that are still to be escaped.

    Attributes:
        heading: One line.
        about: What was audited.
        numbers: Names and values.
        lines: What a person should know.
        bars: Lengths.
        tokens: HTML of the coloured tokens.
    """

    heading: str
    about: str
    numbers: Sequence[tuple[str, str]]
    lines: Sequence[AuditLine]
    bars: Sequence[LengthBars]
    tokens: str


def audit_html(audit: AuditHtml) -> str:
    """Return one ``<div>``."""
    cell = "text-align:left;vertical-align:top;padding:4px 10px 4px 6px"
    numbers = "".join(
        f'<div style="min-width:7em"><div style="font-size:16px">{html.escape(value)}</div>'
        f'<div style="{MUTED};font-size:12px">{html.escape(name)}</div></div>'
        for name, value in audit.numbers
    )
    lines = "".join(_line(line, cell) for line in audit.lines)
    table = f'<table style="width:auto;margin:8px 0;border-collapse:collapse">{lines}</table>' if lines else ""
    bars = "".join(map(_bars, audit.bars))
    return (
        '<div class="mint-lab-audit" style="font:13px/1.5 system-ui,sans-serif">'
        f'<b>{html.escape(audit.heading)}</b><div style="{MUTED}">{html.escape(audit.about)}</div>'
        f'<div style="display:flex;flex-wrap:wrap;gap:8px 20px;margin:8px 0">{numbers}</div>'
        f"{table}"
        f'<div style="display:flex;flex-wrap:wrap;gap:8px 28px;margin:8px 0">{bars}</div>{audit.tokens}</div>'
    )


def _line(line: AuditLine, cell: str) -> str:
    sign, verdict = SIGNS[line.severity]
    disc = (
        f"display:inline-block;width:17px;line-height:17px;border-radius:50%;text-align:center;"
        f"background:{VERDICTS[verdict]};color:#fff;font-size:11px;font-weight:bold"
    )
    return (
        f'<tr style="background:{VERDICT_GROUNDS.get(verdict, "none")}"><td style="{cell}">'
        f'<span style="{disc}" role="img" aria-label="{line.severity}">{sign}</span></td>'
        f'<td style="{cell};max-width:72em;overflow-wrap:anywhere">{html.escape(line.message)}: '
        f"{html.escape(line.meaning)}.<br><b>→ {html.escape(line.advice)}</b></td></tr>"
    )


def _bars(bars: LengthBars) -> str:
    """Return a histogram; its label has the numbers for readers who do not see it."""
    highest = max(bars.counts)
    every = "".join(
        f'<span title="{html.escape(_range(bars, number))}: {count}" style="flex:1;min-width:2px;margin-right:1px;'
        f"height:{max(HEIGHT_PX * count / highest, 1 if count else 0):.0f}px;"
        f'background:{ROLES["light"]["train"]}"></span>'
        for number, count in enumerate(bars.counts)
    )
    place = bars.limit_place
    mark = (
        ""
        if place is None
        else f'<span style="position:absolute;left:{100 * place:.1f}%;top:0;bottom:0;border-left:2px dashed '
        f'{ROLES["light"]["rejected"]}"></span>'
    )
    limit = "" if bars.limit is None else f" · limit {bars.limit:,}"
    label = f"{bars.title}: {bars.start} to {bars.longest} tokens"
    return (
        f'<div style="width:260px"><div style="font-size:12px">{html.escape(bars.title)}'
        f'<span style="{MUTED}">{limit}</span></div>'
        f'<div role="img" aria-label="{html.escape(label)}" style="position:relative;display:flex;align-items:flex-end;'
        f'height:{HEIGHT_PX}px;border-bottom:{RULE}">{every}{mark}</div>'
        f'<div style="display:flex;justify-content:space-between;font-size:11px;{MUTED}">'
        f"<span>{bars.start:,}</span><span>{bars.longest:,} tokens</span></div></div>"
    )


def _range(bars: LengthBars, number: int) -> str:
    low = bars.start + number * bars.width
    return f"{low} tokens" if bars.width == 1 else f"{low} to {low + bars.width - 1} tokens"
