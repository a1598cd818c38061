"""Every chart, described once: :data:`CHARTS`.

The page, plotly figures, static pictures, comparisons and the command line draw or list metrics by these descriptions.
A recipe names the charts that it shows, or brings its own::

    charts = ("loss", "pair_accuracy", ChartSpec("my_metric"))

``ChartSpec("my_metric")`` is complete: the curve of the training batches and the held-out curve of a metric. Its unit,
its definition and the ends of its vertical axis come from :data:`mint_lab.metrics.registry.METRICS`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal

from ..errors import ConfigError, one_of
from ..metrics.registry import HELD_OUT, metric
from ..registry import UnknownNameError

__all__ = [
    "CHARTS",
    "MOST_STRAY",
    "ChartSpec",
    "LineSpec",
    "OverlayRule",
    "charts_of",
    "register_chart",
    "stray_charts",
    "training_curve",
]

Kind = Literal["lines", "bars", "ratios"]
Role = Literal["train", "held_out", "chosen", "rejected"]

MOST_STRAY = 18
"""Stray charts that a figure, a picture or the page draws at most, so that a loss cannot fill it with hundreds."""


@dataclass(frozen=True)
class LineSpec:
    """One curve of a chart, or one part of a histogram.

    Attributes:
        series: Metric, with ``held_out/`` in front for its held-out curve. In a chart of kind "ratios" the name of a
            histogram, in one of kind "bars" empty.
        label: Name in the legend.
        role: Selects the colour. "held_out" is drawn without smoothing.
        spread: Metric with the standard deviation, drawn as a band on both sides; empty for none.
    """

    series: str
    label: str = "training"
    role: Role = "train"
    spread: str = ""


@dataclass(frozen=True)
class OverlayRule:
    """How a chart differs when it shows several runs.

    Attributes:
        difference: Two metrics. If a run has both, the chart shows the first minus the second instead of its own
            metric, whose scale may depend on the loss. Empty: its own metric.
        unit: Replaces the unit of the chart; with ``difference``, only if the difference is shown.
        last: True if the chart stands after all others, because its values do not compare between runs.
    """

    difference: tuple[str, ...] = ()
    unit: str = ""
    last: bool = False

    def __post_init__(self) -> None:
        if len(self.difference) not in (0, 2):
            raise ConfigError(f"overlay: difference is {self.difference!r}, expected two metric names or none")


@dataclass(frozen=True)
class ChartSpec:
    """What a chart shows.

    Kind "lines" draws curves over steps. Kind "bars" draws the latest histogram called ``name``: the first of two lines
    labels the values above 0, the second those below. Kind "ratios" draws two histograms of log-ratios, the first
    line's upwards (A > 0) and the second line's downwards (A < 0), with the bounds beyond which the loss clips.

    Attributes:
        name: Unique; the metric, if the chart shows one.
        title: ``name`` if empty.
        kind: See above.
        lines: Empty, for kind "lines": the training and the held-out curve of the metric ``name``.
        unit: None: that of the metrics, if all have the same.
        bounds: Ends of the vertical axis of "lines"; None: the metric's range if the chart shows one metric and both
            ends are finite, otherwise the axis fits the data. Ends of the horizontal axis of a histogram, whose bins
            divide it evenly.
        definition: Tooltip of the title; empty: the definitions of the metrics.
        axis: Title of the horizontal axis of a histogram.
        counts: What a histogram counts, such as "pairs".
        overlay: How the chart differs when it shows several runs.

    Raises:
        ConfigError: If the name is empty, the kind unknown, a histogram lacks its two lines or its bounds, two lines
            have one label, or ``bounds`` is not an ordered pair.
    """

    name: str
    title: str = ""
    kind: Kind = "lines"
    lines: tuple[LineSpec, ...] = ()
    unit: str | None = None
    bounds: tuple[float, float] | None = None
    definition: str = ""
    axis: str = ""
    counts: str = ""
    overlay: OverlayRule | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ConfigError("a chart has no name; give the metric that it shows, or a name for several")
        if not self.title:
            object.__setattr__(self, "title", self.name)
        if not self.lines and self.kind == "lines":
            held_out = LineSpec(HELD_OUT + self.name, "held-out", "held_out")
            object.__setattr__(self, "lines", (LineSpec(self.name), held_out))
        self._check()

    def _check(self) -> None:
        where = f"chart {self.name!r}"
        if self.kind not in ("lines", "bars", "ratios"):
            raise ConfigError(f"{where}: kind is {self.kind!r}, expected 'lines', 'bars' or 'ratios'")
        labels = [line.label for line in self.lines]
        if len(set(labels)) < len(labels):
            raise ConfigError(f"{where}: the labels {labels} are not unique; the legend could not tell the lines apart")
        if self.kind != "lines" and (len(self.lines) != 2 or self.bounds is None):
            raise ConfigError(
                f"{where}: a histogram needs two lines (values above and below 0) and bounds (the ends of its bins), "
                f"found {len(self.lines)} lines and bounds {self.bounds!r}"
            )
        if self.bounds is not None and not (len(self.bounds) == 2 and self.bounds[0] < self.bounds[1]):
            raise ConfigError(f"{where}: bounds are {self.bounds!r}, expected (low, high) with low < high")

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics whose values the curves show, without ``held_out/``; none for a histogram."""
        if self.kind != "lines":
            return ()
        return tuple(dict.fromkeys(line.series.removeprefix(HELD_OUT) for line in self.lines))

    @property
    def histograms(self) -> tuple[str, ...]:
        """The histograms that the chart shows; none for "lines"."""
        if self.kind == "lines":
            return ()
        return (self.name,) if self.kind == "bars" else tuple(line.series for line in self.lines)

    def described(self) -> ChartSpec:
        """Return the chart with unit, bounds and definition filled in from its metrics."""
        specs = [metric(name) for name in self.metrics]
        known = [spec for spec in specs if spec is not None]
        unit, bounds, definition = self.unit, self.bounds, self.definition
        if unit is None:
            units = {spec.unit if spec is not None else "" for spec in specs}
            unit = units.pop() if len(units) == 1 else ""
        if bounds is None and len(specs) == len(known) == 1 and known[0].range is not None:
            low, high = known[0].range
            bounds = None if low is None or high is None else (low, high)
        if not definition:
            several = len(specs) > 1
            lines = [f"{spec.name}: {spec.definition}" if several else spec.definition for spec in known]
            definition = "\n".join(lines)
        return replace(self, unit=unit, bounds=bounds, definition=definition)


