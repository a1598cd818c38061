"""A few runs are killed and continued; ``make faults`` does it a hundred times."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from .harness import contents, differences, kill_and_continue, run_to_end
from .jobs import JOBS

STEPS = 10


@pytest.mark.slow
@pytest.mark.parametrize(("job", "kills"), [("preference", 1), ("sft", 1), ("rl", 2), ("custom", 2)])
def test_a_killed_run_continues_as_if_nothing_had_happened(job: str, kills: int, tmp_path: Path) -> None:
    run_to_end(job, tmp_path / "reference", STEPS)
    reference = contents(tmp_path / "reference")
    for number in range(kills):
        outcome = kill_and_continue(job, tmp_path / str(number), reference, STEPS, random.Random(number))
        assert outcome.differences == [], f"killed after record {outcome.killed_after}"


def test_differences_are_named() -> None:
    assert set(JOBS) == {"preference", "sft", "rl", "custom"}
    assert differences({"a": 1, "b": 2}, {"a": 1, "b": 3, "c": 4}) == ["b: 2 is not 3", "c: None is not 4"]
