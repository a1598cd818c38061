"""What the numbers of a run mean, in plain words; each finding gives its number and what to try.

:func:`findings` is a pure function of the last records and a short summary of the earlier ones. What only a recipe can
tell comes from its :meth:`~mint_lab.recipes.base.Recipe.advice`. :class:`RunAdvice`
keeps the wording of a finding while the finding lasts, so that the page does not flicker; at an evaluation it updates
numbers that have changed noticeably, so that the text does not contradict the charts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean, median
from typing import TYPE_CHECKING

from ..recipes.record import StepRecord
from .trend_history import TrendHistory

if TYPE_CHECKING:
    from ..recipes.base import Recipe

__all__ = ["EarlierSteps", "RunAdvice", "findings"]

WINDOW = 50  # number of records that a finding may use
DISPLACED_SHARE = 0.1  # of pairs
SATURATED_STEPS = 20
SATURATED_ACCURACY, SATURATED_LOSS = 0.99, 0.02
SATURATED_NORM = 0.02  # of the gradient, relative to the largest in the window
OVERFIT_GAP = 0.1  # held-out pair_accuracy below that of training, or held-out nll above it as a share
OVERFIT_NLL_FLOOR = 0.05  # nats, added to the allowed gap
OVERFIT_WINDOW, MIN_OVERFIT_STEPS = 10, 5  # steps before an evaluation that its metrics are compared with
CHANCE, LEARNED_GAP = 0.5, 0.15  # pair_accuracy of a coin, and how far above it training must be to count as learning
DIVERGED_FACTOR, DIVERGED_NATS = 3.0, 0.2  # loss against its best in the window, and least difference
LATE_STEPS, MAX_LATE_STEPS = 5, 10  # steps whose median loss is compared with the start: at least, at most
BLOWN_UP_FACTOR = 2.0  # that median against the loss at the start
SMALL_BATCH = 16  # items; below that, losses are noisy:
SMALL_BATCH_START, SMALL_BATCH_SMOOTHING = 3, 20  # steps that count as the start, steps that a loss is smoothed over
SMOOTHING = 5  # as the latter, for larger batches
BETTER_GAP = 0.1  # pair_accuracy above its start, and above chance, that shows learning
NO_GRADIENT_STEPS = 5
COLLAPSED_NATS = 10.0  # fall of a completion's log-probability that no satisfied loss explains if nothing is learned
EXPLODED_FACTOR, EXPLODED_START_FACTOR = 20.0, 3.0  # gradient norm against its median, and against the run's start
MIN_NORMS = 10  # before a gradient norm counts as usual
START_STEPS = 5
CHANGED_SHARE, CHANGED_POINTS = 0.25, 5.0  # a noticeable change of a number: of its size, or in percentage points
OPTIMIZER_SETTINGS = {  # they do not change what a loss value means
    *("learning_rate", "warmup_steps", "weight_decay", "beta1", "beta2", "adam_eps", "grad_clip_norm"),
}
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?%?")
# Consequences of a divergence; to report them too would hide the cause.
HIDDEN_BY_DIVERGENCE = ("no gradient", "exploding", "saturation", "displacement", "behind")


@dataclass
class EarlierSteps:
    """What findings need to know of a run besides its last records, since loss and loss settings changed last.

    Attributes:
        first: The first steps, ``START_STEPS`` at most.
        peak: The highest median loss while the loss was far above its start; 0 if it never was, or has recovered.
    """

    first: list[StepRecord] = field(default_factory=list)
    peak: float = 0.0

    def update(self, records: Sequence[StepRecord]) -> None:
        """Take the last of ``records`` into account."""
        comparable = _same_objective(records)
        if len(comparable) == 1:
            self.peak = 0.0
        # The window does not reach back to the first steps of a long run, so they are kept here.
        if len(comparable) <= START_STEPS or not self.first:
            self.first = comparable[:START_STEPS]
        self.peak = 0.0 if _has_recovered(comparable, self.first) else max(self.peak, _blown_up(records, self.first))


def findings(
    records: Sequence[StepRecord],
    earlier: EarlierSteps | None = None,
    recipe: Recipe | None = None,
    trend: TrendHistory | None = None,
) -> dict[str, str]:
    """Return what is worth saying about the last record, by kind of finding.

    Args:
        records: The last steps in order; at most the last ``WINDOW`` are used.
        earlier: Summary of the run before ``records``; None if they are the whole run.
        recipe: The recipe of the run, which adds its own findings; None for none.
        trend: The earlier results of the run; None if ``records`` are the whole run.
    """
    recent = list(records)[-WINDOW:]
    if not recent:
        return {}
    earlier = earlier or EarlierSteps(_same_objective(recent)[:START_STEPS])
    if trend is None:
        trend = TrendHistory(recipe, WINDOW)
        for record in records:
            trend.add(record)
    evaluated = next((r for r in reversed(recent) if r.held_out), None)
    saturated = _saturation(recent)
    checks = {
        "not finite": _not_finite(recent[-1]),
        "diverging": "" if recipe is not None and not recipe.lower_loss_is_better else _diverging(recent, earlier),
        "no gradient": _no_gradient(recent),
        # After saturation the gradient is almost 0, so that every harder batch looks like an explosion.
        "exploding": "" if saturated else _exploding(recent, earlier.first),
        "saturation": saturated,
        "displacement": _displacement(evaluated),
        "behind": _overfitting(recent, evaluated),
        **({} if recipe is None else recipe.advice([*trend.before(recent[0].step), *recent])),
    }
    if checks["diverging"]:
        checks |= dict.fromkeys(HIDDEN_BY_DIVERGENCE, "")
    return {kind: text for kind, text in checks.items() if text}


class RunAdvice:
    """The findings over a run: one text per kind, as long as the finding lasts.

    The wording of a text changes only at an evaluation, or after ``WINDOW`` steps without one, and only if its numbers
    have changed noticeably.

    Args:
        recipe: The recipe of the run, which adds its own findings; None for none.
    """

    window = WINDOW

    def __init__(self, recipe: Recipe | None = None) -> None:
        self._recipe = recipe
        self._current: dict[str, tuple[str, int]] = {}  # by kind: the text, and the step at which it was worded
        self._earlier = EarlierSteps()
        self._trend = TrendHistory(recipe, WINDOW)

    def update(self, records: Sequence[StepRecord]) -> list[str]:
        """Return the texts that hold after the last of ``records``. Never raises, because that step is complete."""
        try:
            self._earlier.update(records)
            self._trend.add(records[-1])
            current = findings(records, self._earlier, self._recipe, self._trend)
        except Exception as error:  # a loss may report anything under any name
            current = {"advice": f"The numbers of this step could not be read for advice: {error!r}"}
        self._current = {kind: self._worded(kind, text, records[-1]) for kind, text in current.items()}
        return [text for text, _ in self._current.values()]

    def restart(self, records: Sequence[StepRecord]) -> None:
        """Forget everything, then read ``records``, which are those of a run from its first step."""
        self._current, self._earlier = {}, EarlierSteps()
        self._trend = TrendHistory(self._recipe, WINDOW)
        for number in range(1, len(records) + 1):
            self.update(records[max(0, number - 1 - self.window) : number])

    def _worded(self, kind: str, text: str, record: StepRecord) -> tuple[str, int]:
        before, step = self._current.get(kind, ("", 0))
        is_due = bool(record.held_out) or record.step - step >= WINDOW
        if not before or (is_due and _differs_noticeably(before, text)):
            return text, record.step
        return before, step


def _differs_noticeably(before: str, now: str) -> bool:
    """Return whether two texts of one kind differ in their words, or noticeably in a number."""
    if NUMBER.sub("#", before) != NUMBER.sub("#", now):
        return True
    for number, other in zip(NUMBER.findall(before), NUMBER.findall(now), strict=True):
        a, b = (float(text.rstrip("%").replace(",", "") or 0) for text in (number, other))
        if abs(a - b) > CHANGED_SHARE * abs(a) or (number.endswith("%") and abs(a - b) >= CHANGED_POINTS):
            return True
    return False


def _not_finite(record: StepRecord) -> str:
    bad = [f"{k} is {v:g}" for k, v in record.metrics.items() if k in ("loss", "grad_norm") and not math.isfinite(v)]
    return f"{' and '.join(bad)}: lower the learning rate, and look for log(0) or exp in the loss" if bad else ""


def _no_gradient(recent: Sequence[StepRecord]) -> str:
    # A single batch proves nothing: a hinge loss is 0 on more and more batches when it has learned most of its pairs.
    tail = _same_settings(recent)[-NO_GRADIENT_STEPS:]
    if any(r.metrics.get("grad_norm", 1.0) != 0.0 for r in tail):
        return ""
    return (
        "The gradient is exactly 0, so the model does not learn: the loss may be detached, clipped or satisfied on "
        "all data; check it with preflight"
    )


def _exploding(recent: Sequence[StepRecord], first: Sequence[StepRecord]) -> str:
    comparable = _same_objective(recent)
    norms = _finite(comparable, "grad_norm")
    if len(norms) < MIN_NORMS:
        return ""
    usual, at_start = median(norms[:-1]), median(_finite(first, "grad_norm") or [0.0])
    if usual <= 0 or norms[-1] < EXPLODED_FACTOR * usual:
        return ""
    # In a run that has learned almost everything, the usual gradient is tiny, and many times that can still be small.
    if norms[-1] < EXPLODED_START_FACTOR * at_start and not _jumped(_finite(comparable, "loss")):
        return ""
    return (
        f"The gradient norm is {norms[-1]:.3g}, {norms[-1] / usual:.0f} times the usual {usual:.3g}: "
        "lower the learning rate"
    )


def _jumped(losses: Sequence[float]) -> bool:
    """Return whether the last loss is far above the usual one."""
    usual = median(losses[:-1]) if len(losses) > 1 else 0.0
    return usual > 0 and losses[-1] > DIVERGED_FACTOR * usual and losses[-1] - usual > DIVERGED_NATS


def _finite(records: Sequence[StepRecord], name: str) -> list[float]:
    return [r.metrics[name] for r in records if math.isfinite(r.metrics.get(name, math.nan))]


def _same_settings(recent: Sequence[StepRecord]) -> list[StepRecord]:
    """Return the last steps that used the same loss and settings; earlier values do not compare."""
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


def _same_objective(recent: Sequence[StepRecord]) -> list[StepRecord]:
    """Return the last steps whose loss values mean the same: as :func:`_same_settings`, with any learning rate."""

    def objective(record: StepRecord) -> tuple[str, int, dict[str, float]]:
        kept = {name: value for name, value in record.settings.items() if name not in OPTIMIZER_SETTINGS}
        return record.loss_name, record.loss_version, kept

    last = objective(recent[-1])
    start = next((k + 1 for k in reversed(range(len(recent))) if objective(recent[k]) != last), 0)
    return list(recent[start:])


def _diverging(recent: Sequence[StepRecord], earlier: EarlierSteps) -> str:
    late, peak = _same_objective(recent)[-MAX_LATE_STEPS:], _blown_up(recent, earlier.first)
    if not peak and not earlier.peak:
        if dead := _dead(recent, earlier.first):
            return dead
        is_small = _batch_size(earlier.first) < SMALL_BATCH
        if is_small and _has_learned(late, earlier.first):
            return ""  # with small batches, even medians of a healthy run jump
        losses = _finite(_same_settings(recent), "loss")
        # See _is_as_good: then the loss must be high in every one of the last steps, not only in their median.
        lowest = min(losses[-MAX_LATE_STEPS:], default=0.0) if _is_as_good(late, earlier.first) else math.inf
        return _rising(losses, SMALL_BATCH_SMOOTHING if is_small else SMOOTHING, lowest)
    start, accuracies = _at_start(earlier.first, "loss"), _finite(late, "pair_accuracy")
    accuracy_text = ""
    if accuracies:
        accuracy, before = fmean(accuracies), _at_start(earlier.first, "pair_accuracy")
        comparison = f"after {before:.0%}" if accuracy > CHANCE + BETTER_GAP else "no better than by chance"
        accuracy_text = f", and pair_accuracy is {accuracy:.0%}, {comparison}"
    if peak:
        return (
            f"The loss is {peak:.3g} (median of the last steps), up from {start:.3g} at the start{accuracy_text}: it "
            "diverges. Lower the learning rate, and start again if the loss does not recover"
        )
    return (
        f"The loss went up from {start:.3g} at the start to {earlier.peak:.3g}, and is now "
        f"{median(_finite(late, 'loss')):.3g}{accuracy_text}: the run diverged and has not recovered. Start again with "
        "a lower learning rate"
    )


def _blown_up(recent: Sequence[StepRecord], first: Sequence[StepRecord]) -> float:
    """Return the median loss if it is far above that of the first step (before any update) and nothing is learned."""
    late = [r for r in _same_settings(recent) if r.step > first[0].step][-MAX_LATE_STEPS:]
    losses, start = _finite(late, "loss"), _at_start(first, "loss")
    examples, is_small = _batch_size(first) * len(_start(first)), _batch_size(first) < SMALL_BATCH
    if (
        len(losses) < (MAX_LATE_STEPS if is_small else LATE_STEPS)
        or not start > 0
        or min(losses) < 0
        or _has_learned(late, first)
    ):
        return 0.0  # "twice as much" means nothing for a loss that starts at 0 or goes below it
    now = median(losses)
    if _is_as_good(late, first):
        now, start = min(losses), max(_finite(first, "loss"))
    # By this factor a mean over n examples can be off at four standard deviations, if its logarithm has a standard
    # deviation of about 1 / sqrt(n); at six for very few examples, whose first loss can be low by chance.
    factor = max(BLOWN_UP_FACTOR, math.exp((6 if is_small else 4) / math.sqrt(max(1.0, examples))))
    return now if now > factor * start and now - start > DIVERGED_NATS else 0.0


def _dead(recent: Sequence[StepRecord], first: Sequence[StepRecord]) -> str:
    """Report weights so large that the output no longer depends on them: no gradient at all, and a worse model."""
    tail, norms = _same_settings(recent)[-NO_GRADIENT_STEPS:], _finite(_start(first), "grad_norm")
    if len(tail) < NO_GRADIENT_STEPS or any(r.metrics.get("grad_norm", 1.0) != 0.0 for r in tail):
        return ""
    ranks = _finite(tail, "pair_accuracy") or _finite(tail, "rewards/auc")
    if max(norms, default=0.0) == 0 or (ranks and fmean(ranks) > CHANCE + BETTER_GAP):
        return ""  # the loss never had a gradient, or it is satisfied
    for name, fall in (("pair_accuracy", BETTER_GAP), ("logps/chosen", COLLAPSED_NATS), ("nll", -BETTER_GAP)):
        before, now = _at_start(first, name), fmean(_finite(tail, name) or [math.nan])
        if (before - now) / fall > 1:
            return (
                f"The gradient is exactly 0, after a norm of {max(norms):.3g} at the start, and {name} is {now:.3g} "
                f"after {before:.3g}: the run diverged, and its weights are so large that the output no longer depends "
                "on them. Start again with a lower learning rate"
            )
    return ""


def _has_recovered(comparable: Sequence[StepRecord], first: Sequence[StepRecord]) -> bool:
    """Return whether a run that had blown up is as good as at the start; a broken model can also have a low loss."""
    late = comparable[-MAX_LATE_STEPS:]
    losses, accuracy, nll = (_finite(late, name) for name in ("loss", "pair_accuracy", "nll"))
    if _has_learned(late, first) or _is_as_good(late, first) or not losses:
        return True
    is_lower = median(losses) < _at_start(first, "loss")
    return is_lower and not nll and (not accuracy or fmean(accuracy) >= _at_start(first, "pair_accuracy"))


def _has_learned(late: Sequence[StepRecord], first: Sequence[StepRecord]) -> bool:
    """Return whether the recipe's own measure of the model is better than at the start."""
    accuracy, nll = _finite(late, "pair_accuracy"), _finite(late, "nll")
    if accuracy:
        return fmean(accuracy) > max(CHANCE, _at_start(first, "pair_accuracy")) + BETTER_GAP
    return bool(nll) and median(nll) < _at_start(first, "nll")


