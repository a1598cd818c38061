"""Coloured tokens for readers without a kernel: HTML without a script or a style sheet, and a PNG where colours are
stripped from HTML (GitHub).

Both are stored in the notebook, so they show the beginning of the first sequences only, and say so.
"""

from __future__ import annotations

import functools
import html
import io
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .colours import INK, WHITE, background, hexadecimal
from .protocol import TokenColumn, TokenRow, Tokens
from .token_text import visible

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["html_of", "picture_of"]

ITEMS, TOKENS, TEXT = 6, 100, 32  # items, tokens a line, and characters a token that are shown
WIDTH = 1080
_SCALE = 2  # drawn this much larger, then reduced
_MUTED = (92, 102, 112)


@dataclass(frozen=True)
class _Chip:
    text: str
    colour: tuple[int, int, int] | None  # None on what does not count
    numbers: str


@dataclass(frozen=True)
class _Line:
    """One line of an item: its label, and the chips of the prompt or of a completion."""

    label: str
    chips: list[_Chip]


def html_of(tokens: Tokens) -> str:
    """One ``<div>``; every text is escaped, every number is in a title."""
    parts = [f'<div class="mint-lab-tokens" style="font:13px/1.9 system-ui,sans-serif;color:{hexadecimal(INK)}">']
    muted = f"color:{hexadecimal(_MUTED)}"
    parts.append(f'<div style="{muted}">{html.escape(_caption(tokens))}</div>')
    for title, lines in _items(tokens):
        parts.append(f'<div style="margin-top:8px"><b>{html.escape(visible(title))}</b></div>')
        for line in lines:
            label = f'<span style="{muted}">{html.escape(line.label)}</span> ' if line.label else ""
            parts.append(f"<div>{label}{''.join(map(_span, line.chips))}</div>")
    rest = _left_out(tokens)
    parts.append(f'<div style="{muted}">{html.escape(rest)}</div></div>' if rest else "</div>")
    return "".join(parts)


def _span(chip: _Chip) -> str:
    look = f"color:{hexadecimal(_MUTED)}"
    if chip.colour is not None:
        look = f"color:{hexadecimal(INK)};background:{hexadecimal(chip.colour)}"
    return (
        f'<bdi title="{html.escape(chip.numbers)}" style="{look};white-space:pre-wrap;margin-right:1px;'
        f'padding:1px 0;font-family:monospace">{html.escape(chip.text)}</bdi>'
    )


