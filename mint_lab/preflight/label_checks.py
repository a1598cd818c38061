r"""Checks of labelled completions before they train: what the labels can be told from without the completion's quality.

Each check gives a warning only if its finding is unlikely to be chance; a few rows say nothing. The limits:

=========  =========================================================================================================
balance    :math:`\lambda_+ n_+ / (\lambda_- n_-)` is more than a quarter outside the interval from 1 to 4/3 that
           Ethayarajh et al. 2024 (arXiv:2402.01306, section 4.2) recommend for KTO's weights :math:`\lambda`: below
           0.8 or above 5/3
length     in at least 80% of all (desirable, undesirable) couples the desirable completion is the longer one, or in at
           least 80% the shorter one, ties counting half, with 20 or more completions of each label
prompts    no prompt has completions of both labels, though if labels were drawn independently of the prompts, 5 or
           more would be expected to
=========  =========================================================================================================
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

import torch

from ..losses.spec import LABEL
from ..metrics.preference import auc
from .report import ReportLine

if TYPE_CHECKING:
    from ..losses.spec import LossSpec
    from ..types import Datum

__all__ = [
    "check_balance",
    "check_labelled_data",
    "check_labels",
    "check_lengths_of_labels",
    "check_prompts_of_labels",
    "label_weights",
]

RECOMMENDED = (1.0, 4 / 3)  # desirable to undesirable rows, each times its weight
TOLERATED = (0.8, 5 / 3)
LENGTH_SHARE, LENGTH_ROWS = 0.8, 20
EXPECTED_PROMPTS = 5.0


def check_labels(
    labels: Sequence[bool],
    lengths: Sequence[int],
    prompts: Sequence[Hashable],
    weights: tuple[float, float] | None = (1.0, 1.0),
) -> list[ReportLine]:
    """Return a warning for each check of this module that finds something.

    Args:
        labels: Whether each completion is desirable, ``n`` of them.
        lengths: Tokens of each completion.
        prompts: Prompt of each completion, in any form that can be compared.
        weights: KTO's ``desirable_weight`` and ``undesirable_weight``; None for a loss without weights, whose balance
            is not checked.
    """
    lines = (
        None if weights is None else check_balance(labels, weights),
        check_lengths_of_labels(labels, lengths),
        check_prompts_of_labels(labels, prompts),
    )
    return [line for line in lines if line is not None]


def check_labelled_data(data: Sequence[Datum], spec: LossSpec | None) -> list[ReportLine]:
    """Return what :func:`check_labels` does, of datums with ``label`` and ``weights``; nothing of other data.

    Args:
        data: The datums.
        spec: The loss, bound to its settings; None if it has no description.
    """
    if not all({LABEL, "weights"} <= set(datum.loss_fn_inputs) for datum in data):
        return []
    labels, lengths, prompts = [], [], []
    for datum in data:
        weighted = datum.loss_fn_inputs["weights"].to_numpy().nonzero()[0]
        if len(weighted):
            labels.append(bool(datum.loss_fn_inputs[LABEL].to_numpy().any()))
            lengths.append(len(weighted))
            prompts.append(tuple(datum.model_input.to_ints()[: int(weighted[0]) + 1]))
    return check_labels(labels, lengths, prompts, None if spec is None else label_weights(spec))


def label_weights(spec: LossSpec) -> tuple[float, float] | None:
    """Return the weights of desirable and undesirable completions that a bound loss has as defaults; None without."""
    values = {param.name: param.default for param in spec.params}
    names = ("desirable_weight", "undesirable_weight")
    return (values[names[0]], values[names[1]]) if set(names) <= set(values) else None


def check_balance(labels: Sequence[bool], weights: tuple[float, float]) -> ReportLine | None:
    """Return a warning if desirable and undesirable rows, times their weights, are out of balance."""
    n_desirable = sum(labels)
    n_undesirable = len(labels) - n_desirable
    desirable, undesirable = weights[0] * n_desirable, weights[1] * n_undesirable
    low, high = TOLERATED
    if min(desirable, undesirable) <= 0 or low <= desirable / undesirable <= high:
        return None
    best = [bound * undesirable / n_desirable for bound in RECOMMENDED]
    text = (
        f"{n_desirable} desirable and {n_undesirable} undesirable completions: with the weights {weights[0]:g} and "
        f"{weights[1]:g} their ratio is {desirable / undesirable:.2g}, recommended for KTO is 1 to 1.33"
    )
    return ReportLine("labels", "warn", text, f"for kto, a desirable_weight from {best[0]:.3g} to {best[1]:.3g}")


def check_lengths_of_labels(labels: Sequence[bool], lengths: Sequence[int]) -> ReportLine | None:
    """Return a warning if the length of a completion tells its label."""
    mask, tokens = torch.tensor(labels, dtype=torch.bool), torch.tensor(lengths)
    if min(int(mask.sum()), int((~mask).sum())) < LENGTH_ROWS:
        return None
    share = auc(tokens[mask], tokens[~mask])
    what, share = ("longer", share) if share > 0.5 else ("shorter", 1 - share)
    if share < LENGTH_SHARE:
        return None
    text = f"in {share:.0%} of the couples of both labels the desirable completion is the {what} one"
    return ReportLine("labels", "warn", text, "the model may learn the length; compare completions of similar length")


def check_prompts_of_labels(labels: Sequence[bool], prompts: Sequence[Hashable]) -> ReportLine | None:
    """Return a warning if every prompt has completions of one label only, and chance does not explain it."""
    by_prompt: dict[Hashable, list[bool]] = {}
    for prompt, label in zip(prompts, labels, strict=True):
        by_prompt.setdefault(prompt, []).append(label)
    if any(len(set(found)) > 1 for found in by_prompt.values()):
        return None
    share = sum(labels) / max(1, len(labels))
    expected = sum(1 - share ** len(found) - (1 - share) ** len(found) for found in by_prompt.values())
    if expected < EXPECTED_PROMPTS:
        return None
    several = sum(len(found) > 1 for found in by_prompt.values())
    text = (
        f"none of the {several} prompts with several completions has both labels ({expected:.0f} would by chance), so "
        "the prompt alone tells the label"
    )
    return ReportLine("labels", "warn", text, "add completions of the other label to the same prompts")
