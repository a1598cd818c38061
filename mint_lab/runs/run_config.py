"""Every setting of a run in one table, for trackers of experiments and for people who compare runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..losses.decorator import RUN_SETTINGS
from .entries import RunInfo

__all__ = ["config_of"]


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