def _is_as_good(late: Sequence[StepRecord], first: Sequence[StepRecord]) -> bool:
    """Return whether a model that had learned before the loss was changed ranks as well as it did then.

    The loss of a batch is then that of its few hard examples, so it jumps by large factors from batch to batch.
    """
    if first[0].step == 1:
        return False
    before, accuracy = _finite(first, "pair_accuracy"), _finite(late, "pair_accuracy")
    if before and accuracy:
        return fmean(before) > CHANCE + LEARNED_GAP and fmean(accuracy) > fmean(before) - BETTER_GAP
    before, nll = _finite(first, "nll"), _finite(late, "nll")
    return bool(before and nll) and median(nll) <= max(before) * (1 + OVERFIT_GAP) + OVERFIT_NLL_FLOOR


def _start(first: Sequence[StepRecord]) -> Sequence[StepRecord]:
    # A loss that blows up grows by orders of magnitude, so it also exceeds the worst of a few noisy first steps.
    return first[: 1 if _batch_size(first) >= SMALL_BATCH else SMALL_BATCH_START]


def _at_start(first: Sequence[StepRecord], name: str) -> float:
    """Return a metric from before the updates had much effect; nan if there is none."""
    values = _finite(_start(first), name)
    if not values:
        return math.nan
    return fmean(values) if name == "pair_accuracy" else max(values)


