"""Importance ratios in bins, divided where the loss clips them: the twin of ``widgets/src/ratios.ts``."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from .chart_spec import ChartSpec
from .run_data import RatioLimits, RunData

__all__ = ["RATIO_TICKS", "Half", "Piece", "clipped_share", "halves_of", "pieces", "root_ticks"]

RATIO_TICKS = (0.4, 0.5, 0.7, 1.0, 1.4, 2.0, 2.5)
"""Ratios that the horizontal axis names; it is logarithmic."""


@dataclass(frozen=True)
class Piece:
    """A bin, or the part of one on either side of a bound.

    Attributes:
        low, high: Ends, as log-ratios.
        share, part: Percent of all tokens in the whole bin, and in this part of it.
        clipped: True if the loss clips these tokens.
    """

    low: float
    high: float
    share: float
    part: float
    clipped: bool


@dataclass(frozen=True)
class Half:
    """The tokens with one sign of the advantage.

    Attributes:
        label: "A > 0" or "A < 0".
        sign: 1 is drawn upwards, -1 downwards.
        role: Selects the colour.
        below, above: Ratios beyond which the loss clips these tokens; None on a side that it does not clip.
    """

    label: str
    sign: int
    role: str
    below: float | None
    above: float | None
    pieces: list[Piece]

    @property
    def summary(self) -> tuple[str, str]:
        """The half's entry in the legend: what is counted, and the percent of all tokens."""
        if self.below is None and self.above is None:
            return self.label, f"{sum(piece.part for piece in self.pieces):.3g} %"
        return f"{self.label}, clipped", f"≈ {clipped_share(self.pieces):.2g} %"


def halves_of(chart: ChartSpec, run: RunData) -> list[Half]:
    """Return the two halves of a chart of kind "ratios" at the run's last rollout; empty before the first."""
    found = [counts[-1] if (counts := run.counts(chart, name)) else None for name in chart.histograms]
    step = max((counts.step for counts in found if counts is not None), default=0)
    # A half without tokens has no histogram at that step, or an empty one.
    now = [list(counts.counts) if counts is not None and counts.step == step else [] for counts in found]
    total = sum(map(sum, now))
    if not total or chart.bounds is None:
        return []
    limits: RatioLimits | None = run.limits
    low, high = (limits.low, limits.high) if limits is not None else (None, None)
    both = limits is not None and limits.both
    ends = [(low if both else None, high), (low, high if both else None)]
    return [
        Half(line.label, sign, line.role, below, above, pieces(counts, chart.bounds, total, below, above))
        for line, sign, (below, above), counts in zip(chart.lines, (1, -1), ends, now, strict=True)
    ]


def pieces(
    counts: Sequence[int], bounds: tuple[float, float], total: int, below: float | None, above: float | None
) -> list[Piece]:
    """Return the bins of a histogram; a bin that contains a bound is divided there.

    Within a bin, tokens count as spread evenly. The outer bins also hold what lies beyond them: a bound beyond the axis
    clips nothing that can be seen.

    Args:
        counts: Tokens in each bin, bins of equal width between ``bounds`` (log-ratios).
        total: Tokens that are 100 percent.
        below, above: Ratios; tokens below ``below`` or above ``above`` are clipped. None: no bound.
    """
    if not counts or total <= 0:
        return []
    start, end = bounds
    width = (end - start) / len(counts)
    low, high = _log(below, -math.inf), _log(above, math.inf)
    everything = low >= end or high <= start
    inner = [at for at in (low, high) if start < at < end]
    divided: list[Piece] = []
    for i, count in enumerate(counts):
        left, right = start + i * width, start + (i + 1) * width
        edges = [left, *sorted(at for at in inner if left + 1e-9 < at < right - 1e-9), right]
        share = 100 * count / total
        for one, other in itertools.pairwise(edges):
            middle = (one + other) / 2
            clipped = everything or (start < low and middle < low) or (high < end and middle > high)
            divided.append(Piece(one, other, share, share * (other - one) / width, clipped))
    return divided


def _log(ratio: float | None, without: float) -> float:
    if ratio is None:
        return without
    return math.log(ratio) if ratio > 0 else -math.inf


def clipped_share(all_pieces: Sequence[Piece]) -> float:
    """Return the percent of all tokens in the pieces that are clipped."""
    return sum(piece.part for piece in all_pieces if piece.clipped)


def root_ticks(top: float) -> list[float]:
    """Return shares in percent for the lines of the root axis, up to ``top`` and far enough apart to be read."""
    shown: list[float] = []
    for share in (100.0, 50.0, 20.0, 5.0, 1.0):
        room = (math.sqrt(shown[-1]) if shown else math.inf) - math.sqrt(share)
        if share <= top * (1 + 1e-9) and min(room, math.sqrt(share)) >= 0.22 * math.sqrt(top):
            shown.append(share)
    return shown[::-1]
