"""Responses that a run stored, as one :class:`~mint_lab.ui.messages.Samples` message. Plain numpy.

Their text is hostile; it is sent unchanged and becomes text nodes in the page.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .messages import SampleRow, Samples, TokenColumn, TokenRow, Tokens
from .utf8 import as_utf8

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..recipes.record import StepRecord

__all__ = ["MAX_ROWS", "samples_of"]

MAX_ROWS, MAX_CHARACTERS, MAX_TOKENS = 12, 2000, 256
"""Responses, characters of a text, and tokens of a response in a message, whose size is limited."""

SCALE_ENDS = (0.2, 0.5, 1.0)  # nats; the colour scale of the ratio ends at one of these, so that noise stays pale


def samples_of(record: StepRecord) -> Samples:
    """Return the responses of one record; those from training have their tokens."""
    rows: list[SampleRow] = []
    with_tokens: list[dict[str, Any]] = []
    start = 0
    for sample in record.samples[:MAX_ROWS]:
        length = min(len(sample.get("tokens", ())), MAX_TOKENS)
        advantage = sample.get("advantage")
        row = SampleRow(
            source="held-out" if sample["source"] == "held-out" else "training",
            prompt=_truncated(sample["prompt"]),
            response=_truncated(sample["response"]),
            reward=float(sample["reward"]),
            advantage=None if advantage is None else float(advantage),
            start=start,
            length=length,
        )
        rows.append(row)
        if length:
            with_tokens.append(sample)
        start += length
    return Samples(step=record.step, rows=rows, tokens=_tokens(record, with_tokens) if with_tokens else None)


def _tokens(record: StepRecord, samples: Sequence[dict[str, Any]]) -> Tokens:
    texts = [_truncated(text) for sample in samples for text in sample["tokens"][:MAX_TOKENS]]
    distinct = list(dict.fromkeys(texts))
    index_of = {text: index for index, text in enumerate(distinct)}
    ratios = np.array([ratio for sample in samples for ratio in sample["ratio"][:MAX_TOKENS]], dtype=np.float64)
    clipped = np.array([flag for sample in samples for flag in sample["clipped"][:MAX_TOKENS]], dtype=np.float64)
    rows: list[TokenRow] = []
    for item, sample in enumerate(samples):
        start = rows[-1]["start"] + rows[-1]["length"] if rows else 0
        length = min(len(sample["tokens"]), MAX_TOKENS)
        rows.append(TokenRow(item=item, title=_title(sample), role="", start=start, length=length, shared=0))
    high = math.exp(_scale_end(ratios))
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
        texts=distinct,
        ids=np.full(len(texts), -1, dtype="<i4").tobytes(),
        pieces=np.array([index_of[text] for text in texts], dtype="<i4").tobytes(),
        values=np.stack([ratios, clipped]).astype("<f4").tobytes(),
    )


def _scale_end(ratios: NDArray[np.float64]) -> float:
    """Return the first of ``SCALE_ENDS`` that reaches the largest absolute log-ratio, or else the last one."""
    sizes = np.abs(np.log(ratios[np.isfinite(ratios) & (ratios > 0)]))
    largest = float(sizes.max()) if len(sizes) else 0.0
    return next((end for end in SCALE_ENDS if largest <= end), SCALE_ENDS[-1])


def _title(sample: dict[str, Any]) -> str:
    """Return a heading for readers without a kernel, who do not see the table."""
    advantage = sample.get("advantage")
    advantage_text = "" if advantage is None else f", advantage {advantage:+.3g}"
    return f"reward {sample['reward']:.3g}{advantage_text}: {' '.join(_truncated(sample['prompt']).split())}"


def _truncated(text: Any) -> str:
    return as_utf8(str(text)[:MAX_CHARACTERS])
