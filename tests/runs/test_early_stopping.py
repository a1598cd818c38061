"""Early stopping: which evaluations count, the step at which a run finishes, and what continues it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mint_lab.errors import ConfigError
from mint_lab.recipes.record import StepRecord
from mint_lab.runs import EarlyStopping, Run, load_run
from mint_lab.runs.early_stopping import Ending

from .bigram import BigramClient, letter_pairs
from .conftest import TIMEOUT
from .continued import close


def records(*values: float | None, metric: str = "pair_accuracy") -> list[StepRecord]:
    """One record per value; None for a step without an evaluation."""
    held_out = [{} if value is None else {metric: value, "loss": 1.0} for value in values]
    return [StepRecord(number, 0.0, 0.0, 1, "x", 1, held_out=each) for number, each in enumerate(held_out, 1)]


def ending(early: int | EarlyStopping | None, *headlines: str, keeps_snapshots: bool = True) -> Ending:
    return Ending(headlines or ("pair_accuracy", "loss"), EarlyStopping.of(early), keeps_snapshots=keeps_snapshots)


def last_step(found: Ending, given: list[StepRecord]) -> int | None:
    """The first step after which the run finishes."""
    return next((k for k in range(1, len(given) + 1) if found.note(given[:k])), None)


def test_the_run_finishes_after_as_many_evaluations_without_an_improvement() -> None:
    """Best at step 3; the evaluations at 5 and 6 are the two that improve nothing. An equal value improves nothing."""
    given = records(0.5, None, 0.9, None, 0.8, 0.9, 0.95)
    assert last_step(ending(2), given) == 6
    assert last_step(ending(3), given) is None
    assert last_step(ending(None), given) is None
    assert ending(2).note(given[:6]) == (
        "Early stopping after step 6: no improvement of held-out pair_accuracy in the last 2 evaluations. The best "
        "evaluation was after step 3; run.rewind(3) returns there, and run.set(steps=...) continues from here"
    )
    assert "no snapshots were kept" in ending(2, keeps_snapshots=False).note(given[:6])


def test_a_small_difference_is_no_improvement() -> None:
    """0.5, 0.55 and 0.6 differ by 0.1 in all: only the third improves by more than 0.06. The best is the highest."""
    given = records(0.5, 0.55, 0.6, 0.65, 0.64)
    assert last_step(ending(EarlyStopping(1, min_delta=0.06)), given) == 2
    assert last_step(ending(EarlyStopping(2, min_delta=0.06)), given) == 5
    assert "best evaluation was after step 4" in ending(EarlyStopping(2, min_delta=0.06)).note(given)


@pytest.mark.parametrize(("metric", "higher", "expected"), [("nll", None, 3), ("nll", True, 4), ("reward", None, 4)])
def test_the_direction_follows_from_the_metric(metric: str, higher: bool | None, expected: int) -> None:
    """Values 3, 2, 2.5, 1.5: falling is better for nll; as a reward, 3 stays the best."""
    given = records(3.0, 2.0, 2.5, 1.5, metric=metric)
    early = EarlyStopping(1 if expected == 3 else 3, metric=metric, higher_is_better=higher)
    assert last_step(ending(early, metric), given) == expected


@pytest.mark.parametrize(
    ("held_out", "expected"),
    [
        ({"loss": 2.0, "pair_accuracy": 0.75}, 0.75),  # the first headline decides
        ({"loss": 2.0}, -2.0),  # a lower loss is better
        ({"nll": 0.5}, -0.5),
        ({"other": 1.0}, None),
        ({}, None),
        ({"loss": float("nan")}, None),
    ],
)
def test_score(held_out: dict[str, float], expected: Any) -> None:
    assert ending(None, "pair_accuracy", "loss", "nll").score(held_out) == expected


def test_nan_improves_nothing_and_is_not_the_best() -> None:
    given = records(float("nan"), 0.5, float("nan"), float("nan"))
    assert last_step(ending(2), given) == 4
    assert "best evaluation was after step 2" in ending(2).note(given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (0, "early_stopping is 0, expected a whole number of evaluations from 1 up, or EarlyStopping"),
        (True, "early_stopping is True"),
        ("pair_accuracy", "early_stopping is 'pair_accuracy'"),
        (1.5, "early_stopping is 1.5"),
    ],
)
def test_what_is_no_patience(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Run("preference", early_stopping=given)


def test_settings_that_make_no_sense() -> None:
    for settings, message in (
        ({"min_delta": -1}, "min_delta is -1, expected a number from 0 up"),
        ({"min_delta": float("nan")}, "min_delta is nan"),
        ({"metric": ""}, "metric is '', expected the name of a held-out metric"),
        ({"higher_is_better": "no"}, "higher_is_better is 'no', expected True, False or None"),
    ):
        with pytest.raises(ConfigError, match=message):
            EarlyStopping(3, **settings)  # type: ignore[arg-type]


def make(folder: Path, **options: Any) -> Run:
    """A learning rate of 0: nothing improves after the first evaluation."""
    given: dict[str, Any] = {"steps": 40, "batch_size": 4, "eval_every": 2, "learning_rate": 0.0} | options
    client = None if options.pop("local", False) else BigramClient()
    given.pop("local", None)
    return Run("preference", client=client, data=letter_pairs(40), folder=folder, **given)


def test_a_run_finishes_and_can_be_continued(tmp_path: Path) -> None:
    """Best at step 2, finished at 6 with patience 2; continued, it finishes two evaluations later, at 10."""
    run = make(tmp_path / "run", early_stopping=2)
    assert run.start().wait(TIMEOUT)
    assert (run.status, run.steps_done) == ("finished", 6)
    assert run.notes[-1].startswith("Early stopping after step 6")
    assert run.notes[-1] in run.records[-1].warnings
    assert load_run(tmp_path / "run").info.status == "finished"
    run.set(learning_rate=0.0)
    assert run.status == "paused"
    assert run.start().wait(TIMEOUT)
    assert (run.status, run.steps_done) == ("finished", 10)


def test_the_last_step_ends_a_run_as_ever(tmp_path: Path) -> None:
    run = make(tmp_path / "run", steps=6, early_stopping=2)
    assert run.start().wait(TIMEOUT)
    assert not any("Early stopping" in note for note in [*run.notes, *run.records[-1].warnings])


def test_an_unknown_metric_is_refused_before_the_first_step(tmp_path: Path) -> None:
    run = make(tmp_path / "run", early_stopping=EarlyStopping(2, metric="acuracy"))
    run.start().wait(TIMEOUT, check=False)
    assert run.error is not None
    assert run.error.message.startswith("early_stopping needs the held-out metric 'acuracy'; this run evaluates ")
    assert run.records == []


def test_the_best_step_can_be_returned_to_and_the_state_survives(tmp_path: Path) -> None:
    """Opened before the end, the run finishes at the same step; opened after it, it is finished; the best is kept."""
    options: dict[str, Any] = {"local": True, "early_stopping": EarlyStopping(2, "loss"), "keep_snapshots": 1}
    run = make(tmp_path / "run", **options)
    run.step(5).wait(TIMEOUT)
    opened = Run.open(close(run), data=letter_pairs(40))
    assert opened.early_stopping == EarlyStopping(2, "loss")
    assert opened.start().wait(TIMEOUT)
    assert (opened.status, opened.steps_done) == ("finished", 6)
    again = Run.open(tmp_path / "run", data=letter_pairs(40))
    assert (again.status, again.steps_done) == ("finished", 6)
    assert again.notes[-1].startswith("Early stopping after step 6")
    assert (tmp_path / "run" / "snapshots" / "00000002").is_dir()
    assert opened.rewind(2).steps_done == 2
