"""What the numbers of a run mean, in plain words, each with its number and what to try.

:func:`findings` is a pure function of the last records and a little of the past. :class:`Diagnosis` keeps a finding's
wording while it lasts, so that a page does not flicker; at an evaluation the numbers in it follow where they have moved
noticeably, so that they do not contradict the charts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

from ..recipes.record import StepRecord
from ..recipes.rl.rl_advice import rl_findings

__all__ = ["Diagnosis", "Past", "findings"]

WINDOW = 50  # records that a finding may look back on
DISPLACED = 0.1  # share of pairs
SATURATED_STEPS = 20
SATURATED_ACCURACY, SATURATED_GRADIENT = 0.99, 0.02  # the latter against the run's largest in the window
BEHIND = 0.1  # share of pairs, or of the nll, that held-out data may trail training data by
CHANCE, LEARNED = 0.5, 0.15  # pair_accuracy of a coin, and by how much training is above it where it has learned
DIVERGED, DIVERGED_LEAST = 3.0, 0.2  # times the loss at its best in the window, and by how much at least
BLOWN_UP, BLOWN_UP_MOST = 5, 10  # steps after the first whose median counts: from how many on, and how many at most
ABOVE_START = 2.0  # times the loss at the start
SMALL_BATCH, SMALL_START, SMALL_SMOOTH = 16, 3, 20  # below it, so many steps are the start, and a loss is smoothed over
NO_BETTER = 0.1  # pair_accuracy that a run which learns is above its start, or above chance
SILENT_STEPS = 5
EXPLODED, EXPLODED_EARLY = 20.0, 3.0  # times the usual gradient norm, and times that of the run's beginning
EARLY = 5  # records that are the beginning
MOVED, MOVED_POINTS = 0.25, 5.0  # change of a number that is noticeable: of its size, or percentage points
OPTIMIZER = {"learning_rate", "warmup_steps", "grad_clip_norm"}  # settings that do not change what a loss's value means
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?%?")
# What a run that has blown up shows besides; to name it would lead away from the cause.
MASKED = ("no gradient", "exploding", "saturation", "displacement", "behind")


@dataclass
class Past:
    """What is to be known of a run besides its last records, all of it under the present loss and loss settings.

    Attributes:
        first: the first steps, at most ``EARLY``.
        peak: the highest loss, as a median over steps, while it was too high; 0 where it was not, or has come back.
    """

    first: list[StepRecord] = field(default_factory=list)
    peak: float = 0.0

    def follow(self, records: Sequence[StepRecord]) -> None:
        """Take the last of ``records`` in, which has not been yet."""
        same = _one_loss(records)
        if len(same) == 1:
            self.peak = 0.0
        if len(same) <= EARLY or not self.first:  # a window leaves the beginning behind, so it is kept from before
            self.first = same[:EARLY]
        self.peak = 0.0 if _recovered(same, self.first) else max(self.peak, _blown_up(records, self.first))


def findings(records: Sequence[StepRecord], past: Past | None = None) -> dict[str, str]:
    """What is worth saying about the last record, by kind of finding.

    Args:
        records: the last steps in order; at most the last ``WINDOW`` are looked at.
        past: None where there is nothing before ``records``.
    """
    recent = list(records)[-WINDOW:]
    if not recent:
        return {}
    past = past or Past(_one_loss(recent)[:EARLY])
    evaluated = next((r for r in reversed(recent) if r.held_out), None)
    saturated = _saturation(recent)
    checks = {
        "not finite": _not_finite(recent[-1]),
        "diverging": _diverging(recent, past),
        "no gradient": _no_gradient(recent),
        # Single hard batches stand out of the almost nothing that is left.
        "exploding": "" if saturated else _exploding(recent, past.first),
        "saturation": saturated,
        "displacement": _displacement(evaluated),
        "behind": _behind(recent, evaluated),
        **rl_findings(recent),
    }
    if checks["diverging"]:
        checks |= dict.fromkeys(MASKED, "")
    return {kind: text for kind, text in checks.items() if text}


class Diagnosis:
    """Findings over a run: one text a kind, until it has gone.

    A text stays as it was worded, but for an evaluation, or ``WINDOW`` steps without one, after which its numbers have
    moved noticeably.
    """

    window = WINDOW

    def __init__(self) -> None:
        self._current: dict[str, tuple[str, int]] = {}  # by kind: the text, and the step that it is of
        self._past = Past()

    def update(self, records: Sequence[StepRecord]) -> list[str]:
        """The warnings in force after the last of ``records``; never raises, for that step is made."""
        try:
            self._past.follow(records)
            found = findings(records, self._past)
        except Exception as error:  # a loss may report anything under any name
            found = {"diagnosis": f"The numbers of this step could not be read for advice: {error!r}"}
        self._current = {kind: self._worded(kind, text, records[-1]) for kind, text in found.items()}
        return [text for text, _ in self._current.values()]

    def _worded(self, kind: str, text: str, record: StepRecord) -> tuple[str, int]:
        before, step = self._current.get(kind, ("", 0))
        due = bool(record.held_out) or record.step - step >= WINDOW
        if not before or (due and _moved(before, text)):
            return text, record.step
        return before, step


def _moved(before: str, now: str) -> bool:
    """Whether a text says something else than one of the same kind, or a noticeably different number."""
    if NUMBER.sub("#", before) != NUMBER.sub("#", now):
        return True
    for one, other in zip(NUMBER.findall(before), NUMBER.findall(now), strict=True):
        a, b = (float(text.rstrip("%").replace(",", "") or 0) for text in (one, other))
        if abs(a - b) > MOVED * abs(a) or (one.endswith("%") and abs(a - b) >= MOVED_POINTS):
            return True
    return False


def _not_finite(record: StepRecord) -> str:
    bad = [f"{k} is {v:g}" for k, v in record.metrics.items() if k in ("loss", "grad_norm") and not math.isfinite(v)]
    return f"{' and '.join(bad)}: lower the learning rate, and look for log(0) or exp in the loss" if bad else ""


def _no_gradient(recent: Sequence[StepRecord]) -> str:
    # One batch may be satisfied where the next is not: a hinge loss does that when it has learned most of its pairs.
    tail = _same_loss(recent)[-SILENT_STEPS:]
    if any(r.metrics.get("grad_norm", 1.0) != 0.0 for r in tail):
        return ""
    return (
        "The gradient is exactly 0, so nothing is learned: the loss may be detached, clipped or satisfied everywhere; "
        "check it with preflight"
    )


def _exploding(recent: Sequence[StepRecord], first: Sequence[StepRecord]) -> str:
    same = _one_loss(recent)
    norms = _finite(same, "grad_norm")
    if len(norms) < 10:
        return ""
    usual, early = median(norms[:-1]), median(_finite(first, "grad_norm") or [0.0])
    if usual <= 0 or norms[-1] < EXPLODED * usual:
        return ""
    # A run that has learned almost everything has hardly a gradient, and what is many times that is small all the same.
    if norms[-1] < EXPLODED_EARLY * early and not _jumped(_finite(same, "loss")):
        return ""
    return (
        f"The gradient norm is {norms[-1]:.3g}, {norms[-1] / usual:.0f} times the usual {usual:.3g}: "
        "lower the learning rate"
    )


def _jumped(losses: Sequence[float]) -> bool:
    """Whether the last loss is far above the usual one."""
    usual = median(losses[:-1]) if len(losses) > 1 else 0.0
    return usual > 0 and losses[-1] > DIVERGED * usual and losses[-1] - usual > DIVERGED_LEAST


def _finite(records: Sequence[StepRecord], name: str) -> list[float]:
    return [r.metrics[name] for r in records if math.isfinite(r.metrics.get(name, math.nan))]


def _same_loss(recent: Sequence[StepRecord]) -> list[StepRecord]:
    """The tail of ``recent`` made with the last record's loss and settings: values before are not comparable."""
    last = recent[-1]
    tail = [last]
    for record in reversed(recent[:-1]):
        same = (record.loss_name, record.loss_version, record.settings) == (
            last.loss_name,
            last.loss_version,
            last.settings,
        )
        if not same:
            break
        tail.append(record)
    return tail[::-1]


