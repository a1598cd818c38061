"""How an optimizer step is made: the recipe base class, and the recipes preference, sft, rl and unpaired."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .base import Recipe, option
    from .job import BatchJob, Job, Measured
    from .registry import RECIPES, recipe

__all__ = ["RECIPES", "BatchJob", "Job", "Measured", "Recipe", "option", "recipe"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "RECIPES": ".registry",
        "BatchJob": ".job",
        "Job": ".job",
        "Measured": ".job",
        "Recipe": ".base",
        "option": ".base",
        "recipe": ".registry",
    },
)
