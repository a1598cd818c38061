"""Every loss by name: ``LOSSES["ppo"]``. Pure torch: no model, no I/O."""

from __future__ import annotations

from .contract import CustomLoss, LossRegistry, LossSpec, Param
from .policy import CISPO, DRO, IMPORTANCE_SAMPLING, PPO
from .preference import HINGE, PAIRWISE_PREFERENCE, SIMPO, pairwise_preference_loss
from .supervised import CROSS_ENTROPY

__all__ = ["LOSSES", "CustomLoss", "LossRegistry", "LossSpec", "Param", "pairwise_preference_loss"]

LOSSES = LossRegistry()
for _spec in (CROSS_ENTROPY, IMPORTANCE_SAMPLING, PPO, CISPO, DRO, PAIRWISE_PREFERENCE, HINGE, SIMPO):
    LOSSES.register(_spec)
