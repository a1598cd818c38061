"""The checks of :mod:`mint_lab.preflight` for a loss on pairs: which side it prefers, and large margins.

A "side" is the chosen or the rejected completion of a pair. Every check moves log-probabilities and looks at the loss,
so it does not matter how the loss is written.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch

from ..losses.spec import REFERENCE, Reduction, Unit
from .checks import is_close, loss_mask
from .probe import CheckFailed, LossProbe, OutOfTime
from .report import ReportLine

if TYPE_CHECKING:
    from ..types import Datum

__all__ = ["check_large_margins", "check_pair_order"]

AHEAD_NATS = 2.5  # per token, by which one side of a pair is put ahead
FAR_BEHIND_NATS = 1000.0  # a margin that a long completion can easily have
MAX_PAIRS = 4  # of a coupled loss, whose slopes are checked
SMALL_SLOPE = 1e-3  # relative to the largest slope; smaller ones are ignored
INTERLEAVED = "chosen is data[0::2], rejected is data[1::2]"


def check_pair_order(probe: LossProbe, reduction: Reduction, unit: Unit, lines: list[ReportLine]) -> bool:
    """Check that a loss on pairs is lower if the chosen side is ahead than if the rejected side is.

    Args:
        probe: The loss.
        reduction: What :func:`~mint_lab.preflight.checks.find_reduction` found. A coupled loss is on pairs if it
            depends on the order of the datums and pushes some of them up and some down; it is checked pair by pair.
        unit: What the same function found.
        lines: The line of this check is appended here.

    Returns:
        Whether it is a loss on pairs.
    """
    if len(probe.data) % 2 or (reduction != "coupled" and unit != "pair"):
        return False
    try:
        level = _level(probe)
        slopes = _slopes(probe, level) if reduction == "coupled" else {}
        # A coupled loss that pushes all datums down, or does not depend on their order, is not on pairs.
        if reduction == "coupled" and not (_depends_on_order(probe) and _pushes_up(slopes)):
            return False
        right, swapped = _ahead_and_behind(probe, level)
    except (CheckFailed, OutOfTime):
        raise
    except Exception:
        return unit == "pair"  # the loss does not accept these values, so its order cannot be checked
    if not (math.isfinite(right) and math.isfinite(swapped)):
        return True
    index = _misplaced(slopes)
    if index is not None:
        effect = "(chosen) raises" if index % 2 == 0 else "(rejected) lowers"
        fix = f"pairs are interleaved (chosen, rejected, chosen, ...), not halves: {INTERLEAVED}"
        lines.append(ReportLine("pairs", "warn", f"raising data[{index}] {effect} the loss", fix))
    elif is_close(right, swapped):
        fix = f"is that meant? {INTERLEAVED}"
        lines.append(ReportLine("pairs", "warn", "swapping chosen and rejected changes nothing", fix))
    elif right > swapped:
        fix = "chosen comes first: data[0::2] is chosen, data[1::2] is rejected; or is the sign turned?"
        lines.append(
            ReportLine("pairs", "warn", "the pairs look swapped: the loss falls when rejected gets ahead", fix)
        )
    else:
        lines.append(ReportLine("pairs", "ok", "the loss falls when chosen gets ahead"))
    return True


def check_large_margins(probe: LossProbe, lines: list[ReportLine]) -> None:
    """Check that value and gradient of a loss on pairs stay finite if one side of each pair is far behind."""
    for first, name in ((0, "chosen"), (1, "rejected")):
        far = list(probe.logprobs)
        for i in range(first, len(far), 2):
            mask = loss_mask(probe.data[i], len(far[i])).to(far[i])
            far[i] = far[i] - FAR_BEHIND_NATS * mask / max(1.0, float(mask.sum()))
        try:
            value, gradient = probe.gradient(far)
        except (CheckFailed, OutOfTime):
            raise
        except Exception:
            return  # the loss does not accept these values
        bad = [value] if not math.isfinite(value) else [float(x) for g in gradient for x in g if not x.isfinite()]
        if bad:
            what = "the loss" if not math.isfinite(value) else "its gradient"
            margin = f"with {name} {FAR_BEHIND_NATS:g} nats further behind"
            text = f"{margin}, {what} is {bad[0]:g}; long completions get there"
            fix = "use logsigmoid(x) for log(sigmoid(x)), log1p(x) for log(1 + x), or clamp what goes into exp"
            lines.append(ReportLine("large margins", "warn", text, fix))
            return


def _pushes_up(slopes: dict[int, tuple[float, float]]) -> bool:
    return any(slope > SMALL_SLOPE for pair in slopes.values() for slope in pair)


def _depends_on_order(probe: LossProbe) -> bool:
    reversed_value = probe.value(probe.logprobs[::-1], probe.data[::-1])
    return not is_close(probe.value(probe.logprobs), reversed_value)


def _ahead_and_behind(probe: LossProbe, level: list[torch.Tensor]) -> tuple[float, float]:
    """Return the loss with each chosen side ahead of its rejected one, and with each rejected side ahead.

    The two differ also for a loss that wants a margin of a certain size, neither more nor less.
    """
    right = swapped = math.nan
    for steps in _steps(probe):
        signed = [step if i % 2 == 0 else -step for i, step in enumerate(steps)]
        right = probe.value([base + step for base, step in zip(level, signed, strict=True)])
        swapped = probe.value([base - step for base, step in zip(level, signed, strict=True)])
        if not is_close(right, swapped):
            break
    return right, swapped


def _slopes(probe: LossProbe, level: list[torch.Tensor]) -> dict[int, tuple[float, float]]:
    """Return the slopes of the loss as chosen rises and as rejected rises, for some pairs.

    Each slope is the sum of two, with the pair ahead and with it behind, while all other pairs are level. So a loss
    that is flat on one side, or wants a margin of a certain size, has its slope too. If a loss takes both sides for the
    same one, the slope of the margin (chosen minus rejected) cancels, either for steps with the same mean or for steps
    with the same sum. Of the two kinds of steps, the one less in favour of the loss counts.

    Returns:
        Index of the chosen side -> (slope of chosen, slope of rejected), relative to the largest slope. Empty if the
        loss is not finite somewhere.
    """
    count = len(probe.data) // 2
    worst: dict[int, tuple[float, float]] = {}
    for steps in _steps(probe):
        slopes: dict[int, tuple[float, float]] = {}
        scale = 0.0
        for place in sorted({2 * round(i * (count - 1) / (MAX_PAIRS - 1)) for i in range(MAX_PAIRS)}):
            total = torch.zeros(2, dtype=torch.float64)  # (chosen, rejected)
            for sign in (1, -1):
                values = list(level)
                values[place] = level[place] + sign * steps[place]
                values[place + 1] = level[place + 1] - sign * steps[place + 1]
                value, gradient = probe.gradient(values)
                if not math.isfinite(value):
                    return {}
                pair = torch.stack([(gradient[i] * steps[i]).sum() for i in (place, place + 1)])
                total = total + pair
                scale = max(scale, float(pair.abs().max()))
            slopes[place] = float(total[0]), float(total[1])
        for place, (chosen, rejected) in slopes.items():
            new = chosen / (scale or 1.0), rejected / (scale or 1.0)
            if place not in worst or new[0] - new[1] > worst[place][0] - worst[place][1]:
                worst[place] = new
    return worst


def _misplaced(slopes: dict[int, tuple[float, float]]) -> int | None:
    """Return the first datum that the loss takes for the other side; None if it does so with all pairs (swapped)."""
    moved = {place: pair for place, pair in slopes.items() if max(map(abs, pair)) > SMALL_SLOPE}
    wrong = {place: pair for place, pair in moved.items() if pair[0] - pair[1] > -SMALL_SLOPE}
    chosen = [place for place, pair in wrong.items() if pair[0] > SMALL_SLOPE]
    rejected = [place + 1 for place, pair in wrong.items() if pair[1] < -SMALL_SLOPE]
    if len(chosen) == len(rejected) == len(moved):
        return None
    return min([*chosen, *rejected], default=None)


def _steps(probe: LossProbe) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Return half of what puts one side of a pair ahead, ``(N_i,)`` each: the same mean for all, and the same sum."""
    masks = [loss_mask(datum, len(lp)).to(lp) for datum, lp in zip(probe.data, probe.logprobs, strict=True)]
    means = [AHEAD_NATS / 2 * mask for mask in masks]
    return means, [step / max(1.0, float(mask.sum())) for step, mask in zip(means, masks, strict=True)]


