r"""Metrics of sampled tokens: importance ratios, clipping, divergences. Definitions are in ``METRICS``.

Arguments are ``(tokens,)`` tensors of log-probabilities in nats: ``target_logprobs`` is :math:`\log p` under the model
being trained, ``sampling_logprobs`` is :math:`\log q` under the sampler that drew the tokens. Tokens of weight 0 are
left out. Estimators of a KL divergence are those of Schulman 2020, http://joschu.net/blog/kl-approx.html.

A ratio of 0 or infinity (a log-probability of -inf) is a valid value: it can make means and estimators
infinite. ``ess`` then counts the tokens that share the largest ratio.
"""

from __future__ import annotations

import math

import torch

from ..errors import DataError

__all__ = ["clip_metrics", "kl_base_metrics", "log_ratios_by_sign", "mismatch_metrics", "ratio_metrics"]


def ratio_metrics(
    target_logprobs: torch.Tensor, sampling_logprobs: torch.Tensor, weights: torch.Tensor | None = None
) -> dict[str, float]:
    """Compute ``ratio/mean``, ``ratio/min``, ``ratio/max``, ``kl/k1``, ``kl/k2``, ``kl/k3``, ``ess``, ``entropy_est``.

    Args:
        target_logprobs: log p, ``(tokens,)``.
        sampling_logprobs: log q, ``(tokens,)``.
        weights: ``(tokens,)``; only whether a weight is 0 matters. None: every token counts.

    Raises:
        DataError: If shapes differ or every weight is 0.
    """
    logp, logq = _counted(weights, target_logprobs, sampling_logprobs)
    log_ratio = logp - logq
    ratio = log_ratio.exp()
    # w is computed from log r - max log r, because r may overflow although w does not. At the maximum w is set to 1
    # instead of computed: inf - inf is nan.
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
    """Compute ``clip_frac/low``, ``clip_frac/high`` and ``out_of_range_frac``.

    Args:
        target_logprobs: log p, ``(tokens,)``.
        sampling_logprobs: log q, ``(tokens,)``.
        advantages: ``(tokens,)``.
        weights: As in :func:`ratio_metrics`.
        clip_low_threshold: Lower bound of the ratio itself.
        clip_high_threshold: Upper bound of the ratio itself.

    Raises:
        DataError: As :func:`ratio_metrics`.
    """
    logp, logq, advantage = _counted(weights, target_logprobs, sampling_logprobs, advantages)
    ratio = (logp - logq).exp()
    below, above = ratio < clip_low_threshold, ratio > clip_high_threshold
    return {
        "clip_frac/low": float((below & (advantage < 0)).float().mean()),
        "clip_frac/high": float((above & (advantage > 0)).float().mean()),
        "out_of_range_frac": float((below | above).float().mean()),
    }


def kl_base_metrics(
    target_logprobs: torch.Tensor, base_logprobs: torch.Tensor, weights: torch.Tensor | None = None
) -> dict[str, float]:
    """Compute ``kl_base/k1``, ``kl_base/k2`` and ``kl_base/k3``, estimates of KL(trainer || base).

    They are unbiased if the tokens are drawn from the trainer's distribution, as on-policy tokens are.

    Args:
        target_logprobs: log p, ``(tokens,)``.
        base_logprobs: Log-probabilities under the base model, ``(tokens,)``.
        weights: As in :func:`ratio_metrics`.

    Raises:
        DataError: As :func:`ratio_metrics`.
    """
    logp, logb = _counted(weights, target_logprobs, base_logprobs)
    return _estimators("kl_base", logb - logp)


def mismatch_metrics(
    target_logprobs: torch.Tensor, sampling_logprobs: torch.Tensor, weights: torch.Tensor | None = None
) -> dict[str, float]:
    """Compute ``mismatch/mean`` and ``mismatch/max``. Arguments and errors as :func:`ratio_metrics`."""
    logp, logq = _counted(weights, target_logprobs, sampling_logprobs)
    difference = (logp - logq).abs()
    return {"mismatch/mean": float(difference.mean()), "mismatch/max": float(difference.max())}


def log_ratios_by_sign(
    target_logprobs: torch.Tensor,
    sampling_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    weights: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Return :math:`\log r` of the tokens with A > 0 and of those with A < 0, float64.

    They are separate because they are clipped on different sides: tokens with A > 0 above, tokens with A < 0 below.
    Tokens with A = 0 are in neither. Arguments and errors as :func:`clip_metrics`.
    """
    logp, logq, advantage = _counted(weights, target_logprobs, sampling_logprobs, advantages)
    log_ratio = logp - logq
    return log_ratio[advantage > 0], log_ratio[advantage < 0]


def _estimators(name: str, log_ratio: torch.Tensor) -> dict[str, float]:
    """Estimate KL(a || b) by k1, k2 and k3 from ``log_ratio``, log b - log a of tokens drawn from a."""
    k3 = torch.expm1(log_ratio) - log_ratio
    return {
        f"{name}/k1": float(-log_ratio.mean()),
        f"{name}/k2": float(0.5 * (log_ratio**2).mean()),
        # For an infinite ratio, r - 1 - log r is infinite (r - 1 grows faster), but inf - inf would give nan.
        f"{name}/k3": float(torch.where(log_ratio == math.inf, math.inf, k3).mean()),
    }


def _counted(weights: torch.Tensor | None, *tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return the entries of nonzero weight of each tensor, detached, float64."""
    shapes = {tuple(t.shape) for t in (*tensors, *([] if weights is None else [weights]))}
    if len(shapes) != 1:
        raise DataError(f"shapes differ: {sorted(shapes)}, expected one value per token in each tensor")
    if weights is None:
        weights = torch.ones_like(tensors[0])
    if not bool((weights != 0).any()):
        raise DataError("no token has a nonzero weight, expected at least one", field="weights")
    return tuple(t.detach()[weights != 0].double() for t in tensors)
