"""Supervised fine-tuning: maximum likelihood of given tokens."""

from __future__ import annotations

import torch

from .contract import LossSpec

__all__ = ["CROSS_ENTROPY", "cross_entropy"]


def cross_entropy(target_logprobs: torch.Tensor, *, weights: torch.Tensor) -> torch.Tensor:
    r"""Weighted negative log-likelihood, :math:`-w_t \log p_t`, in nats.

    Args:
        target_logprobs: ``(tokens,)``, log-probability of each target token.
        weights: ``(tokens,)``, 0 on the prompt and usually 1 on the completion. A weight of 0 is a strong mask: that
            token adds exactly 0 to loss and gradient, even where its log-probability is not finite.

    Returns:
        ``(tokens,)``, to be summed (never averaged).
    """
    masked = weights == 0
    return -(weights * target_logprobs.masked_fill(masked, 0.0))


CROSS_ENTROPY = LossSpec(
    name="cross_entropy",
    family="supervised",
    fn=cross_entropy,
    formula=r"-\sum_t w_t \log p_t",
    summary="Maximum likelihood of the given tokens: supervised fine-tuning.",
    inputs=("weights",),
    builtin=True,
    separable=True,
)
