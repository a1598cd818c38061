r"""The built-in losses of the API: cross entropy, importance sampling, PPO, CISPO and DRO.

Notation, per token of a sampled completion:

=====================  =====================================================================================
``target_logprobs``    :math:`\log p`, under the model being trained, ``(tokens,)``, requires grad
``sampling_logprobs``  :math:`\log q`, under the model that sampled, ``(tokens,)``, constant
``advantages``         :math:`A`, how much better than expected, ``(tokens,)``
``weights``            0 on the prompt, 1 on the completion, ``(tokens,)``
:math:`r`              the probability ratio :math:`\exp(\log p - \log q)`
=====================  =====================================================================================

Every function returns the per-token loss ``(tokens,)``, multiplied by its weight; a batch's loss is the sum, never a
mean. A weight of 0 is a strong mask: that token adds exactly 0 to loss and gradient, even if its ratio is inf or nan.
The functions check nothing: shapes and finiteness are checked once, when a batch enters the engine.
"""

from __future__ import annotations

import torch

from .clip import clip_by_names
from .spec import LossSpec, Param

__all__ = [
    "CISPO",
    "CLIP_PARAMS",
    "CROSS_ENTROPY",
    "DRO",
    "IMPORTANCE_SAMPLING",
    "PPO",
    "SAMPLED_INPUTS",
    "cispo",
    "cross_entropy",
    "dro",
    "importance_sampling",
    "ppo",
]


def cross_entropy(target_logprobs: torch.Tensor, *, weights: torch.Tensor) -> torch.Tensor:
    r"""Weighted negative log-likelihood, :math:`-w_t \log p_t`, in nats.

    Args:
        target_logprobs: Log-probability of each target token, ``(tokens,)``, nats.
        weights: 0 on the prompt and usually 1 on the completion, ``(tokens,)``. A weight of 0 is a strong mask: that
            token adds exactly 0 to loss and gradient, even if its log-probability is not finite.

    Returns:
        The loss of each token, ``(tokens,)``, nats; a batch's loss is the sum.
    """
    masked = weights == 0
    return -(weights * target_logprobs.masked_fill(masked, 0.0))


def importance_sampling(
    target_logprobs: torch.Tensor,
    *,
    weights: torch.Tensor,
    sampling_logprobs: torch.Tensor,
    advantages: torch.Tensor,
) -> torch.Tensor:
    r"""Policy gradient corrected for the sampler, :math:`-r A`.

    At :math:`r = 1` its gradient is REINFORCE's, :math:`-A \nabla \log p`.
    """
    counted = (weights != 0) & (advantages != 0)
    ratio = torch.exp(_log_ratio(target_logprobs, sampling_logprobs, counted))
    return _weighted(-(ratio * advantages), weights, counted)


def ppo(
    target_logprobs: torch.Tensor,
    *,
    weights: torch.Tensor,
    sampling_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    clip_low_threshold: float = 0.8,
    clip_high_threshold: float = 1.2,
) -> torch.Tensor:
    r"""Clipped surrogate, :math:`-\min(r A, \mathrm{clamp}(r, lo, hi) A)` (Schulman et al. 2017, arXiv:1707.06347).

    The thresholds bound the ratio itself: PPO's :math:`1-\epsilon` and :math:`1+\epsilon`. A token whose clip is
    active (:math:`A>0, r>hi` or :math:`A<0, r<lo`) has no gradient.
    """
    counted = (weights != 0) & (advantages != 0)
    with torch.no_grad():
        ratio = torch.exp(_log_ratio(target_logprobs, sampling_logprobs, counted))
        clipped = ratio.clamp(clip_low_threshold, clip_high_threshold) * advantages
        clip_active = clipped < ratio * advantages
    # The ratio is computed a second time without the clipped tokens instead of masking the result: the gradient of an
    # infinite ratio is nan even if it is multiplied by 0.
    unclipped = counted & ~clip_active
    surrogate = torch.exp(_log_ratio(target_logprobs, sampling_logprobs, unclipped)) * advantages
    return _weighted(-torch.where(clip_active, clipped, surrogate), weights, counted)


def cispo(
    target_logprobs: torch.Tensor,
    *,
    weights: torch.Tensor,
    sampling_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    clip_low_threshold: float = 0.8,
    clip_high_threshold: float = 1.2,
) -> torch.Tensor:
    r"""Clipped importance weights, :math:`-\mathrm{sg}[\mathrm{clamp}(r, lo, hi)] \log p \, A` (arXiv:2506.13585).

    :math:`\mathrm{sg}` stops the gradient. Every token keeps a gradient, scaled by a bounded ratio; PPO would drop
    some.
    """
    counted = (weights != 0) & (advantages != 0)
    with torch.no_grad():
        ratio = torch.exp(_log_ratio(target_logprobs, sampling_logprobs, counted))
        scale = ratio.clamp(clip_low_threshold, clip_high_threshold) * advantages
    return _weighted(-(scale * target_logprobs.masked_fill(~counted, 0.0)), weights, counted)


