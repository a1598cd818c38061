"""The HTML of an audit: everything in it, escaped, and the mark of the limit at its place."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from mint_lab.charts.audit_html import AuditHtml, AuditLine, LengthBars, audit_html

LINE = AuditLine("warning", "3 of 9 <rows> & more", "they have no gradient", "remove them")


class Balance(HTMLParser):
    """Counts open elements."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def draw(*lines: AuditLine, bars: LengthBars) -> str:
    return audit_html(AuditHtml("audit: <1>", "about", [("rows", "7")], lines, [bars], "<p>tokens</p>"))


def test_everything_is_there_and_escaped() -> None:
    html = draw(LINE, AuditLine("note", "a", "b", "c"), bars=LengthBars("tokens", 0, 10, [4, 0, 2], 25, 1024))
    parser = Balance()
    parser.feed(html)
    assert parser.open == []
    for text in ("audit: <1>", "about", "rows", "7", "3 of 9 <rows> & more", "→ remove them", "tokens", "25 tokens"):
        assert text in parser.text
    assert "limit 1,024" in parser.text
    assert html.count('aria-label="warning"') == html.count('aria-label="note"') == 1
    assert "dashed" not in html, "the limit is far beyond the bars"
    assert "<table" not in draw(bars=LengthBars("tokens", 0, 1, [1], 0))


def test_heights_are_proportional() -> None:
    """The highest bar has 64 pixels, one of half the count 32, an empty one none, and any other at least one."""
    html = draw(bars=LengthBars("tokens", 0, 1, [200, 100, 0, 1], 3))
    assert re.findall(r"height:(\d+)px;background", html) == ["64", "32", "0", "1"]


@pytest.mark.parametrize(
    ("limit", "place"), [(None, None), (29, 1.0), (14, 0.4), (30, None), (9, 0.2), (4, 0.0), (3, None), (100, None)]
)
def test_place_of_the_limit(limit: int | None, place: float | None) -> None:
    """Five bars of 5 lengths each, from 5 to 29 tokens; 14 ends the second one, and the mark stands after it."""
    bars = LengthBars("tokens", 5, 5, [1] * 5, 29, limit)
    assert bars.end == 30
    assert bars.limit_place == (None if place is None else pytest.approx(place))
