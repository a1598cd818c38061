r"""Numbers about pairs, one definition each.

``chosen`` and ``rejected`` are sequence log-probabilities :math:`s = \sum_t w_t \log p_t`, nats, ``(pairs,)``.

====================  ============================================================================  ===================
name                  meaning, unit                                                                 also called
====================  ============================================================================  ===================
pair_accuracy         share of pairs with margin > 0 (a tie is not a win), 0 to 1                   accuracy
mean_margin           mean of chosen - rejected, nats                                               margin
logps/chosen          mean sequence log-probability of the chosen side, nats                        same
logps/rejected        mean sequence log-probability of the rejected side, nats                      same
displacement_frac     share of pairs whose margin rose while the chosen log-probability fell        likelihood
                      since the start, 0 to 1                                                       displacement
====================  ============================================================================  ===================

A loss without a reference model that scales its margins (by ``beta``) reports ``mean_margin`` scaled; the functions
here never do. A loss with a reference model leaves these numbers alone, which compare with any other loss, and also
reports those of its rewards :math:`\beta (s - s_{ref})`, as TRL does: ``rewards/chosen`` and ``rewards/rejected``
(means, nats times beta), ``rewards/margins`` (mean difference) and ``rewards/accuracies`` (share of pairs with a
difference above 0; one that rounding alone explains counts one half, so that 0.5 is where training begins). Where a
loss estimates the KL divergence from the reference, that is ``kl/reference``, nats a completion.
"""

from __future__ import annotations

import torch

from ..errors import DataError

__all__ = ["displacement_frac", "margins", "pair_metrics"]


def margins(chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
    """The margin of each pair, chosen - rejected, ``(pairs,)``, nats.

    Raises:
        DataError: the two differ in shape, or there is no pair.
    """
    if chosen.shape != rejected.shape or chosen.dim() != 1 or not len(chosen):
        raise DataError(
            f"chosen has shape {tuple(chosen.shape)} and rejected {tuple(rejected.shape)}, expected one score a pair"
        )
    return (chosen - rejected).detach()


def pair_metrics(chosen: torch.Tensor, rejected: torch.Tensor) -> dict[str, float]:
    """pair_accuracy, mean_margin, logps/chosen and logps/rejected. Raises as :func:`margins`."""
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
    """Share of pairs that are told apart better than before only because both sides became less likely.

    Likelihood displacement (Razin et al. 2024, arXiv:2410.08847). Raises as :func:`margins`.
    """
    wider = margins(chosen, rejected) > margins(chosen_before, rejected_before)
    fell = chosen.detach() < chosen_before.detach()
    return float((wider & fell).float().mean())
