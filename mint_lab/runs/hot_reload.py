"""Hot-reload losses and rewards: a run uses a version that is registered again, and resumes if the old one failed."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from ..data.rewards import REWARDS
from ..losses import LOSSES

if TYPE_CHECKING:
    from ..data.rewards import Reward
    from ..losses import LossSpec
    from ..recipes.base import Recipe
    from .loop import Loop

__all__ = ["follow_registries"]


def follow_registries(loop: Loop, recipe: Recipe) -> None:
    """Report every new version of its loss or reward to ``loop``, as long as ``loop`` exists."""
    # A weak reference, because a registry must not keep a run and its model in memory.
    reference = weakref.ref(loop)
    weakref.finalize(loop, LOSSES.subscribe(lambda spec: _new_loss(reference(), recipe, spec)))
    name = recipe.reward
    if name is not None:
        weakref.finalize(loop, REWARDS.subscribe(lambda reward: _new_reward(reference(), name, reward)))


def _new_loss(loop: Loop | None, recipe: Recipe, spec: LossSpec) -> None:
    if loop is not None and loop.plan.loss.name == spec.name:
        reason = spec.unfit(recipe.data_kind)
        if reason is not None:
            # The cell that registered it is right, and so is the run: it keeps the version that fits its data.
            loop.notes.append(f"{spec.label} {reason}; this run keeps {loop.plan.loss.label}")
            loop.notifier.notify()
            return
        loop.edit(lambda plan: plan.with_loss(spec, {}))
        loop.resume_if_waiting_for("loss", spec.name)


def _new_reward(loop: Loop | None, name: str, reward: Reward) -> None:
    # A run looks up its reward whenever it grades, so only a run that waits for the reward needs to act.
    if loop is not None and reward.name == name:
        loop.resume_if_waiting_for("reward", reward.name)
