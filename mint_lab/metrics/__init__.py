"""One definition of each number; pure torch. The tables are in ``preference``, ``policy`` and ``rollout``."""

from __future__ import annotations

from .policy import clip_metrics, kl_base_metrics, log_ratios_by_sign, mismatch_metrics, ratio_metrics
from .preference import displacement_frac, margins, pair_metrics
from .rollout import completion_metrics, reward_metrics

__all__ = [
    "clip_metrics",
    "completion_metrics",
    "displacement_frac",
    "kl_base_metrics",
    "log_ratios_by_sign",
    "margins",
    "mismatch_metrics",
    "pair_metrics",
    "ratio_metrics",
    "reward_metrics",
]
