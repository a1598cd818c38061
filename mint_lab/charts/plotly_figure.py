"""Charts as one plotly figure: of a run (``run.figure()``, the page's download) and of several runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .chart_spec import ChartSpec
from .overlay import OverlayChart, overlay_charts, stray_overlays
from .palette import BASE, DASHES, FONT, ROLES, RUNS
from .ratio_bins import RATIO_TICKS, Half, halves_of, root_ticks
from .run_data import Change, Counts, Points, RunData

__all__ = ["comparison_figure", "run_figure"]

COLUMNS = 3
ROW_PX = 260
MUTED = BASE["light"]["muted"]
COLOURS = ROLES["light"]

Panel = tuple[str, str, str, Callable[["_Place"], None]]
"""Title, unit, definition, and what draws the chart at its place."""


def run_figure(run: RunData, charts: Sequence[ChartSpec]) -> go.Figure:
    """Draw a run's charts, and one for each further metric that it has; charts without numbers are left out.

    Training batches are thin lines, held-out data thick ones with a point for each evaluation. A chart "bars" shows its
    histograms over all steps, one "ratios" those of the last rollout. Dotted verticals mark changes; the first chart
    has their texts. Faint dashed curves are steps that the run has left.

    Args:
        run: Its numbers.
        charts: What :func:`~mint_lab.charts.chart_spec.charts_of` returns.
    """
    drawn = [chart for chart in (*charts, *run.stray(charts)) if run.draws(chart)]
    draw = {"lines": _draw_lines, "bars": _draw_heat, "ratios": _draw_ratios}

    def painter(chart: ChartSpec) -> Callable[[_Place], None]:
        def paint(place: _Place) -> None:
            if chart.kind != "ratios":
                place.steps(run.last_step)
            draw[chart.kind](place, chart, run)

        return paint

    panels = [(chart.title, chart.unit or "", chart.definition, painter(chart)) for chart in drawn]
    figure = _grid(panels)
    steps = [place for place, chart in enumerate(drawn) if chart.kind != "ratios"]
    if steps:
        _mark(figure, run.changes, steps)
    return figure


def comparison_figure(runs: Sequence[RunData], charts: Sequence[ChartSpec]) -> go.Figure:
    """Draw every metric with all runs in one chart; held-out data strong, training batches faint.

    Args:
        runs: Each has its own colour and line style.
        charts: The charts of all runs, see :func:`~mint_lab.charts.overlay.overlay_charts`.
    """
    everything = [*overlay_charts(charts), *stray_overlays(runs, charts)]
    drawn = [c for c in everything if any(c.training(run) or c.held_out(run) for run in runs)]

    steps = max((run.steps for run in runs), default=0)

    def painter(chart: OverlayChart) -> Callable[[_Place], None]:
        def paint(place: _Place) -> None:
            place.steps(steps)
            _draw_overlay(place, chart, runs)

        return paint

    return _grid([(chart.title, chart.unit, chart.definition, painter(chart)) for chart in drawn])


class _Place:
    """One chart of a figure: adds traces and sets axes."""

    def __init__(self, figure: go.Figure, number: int) -> None:
        self.figure: Any = figure
        self.number = number
        self._at: dict[str, Any] = {"row": number // COLUMNS + 1, "col": number % COLUMNS + 1}

    def add(self, trace: Any, *, legend: bool) -> None:
        trace.showlegend = legend
        self.figure.add_trace(trace, **self._at)

    def is_new(self, group: str) -> bool:
        """Return True if the legend has no entry of this group yet."""
        return not any(trace.legendgroup == group for trace in self.figure.data if trace.showlegend)

    def x(self, **axis: Any) -> None:
        self.figure.update_xaxes(**axis, **self._at)

    def y(self, **axis: Any) -> None:
        self.figure.update_yaxes(**axis, **self._at)

    def steps(self, last: int) -> None:
        """All charts over steps have one axis, whatever steps have numbers."""
        self.x(range=[-0.02 * last - 0.5, 1.02 * last + 0.5])

    def line(self, **shape: Any) -> None:
        self.figure.add_shape(**shape, **self._at)

    def text(self, **annotation: Any) -> None:
        self.figure.add_annotation(showarrow=False, **annotation, **self._at)


def _grid(panels: Sequence[Panel]) -> go.Figure:
    if not panels:
        empty = go.Figure(layout={"template": "simple_white", "height": 200})
        return empty.add_annotation(text="no steps yet", showarrow=False, font={"color": MUTED})
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // COLUMNS)
    titles = [_plain(title) for title, *_ in panels]
    figure = make_subplots(
        rows, columns, subplot_titles=titles, horizontal_spacing=0.07, vertical_spacing=min(0.16, 0.4 / rows)
    )
    figure.update_xaxes(title_text="step", row=rows)
    figure.update_yaxes(exponentformat="power")
    titles_on_top: Any = figure.layout
    for annotation, (_, _, definition, _) in zip(titles_on_top.annotations, panels, strict=True):
        annotation.update(font_size=12, hovertext=_plain(definition).replace("\n", "<br>") or None)
    for number, (_, unit, _, draw) in enumerate(panels):
        place = _Place(figure, number)
        place.y(title={"text": _plain(unit), "font": {"size": 11, "color": MUTED}, "standoff": 4})
        draw(place)
    return figure.update_layout(
        template="simple_white",
        height=ROW_PX * rows + 70,
        margin={"l": 60, "r": 20, "t": 50, "b": 70},
        font={"family": FONT, "size": 11},
        legend={"orientation": "h", "y": -50 / (ROW_PX * rows - 50), "yanchor": "top", "x": 0},
        barmode="overlay",
    )


def _draw_lines(place: _Place, chart: ChartSpec, run: RunData) -> None:
    _bound(place, chart.bounds)
    _draw_branches(place, chart, run)
    for line in chart.lines:
        points = run.points(line)
        if points is None:
            continue
        held_out = line.role == "held_out"
        spread = run.training.get(line.spread)
        if spread is not None and spread[0] == points[0]:
            place.add(_band(points, spread[1], COLOURS[line.role]), legend=False)
        style = {"color": COLOURS[line.role], "width": 2.2 if held_out else 1.2}
        # "training" and "held-out" look alike in every chart, so the legend has them once.
        name = line.label if line.role in ("train", "held_out") else f"{chart.title}: {line.label}"
        trace = _scatter(points, name, style, markers=held_out, opacity=1.0 if held_out else 0.75)
        place.add(trace, legend=place.is_new(name))


def _draw_branches(place: _Place, chart: ChartSpec, run: RunData) -> None:
    for number, branch in enumerate(run.branches):
        name = branch.run.label
        if number == len(run.branches) - 1 and run.branches_note:
            name += f" ({run.branches_note})"
        for line in chart.lines:
            steps, values = branch.run.points(line) or ([], [])
            seen = branch.visible(steps)
            if not steps[seen]:
                continue
            style = {"color": COLOURS[line.role], "width": 1.4, "dash": run.branch_dash(number)}
            points = steps[seen], values[seen]
            trace = _scatter(points, name, style, markers=False, opacity=0.45, group=f"branch {number}")
            place.add(trace, legend=place.is_new(f"branch {number}"))


def _scatter(
    points: Points, name: str, line: Mapping[str, Any], *, markers: bool, opacity: float, group: str = ""
) -> go.Scatter:
    steps, values = points
    return go.Scatter(
        x=steps,
        y=values,
        name=_plain(name),
        legendgroup=group or name,
        mode="lines+markers" if markers else "lines",
        line=dict(line),
        marker={"size": 4},
        opacity=opacity,
        hovertemplate="step %{x}<br>%{y:.4g}<extra></extra>",
    )


def _band(points: Points, spread: Sequence[float], colour: str) -> go.Scatter:
    """One standard deviation on both sides of a curve."""
    steps, values = points
    upper = [value + around for value, around in zip(values, spread, strict=True)]
    lower = [value - around for value, around in zip(values, spread, strict=True)]
    return go.Scatter(
        x=[*steps, *reversed(steps)],
        y=[*upper, *reversed(lower)],
        fill="toself",
        fillcolor=colour,
        opacity=0.13,
        mode="lines",
        line={"width": 0},
        hoverinfo="skip",
    )


def _bound(place: _Place, bounds: tuple[float, float] | None) -> None:
    if bounds is not None:
        room = 0.03 * (bounds[1] - bounds[0])
        place.y(range=[bounds[0] - room, bounds[1] + room])


def _draw_heat(place: _Place, chart: ChartSpec, run: RunData) -> None:
    """Histograms side by side, each as shares, so that evaluations of different size compare."""
    shown: list[Counts] = run.counts(chart, chart.name)
    if chart.bounds is None:
        return
    bins = len(shown[0].counts)
    start, width = chart.bounds[0], (chart.bounds[1] - chart.bounds[0]) / bins
    used = [b for b in range(bins) if any(one.counts[b] for one in shown)]
    low, high = max(0, min(used) - 1), min(bins, max(used) + 2)
    unit = _plain(chart.unit or "")
    place.y(title_text=_plain(chart.axis) + (f", {unit}" if unit else ""))
    trace = go.Heatmap(
        x=[one.step for one in shown],
        y=[round(start + (b + 0.5) * width, 9) for b in range(low, high)],
        z=[[one.counts[b] / max(1, sum(one.counts)) for one in shown] for b in range(low, high)],
        colorscale="Blues",
        showscale=False,
        hovertemplate=f"step %{{x}}<br>%{{y}} {unit}<br>%{{z:.0%}} of {_plain(chart.counts)}<extra></extra>",
    )
    place.add(trace, legend=False)


def _draw_ratios(place: _Place, chart: ChartSpec, run: RunData) -> None:
    """Tokens by ratio, on a root scale; what is clipped is hatched."""
    halves = halves_of(chart, run)
    if not halves or chart.bounds is None:
        return
    top = max(piece.share for half in halves for piece in half.pieces)
    height = math.sqrt(top) * 1.08
    for half in halves:
        for clipped in (False, True):
            place.add(_ratio_bars(half, clipped=clipped), legend=False)
        for ratio in (half.below, half.above):
            if ratio is not None and ratio > 0 and chart.bounds[0] < math.log(ratio) < chart.bounds[1]:
                line = {"color": BASE["light"]["text"], "width": 1.6}
                x = math.log(ratio)
                place.line(type="line", x0=x, x1=x, y0=0, y1=half.sign * height, line=line)
                side = "left" if ratio == half.above else "right"
                font = {"size": 10, "color": BASE["light"]["text"]}
                place.text(x=x, y=half.sign * height, text=f"{ratio:.4g}", xanchor=side, yanchor="middle", font=font)
        label, share = half.summary
        font = {"size": 10, "color": COLOURS[half.role]}
        edge = "left" if half.sign > 0 else "right"
        at = {"x": chart.bounds[0 if half.sign > 0 else 1], "y": half.sign * height, "xanchor": edge}
        place.text(**at, text=_plain(f"{label} {share}"), font=font)
    step = run.counts(chart, chart.histograms[0]) or run.counts(chart, chart.histograms[1])
    place.x(
        range=list(chart.bounds),
        title_text=_plain(f"{chart.axis}, step {step[-1].step}"),
        tickvals=[math.log(ratio) for ratio in RATIO_TICKS],
        ticktext=[f"{ratio:g}" for ratio in RATIO_TICKS],
    )
    ticks = root_ticks(top)
    heights = [math.sqrt(share) for share in ticks]
    place.y(
        range=[-height * 1.05, height * 1.05],
        tickvals=[*(-h for h in reversed(heights)), 0, *heights],
        ticktext=[f"{share:g} %" for share in (*reversed(ticks), 0, *ticks)],
    )


def _ratio_bars(half: Half, *, clipped: bool) -> go.Bar:
    shown = [piece for piece in half.pieces if piece.clipped == clipped and piece.share > 0]
    colour = COLOURS[half.role]
    marker: dict[str, Any] = {"color": colour, "line": {"width": 0}}
    if clipped:
        marker["pattern"] = {"shape": "/", "fgcolor": colour, "bgcolor": "white", "size": 5, "solidity": 0.45}
    return go.Bar(
        x=[(piece.low + piece.high) / 2 for piece in shown],
        y=[half.sign * math.sqrt(piece.share) for piece in shown],
        width=[0.92 * (piece.high - piece.low) for piece in shown],
        customdata=[[piece.part, math.exp(piece.low), math.exp(piece.high)] for piece in shown],
        marker=marker,
        hovertemplate="%{customdata[0]:.3g} % of tokens, r %{customdata[1]:.2f} to %{customdata[2]:.2f}<extra></extra>",
    )


def _draw_overlay(place: _Place, chart: OverlayChart, runs: Sequence[RunData]) -> None:
    _bound(place, chart.bounds)
    for number, run in enumerate(runs):
        training, held_out = chart.training(run), chart.held_out(run)
        colour, dash = RUNS["light"][number % len(RUNS["light"])], DASHES[number % len(DASHES)]
        first = place.is_new(str(number))
        if training:
            line = {"color": colour, "width": 1, "dash": "solid" if held_out else dash}
            opacity = 0.3 if held_out else 0.9
            trace = _scatter(training, run.label, line, markers=False, opacity=opacity, group=str(number))
            place.add(trace, legend=first and not held_out)
        if held_out:
            line = {"color": colour, "width": 2.2, "dash": dash}
            trace = _scatter(held_out, run.label, line, markers=True, opacity=1.0, group=str(number))
            place.add(trace, legend=first)


def _mark(figure: go.Figure, changes: Sequence[Change], places: Sequence[int]) -> None:
    """Mark each step that has changes in the charts ``places``; the first of these says what changed."""
    labels: dict[int, list[str]] = {}
    for change in changes:
        labels.setdefault(change.step, []).append(change.label)
    for step, texts in labels.items():
        x = step - 0.5
        for number in places:
            line = {"dash": "dot", "width": 1, "color": MUTED}
            at = _Place(figure, number)
            at.line(type="line", x0=x, x1=x, yref="y domain", y0=0, y1=1, line=line)
        _Place(figure, places[0]).text(
            x=x,
            y=1,
            yref="y domain",
            text=_plain(", ".join(texts)),
            textangle=-90,
            xanchor="right",
            yanchor="top",
            font={"size": 10, "color": MUTED},
        )


def _plain(text: str) -> str:
    """Return ``text`` so that plotly draws it as it is: names come from anywhere, and plotly reads tags and math."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("$", "&#36;")
