"""What the renderers draw: the curves, histograms and changes of a run as plain data, read from its records."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from ..metrics.registry import HELD_OUT
from .chart_spec import ChartSpec, LineSpec, stray_charts
from .palette import BRANCH_DASHES

__all__ = ["Change", "Counts", "DrawnBranch", "Points", "RatioLimits", "Record", "RunData", "run_data"]

Points = tuple[list[int], list[float]]
"""Steps and values of a curve, of one length."""


class Record(Protocol):
    """The part of a step's record that is drawn."""

    @property
    def step(self) -> int: ...
    @property
    def metrics(self) -> Mapping[str, float]: ...
    @property
    def held_out(self) -> Mapping[str, float]: ...
    @property
    def histograms(self) -> Mapping[str, Sequence[int]]: ...


class Change(Protocol):
    """A change that took effect before ``step``; ``kind`` is "loss", "reward" or "setting"."""

    @property
    def step(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def label(self) -> str: ...


@dataclass(frozen=True)
class Counts:
    """A histogram of one step: counts in bins of equal width between the bounds of its chart.

    Attributes:
        held_out: True if the step's record has an evaluation, whose values a histogram of "bars" then counts.
    """

    step: int
    held_out: bool
    counts: Sequence[int]


@dataclass(frozen=True)
class RatioLimits:
    """The lowest and the highest importance ratio that a loss does not clip.

    Attributes:
        both: True if the loss clips on both sides, whatever the sign of the advantage A. Otherwise it clips below
            ``low`` if A < 0 and above ``high`` if A > 0.
    """

    low: float
    high: float
    both: bool = False


@dataclass(frozen=True)
class RunData:
    """One run, ready to be drawn.

    Attributes:
        label: What the run is called in a legend.
        training: Curves of the training batches, by metric.
        held_out: Held-out curves by metric; the value before training is at step 0.
        histograms: Histograms by name, in the order of their steps.
        changes: Edits in the order of their steps.
        limits: Where the present loss clips the ratio; None if nowhere.
        steps: Steps done.
        branches: What is drawn faint behind the curves, the latest last.
        branches_left_out: Number of earlier branches, which are not drawn.
    """

    label: str
    training: dict[str, Points]
    held_out: dict[str, Points]
    histograms: dict[str, list[Counts]] = field(default_factory=dict)
    changes: Sequence[Change] = ()
    limits: RatioLimits | None = None
    steps: int = 0
    branches: Sequence[DrawnBranch] = ()
    branches_left_out: int = 0

    @property
    def last_step(self) -> int:
        """The last step that is drawn, of the run or of a branch."""
        return max([self.steps, *(branch.run.steps for branch in self.branches)])

    @property
    def branches_note(self) -> str:
        """What a legend says of the branches that are not drawn; empty if all are."""
        count = self.branches_left_out
        return f"{count} earlier {'one is' if count == 1 else 'ones are'} not drawn" if count else ""

    def branch_dash(self, number: int) -> str:
        """Return the line style of a branch, in plotly's words; it stays the same when later branches follow."""
        return BRANCH_DASHES[(self.branches_left_out + number) % len(BRANCH_DASHES)]

    def stray(self, charts: Iterable[ChartSpec]) -> tuple[ChartSpec, ...]:
        """Return charts for what the run has beyond ``charts``: see :func:`~.chart_spec.stray_charts`."""
        return stray_charts([*self.training, *self.held_out], charts, self.histograms)

    def points(self, line: LineSpec) -> Points | None:
        """Return the curve of a line, or None if the run has no such numbers."""
        if line.series.startswith(HELD_OUT):
            return self.held_out.get(line.series.removeprefix(HELD_OUT))
        return self.training.get(line.series)

    def counts(self, chart: ChartSpec, name: str) -> list[Counts]:
        """Return the histograms called ``name`` of a chart, in the order of their steps, without empty ones.

        Those of "bars" are all of held-out data if the run has any: single batches would only flicker between them.
        """
        found = [counts for counts in self.histograms.get(name, []) if any(counts.counts)]
        held_out = [counts for counts in found if counts.held_out]
        return held_out if held_out and chart.kind == "bars" else found

    def draws(self, chart: ChartSpec) -> bool:
        """Return True if the run has anything to draw in ``chart``."""
        if chart.kind == "lines":
            return any(self.points(line) is not None for line in chart.lines)
        return any(self.counts(chart, name) for name in chart.histograms)


@dataclass(frozen=True)
class DrawnBranch:
    """Steps that a run has left, or those of its parent after a fork.

    Attributes:
        step: The last step in common with the run; curves are drawn from there.
        run: The whole course, with the common steps; its label is what the legend says.
    """

    step: int
    run: RunData

    def visible(self, steps: Sequence[float]) -> slice:
        """Return the part of a curve at these steps that is drawn: from the last point up to :attr:`step` on.

        It is empty if the curve ends there.
        """
        later = bisect_right(steps, self.step)
        return slice(max(later - 1, 0) if later < len(steps) else later, None)


def run_data(
    label: str,
    records: Iterable[Record],
    baseline: Mapping[str, float],
    changes: Sequence[Change] = (),
    limits: RatioLimits | None = None,
    *,
    branches: Sequence[DrawnBranch] = (),
    branches_left_out: int = 0,
) -> RunData:
    """Collect a run's records by metric.

    Args:
        label: Name of the run.
        records: One per step, in order.
        baseline: Held-out metrics before training.
        changes: What was edited during the run.
        limits: Where its loss clips the ratio.
        branches, branches_left_out: As in :class:`RunData`.
    """
    data = RunData(label, {}, {}, {}, changes, limits, branches=branches, branches_left_out=branches_left_out)
    _add(data.held_out, 0, baseline)
    steps = 0
    for record in records:
        steps = record.step
        _add(data.training, steps, record.metrics)
        _add(data.held_out, steps, record.held_out)
        for name, counts in record.histograms.items():
            data.histograms.setdefault(name, []).append(Counts(steps, bool(record.held_out), counts))
    return replace(data, steps=steps)


def _add(curves: dict[str, Points], step: int, metrics: Mapping[str, float]) -> None:
    for name, value in metrics.items():
        steps, values = curves.setdefault(name, ([], []))
        steps.append(step)
        values.append(float(value))
