"""The checks of :mod:`mint_lab.preflight` for a loss that returns a finite scalar with a gradient.

Each check appends its line to ``lines``.
"""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..losses.spec import Reduction, Unit
from .probe import CheckFailed, LossProbe, OutOfTime, random_state
from .report import ReportLine

if TYPE_CHECKING:
    from ..types import Datum

__all__ = [
    "check_memory",
    "check_numerical_gradient",
    "check_repeatable",
    "check_weights",
    "find_reduction",
    "is_close",
    "loss_mask",
]

LARGEST_POSITIONS, DRAWN_POSITIONS = 5, 3  # of the numerical gradient: with the largest gradient, and at random
# Step of the differences, nats, and relative tolerance. A loss that casts to single precision needs a large step:
# rounding leaves little of a small difference.
STEP, TOLERANCE = 1e-5, 1e-4
STEP_SINGLE, TOLERANCE_SINGLE = 2e-2, 2e-2
FINER = 0.1  # factor of the second step, if the first one disagrees
REPEAT_TOLERANCE = 1e-6  # relative difference of two calls that counts as the same value
ADDED_POSITIONS = 3  # positions of weight 0 that are appended to a datum


def check_repeatable(probe: LossProbe, lines: list[ReportLine]) -> bool:
    """Return whether further checks make sense. A random loss then gets the same random numbers in each call."""
    values = [probe.value(probe.logprobs) for _ in range(3)]
    if _are_equal(values):
        lines.append(ReportLine("repeatable", "ok", "the same value when called again"))
        return True
    probe.fixed_random_state = random_state()
    if _are_equal([probe.value(probe.logprobs) for _ in range(3)]):
        fix = "draw no random numbers, unless that is the point"
        lines.append(ReportLine("repeatable", "warn", "random: the value changes from call to call", fix))
        return True
    fix = "keep nothing between calls, no counters and no lists; what changes on a schedule is a setting, run.set(...)"
    text = "stateful: the value changes from call to call, with the same random numbers too"
    lines.append(ReportLine("repeatable", "warn", text, fix))
    return False


def check_memory(probe: LossProbe, lines: list[ReportLine]) -> None:
    """Check that nothing outside the function keeps the tensors of a call alive."""
    result, leaves = probe.call(probe.logprobs)
    refs = [weakref.ref(leaf) for leaf in leaves]
    del result, leaves
    if any(ref() is not None for ref in refs):
        gc.collect()  # a cycle of references is not a leak
    alive = sum(ref() is not None for ref in refs)
    if alive:
        fix = "did you append to a list outside? Append float(x.detach()), without the graph behind it"
        lines.append(ReportLine("memory", "warn", f"keeps {alive} tensors of the last call alive", fix))


def check_weights(probe: LossProbe, lines: list[ReportLine]) -> None:
    """Check that positions of weight 0 do not matter, neither their log-probabilities nor their number."""
    masks = [~loss_mask(datum, len(lp)) for datum, lp in zip(probe.data, probe.logprobs, strict=True)]
    count = int(sum(mask.sum() for mask in masks))
    if not count:
        lines.append(ReportLine("weights", "info", "no position of weight 0 to try"))
        return
    before = probe.value(probe.logprobs)
    # A different shift for each datum: one shift for all would cancel in the margin of two sides with the same prompt.
    pairs = enumerate(zip(probe.logprobs, masks, strict=True))
    shifted = [lp - (1 + 0.3 * i) * mask.to(lp) for i, (lp, mask) in pairs]
    if not is_close(before, probe.value(shifted)):
        fix = 'multiply by datum.loss_fn_inputs["weights"].to_torch(), unless the prompt is meant to count'
        lines.append(ReportLine("weights", "warn", "log-probabilities of weight 0 (the prompt) change the loss", fix))
        return
    longest = max(range(len(probe.data)), key=lambda i: len(probe.logprobs[i]))
    data, logprobs = list(probe.data), list(probe.logprobs)
    data[longest] = _lengthened(data[longest])
    logprobs[longest] = torch.cat([logprobs[longest], torch.full((ADDED_POSITIONS,), -1.0)])
    try:
        after = probe.value(logprobs, data)
    except (CheckFailed, OutOfTime):
        raise
    except Exception:
        after = before  # the function reads a field of another shape, which cannot be lengthened here
    if not is_close(before, after):
        fix = "divide by the sum of the weights; a mean over a padded tensor divides by the longest sequence"
        text = f"{ADDED_POSITIONS} more positions of weight 0 at datum {longest} change the loss"
        lines.append(ReportLine("weights", "warn", text, fix))
        return
    positions = "position" if count == 1 else "positions"
    lines.append(ReportLine("weights", "ok", f"{count} {positions} of weight 0 do not matter"))


