r"""Preference losses with a reference model: DPO and related losses, on consecutive (chosen, rejected) pairs.

Custom-contract functions, as in :mod:`mint_lab.losses.preference`, that also read
``loss_fn_inputs["reference_logprobs"]``, ``(N,)``: the log-probabilities of the targets under the model before
training. ``mint_lab.data.with_reference(data, client)`` fills it; a :class:`~mint_lab.runs.run.Run` does so
automatically.

====================  ===============================================================================
:math:`s(y)`          sequence score :math:`\sum_t w_t \log p(y_t \mid x, y_{<t})`, nats
:math:`h(y)`          log-ratio :math:`s(y) - s_{ref}(y)`, nats; :math:`h_+` chosen, :math:`h_-` rejected
:math:`\beta h`       the reward that the loss implies
====================  ===============================================================================

All report ``pair_accuracy``, ``mean_margin``, ``logps/chosen`` and ``logps/rejected`` of the scores, which compare with
any other loss, and ``rewards/chosen``, ``rewards/rejected``, ``rewards/margins`` and
``rewards/accuracies`` of :math:`\beta h`, as TRL does (but for ties). Losses are means over pairs.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from ..errors import ConfigError, DataError
from .preference import check_lengths, completion_scores, sequence_scores
from .spec import REFERENCE, LossSpec, Param

if TYPE_CHECKING:
    from ..types import Datum

__all__ = [
    "APO_DOWN",
    "APO_ZERO",
    "DPO",
    "DPO_HINGE",
    "IPO",
    "NCA_PAIR",
    "ROBUST_DPO",
    "apo_down_loss",
    "apo_zero_loss",
    "dpo_hinge_loss",
    "dpo_loss",
    "ipo_loss",
    "log_ratios",
    "nca_pair_loss",
    "reference_scores",
    "reward_metrics",
    "robust_dpo_loss",
]


def log_ratios(data: list[Datum], chosen: torch.Tensor, rejected: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Return the log-ratios :math:`h` to the reference model of scores from :func:`sequence_scores`.

    Args:
        data: ``2 n`` datums with ``weights`` and ``reference_logprobs``.
        chosen, rejected: Their scores, nats, each ``(n,)``.

    Returns:
        ``(h_chosen, h_rejected)``, nats, each ``(n,)``.

    Raises:
        DataError: If a datum's ``reference_logprobs`` are missing, have another length than its weights, or are not
            finite at a weighted token.
    """
    reference = reference_scores(data, chosen)
    return chosen - reference[0::2], rejected - reference[1::2]


def reference_scores(data: list[Datum], like: torch.Tensor) -> torch.Tensor:
    """Return the scores of the datums under the reference model, nats, ``(n,)``.

    Args:
        data: ``n`` datums with ``weights`` and ``reference_logprobs``.
        like: A tensor with the device and the precision of the result.

    Raises:
        DataError: As :func:`log_ratios`.
    """
    rows: list[torch.Tensor] = []
    for i, datum in enumerate(data):
        found = datum.loss_fn_inputs.get(REFERENCE)
        if found is None:
            raise DataError(
                "missing; fill it with data = mint_lab.data.with_reference(data, client)", index=i, field=REFERENCE
            )
        row = found.to_torch().to(like)
        expected = datum.loss_fn_inputs["weights"].to_numpy().shape
        if tuple(row.shape) != expected:
            raise DataError(f"shape {tuple(row.shape)}, expected {expected} as the weights", index=i, field=REFERENCE)
        rows.append(row)
    reference, _ = completion_scores(data, rows)
    finite = reference.isfinite()
    if not bool(finite.all()):
        raise DataError(
            "not finite at a weighted token, expected log-probabilities; compute them again with with_reference",
            index=int((~finite).nonzero()[0]),
            field=REFERENCE,
        )
    return reference


def dpo_loss(
    data: list[Datum], logprobs_list: list[torch.Tensor], beta: float = 0.1, label_smoothing: float = 0.0
) -> tuple[torch.Tensor, dict[str, float]]:
    r"""DPO, :math:`-\frac1n\sum (1-\epsilon)\log\sigma(d) + \epsilon\log\sigma(-d)`, :math:`d = \beta(h_+ - h_-)`.

    Rafailov et al. 2023, arXiv:2305.18290. With :math:`\epsilon > 0` it is conservative DPO (Mitchell 2023, "A note on
    DPO with noisy preferences"), which stops widening a margin at :math:`\log\frac{1-\epsilon}{\epsilon} / \beta`.

    Args:
        data: Consecutive (chosen, rejected) pairs with ``weights`` and ``reference_logprobs``.
        logprobs_list: One ``(N_i,)`` tensor per datum.
        beta: Strength of the pull towards the reference, 1 / nats.
        label_smoothing: Assumed share of pairs with swapped labels, 0 to 0.5.

    Returns:
        The scalar loss, nats, and the metrics of :func:`reward_metrics`.

    Raises:
        DataError: As :func:`~mint_lab.losses.preference.sequence_scores` and :func:`log_ratios`.
    """
    chosen, rejected, _ = sequence_scores(data, logprobs_list)
    chosen_ratio, rejected_ratio = log_ratios(data, chosen, rejected)
    margins = beta * (chosen_ratio - rejected_ratio)
    loss = -((1 - label_smoothing) * F.logsigmoid(margins) + label_smoothing * F.logsigmoid(-margins)).mean()
    return loss, reward_metrics(loss, chosen, rejected, chosen_ratio, rejected_ratio, beta=beta)


