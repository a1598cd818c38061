"""How one step is made: what becomes a batch, and what is measured on it.

A :class:`Recipe` is a description; with a tokenizer and data it becomes a :class:`Job`, which hands out batches and
turns log-probabilities into the metrics of ``mint_lab.metrics``. Neither knows a model, a thread or a loss function.

Metrics by recipe (``held_out`` values carry the same names):

==========  ===========================================================================================
preference  pair_accuracy, mean_margin, logps/chosen, logps/rejected; held out also displacement_frac
sft         nll: mean negative log-probability per weighted token, nats; where the held-out data are
            pairs, held out also those of preference
rl          those of ``mint_lab.metrics.policy`` and ``rollout``; held out reward, completion_length and
            truncated_frac. Its own trainer measures them
==========  ===========================================================================================
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch

from ..data.completions import load_completions
from ..data.pairs import Pair, arithmetic_pairs, load_pairs, pairs_to_data
from ..data.render import Rendered, encode_completion, encode_prompt, fit, lost, to_datum
from ..errors import ConfigError, DataError, one_of
from ..losses import LOSSES, LossSpec
from ..losses.preference import sequence_scores
from ..losses.spec import Family
from ..metrics.preference import displacement_frac, pair_metrics
from .held_out import split
from .options import check_options
from .record import histogram
from .rl.recipe import Rl

if TYPE_CHECKING:
    from ..client.protocol import Tokenizer
    from ..types import Datum

__all__ = ["RECIPES", "Job", "Measured", "Order", "Preference", "Recipe", "Sft", "recipe_named"]

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
        return list(self.stream(start, count))

    def stream(self, start: int, count: int) -> Iterator[int]:
        """:meth:`items`, one at a time."""
        return (self._epoch(k // self.size)[k % self.size] for k in range(start, start + min(count, self.size)))

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
        """As :meth:`Recipe.prepare`; ``data`` is what :func:`mint_lab.data.load_completions` takes: a file, a frame, a
        data set or a list of rows with ``messages`` (the loss is on the last turn, which is the assistant's),
        ``prompt`` and ``completion`` (or ``response``), ``question`` and ``answer``, or pairs (the chosen side).
        """
        train, test = _train_and_held_out(data, held_out, seed, load_completions)
        every: list[Rendered] = []

        def tokenize(index: int, prompt: Any, completion: str) -> Datum:
            try:
                one = fit(
                    encode_prompt(tokenizer, prompt), [encode_completion(tokenizer, prompt, completion)], max_length
                )
            except DataError as error:
                message = str(error).removeprefix(f"field {error.field!r}: ")
                raise DataError(message, index=index, field=error.field) from error
            every.append(one)
            return to_datum(one.prompt + one.completions[0], len(one.prompt))

        examples = [tokenize(i, *_sides(item)) for i, item in enumerate(train)]
        if all(isinstance(item, Pair) for item in test):
            job = _SftJob(examples, pairs_to_data(test, tokenizer, max_length=max_length), held_out_unit=2)
        else:
            job = _SftJob(examples, [tokenize(i, *_sides(x)) for i, x in enumerate(test)], held_out_unit=1)
        if cut := lost(every):
            warnings.warn(f"of what does not fit into {max_length} tokens, {cut}", UserWarning, stacklevel=2)
        return job


def _sides(item: Any) -> tuple[Any, str]:
    return (item.prompt, item.chosen) if isinstance(item, Pair) else item


def _pairs(source: Any) -> list[Any]:
    if isinstance(source, list) and all(isinstance(item, Pair) for item in source):
        return source
    return load_pairs(source)


def _train_and_held_out(data: Any, held_out: Any, seed: int, load: Any) -> tuple[list[Any], list[Any]]:
    train = arithmetic_pairs(TRAIN_PAIRS, split="train") if data is None else load(data)
    if not train:
        raise DataError("there is nothing to train on: the data are empty")
    if held_out is not None:
        test = load(held_out)
    elif data is None:
        test = arithmetic_pairs(HELD_OUT_PAIRS, split="held_out")
    else:
        train, test = split(train, seed)
    if not test:
        raise DataError("there is nothing to evaluate on: the held-out data are empty")
    return train, test


RECIPES: dict[str, Recipe | Rl] = {recipe.name: recipe for recipe in (Preference(), Sft(), Rl())}


def recipe_named(
    name: str, options: Mapping[str, Any] | None = None, *, own: Sequence[str] = (), loss: Any = None
) -> Recipe | Rl:
    """The recipe of that name, with options of its own where it has any.

    Args:
        own: what else may be given to a run, and ``loss``, with which it is to train: both for messages.

    Raises:
        ConfigError: there is none, or it has no such option.
    """
    if not isinstance(name, str) or name not in RECIPES:
        raise ConfigError(f"unknown recipe {name!r}; {_meant(name) or one_of(list(RECIPES), str(name))}")
    recipe, options = RECIPES[name], options or {}
    known = recipe.option_names if isinstance(recipe, Rl) else []
    check_options(options, name, known, own, recipe.default_loss if loss is None else loss)
    return recipe.with_options(options) if isinstance(recipe, Rl) else recipe


def _meant(given: Any) -> str:
    """What to write where a loss or a model was given in the place of the recipe."""
    if not isinstance(given, str):
        return "a loss is given as loss=" if callable(given) or isinstance(given, LossSpec) else ""
    if "/" in given or given == "mint-tiny":
        return f"a model is given as base_model={given!r}"
    if given not in LOSSES:
        return ""
    family = LOSSES[given].family
    recipe = next(r.name for r in RECIPES.values() if family in r.families)
    first = "" if recipe == "preference" else f"{recipe!r}, "
    return f"it is the name of a loss: Run({first}loss={given!r})"


def check_model(name: str) -> None:
    """Raise :class:`ConfigError` where ``name``, of a model, is that of a recipe or a loss and of no directory here."""
    for what, known in (("recipe", RECIPES), ("loss", LOSSES)):
        if name in known and not Path(name).is_dir():
            raise ConfigError(f"base_model is {name!r}, which is no model but a {what}: {what}={name!r}")


def check_loss(recipe: Recipe | Rl, spec: LossSpec) -> None:
    """Raise :class:`ConfigError` where ``recipe`` has no data of the kind that ``spec`` needs."""
    if spec.family in recipe.families:
        return
    others = [r.name for r in RECIPES.values() if spec.family in r.families]
    hint = f"; use recipe={others[0]!r}" if others else ""
    raise ConfigError(
        f"{spec.name} is a {spec.family} loss, and the {recipe.name} recipe trains with "
        f"{' or '.join(recipe.families)} losses{hint}"
    )


def context_length(tokenizer: Any) -> int | None:
    """What the tokenizer says of its model's context, tokens; some say a number beyond all meaning."""
    length = getattr(tokenizer, "model_max_length", math.inf)
    return int(length) if length < 10_000_000 else None
