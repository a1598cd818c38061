"""The history of results has a fixed size, keeps the beginning, and starts again with another key."""

from __future__ import annotations

import itertools
from typing import Any

from mint_lab.recipes.base import Recipe
from mint_lab.recipes.record import StepRecord
from mint_lab.runs.trend_history import FIRST, SAMPLED, TrendHistory


class _Games(Recipe):
    """Every third step has a result; results under one rule compare."""

    name = "games"
    default_loss = "cross_entropy"

    def prepare(self, tokenizer: Any, data: Any, held_out: Any, *, seed: int, max_length: int | None = None) -> Any: ...

    def trend_key(self, record: StepRecord) -> float | None:
        return record.settings["rule"] if record.step % 3 == 0 else None


def history(*rules: tuple[float, int], last: int = 50) -> TrendHistory:
    """Steps under each rule, in order."""
    trend, step = TrendHistory(_Games(), last), 0
    for rule, count in rules:
        for _ in range(count):
            step += 1
            trend.add(StepRecord(step, 0.0, 0.0, 1, "mine", 1, settings={"rule": rule}))
    return trend


def steps(trend: TrendHistory, before: int = 10**9) -> list[int]:
    return [record.step for record in trend.before(before)]


def test_short_run_is_kept_whole() -> None:
    assert steps(history((1.0, 30))) == list(range(3, 31, 3))
    assert steps(history((1.0, 30)), before=10) == [3, 6, 9]


def test_long_run_keeps_its_beginning_its_end_and_an_even_sample() -> None:
    kept = steps(history((1.0, 30_000)))
    assert kept[:FIRST] == list(range(3, 3 * FIRST + 1, 3))
    assert kept[-50:] == list(range(30_000 - 49 * 3, 30_001, 3))
    middle = kept[FIRST:-50]
    assert SAMPLED / 2 <= len(middle) <= SAMPLED
    gaps = {b - a for a, b in itertools.pairwise(middle)}
    assert len(gaps) == 1, "the same distance everywhere"
    assert middle[0] - kept[FIRST - 1] <= gaps.pop()


def test_another_key_starts_again() -> None:
    assert steps(history((1.0, 300), (2.0, 9))) == [303, 306, 309]
    assert steps(history((1.0, 300), (2.0, 9), (1.0, 3))) == [312], "the key of before is a new comparison too"


def test_records_without_a_recipe_have_no_results() -> None:
    trend = TrendHistory(None, 50)
    trend.add(StepRecord(3, 0.0, 0.0, 1, "mine", 1))
    assert steps(trend) == []
