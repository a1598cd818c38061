"""A few datums to try a loss on, before it may train."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .loop import latest_trainer, losses_in_use

if TYPE_CHECKING:
    from ..losses import LossSpec
    from ..types import Datum

__all__ = ["losses_in_use", "made_up_data", "sample_data", "sample_pace"]

ITEMS = 4
VOCABULARY = 50


def sample_data(spec: LossSpec) -> list[Datum]:
    """The first items of the run that was loaded last, as ``spec`` would see them.

    Without a run, or before its first rollout, :func:`made_up_data`.

    Raises:
        ConfigError: the run's client computes no reference log-probabilities, and ``spec`` reads them.
    """
    trainer = latest_trainer()
    return (trainer.sample(ITEMS, spec) if trainer else []) or made_up_data()


def made_up_data() -> list[Datum]:
    """Pairs of random tokens, with what policy losses and losses with a reference model read."""
    rng = np.random.default_rng(0)
    return [datum for _ in range(ITEMS) for datum in _pair(rng)]


def sample_pace() -> tuple[int, float] | None:
    """Datums and seconds of a step of that run; None without one."""
    trainer = latest_trainer()
    return None if trainer is None else trainer.pace


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
            "teacher_logprobs": np.where(live, -rng.gamma(1.5, 1.0, length), 0.0).astype(np.float32),
            "advantages": np.where(live, rng.normal(), 0.0).astype(np.float32),
        }
        data.append(to_datum(prompt + completion, len(prompt), **fields))
    return data
