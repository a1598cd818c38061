"""Every loss by name: ``LOSSES["ppo"]``. Pure torch: no model, no I/O."""

from __future__ import annotations

from ..registry import Registry
from .builtin import CISPO, CROSS_ENTROPY, DRO, IMPORTANCE_SAMPLING, PPO
from .dpo import APO_DOWN, APO_ZERO, DPO, DPO_HINGE, IPO, KTO, NCA_PAIR, ROBUST_DPO
from .grpo import DR_GRPO, GRPO, GSPO, REVERSE_KL
from .preference import CPO, HINGE, ORPO, PAIRWISE_PREFERENCE, SIMPO, pairwise_preference_loss
from .spec import CustomLoss, LossSpec, Param

__all__ = ["LOSSES", "CustomLoss", "LossSpec", "Param", "pairwise_preference_loss"]

# In the order of the picker: within a family, what to try first comes first.
_GALLERY = (
    *(CROSS_ENTROPY, IMPORTANCE_SAMPLING, PPO, CISPO, DRO, GRPO, DR_GRPO, GSPO, REVERSE_KL),
    *(PAIRWISE_PREFERENCE, HINGE, SIMPO, CPO, ORPO),
    *(DPO, ROBUST_DPO, DPO_HINGE, IPO, KTO, APO_ZERO, APO_DOWN, NCA_PAIR),
)

LOSSES: Registry[LossSpec] = Registry("loss")
for _spec in _GALLERY:
    LOSSES.register(_spec)
