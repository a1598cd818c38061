"""Names of a module that are imported when they are first used (PEP 562), so that importing the package stays quick."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["lazy_names"]


def lazy_names(module: str, homes: Mapping[str, str | None]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The ``__getattr__`` and ``__dir__`` of ``module`` (its ``__name__``).

    ``homes`` says for each name which module has it, relative to ``module`` where it begins with a dot; ``None`` is the
    submodule of that name. What was looked up once stands in ``module`` from then on. The ``__getattr__`` raises
    ``AttributeError`` for other names.
    """

    def __getattr__(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        home = homes[name]
        value = importlib.import_module(home or f".{name}", module)
        if home is not None:
            value = getattr(value, name)
        setattr(sys.modules[module], name, value)
        return value

    def __dir__() -> list[str]:
        return sorted(homes)

    return __getattr__, __dir__
