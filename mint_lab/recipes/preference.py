"""The recipe ``preference``: learn from pairs which of two completions is the better one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from ..data.pairs import Pair, arithmetic_pairs, describe_pairs, render_pairs
from ..data.render import RowFacts
from ..data.sources import Rows
from ..losses import DataKind
from ..losses.preference import sequence_scores
from ..losses.spec import REFERENCE
from ..metrics.preference import displacement_frac, pair_metrics
from .base import Recipe
from .held_out import split
from .job import BatchJob, JobFacts, Measured
from .record import histogram

if TYPE_CHECKING:
    import torch

    from ..client.protocol import Tokenizer
    from ..types import Datum

__all__ = ["PairJob", "Preference", "evaluate_pairs", "facts_of", "train_and_held_out", "warn_of"]

T = TypeVar("T")

TRAIN_PAIRS, HELD_OUT_PAIRS = 4000, 400


@dataclass(frozen=True)
class PairJob(BatchJob):
    """Pairs: consecutive (chosen, rejected) datums."""

    unit: int = 2

    def measure(self, data: list[Datum], logprobs: list[torch.Tensor]) -> Measured:
        """Return pair_accuracy, mean_margin, logps/chosen and logps/rejected, and the histogram of margins."""
        chosen, rejected, _ = sequence_scores(data, logprobs)
        return _measure(chosen, rejected)

    def evaluate(self, data: list[Datum], logprobs: list[torch.Tensor], baseline: list[torch.Tensor]) -> Measured:
        """Return what :meth:`measure` does, and displacement_frac."""
        return evaluate_pairs(data, logprobs, baseline)


class Preference(Recipe):
    """Learn from pairs which of two completions is the better one."""

    name = "preference"
    summary = "Learn from pairs which of two completions is the better one."
    default_loss = "pairwise_preference"
    default_steps = 240
    default_learning_rate = 6e-4
    default_data = "arithmetic pairs"
    charts = ("loss", "pair_accuracy", "mean_margin", "logps", "margin", "grad_norm")
    headlines = ("pair_accuracy", "loss")

    @property
    def data_kind(self) -> DataKind:
        """Pairs; a trainer adds the reference log-probabilities for a loss that reads them."""
        return DataKind(frozenset({"weights", REFERENCE}), "pair")

    def takes(self, row: Any) -> bool:
        """Return True for a pair."""
        return isinstance(row, Pair) or (isinstance(row, Mapping) and {"chosen", "rejected"} <= set(row))

    def prepare(
        self, tokenizer: Tokenizer, data: Any, held_out: Any, *, seed: int, max_length: int | None = None
    ) -> PairJob:
        """As :meth:`Recipe.prepare`; ``data`` is a list of ``Pair`` objects, or what ``load_pairs`` takes."""
        read: list[Rows] = []

        def load(source: Any) -> list[tuple[RowFacts, list[Datum]]]:
            given = Rows.of(source)
            read.append(given)
            found = render_pairs(given, tokenizer, max_length=max_length)
            warn_of(source is held_out, [given.note(), *describe_pairs(found, max_length)])
            return [(rendered.facts(index), rendered.data()) for index, rendered in found]

        train, test = train_and_held_out(data, held_out, seed, load)
        return PairJob(_datums(train), _datums(test), facts=facts_of(read, _facts(train), _facts(test)))


def _facts(items: Iterable[tuple[RowFacts, list[Datum]]]) -> list[RowFacts]:
    return [facts for facts, _ in items]


def _datums(items: Iterable[tuple[RowFacts, list[Datum]]]) -> list[Datum]:
    return [datum for _, data in items for datum in data]


def facts_of(read: Sequence[Rows], train: Sequence[RowFacts], held_out: Sequence[RowFacts]) -> JobFacts:
    """Return the facts about the items of a job.

    Args:
        read: The source of the training rows; and that of the held-out rows, unless they are a part of the former.
        train: One per training item.
        held_out: One per held-out item.
    """
    return JobFacts(train, held_out, read[0], read[-1])


def _measure(chosen: torch.Tensor, rejected: torch.Tensor) -> Measured:
    margins = (chosen - rejected).tolist()
    return Measured(pair_metrics(chosen, rejected), {"margin": histogram(margins, "margin")})


def evaluate_pairs(data: list[Datum], logprobs: list[torch.Tensor], baseline: list[torch.Tensor]) -> Measured:
    """Measure held-out pairs, against the log-probabilities ``baseline`` from before training; ``(N_i,)`` each."""
    chosen, rejected, _ = sequence_scores(data, logprobs)
    chosen0, rejected0, _ = sequence_scores(data, baseline)
    measured = _measure(chosen, rejected)
    measured.metrics["displacement_frac"] = displacement_frac(chosen, rejected, chosen0, rejected0)
    return measured


def warn_of(held_out: bool, notes: Iterable[str]) -> None:
    """Warn of what was noteworthy about data; a run collects the warnings as its notes."""
    if given := [note for note in notes if note]:
        warnings.warn(f"{'held-out data: ' if held_out else ''}{'; '.join(given)}", UserWarning, stacklevel=2)


def train_and_held_out(
    data: Any,
    held_out: Any,
    seed: int,
    load: Callable[[Any], list[T]],
    split: Callable[[Sequence[T], int], tuple[list[T], list[T]]] = split,
) -> tuple[list[T], list[T]]:
    """Return items to train on and items to hold out; by default those of the bundled arithmetic pairs.

    All rows are loaded before they are split, so that an error names the row of the data.

    Args:
        data: What to train on; None for the bundled pairs.
        held_out: What to hold out; None for a seeded tenth of ``data``, or the bundled held-out pairs.
        seed: Seed of the split.
        load: Makes a list of items from what a person gave.
        split: Splits items into those to train on and those to hold out, by a seed.

    Raises:
        DataError: If one of the two would be empty.
    """
    train = load(arithmetic_pairs(TRAIN_PAIRS, split="train") if data is None else data)
    if held_out is not None:
        return train, load(held_out)
    if data is None:
        return train, load(arithmetic_pairs(HELD_OUT_PAIRS, split="held_out"))
    return split(train, seed)
