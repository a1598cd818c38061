"""Losses and rewards from their source: what a cell, a run's folder or a script of a run holds as text."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..data.rewards import REWARDS, Reward, reward_of
from ..losses import LossSpec
from ..losses.decorator import spec_of
from ..usercode.compile_cell import compile_cell

__all__ = ["loss_from_source", "reward_from_source"]


def loss_from_source(source: str, name: str, version: int = 1, **described: Any) -> LossSpec:
    """Execute the source of a custom loss and return the loss, which is not registered.

    Args:
        source: A function ``(data, logprobs_list, ...)`` with all that it needs, as in a ``%%loss`` cell.
        name: Name of the loss.
        version: Its version, which records have.
        described: Fields of :class:`~mint_lab.losses.LossSpec` that the source does not tell, for example ``unit``.

    Raises:
        ConfigError: If the source is not that of a loss.
    """
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in described.items()}
    spec = spec_of(compile_cell(source, name, version, {}, "loss").fn, name, source=source)
    return replace(spec, version=version, **fields)


def reward_from_source(source: str, name: str, version: int = 1) -> Reward:
    """Execute the source of a reward and register it; a run that uses the reward grades with it from then on.

    Args:
        source: A function ``(response_text, example)`` with all that it needs, as in a ``%%reward`` cell.
        name: Name of the reward.
        version: Its version, from the registered one up.

    Raises:
        ConfigError: If the source is not that of a reward, or the name is built in.
    """
    reward = replace(
        reward_of(compile_cell(source, name, version, {}, "reward").fn, name, source=source), version=version
    )
    registered = REWARDS.register(reward)
    while registered.version < version:  # versions that did not grade
        registered = REWARDS.register(reward)
    return registered
