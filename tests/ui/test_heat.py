"""Heat maps: shares, merging, bounded size, and the same rule as in the page."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.ui.heat import MAX_COLUMNS, Heat, HeatHistory
from mint_lab.ui.messages import Histogram

TWIN = Path(__file__).parents[2] / "widgets" / "tests" / "heat_twin.json"
COUNTS = st.lists(st.lists(st.integers(0, 50), min_size=3, max_size=3), max_size=120)


def histogram(step: int, counts: list[int], source: str = "training", name: str = "margin") -> Histogram:
    return Histogram(name=name, step=step, source=source, start=-1.5, width=1.0, counts=counts, clip=None)


def heat_of(all_counts: list[list[int]], capacity: int = MAX_COLUMNS) -> Heat:
    heat = Heat(histogram(1, all_counts[0] if all_counts else [0, 0, 0]), capacity)
    for step, counts in enumerate(all_counts, 1):
        heat.add(step, counts)
    return heat


def test_column_has_the_shares_of_one_histogram_until_it_is_full() -> None:
    heat = heat_of([[1, 1, 2], [0, 0, 8]], 4)
    assert (heat.start, heat.bin, heat.bins, heat.width) == (-1.5, 1.0, 3, 1)
    assert heat.steps == [1, 2]
    assert heat.columns == [[0.25, 0.25, 0.5], [0, 0, 1]]


def test_neighbours_merge_and_every_histogram_has_the_same_weight() -> None:
    # 4 values and 8 values weigh the same: ([1, 0, 0] + [0, 1, 0]) / 2. The fifth starts a column, the sixth joins it.
    heat = heat_of([[4, 0, 0], [0, 8, 0], [0, 0, 1], [0, 0, 9], [2, 0, 0], [0, 2, 0]], 4)
    assert heat.width == 2
    assert heat.steps == [2, 4, 6]
    assert heat.columns == [[0.5, 0.5, 0], [0, 0, 1], [0.5, 0.5, 0]]
    assert heat.points == 6


def test_empty_histogram_is_left_out() -> None:
    heat = heat_of([[0, 0, 0], [1, 0, 1], [0, 0, 0]], 4)
    assert (heat.points, heat.steps) == (1, [2])


@given(COUNTS, st.sampled_from([2, 4, 8]))
def test_column_is_the_mean_of_its_histograms(all_counts: list[list[int]], capacity: int) -> None:
    heat = heat_of(all_counts, capacity)
    kept = [(step, [c / sum(counts) for c in counts]) for step, counts in enumerate(all_counts, 1) if sum(counts)]
    assert heat.points == len(kept)
    assert len(heat.steps) == len(heat.columns) <= capacity
    for i, column in enumerate(heat.columns):
        inside = kept[i * heat.width : (i + 1) * heat.width]
        assert heat.steps[i] == inside[-1][0]
        means = [sum(shares[b] for _, shares in inside) / len(inside) for b in range(3)]
        assert column == pytest.approx(means, abs=1e-12)


def test_size_does_not_depend_on_the_length_of_the_run() -> None:
    sizes = set()
    for length in (2 * MAX_COLUMNS, 8 * MAX_COLUMNS, 32 * MAX_COLUMNS):
        data = heat_of([[1, step % 7, 3] for step in range(length)]).to_data()
        sizes.add(len(data["steps"]) + len(data["values"]))
    assert sizes == {MAX_COLUMNS * (8 + 3 * 4)}


def test_data_are_little_endian_column_by_column() -> None:
    data = heat_of([[1, 1, 2], [0, 0, 8]]).to_data()
    assert struct.unpack("<2d", data["steps"]) == (1, 2)
    assert struct.unpack("<6f", data["values"]) == (0.25, 0.25, 0.5, 0, 0, 1)
    assert (data["name"], data["bins"], data["width"], data["points"]) == ("margin", 3, 1, 2)


def test_held_out_histograms_replace_training_ones() -> None:
    history = HeatHistory()
    assert history.add(histogram(1, [1, 0, 0]))
    assert history.add(histogram(2, [0, 1, 0], "held-out"))
    assert not history.add(histogram(3, [0, 0, 1]))
    assert history.add(histogram(3, [1, 0, 0], name="another"))
    heat = history.heats["margin"]
    assert (heat.source, heat.steps, heat.columns) == ("held-out", [2], [[0, 1, 0]])
    assert [data["name"] for data in history.to_data()] == ["margin", "another"]


def twin_cases() -> list[dict[str, Any]]:
    """Return heat maps as the kernel computes them; the page's test computes them again."""
    rng = random.Random(2)
    cases: list[dict[str, Any]] = []
    for name, count, capacity in (("short", 3, 4), ("full", 4, 4), ("merged twice", 11, 4), ("long", 150, 8)):
        all_counts = [[rng.randrange(20) for _ in range(3)] for _ in range(count)]
        all_counts[1] = [0, 0, 0]
        heat = heat_of(all_counts, capacity)
        data: dict[str, Any] = dict(heat.to_data())
        data |= {"steps": list(data["steps"]), "values": list(data["values"])}
        expected = {"width": heat.width, "points": heat.points, "steps": heat.steps, "columns": heat.columns}
        cases.append({"name": name, "capacity": capacity, "counts": all_counts, "data": data, "heat": expected})
    return cases


def test_page_is_tested_against_the_current_rule() -> None:
    # If the rule changes on purpose, python -m tests.ui.test_heat writes the file again.
    assert json.loads(TWIN.read_text()) == json.loads(json.dumps(twin_cases()))


if __name__ == "__main__":
    TWIN.write_text(json.dumps(twin_cases()) + "\n")
