"""A training run as a thing one can start, pause, edit, resume, compare.

Imports nothing until a name is used, so that importing the package stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .failure import RunFailure
    from .run import Run
    from .store import SavedRun, load_run

__all__ = ["Run", "RunFailure", "SavedRun", "load_run"]

_HOMES = {"Run": "run", "RunFailure": "failure", "SavedRun": "store", "load_run": "store"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
