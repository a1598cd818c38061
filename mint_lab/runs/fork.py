"""A fork: a new run that continues from a step of another one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..losses import LossSpec
from ..recipes.plan import StepPlan
from .reopen import Past, read_past
from .store import check_unused, fresh_folder

if TYPE_CHECKING:
    from .loop import Loop

__all__ = ["changed", "copy_run"]


def changed(
    plan: StepPlan, loss: LossSpec | None, config: Mapping[str, float], settings: Mapping[str, float]
) -> StepPlan:
    """Return the plan of a fork.

    Args:
        plan: Plan of the run that it is forked from.
        loss: Another loss; None for the same.
        config: Settings of the loss.
        settings: Settings of the run or the loss.

    Raises:
        ConfigError: If a setting is unknown or not valid.
    """
    if loss is not None:
        plan = plan.with_loss(loss, config)
    return plan.with_settings({**config, **settings})


def copy_run(loop: Loop, step: int, name: str, folder: str | os.PathLike[str] | None) -> Past:
    """Copy a run up to a step into a folder of its own; return it as that folder has it.

    Args:
        loop: Of the run.
        step: The step; without a snapshot after it, the copy ends at the last snapshot before it.
        name: Name of the copy.
        folder: Its folder; None for a new one in ``./runs``.

    Raises:
        ConfigError: If the step is not complete.
        RunError: If the run has no snapshots, or the folder is in use or cannot be written.
        CheckpointError: If the snapshot is damaged.
    """
    target = None if folder is None else Path(folder)
    check_unused(target)
    start, loss, target = loop.copy(lambda: target or fresh_folder(name), step, name)
    return read_past(target, start, loss=loss)
