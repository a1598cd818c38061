"""Which charts a recipe shows, in order: names, titles, units and colours, once for the page and the static picture."""

from __future__ import annotations

from .protocol import Chart, Line, Overlay

__all__ = ["charts_for"]


def charts_for(recipe: str) -> list[Chart]:
    """The panels of a recipe. Metrics that are in no panel get one of their own below, made by the page."""
    return {"preference": _PREFERENCE, "rl": _REINFORCEMENT}.get(recipe, _SUPERVISED)


def _metric(
    name: str, unit: str, bounds: list[float] | None = None, *, held_out: bool = True, spread: str = ""
) -> Chart:
    lines = [Line(series=name, label="training", role="train", spread=spread)]
    if held_out:
        lines.append(Line(series=f"held_out/{name}", label="held-out", role="held_out", spread=""))
    return _curves(name, unit, lines, bounds)


def _curves(name: str, unit: str, lines: list[Line], bounds: list[float] | None = None) -> Chart:
    return Chart(
        name=name,
        title=name,
        definition="",
        unit=unit,
        kind="lines",
        axis="",
        counts="",
        lines=lines,
        bounds=bounds,
        overlay=_OVERLAYS.get(name),
    )


# A loss has its own scale, and so has the margin that it reports (times beta, or per token).
_OVERLAYS = {
    "loss": Overlay(difference=[], unit="each in its own unit", last=True),
    "mean_margin": Overlay(difference=["logps/chosen", "logps/rejected"], unit="unscaled, nats", last=False),
}
_LOGPS = _curves(
    "logps",
    "nats",
    [
        Line(series="logps/chosen", label="chosen", role="chosen", spread=""),
        Line(series="logps/rejected", label="rejected", role="rejected", spread=""),
    ],
)
_MARGINS = Chart(
    name="margin",
    title="margins",
    definition="",
    unit="nats",
    kind="bars",
    axis="chosen \N{MINUS SIGN} rejected",
    counts="pairs",
    lines=[
        Line(series="", label="above 0", role="chosen", spread=""),
        Line(series="", label="below 0", role="rejected", spread=""),
    ],
    bounds=[-20.0, 20.0],
    overlay=None,
)


def _two(name: str, unit: str, one: tuple[str, str], other: tuple[str, str]) -> Chart:
    """Two curves of the training batch in one panel, each a column and its label."""
    lines = [
        Line(series=one[0], label=one[1], role="chosen", spread=""),
        Line(series=other[0], label=other[1], role="rejected", spread=""),
    ]
    return _curves(name, unit, lines)


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
_RATIOS = Chart(
    name="log_ratio",
    title="ratio by sign of the advantage",
    definition="",
    unit="share of tokens, root scale",
    kind="ratios",
    axis="ratio r",
    counts="tokens",
    lines=[
        Line(series="log_ratio/positive", label="A > 0", role="chosen", spread=""),
        Line(series="log_ratio/negative", label="A < 0", role="rejected", spread=""),
    ],
    bounds=[-1.025, 1.025],
    overlay=None,
)
_REINFORCEMENT = [
    _metric("reward", "mean ± std", spread="reward_std"),
    _RATIOS,
    _two("clip_frac", "share of tokens", ("clip_frac/high", "high, A > 0"), ("clip_frac/low", "low, A < 0")),
    _two("kl", "nats a token", ("kl/k1", "k1"), ("kl/k3", "k3")),
    _metric("ess", "", [0.0, 1.0], held_out=False),
    _metric("entropy_est", "nats a token", held_out=False),
    _two("ratio", "", ("ratio/max", "max"), ("ratio/min", "min")),
    _metric("frac_reward_zero_std", "share of groups", [0.0, 1.0], held_out=False),
    _metric("completion_length", "tokens"),
    _metric("grad_norm", "", held_out=False),
    _metric("loss", "", held_out=False),
]
