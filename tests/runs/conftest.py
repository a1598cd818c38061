"""Runs over the bigram trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mint_lab.recipes.record import StepRecord
from mint_lab.runs.run import Run

from ..waiting import TIMEOUT, Gate
from .bigram import BigramClient, letter_pairs

__all__ = ["TIMEOUT", "finish", "in_state", "timeless"]


@pytest.fixture
def make_run(tmp_path: Path) -> Iterator[Callable[..., Run]]:
    """``make_run(**options)``: a run of 12 steps on 40 letter pairs; stopped when the test ends."""
    made: list[Run] = []

    def make(*args: Any, **options: Any) -> Run:
        options = {
            "client": BigramClient(),
            "data": letter_pairs(40),
            "held_out": letter_pairs(10),
            "steps": 12,
            "batch_size": 4,
            "learning_rate": 0.05,
            "eval_every": 5,
            "folder": tmp_path / f"run{len(made)}",
        } | options
        made.append(Run(*args, **options))
        return made[-1]

    yield make
    for run in made:
        gate = getattr(run.client, "gate", None)
        run.stop()
        if gate is not None:
            gate.open(1000)
        assert run.wait(TIMEOUT, check=False)


def finish(run: Run) -> Run:
    """Run to the end; the run must not fail."""
    assert run.start().wait(TIMEOUT)
    return run


def timeless(record: StepRecord) -> StepRecord:
    """A record without what the clock says."""
    metrics = {k: v for k, v in record.metrics.items() if k not in ("tokens_per_s", "sampling_time")}
    return replace(record, time=0.0, step_time=0.0, metrics=metrics)


def in_state(make_run: Callable[..., Run], state: str) -> Run:
    """A run of four steps with that status; a running one waits inside step 1, behind a gate."""
    run = make_run(steps=4, client=BigramClient(gate=Gate() if state == "running" else None))
    if state == "running":
        run.start()
        run.client.gate.wait()
    elif state == "paused":
        assert run.step().wait(TIMEOUT)
    elif state == "stopped":
        assert run.step().wait(TIMEOUT)
        run.stop()
    elif state == "finished":
        finish(run)
    assert run.status == state
    return run
