"""The recipe ``sft``: supervised fine-tuning, learning to say given completions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

import torch

from ..data.completions import COMPLETED, render_examples
from ..data.render import Rendered, RowFacts, TrainOn, describe_changes
from ..data.sources import Rows
from ..errors import ConfigError
from .base import Recipe, option
from .job import BatchJob, Measured
from .preference import evaluate_pairs, facts_of, train_and_held_out, warn_of

if TYPE_CHECKING:
    from ..client.protocol import Tokenizer
    from ..types import Datum

__all__ = ["CompletionJob", "Sft", "SftOptions"]


@dataclass(frozen=True)
class CompletionJob(BatchJob):
    """Completions; if the held-out data are pairs (``held_out_unit`` 2), the loss sees their chosen completions."""

    def measure(self, data: list[Datum], logprobs: list[torch.Tensor]) -> Measured:
        """Return nll: the mean negative log-probability per weighted token, nats."""
        return Measured({"nll": _nll(data, logprobs)})

    def evaluate(self, data: list[Datum], logprobs: list[torch.Tensor], baseline: list[torch.Tensor]) -> Measured:
        """Return nll of what the loss sees and, of held-out pairs, the metrics of pairs as well."""
        seen = self.loss_slice
        metrics = {"nll": _nll(data[seen], logprobs[seen])}
        if self.held_out_unit == 1:
            return Measured(metrics)
        pairs = evaluate_pairs(data, logprobs, baseline)
        return Measured(metrics | pairs.metrics, pairs.histograms)


@dataclass(frozen=True)
class SftOptions:
    """What of a chat is trained on.

    Raises:
        ConfigError: If a value is not valid.
    """

    train_on: TrainOn = option("last", 'turns of the assistant that are trained on: "last" or "all"')

    def __post_init__(self) -> None:
        if self.train_on not in {"last", "all"}:
            raise ConfigError(f"train_on is {self.train_on!r}, expected 'last' or 'all'")


class Sft(Recipe):
    """Learn to say given completions: of examples, or the chosen completions of pairs."""

    name = "sft"
    summary = "Supervised fine-tuning: learn to say given completions."
    default_loss = "cross_entropy"
    default_steps = 200
    default_learning_rate = 2e-3
    default_data = "arithmetic pairs"
    charts = ("loss", "nll", "grad_norm")
    Options = SftOptions
    headlines = ("pair_accuracy", "nll", "loss")  # accuracy if the held-out data are pairs

    def takes(self, row: Any) -> bool:
        """Return True for a row with a completion that has no label, and for ``(prompt, completion)``."""
        if isinstance(row, tuple):
            return len(cast("tuple[Any, ...]", row)) == 2
        if not isinstance(row, Mapping) or "label" in row:
            return False
        return any(columns <= set(cast("Mapping[str, Any]", row)) for columns in COMPLETED)

    def prepare(
        self, tokenizer: Tokenizer, data: Any, held_out: Any, *, seed: int, max_length: int | None = None
    ) -> CompletionJob:
        """As :meth:`Recipe.prepare`; ``data`` is what :func:`mint_lab.data.load_completions` takes.

        That is a file, a frame, a data set or a list of rows with ``messages`` (the loss is on the last turn, which is
        the assistant's, or on all of the assistant's turns: option ``train_on``), ``prompt`` and ``completion`` (or
        ``response``), ``question`` and ``answer``, or pairs (the chosen completion).
        """
        read: list[Rows] = []

        def load(source: Any) -> list[tuple[int, bool, Rendered]]:
            given = Rows.of(source)
            read.append(given)
            found = render_examples(given, tokenizer, max_length=max_length, train_on=self.options.train_on)
            notes = describe_changes([(index, rendered) for index, _, rendered in found], max_length)
            warn_of(source is held_out, [given.note(), *notes])
            return found

        train, test = train_and_held_out(data, held_out, seed, load)
        facts = facts_of(read, _facts(train), _facts(test))
        if all(is_pair for _, is_pair, _ in test):
            sides = chain.from_iterable(rendered.data() for _, _, rendered in test)
            return CompletionJob(_first(train), list(sides), held_out_unit=2, facts=facts)
        return CompletionJob(_first(train), _first(test), facts=facts)


def _first(examples: list[tuple[int, bool, Rendered]]) -> list[Datum]:
    """Return the datum of each example's completion; of a pair, the chosen one."""
    return [rendered.data()[0] for _, _, rendered in examples]


def _facts(examples: list[tuple[int, bool, Rendered]]) -> list[RowFacts]:
    return [rendered.facts(index) for index, _, rendered in examples]


def _nll(data: list[Datum], logprobs: list[torch.Tensor]) -> float:
    """Return the mean negative log-probability per weighted token, nats."""
    flat = torch.cat(logprobs)  # (tokens,)
    weights = torch.cat([d.loss_fn_inputs["weights"].to_torch() for d in data]).to(flat)
    return -float((weights * flat.masked_fill(weights == 0, 0.0)).sum() / weights.sum().clamp_min(1e-9))
