"""Bins cut at the limits of a clip, held to the page's own code by one table of cases."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mint_lab.ui.protocol import Bound, Clip, Histogram
from mint_lab.ui.ratios import clipped_share, limits_of, pieces, root_ticks

CASES = json.loads((Path(__file__).parents[2] / "widgets" / "tests" / "ratios_twin.json").read_text())


def histogram(counts: list[int]) -> Histogram:
    return Histogram(
        name="log_ratio/positive", step=3, source="training", start=-1.025, width=0.05, counts=counts, clip=None
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_page_and_picture_cut_the_same_bins(case: dict[str, Any]) -> None:
    cut = pieces(histogram(case["counts"]), case["total"], case["below"], case["above"])
    assert clipped_share(cut) == pytest.approx(case["clipped"], abs=1e-6)
    assert len(cut) == case["pieces"]
    assert sum(piece.part for piece in cut) == pytest.approx(100 * sum(case["counts"]) / case["total"])


def test_nothing_to_cut() -> None:
    assert pieces(None, 10, 0.8, 1.2) == []
    assert pieces(histogram([0] * 41), 0, 0.8, 1.2) == []


def test_limits_under_settings() -> None:
    low, high = Bound(setting="epsilon_low", base=1.0, slope=-1.0), Bound(setting="epsilon", base=1.0, slope=1.0)
    clip = Clip(low=low, high=high, both=False)
    assert limits_of(clip, {"epsilon_low": 0.25, "epsilon": 0.5, "beta": 1.0}) == (0.75, 1.5)
    assert limits_of(clip, {"epsilon": 0.5}) is None
    assert limits_of(None, {"epsilon": 0.5}) is None


@pytest.mark.parametrize(("top", "wanted"), [(100, [5, 20, 50, 100]), (50, [5, 20, 50]), (20, [1, 5, 20]), (5, [1, 5])])
def test_lines_of_the_root_axis(top: float, wanted: list[float]) -> None:
    assert root_ticks(top) == wanted
