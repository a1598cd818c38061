"""Ratios in bins, cut where the loss clips them: the twin of ``widgets/src/ratios.ts``, for the static picture."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .protocol import Bound, Clip, Histogram

__all__ = ["Piece", "clipped_share", "limits_of", "pieces", "root_ticks"]


@dataclass(frozen=True)
class Piece:
    """A bin, or the part of one on either side of a limit.

    Attributes:
        low, high: log-ratios.
        share, part: percent of all tokens in the whole bin, and in this part of it.
        clipped: whether the clip acts on it.
    """

    low: float
    high: float
    share: float
    part: float
    clipped: bool


def limits_of(clip: Clip | None, settings: Mapping[str, float]) -> tuple[float, float] | None:
    """Lowest and highest ratio that gets through; None where there is no clip, or one of its settings is not known."""
    if clip is None or not {clip["low"]["setting"], clip["high"]["setting"]} <= set(settings):
        return None
    return _ratio(clip["low"], settings), _ratio(clip["high"], settings)


def _ratio(bound: Bound, settings: Mapping[str, float]) -> float:
    return bound["base"] + bound["slope"] * settings[bound["setting"]]


def pieces(histogram: Histogram | None, total: int, below: float | None, above: float | None) -> list[Piece]:
    """The bins of a histogram, those that a limit (a ratio) cuts in two parts.

    Within a bin tokens count as spread evenly. The outer bins also hold what lies beyond them: a limit beyond the axis
    clips nothing that can be seen.
    """
    if histogram is None or total <= 0:
        return []
    start, width, counts = histogram["start"], histogram["width"], histogram["counts"]
    end = start + width * len(counts)
    low, high = _log(below, -math.inf), _log(above, math.inf)
    everything = low >= end or high <= start
    cuts = [at for at in (low, high) if start < at < end]
    out: list[Piece] = []
    for i, count in enumerate(counts):
        left, right = start + i * width, start + (i + 1) * width
        edges = [left, *sorted(at for at in cuts if left + 1e-9 < at < right - 1e-9), right]
        share = 100 * count / total
        for one, other in itertools.pairwise(edges):
            middle = (one + other) / 2
            clipped = everything or (start < low and middle < low) or (high < end and middle > high)
            out.append(Piece(one, other, share, share * (other - one) / width, clipped))
    return out


def _log(ratio: float | None, without: float) -> float:
    if ratio is None:
        return without
    return math.log(ratio) if ratio > 0 else -math.inf


def clipped_share(all_pieces: Sequence[Piece]) -> float:
    """Percent of all tokens in the parts that are clipped."""
    return sum(piece.part for piece in all_pieces if piece.clipped)


def root_ticks(top: float) -> list[float]:
    """Shares in percent at which the root axis has a line, up to ``top``: those that do not crowd."""
    shown: list[float] = []
    for share in (100.0, 50.0, 20.0, 5.0, 1.0):
        room = (math.sqrt(shown[-1]) if shown else math.inf) - math.sqrt(share)
        if share <= top * (1 + 1e-9) and min(room, math.sqrt(share)) >= 0.22 * math.sqrt(top):
            shown.append(share)
    return shown[::-1]
