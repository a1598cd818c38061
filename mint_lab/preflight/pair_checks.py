"""What preflight asks of a loss on pairs: which side it prefers, and whether it stands margins as models have them.

Every question is asked by moving log-probabilities, so it does not matter how the loss is written.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from ..losses.spec import REFERENCE, Reduction
from .checks import close, live
from .probe import Finding, OutOfTime, Subject
from .report import Line

if TYPE_CHECKING:
    from ..types import Datum

__all__ = ["margins", "order"]

AHEAD = 2.5  # nats per token that one side of a pair is put ahead
FAR = 1000.0  # nats of a margin that a long completion easily has
ASKED = 4  # pairs of a coupled loss that are asked one by one
SMALL = 1e-3  # of the largest slope: nothing is made of what lies below
INTERLEAVED = "chosen is data[0::2], rejected is data[1::2]"


def order(subject: Subject, found: Reduction, unit: int, lines: list[Line]) -> bool:
    """For a loss on pairs: whether it is lower where the chosen side is ahead than where the rejected one is.

    Args:
        found, unit: what ``split`` found. A loss that couples the batch is on pairs where it depends on the places of
            its datums and pushes some up and some down; it is asked pair by pair.

    Returns:
        Whether it is a loss on pairs.
    """
    if len(subject.data) % 2 or (found != "coupled" and unit != 2):
        return False
    try:
        level = _level(subject)
        slopes = _slopes(subject, level) if found == "coupled" else {}
        if found == "coupled" and not (_by_place(subject) and any(s > SMALL for pair in slopes.values() for s in pair)):
            return False
        right, swapped = _ahead_and_behind(subject, level)
    except (Finding, OutOfTime):
        raise
    except Exception:
        return unit == 2  # it does not take these values; nothing can be said
    if not (math.isfinite(right) and math.isfinite(swapped)):
        return True
    astray = _astray(slopes)
    if astray is not None:
        text = (
            f"raising data[{astray}] " + ("(chosen) raises" if astray % 2 == 0 else "(rejected) lowers") + " the loss"
        )
        fix = f"pairs are interleaved (chosen, rejected, chosen, ...), not halves: {INTERLEAVED}"
        lines.append(Line("pairs", "warn", text, fix))
    elif close(right, swapped):
        fix = f"is that meant? {INTERLEAVED}"
        lines.append(Line("pairs", "warn", "swapping chosen and rejected changes nothing", fix))
    elif right > swapped:
        fix = "chosen comes first: data[0::2] is chosen, data[1::2] is rejected; or is the sign turned?"
        lines.append(Line("pairs", "warn", "the pairs look swapped: the loss falls when rejected gets ahead", fix))
    else:
        lines.append(Line("pairs", "ok", "the loss falls when chosen gets ahead"))
    return True


def margins(subject: Subject, lines: list[Line]) -> None:
    """For a loss on pairs: whether value and gradient stay finite when one side of each pair falls far behind."""
    for behind, name in ((0, "chosen"), (1, "rejected")):
        far = list(subject.logprobs)
        for i in range(behind, len(far), 2):
            mask = live(subject.data[i], len(far[i])).to(far[i])
            far[i] = far[i] - FAR * mask / max(1.0, float(mask.sum()))
        try:
            value, gradient = subject.gradient(far)
        except (Finding, OutOfTime):
            raise
        except Exception:
            return  # it does not take these values; nothing can be said
        bad = [value] if not math.isfinite(value) else [float(x) for g in gradient for x in g if not x.isfinite()]
        if bad:
            what = "the loss" if not math.isfinite(value) else "its gradient"
            text = f"with {name} {FAR:g} nats further behind, {what} is {bad[0]:g}; long completions get there"
            fix = "use logsigmoid(x) for log(sigmoid(x)), log1p(x) for log(1 + x), or clamp what goes into exp"
            lines.append(Line("large margins", "warn", text, fix))
            return


def _by_place(subject: Subject) -> bool:
    """Whether the value depends on which place each datum has."""
    turned = subject.value(subject.logprobs[::-1], subject.data[::-1])
    return not close(subject.value(subject.logprobs), turned)


def _ahead_and_behind(subject: Subject, level: list[torch.Tensor]) -> tuple[float, float]:
    """The loss with each chosen side ahead of its rejected one, and the other way round.

    The two are mirror images also for a loss that wants a margin of a certain size, neither more nor less.
    """
    right = swapped = math.nan
    for steps in _steps(subject):
        sides = [step if i % 2 == 0 else -step for i, step in enumerate(steps)]
        right = subject.value([base + side for base, side in zip(level, sides, strict=True)])
        swapped = subject.value([base - side for base, side in zip(level, sides, strict=True)])
        if not close(right, swapped):
            break
    return right, swapped


def _slopes(subject: Subject, level: list[torch.Tensor]) -> dict[int, tuple[float, float]]:
    """Some pairs by the index of their chosen side: slopes of the loss as chosen rises, and as rejected does.

    Each is a sum of two, with the pair ahead and with it behind, while all others are level: so a loss that is flat
    here or there, or wants a margin of a certain size, has its slope too. Where a loss takes both sides for the same
    one, the slope of the margin, chosen minus rejected, cancels for steps of the same sum or of the same mean; of the
    two kinds the one is given that says less for the loss.
    """
    count = len(subject.data) // 2
    found: dict[int, tuple[float, float]] = {}
    for steps in _steps(subject):
        slopes: dict[int, tuple[float, float]] = {}
        scale = 0.0
        for place in sorted({2 * round(i * (count - 1) / (ASKED - 1)) for i in range(ASKED)}):
            sides = torch.zeros(2, dtype=torch.float64)
            for sign in (1, -1):
                values = list(level)
                values[place] = level[place] + sign * steps[place]
                values[place + 1] = level[place + 1] - sign * steps[place + 1]
                value, gradient = subject.gradient(values)
                if not math.isfinite(value):
                    return {}
                moved = torch.stack([(gradient[i] * steps[i]).sum() for i in (place, place + 1)])
                sides = sides + moved
                scale = max(scale, float(moved.abs().max()))
            slopes[place] = float(sides[0]), float(sides[1])
        for place, (chosen, rejected) in slopes.items():
            new = chosen / (scale or 1.0), rejected / (scale or 1.0)
            if place not in found or new[0] - new[1] > found[place][0] - found[place][1]:
                found[place] = new
    return found


def _astray(slopes: dict[int, tuple[float, float]]) -> int | None:
    """A datum that the loss moves to the wrong side, where it does not do so with all: those would be swapped."""
    moved = {place: pair for place, pair in slopes.items() if max(map(abs, pair)) > SMALL}
    wrong = {place: pair for place, pair in moved.items() if pair[0] - pair[1] > -SMALL}
    chosen = [place for place, pair in wrong.items() if pair[0] > SMALL]
    rejected = [place + 1 for place, pair in wrong.items() if pair[1] < -SMALL]
    if len(chosen) == len(rejected) == len(moved):
        return None
    return min([*chosen, *rejected], default=None)


def _steps(subject: Subject) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Half of what puts one side of a pair ahead: the same mean for every datum, and the same sum."""
    masks = [live(datum, len(lp)).to(lp) for datum, lp in zip(subject.data, subject.logprobs, strict=True)]
    means = [AHEAD / 2 * mask for mask in masks]
    return means, [step / max(1.0, float(mask.sum())) for step, mask in zip(means, masks, strict=True)]


