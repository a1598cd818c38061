"""What ``run.json`` says of a run."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from .entries import RunInfo
from .loading import DEFAULT_RANK
from .reopen import describe_data
from .versions import versions

if TYPE_CHECKING:
    from .loading import ClientModel, DataLimits
    from .run_view import RunView

__all__ = ["describe_run"]


def describe_run(
    run: RunView, own: ClientModel, given: tuple[Any, Any], limits: DataLimits, keep_snapshots: int | None
) -> RunInfo:
    """Return everything about a run that is not about one step.

    Args:
        run: The run.
        own: What the client that was given to the run trains; empty without one.
        given: Its data and held-out data, as given.
        limits: How much of them it uses.
        keep_snapshots: As given.
    """
    lora = run.lora if own.rank is None or (run.lora and run.lora.rank == own.rank) else None
    return RunInfo(
        name=run.name,
        recipe=run.recipe,
        base_model=own.base_model or run.base_model,
        loss=run.loss.name,
        loss_version=run.loss.version,
        settings=run.settings,
        schedule=run.plan.schedule,
        steps=run.steps_total,
        steps_done=run.steps_done,
        rank=own.rank or (lora.rank if lora else DEFAULT_RANK),
        lora=lora.record() if lora else {},
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
        early_stopping=run.early_stopping.record() if run.early_stopping else {},
        tags=list(run.tags),
        description=run.description,
        reference=run.reference,
    )