def _batch_size(first: Sequence[StepRecord]) -> float:
    settings = first[0].settings
    return settings.get("batch_size", 32.0) * settings.get("accumulate", 1.0)


def _rising(losses: Sequence[float], width: int, lowest: float = math.inf) -> str:
    """Report a loss that rises from its best; ``lowest`` of the last steps must be as high if it is given."""
    if len(losses) < max(20, 2 * width):
        return ""
    # Running medians: the loss of single batches jumps, most of all in a run that has learned almost everything.
    smooth = [median(losses[i : i + width]) for i in range(len(losses) - width + 1)]
    first, best, now = smooth[0], min(smooth), smooth[-1]
    low = min(now, lowest)
    if best <= 0 or low < DIVERGED_FACTOR * best or low - best < DIVERGED_NATS or low <= first:
        return ""
    return (
        f"The loss is {now:.3g}, up from {best:.3g} at its best and {first:.3g} before: it diverges. "
        "Lower the learning rate"
    )


def _saturation(recent: Sequence[StepRecord]) -> str:
    tail = _same_settings(recent)[-SATURATED_STEPS:]
    accuracies = [r.metrics.get("pair_accuracy", 0.0) for r in tail]
    norms = [r.metrics.get("grad_norm", math.nan) for r in _same_objective(recent)]
    if len(tail) < SATURATED_STEPS or sum(accuracies) < SATURATED_ACCURACY * len(tail):
        return ""
    losses = [abs(r.metrics.get("loss", math.nan)) for r in tail]
    has_faded = median(norms[-SATURATED_STEPS:]) < SATURATED_NORM * max(norms)
    if not (has_faded or max(losses) < SATURATED_LOSS):
        return ""
    return (
        f"Saturated: pair_accuracy has been {sum(accuracies) / len(tail):.0%} for {len(tail)} steps and the loss is "
        f"{median(losses):.2g}; there is little left to learn from these pairs. Stop here, or use harder pairs"
    )