def training_curve(name: str, **fields: object) -> ChartSpec:
    """Return the chart of a metric that is measured on training batches only."""
    return ChartSpec(name, lines=(LineSpec(name),), **fields)  # pyright: ignore[reportArgumentType]


def register_chart(spec: ChartSpec) -> ChartSpec:
    """Add a chart to :data:`CHARTS`, so that recipes can show it by its name.

    Registering an equal spec again has no effect. Returns ``spec``.

    Raises:
        ConfigError: If another chart has that name.
    """
    known = _CHARTS.setdefault(spec.name, spec)
    if known != spec:
        raise ConfigError(
            f"chart {spec.name!r} is already defined, with the title {known.title!r}; choose another name"
        )
    return spec


def charts_of(charts: Iterable[str | ChartSpec]) -> tuple[ChartSpec, ...]:
    """Return the charts, each by its name in :data:`CHARTS` or as given, with everything that their metrics say.

    Raises:
        UnknownNameError: If no chart has such a name.
        ConfigError: If two charts have one name.
    """
    found: dict[str, ChartSpec] = {}
    for chart in charts:
        spec = chart if isinstance(chart, ChartSpec) else _CHARTS.get(chart)
        if spec is None:
            raise UnknownNameError(f"unknown chart {chart!r}; {one_of(list(_CHARTS), str(chart))}")
        if spec.name in found:
            raise ConfigError(f"two charts are called {spec.name!r}; rename one of them")
        found[spec.name] = spec.described()
    return tuple(found.values())


