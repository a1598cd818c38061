"""Which charts a recipe shows, in order: names, titles, units and colours, once for the page and the static picture."""

from __future__ import annotations

from .protocol import Chart, Line

__all__ = ["charts_for"]


def charts_for(recipe: str) -> list[Chart]:
    """The panels of a recipe. Metrics that are in no panel get one of their own below, made by the page."""
    return _PREFERENCE if recipe == "preference" else _SUPERVISED


def _metric(name: str, unit: str, bounds: list[float] | None = None, *, held_out: bool = True) -> Chart:
    lines = [Line(series=name, label="training", role="train")]
    if held_out:
        lines.append(Line(series=f"held_out/{name}", label="held-out", role="held_out"))
    return Chart(name=name, title=name, unit=unit, kind="lines", lines=lines, bounds=bounds)


_LOGPS = Chart(
    name="logps",
    title="logps",
    unit="nats",
    kind="lines",
    lines=[
        Line(series="logps/chosen", label="chosen", role="chosen"),
        Line(series="logps/rejected", label="rejected", role="rejected"),
    ],
    bounds=None,
)
_MARGINS = Chart(name="margin", title="margins", unit="nats", kind="bars", lines=[], bounds=None)

_PREFERENCE = [
    _metric("loss", "nats"),
    _metric("pair_accuracy", "", [0.0, 1.0]),
    _metric("mean_margin", "nats"),
    _LOGPS,
    _MARGINS,
    _metric("grad_norm", "", held_out=False),
]
_SUPERVISED = [
    _metric("loss", "nats"),
    _metric("nll", "nats"),
    _metric("grad_norm", "", held_out=False),
]