def _level(subject: Subject) -> list[torch.Tensor]:
    """Log-probabilities with neither side ahead: the same sum, or the reference's for a loss that reads it."""
    reads = _reads_reference(subject)
    longest = max(len(lp) for lp in subject.logprobs)
    found: list[torch.Tensor] = []
    # In double precision: rounding is no margin, which a loss that standardizes margins would make much of.
    for datum, lp in zip(subject.data, subject.double(), strict=True):
        base = torch.full_like(lp, -1.2 * AHEAD * longest / max(1, int(live(datum, len(lp)).sum())))
        if reads and _has_reference(datum, lp):
            base = datum.loss_fn_inputs[REFERENCE].to_torch().to(lp)
        found.append(base)
    return found


def _reads_reference(subject: Subject) -> bool:
    data = list(subject.data)
    for i, (datum, lp) in enumerate(zip(subject.data, subject.logprobs, strict=True)):
        if _has_reference(datum, lp):
            value = datum.loss_fn_inputs[REFERENCE]
            moved = type(value).from_numpy(value.to_numpy() - 0.1 * (i + 1))
            data[i] = type(datum)(
                model_input=datum.model_input, loss_fn_inputs={**datum.loss_fn_inputs, REFERENCE: moved}
            )
    return not close(subject.value(subject.logprobs), subject.value(subject.logprobs, data))


def _has_reference(datum: Datum, logprobs: torch.Tensor) -> bool:
    reference = datum.loss_fn_inputs.get(REFERENCE)
    return reference is not None and tuple(reference.to_numpy().shape) == tuple(logprobs.shape)
