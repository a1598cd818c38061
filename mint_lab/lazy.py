"""Names of a module that are imported on first use (PEP 562), so that importing the package stays fast."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

__all__ = ["lazy_names"]


class _LazyModule(ModuleType):
    """A package in which a public function may have the name of a submodule, such as ``mint_lab.preflight``.

    The import system sets every imported submodule as an attribute of its package. Here the lazy name wins, whichever
    of the two is imported first.
    """

    _lazy_homes: Mapping[str, str | None]

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, ModuleType) and self._lazy_homes.get(name) is not None:
            return
        super().__setattr__(name, value)


def lazy_names(module: str, homes: Mapping[str, str | None]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return the ``__getattr__`` and ``__dir__`` of ``module`` (its ``__name__``).

    Args:
        module: The package that gets the names. A name in ``homes`` that is also one of its submodules stays the lazy
            name after that submodule is imported.
        homes: For each name the module that defines it, relative to ``module`` if it begins with a dot; ``None`` means
            the submodule of that name. A name is stored in ``module`` after its first lookup.

    Returns:
        The two functions. ``__getattr__`` raises ``AttributeError`` for a name that ``homes`` does not have.
    """
    this = sys.modules[module]
    vars(this)["_lazy_homes"] = homes
    this.__class__ = _LazyModule

    def __getattr__(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home = homes[name]
        value = importlib.import_module(home or f".{name}", module)
        if home is not None:
            value = getattr(value, name)
        setattr(this, name, value)
        return value

    def __dir__() -> list[str]:
        return sorted(homes)

    return __getattr__, __dir__
