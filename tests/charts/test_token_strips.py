"""Coloured tokens as HTML and as a picture: hostile text is text, and everything has its colour."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from mint_lab.charts.colour_scale import ColourScale, hexadecimal
from mint_lab.charts.palette import TOKENS
from mint_lab.charts.token_strips import Chip, Strip, StripGroup, TokenStrips, strips_html, strips_picture

from .runs import colours, count, image_of

HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "</div></script>",
    '"><b>',
    "$\\frac{1}{2}$",
    "&amp;",
    "你好",
    "👍🏽",
    "\x00",
]
SCALE = ColourScale("diverging", -2.0, 2.0)


def strips(*texts: str, value: float = 2.0, **fields: str) -> TokenStrips:
    chips = [Chip(text, SCALE.ground(value), f"token 7\ngradient {value:g}") for text in texts]
    group = StripGroup("<script>x</script>", [Strip("prompt", [Chip("What is 1 + 1?", None)]), Strip("chosen", chips)])
    return TokenStrips("coloured by <gradient>", SCALE, [group], **fields)


class Elements(HTMLParser):
    """What a browser would make of it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_hostile_tokens_are_text_in_the_page() -> None:
    elements = Elements(strips_html(strips(*HOSTILE)))
    assert {tag for tag, _ in elements.found} == {"div", "b", "span", "bdi"}
    assert {name for _, attributes in elements.found for name in attributes} == {"class", "style", "title"}
    shown = "".join(elements.texts)
    for text in (*HOSTILE[:-1], "<script>x</script>", "coloured by <gradient>"):
        assert text in shown


def test_the_page_has_colours_and_numbers() -> None:
    text = strips_html(strips("a", note="3 more"))
    assert f"background:{hexadecimal(TOKENS['light']['above'])}" in text
    assert 'title="token 7\ngradient 2"' in text
    assert "3 more" in text
    assert not re.search(r"background:[^;]*;[^>]*>What", text)  # what does not count has no ground


def test_any_token_can_be_drawn() -> None:
    image = image_of(strips_picture(strips(*HOSTILE, "e\u0301", "\u202e", "שלום", "مرحبا", "x" * 500)))
    assert image.width == 1620
    assert image.height < 500


@pytest.mark.parametrize(("value", "end"), [(2.0, "above"), (-2.0, "below")])
def test_the_picture_has_the_colour_of_the_number(value: float, end: str) -> None:
    seen = colours(image_of(strips_picture(strips(" tokens", " of", " text", value=value))))
    assert count(seen, hexadecimal(TOKENS["light"][end])) > 1500


def test_long_lines_continue_below() -> None:
    short, long = (image_of(strips_picture(strips(*[" word"] * n))) for n in (3, 300))
    assert long.height > short.height + 200


def test_nothing_to_show_is_a_caption() -> None:
    assert image_of(strips_picture(TokenStrips("nothing", SCALE, []))).height < 100
