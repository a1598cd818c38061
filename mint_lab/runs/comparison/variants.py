"""The losses to compare, each with settings and a unique label, read from what a person gives."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

from ...errors import ConfigError
from ...losses import LOSSES, LossSpec
from ...losses.decorator import spec_of

__all__ = ["LossLike", "Losses", "Variant", "checked_labels", "file_name", "variants_of"]

MAX_FILE_NAME = 60

LossLike: TypeAlias = str | LossSpec | Callable[..., Any]
Losses: TypeAlias = (
    Sequence[LossLike | tuple[LossLike, Mapping[str, float]]]
    | Mapping[str, LossLike | tuple[LossLike, Mapping[str, float]]]
)


@dataclass(frozen=True)
class Variant:
    """One run of a comparison.

    Attributes:
        label: What charts call it.
        loss: The loss, as given.
        config: Settings of the loss.
        settings: Arguments of the run that differ from those of the other runs.
    """

    label: str
    loss: LossLike
    config: dict[str, float] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)


def variants_of(losses: Losses | list[Variant]) -> list[Variant]:
    """Return one variant per loss, each with a different label.

    Args:
        losses: A list of losses or of ``(loss, settings)``, or a mapping of labels to either. A loss without a label is
            labelled with its name and the given settings. Variants are returned as they are.

    Raises:
        ConfigError: If there are fewer than two, one is not a loss, or two have the same label.
    """
    if isinstance(losses, list) and losses and all(isinstance(item, Variant) for item in losses):
        return cast("list[Variant]", losses)
    if isinstance(losses, str) or not isinstance(losses, Sequence | Mapping):
        raise ConfigError(f'losses is {losses!r}, expected a list such as ["dpo", "simpo"] or a mapping of labels')
    given = list(losses.items()) if isinstance(losses, Mapping) else [(None, item) for item in losses]
    variants = [_variant(label, item) for label, item in given]
    if len(variants) < 2:
        found = "1 loss" if variants else "no losses"
        raise ConfigError(f"found {found}, expected two or more to compare")
    return checked_labels(variants)


def checked_labels(variants: list[Variant]) -> list[Variant]:
    """Return ``variants`` if their labels differ.

    Raises:
        ConfigError: If two have the same label.
    """
    labels = [variant.label for variant in variants]
    duplicate = next((label for label in labels if labels.count(label) > 1), None)
    if duplicate is not None:
        raise ConfigError(
            f"two runs would have the label {duplicate!r}; give settings that differ, or a label for each: "
            f'{{"one": ("{duplicate}", {{...}}), "other": ...}}'
        )
    return variants


def file_name(label: str) -> str:
    """Return ``label`` as the name of a folder."""
    return re.sub(r"[^A-Za-z0-9_.=-]+", "-", label).strip("-.")[:MAX_FILE_NAME] or "run"


def _variant(label: str | None, item: Any) -> Variant:
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
    return Variant(label, loss, dict(config))


def _name(loss: Any) -> str:
    if isinstance(loss, LossSpec):
        return loss.name
    return LOSSES[loss].name if isinstance(loss, str) else spec_of(loss).name
