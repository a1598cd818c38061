"""A few datums on which preflight checks a loss before it may train."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from .live_runs import latest_trainer, losses_in_use

if TYPE_CHECKING:
    from ..losses import LossSpec
    from ..types import Datum

__all__ = ["losses_in_use", "made_up_data", "sample_data", "sample_pace"]

ITEMS = 4
VOCABULARY = 50
RANDOM_LOGPROBS = ("logprobs", "reference_logprobs", "teacher_logprobs")


def sample_data(spec: LossSpec) -> list[Datum]:
    """Return the first items of the run that started or resumed last, as ``spec`` would see them.

    Without a run, or before its first rollout, the result is that of :func:`made_up_data`.

    Raises:
        ConfigError: If ``spec`` reads reference log-probabilities and the run's client computes none.
    """
    trainer = latest_trainer()
    return (trainer.sample(ITEMS, spec) if trainer else []) or made_up_data()


def made_up_data() -> list[Datum]:
    """Return pairs of random tokens, with the fields that policy losses and losses with a reference or a label read."""
    rng = np.random.default_rng(0)
    return [datum for _ in range(ITEMS) for datum in _random_pair(rng)]


def sample_pace() -> tuple[int, float] | None:
    """Return datums and seconds of the last update of that run; None without one."""
    trainer = latest_trainer()
    return None if trainer is None else trainer.last_update


def _random_pair(rng: np.random.Generator) -> list[Datum]:
    from ..data.render import to_datum

    prompt = rng.integers(VOCABULARY, size=rng.integers(4, 9)).tolist()
    data: list[Datum] = []
    for label in (1, 0):
        completion = rng.integers(VOCABULARY, size=rng.integers(2, 5)).tolist()
        length = len(prompt) + len(completion) - 1  # targets, the first token of the prompt has none
        is_completion = np.arange(length) >= len(prompt) - 1  # (length,)
        fields = {
            name: np.where(is_completion, -rng.gamma(1.5, 1.0, length), 0.0).astype(np.float32)
            for name in RANDOM_LOGPROBS
        }
        fields["advantages"] = np.where(is_completion, rng.normal(), 0.0).astype(np.float32)
        data.append(to_datum(prompt + completion, len(prompt), label=[label], **fields))
    return data
