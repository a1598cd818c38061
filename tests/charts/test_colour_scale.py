"""Colours of numbers: the same on the page and in pictures, and text on them can be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mint_lab.charts.colour_scale import INK, WHITE, ColourScale, blend, hexadecimal
from mint_lab.charts.palette import TOKENS

TWIN = Path(__file__).parents[2] / "widgets" / "tests" / "colour_twin.json"
LIGHT = TOKENS["light"]


def test_the_page_has_the_same_colours() -> None:
    """The same file is read by the page's own tests."""
    for entry in json.loads(TWIN.read_text()):
        scale = ColourScale(entry["scale"], entry["low"], entry["high"])
        assert list(scale.ground(entry["value"]) or ()) == entry["colour"]


@pytest.mark.parametrize("kind", ["diverging", "ratio", "sequential"])
def test_colours_follow_the_numbers_and_text_on_them_can_be_read(kind: Any) -> None:
    low, high = {"diverging": (-2.0, 2.0), "ratio": (0.25, 4.0), "sequential": (-8.0, 0.0)}[kind]
    scale = ColourScale(kind, low, high)
    assert scale.ground(1.0 if kind == "ratio" else 0.0) == WHITE
    assert scale.place(float("nan")) is None
    assert scale.ground(float("nan")) is None
    if kind != "sequential":
        assert (scale.ground(high), scale.ground(low)) == (LIGHT["above"], LIGHT["below"])
        assert scale.place(high * 100) == 1
    assert [scale.value_at(across) for across in (0, 1)] == pytest.approx([low, high])
    for value in np.linspace(low, high, 41):
        ground = scale.ground(float(value))
        assert ground is not None
        assert contrast(ground, INK) >= 4.5


def contrast(one: tuple[int, ...], two: tuple[int, ...]) -> float:
    def luminance(colour: tuple[int, ...]) -> float:
        parts = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    light, dark = sorted((luminance(one), luminance(two)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_blends_by_hand() -> None:
    assert blend("#000000", 0.2) == hexadecimal((204, 204, 204))  # 0.8 * 255
    assert blend("#0072b2", 1.0) == "#0072b2"
    assert blend("#0072b2", 0.0) == hexadecimal(WHITE)
