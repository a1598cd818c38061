"""Coloured tokens for readers without a kernel: HTML without a script or a style sheet, and a PNG.

The PNG is for readers that strip colours from HTML, such as GitHub. Both are stored in the notebook.
"""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .canvas import INK, MUTED, WIDTH, Box, Sheet, drawable, drawing
from .colour_scale import ColourScale, Rgb, hexadecimal

__all__ = ["Chip", "Strip", "StripGroup", "StripLayout", "TokenStrips", "strips_html", "strips_picture"]

SIZE, LEFT, LINE = 12, 90, 22  # height of the letters, start of the tokens, distance of lines; units
LEGEND_WIDTH, LEGEND_STEPS = 170, 85
# Signs that stand for white space and bytes; they are as wide as letters and read from left to right.
_PLAIN = frozenset("↵⇥␣␍⟨⟩…□")


@dataclass(frozen=True)
class Chip:
    """A token.

    Attributes:
        text: Plain text on one line, still to be escaped.
        ground: Its colour; None if the token does not count.
        numbers: All its numbers, one a line.
    """

    text: str
    ground: Rgb | None
    numbers: str = ""


@dataclass(frozen=True)
class Strip:
    """The tokens of a prompt or of a completion, with a label such as "chosen"."""

    label: str
    chips: Sequence[Chip]


@dataclass(frozen=True)
class StripGroup:
    """Strips that belong together, such as those of a pair."""

    title: str
    strips: Sequence[Strip]


@dataclass(frozen=True)
class TokenStrips:
    """Tokens to be shown.

    Attributes:
        caption: What the colours mean.
        scale: From numbers to colours, for the legend.
        note: What is left out; empty if nothing is.
    """

    caption: str
    scale: ColourScale
    groups: Sequence[StripGroup]
    note: str = ""


def strips_html(tokens: TokenStrips) -> str:
    """Return one ``<div>``; every text is escaped, the numbers of a token are in its title."""
    muted = f"color:{MUTED}"
    parts = [f'<div class="mint-lab-tokens" style="font:13px/1.9 system-ui,sans-serif;color:{INK}">']
    parts.append(f'<div style="{muted}">{html.escape(tokens.caption)}</div>')
    for group in tokens.groups:
        parts.append(f'<div style="margin-top:8px"><b>{html.escape(group.title)}</b></div>')
        for strip in group.strips:
            label = f'<span style="{muted}">{html.escape(strip.label)}</span> ' if strip.label else ""
            parts.append(f"<div>{label}{''.join(map(_span, strip.chips))}</div>")
    parts.append(f'<div style="{muted}">{html.escape(tokens.note)}</div></div>' if tokens.note else "</div>")
    return "".join(parts)


def _span(chip: Chip) -> str:
    look = f"color:{MUTED}" if chip.ground is None else f"color:{INK};background:{hexadecimal(chip.ground)}"
    return (
        f'<bdi title="{html.escape(chip.numbers)}" style="{look};white-space:pre-wrap;margin-right:1px;'
        f'padding:1px 0;font-family:monospace">{html.escape(chip.text)}</bdi>'
    )


@drawing
def strips_picture(tokens: TokenStrips) -> bytes:
    """Return a PNG, 1620 pixels wide."""
    layout = StripLayout(tokens)
    sheet = Sheet(layout.height)
    layout.draw(sheet, 0)
    return sheet.png()


class StripLayout:
    """Tokens divided into the lines of a picture.

    Attributes:
        height: Height of all lines, in units.
    """

    def __init__(self, tokens: TokenStrips) -> None:
        self._tokens = tokens
        self._cell = Sheet(LINE).width_of("0" * 100, SIZE, mono=True) / 100
        self._rows = list(_rows(tokens, int((WIDTH - 12 - LEFT) / self._cell)))
        self.height = self._rows[-1].y + 26 if self._rows else 40

    def draw(self, sheet: Sheet, top: float) -> None:
        """Draw all lines from ``top`` on."""
        room = WIDTH - 2 * 80 - LEGEND_WIDTH
        sheet.text(12, top + 10, self._tokens.caption, colour=MUTED, size=12, limit=room)
        _draw_legend(sheet, self._tokens.scale, top)
        for row in self._rows:
            colour, size = (INK, 13) if row.is_title else (MUTED, 11)
            limit = LEFT - 16 if row.chips else WIDTH - 24
            sheet.text(12, top + row.y, row.label, colour=colour, size=size, limit=limit)
            _draw_chips(sheet, row, top + row.y, self._cell)


@dataclass(frozen=True)
class _Row:
    """A line of the picture: a label, and chips with the cell in which each begins; a cell is as wide as a letter."""

    y: float
    label: str
    chips: Sequence[tuple[int, Chip]] = ()
    is_title: bool = False


def _rows(tokens: TokenStrips, cells: int) -> Iterator[_Row]:
    y = 8.0
    for group in tokens.groups:
        y += 32
        yield _Row(y, group.title, is_title=True)
        for strip in group.strips:
            y += 4
            label, line, at = strip.label, [], 0
            for chip in strip.chips:
                if at + len(chip.text) > cells and line:
                    y += LINE
                    yield _Row(y, label, line)
                    label, line, at = "", [], 0
                line.append((at, chip))
                at += len(chip.text)
            y += LINE
            yield _Row(y, label, line)
    if tokens.note:
        yield _Row(y + 30, tokens.note)


def _draw_chips(sheet: Sheet, row: _Row, y: float, cell: float) -> None:
    """Grounds first, then the letters of the whole line: one text is faster than a hundred."""
    places = [(LEFT + at * cell, chip, drawable(chip.text, mono=True)) for at, chip in row.chips]
    sheet.boxes(
        [
            (Box(x, y - 2, max(len(text) * cell - 1, 1), 18), hexadecimal(chip.ground))
            for x, chip, text in places
            if chip.ground is not None
        ]
    )
    for colour, counts in ((INK, True), (MUTED, False)):
        chosen = [(x, text) for x, chip, text in places if (chip.ground is not None) is counts]
        if all(_is_plain(text) for _, text in chosen):
            line = ""
            for x, text in chosen:
                line = line.ljust(round((x - LEFT) / cell)) + text
            chosen = [(LEFT, line)]
        for x, text in chosen:
            if text.strip():
                sheet.text(x, y, text, colour=colour, size=SIZE, mono=True)


def _is_plain(text: str) -> bool:
    """Return True if every character takes one cell, from left to right; joined or Arabic letters may not."""
    return all(ord(sign) < 0x250 or sign in _PLAIN for sign in text)


def _draw_legend(sheet: Sheet, scale: ColourScale, top: float) -> None:
    """The colour scale with the numbers at its ends, at the upper right."""
    left, step = WIDTH - 80 - LEGEND_WIDTH, LEGEND_WIDTH / LEGEND_STEPS
    grounds = [scale.ground(scale.value_at((i + 0.5) / LEGEND_STEPS)) for i in range(LEGEND_STEPS)]
    sheet.boxes(
        [(Box(left + i * step, top + 10, step, 12), hexadecimal(ground)) for i, ground in enumerate(grounds) if ground]
    )
    for x, value, anchor in ((left - 6, scale.low, "rm"), (left + LEGEND_WIDTH + 6, scale.high, "lm")):
        sheet.text(x, top + 16, f"{value:.3g}", colour=MUTED, size=12, anchor=anchor)
