"""Several runs in one chart: which charts, and what is subtracted so that the runs compare."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from .chart_spec import CHARTS, ChartSpec, stray_charts
from .run_data import Points, RunData

__all__ = ["OverlayChart", "compared_metrics", "ordered_metrics", "overlay_charts", "stray_overlays"]


@dataclass(frozen=True)
class OverlayChart:
    """One metric of several runs.

    Attributes:
        minus: The metric that is subtracted from ``metric``; empty: none.
    """

    name: str
    title: str
    unit: str
    definition: str
    bounds: tuple[float, float] | None
    metric: str
    minus: str = ""

    def training(self, run: RunData) -> Points | None:
        """Return the curve of a run's training batches, or None if it has none."""
        return self._curve(run.training)

    def held_out(self, run: RunData) -> Points | None:
        """Return the held-out curve of a run, or None if it has none."""
        return self._curve(run.held_out)

    def _curve(self, curves: Mapping[str, Points]) -> Points | None:
        if not self.minus or not {self.metric, self.minus} <= set(curves):
            return curves.get(self.name if self.minus else self.metric)
        subtracted = dict(zip(*curves[self.minus], strict=True))
        steps, values = curves[self.metric]
        both = [
            (step, value - subtracted[step]) for step, value in zip(steps, values, strict=True) if step in subtracted
        ]
        return [step for step, _ in both], [value for _, value in both]


def overlay_charts(charts: Iterable[ChartSpec]) -> list[OverlayChart]:
    """Return a chart for every curve of ``charts``, in their order, those of incomparable units last.

    Args:
        charts: The charts of all runs, one run after the other; repeated ones count once.
    """
    found: dict[str, OverlayChart] = {}
    last: set[str] = set()
    specs = [chart for chart in charts if chart.kind == "lines"]
    known = {name for chart in specs for name in chart.metrics}
    for chart in specs:
        for metric in chart.metrics:
            if metric in found:
                continue
            single, unit = len(chart.metrics) == 1, chart.unit or ""
            title = chart.title if single else metric
            made = OverlayChart(metric, title, unit, chart.definition, chart.bounds if single else None, metric)
            overlay = chart.overlay
            if overlay is not None and not overlay.difference:
                made = replace(made, unit=overlay.unit or unit)
            elif overlay is not None and set(overlay.difference) <= known:
                one, other = overlay.difference
                made = replace(made, unit=overlay.unit or unit, metric=one, minus=other)
            if overlay is not None and overlay.last:
                last.add(metric)
            found[metric] = made
    return sorted(found.values(), key=lambda chart: chart.name in last)


def stray_overlays(runs: Sequence[RunData], charts: Iterable[ChartSpec]) -> list[OverlayChart]:
    """Return a chart each for metrics of the runs that no chart shows."""
    names = [name for run in runs for name in (*run.training, *run.held_out)]
    return overlay_charts(stray_charts(names, charts))


def ordered_metrics(names: Iterable[str], charts: Iterable[ChartSpec]) -> list[str]:
    """Return metrics in the order in which ``charts`` show them, and those that no chart shows by name at the end."""
    places = {chart.name: place for place, chart in enumerate(overlay_charts(charts))}
    return sorted(names, key=lambda name: (places.get(name, len(places)), name))


def compared_metrics(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return ``metrics`` as runs compare: with the differences that charts show instead of a loss's own numbers.

    ``mean_margin`` becomes ``logps/chosen - logps/rejected``, nats, if both are known: a loss may report its margin
    times beta or per token under that name.
    """
    compared = dict(metrics)
    for chart in CHARTS.values():
        overlay = chart.overlay
        if overlay is not None and overlay.difference and set(overlay.difference) <= set(metrics):
            one, other = overlay.difference
            compared[chart.name] = metrics[one] - metrics[other]
    return compared
