"""Axis ranges, ticks and numbers as text: the twin of ``widgets/src/lib/scale.ts`` and ``format.ts``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

__all__ = ["extent", "round_range", "round_up", "short", "step_ticks", "thinned", "tick_labels", "ticks_between"]


def round_up(value: float) -> float:
    """Return a round number at or above ``value``: 1, 2, 2.5 or 5 times a power of ten."""
    if not value > 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(value))
    scaled = value / power
    return power * next(step for step in (1, 2, 2.5, 5, 10) if scaled <= step * (1 + 1e-9))


def round_range(low: float, high: float) -> tuple[float, float, float]:
    """Return a range with round ends around ``low..high``, and the distance of its ticks.

    Its ticks are those of a span of at least a thousandth of the values and at least a millionth: smaller variation is
    rounding error. The range around a single value reaches from half of it to one and a half of it, or from 0 to 1
    around 0.
    """
    half = 0.5 * abs(low) if low == high else 0.0
    low, high = low - half, high + half
    if not (math.isfinite(low) and math.isfinite(high)) or low == high == 0:
        return 0.0, 1.0, 0.25
    span = max(high - low, 1e-3 * max(abs(low), abs(high)), 1e-6)
    distance = round_up(span / 4)
    bottom = math.floor((low - 0.04 * span) / distance) * distance
    top = math.ceil((high + 0.04 * span) / distance) * distance
    # The axis of a nonnegative curve has no room below zero.
    return (max(bottom, 0.0) if low >= 0 else bottom), top, distance


def ticks_between(low: float, high: float, distance: float) -> list[float]:
    """Return the multiples of ``distance`` from ``low`` to ``high``; every second if there are more than six."""
    first, last = math.ceil(low / distance - 1e-9), math.floor(high / distance + 1e-9)
    stride = 1 if last - first <= 5 else 2
    return [number * distance for number in range(first + first % stride, last + 1, stride)]


def step_ticks(last: int) -> list[float]:
    """Return ticks of an axis of steps from 0 to ``last``."""
    distance = max(1.0, round_up(last / 5))
    return ticks_between(0, last, distance if distance.is_integer() else 2 * distance)


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Return the ticks with as many decimals as they need to differ."""
    distance = min((abs(b - a) for a, b in itertools.pairwise(ticks)), default=1.0) or 1.0
    size = max((abs(tick) for tick in ticks), default=0.0)
    if size >= 1e5 or (size > 0 and size < 1e-3):
        digits = max(0, math.floor(math.log10(size)) - math.floor(math.log10(distance) + 1e-9))
        return [
            "0" if tick == 0 else f"{tick:.{digits + 1}e}".replace("e+0", "e").replace("e-0", "e-") for tick in ticks
        ]
    decimals = 0
    while decimals < 9 and any(abs(round(tick, decimals) - tick) > 1e-3 * distance for tick in ticks):
        decimals += 1
    return [f"{tick + 0.0:,.{decimals}f}" for tick in ticks]


def short(value: float) -> str:
    """Return three significant digits in a nearly constant width."""
    if not math.isfinite(value):
        return "\N{EN DASH}"
    size = abs(value)
    if size == 0:
        return "0"
    if size >= 100_000 or size < 0.001:
        return _exponential(value, 1)
    decimals = 0 if size >= 1000 else 1 if size >= 100 else 2 if size >= 10 else 3
    return f"{value:.{decimals}f}"


def _exponential(value: float, digits: int) -> str:
    return f"{value:.{digits}e}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")


def extent(columns: Iterable[Sequence[float]]) -> tuple[float, float]:
    """Return the lowest and the highest finite value; 0 and 0 if there is none."""
    values = [value for column in columns for value in column if math.isfinite(value)]
    return (min(values), max(values)) if values else (0.0, 0.0)


def thinned(steps: Sequence[int], values: Sequence[float], most: int) -> tuple[list[float], list[float]]:
    """Return a curve without values that are not finite, in ``most`` points or fewer.

    Neighbours of a long curve are averaged: their last step, their mean value.
    """
    points = [(float(step), value) for step, value in zip(steps, values, strict=True) if math.isfinite(value)]
    width = -(-len(points) // most)
    buckets = [points[i : i + width] for i in range(0, len(points), width)] if points else []
    return [bucket[-1][0] for bucket in buckets], [sum(v for _, v in bucket) / len(bucket) for bucket in buckets]
