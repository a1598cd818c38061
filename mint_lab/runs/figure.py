"""A run as one picture: the panels of the page, drawn with plotly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ..recipes.record import HISTOGRAM_EDGES, Edit, StepRecord

__all__ = ["draw"]

# The page's own colours, which the colour-blind can tell apart.
TRAIN, HELD_OUT, CHOSEN, REJECTED = "#0072b2", "#e69f00", "#009e73", "#d55e00"
MUTED = "#767676"
FONT = "system-ui, sans-serif"

Panel = tuple[str, tuple[str, ...]]  # title, metric names
PANELS: tuple[Panel, ...] = (
    ("reward", ("reward",)),
    ("loss", ("loss",)),
    ("nll", ("nll",)),
    ("pair_accuracy", ("pair_accuracy",)),
    ("mean_margin", ("mean_margin",)),
    ("log-probability of chosen and rejected", ("logps/chosen", "logps/rejected")),
    ("clipped, share of tokens", ("clip_frac/high", "clip_frac/low")),
    ("divergence from the sampler", ("kl/k1", "kl/k3")),
    ("entropy_est", ("entropy_est",)),
    ("ess", ("ess",)),
    ("completion_length", ("completion_length",)),
)
COLOURS = {
    **dict.fromkeys(("logps/chosen", "clip_frac/high", "kl/k1"), CHOSEN),
    **dict.fromkeys(("logps/rejected", "clip_frac/low", "kl/k3"), REJECTED),
}


def draw(records: Sequence[StepRecord], edits: Sequence[Edit], baseline: Mapping[str, float]) -> go.Figure:
    """Training batches as thin lines, held-out data as thick ones with a point at step 0; edits as dotted verticals.

    Panels without numbers are left out; a run without steps gives an empty picture that says so.

    Args:
        records: one a step.
        edits: what changed, to be marked.
        baseline: held-out metrics before training.
    """
    panels = [
        (title, names)
        for title, names in PANELS
        if any(n in r.metrics or n in r.held_out for n in names for r in records)
    ]
    shown = [r for r in records if "margin" in r.histograms and "pair_accuracy" in r.held_out]
    titles = [title for title, _ in panels] + (["margin, share of held-out pairs"] if shown else [])
    if not titles:
        empty = go.Figure(layout={"template": "simple_white", "height": 200})
        return empty.add_annotation(text="no steps yet", showarrow=False, font={"color": MUTED})
    columns = min(3, len(titles))
    rows = -(-len(titles) // columns)
    figure = make_subplots(rows, columns, subplot_titles=titles, horizontal_spacing=0.07, vertical_spacing=0.16)
    for place, (_, names) in enumerate(panels):
        for trace in _lines(records, baseline, names):
            trace.showlegend = place == 0 or (trace.name not in ("training batch", "held out"))
            figure.add_trace(trace, place // columns + 1, place % columns + 1)
    if shown:
        place = len(panels)
        figure.add_trace(_heat_map(shown), place // columns + 1, place % columns + 1)
        figure.update_yaxes(title_text="nats", row=place // columns + 1, col=place % columns + 1)
    _mark(figure, edits)
    figure.update_xaxes(title_text="step", row=rows)
    figure.update_annotations(font_size=12)
    return figure.update_layout(
        template="simple_white",
        height=270 * rows + 60,
        margin={"l": 50, "r": 20, "t": 50, "b": 70},
        font={"family": FONT, "size": 11},
        legend={"orientation": "h", "y": -40 / (270 * rows - 60), "yanchor": "top", "x": 0},
    )


def _lines(records: Sequence[StepRecord], baseline: Mapping[str, float], names: Sequence[str]) -> list[Any]:
    """Traces of one panel: per metric the training batches, and held-out values where there are any."""
    traces: list[Any] = []
    for name in names:
        several = len(names) > 1
        train = [(r.step, r.metrics[name]) for r in records if name in r.metrics]
        held = [(r.step, r.held_out[name]) for r in records if name in r.held_out]
        if held and name in baseline:
            held = [(0, baseline[name]), *held]
        colour = COLOURS.get(name)
        label = name.removeprefix("logps/")
        if train:
            text = label if several else "training batch"
            traces.append(_line(train, text, colour or TRAIN, {"width": 1.2}, mode="lines", faint=not several))
        if held:
            text = f"{label}, held out" if several else "held out"
            line = {"width": 2.2, "dash": "dash" if several else "solid"}
            traces.append(_line(held, text, colour or HELD_OUT, line, mode="lines+markers", faint=False))
    return traces


def _line(
    points: Sequence[tuple[int, float]], name: str, colour: str, line: Mapping[str, Any], *, mode: str, faint: bool
) -> go.Scatter:
    steps, values = zip(*points, strict=True)
    return go.Scatter(
        x=steps,
        y=values,
        name=name,
        legendgroup=name,
        mode=mode,
        line={**line, "color": colour},
        marker={"size": 4},
        opacity=0.65 if faint else 1.0,
        # Names of metrics and losses may come from anywhere: no markup of theirs is read as such.
        hovertemplate="step %{x}<br>%{y:.4g}<extra></extra>",
    )


def _heat_map(shown: Sequence[StepRecord]) -> go.Heatmap:
    """Margin histograms side by side, each as shares, so that evaluations of different size compare."""
    edges = HISTOGRAM_EDGES["margin"]
    counts = [r.histograms["margin"] for r in shown]
    used = [b for b in range(len(edges) - 1) if any(c[b] for c in counts)]
    low, high = max(0, min(used) - 1), min(len(edges) - 1, max(used) + 2)
    return go.Heatmap(
        x=[r.step for r in shown],
        y=[(edges[b] + edges[b + 1]) / 2 for b in range(low, high)],
        z=[[c[b] / max(1, sum(c)) for c in counts] for b in range(low, high)],
        colorscale="Blues",
        showscale=False,
        hovertemplate="step %{x}<br>margin %{y} nats<br>%{z:.0%}<extra></extra>",
    )


def _mark(figure: go.Figure, edits: Sequence[Edit]) -> None:
    """A dotted line through every panel for each step with edits; what changed is written once, in the first panel."""
    labels: dict[int, list[str]] = {}
    for edit in edits:
        labels.setdefault(edit.step, []).append(edit.label)
    for step, texts in labels.items():
        figure.add_vline(x=step - 0.5, line={"dash": "dot", "width": 1, "color": MUTED})
        figure.add_annotation(
            x=step - 0.5,
            y=1,
            xref="x",
            yref="y domain",
            text=", ".join(texts).replace("<", "&lt;"),
            textangle=-90,
            xanchor="right",
            yanchor="top",
            showarrow=False,
            font={"size": 10, "color": MUTED},
        )