def robust_dpo_loss(
    data: list[Datum], logprobs_list: list[torch.Tensor], beta: float = 0.1, label_smoothing: float = 0.1
) -> tuple[torch.Tensor, dict[str, float]]:
    r"""Robust DPO, the mean of :math:`\frac{-(1-\epsilon)\log\sigma(d) + \epsilon\log\sigma(-d)}{1 - 2\epsilon}`.

    :math:`d = \beta(h_+ - h_-)`. In expectation over labels of which a share :math:`\epsilon` is flipped, this is DPO
    on clean labels; a single value may be negative. Chowdhury et al. 2024, arXiv:2403.00409. Arguments, result and
    errors as :func:`dpo_loss`, and :class:`ConfigError` for a ``label_smoothing`` that is not below 0.5.
    """
    if not 0 <= label_smoothing < 0.5:
        raise ConfigError(f"label_smoothing is {label_smoothing:g}, expected a share from 0 to below 0.5")
    chosen, rejected, _ = sequence_scores(data, logprobs_list)
    chosen_ratio, rejected_ratio = log_ratios(data, chosen, rejected)
    margins = beta * (chosen_ratio - rejected_ratio)
    clean, flipped = -F.logsigmoid(margins), -F.logsigmoid(-margins)
    loss = (((1 - label_smoothing) * clean - label_smoothing * flipped) / (1 - 2 * label_smoothing)).mean()
    return loss, reward_metrics(loss, chosen, rejected, chosen_ratio, rejected_ratio, beta=beta)


def dpo_hinge_loss(
    data: list[Datum], logprobs_list: list[torch.Tensor], beta: float = 0.1
) -> tuple[torch.Tensor, dict[str, float]]:
    r"""Hinge on the reward margin, :math:`\frac1n\sum \max(0, 1 - \beta(h_+ - h_-))`.

    SLiC's hinge with DPO's rewards: "hinge-norm" of RSO (Liu et al. 2023, arXiv:2309.06657). A pair whose log-ratios
    are :math:`1/\beta` nats apart has no gradient. Arguments, result and errors as :func:`dpo_loss`.
    """
    chosen, rejected, _ = sequence_scores(data, logprobs_list)
    chosen_ratio, rejected_ratio = log_ratios(data, chosen, rejected)
    loss = torch.relu(1 - beta * (chosen_ratio - rejected_ratio)).mean()
    return loss, reward_metrics(loss, chosen, rejected, chosen_ratio, rejected_ratio, beta=beta)


def ipo_loss(
    data: list[Datum], logprobs_list: list[torch.Tensor], beta: float = 0.1
) -> tuple[torch.Tensor, dict[str, float]]:
    r"""IPO, :math:`\frac1n\sum \left(\bar h_+ - \bar h_- - \frac{1}{2\beta}\right)^2`, nats squared.

    The margin has a target instead of growing without bound, so the loss cannot overfit to deterministic preferences.
    :math:`\bar h = h / \sum_t w_t` is the log-ratio per weighted token, as TRL takes it after asking the authors; the
    paper writes the sum. Azar et al. 2023, arXiv:2310.12036, equation 17 (``beta`` is its tau). Arguments, result and
    errors as :func:`dpo_loss`, and :class:`DataError` for a completion without weighted tokens.
    """
    chosen, rejected, lengths = sequence_scores(data, logprobs_list)
    check_lengths(lengths)
    chosen_ratio, rejected_ratio = log_ratios(data, chosen, rejected)
    margins = chosen_ratio / lengths[:, 0] - rejected_ratio / lengths[:, 1]
    loss = ((margins - 1 / (2 * beta)) ** 2).mean()
    return loss, reward_metrics(loss, chosen, rejected, chosen_ratio, rejected_ratio, beta=beta)