def dro(
    target_logprobs: torch.Tensor,
    *,
    weights: torch.Tensor,
    sampling_logprobs: torch.Tensor,
    advantages: torch.Tensor,
    beta: float = 0.05,
) -> torch.Tensor:
    r"""Direct reward optimisation, :math:`-(\log p\,A - \frac{\beta}{2}(\log p - \log q)^2)` (arXiv:2405.19107).

    The quadratic term pulls towards the sampler and does not vanish if the advantage is 0, so the mask on the prompt
    matters most for this loss.
    """
    counted = weights != 0
    gap = _log_ratio(target_logprobs, sampling_logprobs, counted)
    value = target_logprobs.masked_fill(~counted, 0.0) * advantages.masked_fill(~counted, 0.0) - 0.5 * beta * gap**2
    return _weighted(-value, weights, counted)


def _log_ratio(target_logprobs: torch.Tensor, sampling_logprobs: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    """Return the log-ratio ``(tokens,)``, and a constant 0 for tokens that are not counted."""
    return target_logprobs.masked_fill(~counted, 0.0) - sampling_logprobs.masked_fill(~counted, 0.0)


def _weighted(loss: torch.Tensor, weights: torch.Tensor, counted: torch.Tensor) -> torch.Tensor:
    return loss.masked_fill(~counted, 0.0) * weights.masked_fill(~counted, 0.0)


SAMPLED_INPUTS = ("logprobs", "advantages")
CLIP_PARAMS = (
    Param("clip_low_threshold", 0.8, 0.0, 1.0, "smallest ratio r that is not clipped"),
    Param("clip_high_threshold", 1.2, 1.0, 10.0, "largest ratio r that is not clipped"),
)

CROSS_ENTROPY = LossSpec(
    name="cross_entropy",
    family="supervised",
    fn=cross_entropy,
    formula=r"-\sum_t w_t \log p_t",
    summary="Maximum likelihood of the given tokens: supervised fine-tuning.",
    inputs=("weights",),
    builtin=True,
    unit="datum",
    reduction="sum",
)
IMPORTANCE_SAMPLING = LossSpec(
    name="importance_sampling",
    family="policy",
    fn=importance_sampling,
    formula=r"-\sum_t w_t\, r_t A_t,\quad r_t = e^{\log p_t - \log q_t}",
    summary="Policy gradient with the ratio to the sampler, unclipped.",
    inputs=SAMPLED_INPUTS,
    optional=("weights",),
    builtin=True,
    unit="datum",
    reduction="sum",
)
PPO = LossSpec(
    name="ppo",
    family="policy",
    fn=ppo,
    formula=r"-\sum_t w_t \min(r_t A_t,\ \mathrm{clamp}(r_t, lo, hi)\, A_t)",
    summary="Policy gradient that stops once the ratio has left [lo, hi] in the rewarded direction.",
    inputs=SAMPLED_INPUTS,
    optional=("weights",),
    params=CLIP_PARAMS,
    builtin=True,
    unit="datum",
    reduction="sum",
    clip=clip_by_names(param.name for param in CLIP_PARAMS),
    paper="https://arxiv.org/abs/1707.06347",
)
CISPO = LossSpec(
    name="cispo",
    family="policy",
    fn=cispo,
    formula=r"-\sum_t w_t\, \mathrm{sg}[\mathrm{clamp}(r_t, lo, hi)]\, A_t \log p_t",
    summary="Policy gradient with a bounded ratio as weight: no token loses its gradient.",
    inputs=SAMPLED_INPUTS,
    optional=("weights",),
    params=CLIP_PARAMS,
    builtin=True,
    unit="datum",
    reduction="sum",
    clip=clip_by_names((param.name for param in CLIP_PARAMS), both=True),
    paper="https://arxiv.org/abs/2506.13585",
)
DRO = LossSpec(
    name="dro",
    family="policy",
    fn=dro,
    formula=r"-\sum_t w_t \left(A_t \log p_t - \tfrac{\beta}{2} (\log p_t - \log q_t)^2\right)",
    summary="Reward with a quadratic pull towards the sampler: made for off-policy data.",
    inputs=SAMPLED_INPUTS,
    optional=("weights",),
    params=(Param("beta", 0.05, 0.0, 10.0, "strength of the pull towards the sampler"),),
    builtin=True,
    unit="datum",
    reduction="sum",
    paper="https://arxiv.org/abs/2405.19107",
)
