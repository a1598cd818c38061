r"""Metrics of preference pairs. Definitions are in ``METRICS``.

``chosen`` and ``rejected`` are sequence log-probabilities :math:`s = \sum_t w_t \log p_t`, nats, ``(pairs,)``.

The functions here never scale a margin. Two kinds of losses report metrics beside these:

- A loss without a reference model may scale its margins (by ``beta``) and reports ``mean_margin`` scaled.
- A loss with a reference model reports ``pair_accuracy``, ``mean_margin`` and ``logps/*`` unscaled, so that they
  compare with any other loss, and ``rewards/*`` of its implied rewards :math:`\beta (s - s_{ref})` under TRL's names.

Completions with labels instead of pairs are compared by :func:`auc`.
"""

from __future__ import annotations

import torch

from ..errors import DataError

__all__ = ["auc", "displacement_frac", "margins", "pair_metrics"]


def margins(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """Return the margin of each pair, chosen - rejected, detached, ``(pairs,)``, nats.

    Raises:
        DataError: If the shapes differ or there is no pair.
    """
    if chosen.shape != rejected.shape or chosen.dim() != 1 or not len(chosen):
        raise DataError(
            f"chosen has shape {tuple(chosen.shape)} and rejected {tuple(rejected.shape)}, expected one score per pair "
            "in both: (pairs,)"
        )
    return (chosen - rejected).detach()


def pair_metrics(chosen: torch.Tensor, rejected: torch.Tensor) -> dict[str, float]:
    """Compute ``pair_accuracy``, ``mean_margin``, ``logps/chosen`` and ``logps/rejected``.

    Args:
        chosen: Sequence log-probabilities of the chosen completions, ``(pairs,)``.
        rejected: The same of the rejected ones, ``(pairs,)``.

    Raises:
        DataError: As :func:`margins`.
    """
    gap = margins(chosen, rejected)
    return {
        "pair_accuracy": float((gap > 0).float().mean()),
        "mean_margin": float(gap.mean()),
        "logps/chosen": float(chosen.detach().mean()),
        "logps/rejected": float(rejected.detach().mean()),
    }


def displacement_frac(
    chosen: torch.Tensor, rejected: torch.Tensor, chosen_before: torch.Tensor, rejected_before: torch.Tensor
) -> float:
    """Return the share of pairs whose margin rose while the chosen completion became less likely.

    Likelihood displacement (Razin et al. 2024, arXiv:2410.08847): such a margin rose only because the rejected
    completion lost more probability than the chosen one.

    Args:
        chosen: Sequence log-probabilities now, ``(pairs,)``.
        rejected: The same of the rejected completions.
        chosen_before: ``chosen`` at step 0.
        rejected_before: ``rejected`` at step 0.

    Raises:
        DataError: As :func:`margins`.
    """
    wider = margins(chosen, rejected) > margins(chosen_before, rejected_before)
    fell = chosen.detach() < chosen_before.detach()
    return float((wider & fell).float().mean())


def auc(desirable: torch.Tensor, undesirable: torch.Tensor) -> float:
    r"""Return the share of (desirable, undesirable) couples in which the desirable value is higher; ties count half.

    The area under the ROC curve, :math:`\frac{1}{n_+ n_-} \sum 1[v_+ > v_-] + \frac12 1[v_+ = v_-]`: exact, over all
    :math:`n_+ n_-` couples, in the time of sorting. Hanley and McNeil 1982, "The meaning and use of the area under a
    receiver operating characteristic (ROC) curve", Radiology 143.

    Args:
        desirable: Values of the desirable completions, ``(n_plus,)``.
        undesirable: Values of the undesirable ones, ``(n_minus,)``.

    Raises:
        DataError: If one of the two is empty or is not one-dimensional, or a value is nan.
    """
    if desirable.dim() != 1 or undesirable.dim() != 1 or not len(desirable) or not len(undesirable):
        raise DataError(
            f"desirable has shape {tuple(desirable.shape)} and undesirable {tuple(undesirable.shape)}, expected at "
            "least one value in each: (n,)"
        )
    if bool(desirable.isnan().any()) or bool(undesirable.isnan().any()):
        raise DataError("a value is nan, expected numbers that can be ordered")
    dtype = torch.promote_types(desirable.dtype, undesirable.dtype)
    ordered = undesirable.detach().to(dtype).sort().values
    values = desirable.detach().to(ordered)
    below = torch.searchsorted(ordered, values)  # undesirable values below each desirable one
    not_above = torch.searchsorted(ordered, values, right=True)
    return int((below + not_above).sum()) / (2 * len(values) * len(ordered))