def apo_zero_loss(
    data: list[Datum], logprobs_list: list[torch.Tensor], beta: float = 0.1
) -> tuple[torch.Tensor, dict[str, float]]:
    r"""APO-zero, :math:`\frac1n\sum (1 - \sigma(\beta h_+)) + \sigma(\beta h_-)`.

    The chosen completion rises and the rejected one falls, independently: for pairs whose chosen completion is better
    than the model's own.
    D'Oosterlinck et al. 2024, arXiv:2408.06266, equation 7. Arguments, result and errors as :func:`dpo_loss`.
    """
    chosen, rejected, _ = sequence_scores(data, logprobs_list)
    chosen_ratio, rejected_ratio = log_ratios(data, chosen, rejected)
    loss = (1 - torch.sigmoid(beta * chosen_ratio) + torch.sigmoid(beta * rejected_ratio)).mean()
    return loss, reward_metrics(loss, chosen, rejected, chosen_ratio, rejected_ratio, beta=beta)


def apo_down_loss(
    data: list[Datum], logprobs_list: list[torch.Tensor], beta: float = 0.5
) -> tuple[torch.Tensor, dict[str, float]]:
    r"""APO-down, :math:`\frac1n\sum \sigma(\beta h_+) + (1 - \sigma(\beta(h_+ - h_-)))`.

    Both completions fall, the rejected one further: for pairs whose chosen completion is worse than the model's own, so
    that ``logps/chosen`` should fall. D'Oosterlinck et al. 2024, arXiv:2408.06266, equation 8. The default ``beta`` is
    larger than the others' 0.1, at which the chosen completion falls by tens of nats before the first term saturates.
    Arguments, result and errors as :func:`dpo_loss`.
    """
    chosen, rejected, _ = sequence_scores(data, logprobs_list)
    chosen_ratio, rejected_ratio = log_ratios(data, chosen, rejected)
    loss = (torch.sigmoid(beta * chosen_ratio) + 1 - torch.sigmoid(beta * (chosen_ratio - rejected_ratio))).mean()
    return loss, reward_metrics(loss, chosen, rejected, chosen_ratio, rejected_ratio, beta=beta)


def nca_pair_loss(
    data: list[Datum], logprobs_list: list[torch.Tensor], beta: float = 0.1
) -> tuple[torch.Tensor, dict[str, float]]:
    r"""NCA, :math:`-\frac1n\sum \log\sigma(\beta h_+) + \frac12\log\sigma(-\beta h_+) + \frac12\log\sigma(-\beta h_-)`.

    Noise contrast of each completion with the reference: it fits the reward itself and not only a difference of two,
    which keeps the chosen log-probability from falling. Chen et al. 2024, arXiv:2402.05369. Arguments, result and
    errors as :func:`dpo_loss`.
    """
    chosen, rejected, _ = sequence_scores(data, logprobs_list)
    chosen_ratio, rejected_ratio = log_ratios(data, chosen, rejected)
    plus, minus = beta * chosen_ratio, beta * rejected_ratio
    loss = -(F.logsigmoid(plus) + 0.5 * F.logsigmoid(-plus) + 0.5 * F.logsigmoid(-minus)).mean()
    return loss, reward_metrics(loss, chosen, rejected, chosen_ratio, rejected_ratio, beta=beta)


def reward_metrics(
    loss: torch.Tensor,
    chosen: torch.Tensor,
    rejected: torch.Tensor,
    chosen_ratio: torch.Tensor,
    rejected_ratio: torch.Tensor,
    *,
    beta: float,
) -> dict[str, float]:
    r"""Return the metrics that this module's losses report, as floats.

    Before training the rewards are 0, and any difference between a pair's two sums of float32 log-probabilities is
    rounding, not preference. In ``rewards/accuracies`` a pair counts one half where :math:`|h_+ - h_-|` is at most a
    millionth of :math:`|s_+| + |s_-|`, or :math:`10^{-5}` nats, so that a run against a reference begins at 0.5. TRL
    counts ties as lost.
    ``chosen`` and ``rejected`` are scores, the ratios those to the reference, nats, each ``(n,)``.
    """
    margins, gaps = chosen - rejected, chosen_ratio - rejected_ratio
    chosen_reward, rejected_reward = beta * chosen_ratio, beta * rejected_ratio
    rounding = (1e-6 * (chosen.abs() + rejected.abs())).clamp(min=1e-5)
    numbers = {
        "loss": loss,
        "pair_accuracy": (margins > 0).to(margins).mean(),
        "mean_margin": margins.mean(),
        "logps/chosen": chosen.mean(),
        "logps/rejected": rejected.mean(),
        "rewards/chosen": chosen_reward.mean(),
        "rewards/rejected": rejected_reward.mean(),
        "rewards/margins": (chosen_reward - rejected_reward).mean(),
        "rewards/accuracies": ((gaps > rounding).to(gaps) + (gaps >= -rounding).to(gaps)).mean() / 2,
    }
    return dict(zip(numbers, torch.stack(list(numbers.values())).detach().tolist(), strict=True))


