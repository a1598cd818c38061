"""What is to be compared: losses, each with settings and a label of its own, read from what a person gives."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from ...errors import ConfigError
from ...losses import LOSSES, LossSpec
from ...losses.decorator import spec_of

__all__ = ["Entrant", "LossLike", "Losses", "entrants_of", "file_name"]

LossLike: TypeAlias = str | LossSpec | Callable[..., Any]
Losses: TypeAlias = (
    Sequence[LossLike | tuple[LossLike, Mapping[str, float]]]
    | Mapping[str, LossLike | tuple[LossLike, Mapping[str, float]]]
)


@dataclass(frozen=True)
class Entrant:
    """One loss of a comparison, as it was given, and its settings."""

    label: str
    loss: LossLike
    config: dict[str, float] = field(default_factory=dict)


def entrants_of(losses: Losses) -> list[Entrant]:
    """One entrant a loss, labels all different.

    Args:
        losses: a list of losses or of ``(loss, settings)``, or a mapping of a label to either. Without a label the
            loss's name is taken, with the settings given behind it.

    Raises:
        ConfigError: fewer than two, something that is no loss, or two of the same label.
    """
    if isinstance(losses, str) or not isinstance(losses, Sequence | Mapping):
        raise ConfigError(f'losses is {losses!r}, expected a list such as ["dpo", "simpo"] or a mapping of labels')
    given = list(losses.items()) if isinstance(losses, Mapping) else [(None, item) for item in losses]
    entrants = [_entrant(label, item) for label, item in given]
    if len(entrants) < 2:
        raise ConfigError(f"found {len(entrants)} loss, expected two or more to compare")
    labels = [entrant.label for entrant in entrants]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"two runs would be called {twice!r}; give settings that differ, or labels of your own: "
            f'{{"one": ("{twice}", {{...}}), "other": ...}}'
        )
    return entrants


def file_name(label: str) -> str:
    """``label`` as the last part of a folder's name."""
    return re.sub(r"[^A-Za-z0-9_.=-]+", "-", label).strip("-.")[:60] or "run"


def _entrant(label: str | None, item: Any) -> Entrant:
    loss: Any = item
    config: Any = {}
    if isinstance(item, tuple) and len(item) == 2:
        loss, config = item
    if not isinstance(config, Mapping):
        raise ConfigError(f"the settings of {_name(loss)} are {config!r}, expected a dict of names to numbers")
    if label is None:
        label = " ".join([_name(loss), *(f"{key}={value:g}" for key, value in config.items())])
    elif not isinstance(label, str) or not label.strip():
        raise ConfigError(f"a label is {label!r}, expected a text")
    return Entrant(label, loss, dict(config))


def _name(loss: Any) -> str:
    if isinstance(loss, LossSpec):
        return loss.name
    return LOSSES[loss].name if isinstance(loss, str) else spec_of(loss).name
