"""Several runs in one picture and one table: what can be compared, and how each run is told from the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...recipes.record import StepRecord

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["PANELS", "STYLES", "Curves", "compared_metrics", "curves_of", "draw", "table"]

Points = tuple[list[int], list[float]]

# One a run, in order: a colour of Okabe and Ito's, which the colour-blind can tell apart, and a line style besides.
STYLES: tuple[tuple[str, str], ...] = (
    ("#0072b2", "solid"),
    ("#d55e00", "dash"),
    ("#009e73", "dot"),
    ("#cc79a7", "dashdot"),
    ("#e69f00", "longdash"),
    ("#56b4e9", "longdashdot"),
)

# Title and metric, in the order of the page. The losses themselves come last: they are not in one unit.
PANELS: tuple[tuple[str, str], ...] = (
    ("reward", "reward"),
    ("pair_accuracy", "pair_accuracy"),
    ("mean_margin, nats", "mean_margin"),
    ("logps/chosen, nats", "logps/chosen"),
    ("logps/rejected, nats", "logps/rejected"),
    ("nll", "nll"),
    ("clip_frac/high", "clip_frac/high"),
    ("clip_frac/low", "clip_frac/low"),
    ("kl/k1", "kl/k1"),
    ("entropy_est", "entropy_est"),
    ("completion_length", "completion_length"),
    ("grad_norm", "grad_norm"),
    ("loss, each its own", "loss"),
)


@dataclass(frozen=True)
class Curves:
    """A run's numbers by metric: steps and values of the training batches, and of held-out data from step 0 on."""

    label: str
    training: dict[str, Points]
    held_out: dict[str, Points]


def compared_metrics(found: Mapping[str, float]) -> dict[str, float]:
    """``found`` with ``mean_margin`` as chosen minus rejected score, nats, where these are known.

    A loss may report its own margin under that name, times beta or per token, which compares with no other.
    """
    metrics = dict(found)
    if "logps/chosen" in found and "logps/rejected" in found:
        metrics["mean_margin"] = found["logps/chosen"] - found["logps/rejected"]
    return metrics


def curves_of(label: str, records: Sequence[StepRecord], baseline: Mapping[str, float]) -> Curves:
    """The curves of one run, with what :func:`compared_metrics` says."""
    training: dict[str, Points] = {}
    held_out: dict[str, Points] = {}
    if baseline:
        _add(held_out, 0, baseline)
    for record in records:
        _add(training, record.step, record.metrics)
        _add(held_out, record.step, record.held_out)
    return Curves(label, training, held_out)


def _add(curves: dict[str, Points], step: int, metrics: Mapping[str, float]) -> None:
    for name, value in compared_metrics(metrics).items():
        steps, values = curves.setdefault(name, ([], []))
        steps.append(step)
        values.append(value)


def table(rows: Mapping[str, Mapping[str, Any]]) -> pd.DataFrame:
    """A frame with the rows' plain entries, and their ``before`` and ``final`` metrics as columns ``before/NAME`` ...

    Metrics that every run has come first, in the order of :data:`PANELS`.
    """
    import pandas as pd

    flat: list[dict[str, Any]] = []
    names: dict[str, int] = {}
    for row in rows.values():
        plain = {key: value for key, value in row.items() if key not in ("before", "final")}
        metrics = {when: compared_metrics(row[when]) for when in ("before", "final")}
        for name in {**metrics["before"], **metrics["final"]}:
            names[name] = names.get(name, 0) + 1
        flat.append(plain | {f"{when}/{name}": value for when in metrics for name, value in metrics[when].items()})
    known = [name for _, name in PANELS]
    order = sorted(names, key=lambda n: (names[n] < len(rows), known.index(n) if n in known else len(known), n))
    plain_columns = [key for key in next(iter(rows.values()), {}) if key not in ("before", "final")]
    columns = [*plain_columns, *(f"{when}/{name}" for name in order for when in ("before", "final"))]
    return pd.DataFrame(flat, index=pd.Index(list(rows), name="run")).reindex(columns=columns)


def draw(runs: Sequence[Curves]) -> go.Figure:
    """Panels of every metric that a run has, with all runs in each; held-out data strong, training batches faint."""
    import plotly.graph_objects as go
    from plotly.subplots import make_subplots

    panels = [(title, name) for title, name in PANELS if any(name in {**r.training, **r.held_out} for r in runs)]
    if not panels:
        empty = go.Figure(layout={"template": "simple_white", "height": 200})
        return empty.add_annotation(text="no steps yet", showarrow=False, font={"color": "#767676"})
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = make_subplots(
        rows, columns, subplot_titles=[t for t, _ in panels], horizontal_spacing=0.07, vertical_spacing=0.5 / (rows + 2)
    )
    for place, (_, name) in enumerate(panels):
        for number, run in enumerate(runs):
            for trace in _traces(run, name, number):
                trace.showlegend = bool(place == 0 and trace.showlegend)
                figure.add_trace(trace, place // columns + 1, place % columns + 1)
    figure.update_xaxes(title_text="step", row=rows)
    figure.update_annotations(font_size=12)
    return figure.update_layout(
        template="simple_white",
        height=250 * rows + 70,
        margin={"l": 50, "r": 20, "t": 50, "b": 70},
        font={"family": "system-ui, sans-serif", "size": 11},
        legend={"orientation": "h", "y": -50 / (250 * rows - 50), "yanchor": "top", "x": 0},
    )


def _traces(run: Curves, name: str, number: int) -> list[Any]:
    import plotly.graph_objects as go

    colour, dash = STYLES[number % len(STYLES)]
    strong = name in run.held_out
    # A label may be any text, and plotly reads some of it as markup.
    label = run.label.replace("&", "&amp;").replace("<", "&lt;")
    shared = {"name": label, "legendgroup": str(number), "hovertemplate": "step %{x}<br>%{y:.4g}<extra></extra>"}
    traces: list[Any] = []
    if name in run.training:
        steps, values = run.training[name]
        line = {"color": colour, "width": 1, "dash": "solid" if strong else dash}
        faint = go.Scatter(x=steps, y=values, mode="lines", line=line, opacity=0.3 if strong else 0.9, **shared)
        faint.showlegend = not strong
        traces.append(faint)
    if strong:
        steps, values = run.held_out[name]
        line = {"color": colour, "width": 2.2, "dash": dash}
        held = go.Scatter(x=steps, y=values, mode="lines+markers", line=line, marker={"size": 4}, **shared)
        held.showlegend = True
        traces.append(held)
    return traces
