"""What ``run.json`` says of a run, and what an evaluation of it comes to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .entries import RunInfo
from .loading import DEFAULT_RANK
from .reopen import describe_data
from .versions import versions

if TYPE_CHECKING:
    from .loading import DataLimits
    from .run_view import RunView

__all__ = ["describe_run", "score"]


def describe_run(run: RunView, given: tuple[Any, Any], limits: DataLimits, keep_snapshots: int | None) -> RunInfo:
    """Return everything about a run that is not about one step.

    Args:
        run: The run.
        given: Its data and held-out data, as given.
        limits: How much of them it uses.
        keep_snapshots: As given.
    """
    return RunInfo(
        name=run.name,
        recipe=run.recipe,
        base_model=run.base_model,
        loss=run.loss.name,
        loss_version=run.loss.version,
        settings=run.settings,
        schedule=run.plan.schedule,
        steps=run.steps_total,
        steps_done=run.steps_done,
        rank=run.lora.rank if run.lora else DEFAULT_RANK,
        lora=run.lora.record() if run.lora else {},
        seed=run.seed,
        eval_every=run.eval_every,
        options=run.options,
        data=describe_data(*given),
        limits=asdict(limits),
        keep_snapshots=keep_snapshots,
        data_sizes=run.data_sizes,
        baseline=run.baseline,
        notes=run.notes,
        status=run.status,
        error=run.error.message if run.error else None,
        seconds=run.seconds,
        versions=versions(),
        parent=run.parent,
    )


def score(headlines: Sequence[str], held_out: dict[str, float]) -> float | None:
    """Return what an evaluation came to, higher is better: the first of the ``headlines`` that it has."""
    name = next((name for name in headlines if name in held_out), None)
    return None if name is None else -held_out[name] if name in ("loss", "nll") else held_out[name]
