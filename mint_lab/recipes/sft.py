"""The recipe ``sft``: supervised fine-tuning, learning to say given completions."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from ..data.completions import load_completions
from ..data.pairs import Pair, pairs_to_data
from ..data.render import Rendered, describe_truncation, encode_completion, encode_prompt, to_datum, truncate
from ..errors import DataError
from .base import Recipe
from .job import BatchJob, Measured
from .preference import evaluate_pairs, train_and_held_out

if TYPE_CHECKING:
    from ..client.protocol import Tokenizer
    from ..types import Datum

__all__ = ["CompletionJob", "Sft"]


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


class Sft(Recipe):
    """Learn to say given completions: of examples, or the chosen completions of pairs."""

    name = "sft"
    summary = "Supervised fine-tuning: learn to say given completions."
    default_loss = "cross_entropy"
    default_steps = 200
    default_learning_rate = 2e-3
    default_data = "arithmetic pairs"
    charts = ("loss", "nll", "grad_norm")
    headlines = ("pair_accuracy", "nll", "loss")  # accuracy if the held-out data are pairs

    def prepare(
        self, tokenizer: Tokenizer, data: Any, held_out: Any, *, seed: int, max_length: int | None = None
    ) -> CompletionJob:
        """As :meth:`Recipe.prepare`; ``data`` is what :func:`mint_lab.data.load_completions` takes.

        That is a file, a frame, a data set or a list of rows with ``messages`` (the loss is on the last turn, which is
        the assistant's), ``prompt`` and ``completion`` (or ``response``), ``question`` and ``answer``, or pairs (the
        chosen completion).
        """
        train, test = train_and_held_out(data, held_out, seed, load_completions)
        every: list[Rendered] = []

        def tokenize(index: int, prompt: Any, completion: str) -> Datum:
            try:
                one = truncate(
                    encode_prompt(tokenizer, prompt), [encode_completion(tokenizer, prompt, completion)], max_length
                )
            except DataError as error:
                message = str(error).removeprefix(f"field {error.field!r}: ")
                raise DataError(message, index=index, field=error.field) from error
            every.append(one)
            return to_datum(one.prompt + one.completions[0], len(one.prompt))

        examples = [tokenize(i, *_prompt_and_completion(item)) for i, item in enumerate(train)]
        if all(isinstance(item, Pair) for item in test):
            job = CompletionJob(examples, pairs_to_data(test, tokenizer, max_length=max_length), held_out_unit=2)
        else:
            job = CompletionJob(examples, [tokenize(i, *_prompt_and_completion(x)) for i, x in enumerate(test)])
        if truncation := describe_truncation(every, max_length):
            warnings.warn(truncation, UserWarning, stacklevel=2)
        return job


def _prompt_and_completion(item: Any) -> tuple[Any, str]:
    return (item.prompt, item.chosen) if isinstance(item, Pair) else item


def _nll(data: list[Datum], logprobs: list[torch.Tensor]) -> float:
    """Return the mean negative log-probability per weighted token, nats."""
    flat = torch.cat(logprobs)  # (tokens,)
    weights = torch.cat([d.loss_fn_inputs["weights"].to_torch() for d in data]).to(flat)
    return -float((weights * flat.masked_fill(weights == 0, 0.0)).sum() / weights.sum().clamp_min(1e-9))
