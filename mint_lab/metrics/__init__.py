"""One definition of each number; pure torch. The tables are in ``preference`` and ``policy``."""

from __future__ import annotations

from .policy import clip_metrics, ratio_metrics
from .preference import displacement_frac, margins, pair_metrics, saturation

__all__ = ["clip_metrics", "displacement_frac", "margins", "pair_metrics", "ratio_metrics", "saturation"]
