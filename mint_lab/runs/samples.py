"""A few datums to try a loss on, before it may train."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .loop import latest_trainer

if TYPE_CHECKING:
    from ..types import Datum

__all__ = ["sample_data"]

ITEMS = 4
VOCABULARY = 50


def sample_data() -> list[Datum]:
    """The first items of the run that was loaded last; without one, made-up pairs of random tokens.

    The made-up ones also carry what policy losses and losses with a reference model read.
    """
    trainer = latest_trainer()
    if trainer is not None:
        return trainer.job.batch(range(min(ITEMS, trainer.job.size)))
    rng = np.random.default_rng(0)
    return [datum for _ in range(ITEMS) for datum in _pair(rng)]


def _pair(rng: np.random.Generator) -> list[Datum]:
    from ..data.render import to_datum

    prompt = rng.integers(VOCABULARY, size=rng.integers(4, 9)).tolist()
    data: list[Datum] = []
    for _ in range(2):
        completion = rng.integers(VOCABULARY, size=rng.integers(2, 5)).tolist()
        length = len(prompt) + len(completion) - 1
        live = np.arange(length) >= len(prompt) - 1
        fields = {
            "logprobs": np.where(live, -rng.gamma(1.5, 1.0, length), 0.0).astype(np.float32),
            "reference_logprobs": np.where(live, -rng.gamma(1.5, 1.0, length), 0.0).astype(np.float32),
            "advantages": np.where(live, rng.normal(), 0.0).astype(np.float32),
        }
        data.append(to_datum(prompt + completion, len(prompt), **fields))
    return data