def _one_loss(recent: Sequence[StepRecord]) -> list[StepRecord]:
    """The tail of ``recent`` whose losses mean the same: :func:`_same_loss`, whatever the learning rate was."""

    def meaning(record: StepRecord) -> tuple[str, int, dict[str, float]]:
        kept = {name: value for name, value in record.settings.items() if name not in OPTIMIZER}
        return record.loss_name, record.loss_version, kept

    last = meaning(recent[-1])
    start = next((k + 1 for k in reversed(range(len(recent))) if meaning(recent[k]) != last), 0)
    return list(recent[start:])


def _diverging(recent: Sequence[StepRecord], past: Past) -> str:
    if _signed(recent[-1]):
        return ""
    late, peak = _one_loss(recent)[-BLOWN_UP_MOST:], _blown_up(recent, past.first)
    if not peak and not past.peak:
        small = _batch_size(past.first) < SMALL_BATCH
        if small and _learned(late, past.first):
            return ""  # there, even medians of a healthy run jump
        return _rising(_finite(_same_loss(recent), "loss"), SMALL_SMOOTH if small else 5)
    before, accuracy = _at_start(past.first, "loss"), _finite(late, "pair_accuracy")
    beside = ""
    if accuracy:
        now, start = fmean(accuracy), _at_start(past.first, "pair_accuracy")
        than = "no better than by chance" if not now > CHANCE + NO_BETTER else f"after {start:.0%}"
        beside = f", and pair_accuracy is {now:.0%}, {than}"
    if peak:
        return (
            f"The loss is {peak:.3g} (median of the last steps), up from {before:.3g} at the start{beside}: it "
            "diverges; lower the learning rate, and start again where the loss does not come back"
        )
    return (
        f"The loss went up from {before:.3g} at the start to {past.peak:.3g}, and is "
        f"{median(_finite(late, 'loss')):.3g} now{beside}: the run diverged and has not come back; start again with a "
        "lower learning rate"
    )


