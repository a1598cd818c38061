"""Responses that a run kept, as one :class:`~mint_lab.ui.protocol.Samples` message. Plain numpy.

What they say is hostile text; it travels as it is, and becomes text nodes in the page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .protocol import SampleRow, Samples, TokenColumn, TokenRow, Tokens
from .wire import travels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..recipes.record import StepRecord

__all__ = ["ROWS", "samples_of"]

ROWS, TEXT, TOKENS = 12, 2000, 256
"""Responses, characters of a text, and tokens of a response that travel: a message has a largest size."""

_LEAST = 0.2  # the colour scale of the ratio reaches at least this far in nats: noise stays pale


def samples_of(record: StepRecord) -> Samples:
    """The samples of one record; those of training with their tokens."""
    rows: list[SampleRow] = []
    kept: list[dict[str, Any]] = []
    start = 0
    for sample in record.samples[:ROWS]:
        length = min(len(sample.get("tokens", ())), TOKENS)
        advantage = sample.get("advantage")
        row = SampleRow(
            source="held-out" if sample["source"] == "held-out" else "training",
            prompt=_cut(sample["prompt"]),
            response=_cut(sample["response"]),
            reward=float(sample["reward"]),
            advantage=None if advantage is None else float(advantage),
            start=start,
            length=length,
        )
        rows.append(row)
        if length:
            kept.append(sample)
        start += length
    return Samples(step=record.step, rows=rows, tokens=_tokens(record, kept) if kept else None)


def _tokens(record: StepRecord, samples: Sequence[dict[str, Any]]) -> Tokens:
    texts = [_cut(text) for sample in samples for text in sample["tokens"][:TOKENS]]
    known = list(dict.fromkeys(texts))
    place = {text: index for index, text in enumerate(known)}
    ratios = np.array([ratio for sample in samples for ratio in sample["ratio"][:TOKENS]], dtype=np.float64)
    clipped = np.array([flag for sample in samples for flag in sample["clipped"][:TOKENS]], dtype=np.float64)
    rows: list[TokenRow] = []
    for item, sample in enumerate(samples):
        start = rows[-1]["start"] + rows[-1]["length"] if rows else 0
        length = min(len(sample["tokens"]), TOKENS)
        rows.append(TokenRow(item=item, title=_title(sample), role="", start=start, length=length, shared=0))
    high = math.exp(_reach(ratios))
    return Tokens(
        step=record.step,
        about=f"{record.loss_name} v{record.loss_version}",
        by="ratio",
        rows=rows,
        columns=[
            TokenColumn(
                name="ratio",
                unit="",
                note="above 1: likelier than when it was sampled",
                scale="ratio",
                low=1 / high,
                high=high,
            ),
            TokenColumn(name="clipped", unit="", note="1: the clip acts on it", scale="sequential", low=0.0, high=1.0),
        ],
        texts=known,
        ids=np.full(len(texts), -1, dtype="<i4").tobytes(),
        pieces=np.array([place[text] for text in texts], dtype="<i4").tobytes(),
        values=np.stack([ratios, clipped]).astype("<f4").tobytes(),
    )


def _reach(ratios: NDArray[np.float64]) -> float:
    """Where the colour scale ends, nats: at the largest log-ratio, in round steps, and never beyond 1."""
    found = np.abs(np.log(ratios[np.isfinite(ratios) & (ratios > 0)]))
    largest = float(found.max()) if len(found) else 0.0
    return next((step for step in (_LEAST, 0.5) if largest <= step), 1.0)


def _title(sample: dict[str, Any]) -> str:
    """Of readers without a kernel, who have no table."""
    advantage = sample.get("advantage")
    known = "" if advantage is None else f", advantage {advantage:+.3g}"
    return f"reward {sample['reward']:.3g}{known}: {' '.join(_cut(sample['prompt']).split())}"


def _cut(text: Any) -> str:
    return travels(str(text)[:TEXT])
