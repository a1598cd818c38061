"""A run, live or recorded, as one plotly figure of its recipe's charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from ..charts.chart_spec import charts_of
from ..charts.run_data import DrawnBranch, RatioLimits, run_data
from ..losses import LOSSES
from ..recipes.record import Edit, Rewind, StepRecord
from ..recipes.registry import recipe_of
from .branches import Branches, RecordedRun, branches_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

__all__ = ["DrawableRun", "draw_run", "drawn_branches"]


class DrawableRun(Protocol):
    """The part of a run that is drawn."""

    @property
    def records(self) -> Sequence[StepRecord]: ...
    @property
    def edits(self) -> Sequence[Edit]: ...
    @property
    def rewinds(self) -> Sequence[Rewind]: ...
    @property
    def parent(self) -> Mapping[str, Any]: ...
    @property
    def baseline(self) -> Mapping[str, float]: ...


def draw_run(recipe: str, run: DrawableRun, parent: RecordedRun | None) -> go.Figure:
    """Return the figure; see :func:`mint_lab.charts.plotly_figure.run_figure`.

    Args:
        recipe: Name of the recipe.
        run: The run.
        parent: The run that it was forked from, if it is a fork.
    """
    from ..charts.plotly_figure import run_figure

    records, edits = list(run.records), list(run.edits)
    branches = branches_of(records, edits, run.rewinds, run.parent, parent)
    data = run_data(
        "",
        records,
        run.baseline,
        edits,
        _limits(records),
        branches=drawn_branches(branches, run.baseline),
        branches_left_out=branches.left_out,
    )
    return run_figure(data, charts_of(recipe_of(recipe).charts))


def drawn_branches(branches: Branches, baseline: Mapping[str, float]) -> list[DrawnBranch]:
    """Return the branches as the renderers take them.

    Args:
        branches: Of the run.
        baseline: Held-out metrics before training, which they have in common.
    """
    return [
        DrawnBranch(branch.step, run_data(branch.label, branch.records, baseline, branch.edits))
        for branch in branches.drawn
    ]


def _limits(records: Sequence[StepRecord]) -> RatioLimits | None:
    """Where the loss clipped the ratio at the last step."""
    last = records[-1] if records else None
    if last is None or last.clip is None:
        return None
    clip = LOSSES[last.loss_name].clip if last.loss_name in LOSSES else None
    return RatioLimits(*last.clip, both=clip is not None and clip.both)
