r"""Policy losses in the custom contract: GRPO, Dr. GRPO, GSPO and on-policy distillation, on sampled completions.

One datum is one sample. Notation, per token, with the ``loss_fn_inputs`` it is read from:

==========================  ===========================================================================
:math:`\log p`              under the model being trained, nats (``logprobs_list``)
:math:`\log q`              ``logprobs``: under the model that sampled
:math:`A`                   ``advantages``: how much better than expected; GRPO's is equal for all tokens of a sample
:math:`w`                   ``weights``: 0 on the prompt, 1 on the completion; all 1 if absent
:math:`\log p_{ref}`        ``reference_logprobs``: under the model before training
:math:`\log p_T`            ``teacher_logprobs``: under the teacher model
:math:`r`                   the probability ratio :math:`\exp(\log p - \log q)`
==========================  ===========================================================================

Unlike the built-in losses these are means, as in their papers, so a batch's loss does not grow with its size. A weight
of 0 is a strong mask: that token adds exactly 0 to loss and gradient. A log-ratio is clamped to 20 nats before it is
exponentiated, so that no token makes a loss infinite; a clamped log-ratio has no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ..errors import DataError
from .builtin import CLIP_PARAMS, SAMPLED_INPUTS
from .clip import clip_by_names
from .spec import REFERENCE, LossSpec, Param

if TYPE_CHECKING:
    from ..types import Datum

__all__ = [
    "DR_GRPO",
    "GRPO",
    "GSPO",
    "REVERSE_KL",
    "Rollouts",
    "clip_share",
    "dr_grpo_loss",
    "grpo_loss",
    "gspo_loss",
    "probability_ratio",
    "read_rollouts",
    "reverse_kl_loss",
]

MAX_LOG_RATIO = 20.0  # nats; e^20 is 5e8


@dataclass(frozen=True)
class Rollouts:
    """A concatenated batch of sampled completions; every value at a position of weight 0 is 0.

    Attributes:
        logprobs: Log-probabilities under the model being trained, ``(tokens,)``, requires grad.
        weights: ``(tokens,)``.
        fields: Per-token inputs by name, ``(tokens,)`` each.
        owner: Index of the sample that a token belongs to, ``(tokens,)``, int64.
        samples: Number of samples.
    """

    logprobs: torch.Tensor
    weights: torch.Tensor
    fields: dict[str, torch.Tensor]
    owner: torch.Tensor
    samples: int

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """Return the weighted sum over the tokens of each sample, ``(samples,)``."""
        return values.new_zeros(self.samples).index_add(0, self.owner, self.weights * values)

    def means(self, values: torch.Tensor) -> torch.Tensor:
        """Return the weighted mean over the tokens of each sample, ``(samples,)``; 0 if no token is weighted."""
        lengths = self.sums(torch.ones_like(values))
        return self.sums(values) / lengths.masked_fill(lengths == 0, 1.0)

    def share(self, chosen: torch.Tensor) -> float:
        """Return the share of weighted tokens where ``chosen`` (bool) is True, or the mean of a number over them."""
        return float(chosen[self.weights != 0].detach().double().mean())


def read_rollouts(data: list[Datum], logprobs_list: list[torch.Tensor], *names: str) -> Rollouts:
    """Concatenate a batch, with the per-token inputs ``names``.

    Raises:
        DataError: If there are no datums or no weighted token, or an input is missing, has another length than the
            log-probabilities, or is not finite at a weighted token.
    """
    if not data:
        raise DataError("got no datums, expected at least one sample")
    logprobs = torch.cat(logprobs_list)
    rows: dict[str, list[torch.Tensor]] = {name: [] for name in ("weights", *names)}
    for i, (datum, own) in enumerate(zip(data, logprobs_list, strict=True)):
        for name, row in rows.items():
            found = datum.loss_fn_inputs.get(name)
            if found is None and name != "weights":
                raise DataError(_missing(name, datum), index=i, field=name)
            values = torch.ones_like(own) if found is None else found.to_torch().to(own)
            if values.shape != own.shape:
                message = f"shape {tuple(values.shape)}, expected {tuple(own.shape)} as the log-probabilities"
                raise DataError(message, index=i, field=name)
            row.append(values)
    lengths = torch.tensor([len(own) for own in logprobs_list])
    owner = torch.repeat_interleave(torch.arange(len(data)), lengths).to(logprobs.device)
    weights = torch.cat(rows.pop("weights"))
    masked = weights == 0
    if bool(masked.all()):
        raise DataError("every weight of the batch is 0, so there is no mean to take", index=0, field="weights")
    fields = {name: torch.cat(row).masked_fill(masked, 0.0) for name, row in rows.items()}
    for name, values in {"weights": weights, **fields}.items():
        if not bool(values.isfinite().all()):
            index = int(owner[~values.isfinite()][0])
            raise DataError("not finite at a weighted token, expected a number", index=index, field=name)
    return Rollouts(logprobs.masked_fill(masked, 0.0), weights, fields, owner, len(data))


def _missing(name: str, datum: Datum) -> str:
    if name == REFERENCE:
        return "missing; fill it with data = mint_lab.data.with_reference(data, client)"
    present = ", ".join(sorted(datum.loss_fn_inputs)) or "none"
    return f"missing; fields present: {present}"


def probability_ratio(log_ratio: torch.Tensor) -> torch.Tensor:
    """Return ``exp(log_ratio)``, with log-ratios clamped to 20 nats; any shape."""
    return torch.exp(log_ratio.clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO))


def grpo_loss(
    data: list[Datum],
    logprobs_list: list[torch.Tensor],
    beta: float = 0.04,
    clip_low_threshold: float = 0.8,
    clip_high_threshold: float = 1.2,
) -> tuple[torch.Tensor, dict[str, float]]:
    r"""GRPO: mean over samples of the mean over tokens of :math:`-\min(r A, \mathrm{clamp}(r, lo, hi) A) + \beta k_3`.

    :math:`k_3 = e^{u} - u - 1` with :math:`u = \log p_{ref} - \log p` estimates KL(trained || reference) per token;
    it has a gradient and is not multiplied by the ratio, both as in the paper (TRL multiplies it by default). The
    advantages come with the data: GRPO's are a sample's reward minus its group's mean, divided by its group's standard
    deviation.
    Shao et al. 2024 (DeepSeekMath), arXiv:2402.03300.

    Args:
        data: Samples with ``logprobs``, ``advantages``, ``reference_logprobs`` (not read if ``beta`` is 0), and
            ``weights`` unless every token counts.
        logprobs_list: One ``(N_i,)`` tensor per datum.
        beta: Weight of the KL term, advantage / nats.
        clip_low_threshold, clip_high_threshold: Bounds of the ratio itself, 1 - epsilon and 1 + epsilon.

    Returns:
        The scalar loss, and ``loss``, ``ratio/mean``, ``clip_frac/low``, ``clip_frac/high`` and, with ``beta``,
        ``kl/reference`` (nats per token).

    Raises:
        DataError: As :func:`read_rollouts`.
    """
    rollouts = read_rollouts(data, logprobs_list, "logprobs", "advantages", *(["reference_logprobs"] if beta else []))
    ratio = probability_ratio(rollouts.logprobs - rollouts.fields["logprobs"])
    advantages = rollouts.fields["advantages"]
    objective = torch.minimum(ratio * advantages, ratio.clamp(clip_low_threshold, clip_high_threshold) * advantages)
    metrics = clip_share(rollouts, ratio, clip_low_threshold, clip_high_threshold)
    if beta:
        gap = rollouts.fields["reference_logprobs"] - rollouts.logprobs
        k3 = probability_ratio(gap) - gap - 1
        objective = objective - beta * k3
        metrics["kl/reference"] = rollouts.share(k3)
    loss = -rollouts.means(objective).mean()
    return loss, {"loss": float(loss.detach()), **metrics}


def dr_grpo_loss(
    data: list[Datum],
    logprobs_list: list[torch.Tensor],
    max_tokens: float = 256.0,
    clip_low_threshold: float = 0.8,
    clip_high_threshold: float = 1.2,
) -> tuple[torch.Tensor, dict[str, float]]:
    r"""Dr. GRPO, :math:`-\frac{1}{n L} \sum_{i,t} \min(r A, \mathrm{clamp}(r, lo, hi) A)`.

    Token sums are divided by a constant :math:`L` and not by each sample's own length, which would make a long wrong
    answer cheaper per token than a short one; there is no KL term. Use it with advantages that are not divided by the
    group's standard deviation. Liu et al. 2025, arXiv:2503.20783.

    Args:
        data: Samples with ``logprobs``, ``advantages``, and ``weights`` unless every token counts.
        logprobs_list: One ``(N_i,)`` tensor per datum.
        max_tokens: The constant, tokens: the longest completion that is sampled.
        clip_low_threshold, clip_high_threshold: As :func:`grpo_loss`.

    Returns:
        The scalar loss, and ``loss``, ``ratio/mean``, ``clip_frac/low`` and ``clip_frac/high``.

    Raises:
        DataError: As :func:`read_rollouts`.
    """
    rollouts = read_rollouts(data, logprobs_list, "logprobs", "advantages")
    ratio = probability_ratio(rollouts.logprobs - rollouts.fields["logprobs"])
    advantages = rollouts.fields["advantages"]
    objective = torch.minimum(ratio * advantages, ratio.clamp(clip_low_threshold, clip_high_threshold) * advantages)
    loss = -rollouts.sums(objective).mean() / max_tokens
    metrics = clip_share(rollouts, ratio, clip_low_threshold, clip_high_threshold)
    return loss, {"loss": float(loss.detach()), **metrics}


def gspo_loss(
    data: list[Datum],
    logprobs_list: list[torch.Tensor],
    clip_low_threshold: float = 0.9997,
    clip_high_threshold: float = 1.0004,
) -> tuple[torch.Tensor, dict[str, float]]:
    r"""GSPO, :math:`-\frac1n\sum_i \min(\rho_i A_i, \mathrm{clamp}(\rho_i, lo, hi) A_i)`.

    :math:`\rho_i = \exp(\mathrm{mean}_t(\log p - \log q))` is one ratio for a whole sample, since its reward is one
    number: a sample is clipped or kept as a whole. It varies far less than a token's ratio, hence the narrow bounds,
    which are the paper's. :math:`A_i` is the mean of the sample's advantages over its weighted tokens. Zheng et al.
    2025, arXiv:2507.18071. Arguments, result and errors as :func:`dr_grpo_loss`; the shares count every token of a
    clipped sample.
    """
    rollouts = read_rollouts(data, logprobs_list, "logprobs", "advantages")
    ratio = probability_ratio(rollouts.means(rollouts.logprobs - rollouts.fields["logprobs"]))
    advantages = rollouts.means(rollouts.fields["advantages"])
    objective = torch.minimum(ratio * advantages, ratio.clamp(clip_low_threshold, clip_high_threshold) * advantages)
    loss = -objective.mean()
    metrics = clip_share(rollouts, ratio[rollouts.owner], clip_low_threshold, clip_high_threshold)
    return loss, {"loss": float(loss.detach()), **metrics}


def reverse_kl_loss(data: list[Datum], logprobs_list: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
    r"""On-policy distillation: the mean over tokens of :math:`-r\, \mathrm{sg}[\log p_T - \log p]`.

    A policy gradient whose advantage at each sampled token is the teacher's log-ratio to the model, without
    gradient (:math:`\mathrm{sg}`). On policy, its gradient is that of KL(trained || teacher) of the next token, at the
    sampled prefixes; the effect of a token on the divergence of later tokens is left out, as is usual. The value is the
    estimate of that divergence, nats per token. Agarwal et al. 2023 (GKD), arXiv:2306.13649.

    Args:
        data: Samples with ``logprobs``, ``teacher_logprobs``, and ``weights`` unless every token counts.
        logprobs_list: One ``(N_i,)`` tensor per datum.

    Returns:
        The scalar loss, and ``loss``, ``ratio/mean`` and ``kl/teacher`` (the same without the ratio: the mean of
        :math:`\log p - \log p_T`, nats per token).

    Raises:
        DataError: As :func:`read_rollouts`.
    """
    rollouts = read_rollouts(data, logprobs_list, "logprobs", "teacher_logprobs")
    ratio = probability_ratio(rollouts.logprobs - rollouts.fields["logprobs"])
    advantages = (rollouts.fields["teacher_logprobs"] - rollouts.logprobs).detach()
    loss = -(rollouts.weights * ratio * advantages).sum() / rollouts.weights.sum()
    metrics = {"ratio/mean": rollouts.share(ratio), "kl/teacher": rollouts.share(-advantages)}
    return loss, {"loss": float(loss.detach()), **metrics}


def clip_share(rollouts: Rollouts, ratio: torch.Tensor, low: float, high: float) -> dict[str, float]:
    """Return ``ratio/mean``, ``clip_frac/low`` and ``clip_frac/high`` over weighted tokens of a ``(tokens,)`` ratio."""
    advantages = rollouts.fields["advantages"]
    return {
        "ratio/mean": rollouts.share(ratio),
        "clip_frac/low": rollouts.share((ratio < low) & (advantages < 0)),
        "clip_frac/high": rollouts.share((ratio > high) & (advantages > 0)),
    }


GRPO = LossSpec(
    name="grpo",
    family="policy",
    fn=grpo_loss,
    formula=r"\tfrac1n \sum_i \tfrac{1}{|y_i|} \sum_t -\min(r_t A_t,\ \mathrm{clamp}(r_t, lo, hi)\, A_t)"
    r" + \beta\,(e^{u_t} - u_t - 1),\quad u_t = \log p_{ref,t} - \log p_t",
    summary="PPO's clip on group advantages, a mean per sample, and a KL term towards the reference.",
    inputs=(*SAMPLED_INPUTS, REFERENCE),
    optional=("weights",),
    params=(Param("beta", 0.04, 0.0, 1.0, "weight of the KL term, advantage / nats"), *CLIP_PARAMS),
    unit="datum",
    reduction="mean",
    clip=clip_by_names(param.name for param in CLIP_PARAMS),
    paper="https://arxiv.org/abs/2402.03300",
)
DR_GRPO = LossSpec(
    name="dr_grpo",
    family="policy",
    fn=dr_grpo_loss,
    formula=r"-\tfrac{1}{n L} \sum_{i,t} \min(r_t A_t,\ \mathrm{clamp}(r_t, lo, hi)\, A_t)",
    summary="GRPO whose token sums are divided by a constant: no reward for length.",
    inputs=SAMPLED_INPUTS,
    optional=("weights",),
    params=(Param("max_tokens", 256.0, 1.0, 4096.0, "the constant L, tokens", minimum=1.0), *CLIP_PARAMS),
    unit="datum",
    reduction="mean",
    clip=clip_by_names(param.name for param in CLIP_PARAMS),
    paper="https://arxiv.org/abs/2503.20783",
)
GSPO = LossSpec(
    name="gspo",
    family="policy",
    fn=gspo_loss,
    formula=r"-\tfrac1n \sum_i \min(\rho_i A_i,\ \mathrm{clamp}(\rho_i, lo, hi)\, A_i)"
    r",\quad \rho_i = e^{\overline{\log p - \log q}}",
    summary="One ratio for a whole sample, which is clipped or kept as a whole.",
    inputs=SAMPLED_INPUTS,
    optional=("weights",),
    params=(
        Param("clip_low_threshold", 0.9997, 0.99, 1.0, "smallest ratio of a sample that is not clipped"),
        Param("clip_high_threshold", 1.0004, 1.0, 1.01, "largest ratio of a sample that is not clipped"),
    ),
    unit="datum",
    reduction="mean",
    paper="https://arxiv.org/abs/2507.18071",
)
REVERSE_KL = LossSpec(
    name="reverse_kl",
    family="policy",
    fn=reverse_kl_loss,
    formula=r"-\tfrac{1}{\sum w} \sum_t w_t\, r_t\, \mathrm{sg}\left[\log p_{T,t} - \log p_t\right]",
    summary="On-policy distillation: the teacher's log-ratio at each sampled token as its advantage.",
    inputs=("logprobs", "teacher_logprobs"),
    optional=("weights",),
    unit="datum",
    paper="https://arxiv.org/abs/2306.13649",
)
