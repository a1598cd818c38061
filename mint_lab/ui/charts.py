"""``LiveCharts(run)``: the curves of a run, alone."""

from __future__ import annotations

from typing import Any

import traitlets

from .widget import RunWidget

__all__ = ["LiveCharts"]


class LiveCharts(RunWidget):
    """Live charts of ``run``: training and held-out curves, the margin histogram, and a marker at every change.

    Any number of them may show the same run. Closing one leaves the run alone.

    >>> charts = ml.LiveCharts(lab.run)  # doctest: +SKIP
    """

    part = traitlets.Unicode("live_charts", read_only=True).tag(sync=True)

    def __init__(self, run: Any) -> None:
        super().__init__(run)

    def __repr__(self) -> str:
        return f"LiveCharts(recipe={self.run.recipe!r})"
