"""The parts of the workbench as separate widgets: ``LiveCharts(run)``, ``RunControls(run)`` and the others.

Any number of them can show the same run, in one cell or in several. Closing one does not affect the run. Each of them
shows one run that can be trained; :func:`~mint_lab.ui.compare.compare` shows several runs, and
:class:`~mint_lab.ui.run_table.RunTable` also recorded ones.
"""

from __future__ import annotations

from typing import Any

import traitlets

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

    Pointing at a step shows the values of all charts there; dragging zooms all charts, a double click zooms out. The
    arrow keys move through the steps of the focused chart. The charts can be downloaded as PNG, CSV and plotly JSON.

    >>> charts = ml.LiveCharts(lab.run)  # doctest: +SKIP
    """

    part = traitlets.Unicode("live_charts", read_only=True).tag(sync=True)


class RunControls(_Part):
    """Start, Pause, Step and Stop for ``run``, its progress, and why it paused if a step failed."""

    part = traitlets.Unicode("run_controls", read_only=True).tag(sync=True)


class LossPicker(_Part):
    """The loss of ``run`` with its formula and settings, and every other loss as a card.

    The card of a loss that cannot train on the run's data says why. "Edit as a cell" writes the loss as a ``%%loss``
    cell.
    """

    part = traitlets.Unicode("loss_picker", read_only=True).tag(sync=True)
    _has_loss_picker = True


class SamplesTable(_Part):
    """The latest responses that ``run`` stored: prompt, response token by token, reward and advantage.

    Of the bundled recipes, "rl" stores responses.
    """

    part = traitlets.Unicode("samples_table", read_only=True).tag(sync=True)


class Warnings(_Part):
    """The warnings of ``run`` in plain words, each with its number and what to try."""

    part = traitlets.Unicode("warnings", read_only=True).tag(sync=True)
