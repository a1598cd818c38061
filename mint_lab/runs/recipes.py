"""How one step is made: what becomes a batch, and what is measured on it.

A :class:`Recipe` is a description; with a tokenizer and data it becomes a :class:`Job`, which hands out batches and
turns log-probabilities into the metrics of ``mint_lab.metrics``. Neither knows a model, a thread or a loss function.

Metrics by recipe (``held_out`` values carry the same names):

==========  ===========================================================================================
preference  pair_accuracy, mean_margin, logps/chosen, logps/rejected; held out also displacement_frac
sft         nll: mean negative log-probability per weighted token, nats; where the held-out data are
            pairs, held out also those of preference
==========  ===========================================================================================
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from ..data.pairs import Pair, arithmetic_pairs, load_pairs, pairs_to_data
from ..data.render import encode, to_datum
from ..errors import ConfigError, DataError, one_of
from ..losses import LossSpec
from ..losses.contract import Family
from ..losses.preference import sequence_scores
from ..metrics.preference import displacement_frac, pair_metrics
from .record import histogram

if TYPE_CHECKING:
    from ..client.protocol import Tokenizer
    from ..types import Datum

__all__ = ["RECIPES", "Job", "Measured", "Order", "Preference", "Recipe", "Sft", "recipe_named"]

HELD_OUT_SHARE = 0.1
TRAIN_PAIRS, HELD_OUT_PAIRS = 4000, 400


@dataclass(frozen=True)
class Measured:
    """Metrics and histograms of some data."""

    metrics: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, list[int]] = field(default_factory=dict)


class Job(Protocol):
    """A recipe with its data, ready to train.

    An item is what a batch counts: a pair, an example. ``unit`` datums make an item in a batch, ``held_out_unit`` in
    ``held_out``; of these latter ``loss_slice`` picks the ones that the loss sees.
    """

    @property
    def size(self) -> int: ...
    @property
    def held_out(self) -> list[Datum]: ...
    @property
    def held_out_unit(self) -> int: ...
    @property
    def loss_slice(self) -> slice: ...
    @property
    def unit(self) -> int: ...

    def batch(self, items: Sequence[int]) -> list[Datum]:
        """The datums of ``items`` (positions in the training data, 0-based), in that order."""
        ...

    def measure(self, data: list[Datum], logprobs: list[torch.Tensor]) -> Measured:
        """Of a training batch; ``logprobs[i]`` is ``(N_i,)``, from before the update."""
        ...

    def evaluate(self, data: list[Datum], logprobs: list[torch.Tensor], baseline: list[torch.Tensor]) -> Measured:
        """Of held-out data, against the log-probabilities ``baseline`` that it had before training."""
        ...


class Recipe(Protocol):
    """A way of training, by name, with defaults that work on the bundled model."""

    @property
    def name(self) -> str: ...
    @property
    def default_loss(self) -> str: ...
    @property
    def default_steps(self) -> int: ...
    @property
    def default_learning_rate(self) -> float: ...
    @property
    def families(self) -> tuple[Family, ...]: ...

    def prepare(
        self, tokenizer: Tokenizer, data: Any, held_out: Any, *, seed: int, max_length: int | None = None
    ) -> Job:
        """Load and tokenize.

        Args:
            data: what to train on; None for the recipe's default.
            held_out: what to evaluate on; None for the default's own, or a seeded tenth of ``data``.
            seed: of that split.
            max_length: longest sequence the model takes, tokens.

        Raises:
            DataError: nothing to train on, or an item that cannot be used.
        """
        ...


class Order:
    """An endless stream of item numbers: each epoch a fresh shuffle of all items, given by seed and epoch alone."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self._cached: tuple[int, list[int]] = (-1, [])

    def items(self, start: int, count: int) -> list[int]:
        """Items at stream positions ``start`` to ``start + count``; at most one epoch's worth."""
        return [self._epoch(k // self.size)[k % self.size] for k in range(start, start + min(count, self.size))]

    def _epoch(self, epoch: int) -> list[int]:
        if self._cached[0] != epoch:
            self._cached = (epoch, np.random.default_rng([self.seed, epoch]).permutation(self.size).tolist())
        return self._cached[1]


@dataclass(frozen=True)
class _PairJob:
    pairs: list[Datum]  # chosen, rejected, chosen, rejected, ...
    held_out: list[Datum]
    unit: int = 2
    held_out_unit: int = 2

    @property
    def size(self) -> int:
        return len(self.pairs) // 2

    @property
    def loss_slice(self) -> slice:
        return slice(None)

    def batch(self, items: Sequence[int]) -> list[Datum]:
        return [datum for i in items for datum in self.pairs[2 * i : 2 * i + 2]]

    def measure(self, data: list[Datum], logprobs: list[torch.Tensor]) -> Measured:
        chosen, rejected, _ = sequence_scores(data, logprobs)
        return _measure_pairs(chosen, rejected)

    def evaluate(self, data: list[Datum], logprobs: list[torch.Tensor], baseline: list[torch.Tensor]) -> Measured:
        return _evaluate_pairs(data, logprobs, baseline)


@dataclass(frozen=True)
class _SftJob:
    examples: list[Datum]
    held_out: list[Datum]
    held_out_unit: int  # 2 where the held-out data are pairs, whose chosen side is what the loss sees
    unit: int = 1

    @property
    def size(self) -> int:
        return len(self.examples)

    @property
    def loss_slice(self) -> slice:
        return slice(None, None, self.held_out_unit)

    def batch(self, items: Sequence[int]) -> list[Datum]:
        return [self.examples[i] for i in items]

    def measure(self, data: list[Datum], logprobs: list[torch.Tensor]) -> Measured:
        return Measured({"nll": _nll(data, logprobs)})

    def evaluate(self, data: list[Datum], logprobs: list[torch.Tensor], baseline: list[torch.Tensor]) -> Measured:
        seen = self.loss_slice
        metrics = {"nll": _nll(data[seen], logprobs[seen])}
        if self.held_out_unit == 1:
            return Measured(metrics)
        pairs = _evaluate_pairs(data, logprobs, baseline)
        return Measured(metrics | pairs.metrics, pairs.histograms)


def _measure_pairs(chosen: torch.Tensor, rejected: torch.Tensor) -> Measured:
    margins = (chosen - rejected).tolist()
    return Measured(pair_metrics(chosen, rejected), {"margin": histogram(margins, "margin")})


def _evaluate_pairs(data: list[Datum], logprobs: list[torch.Tensor], baseline: list[torch.Tensor]) -> Measured:
    chosen, rejected, _ = sequence_scores(data, logprobs)
    chosen0, rejected0, _ = sequence_scores(data, baseline)
    measured = _measure_pairs(chosen, rejected)
    measured.metrics["displacement_frac"] = displacement_frac(chosen, rejected, chosen0, rejected0)
    return measured


def _nll(data: list[Datum], logprobs: list[torch.Tensor]) -> float:
    """Mean negative log-probability per weighted token, nats."""
    flat = torch.cat(logprobs)
    weights = torch.cat([d.loss_fn_inputs["weights"].to_torch() for d in data]).to(flat)
    return -float((weights * flat.masked_fill(weights == 0, 0.0)).sum() / weights.sum().clamp_min(1e-9))


@dataclass(frozen=True)
class Preference:
    """Learn from pairs which of two completions is the better one."""

    name: str = "preference"
    default_loss: str = "pairwise_preference"
    default_steps: int = 240
    default_learning_rate: float = 6e-4
    families: tuple[Family, ...] = ("preference", "custom")

    def prepare(
        self, tokenizer: Tokenizer, data: Any, held_out: Any, *, seed: int, max_length: int | None = None
    ) -> _PairJob:
        """As :meth:`Recipe.prepare`; ``data`` is a list of :class:`Pair` or whatever ``load_pairs`` takes."""
        train, test = _train_and_held_out(data, held_out, seed, _pairs)
        return _PairJob(
            pairs_to_data(train, tokenizer, max_length=max_length),
            pairs_to_data(test, tokenizer, max_length=max_length),
        )


@dataclass(frozen=True)
class Sft:
    """Learn to say given completions: of examples, or the chosen side of pairs."""

    name: str = "sft"
    default_loss: str = "cross_entropy"
    default_steps: int = 200
    default_learning_rate: float = 2e-3
    families: tuple[Family, ...] = ("supervised", "custom")

    def prepare(
        self, tokenizer: Tokenizer, data: Any, held_out: Any, *, seed: int, max_length: int | None = None
    ) -> _SftJob:
        """As :meth:`Recipe.prepare`; ``data`` may also list ``(prompt, completion)`` or mappings with both."""
        train, test = _train_and_held_out(data, held_out, seed, _examples)

        def tokenize(index: int, prompt: Any, completion: str) -> Datum:
            try:
                return to_datum(*encode(tokenizer, prompt, completion, max_length=max_length))
            except DataError as error:
                raise DataError(str(error), index=index, field=error.field) from error

        examples = [tokenize(i, *_sides(item)) for i, item in enumerate(train)]
        if all(isinstance(item, Pair) for item in test):
            return _SftJob(examples, pairs_to_data(test, tokenizer, max_length=max_length), held_out_unit=2)
        return _SftJob(examples, [tokenize(i, *_sides(x)) for i, x in enumerate(test)], held_out_unit=1)


def _sides(item: Any) -> tuple[Any, str]:
    return (item.prompt, item.chosen) if isinstance(item, Pair) else item


def _pairs(source: Any) -> list[Any]:
    if isinstance(source, list) and all(isinstance(item, Pair) for item in source):
        return source
    return load_pairs(source)


def _examples(source: Any) -> list[Any]:
    """Pairs as they are, ``(prompt, completion)`` as tuples."""
    if not isinstance(source, list):
        return _pairs(source)
    examples: list[Any] = []
    for index, item in enumerate(source):
        if isinstance(item, Mapping) and "completion" in item and "prompt" in item:
            examples.append((item["prompt"], item["completion"]))
        elif isinstance(item, Pair) or (isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], str)):
            examples.append(item)
        elif index == 0:
            return _pairs(source)  # mappings with chosen and rejected, which has its own messages
        else:
            raise DataError(f"found {type(item).__name__}, expected (prompt, completion) or a Pair", index=index)
    return examples


