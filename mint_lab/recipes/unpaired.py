"""The recipe ``unpaired``: learn from completions that are labelled desirable or undesirable, without pairs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import torch

from ..data.completions import COMPLETED
from ..data.render import RowFacts
from ..data.sources import Rows
from ..data.unpaired import LabelledRow, describe_unpaired, render_unpaired
from ..errors import DataError
from ..losses import DataKind
from ..losses.preference import completion_scores
from ..losses.spec import LABEL, REFERENCE
from ..losses.unpaired import labels_of
from ..metrics.preference import auc
from ..preflight.label_checks import check_labels
from .base import Recipe
from .held_out import split
from .job import BatchJob, Measured
from .preference import facts_of, train_and_held_out, warn_of

if TYPE_CHECKING:
    from ..client.protocol import Tokenizer
    from ..types import Datum

__all__ = ["LabelledJob", "Unpaired"]


@dataclass(frozen=True)
class LabelledJob(BatchJob):
    """Completions with ``label``, one number of shape ``(1,)``: 1 desirable, 0 undesirable."""

    def measure(self, data: list[Datum], logprobs: list[torch.Tensor]) -> Measured:
        """Return logps/chosen and logps/rejected; with reference log-probabilities also rewards/auc of the batch."""
        has_reference = all(REFERENCE in datum.loss_fn_inputs for datum in data)
        reference = [datum.loss_fn_inputs[REFERENCE].to_torch() for datum in data] if has_reference else None
        return _measure(data, logprobs, reference)

    def evaluate(self, data: list[Datum], logprobs: list[torch.Tensor], baseline: list[torch.Tensor]) -> Measured:
        """Return logps/chosen, logps/rejected and rewards/auc; the reference is the model before training."""
        return _measure(data, logprobs, baseline)


class Unpaired(Recipe):
    """Learn from completions that are labelled desirable or undesirable; no prompt needs both."""

    name = "unpaired"
    summary = "Learn from completions that are labelled desirable or undesirable, without pairs."
    default_loss = "kto"
    default_steps = 240
    default_learning_rate = 1e-3
    default_data = "arithmetic pairs, unpaired"
    charts = ("loss", "rewards/auc", "rewards", "logps", "grad_norm")
    headlines = ("rewards/auc", "loss")

    @property
    def data_kind(self) -> DataKind:
        """Single completions with labels; a trainer adds the reference log-probabilities for a loss that reads them."""
        return DataKind(frozenset({"weights", REFERENCE, LABEL}), "datum", LABEL)

    def takes(self, row: Any) -> bool:
        """Return True for a row with a completion and a label."""
        if not isinstance(row, Mapping) or LABEL not in row:
            return False
        return any(columns <= set(cast("Mapping[str, Any]", row)) for columns in COMPLETED)

    def prepare(
        self, tokenizer: Tokenizer, data: Any, held_out: Any, *, seed: int, max_length: int | None = None
    ) -> LabelledJob:
        """As :meth:`Recipe.prepare`; ``data`` is what :func:`mint_lab.data.unpaired_to_data` takes.

        That is a file, a frame, a data set or a list of rows with ``prompt``, ``completion`` and ``label``, with
        ``messages`` and ``label``, or of pairs, whose two completions become single ones. If the held-out rows are
        split off, a tenth of the desirable and a tenth of the undesirable rows is, and the two completions of a pair
        stay together.

        Raises:
            DataError: As :meth:`Recipe.prepare`, and if all rows to train on have the same label: a loss that compares
                the two kinds would only raise, or only lower, what it sees.
        """
        read: list[Rows] = []

        def load(source: Any) -> list[LabelledRow]:
            given = Rows.of(source)
            read.append(given)
            found = render_unpaired(given, tokenizer, max_length=max_length)
            warn_of(source is held_out, [given.note(), *describe_unpaired(found, max_length)])
            return found

        train, test = train_and_held_out(data, held_out, seed, load, split=_split_by_label)
        warn_of(False, _training_notes(train))
        warn_of(True, _held_out_notes(test))
        return LabelledJob(_datums(train), _datums(test), facts=facts_of(read, _facts(train), _facts(test)))


def _datums(rows: Sequence[LabelledRow]) -> list[Datum]:
    return list(chain.from_iterable(row.data() for row in rows))


def _facts(rows: Sequence[LabelledRow]) -> list[RowFacts]:
    """Return the facts of each completion: a pair is two items of one row."""
    found: list[RowFacts] = []
    for row in rows:
        facts = row.rendered.facts(row.index)
        lost = facts.lost_ends or (0,) * len(row.labels)
        found += [replace(facts, lost_ends=(count,) if count else ()) for count in lost]
    return found


def _measure(data: list[Datum], logprobs: list[torch.Tensor], reference: list[torch.Tensor] | None) -> Measured:
    """Return the metrics of labelled completions; without a reference, or with one label only, without rewards/auc."""
    desirable = labels_of(data)
    assert desirable is not None  # the recipe's own datums
    scores, _ = completion_scores(data, logprobs)
    desirable = desirable.to(scores.device)
    sides = {"chosen": desirable, "rejected": ~desirable}
    metrics = {f"logps/{name}": float(scores[mask].mean()) for name, mask in sides.items() if bool(mask.any())}
    if reference is not None and len(metrics) == len(sides):
        rewards = scores - completion_scores(data, reference)[0].to(scores)
        metrics["rewards/auc"] = auc(rewards[desirable], rewards[~desirable])
    return Measured(metrics)


def _training_notes(rows: Sequence[LabelledRow]) -> list[str]:
    """Return how many completions of each label there are and what the labels follow; refuse a single label."""
    counts = _counts(rows)
    if len(counts) == 1:
        (label,) = counts
        kind = "desirable" if label else "undesirable"
        fix = "; to learn to say desirable completions, use recipe='sft'" if label else ""
        raise DataError(
            f"all {counts[label]} completions to train on have the label {label} ({kind}), expected both labels: a "
            f"loss that compares the two kinds has nothing to compare{fix}",
            field=LABEL,
        )
    labels, lengths, prompts = [], [], []
    for row in rows:
        labels += row.labels
        lengths += map(len, row.rendered.completions)
        prompts += [tuple(row.rendered.prompt)] * len(row.labels)
    found = check_labels(labels, lengths, prompts)
    told = f"{counts[True]} desirable and {counts[False]} undesirable completions to train on"
    return [told, *(f"{line.message}: {line.fix}" for line in found)]


def _held_out_notes(rows: Sequence[LabelledRow]) -> list[str]:
    """Return a sentence if the held-out rows have one label, because rewards/auc needs both."""
    counts = _counts(rows)
    if len(counts) > 1:
        return []
    (label,) = counts
    return [f"all {counts[label]} completions have the label {label}, so rewards/auc is not measured"]


def _counts(rows: Sequence[LabelledRow]) -> Counter[bool]:
    return Counter(label for row in rows for label in row.labels)


def _split_by_label(rows: Sequence[LabelledRow], seed: int) -> tuple[list[LabelledRow], list[LabelledRow]]:
    """Split off a tenth of the rows of each kind (desirable, undesirable, pair); their order stays.

    Raises:
        DataError: If no kind has two rows.
    """
    by_kind: dict[tuple[bool, ...], list[LabelledRow]] = {}
    for row in rows:
        by_kind.setdefault(row.labels, []).append(row)
    held = {row.index for kind in sorted(by_kind) if len(by_kind[kind]) > 1 for row in split(by_kind[kind], seed)[1]}
    if not held:
        raise DataError(
            f"{len(rows)} rows cannot be split into training and held-out data with both labels; give held_out= as well"
        )
    return [row for row in rows if row.index not in held], [row for row in rows if row.index in held]