def _signed(record: StepRecord) -> bool:
    """Whether its loss is a policy's: a sum around 0 that says how to move, not how far there is to go."""
    return "ratio/mean" in record.metrics or "rollout/group_size" in record.settings


def _blown_up(recent: Sequence[StepRecord], first: Sequence[StepRecord]) -> float:
    """The loss where it is far above that of the first step, which no update had touched, and nothing is learned."""
    late = [r for r in _same_loss(recent) if r.step > first[0].step][-BLOWN_UP_MOST:]
    losses, before = _finite(late, "loss"), _at_start(first, "loss")
    examples, small = _batch_size(first) * len(_start(first)), _batch_size(first) < SMALL_BATCH
    if (
        len(losses) < (BLOWN_UP_MOST if small else BLOWN_UP)
        or not before > 0
        or min(losses) < 0
        or _signed(first[0])
        or _learned(late, first)
    ):
        return 0.0  # of a loss that starts at 0, or goes below it, twice as much means nothing
    now = median(losses)
    # By so many times a mean over n examples may be off at four standard deviations, where its logarithm spreads by
    # about 1 / sqrt(n), and by half as much again where they are very few: the first loss may be low by chance.
    times = max(ABOVE_START, math.exp((6 if small else 4) / math.sqrt(max(1.0, examples))))
    return now if now > times * before and now - before > DIVERGED_LEAST else 0.0


def _recovered(same: Sequence[StepRecord], first: Sequence[StepRecord]) -> bool:
    """Whether a run that had blown up is where it was, or better; a low loss alone can be of a model that broke."""
    late = same[-BLOWN_UP_MOST:]
    losses, accuracy, nll = (_finite(late, name) for name in ("loss", "pair_accuracy", "nll"))
    if _learned(late, first) or not losses:
        return True
    back = median(losses) < _at_start(first, "loss")
    return back and not nll and (not accuracy or fmean(accuracy) >= _at_start(first, "pair_accuracy"))


