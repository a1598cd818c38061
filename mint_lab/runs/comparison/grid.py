"""The grid of a sweep: every combination of some settings, as the variants of a comparison."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ...errors import ConfigError, one_of
from ...losses import LOSSES, LossSpec
from ...losses.decorator import spec_of
from ...recipes.registry import recipe_named
from ..run import Run
from .variants import LossLike, Variant, checked_labels

__all__ = ["Grid", "grid_variants"]

Grid: TypeAlias = Mapping[str, Sequence[Any]]

# Arguments of a run that all runs of a comparison share, or that follow from the variant.
_SHARED = {"recipe", "base_model", "data", "held_out", "client", "loss_config", "name", "folder", "options"}


def grid_variants(
    grid: Grid, *, recipe: str, loss: LossLike | None = None, loss_config: Mapping[str, float] | None = None
) -> list[Variant]:
    """Return one variant for each combination of the values, the last setting changing fastest.

    Args:
        grid: Values by name: settings of the loss, arguments of a run such as ``learning_rate`` or ``seed``, options of
            the recipe, or ``loss``.
        recipe: Name of the recipe.
        loss: The loss, unless the grid has losses; None for the default of the recipe.
        loss_config: Settings of the loss that all runs share.

    Returns:
        Variants that are labelled with what differs between them.

    Raises:
        ConfigError: If a name is unknown, the values of one are not a list, or there are fewer than two combinations.
    """
    if not isinstance(grid, Mapping) or not grid:
        raise ConfigError(f'the grid is {grid!r}, expected a dict such as {{"beta": [0.05, 0.1, 0.5]}}')
    known = recipe_named(recipe)
    values = {name: _values(name, given) for name, given in grid.items()}
    losses = values.get("loss", [known.default_loss if loss is None else loss])
    in_loss = {param.name for each in losses for param in _spec(each).params}
    of_run = set(inspect.signature(Run).parameters) - _SHARED | set(known.option_names())
    for name in values:
        if name not in in_loss | of_run:
            raise ConfigError(f"unknown setting {name!r} of a sweep; {one_of(sorted(in_loss | of_run), str(name))}")
    shared = [name for name in values if name in (loss_config or {})]
    if shared:
        raise ConfigError(f"{shared[0]!r} is in the grid and in loss_config, expected one of the two")
    variants = [
        _variant(dict(zip(values, chosen, strict=True)), losses[0], loss_config or {}, in_loss, values)
        for chosen in itertools.product(*values.values())
    ]
    if len(variants) < 2:
        raise ConfigError("the grid has 1 combination, expected two or more: give a setting several values")
    return checked_labels(variants)


def _variant(
    chosen: dict[str, Any],
    loss: LossLike,
    config: Mapping[str, float],
    in_loss: set[str],
    values: Mapping[str, Sequence[Any]],
) -> Variant:
    label = " ".join(_named(name, value) for name, value in chosen.items() if len(values[name]) > 1)
    own = {name: value for name, value in chosen.items() if name in in_loss}
    settings = {name: value for name, value in chosen.items() if name not in in_loss and name != "loss"}
    return Variant(label, chosen.get("loss", loss), {**config, **own}, settings)


def _values(name: str, given: Any) -> list[Any]:
    if not isinstance(given, list | tuple | range | np.ndarray) or not len(given):
        raise ConfigError(f"{name} is {given!r}, expected a list of values")
    return given.tolist() if isinstance(given, np.ndarray) else list(given)


def _named(name: str, value: Any) -> str:
    if name == "loss":
        return _spec(value).name
    return f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"


def _spec(loss: LossLike) -> LossSpec:
    if isinstance(loss, LossSpec):
        return loss
    return LOSSES[loss] if isinstance(loss, str) else spec_of(loss)
