"""Charts and metrics as they travel to the page: what ``charts`` and ``metrics`` say, in the shape of the messages."""

from __future__ import annotations

from ..charts.chart_spec import ChartSpec, charts_of
from ..metrics.registry import METRICS
from ..recipes.registry import recipe_of
from .messages import Chart, Line, MetricEntry, Overlay
from .utf8 import as_utf8

__all__ = ["charts_for", "metric_entries"]


def charts_for(recipe: str) -> list[Chart]:
    """Return the charts of a recipe. The page adds one for each metric that is in none of them."""
    return as_utf8([_chart(spec) for spec in charts_of(recipe_of(recipe).charts)])


def metric_entries() -> dict[str, MetricEntry]:
    """Return what the page says of a metric that it draws in a chart of its own making."""
    return {name: MetricEntry(definition=spec.definition, unit=spec.unit) for name, spec in METRICS.items()}


def _chart(spec: ChartSpec) -> Chart:
    overlay = spec.overlay
    return Chart(
        name=spec.name,
        title=spec.title,
        definition=spec.definition,
        unit=spec.unit or "",
        kind=spec.kind,
        axis=spec.axis,
        counts=spec.counts,
        lines=[Line(series=line.series, label=line.label, role=line.role, spread=line.spread) for line in spec.lines],
        bounds=None if spec.bounds is None else list(spec.bounds),
        overlay=None
        if overlay is None
        else Overlay(difference=list(overlay.difference), unit=overlay.unit, last=overlay.last),
    )