def loss_mask(datum: Datum, length: int) -> torch.Tensor:
    """Return which positions have a nonzero weight, ``(length,)``; all if the datum has no weights of that shape."""
    weights = datum.loss_fn_inputs.get("weights")
    mask = torch.ones(length, dtype=torch.bool) if weights is None else weights.to_torch() != 0
    return mask if mask.shape == (length,) else torch.ones(length, dtype=torch.bool)


def _lengthened(datum: Datum) -> Datum:
    """Return ``datum`` with ``ADDED_POSITIONS`` more positions of weight 0 at its end."""
    tokens = list(datum.model_input.to_ints())
    fields: dict[str, Any] = {}
    for name, value in datum.loss_fn_inputs.items():
        array = value.to_numpy()
        if array.shape == (len(tokens),):
            longer = np.concatenate([array, np.zeros(ADDED_POSITIONS, array.dtype)])
            value = type(value).from_numpy(longer)  # noqa: PLW2901
        fields[name] = value
    model_input = type(datum.model_input).from_ints([*tokens, *[tokens[-1]] * ADDED_POSITIONS])
    return type(datum)(model_input=model_input, loss_fn_inputs=fields)


def check_numerical_gradient(probe: LossProbe, lines: list[ReportLine]) -> None:
    """Check autograd's gradient against central differences.

    Raises:
        CheckFailed: If they disagree and the function uses an ``autograd.Function`` of its own. Without one a
            disagreement is a warning, because a part can be detached on purpose.
    """
    double = probe.double()
    result, _ = probe.call(double)
    _, gradient = probe.gradient(double)
    precise = result[0].dtype == double[0].dtype == torch.float64
    step, tolerance = (STEP, TOLERANCE) if precise else (STEP_SINGLE, TOLERANCE_SINGLE)
    scale = _largest(gradient) or 1.0
    places = _places(gradient)
    for index, position in places:
        autograd = float(gradient[index][position])
        slope = _disagreeing_slope(probe, double, (index, position), autograd, step, tolerance * scale)
        if slope is not None:
            where = f"datum {index}, position {position}: {autograd:.4g} by autograd, {slope:.4g} by differences"
            functions = _own_functions(result[0])
            if functions:
                fix = f"the backward() of {functions[0]} is not the derivative of its forward()"
                raise CheckFailed("numerical gradient", where, fix)
            fix = "is a part detached on purpose? Otherwise look for detach(), .item(), .data, no_grad and rounding"
            lines.append(ReportLine("numerical gradient", "warn", where, fix))
            return
    lines.append(ReportLine("numerical gradient", "ok", f"agrees with autograd at {len(places)} positions"))


def _disagreeing_slope(  # noqa: PLR0917
    probe: LossProbe,
    values: list[torch.Tensor],
    place: tuple[int, int],
    autograd: float,
    step: float,
    tolerance: float,
) -> float | None:
    """Return the slope at ``place`` if it disagrees with ``autograd`` and no kink explains that; else None."""
    below, above = _value_at(probe, values, place, -step), _value_at(probe, values, place, step)
    slope = (above - below) / (2 * step)
    if abs(slope - autograd) <= tolerance:
        return None
    # A finer step no longer reaches a kink nearby. A kink right here has two slopes, with autograd's between them.
    finer = step * FINER
    below, above = _value_at(probe, values, place, -finer), _value_at(probe, values, place, finer)
    here = probe.value(values)
    left, right = (here - below) / finer, (above - here) / finer
    slack = tolerance / FINER  # a finer step leaves fewer correct digits
    if abs((left + right) / 2 - autograd) <= tolerance:
        return None
    if abs(left - right) > slack and min(left, right) - slack <= autograd <= max(left, right) + slack:
        return None
    return slope