def _displacement(evaluated: StepRecord | None) -> str:
    share = evaluated.held_out.get("displacement_frac", 0.0) if evaluated else 0.0
    if not share >= DISPLACED_SHARE:
        return ""
    return (
        f"{share:.0%} of held-out pairs: margin up, chosen log-probability down (displacement). The loss lowers the "
        "rejected side more than it raises the chosen one; try fewer steps, a lower learning rate, or a loss that also "
        "raises the chosen side"
    )


def _overfitting(recent: Sequence[StepRecord], evaluated: StepRecord | None) -> str:
    if evaluated is None:
        return ""
    first_step = evaluated.step - OVERFIT_WINDOW + 1
    for name, sign, text in (("pair_accuracy", 1, "{:.0%}"), ("nll", -1, "{:.3g} nats")):
        near = [r.metrics[name] for r in recent if name in r.metrics and first_step <= r.step <= evaluated.step]
        held_out = evaluated.held_out.get(name)
        if held_out is None or len(near) < MIN_OVERFIT_STEPS:
            continue
        training = sum(near) / len(near)
        allowed = OVERFIT_GAP if sign > 0 else OVERFIT_GAP * abs(training) + OVERFIT_NLL_FLOOR
        # If training is no better than a coin, the model learns nothing, so it cannot overfit.
        if name == "pair_accuracy" and training < CHANCE + LEARNED_GAP:
            continue
        if sign * (training - held_out) > allowed:
            return (
                f"Overfitting: held-out {name} is {text.format(held_out)}, training {text.format(training)}. "
                "Stop earlier, use more data, or lower the LoRA rank"
            )
    return ""
