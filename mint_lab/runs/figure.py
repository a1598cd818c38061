"""A run, live or recorded, as one plotly figure of its recipe's charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..charts.chart_spec import charts_of
from ..charts.run_data import RatioLimits, run_data
from ..losses import LOSSES
from ..recipes.record import Edit, StepRecord
from ..recipes.registry import recipe_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["draw_run"]


def draw_run(
    recipe: str, records: Sequence[StepRecord], edits: Sequence[Edit], baseline: Mapping[str, float]
) -> go.Figure:
    """Return the figure; see :func:`mint_lab.charts.plotly_figure.run_figure`.

    Args:
        recipe: Name of the recipe.
        records: One per step.
        edits: What changed during the run.
        baseline: Held-out metrics before training.
    """
    from ..charts.plotly_figure import run_figure

    data = run_data("", records, baseline, edits, _limits(records))
    return run_figure(data, charts_of(recipe_of(recipe).charts))


def _limits(records: Sequence[StepRecord]) -> RatioLimits | None:
    """Where the loss clipped the ratio at the last step."""
    last = records[-1] if records else None
    if last is None or last.clip is None:
        return None
    clip = LOSSES[last.loss_name].clip if last.loss_name in LOSSES else None
    return RatioLimits(*last.clip, both=clip is not None and clip.both)