def _value_at(probe: LossProbe, values: list[torch.Tensor], place: tuple[int, int], step: float) -> float:
    """Return the loss with one log-probability moved by ``step``."""
    index, position = place
    moved = list(values)
    moved[index] = values[index].clone()
    moved[index][position] += step
    return probe.value(moved)


def _places(gradient: Sequence[torch.Tensor]) -> list[tuple[int, int]]:
    """Return (datum, position) of the largest gradients, one a datum, and of some at random: a missing one is 0."""
    best = sorted(
        ((float(g.abs().max()), i, int(g.abs().argmax())) for i, g in enumerate(gradient) if len(g)), reverse=True
    )
    chosen = [(i, p) for _, i, p in best[:LARGEST_POSITIONS]]
    rng = np.random.default_rng(0)
    for index in rng.integers(len(gradient), size=DRAWN_POSITIONS).tolist():
        if len(gradient[index]):
            # The later half: positions at the beginning belong to the prompt and usually have weight 0.
            chosen += [(index, int(rng.integers(len(gradient[index]) // 2, len(gradient[index]))))]
    return list(dict.fromkeys(chosen))


def _own_functions(loss: torch.Tensor) -> list[str]:
    """Return the names of the autograd Functions written in Python that the loss was computed with."""
    names: list[str] = []
    seen: set[Any] = set()
    nodes: list[Any] = [loss.grad_fn]
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            names.append(type(node).__name__.removesuffix("Backward"))
        nodes += [following for following, _ in node.next_functions]
    return names


def find_reduction(probe: LossProbe, lines: list[ReportLine]) -> tuple[Reduction, Unit]:
    """Return how the loss of the batch follows from the losses of its datums, or of its pairs.

    Returns:
        The reduction, and the unit that it holds for. A coupled loss has the unit "pair" if it refuses single datums,
        and "" otherwise.
    """
    double = probe.double()
    whole, gradient = probe.gradient(double)
    refuses_datums = False
    units: tuple[tuple[int, Unit], ...] = ((1, "datum"), (2, "pair"))
    for size, unit in units:
        if len(double) % size or len(double) < 2 * size:
            continue
        try:
            parts = [
                probe.gradient(double[s : s + size], probe.data[s : s + size]) for s in range(0, len(double), size)
            ]
        except (CheckFailed, OutOfTime):
            raise
        except Exception:
            refuses_datums = True  # a loss on pairs should refuse single datums
            continue
        pieces = [g for _, part in parts for g in part]
        values = [value for value, _ in parts]
        total = math.fsum(values) if all(map(math.isfinite, values)) else math.nan
        if is_close(whole, total) and _is_proportional(gradient, pieces, 1.0):
            lines.append(ReportLine("batch split", "info", f"the value is the sum over its {unit}s"))
            return "sum", unit
        if is_close(whole, total / len(parts)) and _is_proportional(gradient, pieces, 1 / len(parts)):
            text = f"the value is the mean over its {unit}s, so it does not grow with the batch"
            lines.append(ReportLine("batch split", "info", text))
            return "mean", unit
    lines.append(ReportLine("batch split", "info", "coupled: the value needs the whole batch at once"))
    return "coupled", "pair" if refuses_datums else ""


def _is_proportional(whole: Sequence[torch.Tensor], pieces: Sequence[torch.Tensor], factor: float) -> bool:
    limit = 1e-5 * _largest(whole)
    return all(_largest([g - factor * piece]) <= limit for g, piece in zip(whole, pieces, strict=True))  # False for nan


def _largest(gradient: Sequence[torch.Tensor]) -> float:
    """Return the largest absolute value; 0 if there is none, because all datums are empty."""
    return max((float(g.abs().max()) for g in gradient if len(g)), default=0.0)


def _are_equal(values: Sequence[float]) -> bool:
    return max(values) - min(values) <= REPEAT_TOLERANCE * max(1.0, abs(values[0]))


def is_close(a: float, b: float) -> bool:
    """Return whether two values of a loss are the same, apart from rounding."""
    return abs(a - b) <= 1e-5 * max(1.0, abs(a), abs(b))
