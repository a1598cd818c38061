"""The recipes by name, how another one is registered, and what a run's arguments mean.

A bundled recipe is a class in a module of this package; nothing else names it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import itertools
import pkgutil
import threading
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from ..data.sources import Rows
from ..data.tasks import TASKS, is_task
from ..errors import ConfigError, DataError, one_of
from ..losses import LOSSES, LossSpec
from .base import Recipe, check_recipe
from .options import check_options

__all__ = [
    "RECIPES",
    "check_loss",
    "check_model",
    "recipe",
    "recipe_for",
    "recipe_named",
    "recipe_of",
    "unchecked_note",
]

ENTRY_POINTS = "mint_lab.recipes"
LOOKED_AT_ROWS = 20  # to see which recipe they are for; the first ones may be rows that cannot be used

MAX_NAMED_LOSSES = 4  # a refusal names the losses that fit, if they are few

R = TypeVar("R", bound=type[Recipe])


class _Recipes(Mapping[str, Recipe]):
    """Recipes by name. Those of installed packages (entry points) are loaded on the first look at the names."""

    def __init__(self, *bundled: type[Recipe]) -> None:
        self._bundled = {kind.name: kind() for kind in bundled}
        self._others: dict[str, Recipe] = {}
        self._loaded = False
        self._lock = threading.RLock()

    def register(self, kind: type[Recipe]) -> None:
        """Add a recipe; one of the same name that was registered before is replaced. Raises as :func:`recipe`."""
        check_recipe(kind)
        with self._lock:
            if kind.name in self._bundled:
                raise ConfigError(f"{kind.name!r} is a bundled recipe; choose another name")
            self._others[kind.name] = kind()

    def remove(self, name: str) -> None:
        """Forget a recipe that was registered.

        Raises:
            ConfigError: If none of that name was registered.
        """
        with self._lock:
            if self._others.pop(name, None) is None:
                raise ConfigError(f"no registered recipe is called {name!r}")

    def _load_entry_points(self) -> None:
        with self._lock:
            if self._loaded:
                return
            self._loaded = True
            for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
                try:
                    self.register(point.load())
                except Exception as error:  # a broken package must not take the other recipes along
                    package = point.dist.name if point.dist else point.value
                    text = f"the recipe {point.name!r} of {package} is left out: {type(error).__name__}: {error}"
                    warnings.warn(text, UserWarning, stacklevel=2)

    def _all(self) -> dict[str, Recipe]:
        self._load_entry_points()
        return self._bundled | self._others

    def __getitem__(self, name: str) -> Recipe:
        return self._bundled[name] if name in self._bundled else self._all()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())


# The order in which the recipes are listed. A recipe that is not named follows in alphabetical order.
_ORDER = ("preference", "sft", "rl", "unpaired")


def _bundled() -> list[type[Recipe]]:
    """Return every recipe that a module of this package defines, or the module ``recipe`` of a package in it."""
    package = __name__.rpartition(".")[0]
    kinds: list[type[Recipe]] = []
    for found in pkgutil.iter_modules(importlib.import_module(package).__path__):
        if found.name == "registry":
            continue
        module = importlib.import_module(f"{package}.{found.name}" + (".recipe" if found.ispkg else ""))
        own = [value for value in vars(module).values() if getattr(value, "__module__", "") == module.__name__]
        kinds += [
            value for value in own if isinstance(value, type) and issubclass(value, Recipe) and value is not Recipe
        ]
    return sorted(kinds, key=lambda kind: (_ORDER.index(kind.name) if kind.name in _ORDER else len(_ORDER), kind.name))


RECIPES = _Recipes(*_bundled())


def recipe(kind: R) -> R:
    """Register a recipe: a decorator for a subclass of :class:`~mint_lab.recipes.Recipe`; the class is returned.

    ::

        @mint_lab.recipe
        class Distill(mint_lab.recipes.Recipe):
            name = "distill"
            ...

    A package offers a recipe to everyone who installs it under the entry-point group ``mint_lab.recipes``.
    Registering a name again replaces the recipe for runs that are made afterwards.

    Raises:
        ConfigError: If the class is not a complete recipe, or has the name of a bundled one.
    """
    RECIPES.register(kind)
    return kind


def recipe_named(
    name: str, options: Mapping[str, Any] | None = None, *, arguments: Sequence[str] = (), loss: Any = None
) -> Recipe:
    """Return the recipe of that name, with these options.

    Args:
        name: A registered name.
        options: Options of the recipe.
        arguments: What else can be given to a run, for messages.
        loss: The loss that the run is to train with, for messages.

    Raises:
        ConfigError: If there is no such recipe, or it has no such option; as its ``with_options``.
    """
    if not isinstance(name, str) or name not in RECIPES:
        raise ConfigError(f"unknown recipe {name!r}; {_meant(name) or one_of(list(RECIPES), str(name))}")
    found, options = RECIPES[name], options or {}
    others = {other.name: other.option_names() for other in RECIPES.values() if other.name != name}
    check_options(options, found, others, arguments, found.default_loss if loss is None else loss)
    return found.with_options(options) if options else found


def recipe_for(data: Any) -> tuple[str, str, Any]:
    """Return the name of the recipe that data look made for, why, and the data, which are still unread.

    Args:
        data: What a run takes. Of an iterator, the first rows are read and put back.

    Raises:
        DataError: If the data cannot be read, or no recipe takes one of the first rows.
    """
    if data is None:
        return "preference", "there are no data, so these are the bundled pairs", data
    source = data.source if isinstance(data, Rows) else data
    if is_task(source) or (isinstance(source, str) and source in TASKS):
        return "rl", "the data are a task", data
    looked_at = source
    if isinstance(source, Iterator):
        looked_at = list(itertools.islice(cast("Iterator[Any]", source), LOOKED_AT_ROWS))
        whole = itertools.chain(looked_at, source)
        data = Rows(whole, max_rows=data.max_rows, on_bad_row=data.on_bad_row) if isinstance(data, Rows) else whole
    first = Rows(looked_at, max_rows=LOOKED_AT_ROWS, on_bad_row="skip").map(lambda row, number: (number, row))
    for number, row in first:
        for each in RECIPES.values():
            if each.takes(row):
                return each.name, f"row {number} has {_columns(row)}", data
    number, row = first[0]
    raise DataError(
        f"found {_columns(row)}, which no recipe is known to train on; name the recipe: {one_of(list(RECIPES), '')}",
        index=number,
    )


def _columns(row: Any) -> str:
    if isinstance(row, Mapping):
        return ", ".join(map(repr, row)) or "no columns"
    return "text alone" if isinstance(row, str) else f"a {type(row).__name__}"


def recipe_of(name: str) -> Recipe:
    """Return the recipe that a recorded run was made with, or a bare one if its package is not installed here."""
    return RECIPES[name] if name in RECIPES else _Unknown()


class _Unknown(Recipe):
    """Stands for a recipe that is not registered: its runs can be read, with a chart for every metric."""

    name = "unknown"
    default_loss = "cross_entropy"

    def prepare(self, tokenizer: Any, data: Any, held_out: Any, *, seed: int, max_length: int | None = None) -> Any:
        raise ConfigError("this recipe is not registered here; install the package that has it, or run its cell")


def _meant(given: Any) -> str:
    """Return what to write if a loss or a model was given in the place of the recipe; "" if neither was."""
    if not isinstance(given, str):
        return "a loss is given as loss=" if callable(given) or isinstance(given, LossSpec) else ""
    if "/" in given or given == "mint-tiny":
        return f"a model is given as base_model={given!r}"
    if given not in LOSSES:
        return ""
    fitting = recipes_for(LOSSES[given])
    first = "" if not fitting or fitting[0] == "preference" else f"{fitting[0]!r}, "
    return f"it is the name of a loss: Run({first}loss={given!r})"


def check_model(name: str) -> None:
    """Raise :class:`ConfigError` if ``name``, of a model, is that of a recipe or a loss and of no directory here."""
    for what, known in (("recipe", RECIPES), ("loss", LOSSES)):
        if name in known and not Path(name).is_dir():
            raise ConfigError(f"base_model is {name!r}, which is not a model but a {what}: {what}={name!r}")


def recipes_for(spec: LossSpec) -> list[str]:
    """Return the names of the recipes whose data ``spec`` can train on."""
    return [other.name for other in RECIPES.values() if spec.unfit(other.data_kind) is None]


def losses_for(recipe: Recipe) -> list[str]:
    """Return the names of the bundled losses that can train on the data of ``recipe``."""
    return [spec.name for spec in LOSSES.values() if spec.family != "custom" and spec.unfit(recipe.data_kind) is None]


def check_loss(recipe: Recipe, spec: LossSpec) -> None:
    """Raise :class:`ConfigError` if ``spec`` cannot train on the data of ``recipe``, with the reason."""
    reason = spec.unfit(recipe.data_kind)
    if reason is None:
        return
    fitting, others = recipes_for(spec), losses_for(recipe)
    hint = f"; use recipe={fitting[0]!r}" if fitting else ""
    if 0 < len(others) <= MAX_NAMED_LOSSES:
        hint += f"{' or' if hint else '; use'} loss={' or '.join(map(repr, others))}"
    raise ConfigError(f"{spec.name} {reason} (recipe {recipe.name!r}){hint}")


def unchecked_note(spec: LossSpec) -> str | None:
    """Return a warning about a loss of which nobody knows whether it takes pairs; None if that is known."""
    if spec.unit:
        return None
    return (
        f"{spec.label} was not checked: if it expects pairs and the data have none, or the other way round, it trains "
        "on the wrong thing. Run it through preflight, or register it with a %%loss cell or "
        '@ml.loss(unit="pair") or "datum"'
    )