def stray_charts(
    metric_names: Iterable[str], shown: Iterable[ChartSpec], histograms: Iterable[str] = ()
) -> tuple[ChartSpec, ...]:
    """Return a chart each for metrics that no chart shows, so that nothing that a loss reports is lost.

    Args:
        metric_names: Metrics of the records, with or without ``held_out/``.
        shown: The charts that are drawn already.
        histograms: Histograms of the records. Those that no chart shows get the chart that :data:`CHARTS` has for them.

    Returns:
        Charts in the order of their names, :data:`MOST_STRAY` at most. Their vertical axes fit the data.
    """
    shown = list(shown)
    left = set(histograms) - {name for chart in shown for name in chart.histograms}
    known = [chart.described() for chart in _CHARTS.values() if left & set(chart.histograms)]
    drawn = {
        name.removeprefix(HELD_OUT)
        for chart in shown
        if chart.kind == "lines"
        for line in chart.lines
        for name in (line.series, line.spread)
    }
    stray = {name.removeprefix(HELD_OUT) for name in metric_names} - drawn
    found = [*known, *(replace(ChartSpec(name).described(), bounds=None) for name in sorted(stray))]
    return tuple(found[:MOST_STRAY])


_CHARTS: dict[str, ChartSpec] = {}

CHARTS: Mapping[str, ChartSpec] = MappingProxyType(_CHARTS)
"""Chart name -> :class:`ChartSpec`, in the order in which tables list their metrics. Read-only; see
:func:`register_chart`."""


def _two(first: LineSpec, second: LineSpec) -> tuple[LineSpec, LineSpec]:
    return replace(first, role="chosen"), replace(second, role="rejected")


_SCALED = OverlayRule(("logps/chosen", "logps/rejected"), "unscaled, nats")  # a loss reports its margin times beta, say
_OWN_UNIT = OverlayRule(unit="each in its own unit", last=True)

for _spec in (
    ChartSpec(
        "reward",
        lines=(
            LineSpec("reward", spread="reward_std"),
            LineSpec("held_out/reward", "held-out", "held_out"),
        ),
        unit="mean ± std",
    ),
    ChartSpec("pair_accuracy"),
    ChartSpec("mean_margin", overlay=_SCALED),
    ChartSpec("rewards/auc"),
    ChartSpec(
        "rewards", lines=_two(LineSpec("rewards/chosen", "desirable"), LineSpec("rewards/rejected", "undesirable"))
    ),
    ChartSpec("logps", lines=_two(LineSpec("logps/chosen", "chosen"), LineSpec("logps/rejected", "rejected"))),
    ChartSpec(
        "margin",
        title="margins",
        kind="bars",
        lines=_two(LineSpec("", "above 0"), LineSpec("", "below 0")),
        unit="nats",
        bounds=(-20.0, 20.0),
        definition="Margins of the pairs, s_chosen - s_rejected, counted in bins of 1 nat; s is the log-probability of "
        "a completion.",
        axis="chosen \N{MINUS SIGN} rejected",
        counts="pairs",
    ),
    ChartSpec("nll"),
    ChartSpec(
        "log_ratio",
        title="ratio by sign of the advantage",
        kind="ratios",
        lines=_two(LineSpec("log_ratio/positive", "A > 0"), LineSpec("log_ratio/negative", "A < 0")),
        unit="share of tokens, root scale",
        bounds=(-1.025, 1.025),
        definition="Tokens of the batch by their importance ratio r = exp(log p - log q), upwards with advantage "
        "A > 0 and downwards with A < 0; the loss clips the hatched ones.",
        axis="ratio r",
        counts="tokens",
    ),
    ChartSpec(
        "clip_frac", lines=_two(LineSpec("clip_frac/high", "high, A > 0"), LineSpec("clip_frac/low", "low, A < 0"))
    ),
    ChartSpec("kl", lines=_two(LineSpec("kl/k1", "k1"), LineSpec("kl/k3", "k3"))),
    training_curve("ess"),
    training_curve("entropy_est"),
    ChartSpec("ratio", lines=_two(LineSpec("ratio/max", "max"), LineSpec("ratio/min", "min"))),
    training_curve("frac_reward_zero_std"),
    ChartSpec("completion_length"),
    training_curve("grad_norm"),
    ChartSpec("loss", overlay=_OWN_UNIT),
):
    register_chart(_spec)
