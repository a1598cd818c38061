r"""Numbers about sampled tokens, one definition each.

All tensors are ``(tokens,)``; tokens of weight 0 are left out of every number. :math:`r = \exp(\log p - \log q)` is the
raw, unclipped ratio of trainer to sampler; the tokens come from the sampler.

==============================  ========================================================================================
name                            meaning, unit
==============================  ========================================================================================
ratio/mean, /min, /max          of :math:`r`
clip_frac/low, clip_frac/high   share of tokens where the clip is active: r < lo and A < 0; r > hi and A > 0
out_of_range_frac               share of tokens with r outside [lo, hi], whatever the sign of A (what cispo clips)
kl/k1, kl/k2, kl/k3             estimators of KL(sampler || trainer), nats a token (Schulman 2020): mean of
                                :math:`-\log r`, :math:`\frac12 \log^2 r`, :math:`r - 1 - \log r`
ess                             effective sample size, :math:`1 / \overline{w^2}` with :math:`w = r / \bar r`, 0 to 1
entropy_est                     :math:`-\overline{\log q}`, nats a token: an estimate of the sampler's entropy
==============================  ========================================================================================
"""

from __future__ import annotations

import torch

from ..errors import DataError

__all__ = ["clip_metrics", "ratio_metrics"]


def ratio_metrics(
    target_logprobs: torch.Tensor, sampling_logprobs: torch.Tensor, weights: torch.Tensor | None = None
) -> dict[str, float]:
    """ratio/*, kl/*, ess and entropy_est.

    Raises:
        DataError: shapes differ, or no token counts.
    """
    logp, logq = _counted(weights, target_logprobs, sampling_logprobs)
    log_ratio = logp - logq
    ratio = log_ratio.exp()
    # w is formed from log r - max log r: r itself may overflow where w does not.
    relative = (log_ratio - log_ratio.max()).exp()
    relative = relative / relative.mean()
    return {
        "ratio/mean": float(ratio.mean()),
        "ratio/min": float(ratio.min()),
        "ratio/max": float(ratio.max()),
        "kl/k1": float(-log_ratio.mean()),
        "kl/k2": float(0.5 * (log_ratio**2).mean()),
        "kl/k3": float((torch.expm1(log_ratio) - log_ratio).mean()),
        "ess": float(1 / (relative**2).mean()),
        "entropy_est": float(-logq.mean()),
    }


def clip_metrics(
    target_logprobs: torch.Tensor,
    sampling_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    weights: torch.Tensor | None = None,
    *,
    clip_low_threshold: float = 0.8,
    clip_high_threshold: float = 1.2,
) -> dict[str, float]:
    """clip_frac/low, clip_frac/high and out_of_range_frac. Raises as :func:`ratio_metrics`."""
    logp, logq, advantage = _counted(weights, target_logprobs, sampling_logprobs, advantages)
    ratio = (logp - logq).exp()
    low, high = ratio < clip_low_threshold, ratio > clip_high_threshold
    return {
        "clip_frac/low": float((low & (advantage < 0)).float().mean()),
        "clip_frac/high": float((high & (advantage > 0)).float().mean()),
        "out_of_range_frac": float((low | high).float().mean()),
    }


def _counted(weights: torch.Tensor | None, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    shapes = {tuple(t.shape) for t in (*tensors, *([] if weights is None else [weights]))}
    if len(shapes) != 1:
        raise DataError(f"shapes differ: {sorted(shapes)}, expected one value a token in each")
    if weights is None:
        weights = torch.ones_like(tensors[0])
    if not bool((weights != 0).any()):
        raise DataError("no token counts", field="weights")
    return tuple(t.detach()[weights != 0].double() for t in tensors)
