"""The Python halves of the widgets. Nothing is imported until a name is used: anywidget and a run cost a second."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .charts import LiveCharts
    from .workbench import Workbench

__all__ = ["LiveCharts", "Workbench"]

_HOMES = {"LiveCharts": "charts", "Workbench": "workbench"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