def picture_of(tokens: Tokens) -> bytes:
    """PNG."""
    lines = [*_layout(tokens)]
    height = max(y for _, y, *_ in lines) + 26
    canvas = Image.new("RGB", (WIDTH * _SCALE, height * _SCALE), WHITE)
    draw = ImageDraw.Draw(canvas)
    for x, y, text, ink, colour, width in lines:
        if colour is not None:
            draw.rectangle([v * _SCALE for v in (x, y - 2, x + width, y + 17)], colour)
        draw.text((x * _SCALE, y * _SCALE), text, ink, _font())
    _legend(draw, next(c for c in tokens["columns"] if c["name"] == tokens["by"]))
    file = io.BytesIO()
    small = canvas.resize((canvas.width * 3 // 4, canvas.height * 3 // 4), Image.Resampling.LANCZOS)
    small.quantize(256).save(file, "PNG", optimize=True)
    return file.getvalue()


@functools.cache
def _font(size: int = 13) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size * _SCALE)


def _legend(draw: ImageDraw.ImageDraw, column: TokenColumn) -> None:
    """The colour scale with the numbers at its ends, at the upper right."""
    left, right = WIDTH - 250, WIDTH - 80
    for x in range(left, right):
        share = (x - left) / (right - left)
        value = column["low"] + share * (column["high"] - column["low"])
        if column["scale"] == "ratio":
            value = column["low"] * (column["high"] / column["low"]) ** share
        colour = background(value, column) or WHITE
        draw.rectangle([v * _SCALE for v in (x, 10, x + 1, 22)], colour)
    for x, value, anchor in ((left - 6, column["low"], "ra"), (right + 6, column["high"], "la")):
        draw.text((x * _SCALE, 8 * _SCALE), f"{value:.3g}", _MUTED, _font(12), anchor)


def _layout(
    tokens: Tokens,
) -> Iterator[tuple[float, int, str, tuple[int, int, int], tuple[int, int, int] | None, float]]:
    """Everything to write: x, y, text, ink, ground, width; long lines are broken between tokens."""
    y = 8
    yield 12, y, _caption(tokens), _MUTED, None, 0
    for title, lines in _items(tokens):
        y += 32
        yield 12, y, _drawable(visible(title[:120])), INK, None, 0
        for line in lines:
            y += 26
            yield 12, y, line.label, _MUTED, None, 0
            x = 90.0
            for chip in line.chips:
                text = _drawable(chip.text)
                width = _font().getlength(text) / _SCALE + 4
                if x + width > WIDTH - 12 and x > 90:
                    x, y = 90.0, y + 22
                yield x + 2 if chip.colour is None else x, y, text, INK if chip.colour else _MUTED, chip.colour, width
                x += width + 1
    if _left_out(tokens):
        yield 12, y + 30, _left_out(tokens), _MUTED, None, 0


def _drawable(text: str) -> str:
    """The font that comes with Pillow knows Latin letters."""
    known = text.replace("↵", "\\n").replace("⇥", "\\t").replace("␣", " ").replace("⟨", "<").replace("⟩", ">")
    return "".join(sign if ord(sign) < 0x250 else "?" for sign in known)


def _caption(tokens: Tokens) -> str:
    column = next(c for c in tokens["columns"] if c["name"] == tokens["by"])
    parts = [f"coloured by {column['name']}", column["unit"], column["note"], tokens["about"]]
    return " · ".join(part for part in parts if part)


def _left_out(tokens: Tokens) -> str:
    items = len({row["item"] for row in tokens["rows"]})
    return f"{items - ITEMS} more in a running notebook" if items > ITEMS else ""


def _items(tokens: Tokens) -> Iterator[tuple[str, list[_Line]]]:
    """The first items: title and lines, the shared prompt once."""
    table = _Table(tokens)
    for item, rows in groupby(tokens["rows"], key=lambda row: row["item"]):
        if item >= ITEMS:
            return
        members = list(rows)
        lines = [_Line("prompt", table.chips(members[0], 0, members[0]["shared"]))] if members[0]["shared"] else []
        lines += [_Line(row["role"], table.chips(row, row["shared"], row["length"])) for row in members]
        yield members[0]["title"], lines


class _Table:
    """The buffers of a message as arrays."""

    def __init__(self, tokens: Tokens) -> None:
        self._columns = tokens["columns"]
        self._by = next(i for i, c in enumerate(self._columns) if c["name"] == tokens["by"])
        self._texts = [visible(text) for text in tokens["texts"]]
        self._ids = np.frombuffer(tokens["ids"], dtype="<i4")
        self._pieces = np.frombuffer(tokens["pieces"], dtype="<i4")
        self._values = np.frombuffer(tokens["values"], dtype="<f4").reshape(len(self._columns), -1)
        weight = [i for i, c in enumerate(self._columns) if c["name"] == "weight"]
        self._weights: NDArray[np.float32] | None = self._values[weight[0]] if weight else None

    def chips(self, row: TokenRow, first: int, end: int) -> list[_Chip]:
        """Tokens ``first`` to ``end - 1`` of a row; of many, the last of a prompt and the first of a completion."""
        places = range(row["start"] + first, row["start"] + end)
        left_out = max(len(places) - TOKENS, 0)
        shown = places[left_out:] if first == 0 and row["shared"] else places[: len(places) - left_out]
        chips = [self._chip(place) for place in shown]
        gap = [_Chip(f"… {left_out} more …", None, "")] if left_out else []
        return gap + chips if first == 0 and row["shared"] else chips + gap

    def _chip(self, place: int) -> _Chip:
        text = self._texts[self._pieces[place]]
        short = text if len(text) <= TEXT else text[:TEXT] + "…"
        column, value = self._columns[self._by], float(self._values[self._by, place])
        # Numbers about a token that does not count are no part of the loss, but a gradient there is news.
        counts = self._weights is None or np.nan_to_num(self._weights[place]) != 0
        colour = background(value, column) if counts or (column["name"] == "gradient" and value != 0) else None
        numbers = [f"token {self._ids[place]}"]
        numbers += [
            f"{c['name']} {self._values[i, place]:.4g}"
            for i, c in enumerate(self._columns)
            if np.isfinite(self._values[i, place])
        ]
        return _Chip(short, colour, "\n".join(numbers))
