"""Axes have round ends and readable numbers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.charts.axes import extent, round_range, round_up, short, step_ticks, thinned, tick_labels, ticks_between

FINITE = st.floats(-1e9, 1e9)


@given(FINITE, FINITE)
def test_a_range_contains_its_values_and_ends_on_ticks(one: float, other: float) -> None:
    low, high, distance = round_range(min(one, other), max(one, other))
    assert low <= min(one, other)
    assert high >= max(one, other)
    assert high > low
    ticks = ticks_between(low, high, distance)
    assert 2 <= len(ticks) <= 7
    assert len(set(tick_labels(ticks))) == len(ticks)


def test_ranges_by_hand() -> None:
    assert round_range(0.0, 0.0) == (0.0, 1.0, 0.25)
    assert round_range(2.0, 2.0) == (0.5, 3.5, 0.5)  # half of it to one and a half of it, in steps of 0.5
    assert round_range(0.01, 1.03) == (0.0, 1.5, 0.5)  # no room below zero
    low, high, _ = round_range(1.0, 1.0 + 1e-9)  # rounding errors do not fill the axis
    assert high - low == pytest.approx(5e-4)


@pytest.mark.parametrize(("value", "up"), [(0.0, 1.0), (3.0, 5.0), (0.02, 0.02), (0.021, 0.025), (900.0, 1000.0)])
def test_round_up(value: float, up: float) -> None:
    assert round_up(value) == pytest.approx(up)


def test_steps_are_whole() -> None:
    assert step_ticks(1) == [0, 1]
    assert step_ticks(150) == [0, 50, 100, 150]
    assert all(tick == int(tick) for last in range(1, 300) for tick in step_ticks(last))


def test_tick_labels_have_the_digits_they_need() -> None:
    assert tick_labels([0.0, 0.5, 1.0]) == ["0.0", "0.5", "1.0"]
    assert tick_labels([0.9995, 1.0, 1.0005]) == ["0.9995", "1.0000", "1.0005"]
    assert tick_labels([0, 10000, 20000]) == ["0", "10,000", "20,000"]
    assert tick_labels([-5e-7, 0.0]) == ["-5.0e-7", "0"]
    assert tick_labels([-0.0]) == ["0"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.01698, "0.017"), (12.345, "12.35"), (6194.9, "6195"), (4.8e-13, "4.8e-13"), (2e6, "2.0e6")],
)
def test_short_numbers(value: float, text: str) -> None:
    assert short(value) == text


def test_numbers_that_are_none() -> None:
    assert short(math.nan) == "\N{EN DASH}"
    assert extent([[math.nan, 1.0], [math.inf, -2.0], []]) == (-2.0, 1.0)
    assert extent([[math.nan]]) == (0.0, 0.0)


def test_a_long_curve_is_averaged_and_loses_what_is_not_finite() -> None:
    assert thinned([1, 2, 3, 4, 5], [1.0, math.nan, 3.0, 5.0, 7.0], 2) == ([3.0, 5.0], [2.0, 6.0])
    assert thinned([1], [math.inf], 2) == ([], [])
    steps, values = thinned(range(50_000), [1.0] * 50_000, 1000)
    assert len(steps) == len(values) == 1000
