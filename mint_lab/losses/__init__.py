"""Every loss by name: ``LOSSES["ppo"]``. Pure torch: no model, no input or output.

A bundled loss is a function and its :class:`LossSpec` in a module of this package; nothing else names it. Every
``LossSpec`` that a module defines is registered here, in the order of :data:`_ORDER` and of the module's text.
"""

from __future__ import annotations

import importlib
import pkgutil

from ..registry import Registry
from .preference import pairwise_preference_loss
from .spec import CustomLoss, DataKind, LossSpec, Param

__all__ = ["LOSSES", "CustomLoss", "DataKind", "LossSpec", "Param", "pairwise_preference_loss"]

# The order of the picker. Modules that are not named follow in alphabetical order.
_ORDER = ("builtin", "grpo", "preference", "dpo", "unpaired")
_WITHOUT_LOSSES = {"clip", "decorator", "spec"}  # decorator imports LOSSES from here

LOSSES: Registry[LossSpec] = Registry("loss")


def _register_bundled() -> None:
    found = {module.name for module in pkgutil.iter_modules(__path__)} - _WITHOUT_LOSSES
    for name in (*_ORDER, *sorted(found.difference(_ORDER))):
        module = importlib.import_module(f"{__name__}.{name}")
        for value in vars(module).values():
            if isinstance(value, LossSpec) and value.fn.__module__ == module.__name__:
                LOSSES.register(value)


_register_bundled()
