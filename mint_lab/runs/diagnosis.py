"""What the numbers of a run mean, in plain words, each with its number and what to try.

:func:`findings` is a pure function of the last records. :class:`Diagnosis` keeps a finding's wording while it lasts, so
that a page does not flicker and a folder does not fill up with variants of one sentence.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median

from .record import StepRecord
from .rl.diagnosis import rl_findings

__all__ = ["Diagnosis", "findings"]

WINDOW = 50  # records that a finding may look back on
DISPLACED = 0.1  # share of pairs
SATURATED_STEPS = 20
SATURATED_ACCURACY, SATURATED_GRADIENT = 0.99, 0.02  # the latter against the run's largest in the window
BEHIND = 0.1  # share of pairs, or of the nll, that held-out data may trail training data by
DIVERGED, DIVERGED_LEAST = 3.0, 0.2  # times the loss at its best in the window, and by how much at least
SILENT_STEPS = 5
EXPLODED = 20.0  # times the usual gradient norm


def findings(records: Sequence[StepRecord]) -> dict[str, str]:
    """What is worth saying about the last record, by kind of finding.

    Args:
        records: the last steps in order; at most the last ``WINDOW`` are looked at.
    """
    recent = list(records)[-WINDOW:]
    if not recent:
        return {}
    evaluated = next((r for r in reversed(recent) if r.held_out), None)
    checks = {
        "not finite": _not_finite(recent[-1]),
        "no gradient": _no_gradient(recent),
        "exploding": _exploding(recent),
        "diverging": _diverging(recent),
        "saturation": _saturation(recent),
        "displacement": _displacement(evaluated),
        "behind": _behind(recent, evaluated),
        **rl_findings(recent),
    }
    return {kind: text for kind, text in checks.items() if text}


class Diagnosis:
    """Findings over a run: one text a kind, worded when the finding came up and kept until it has gone."""

    window = WINDOW

    def __init__(self) -> None:
        self._current: dict[str, str] = {}

    def update(self, records: Sequence[StepRecord]) -> list[str]:
        """The warnings in force after the last of ``records``; never raises, for that step is made."""
        try:
            found = findings(records)
        except Exception as error:  # a loss may report anything under any name
            found = {"diagnosis": f"The numbers of this step could not be read for advice: {error!r}"}
        self._current = {kind: self._current.get(kind, text) for kind, text in found.items()}
        return list(self._current.values())


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


def _exploding(recent: Sequence[StepRecord]) -> str:
    norms = [r.metrics["grad_norm"] for r in recent if math.isfinite(r.metrics.get("grad_norm", math.nan))]
    if len(norms) < 10:
        return ""
    usual = median(norms[:-1])
    if usual <= 0 or norms[-1] < EXPLODED * usual:
        return ""
    return (
        f"The gradient norm is {norms[-1]:.3g}, {norms[-1] / usual:.0f} times the usual {usual:.3g}: "
        "lower the learning rate"
    )


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


def _diverging(recent: Sequence[StepRecord]) -> str:
    if "ratio/mean" in recent[-1].metrics:
        return ""  # a policy loss is a sum around 0 that says how to move, not how far there is to go
    losses = [r.metrics["loss"] for r in _same_loss(recent) if math.isfinite(r.metrics.get("loss", math.nan))]
    if len(losses) < 20:
        return ""
    # Medians over five steps: single batches jump, and a run that has learned almost everything jumps most.
    smooth = [median(losses[i : i + 5]) for i in range(len(losses) - 4)]
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
        f"{losses[-1]:.2g}; there is little left to learn from these pairs. Stop here, or give harder ones"
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
        if sign * (train - held) > allowed:
            return (
                f"Held-out {name} is {text.format(held)}, training {text.format(train)}: the model learns these "
                "examples by heart. Stop earlier, take more data, or a lower rank"
            )
    return ""
