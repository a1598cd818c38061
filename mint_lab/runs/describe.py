"""What ``run.json`` says of a run, and the same as one table of settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..losses.decorator import RUN_SETTINGS
from .entries import RunInfo
from .loading import DEFAULT_RANK
from .reopen import describe_data
from .versions import versions

if TYPE_CHECKING:
    from .loading import DataLimits
    from .run_view import RunView

__all__ = ["config_of", "describe_run"]


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
        early_stopping=run.early_stopping.record() if run.early_stopping else {},
        tags=list(run.tags),
        description=run.description,
    )


def config_of(info: RunInfo) -> dict[str, Any]:
    """Return every setting of a run in one flat dictionary, as trackers of experiments show it.

    A group of settings has a prefix: ``loss/``, ``optimizer/``, ``lora/``, ``option/``, ``data/``, ``limit/``,
    ``early_stopping/`` and ``version/``.
    """
    optimizer = {name: value for name, value in info.settings.items() if name in RUN_SETTINGS}
    loss = {name: value for name, value in info.settings.items() if name not in optimizer}
    sizes = dict(zip(("train_items", "held_out_items"), info.data_sizes or (), strict=False))
    groups: dict[str, Mapping[str, Any]] = {
        "loss": loss,
        "optimizer": optimizer | {"schedule": info.schedule},
        "lora": info.lora or {"rank": info.rank},
        "option": info.options,
        "data": info.data | sizes,
        "limit": info.limits,
        "early_stopping": info.early_stopping,
        "version": info.versions,
    }
    top = ("name", "description", "tags", "recipe", "base_model", "loss", "loss_version", "steps", "eval_every", "seed")
    flat: dict[str, Any] = {name: getattr(info, name) for name in top}
    return flat | {f"{group}/{name}": value for group, own in groups.items() for name, value in own.items()}
