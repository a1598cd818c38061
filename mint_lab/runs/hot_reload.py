"""What is registered anew while a run is there: the run takes it, and goes on if it had paused for the old one."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from ..data.rewards import REWARDS
from ..losses import LOSSES
from ..recipes.registry import check_loss
from ..recipes.rl.recipe import Rl

if TYPE_CHECKING:
    from ..data.rewards import Reward
    from ..losses import LossSpec
    from ..recipes.registry import Recipe
    from .loop import Loop

__all__ = ["follow_registries"]


def follow_registries(loop: Loop, recipe: Recipe | Rl) -> None:
    """Tell ``loop`` of every new version of its loss or reward, for as long as it lives."""
    # Through a weak reference: a registry must not keep a forgotten run and its model alive.
    this = weakref.ref(loop)
    weakref.finalize(loop, LOSSES.subscribe(lambda spec: _new_loss(this(), recipe, spec)))
    if isinstance(recipe, Rl):
        name = recipe.options.reward
        weakref.finalize(loop, REWARDS.subscribe(lambda reward: _new_reward(this(), name, reward)))


def _new_loss(loop: Loop | None, recipe: Recipe | Rl, spec: LossSpec) -> None:
    if loop is not None and loop.plan.loss.name == spec.name:
        check_loss(recipe, spec)
        loop.edit(lambda plan: plan.with_loss(spec, {}))
        loop.mended("loss", spec.name)


def _new_reward(loop: Loop | None, name: object, reward: Reward) -> None:
    # A run looks its reward up when it grades; only one that waits for it has to be told.
    if loop is not None and reward.name == name:
        loop.mended("reward", reward.name)
