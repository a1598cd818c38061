r"""Preference losses: custom-contract functions on consecutive (chosen, rejected) pairs.

Each takes ``(data, logprobs_list)`` and returns ``(loss, metrics)`` as MinT's ``forward_backward_custom`` expects, and
each reads on its own, so that it can be opened as a cell and changed. Notation for a pair with prompt :math:`x`:

====================  ===============================================================================
:math:`s(y)`          sequence score :math:`\sum_t w_t \log p(y_t \mid x, y_{<t})`, nats
:math:`m`             margin :math:`s(y_{chosen}) - s(y_{rejected})`, nats
====================  ===============================================================================

Losses are means over pairs, as in MinT's example and in the papers: they couple the batch through that mean only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

from ..errors import DataError
from .contract import LossSpec, Param

if TYPE_CHECKING:
    from ..types import Datum

__all__ = [
    "HINGE",
    "PAIRWISE_PREFERENCE",
    "SIMPO",
    "hinge_loss",
    "pairwise_preference_loss",
    "sequence_scores",
    "simpo_loss",
]


def sequence_scores(
    data: list[Datum], logprobs_list: list[torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    r"""Weighted sequence log-probabilities of consecutive pairs.

    Args:
        data: ``2 n`` datums, (chosen, rejected, chosen, rejected, ...), each with ``weights`` of shape ``(N_i,)``.
        logprobs_list: ``2 n`` tensors of shape ``(N_i,)``.

    Returns:
        ``(chosen, rejected, lengths)``: scores in nats, each ``(n,)``, and the sum of the weights of each sequence,
        ``(n, 2)`` with the chosen one first. A position of weight 0 adds exactly 0, even where it is not finite.

    Raises:
        DataError: an odd number of datums, a datum without ``weights``, or weights of another length.
    """
    if len(data) % 2 or not data:
        raise DataError(
            f"got {len(data)} datums, expected consecutive (chosen, rejected) pairs; "
            "check that no side of a pair was dropped"
        )
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
    # One pass over the batch laid end to end: a Python loop of small dots costs more than the tiny model's own step.
    flat = torch.cat(logprobs_list)
    weights = torch.cat([d.loss_fn_inputs["weights"].to_torch() for d in data]).to(flat)
    owner = torch.repeat_interleave(torch.arange(len(data)), torch.tensor([len(lp) for lp in logprobs_list])).to(
        flat.device
    )
    weighted = weights * flat.masked_fill(weights == 0, 0.0)
    scores = flat.new_zeros(len(data)).index_add(0, owner, weighted)
    lengths = flat.new_zeros(len(data)).index_add(0, owner, weights)
    return scores[0::2], scores[1::2], lengths.view(-1, 2)


def pairwise_preference_loss(
    data: list[Datum], logprobs_list: list[torch.Tensor], beta: float = 1.0
) -> tuple[torch.Tensor, dict[str, float]]:
    r"""Bradley-Terry on sequence log-probabilities, :math:`-\frac1n\sum \log\sigma(\beta m)`, in nats.

    The model that MinT's documentation trains as its custom-loss example; with ``beta`` 1 the two are the same.
    Bradley and Terry 1952, "Rank analysis of incomplete block designs", Biometrika 39.

    Args:
        data: consecutive (chosen, rejected) pairs with ``weights``.
        logprobs_list: one ``(N_i,)`` tensor a datum.
        beta: inverse temperature of the preference, 1 / nats.

    Returns:
        The scalar loss, and ``loss``, ``pair_accuracy`` (share of margins above 0) and ``mean_margin`` (times beta).

    Raises:
        DataError: an odd number of datums, or weights that are missing or of another length.
    """
    chosen, rejected, _ = sequence_scores(data, logprobs_list)
    margins = beta * (chosen - rejected)
    loss = -F.logsigmoid(margins).mean()
    return loss, _pair_metrics(loss, margins)


def hinge_loss(
    data: list[Datum], logprobs_list: list[torch.Tensor], beta: float = 1.0
) -> tuple[torch.Tensor, dict[str, float]]:
    r"""Margin ranking, :math:`\frac1n\sum \max(0, 1 - \beta m)`: a pair ahead by :math:`1/\beta` nats is left alone.

    The calibration term of SLiC-HF (Zhao et al. 2023, arXiv:2305.10425). Arguments, result and errors as
    :func:`pairwise_preference_loss`.
    """
    chosen, rejected, _ = sequence_scores(data, logprobs_list)
    margins = beta * (chosen - rejected)
    loss = torch.relu(1 - margins).mean()
    return loss, _pair_metrics(loss, margins)


def simpo_loss(
    data: list[Datum], logprobs_list: list[torch.Tensor], beta: float = 2.0, gamma: float = 1.0
) -> tuple[torch.Tensor, dict[str, float]]:
    r"""SimPO, :math:`-\frac1n\sum \log\sigma(\beta (\bar s_{chosen} - \bar s_{rejected}) - \gamma)`.

    :math:`\bar s` is the mean log-probability per weighted token, nats: no reference model, no reward for length. Meng
    et al. 2024, arXiv:2405.14734. ``mean_margin`` is of :math:`\beta(\bar s_{chosen} - \bar s_{rejected})`, as TRL
    reports it. Raises as :func:`pairwise_preference_loss`, and :class:`DataError` for a side without weighted tokens.
    """
    chosen, rejected, lengths = sequence_scores(data, logprobs_list)
    if not bool((lengths > 0).all()):
        empty = int((lengths.flatten() <= 0).nonzero()[0])
        raise DataError("no token counts, so there is no mean to take", index=empty, field="weights")
    margins = beta * (chosen / lengths[:, 0] - rejected / lengths[:, 1])
    loss = -F.logsigmoid(margins - gamma).mean()
    return loss, _pair_metrics(loss, margins)


def _pair_metrics(loss: torch.Tensor, margins: torch.Tensor) -> dict[str, float]:
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
    formula=r"-\tfrac1n \sum \log \sigma\left(\beta\,(s_{chosen} - s_{rejected})\right)",
    summary="Bradley-Terry: make the chosen completion more likely than the rejected one.",
    inputs=("weights",),
    params=(_BETA,),
    pairs=True,
    paper="https://doi.org/10.2307/2334029",
)
HINGE = LossSpec(
    name="hinge",
    family="preference",
    fn=hinge_loss,
    formula=r"\tfrac1n \sum \max\left(0,\ 1 - \beta\,(s_{chosen} - s_{rejected})\right)",
    summary="Margin ranking: a pair that is far enough ahead is left alone.",
    inputs=("weights",),
    params=(_BETA,),
    pairs=True,
    paper="https://arxiv.org/abs/2305.10425",
)
SIMPO = LossSpec(
    name="simpo",
    family="preference",
    fn=simpo_loss,
    formula=r"-\tfrac1n \sum \log \sigma\left(\beta\,(\bar s_{chosen} - \bar s_{rejected}) - \gamma\right)",
    summary="Preference on the mean log-probability per token, with a target margin.",
    inputs=("weights",),
    params=(
        Param("beta", 2.0, 0.01, 20.0, "inverse temperature, 1 / nats per token"),
        Param("gamma", 1.0, 0.0, 10.0, "target margin, nats per token times beta"),
    ),
    pairs=True,
    paper="https://arxiv.org/abs/2405.14734",
)
