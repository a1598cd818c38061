"""Early stopping: a run finishes once its held-out metric has not improved for a number of evaluations.

Whether a run ends is a function of its records alone. So it ends at the same step after it was opened again, and a
rewind takes back the evaluations that it takes back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ..errors import ConfigError
from ..recipes.options import check_whole
from ..recipes.record import StepRecord

__all__ = ["EarlyStopping", "Ending"]

LOWER_IS_BETTER = ("loss", "nll")


@dataclass(frozen=True)
class EarlyStopping:
    """When a run finishes before its last step.

    The evaluations during training count; they use a part of the held-out data if these are many.

    Args:
        patience: Evaluations without an improvement after which the run finishes.
        metric: A held-out metric; None for the first headline of the recipe that is evaluated.
        min_delta: A smaller difference is no improvement.
        higher_is_better: None: False for ``loss`` and ``nll``, otherwise True.

    Raises:
        ConfigError: If a value is not valid.
    """

    patience: int
    metric: str | None = None
    min_delta: float = 0.0
    higher_is_better: bool | None = None

    def __post_init__(self) -> None:
        check_whole("patience", self.patience, 1)
        if self.metric is not None and (not isinstance(self.metric, str) or not self.metric):
            raise ConfigError(f"metric is {self.metric!r}, expected the name of a held-out metric")
        if isinstance(self.min_delta, bool) or not isinstance(self.min_delta, int | float) or not self.min_delta >= 0:
            raise ConfigError(f"min_delta is {self.min_delta!r}, expected a number from 0 up")
        if self.higher_is_better not in {None, True, False}:
            raise ConfigError(f"higher_is_better is {self.higher_is_better!r}, expected True, False or None")

    @classmethod
    def of(cls, given: int | EarlyStopping | Mapping[str, Any] | None) -> EarlyStopping | None:
        """Return what a person gave, or a file holds: a number is the patience.

        Raises:
            ConfigError: If it is something else.
        """
        if given is None or isinstance(given, EarlyStopping):
            return given
        if isinstance(given, Mapping):
            return cls(**given) if given else None
        try:
            return cls(given)
        except ConfigError:
            raise ConfigError(
                f"early_stopping is {given!r}, expected a whole number of evaluations from 1 up, or EarlyStopping(...)"
            ) from None

    def record(self) -> dict[str, Any]:
        """Return the settings in plain types."""
        return asdict(self)


class Ending:
    """Which evaluation of a run was the best, and whether the run finishes before its last step.

    Args:
        headlines: Metrics of the recipe, the most important first.
        early: When it finishes; None for its last step.
        keeps_snapshots: Whether the run can return to a step.
    """

    def __init__(
        self, headlines: Sequence[str], early: EarlyStopping | None = None, *, keeps_snapshots: bool = True
    ) -> None:
        self._metrics = [early.metric] if early is not None and early.metric is not None else list(headlines)
        self._early = early
        self._keeps_snapshots = keeps_snapshots
        self._resumed_at = -1

    def score(self, held_out: Mapping[str, float]) -> float | None:
        """Return what an evaluation came to, higher is better; None without the metric, and for nan."""
        name = next((name for name in self._metrics if name in held_out), None)
        if name is None or math.isnan(held_out[name]):
            return None
        given = None if self._early is None else self._early.higher_is_better
        return held_out[name] if (name not in LOWER_IS_BETTER if given is None else given) else -held_out[name]

    def resume(self, step: int) -> None:
        """Continue after ``step``, at which the run has finished; as many evaluations later it can finish again."""
        self._resumed_at = step

    def check(self, baseline: Mapping[str, float]) -> None:
        """Make sure that the metric is evaluated.

        Raises:
            ConfigError: If it is not.
        """
        if self._early is not None and baseline and not any(name in baseline for name in self._metrics):
            raise ConfigError(
                f"early_stopping needs the held-out metric {' or '.join(map(repr, self._metrics))}; this run evaluates "
                f"{', '.join(sorted(baseline))}"
            )

    def note(self, records: Sequence[StepRecord]) -> str:
        """Return why the run finishes after these records, and how to return to its best step; "" if it continues."""
        if self._early is None or not records or not records[-1].held_out or len(records) == self._resumed_at:
            return ""
        best, since, top = self._best(records)
        if best is None or since == 0 or since % self._early.patience:
            return ""
        name = next(name for name in self._metrics if name in best.held_out)
        back = f"run.rewind({top}) returns there" if self._keeps_snapshots else "no snapshots were kept to return to it"
        return (
            f"Early stopping after step {records[-1].step}: no improvement of held-out {name} in the last {since} "
            f"evaluations. The best evaluation was after step {top}; {back}, and run.set(steps=...) continues from here"
        )

    def _best(self, records: Sequence[StepRecord]) -> tuple[StepRecord | None, int, int]:
        """Return the last record that improved, the evaluations since, and the step of the highest score."""
        assert self._early is not None
        best: StepRecord | None = None
        improved = top = -math.inf
        since, top_step = 0, 0
        for record in records:
            if not record.held_out:
                continue
            score = self.score(record.held_out)
            if score is not None and score > top:
                top, top_step = score, record.step
            if score is not None and (best is None or score > improved + self._early.min_delta):
                best, improved, since = record, score, 0
            else:
                since += 1
        return best, since, top_step
