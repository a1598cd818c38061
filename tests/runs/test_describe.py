"""What run.json says of a run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from mint_lab.data.pairs import arithmetic_pairs
from mint_lab.runs import Run
from mint_lab.runs.describe import describe_run, score
from mint_lab.runs.loading import DataLimits


def test_a_run_is_described_before_it_is_loaded() -> None:
    run = Run("preference", "dpo", steps=9, rank=4, seed=3, loss_config={"beta": 0.3}, learning_rate=2e-4, name="mine")
    info = describe_run(run, (Path("rows.jsonl"), arithmetic_pairs(4)), DataLimits(max_length=64), keep_snapshots=5)
    assert (info.name, info.recipe, info.loss, info.loss_version) == ("mine", "preference", "dpo", 1)
    assert (info.steps, info.steps_done, info.status, info.error) == (9, 0, "ready", None)
    assert (info.rank, info.lora["rank"], info.seed, info.keep_snapshots) == (4, 4, 3, 5)
    assert (info.settings["beta"], info.settings["learning_rate"]) == (0.3, 2e-4)
    assert info.data == {"train": "rows.jsonl", "held_out": None, "in_memory": ["held_out"]}
    assert info.limits == {"max_length": 64, "max_rows": None, "on_bad_row": "raise"}
    assert (info.data_sizes, info.baseline, info.parent) == (None, {}, {})


@pytest.mark.parametrize(
    ("held_out", "expected"),
    [
        ({"loss": 2.0, "pair_accuracy": 0.75}, 0.75),  # the first headline decides
        ({"loss": 2.0}, -2.0),  # a lower loss is better
        ({"nll": 0.5}, -0.5),
        ({"other": 1.0}, None),
        ({}, None),
    ],
)
def test_score(held_out: dict[str, float], expected: Any) -> None:
    assert score(("pair_accuracy", "loss", "nll"), held_out) == expected


def test_a_score_that_is_not_a_number_stays_one() -> None:
    assert math.isnan(score(("loss",), {"loss": math.nan}) or 0.0)
