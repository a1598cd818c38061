"""Bins divided at the bounds of a clip, held to the page's own code by one table of cases."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mint_lab.charts.chart_spec import CHARTS
from mint_lab.charts.ratio_bins import clipped_share, halves_of, pieces, root_ticks
from mint_lab.charts.run_data import RatioLimits, RunData, run_data

from .runs import Record

CASES = json.loads((Path(__file__).parents[2] / "widgets" / "tests" / "ratios_twin.json").read_text())
CHART = CHARTS["log_ratio"]
BOUNDS = (-1.025, 1.025)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_page_and_picture_divide_the_same_bins(case: dict[str, Any]) -> None:
    divided = pieces(case["counts"], BOUNDS, case["total"], case["below"], case["above"])
    assert clipped_share(divided) == pytest.approx(case["clipped"], abs=1e-6)
    assert len(divided) == case["pieces"]
    assert sum(piece.part for piece in divided) == pytest.approx(100 * sum(case["counts"]) / case["total"])


def test_nothing_to_divide() -> None:
    assert pieces([], BOUNDS, 10, 0.8, 1.2) == []
    assert pieces([0] * 41, BOUNDS, 0, 0.8, 1.2) == []


def run(up: list[int], down: list[int], limits: RatioLimits | None = None) -> RunData:
    record = Record(3, histograms={"log_ratio/positive": up, "log_ratio/negative": down})
    return run_data("", [record], {}, (), limits)


def test_each_sign_is_clipped_on_its_own_side() -> None:
    """One token with A > 0 and r = 1, three with A < 0 and r about e, beyond 1.2."""
    up, down = [0] * 41, [0] * 41
    up[20], down[40] = 1, 3
    positive, negative = halves_of(CHART, run(up, down, RatioLimits(0.8, 1.2)))
    assert (positive.below, positive.above) == (None, 1.2)
    assert (negative.below, negative.above) == (0.8, None)
    assert positive.summary == ("A > 0, clipped", "≈ 0 %")
    assert negative.summary == ("A < 0, clipped", "≈ 0 %")  # above the upper bound, which acts on A > 0 only
    positive, negative = halves_of(CHART, run(up, down, RatioLimits(0.8, 1.2, both=True)))
    assert (negative.below, negative.above) == (0.8, 1.2)
    assert negative.summary == ("A < 0, clipped", "≈ 75 %")


def test_without_a_clip_the_legend_counts_the_tokens() -> None:
    up, down = [0] * 41, [0] * 41
    up[20], down[20] = 1, 3
    assert [half.summary for half in halves_of(CHART, run(up, down))] == [("A > 0", "25 %"), ("A < 0", "75 %")]


def test_a_sign_without_tokens_does_not_keep_those_of_an_earlier_step() -> None:
    some, none = [1] * 41, [0] * 41
    earlier = Record(2, histograms={"log_ratio/positive": some, "log_ratio/negative": some})
    later = Record(3, histograms={"log_ratio/positive": some, "log_ratio/negative": none})
    positive, negative = halves_of(CHART, run_data("", [earlier, later], {}))
    assert sum(piece.part for piece in positive.pieces) == pytest.approx(100)
    assert sum(piece.part for piece in negative.pieces) == 0


def test_no_tokens_no_halves() -> None:
    assert halves_of(CHART, run([0] * 41, [0] * 41)) == []
    assert halves_of(CHART, run_data("", [], {})) == []
    assert halves_of(replace(CHART, name="another"), run([], [])) == []


@pytest.mark.parametrize(("top", "wanted"), [(100, [5, 20, 50, 100]), (50, [5, 20, 50]), (20, [1, 5, 20]), (5, [1, 5])])
def test_lines_of_the_root_axis(top: float, wanted: list[float]) -> None:
    assert root_ticks(top) == wanted
