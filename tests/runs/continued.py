"""Runs that are continued, and what has to be the same afterwards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mint_lab.recipes.record import StepRecord
from mint_lab.runs import Run, load_run

from .conftest import TIMEOUT

OPTIMIZER: dict[str, Any] = {"schedule": "cosine", "weight_decay": 0.1, "betas": (0.8, 0.9), "adam_eps": 1e-8}
CASES: dict[str, dict[str, Any]] = {
    "dpo": {"recipe": "preference", "loss": "dpo", "warmup_steps": 3, **OPTIMIZER},
    "sft": {"recipe": "sft", "accumulate": 2, "schedule": "linear"},
    "rl": {
        **{"recipe": "rl", "loss": "ppo", "group_size": 3, "max_tokens": 4, "minibatches": 2, "delay": 2},
        **{"kl_to_base": True},
    },
}


def finish(run: Run) -> Run:
    run.start().wait(TIMEOUT)
    assert run.status == "finished"
    return run


def close(run: Run) -> Path:
    """End a paused run as the end of its process would; return its folder."""
    assert run._loop._store is not None
    run._loop._store.close()
    assert run.folder is not None
    return run.folder


def plain(records: list[StepRecord]) -> list[dict[str, Any]]:
    """Records without times."""
    found: list[dict[str, Any]] = []
    for record in records:
        entries = {name: value for name, value in record.entries().items() if name not in ("time", "step_time")}
        metrics = {k: v for k, v in record.metrics.items() if k not in ("tokens_per_s", "sampling_time")}
        found.append(entries | {"metrics": metrics})
    return found


def assert_same(run: Run, other: Run) -> None:
    assert plain(run.records) == plain(other.records)
    assert (run.edits, run.losses, run.baseline) == (other.edits, other.losses, other.baseline)
    ours, theirs = (each.client._adapter.copy() for each in (run, other))
    assert all(torch.equal(weight, theirs[name]) for name, weight in ours.items())
    assert plain(load_run(run.folder).records) == plain(load_run(other.folder).records)