def _learned(late: Sequence[StepRecord], first: Sequence[StepRecord]) -> bool:
    """Whether what the recipe judges a model by has become better since the start."""
    accuracy, nll = _finite(late, "pair_accuracy"), _finite(late, "nll")
    if accuracy:
        return fmean(accuracy) > max(CHANCE, _at_start(first, "pair_accuracy")) + NO_BETTER
    return bool(nll) and median(nll) < _at_start(first, "nll")


def _start(first: Sequence[StepRecord]) -> Sequence[StepRecord]:
    # A run that blows up does so by powers, which shows above the worst of its first few steps, too.
    return first[: 1 if _batch_size(first) >= SMALL_BATCH else SMALL_START]


def _at_start(first: Sequence[StepRecord], name: str) -> float:
    """A metric before there was much of an update; nan where there is none."""
    values = _finite(_start(first), name)
    if not values:
        return math.nan
    return fmean(values) if name == "pair_accuracy" else max(values)


def _batch_size(first: Sequence[StepRecord]) -> float:
    return first[0].settings.get("batch_size", 32.0)


def _rising(losses: Sequence[float], width: int) -> str:
    if len(losses) < max(20, 2 * width):
        return ""
    # Medians over some steps: single batches jump, and a run that has learned almost everything jumps most.
    smooth = [median(losses[i : i + width]) for i in range(len(losses) - width + 1)]
    first, best, now = smooth[0], min(smooth), smooth[-1]
    if best <= 0 or now < DIVERGED * best or now - best < DIVERGED_LEAST or now <= first:
        return ""
    return (
        f"The loss is {now:.3g}, up from {best:.3g} at its best and {first:.3g} before: it diverges; "
        "lower the learning rate"
    )


def _saturation(recent: Sequence[StepRecord]) -> str:
    tail = _same_loss(recent)[-SATURATED_STEPS:]
    accuracies = [r.metrics.get("pair_accuracy", 0.0) for r in tail]
    norms = [r.metrics.get("grad_norm", math.nan) for r in recent]
    if len(tail) < SATURATED_STEPS or sum(accuracies) < SATURATED_ACCURACY * len(tail):
        return ""
    losses = [abs(r.metrics.get("loss", math.nan)) for r in tail]
    faint = median(norms[-SATURATED_STEPS:]) < SATURATED_GRADIENT * max(norms)
    if not (faint or max(losses) < 0.02):
        return ""
    return (
        f"Saturated: pair_accuracy has been {sum(accuracies) / len(tail):.0%} for {len(tail)} steps and the loss is "
        f"{median(losses):.2g}; there is little left to learn from these pairs. Stop here, or give harder ones"
    )


def _displacement(evaluated: StepRecord | None) -> str:
    share = evaluated.held_out.get("displacement_frac", 0.0) if evaluated else 0.0
    if not share >= DISPLACED:
        return ""
    return (
        f"{share:.0%} of held-out pairs: margin up, chosen log-probability down (displacement). The loss pushes the "
        "rejected side down more than the chosen one up; try fewer steps, a lower learning rate, or a loss that also "
        "raises the chosen side"
    )


def _behind(recent: Sequence[StepRecord], evaluated: StepRecord | None) -> str:
    if evaluated is None:
        return ""
    for name, sign, text in (("pair_accuracy", 1, "{:.0%}"), ("nll", -1, "{:.3g} nats")):
        near = [r.metrics[name] for r in recent if name in r.metrics and evaluated.step - 10 < r.step <= evaluated.step]
        held = evaluated.held_out.get(name)
        if held is None or len(near) < 5:
            continue
        train = sum(near) / len(near)
        allowed = BEHIND if sign > 0 else BEHIND * abs(train) + 0.05
        # Where training does no better than a coin, nothing is learned, by heart or otherwise.
        if name == "pair_accuracy" and train < CHANCE + LEARNED:
            continue
        if sign * (train - held) > allowed:
            return (
                f"Held-out {name} is {text.format(held)}, training {text.format(train)}: the model learns these "
                "examples by heart. Stop earlier, take more data, or a lower rank"
            )
    return ""
