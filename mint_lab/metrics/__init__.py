"""Metrics: their definitions (:data:`METRICS`) and the functions that compute them. Imports are lazy.

``mint_lab.metrics.registry`` describes every metric and imports no torch; ``preference``, ``policy`` and ``rollout``
compute them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .policy import clip_metrics, kl_base_metrics, log_ratios_by_sign, mismatch_metrics, ratio_metrics
    from .preference import auc, displacement_frac, margins, pair_metrics
    from .registry import METRICS, MetricSpec, register_metric
    from .rollout import completion_metrics, reward_metrics

__all__ = [
    "METRICS",
    "MetricSpec",
    "auc",
    "clip_metrics",
    "completion_metrics",
    "displacement_frac",
    "kl_base_metrics",
    "log_ratios_by_sign",
    "margins",
    "mismatch_metrics",
    "pair_metrics",
    "ratio_metrics",
    "register_metric",
    "reward_metrics",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "METRICS": ".registry",
        "MetricSpec": ".registry",
        "auc": ".preference",
        "clip_metrics": ".policy",
        "completion_metrics": ".rollout",
        "displacement_frac": ".preference",
        "kl_base_metrics": ".policy",
        "log_ratios_by_sign": ".policy",
        "margins": ".preference",
        "mismatch_metrics": ".policy",
        "pair_metrics": ".preference",
        "ratio_metrics": ".policy",
        "register_metric": ".registry",
        "reward_metrics": ".rollout",
    },
)
