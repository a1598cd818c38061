r"""Preference losses without a reference model: custom-contract functions on consecutive (chosen, rejected) pairs.

Losses that compare with a reference model are in :mod:`mint_lab.losses.dpo`. Each function takes
``(data, logprobs_list)`` and returns ``(loss, metrics)``, as MinT's ``forward_backward_custom`` expects, and uses few
helpers, so that it can be opened as a cell and changed. Notation for a pair with prompt :math:`x`:

====================  ===============================================================================
:math:`s(y)`          sequence score :math:`\sum_t w_t \log p(y_t \mid x, y_{<t})`, nats
:math:`\bar s(y)`     the same over :math:`\sum_t w_t`: mean log-probability, nats per token
:math:`m`             margin :math:`s(y_{chosen}) - s(y_{rejected})`, nats
====================  ===============================================================================

Losses are means over pairs, as in MinT's example and in the papers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from ..errors import DataError
from .spec import LossSpec, Param

if TYPE_CHECKING:
    from ..types import Datum

__all__ = [
    "CPO",
    "HINGE",
    "ORPO",
    "PAIRWISE_PREFERENCE",
    "SIMPO",
    "check_lengths",
    "completion_scores",
    "cpo_loss",
    "hinge_loss",
    "margin_metrics",
    "mean_scores",
    "orpo_loss",
    "pairwise_preference_loss",
    "sequence_scores",
    "simpo_loss",
]


def sequence_scores(
    data: list[Datum], logprobs_list: list[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    r"""Return the weighted sequence log-probabilities of consecutive pairs.

    Args:
        data: ``2 n`` datums, (chosen, rejected, chosen, rejected, ...), each with ``weights`` of shape ``(N_i,)``.
        logprobs_list: ``2 n`` tensors of shape ``(N_i,)``.

    Returns:
        ``(chosen, rejected, lengths)``: scores in nats, each ``(n,)``, and the sum of the weights of each sequence,
        ``(n, 2)`` with the chosen one first. A position of weight 0 adds exactly 0, even if it is not finite.

    Raises:
        DataError: If the number of datums is odd, or a datum has no ``weights`` or weights of another length.
    """
    if len(data) % 2 or not data:
        raise DataError(
            f"got {len(data)} datums, expected consecutive (chosen, rejected) pairs; "
            "check that no completion of a pair is missing"
        )
    scores, lengths = completion_scores(data, logprobs_list)
    return scores[0::2], scores[1::2], lengths.view(-1, 2)


def completion_scores(data: list[Datum], logprobs_list: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Return the weighted sequence log-probability of every datum.

    Args:
        data: ``n`` datums, each with ``weights`` of shape ``(N_i,)``.
        logprobs_list: ``n`` tensors of shape ``(N_i,)``.

    Returns:
        ``(scores, lengths)``: the scores in nats and the sum of the weights, each ``(n,)``. A position of weight 0 adds
        exactly 0, even if it is not finite.

    Raises:
        DataError: If there is no datum, or one has no ``weights`` or weights of another length.
    """
    if not data:
        raise DataError("got 0 datums, expected at least one")
    for i, (datum, logprobs) in enumerate(zip(data, logprobs_list, strict=True)):
        found = datum.loss_fn_inputs.get("weights")
        if found is None:
            raise DataError("missing; 0 on the prompt and 1 on the completion", index=i, field="weights")
        if found.to_numpy().shape != tuple(logprobs.shape):
            raise DataError(
                f"shape {found.to_numpy().shape}, expected {tuple(logprobs.shape)} as the log-probabilities",
                index=i,
                field="weights",
            )
    # One operation over the concatenated batch: a Python loop of small dot products takes longer than the bundled
    # model's step.
    flat = torch.cat(logprobs_list)  # (tokens,)
    weights = torch.cat([d.loss_fn_inputs["weights"].to_torch() for d in data]).to(flat)
    owner = torch.repeat_interleave(torch.arange(len(data)), torch.tensor([len(lp) for lp in logprobs_list])).to(
        flat.device
    )
    weighted = weights * flat.masked_fill(weights == 0, 0.0)
    scores = flat.new_zeros(len(data)).index_add(0, owner, weighted)
    lengths = flat.new_zeros(len(data)).index_add(0, owner, weights)
    return scores, lengths


