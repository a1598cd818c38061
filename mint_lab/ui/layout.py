"""Which charts a recipe shows, in order: names, titles, units and colours, once for the page and the static picture."""

from __future__ import annotations

from .protocol import Chart, Line

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
    return Chart(name=name, title=name, unit=unit, kind="lines", lines=lines, bounds=bounds)


_LOGPS = Chart(
    name="logps",
    title="logps",
    unit="nats",
    kind="lines",
    lines=[
        Line(series="logps/chosen", label="chosen", role="chosen", spread=""),
        Line(series="logps/rejected", label="rejected", role="rejected", spread=""),
    ],
    bounds=None,
)
_MARGINS = Chart(name="margin", title="margins", unit="nats", kind="bars", lines=[], bounds=None)


def _two(name: str, unit: str, one: tuple[str, str], other: tuple[str, str]) -> Chart:
    """Two curves of the training batch in one panel, each a column and its label."""
    lines = [
        Line(series=one[0], label=one[1], role="chosen", spread=""),
        Line(series=other[0], label=other[1], role="rejected", spread=""),
    ]
    return Chart(name=name, title=name, unit=unit, kind="lines", lines=lines, bounds=None)


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
    unit="share of tokens, root scale",
    kind="ratios",
    lines=[],
    bounds=None,
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