def _level(probe: LossProbe) -> list[torch.Tensor]:
    """Return log-probabilities with neither side ahead, ``(N_i,)`` each.

    All sums are the same; for a loss that reads reference log-probabilities, the log-probabilities are those.
    """
    reads_reference = _reads_reference(probe)
    longest = max(len(lp) for lp in probe.logprobs)
    level: list[torch.Tensor] = []
    # In double precision: a rounding error is not a margin, but a loss that standardizes margins would take it for one.
    for datum, lp in zip(probe.data, probe.double(), strict=True):
        base = torch.full_like(lp, -1.2 * AHEAD_NATS * longest / max(1, int(loss_mask(datum, len(lp)).sum())))
        if reads_reference and _has_reference(datum, lp):
            base = datum.loss_fn_inputs[REFERENCE].to_torch().to(lp)
        level.append(base)
    return level


def _reads_reference(probe: LossProbe) -> bool:
    data = list(probe.data)
    for i, (datum, lp) in enumerate(zip(probe.data, probe.logprobs, strict=True)):
        if _has_reference(datum, lp):
            value = datum.loss_fn_inputs[REFERENCE]
            moved = type(value).from_numpy(value.to_numpy() - 0.1 * (i + 1))
            data[i] = type(datum)(
                model_input=datum.model_input, loss_fn_inputs={**datum.loss_fn_inputs, REFERENCE: moved}
            )
    return not is_close(probe.value(probe.logprobs), probe.value(probe.logprobs, data))


def _has_reference(datum: Datum, logprobs: torch.Tensor) -> bool:
    reference = datum.loss_fn_inputs.get(REFERENCE)
    return reference is not None and tuple(reference.to_numpy().shape) == tuple(logprobs.shape)
