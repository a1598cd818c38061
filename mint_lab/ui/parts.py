"""The parts of the workbench as widgets of their own: ``LiveCharts(run)``, ``RunControls(run)`` and the others.

Any number of them may show the same run, next to each other or cells apart. Closing one leaves the run alone.
Each shows one run that can go on: several are for :func:`~mint_lab.ui.compare.compare` and
:class:`~mint_lab.ui.run_table.RunTable`, which also opens what is recorded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import traitlets

from ..losses import LOSSES
from .loss_catalogue import loss_catalogue
from .protocol import Losses
from .widget import RunWidget

__all__ = ["LiveCharts", "LossPicker", "RunControls", "SamplesTable", "Warnings"]


class _Part(RunWidget):
    """A part of the page, for one run."""

    def __init__(self, run: Any) -> None:
        super().__init__(run)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(recipe={self.run.recipe!r})"


class LiveCharts(_Part):
    """Live charts of ``run``: training and held-out curves, histograms, and a marker at every change.

    Pointing at a step shows every chart's value there; dragging zooms all of them, a double click zooms out. Arrow keys
    walk through the steps of the chart that has the focus. The charts can be taken away as PNG, CSV and plotly JSON.

    >>> charts = ml.LiveCharts(lab.run)  # doctest: +SKIP
    """

    part = traitlets.Unicode("live_charts", read_only=True).tag(sync=True)


class RunControls(_Part):
    """Start, Pause, Step and Stop for ``run``, its progress, and why it paused when a step failed."""

    part = traitlets.Unicode("run_controls", read_only=True).tag(sync=True)


class LossPicker(_Part):
    """The loss of ``run`` with its formula and settings, and every other loss as a card.

    A loss that cannot train this run's data says why. "Edit as a cell" writes the loss as a ``%%loss`` cell.
    """

    part = traitlets.Unicode("loss_picker", read_only=True).tag(sync=True)
    _forget_losses: Callable[[], None] | None = None  # also when the constructor raised half-way

    def __init__(self, run: Any) -> None:
        super().__init__(run)
        self._forget_losses = LOSSES.subscribe(lambda _: self._on_losses())

    def close(self) -> None:
        if self._forget_losses is not None:
            self._forget_losses()
        super().close()

    def _on_losses(self) -> None:
        self._send_message(Losses(type="losses", losses=loss_catalogue(self.run.data_kind)), [])


class SamplesTable(_Part):
    """The latest responses of an "rl" ``run``: prompt, response token by token, reward and advantage."""

    part = traitlets.Unicode("samples_table", read_only=True).tag(sync=True)


class Warnings(_Part):
    """What ``run`` says about itself in plain words, each with the number that set it off and what to try."""

    part = traitlets.Unicode("warnings", read_only=True).tag(sync=True)
