"""The Python side of the widgets. Names are imported at first use, because anywidget and a run take a second."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lazy import lazy_names

if TYPE_CHECKING:
    from .compare import Compare
    from .parts import LiveCharts, LossPicker, RunControls, SamplesTable, Warnings
    from .run_table import RunTable
    from .token_view import TokenView, show_tokens
    from .workbench import Workbench

__all__ = [
    "Compare",
    "LiveCharts",
    "LossPicker",
    "RunControls",
    "RunTable",
    "SamplesTable",
    "TokenView",
    "Warnings",
    "Workbench",
    "show_tokens",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "Compare": ".compare",
        "LiveCharts": ".parts",
        "LossPicker": ".parts",
        "RunControls": ".parts",
        "RunTable": ".run_table",
        "SamplesTable": ".parts",
        "Warnings": ".parts",
        "TokenView": ".token_view",
        "Workbench": ".workbench",
        "show_tokens": ".token_view",
    },
)
