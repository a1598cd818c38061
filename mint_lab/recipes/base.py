"""What a recipe is: the base class of every way of training, and what it hands to a run.

- :class:`Recipe` describes a way of training: its options, what its data consist of, its defaults and its charts. With
  a tokenizer and data it makes a :class:`~mint_lab.recipes.job.Job`, and with a client and a job a trainer, which
  makes the steps.
- :func:`option` declares one option of a recipe.

Neither a recipe nor a job knows a model, a thread or a loss function.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..charts.chart_spec import charts_of
from ..errors import ConfigError
from ..losses import DataKind
from ..losses.spec import REFERENCE
from .job import BatchJob

if TYPE_CHECKING:
    from ..charts.chart_spec import ChartSpec
    from ..client.protocol import Tokenizer, TrainingClientProtocol
    from .guarded_trainer import GuardedTrainer
    from .job import Job
    from .record import StepRecord

__all__ = ["NoOptions", "Recipe", "check_recipe", "option"]


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
        charts: Names of registered charts, or :class:`~mint_lab.charts.chart_spec.ChartSpec` objects, in order. A
            metric that is in none of them gets a chart below these.
        headlines: Metrics that summarise a run, the most important first; a run may lack some of them.
        examples: What :meth:`GuardedTrainer.shown <mint_lab.recipes.guarded_trainer.GuardedTrainer.shown>` shows.
        keeps_samples: True if records keep model responses at each evaluation.
        batch_before_training: True if the first batch is known before training starts.
        lower_loss_is_better: False if the value of a loss gives only a direction, as that of a policy loss; a rising
            loss is then not reported as divergence.
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
    lower_loss_is_better: ClassVar[bool] = True
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

    def takes(self, row: Any) -> bool:
        """Return True if a row of data, or an object with data, looks as if it was made for this recipe.

        :func:`mint_lab.audit` asks the recipes in order if it is not told which one is meant; so a recipe accepts only
        what no recipe before it trains on. By default no row does.
        """
        return False

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

    def trainer(self, client: TrainingClientProtocol, job: Job, seed: int) -> GuardedTrainer:
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

    def trend_key(self, record: StepRecord) -> Hashable:
        """Return what records must have in common for their results to be compared over the whole run.

        Slow trends do not show in the last 50 records, so a run also gives :meth:`advice` the first records with the
        key of the last one, and an even sample of those after. By default no record has a key.

        Returns:
            Equal values for records that compare; None for a record without a result.
        """
        return None

    def advice(self, recent: Sequence[StepRecord]) -> dict[str, str]:
        """Return what the last records mean that only this recipe can tell; the run adds it to its own findings.

        Args:
            recent: The last records in order, at least one and at most 50. If records have a :meth:`trend_key`, the
                earlier ones that it selects come before them.

        Returns:
            One text per kind of finding, with its number and what to try. A kind that does not apply may be absent or
            have an empty text.
        """
        return {}


def check_recipe(recipe: type[Recipe]) -> None:
    """Check that a recipe class says what it must.

    Raises:
        ConfigError: If it is not a subclass of :class:`Recipe`, an attribute is missing or of the wrong kind, or there
            is no chart of a name in ``charts``.
    """
    if not (isinstance(recipe, type) and issubclass(recipe, Recipe)):
        raise ConfigError(f"a recipe is {recipe!r}, expected a subclass of mint_lab.recipes.Recipe")
    for attribute in ("name", "default_loss"):
        value = getattr(recipe, attribute, None)
        if not isinstance(value, str) or not value.isidentifier():
            raise ConfigError(f"{recipe.__name__}.{attribute} is {value!r}, expected a name (letters, digits, _)")
    if not is_dataclass(recipe.Options):
        raise ConfigError(f"{recipe.__name__}.Options is {recipe.Options!r}, expected a dataclass of options")
    charts_of(recipe.charts)  # a misspelt name is an error of the recipe, not of the first run that shows it
