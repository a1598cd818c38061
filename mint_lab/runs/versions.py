"""What a run's folder says of the run as a whole, and of the versions that its result depends on."""

from __future__ import annotations

import platform
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from ..recipes.rl.recipe import Rl

if TYPE_CHECKING:
    from ..recipes.registry import Recipe
    from .run import Run

__all__ = ["summary_of", "versions"]


def summary_of(run: Run, recipe: Recipe | Rl, rank: int) -> dict[str, Any]:
    """Everything about ``run`` that is not of one step, in plain types."""
    return {
        "name": run.name,
        "recipe": run.recipe,
        "base_model": run.base_model,
        "loss": run.loss.name,
        "loss_version": run.loss.version,
        "settings": run.settings,
        "steps": run.steps_total,
        "steps_done": run.steps_done,
        "rank": rank,
        "seed": run.seed,
        "eval_every": run.eval_every,
        "options": asdict(recipe.options) if isinstance(recipe, Rl) else {},
        "data_sizes": run.data_sizes,
        "baseline": run.baseline,
        "notes": run.notes,
        "status": run.status,
        "error": run.error.message if run.error else None,
        "seconds": run.seconds,
        "versions": versions(),
    }


@cache
def versions() -> dict[str, str]:
    """Version by distribution name; without those that are not installed."""
    found = {"python": platform.python_version()}
    for name in ("mint_lab", "torch", "transformers", "peft", "tinker"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