def mean_scores(
    data: list[Datum], logprobs_list: list[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return what :func:`sequence_scores` does, with scores divided by the sum of the weights: nats per token.

    Raises:
        DataError: If a completion has no weighted token; also as :func:`sequence_scores`.
    """
    chosen, rejected, lengths = sequence_scores(data, logprobs_list)
    check_lengths(lengths)
    return chosen / lengths[:, 0], rejected / lengths[:, 1], lengths


def check_lengths(lengths: torch.Tensor) -> None:
    """Raise :class:`DataError` if a sequence has no weighted token, and thus no mean."""
    if not bool((lengths > 0).all()):
        empty = int((lengths.flatten() <= 0).nonzero()[0])
        raise DataError("every weight is 0, so there is no mean to take", index=empty, field="weights")


def pairwise_preference_loss(
    data: list[Datum], logprobs_list: list[torch.Tensor], beta: float = 1.0
) -> tuple[torch.Tensor, dict[str, float]]:
    r"""Bradley-Terry on sequence log-probabilities, :math:`-\frac1n\sum \log\sigma(\beta m)`, in nats.

    The model that MinT's documentation trains as its custom-loss example; with ``beta`` 1 the two are the same.
    Bradley and Terry 1952, "Rank analysis of incomplete block designs", Biometrika 39.

    Args:
        data: Consecutive (chosen, rejected) pairs with ``weights``.
        logprobs_list: One ``(N_i,)`` tensor per datum.
        beta: Inverse temperature of the preference, 1 / nats.

    Returns:
        The scalar loss, and ``loss``, ``pair_accuracy`` (share of margins above 0) and ``mean_margin`` (times beta).

    Raises:
        DataError: As :func:`sequence_scores`.
    """
    chosen, rejected, _ = sequence_scores(data, logprobs_list)
    margins = beta * (chosen - rejected)
    loss = -F.logsigmoid(margins).mean()
    return loss, margin_metrics(loss, margins)


def hinge_loss(
    data: list[Datum], logprobs_list: list[torch.Tensor], beta: float = 1.0
) -> tuple[torch.Tensor, dict[str, float]]:
    r"""Margin ranking, :math:`\frac1n\sum \max(0, 1 - \beta m)`: no gradient from :math:`1/\beta` nats on.

    The calibration term of SLiC-HF (Zhao et al. 2023, arXiv:2305.10425). Arguments, result and errors as
    :func:`pairwise_preference_loss`.
    """
    chosen, rejected, _ = sequence_scores(data, logprobs_list)
    margins = beta * (chosen - rejected)
    loss = torch.relu(1 - margins).mean()
    return loss, margin_metrics(loss, margins)


def simpo_loss(
    data: list[Datum], logprobs_list: list[torch.Tensor], beta: float = 2.0, gamma: float = 1.0
) -> tuple[torch.Tensor, dict[str, float]]:
    r"""SimPO, :math:`-\frac1n\sum \log\sigma(\beta (\bar s_{chosen} - \bar s_{rejected}) - \gamma)`.

    :math:`\bar s` is the mean log-probability per weighted token, nats: there is no reference model and no reward for
    length. Meng et al. 2024, arXiv:2405.14734. ``mean_margin`` is of
    :math:`\beta(\bar s_{chosen} - \bar s_{rejected})`, as TRL reports it. Raises as :func:`pairwise_preference_loss`,
    and :class:`DataError` for a side without weighted tokens.
    """
    chosen, rejected, _ = mean_scores(data, logprobs_list)
    margins = beta * (chosen - rejected)
    loss = -F.logsigmoid(margins - gamma).mean()
    return loss, margin_metrics(loss, margins)


def cpo_loss(
    data: list[Datum], logprobs_list: list[torch.Tensor], beta: float = 0.1, alpha: float = 1.0
) -> tuple[torch.Tensor, dict[str, float]]:
    r"""CPO, :math:`-\frac1n\sum \log\sigma(\beta m) - \alpha\,\overline{\log p}(y_{chosen})`.

    Bradley-Terry, with DPO's reference taken to be uniform, and the likelihood of the chosen side held up: the second
    term is the mean over all weighted tokens of the chosen sides, nats per token, which is how TRL takes it (the paper
    sums each sequence). Xu et al. 2024, arXiv:2401.08417.

    Args:
        data: Consecutive (chosen, rejected) pairs with ``weights``.
        logprobs_list: One ``(N_i,)`` tensor per datum.
        beta: Inverse temperature of the preference, 1 / nats.
        alpha: Weight of the second term; with 0 the loss is :func:`pairwise_preference_loss`.

    Returns:
        The scalar loss, and ``loss``, ``pair_accuracy``, ``mean_margin`` (times beta) and ``nll`` (nats per token).

    Raises:
        DataError: If no token of the chosen completions has a weight; also as :func:`sequence_scores`.
    """
    chosen, rejected, lengths = sequence_scores(data, logprobs_list)
    if not bool(lengths[:, 0].sum() > 0):
        raise DataError("every weight of the chosen completions is 0, so there is no mean to take", field="weights")
    margins = beta * (chosen - rejected)
    nll = -chosen.sum() / lengths[:, 0].sum()
    loss = -F.logsigmoid(margins).mean() + alpha * nll
    return loss, margin_metrics(loss, margins) | {"nll": float(nll.detach())}


def orpo_loss(
    data: list[Datum], logprobs_list: list[torch.Tensor], beta: float = 0.1
) -> tuple[torch.Tensor, dict[str, float]]:
    r"""ORPO, :math:`-\overline{\log p}(y_{chosen}) - \frac{\beta}{n}\sum \log\sigma(o_{chosen} - o_{rejected})`.

    :math:`o = \bar s - \log(1 - e^{\bar s})` is the log-odds of the mean log-probability per token. The first term is
    supervised fine-tuning on the chosen sides: the mean over all their weighted tokens, nats per token. TRL's counts
    the prompt's tokens in it as well; here a weight of 0 masks them. Hong et al. 2024, arXiv:2403.07691.

    Args:
        data: Consecutive (chosen, rejected) pairs with ``weights``.
        logprobs_list: One ``(N_i,)`` tensor per datum.
        beta: Weight of the odds-ratio term (the paper's lambda).

    Returns:
        The scalar loss, and ``loss``, ``pair_accuracy``, ``mean_margin`` (of the log-odds, nats) and ``nll`` (nats a
        token).

    Raises:
        DataError: as :func:`sequence_scores`, or a side without weighted tokens.
    """
    chosen, rejected, lengths = mean_scores(data, logprobs_list)
    nll = -(chosen * lengths[:, 0]).sum() / lengths[:, 0].sum()
    # Clamped a millionth of a nat below certainty, where the odds are infinite.
    chosen_odds, rejected_odds = (s - torch.log(-torch.expm1(s.clamp(max=-1e-6))) for s in (chosen, rejected))
    margins = chosen_odds - rejected_odds
    loss = nll - beta * F.logsigmoid(margins).mean()
    return loss, margin_metrics(loss, margins) | {"nll": float(nll.detach())}


def margin_metrics(loss: torch.Tensor, margins: torch.Tensor) -> dict[str, float]:
    """Return ``loss``, ``pair_accuracy`` and ``mean_margin`` of a loss and its margins ``(n,)``, as floats."""
    margins = margins.detach()
    return {
        "loss": float(loss.detach()),
        "pair_accuracy": float((margins > 0).float().mean()),
        "mean_margin": float(margins.mean()),
    }


_BETA = Param("beta", 1.0, 0.01, 10.0, "inverse temperature, 1 / nats")

PAIRWISE_PREFERENCE = LossSpec(
    name="pairwise_preference",
    family="preference",
    fn=pairwise_preference_loss,
    formula=r"-\tfrac1n \sum \log \sigma\left(\beta\,(s_\text{chosen} - s_\text{rejected})\right)",
    summary="Bradley-Terry: make the chosen completion more likely than the rejected one.",
    inputs=("weights",),
    params=(_BETA,),
    unit="pair",
    reduction="mean",
    paper="https://doi.org/10.2307/2334029",
)
HINGE = LossSpec(
    name="hinge",
    family="preference",
    fn=hinge_loss,
    formula=r"\tfrac1n \sum \max\left(0,\ 1 - \beta\,(s_\text{chosen} - s_\text{rejected})\right)",
    summary="Margin ranking: a pair with a large enough margin has no gradient.",
    inputs=("weights",),
    params=(_BETA,),
    unit="pair",
    reduction="mean",
    paper="https://arxiv.org/abs/2305.10425",
)
SIMPO = LossSpec(
    name="simpo",
    family="preference",
    fn=simpo_loss,
    formula=r"-\tfrac1n \sum \log \sigma\left(\beta\,(\bar s_\text{chosen} - \bar s_\text{rejected}) - \gamma\right)",
    summary="Preference on the mean log-probability per token, with a target margin.",
    inputs=("weights",),
    params=(
        Param("beta", 2.0, 0.01, 20.0, "inverse temperature, 1 / nats per token"),
        Param("gamma", 1.0, 0.0, 10.0, "target margin, nats per token times beta"),
    ),
    unit="pair",
    reduction="mean",
    paper="https://arxiv.org/abs/2405.14734",
)
CPO = LossSpec(
    name="cpo",
    family="preference",
    fn=cpo_loss,
    formula=r"-\tfrac1n \sum \log \sigma\left(\beta\,(s_\text{chosen} - s_\text{rejected})\right)"
    r" - \alpha\,\overline{\log p}_\text{chosen}",
    summary="Bradley-Terry plus the likelihood of the chosen completion; no reference model.",
    inputs=("weights",),
    params=(
        Param("beta", 0.1, 0.01, 10.0, "inverse temperature, 1 / nats"),
        Param("alpha", 1.0, 0.0, 10.0, "weight of the chosen side's log-likelihood, per nat a token"),
    ),
    unit="pair",
    paper="https://arxiv.org/abs/2401.08417",
)
ORPO = LossSpec(
    name="orpo",
    family="preference",
    fn=orpo_loss,
    formula=r"-\overline{\log p}_\text{chosen}"
    r" - \tfrac{\beta}{n} \sum \log \sigma\left(o_\text{chosen} - o_\text{rejected}\right)"
    r",\quad o = \bar s - \log(1 - e^{\bar s})",
    summary="Fine-tuning on the chosen completion with a penalty on the odds of the rejected one.",
    inputs=("weights",),
    params=(Param("beta", 0.1, 0.0, 10.0, "weight of the odds-ratio term, per nat"),),
    unit="pair",
    paper="https://arxiv.org/abs/2403.07691",
)
