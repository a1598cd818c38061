"""Schedules of the learning rate: which share of it a step uses after the warm-up.

The formulas are those of ``get_constant_schedule_with_warmup``, ``get_linear_schedule_with_warmup`` and
``get_cosine_schedule_with_warmup`` of transformers, which count completed steps. Here a step is counted when it uses
its rate: step ``n`` uses what the scheduler of transformers has after ``n`` steps. So the first step of a warm-up has a
rate above 0, and the last step of a schedule that decays has the rate 0.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

__all__ = ["SCHEDULES"]


def _constant(number: int, warmup_steps: int, steps: int) -> float:
    return 1.0


def _linear(number: int, warmup_steps: int, steps: int) -> float:
    return max(0.0, (steps - number) / max(1, steps - warmup_steps))


def _cosine(number: int, warmup_steps: int, steps: int) -> float:
    progress = (number - warmup_steps) / max(1, steps - warmup_steps)
    return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))


SCHEDULES: Mapping[str, Callable[[int, int, int], float]] = {
    "constant": _constant,
    "linear": _linear,
    "cosine": _cosine,
}
"""``share(number, warmup_steps, steps)`` by name, for a step ``number``, from 1, that is past the warm-up."""
