r"""Losses that judge each completion by itself, desirable or undesirable: KTO and BCO, for unpaired rows and for pairs.

Custom-contract functions, as in :mod:`mint_lab.losses.dpo`, with the same log-ratio
:math:`h(y) = s(y) - s_{ref}(y)` and the implied reward :math:`\beta h`. The data are one of two kinds:

*Unpaired*: every datum has ``loss_fn_inputs["label"]``, one number of shape ``(1,)``, int64: 1 if its completion is
desirable, 0 if it is undesirable. The recipe ``unpaired`` and :func:`mint_lab.data.unpaired_to_data` add it.

*Pairs*: no datum has a label. Consecutive datums are (chosen, rejected); chosen counts as desirable.

:math:`h_+` and :math:`h_-` are the log-ratios of desirable and undesirable completions, :math:`n` the number of
completions in the batch. On pairs the losses report the metrics of :func:`mint_lab.losses.dpo.reward_metrics`, on
unpaired data those of :func:`label_metrics`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.nn.functional as F

from ..errors import DataError
from .dpo import reference_scores, reward_metrics
from .preference import completion_scores
from .spec import LABEL, REFERENCE, LossSpec, Param

if TYPE_CHECKING:
    from ..types import Datum

__all__ = ["BCO", "KTO", "JudgedBatch", "bco_loss", "judged_batch", "kto_loss", "label_metrics", "labels_of"]


class JudgedBatch(NamedTuple):
    """Completions of a batch, each desirable or not.

    Attributes:
        scores: Sequence log-probabilities, nats, ``(n,)``.
        ratios: Log-ratios :math:`h` to the reference model, nats, ``(n,)``.
        desirable: Whether each completion is desirable, bool, ``(n,)``.
        in_pairs: Whether the batch is (chosen, rejected) pairs without labels.
    """

    scores: torch.Tensor
    ratios: torch.Tensor
    desirable: torch.Tensor
    in_pairs: bool

    def metrics(self, loss: torch.Tensor, beta: float) -> dict[str, float]:
        """Return the metrics of the batch, as floats; see the top of this module."""
        if not self.in_pairs:
            return label_metrics(loss, self.scores, self.ratios, self.desirable, beta=beta)
        chosen, rejected = self.scores[0::2], self.scores[1::2]
        return reward_metrics(loss, chosen, rejected, self.ratios[0::2], self.ratios[1::2], beta=beta)


def judged_batch(data: list[Datum], logprobs_list: list[torch.Tensor]) -> JudgedBatch:
    """Return the scores of a batch, their log-ratios to the reference model, and which completions are desirable.

    Args:
        data: ``n`` datums with ``weights`` and ``reference_logprobs``: all with ``label``, or pairs without.
        logprobs_list: One ``(N_i,)`` tensor per datum.

    Raises:
        DataError: As :func:`labels_of`, :func:`~mint_lab.losses.preference.completion_scores` and
            :func:`~mint_lab.losses.dpo.log_ratios`; and if the datums have no labels and their number is odd.
    """
    labels = labels_of(data)
    if labels is None and len(data) % 2:
        raise DataError(
            f"got {len(data)} datums, expected consecutive (chosen, rejected) pairs, or a label for every datum: "
            f"loss_fn_inputs[{LABEL!r}], 1 desirable, 0 undesirable"
        )
    scores, _ = completion_scores(data, logprobs_list)
    ratios = scores - reference_scores(data, scores)
    desirable = (torch.arange(len(data)) % 2 == 0) if labels is None else labels
    return JudgedBatch(scores, ratios, desirable.to(scores.device), labels is None)


def labels_of(data: list[Datum]) -> torch.Tensor | None:
    """Return whether each datum's completion is desirable, bool, ``(n,)``; None if no datum has a label.

    Raises:
        DataError: If only some datums have a ``label``, or one is not a single 1 or 0 of shape ``(1,)``.
    """
    found = [datum.loss_fn_inputs.get(LABEL) for datum in data]
    if all(label is None for label in found):
        return None
    values: list[bool] = []
    for index, label in enumerate(found):
        if label is None:
            raise DataError(
                "missing, and other datums have one; expected a label for every datum, or for none (pairs)",
                index=index,
                field=LABEL,
            )
        array = label.to_numpy()
        if array.shape != (1,) or array.item() not in (0, 1):
            given = f"shape {array.shape}" if array.shape != (1,) else f"{array.item():g}"
            raise DataError(
                f"found {given}, expected one number of shape (1,): 1 desirable, 0 undesirable",
                index=index,
                field=LABEL,
            )
        values.append(bool(array.item()))
    return torch.tensor(values)


def kto_loss(
    data: list[Datum],
    logprobs_list: list[torch.Tensor],
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> tuple[torch.Tensor, dict[str, float]]:
    r"""KTO, :math:`\frac1n [\sum \lambda_+(1-\sigma(\beta(h_+ - z))) + \sum \lambda_-(1-\sigma(\beta(z - h_-)))]`.

    Each completion is compared with a reference point :math:`z` on its own. Ethayarajh et al. 2024, arXiv:2402.01306.

    :math:`z` stands for the KL divergence from the reference. The paper and TRL estimate it with further passes, over
    prompts with the completions of other prompts of the batch: :math:`\max(0, \text{mean of } h)` of these. A loss
    sees only the log-probabilities of its batch, so here :math:`z` is :math:`\max(0, \text{mean of } h)` over the
    completions of the batch themselves, desirable and undesirable, without gradient. This estimate moves with what is
    learned: it rises as the desirable completions do, and in a batch of desirable completions only it is their own
    mean. If it is 0, the loss is TRL's ``apo_zero_unpaired``, and on pairs half of
    :func:`~mint_lab.losses.dpo.apo_zero_loss`.

    Args:
        data: Datums with ``weights``, ``reference_logprobs`` and ``label``; or consecutive (chosen, rejected) pairs
            without ``label``.
        logprobs_list: One ``(N_i,)`` tensor per datum.
        beta: How quickly the value saturates away from the reference point, 1 / nats.
        desirable_weight, undesirable_weight: The paper's lambdas. For :math:`n_+` and :math:`n_-` rows the paper
            recommends :math:`1 \le \lambda_+ n_+ / (\lambda_- n_-) \le 4/3`.

    Returns:
        The scalar loss, the metrics of :meth:`JudgedBatch.metrics`, and ``kl/reference`` (the estimate of z, nats per
        completion).

    Raises:
        DataError: As :func:`judged_batch`.
    """
    batch = judged_batch(data, logprobs_list)
    desirable_ratios, undesirable_ratios = batch.ratios[batch.desirable], batch.ratios[~batch.desirable]
    z = torch.cat([desirable_ratios, undesirable_ratios]).detach().mean().clamp(min=0)
    desirable = desirable_weight * (1 - torch.sigmoid(beta * (desirable_ratios - z)))
    undesirable = undesirable_weight * (1 - torch.sigmoid(beta * (z - undesirable_ratios)))
    loss = torch.cat([desirable, undesirable]).mean()
    return loss, batch.metrics(loss, beta) | {"kl/reference": float(z)}


def bco_loss(
    data: list[Datum], logprobs_list: list[torch.Tensor], beta: float = 0.1
) -> tuple[torch.Tensor, dict[str, float]]:
    r"""BCO, :math:`-\frac1n [\sum \log\sigma(\beta h_+ - \delta) + \sum \log\sigma(\delta - \beta h_-)]`.

    A binary classifier of desirable and undesirable completions, whose logit is the implied reward. Jung et al. 2024,
    arXiv:2404.04656. For any :math:`\delta` the terms of a pair bound DPO's loss from above, because
    :math:`\sigma(a)\,\sigma(b) < \sigma(a + b)`; the shift keeps the bound tight.

    The shift is :math:`\delta = \frac12(\overline{\beta h_+} + \overline{\beta h_-})` of the batch, without gradient.
    If the batch has completions of one label only, :math:`\delta` is 0, the shift before training. The paper's
    :math:`\delta` is an exponential moving average of the same mean over batches; that of TRL's ``BCOTrainer`` is the
    mean over all rewards so far, whatever their label; TRL's ``bco_pair`` has none. A loss that kept such a mean would
    depend on the order of its calls, so it could be neither resumed nor compared. As TRL does, the loss averages over
    completions; the paper adds the means of the two labels.

    Args:
        data: Datums with ``weights``, ``reference_logprobs`` and ``label``; or consecutive (chosen, rejected) pairs
            without ``label``.
        logprobs_list: One ``(N_i,)`` tensor per datum.
        beta: Strength of the pull towards the reference, 1 / nats.

    Returns:
        The scalar loss, nats, the metrics of :meth:`JudgedBatch.metrics`, and ``rewards/shift`` (delta, nats times
        beta).

    Raises:
        DataError: As :func:`judged_batch`.
    """
    batch = judged_batch(data, logprobs_list)
    desirable, undesirable = beta * batch.ratios[batch.desirable], beta * batch.ratios[~batch.desirable]
    shift = batch.ratios.new_zeros(())
    if len(desirable) and len(undesirable):
        shift = (desirable.detach().mean() + undesirable.detach().mean()) / 2
    loss = -torch.cat([F.logsigmoid(desirable - shift), F.logsigmoid(shift - undesirable)]).mean()
    return loss, batch.metrics(loss, beta) | {"rewards/shift": float(shift)}


def label_metrics(
    loss: torch.Tensor, scores: torch.Tensor, ratios: torch.Tensor, desirable: torch.Tensor, *, beta: float
) -> dict[str, float]:
    r"""Return the metrics that this module's losses report of unpaired data, as floats, under TRL's names.

    ``logps/chosen`` and ``rewards/chosen`` are means over the desirable completions, ``logps/rejected`` and
    ``rewards/rejected`` over the undesirable ones, ``rewards/margins`` is the difference of the two mean rewards
    :math:`\beta h`. A batch that lacks a label lacks its metrics and ``rewards/margins``.

    Args:
        loss: The loss.
        scores, ratios: Scores and their log-ratios to the reference, nats, ``(n,)``.
        desirable: Whether each completion is desirable, bool, ``(n,)``.
        beta: Nats to reward.
    """
    numbers = {"loss": loss}
    for name, mask in (("chosen", desirable), ("rejected", ~desirable)):
        if bool(mask.any()):
            numbers |= {f"logps/{name}": scores[mask].mean(), f"rewards/{name}": beta * ratios[mask].mean()}
    if {"rewards/chosen", "rewards/rejected"} <= set(numbers):
        numbers["rewards/margins"] = numbers["rewards/chosen"] - numbers["rewards/rejected"]
    return dict(zip(numbers, torch.stack(list(numbers.values())).detach().tolist(), strict=True))


_INPUTS = ("weights", REFERENCE)

KTO = LossSpec(
    name="kto",
    family="preference",
    fn=kto_loss,
    formula=r"\tfrac1n \sum \lambda_\pm\, \sigma\left(\pm\beta (z - h_\pm)\right),\quad z = \max(0, \bar h)",
    summary="Each completion on its own, desirable or not, compared with how far the batch has moved.",
    inputs=_INPUTS,
    optional=(LABEL,),
    params=(
        Param("beta", 0.1, 0.01, 10.0, "strength of the pull towards the reference, 1 / nats"),
        Param("desirable_weight", 1.0, 0.0, 5.0, "weight of the chosen (desirable) completions"),
        Param("undesirable_weight", 1.0, 0.0, 5.0, "weight of the rejected (undesirable) completions"),
    ),
    unit="pair",
    paper="https://arxiv.org/abs/2402.01306",
)
BCO = LossSpec(
    name="bco",
    family="preference",
    fn=bco_loss,
    formula=r"-\tfrac1n \left[\sum \log\sigma(\beta h_+ - \delta) + \sum \log\sigma(\delta - \beta h_-)\right]"
    r",\quad \delta = \tfrac{\beta}{2} (\bar h_+ + \bar h_-)",
    summary="A binary classifier of desirable and undesirable completions, with the implied reward as its logit.",
    inputs=_INPUTS,
    optional=(LABEL,),
    params=(Param("beta", 0.1, 0.01, 10.0, "strength of the pull towards the reference, 1 / nats"),),
    unit="pair",
    paper="https://arxiv.org/abs/2404.04656",
)
