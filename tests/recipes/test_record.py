"""Records of steps: histograms with fixed edges, and plain data that pydantic checks only when it is asked to."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from mint_lab.recipes.record import HISTOGRAM_EDGES, Number, StepRecord, Text, Whole, histogram


def test_histogram_by_hand() -> None:
    """Bins of 1 nat from -20: -20.5 and -20 are in bin 0, -0.1 in bin 19, 0 and 0.9 in bin 20, 25 in the last."""
    counts = histogram([-20.5, -20.0, -0.1, 0.0, 0.9, 25.0, math.inf, math.nan], "margin")
    assert len(counts) == 40
    assert {place: count for place, count in enumerate(counts) if count} == {0: 2, 19: 1, 20: 2, 39: 2}
    assert histogram([], "margin") == [0] * 40


@pytest.mark.parametrize("name", HISTOGRAM_EDGES)
def test_edges_are_evenly_spaced_and_symmetric(name: str) -> None:
    edges = HISTOGRAM_EDGES[name]
    width = edges[1] - edges[0]
    assert all(b - a == pytest.approx(width, abs=1e-9) for a, b in itertools.pairwise(edges))
    assert [-edge for edge in reversed(edges)] == pytest.approx(list(edges), abs=1e-9)


@given(st.lists(st.floats()), st.sampled_from(sorted(HISTOGRAM_EDGES)))
def test_histogram_counts_every_number_once(values: list[float], name: str) -> None:
    counts = histogram(values, name)
    assert len(counts) == len(HISTOGRAM_EDGES[name]) - 1
    assert sum(counts) == sum(not math.isnan(value) for value in values)


def test_histogram_without_edges_is_an_error() -> None:
    with pytest.raises(KeyError):
        histogram([1.0], "reward")


def test_creating_a_record_checks_nothing() -> None:
    """The step is complete when its record is created: no metric may undo that."""
    odd: Any = {"loss": "a text", "list": [1]}
    assert StepRecord(1, 0.0, 0.0, 1, "mine", 1, metrics=odd).metrics is odd


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Number, [0, -1.5, "nan", "-inf", math.inf], ["1.5", True, None, [], 10**400]),
        (Whole, [0, -3, 2**63 - 1], [1.0, "1", True, None, 2**63]),
        (Text, ["", "a", "\ud83d"], [1, None, b"a"]),
    ],
)
def test_fields_are_checked_without_coercion(kind: Any, good: list[Any], bad: list[Any]) -> None:
    adapter = TypeAdapter(kind)
    for value in good:
        read = adapter.validate_python(value)
        expected = float(value) if kind is Number and isinstance(value, str) else value
        assert read == expected or (math.isnan(read) and math.isnan(expected))
        assert type(read) is type(expected)
    for value in bad:
        with pytest.raises(ValidationError):
            adapter.validate_python(value)
