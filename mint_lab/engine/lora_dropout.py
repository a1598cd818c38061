"""Dropout on the inputs of LoRA layers (Srivastava et al. 2014), with masks that can be computed again.

The mask of a layer depends on a seed alone and on nothing that was drawn before. So the forward pass that gradient
checkpointing repeats, and the second phase of a coupled loss, have the same mask as the first; and a run that is
resumed has the masks that it would have had.

A prefix that several sequences of a batch share is computed once, so they share its mask too. A layer that a model uses
at several depths has the same mask at all of them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch

__all__ = ["LayerDropout", "LoraDropout"]


class LayerDropout(NamedTuple):
    """The dropout of one layer in one pass.

    Attributes:
        rate: Probability with which an input is dropped.
        seed: Seed of the mask.
    """

    rate: float
    seed: int

    def mask(self, x: torch.Tensor) -> torch.Tensor:
        """Return the mask of an input: 0 or ``1 / (1 - rate)``, float32, of the shape of ``x``."""
        generator = torch.Generator(x.device).manual_seed(self.seed)
        mask = torch.empty(x.shape, device=x.device)
        return mask.bernoulli_(1 - self.rate, generator=generator).div_(1 - self.rate)


@dataclass(frozen=True)
class LoraDropout:
    """The dropout of all layers of an adapter in the pass of one micro-batch.

    Attributes:
        layers: The LoRA layers of the backbone and the head; each has an attribute ``dropout``.
        rate: Probability with which an input is dropped.
        seed: The adapter's seed, the number of the pass, and the number of the micro-batch.
    """

    layers: Sequence[Any]
    rate: float
    seed: tuple[int, int, int]

    @contextlib.contextmanager
    def applied(self) -> Generator[None]:
        """Within this context, the layers drop inputs."""
        try:
            for layer, dropout in zip(self.layers, self._dropouts(), strict=True):
                layer.dropout = dropout
            yield
        finally:
            for layer in self.layers:
                layer.dropout = None

    def mask_of(self, head: Any, hidden: torch.Tensor) -> torch.Tensor | None:
        """Return the mask of the LM head's input ``(tokens, hidden)``; None if ``head`` is none of the layers."""
        found = [dropout for layer, dropout in zip(self.layers, self._dropouts(), strict=True) if layer is head]
        return found[0].mask(hidden) if found else None

    def _dropouts(self) -> list[LayerDropout]:
        seeds = np.random.SeedSequence(self.seed).generate_state(len(self.layers), np.uint64)
        # torch takes seeds of 64 bits; numpy's largest one bit less keeps them positive.
        return [LayerDropout(self.rate, int(seed) >> 1) for seed in seeds]
