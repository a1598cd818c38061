"""What a recipe is: the base class of every way of training, and what it hands to a run.

- :class:`Recipe` describes a way of training: its options, what its data consist of, its defaults and its charts. With
  a tokenizer and data it makes a :class:`Job`, and with a client and a job a trainer, which makes the steps.
- :class:`BatchJob` is a job on a fixed data set, ready for
  :class:`~mint_lab.recipes.batch_trainer.BatchTrainer`; a recipe that only needs other data or other metrics
  subclasses it.
- :func:`option` declares one option of a recipe.

Neither a recipe nor a job knows a model, a thread or a loss function.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from ..errors import ConfigError
from ..losses import DataKind
from ..losses.spec import REFERENCE

if TYPE_CHECKING:
    import torch

    from ..charts.spec import ChartSpec
    from ..client.protocol import Tokenizer, TrainingClient
    from ..types import Datum
    from .guarded_trainer import GuardedTrainer

__all__ = ["BatchJob", "Job", "Measured", "NoOptions", "Recipe", "ShuffledSampler", "option"]


@dataclass(frozen=True)
class Measured:
    """Metrics by name, and histograms (counts by bin) by name, of some data."""

    metrics: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, list[int]] = field(default_factory=dict)


class Job(Protocol):
    """A recipe with its data, ready to train. An item is what a batch counts: a pair, an example, a prompt."""

    @property
    def size(self) -> int:
        """Items to train on."""
        ...

    @property
    def held_out_size(self) -> int:
        """Items held out."""
        ...


@dataclass(frozen=True)
class BatchJob:
    """A job on a fixed data set; it measures nothing but the loss. Subclasses add metrics.

    Attributes:
        data: Training datums, ``unit`` consecutive ones per item.
        held_out: Held-out datums, ``held_out_unit`` consecutive ones per item.
        unit: Datums per training item: 2 for pairs.
        held_out_unit: Datums per held-out item; 0 stands for ``unit``. If it is larger than ``unit``, the loss sees the
            first datums of every held-out item, for example the chosen completion of a pair.
    """

    data: list[Datum]
    held_out: list[Datum]
    unit: int = 1
    held_out_unit: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "held_out_unit", self.held_out_unit or self.unit)

    @property
    def size(self) -> int:
        """Items to train on."""
        return len(self.data) // self.unit

    @property
    def held_out_size(self) -> int:
        """Items held out."""
        return len(self.held_out) // self.held_out_unit

    @property
    def loss_slice(self) -> slice:
        """Which held-out datums the loss sees."""
        return slice(None, None, self.held_out_unit // self.unit)

    def batch(self, items: Sequence[int]) -> list[Datum]:
        """Return the datums of ``items`` (positions in the training data, 0-based), in that order."""
        return [datum for i in items for datum in self.data[self.unit * i : self.unit * (i + 1)]]

    def measure(self, data: list[Datum], logprobs: list[torch.Tensor]) -> Measured:
        """Measure a training batch.

        Args:
            data: The batch.
            logprobs: Log-probabilities of the targets from before the update, ``(N_i,)`` each, nats.
        """
        return Measured()

    def evaluate(self, data: list[Datum], logprobs: list[torch.Tensor], baseline: list[torch.Tensor]) -> Measured:
        """Measure held-out data.

        Args:
            data: Held-out datums.
            logprobs: Log-probabilities of their targets now, ``(N_i,)`` each, nats.
            baseline: The same before training.
        """
        return self.measure(data, logprobs)


def option(default: Any, doc: str) -> Any:
    """Declare one option in a recipe's dataclass of options.

    Args:
        default: Its value if a run does not give one.
        doc: One line with the unit, shown on the page.
    """
    return field(default=default, metadata={"doc": doc})


@dataclass(frozen=True)
class NoOptions:
    """The options of a recipe that has none."""


class Recipe(ABC):
    """A way of training, by name, with defaults that work on the bundled model.

    Subclass it, set the class attributes, and write :meth:`prepare`; :func:`mint_lab.recipe` registers the class. It
    then works wherever a recipe's name is accepted: ``Run``, ``Workbench``, ``compare``, ``RunTable`` and the command
    line. A package offers one under the entry-point group ``mint_lab.recipes``.

    Attributes:
        name: What a run is given to use it.
        summary: One sentence.
        default_loss: Name of a registered loss.
        default_steps: Optimizer steps.
        default_learning_rate: Of AdamW.
        default_data: What it trains on if no data are given, in a few words.
        charts: Names of registered charts, or :class:`~mint_lab.charts.spec.ChartSpec` objects, in order. A metric that
            is in none of them gets a chart below these.
        headlines: Metrics that summarise a run, the most important first; a run may lack some of them.
        examples: What :meth:`GuardedTrainer.shown <mint_lab.recipes.guarded_trainer.GuardedTrainer.shown>` shows.
        keeps_samples: True if records keep model responses at each evaluation.
        batch_before_training: True if the first batch is known before training starts.
        Options: A frozen dataclass whose fields, declared with :func:`option`, are the options of the recipe.
        options: The options in use.
    """

    name: ClassVar[str]
    summary: ClassVar[str] = ""
    default_loss: ClassVar[str]
    default_steps: ClassVar[int] = 200
    default_learning_rate: ClassVar[float] = 1e-3
    default_data: ClassVar[str] = "the recipe's own data"
    charts: ClassVar[tuple[str | ChartSpec, ...]] = ("loss", "grad_norm")
    headlines: ClassVar[tuple[str, ...]] = ("loss",)
    examples: ClassVar[str] = "held-out examples"
    keeps_samples: ClassVar[bool] = False
    batch_before_training: ClassVar[bool] = True
    Options: ClassVar[type[Any]] = NoOptions

    def __init__(self, options: Any = None) -> None:
        self.options: Any = self.Options() if options is None else options

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.options!r})"

    @property
    def data_kind(self) -> DataKind:
        """What its datums consist of, which decides the losses that fit."""
        return DataKind(frozenset({"weights", REFERENCE}), "datum")

    @property
    def reward(self) -> str | None:
        """Name of the registered reward that grades responses; None if none does."""
        return None

    @property
    def evaluation(self) -> str:
        """How held-out prompts are answered, "greedy" or "sampled"; "" if the recipe samples no answers."""
        return ""

    @classmethod
    def option_names(cls) -> list[str]:
        """Return the names of the options."""
        return [each.name for each in fields(cls.Options)]

    @classmethod
    def option_docs(cls) -> dict[str, str]:
        """Return the one-line description of each option."""
        return {each.name: str(each.metadata.get("doc", "")) for each in fields(cls.Options)}

    def option_values(self) -> dict[str, Any]:
        """Return the options in use, by name, in plain types."""
        return asdict(self.options)

    def with_options(self, given: Mapping[str, Any]) -> Recipe:
        """Return this recipe with other options.

        Raises:
            ConfigError: If a value is not valid; whatever ``Options`` raises.
        """
        return type(self)(replace(self.options, **given))

    @abstractmethod
    def prepare(
        self, tokenizer: Tokenizer, data: Any, held_out: Any, *, seed: int, max_length: int | None = None
    ) -> Job:
        """Load and tokenize the data.

        Args:
            tokenizer: The model's.
            data: What to train on; None for the recipe's default.
            held_out: What to evaluate on; None for the default's own, or a seeded tenth of ``data``.
            seed: Seed of that split.
            max_length: Longest sequence that the model takes, tokens.

        Raises:
            DataError: If there is nothing to train on, or an item cannot be used.
        """

    def trainer(self, client: TrainingClient, job: Job, seed: int) -> GuardedTrainer:
        """Return what makes the steps: by default a trainer on a fixed data set, which needs a :class:`BatchJob`.

        Args:
            client: A training client.
            job: What :meth:`prepare` returned.
            seed: Seed of the order of the data.
        """
        from .batch_trainer import BatchTrainer

        if not isinstance(job, BatchJob):
            raise ConfigError(
                f"the {self.name} recipe prepared a {type(job).__name__}, expected a BatchJob; "
                "return one from prepare(), or write trainer() as well"
            )
        return BatchTrainer(client, job, seed)


def check_recipe(recipe: type[Recipe]) -> None:
    """Check that a recipe class says what it must.

    Raises:
        ConfigError: If it is not a subclass of :class:`Recipe`, or an attribute is missing or of the wrong kind.
    """
    if not (isinstance(recipe, type) and issubclass(recipe, Recipe)):
        raise ConfigError(f"a recipe is {recipe!r}, expected a subclass of mint_lab.recipes.Recipe")
    for attribute in ("name", "default_loss"):
        value = getattr(recipe, attribute, None)
        if not isinstance(value, str) or not value.isidentifier():
            raise ConfigError(f"{recipe.__name__}.{attribute} is {value!r}, expected a name (letters, digits, _)")
    if not is_dataclass(recipe.Options):
        raise ConfigError(f"{recipe.__name__}.Options is {recipe.Options!r}, expected a dataclass of options")


class ShuffledSampler:
    """An endless stream of item numbers: each epoch is a new shuffle of all items, determined by seed and epoch."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self._cached: tuple[int, list[int]] = (-1, [])

    def items(self, start: int, count: int) -> list[int]:
        """Return the items at stream positions ``start`` to ``start + count``; at most one epoch's worth."""
        return list(self.stream(start, count))

    def stream(self, start: int, count: int) -> Iterator[int]:
        """Iterate over what :meth:`items` returns."""
        return (self._epoch(k // self.size)[k % self.size] for k in range(start, start + min(count, self.size)))

    def _epoch(self, epoch: int) -> list[int]:
        if self._cached[0] != epoch:
            self._cached = (epoch, np.random.default_rng([self.seed, epoch]).permutation(self.size).tolist())
        return self._cached[1]