_INPUTS = ("weights", REFERENCE)
_BETA = Param("beta", 0.1, 0.01, 10.0, "strength of the pull towards the reference, 1 / nats")

DPO = LossSpec(
    name="dpo",
    family="preference",
    fn=dpo_loss,
    formula=r"-\tfrac1n\sum\log\sigma\left(\beta\,(h_\text{chosen}-h_\text{rejected})\right),\quad h = s-s_\text{ref}",
    summary="Bradley-Terry on the log-ratio to the model before training.",
    inputs=_INPUTS,
    params=(
        _BETA,
        Param("label_smoothing", 0.0, 0.0, 0.5, "assumed share of pairs with swapped labels", maximum=0.5),
    ),
    unit="pair",
    reduction="mean",
    paper="https://arxiv.org/abs/2305.18290",
)
ROBUST_DPO = LossSpec(
    name="robust_dpo",
    family="preference",
    fn=robust_dpo_loss,
    formula=r"\tfrac1n \sum \tfrac{-(1-\epsilon) \log \sigma(d) + \epsilon \log \sigma(-d)}{1 - 2\epsilon}"
    r",\quad d = \beta\,(h_\text{chosen} - h_\text{rejected})",
    summary="DPO that is unbiased if a known share of the pairs has swapped labels.",
    inputs=_INPUTS,
    params=(
        _BETA,
        Param("label_smoothing", 0.1, 0.0, 0.45, "share of pairs with swapped labels", maximum=0.49),
    ),
    unit="pair",
    reduction="mean",
    paper="https://arxiv.org/abs/2403.00409",
)
DPO_HINGE = LossSpec(
    name="dpo_hinge",
    family="preference",
    fn=dpo_hinge_loss,
    formula=r"\tfrac1n \sum \max\left(0,\ 1 - \beta\,(h_\text{chosen} - h_\text{rejected})\right)",
    summary="Hinge on the reward margin: a pair with a large enough margin has no gradient.",
    inputs=_INPUTS,
    params=(_BETA,),
    unit="pair",
    reduction="mean",
    paper="https://arxiv.org/abs/2309.06657",
)
IPO = LossSpec(
    name="ipo",
    family="preference",
    fn=ipo_loss,
    formula=r"\tfrac1n \sum \left(\bar h_\text{chosen} - \bar h_\text{rejected} - \tfrac{1}{2\beta}\right)^2",
    summary="A target for the margin per token, so that deterministic preferences cannot push it without bound.",
    inputs=_INPUTS,
    params=(Param("beta", 0.1, 0.01, 10.0, "half the inverse of the target margin, tokens / nat", minimum=1e-6),),
    unit="pair",
    reduction="mean",
    paper="https://arxiv.org/abs/2310.12036",
)
APO_ZERO = LossSpec(
    name="apo_zero",
    family="preference",
    fn=apo_zero_loss,
    formula=r"\tfrac1n \sum 1 - \sigma(\beta h_\text{chosen}) + \sigma(\beta h_\text{rejected})",
    summary="Raises chosen, lowers rejected: for chosen completions better than the model's own.",
    inputs=_INPUTS,
    params=(_BETA,),
    unit="pair",
    reduction="mean",
    paper="https://arxiv.org/abs/2408.06266",
)
APO_DOWN = LossSpec(
    name="apo_down",
    family="preference",
    fn=apo_down_loss,
    formula=r"\tfrac1n \sum \sigma(\beta h_\text{chosen}) + 1 - \sigma(\beta\,(h_\text{chosen} - h_\text{rejected}))",
    summary="Lowers both, rejected further: for chosen completions worse than the model's own.",
    inputs=_INPUTS,
    params=(replace(_BETA, default=0.5),),
    unit="pair",
    reduction="mean",
    paper="https://arxiv.org/abs/2408.06266",
)
NCA_PAIR = LossSpec(
    name="nca_pair",
    family="preference",
    fn=nca_pair_loss,
    formula=r"-\tfrac1n \sum \log\sigma(\beta h_\text{chosen}) + \tfrac12 \log\sigma(-\beta h_\text{chosen})"
    r" + \tfrac12 \log\sigma(-\beta h_\text{rejected})",
    summary="Noise contrast of each completion with the reference, which keeps the chosen one likely.",
    inputs=_INPUTS,
    params=(_BETA,),
    unit="pair",
    reduction="mean",
    paper="https://arxiv.org/abs/2402.05369",
)
