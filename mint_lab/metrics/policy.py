r"""Numbers about sampled tokens, one definition each.

All tensors are ``(tokens,)``; tokens of weight 0 are left out of every number. :math:`r = \exp(\log p - \log q)` is the
raw, unclipped ratio of trainer to sampler; the tokens come from the sampler. :math:`\log b` is the base model's.

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
kl/reference                    of losses with a KL term: mean of k3 of KL(trainer || reference), nats a token
kl/teacher                      of distillation: mean of :math:`\log p - \log p_{teacher}`, nats a token
kl_base/k1, /k2, /k3            estimators of KL(trainer || base), nats a token, with :math:`\log b - \log p` as
                                :math:`\log r`; right where the sampler's tokens are as good as the trainer's own
mismatch/mean, mismatch/max     of :math:`|\log p - \log q|`, nats; where sampler and trainer have the same weights, it
                                is what their arithmetic, a temperature or a truncation puts between them
==============================  ========================================================================================

A ratio of 0 or infinity (a log-probability of -inf) is a number like any other: means and estimators become infinite
where it makes them, and ess counts the tokens that share the largest ratio.
"""

from __future__ import annotations

import math

import torch

from ..errors import DataError

__all__ = ["clip_metrics", "kl_base_metrics", "log_ratios_by_sign", "mismatch_metrics", "ratio_metrics"]


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
    # w is formed from log r - max log r: r itself may overflow where w does not. The largest is set, not computed,
    # because inf - inf has no value.
    largest = log_ratio.max()
    relative = torch.where(log_ratio == largest, 1.0, (log_ratio - largest).exp())
    relative = relative / relative.mean()
    return {
        "ratio/mean": float(ratio.mean()),
        "ratio/min": float(ratio.min()),
        "ratio/max": float(ratio.max()),
        **_estimators("kl", log_ratio),
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


def kl_base_metrics(
    target_logprobs: torch.Tensor, base_logprobs: torch.Tensor, weights: torch.Tensor | None = None
) -> dict[str, float]:
    """kl_base/k1, k2 and k3. Raises as :func:`ratio_metrics`."""
    logp, logb = _counted(weights, target_logprobs, base_logprobs)
    return _estimators("kl_base", logb - logp)


def mismatch_metrics(
    target_logprobs: torch.Tensor, sampling_logprobs: torch.Tensor, weights: torch.Tensor | None = None
) -> dict[str, float]:
    """mismatch/mean and mismatch/max. Raises as :func:`ratio_metrics`."""
    logp, logq = _counted(weights, target_logprobs, sampling_logprobs)
    apart = (logp - logq).abs()
    return {"mismatch/mean": float(apart.mean()), "mismatch/max": float(apart.max())}


def log_ratios_by_sign(
    target_logprobs: torch.Tensor,
    sampling_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    r""":math:`\log r` of the tokens with A > 0, and of those with A < 0; double precision.

    The two are clipped on different sides, above and below. Tokens with A = 0 are in neither. Raises as
    :func:`ratio_metrics`.
    """
    logp, logq, advantage = _counted(weights, target_logprobs, sampling_logprobs, advantages)
    log_ratio = logp - logq
    return log_ratio[advantage > 0], log_ratio[advantage < 0]


def _estimators(name: str, log_ratio: torch.Tensor) -> dict[str, float]:
    """k1, k2 and k3 of a Kullback-Leibler divergence from the log-ratios of tokens drawn from its first argument."""
    k3 = torch.expm1(log_ratio) - log_ratio
    return {
        f"{name}/k1": float(-log_ratio.mean()),
        f"{name}/k2": float(0.5 * (log_ratio**2).mean()),
        # r - 1 grows faster than log r: at infinity their difference is infinite, which inf - inf does not say.
        f"{name}/k3": float(torch.where(log_ratio == math.inf, math.inf, k3).mean()),
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