def _train_and_held_out(data: Any, held_out: Any, seed: int, load: Any) -> tuple[list[Any], list[Any]]:
    train = arithmetic_pairs(TRAIN_PAIRS, split="train") if data is None else load(data)
    if not train:
        raise DataError("there is nothing to train on: the data are empty")
    if held_out is not None:
        test = load(held_out)
    elif data is None:
        test = arithmetic_pairs(HELD_OUT_PAIRS, split="held_out")
    else:
        train, test = _split(train, seed)
    if not test:
        raise DataError("there is nothing to evaluate on: the held-out data are empty")
    return train, test


def _split(items: list[Any], seed: int) -> tuple[list[Any], list[Any]]:
    if len(items) < 2:
        raise DataError("one item cannot be split into training and held-out data; give held_out= as well")
    order = np.random.default_rng(seed).permutation(len(items))
    count = max(1, round(HELD_OUT_SHARE * len(items)))
    out = set(order[:count].tolist())
    return [x for i, x in enumerate(items) if i not in out], [x for i, x in enumerate(items) if i in out]


RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (Preference(), Sft())}


def recipe_named(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        ConfigError: there is none.
    """
    if name not in RECIPES:
        raise ConfigError(f"unknown recipe {name!r}; {one_of(list(RECIPES), str(name))}")
    return RECIPES[name]


def check_loss(recipe: Recipe, spec: LossSpec) -> None:
    """Raise :class:`ConfigError` where ``recipe`` has no data of the kind that ``spec`` needs."""
    if spec.family in recipe.families:
        return
    others = [r.name for r in RECIPES.values() if spec.family in r.families]
    hint = f"; use recipe={others[0]!r}" if others else ""
    raise ConfigError(
        f"{spec.name} is a {spec.family} loss, and the {recipe.name} recipe trains with "
        f"{' or '.join(recipe.families)} losses{hint}"
    )
