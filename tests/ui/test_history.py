"""Curves in buckets: extent and mean survive merging, bounded size, and the same rule as in the page."""

from __future__ import annotations

import json
import math
import random
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.ui.history import MAX_BUCKETS, MAX_SERIES, History, Series, as_float32

TWIN = Path(__file__).parents[2] / "widgets" / "tests" / "history_twin.json"
FLOATS = st.floats(allow_nan=True, allow_infinity=True, width=64)


def series_of(values: list[float], capacity: int = MAX_BUCKETS) -> Series:
    series = Series(capacity)
    for step, value in enumerate(values, 1):
        series.add(step, value)
    return series


def test_points_are_unchanged_until_the_buckets_are_full() -> None:
    series = series_of([3, 1, 2], 4)
    assert (series.width, list(series.steps), list(series.mean)) == (1, [1, 2, 3], [3, 1, 2])


def test_neighbours_merge_and_a_spike_stays_visible() -> None:
    # Four buckets hold 1 9 2 4; the fifth point halves them to (1, 9) and (2, 4), then starts a third.
    series = series_of([1, 9, 2, 4, 6], 4)
    assert series.width == 2
    assert list(series.steps) == [2, 4, 5]
    assert list(series.low) == [1, 2, 6]
    assert list(series.high) == [9, 4, 6]
    assert list(series.mean) == [5, 3, 6]


@given(st.lists(FLOATS, max_size=300), st.sampled_from([2, 4, 8, 16]))
def test_buckets_have_extent_and_mean_of_their_points(values: list[float], capacity: int) -> None:
    series = series_of(values, capacity)
    kept = [v for v in map(as_float32, values) if math.isfinite(v)]
    assert series.points == len(kept)
    assert len(series) <= capacity
    assert (len(series) - 1) * series.width < max(len(kept), 1) <= max(len(series), 1) * series.width
    for i in range(len(series)):
        bucket = kept[i * series.width : (i + 1) * series.width]
        assert series.low[i] == min(bucket)
        assert series.high[i] == max(bucket)
        spread = max(abs(v) for v in bucket)
        assert series.mean[i] == pytest.approx(math.fsum(v / len(bucket) for v in bucket), abs=1e-9 * spread + 1e-300)


def test_size_does_not_depend_on_the_length_of_the_run() -> None:
    sizes = set()
    for length in (2 * MAX_BUCKETS, 8 * MAX_BUCKETS, 32 * MAX_BUCKETS):
        data = series_of([math.sin(i) for i in range(length)]).to_data("loss")
        sizes.add(len(data["steps"]) + len(data["values"]))
    assert sizes == {MAX_BUCKETS * (8 + 3 * 4)}


def test_data_are_little_endian_columns() -> None:
    data = series_of([1, 9, 2, 4], 2).to_data("loss")
    assert struct.unpack("<2d", data["steps"]) == (2, 4)
    assert struct.unpack("<6f", data["values"]) == (1, 2, 9, 4, 5, 3)  # lowest, highest, mean
    assert (data["width"], data["points"]) == (2, 4)


def test_first_metrics_are_kept_if_a_loss_has_too_many() -> None:
    history = History()
    history.add(1, {f"m{i}": 1.0 for i in range(MAX_SERIES + 20)})
    assert list(history.series) == [f"m{i}" for i in range(MAX_SERIES)]


def twin_cases() -> list[dict[str, Any]]:
    """Return series as the kernel computes them; the page's test computes them again."""
    rng = random.Random(1)
    cases = []
    for name, count, capacity in (("short", 5, 8), ("full", 8, 8), ("merged twice", 21, 8), ("long", 700, 16)):
        points = [(step, round(rng.gauss(0, 3), 3)) for step in range(1, count + 1)]
        series = Series(capacity)
        for step, value in points:
            series.add(step, value)
        data: dict[str, Any] = dict(series.to_data("loss"))
        data |= {"steps": list(data["steps"]), "values": list(data["values"])}
        columns = {key: [*getattr(series, key)] for key in ("steps", "low", "high", "mean")}
        expected = {"width": series.width, "points": series.points, **columns}
        cases.append({"name": name, "capacity": capacity, "points": points, "data": data, "series": expected})
    return cases


def test_page_is_tested_against_the_current_rule() -> None:
    # If the rule changes on purpose, python -m tests.ui.test_history writes the file again.
    assert json.loads(TWIN.read_text()) == json.loads(json.dumps(twin_cases()))


if __name__ == "__main__":
    TWIN.write_text(json.dumps(twin_cases()) + "\n")


def test_every_point_of_every_column_is_kept_in_its_series() -> None:
    history = History(4)
    for step in range(1, 4):
        history.add(step, {"a": 10.0 * step, **({"b": -1.0} if step == 2 else {})})
    a, b = history.to_data()
    assert (a["name"], b["name"]) == ("a", "b")
    assert (struct.unpack("<3d", a["steps"]), struct.unpack("<3f", a["values"])) == ((1, 2, 3), (10, 20, 30))
    assert (struct.unpack("<1d", b["steps"]), struct.unpack("<1f", b["values"])) == ((2,), (-1,))
    for step in range(4, 6):
        history.add(step, {"a": 0.0})
    assert history.to_data()[0]["width"] == 2, "the capacity is that of the history"


def test_a_known_series_is_continued_when_there_are_as_many_as_possible() -> None:
    history = History()
    for step in (1, 2):
        history.add(step, {f"m{i}": 1.0 for i in range(MAX_SERIES + 1)})
    assert {series.points for series in history.series.values()} == {2}
    assert len(history.series) == MAX_SERIES == 48


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(1e39, math.inf), (-1e39, -math.inf), (0.1, 0.10000000149011612), (math.inf, math.inf), (-2.5, -2.5)],
)
def test_value_is_rounded_to_float32(value: float, rounded: float) -> None:
    assert as_float32(value) == rounded
