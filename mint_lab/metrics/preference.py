r"""Metrics of preference pairs. Definitions are in ``METRICS``.

``chosen`` and ``rejected`` are sequence log-probabilities :math:`s = \sum_t w_t \log p_t`, nats, ``(pairs,)``.

The functions here never scale a margin. Two kinds of losses report metrics beside these:

- A loss without a reference model may scale its margins (by ``beta``) and reports ``mean_margin`` scaled.
- A loss with a reference model reports ``pair_accuracy``, ``mean_margin`` and ``logps/*`` unscaled, so that they
  compare with any other loss, and ``rewards/*`` of its implied rewards :math:`\beta (s - s_{ref})` under TRL's names.
"""

from __future__ import annotations

import torch

from ..errors import DataError

__all__ = ["displacement_frac", "margins", "pair_metrics"]


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
