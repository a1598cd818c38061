"""What :mod:`mint_lab.preflight` asks of a loss that returns a finite scalar with a gradient."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..losses.spec import Reduction
from .probe import Finding, OutOfTime, Subject, random_state
from .report import Line

if TYPE_CHECKING:
    from ..types import Datum

__all__ = ["close", "live", "memory", "numerical", "repeatable", "split", "weights"]

LARGEST, DRAWN = 5, 3  # positions of the numerical gradient: with the largest gradient, and anywhere
# Step of its differences, nats, and relative tolerance; for a loss that casts to single precision inside, rounding
# leaves little of a small difference.
STEP, TOLERANCE = 1e-5, 1e-4
STEP_SINGLE, TOLERANCE_SINGLE = 2e-2, 2e-2
FINER = 0.1  # the second step, where the first disagrees
SAME = 1e-6  # relative difference of values of one call to the next that is called equal
MORE = 3  # positions of weight 0 that are added


def repeatable(subject: Subject, lines: list[Line]) -> bool:
    """Whether further checks make sense; a random loss is then called with the same random numbers each time."""
    values = [subject.value(subject.logprobs) for _ in range(3)]
    if _equal(values):
        lines.append(Line("repeatable", "ok", "the same value when called again"))
        return True
    subject.frozen = random_state()
    if _equal([subject.value(subject.logprobs) for _ in range(3)]):
        fix = "draw no random numbers, unless that is the point"
        lines.append(Line("repeatable", "warn", "random: the value changes from call to call", fix))
        return True
    fix = "keep nothing between calls, no counters and no lists; what changes on a schedule is a setting, run.set(...)"
    text = "stateful: the value changes from call to call, with the same random numbers too"
    lines.append(Line("repeatable", "warn", text, fix))
    return False


def memory(subject: Subject, lines: list[Line]) -> None:
    """Whether something outside the function holds on to a call's tensors."""
    result, leaves = subject.call(subject.logprobs)
    kept = [weakref.ref(leaf) for leaf in leaves]
    del result, leaves
    if any(ref() is not None for ref in kept):
        gc.collect()
    alive = sum(ref() is not None for ref in kept)
    if alive:
        fix = "did you append to a list outside? Append float(x.detach()), without the graph behind it"
        lines.append(Line("memory", "warn", f"keeps {alive} tensors of the last call alive", fix))


def weights(subject: Subject, lines: list[Line]) -> None:
    """Whether positions of weight 0 count."""
    masks = [~live(datum, len(lp)) for datum, lp in zip(subject.data, subject.logprobs, strict=True)]
    count = int(sum(mask.sum() for mask in masks))
    if not count:
        lines.append(Line("weights", "info", "no position of weight 0 to try"))
        return
    before = subject.value(subject.logprobs)
    # Each datum by an amount of its own: the same for all would cancel in a margin of two sides with the same prompt.
    pairs = enumerate(zip(subject.logprobs, masks, strict=True))
    moved = [lp - (1 + 0.3 * i) * mask.to(lp) for i, (lp, mask) in pairs]
    if not close(before, subject.value(moved)):
        fix = 'multiply by datum.loss_fn_inputs["weights"].to_torch(), unless the prompt is meant to count'
        lines.append(Line("weights", "warn", "log-probabilities of weight 0 (the prompt) change the loss", fix))
        return
    longest = max(range(len(subject.data)), key=lambda i: len(subject.logprobs[i]))
    data, logprobs = list(subject.data), list(subject.logprobs)
    data[longest] = _lengthened(data[longest])
    logprobs[longest] = torch.cat([logprobs[longest], torch.full((MORE,), -1.0)])
    try:
        after = subject.value(logprobs, data)
    except (Finding, OutOfTime):
        raise
    except Exception:
        after = before  # it reads something of a shape of its own, which cannot be lengthened here
    if not close(before, after):
        fix = "divide by the sum of the weights; a mean over a padded tensor divides by the longest sequence"
        text = f"{MORE} more positions of weight 0 at datum {longest} change the loss"
        lines.append(Line("weights", "warn", text, fix))
        return
    positions = "position" if count == 1 else "positions"
    lines.append(Line("weights", "ok", f"{count} {positions} of weight 0 do not matter"))


def live(datum: Datum, length: int) -> torch.Tensor:
    """Which positions have a weight other than 0, ``(length,)``; all of them where there are no such weights."""
    found = datum.loss_fn_inputs.get("weights")
    mask = torch.ones(length, dtype=torch.bool) if found is None else found.to_torch() != 0
    return mask if mask.shape == (length,) else torch.ones(length, dtype=torch.bool)


def _lengthened(datum: Datum) -> Datum:
    """``datum`` with a few positions of weight 0 more at its end."""
    tokens = list(datum.model_input.to_ints())
    fields: dict[str, Any] = {}
    for name, value in datum.loss_fn_inputs.items():
        array = value.to_numpy()
        if array.shape == (len(tokens),):
            value = type(value).from_numpy(np.concatenate([array, np.zeros(MORE, array.dtype)]))  # noqa: PLW2901
        fields[name] = value
    longer = type(datum.model_input).from_ints([*tokens, *[tokens[-1]] * MORE])
    return type(datum)(model_input=longer, loss_fn_inputs=fields)


def numerical(subject: Subject, lines: list[Line]) -> None:
    """Whether autograd's gradient is the function's slope."""
    double = subject.double()
    result, _ = subject.call(double)
    _, gradient = subject.gradient(double)
    precise = result[0].dtype == double[0].dtype == torch.float64
    step, tolerance = (STEP, TOLERANCE) if precise else (STEP_SINGLE, TOLERANCE_SINGLE)
    scale = max(float(g.abs().max()) for g in gradient) or 1.0
    places = _places(gradient)
    for index, position in places:
        autograd = float(gradient[index][position])
        slope = _agreeing_slope(subject, double, (index, position), autograd, step, tolerance * scale)
        if slope is not None:
            where = f"datum {index}, position {position}: {autograd:.4g} by autograd, {slope:.4g} by differences"
            own = _own_functions(result[0])
            if own:
                fix = f"the backward() of {own[0]} is not the derivative of its forward()"
                raise Finding("numerical gradient", where, fix)
            fix = "is a part detached on purpose? Otherwise look for detach(), .item(), .data, no_grad and rounding"
            lines.append(Line("numerical gradient", "warn", where, fix))
            return
    lines.append(Line("numerical gradient", "ok", f"agrees with autograd at {len(places)} positions"))


def _agreeing_slope(  # noqa: PLR0917
    subject: Subject,
    values: list[torch.Tensor],
    place: tuple[int, int],
    autograd: float,
    step: float,
    tolerance: float,
) -> float | None:
    """The slope, where it disagrees with ``autograd`` and no kink explains that; else None."""
    below, above = _moved(subject, values, place, -step), _moved(subject, values, place, step)
    slope = (above - below) / (2 * step)
    if abs(slope - autograd) <= tolerance:
        return None
    # With a finer step a kink nearby is left behind, and one right here has two slopes with autograd's between.
    finer = step * FINER
    below, above = _moved(subject, values, place, -finer), _moved(subject, values, place, finer)
    here = subject.value(values)
    left, right = (here - below) / finer, (above - here) / finer
    slack = tolerance / FINER  # a finer step leaves fewer digits
    if abs((left + right) / 2 - autograd) <= tolerance:
        return None
    if abs(left - right) > slack and min(left, right) - slack <= autograd <= max(left, right) + slack:
        return None
    return slope


def _moved(subject: Subject, values: list[torch.Tensor], place: tuple[int, int], step: float) -> float:
    index, position = place
    moved = list(values)
    moved[index] = values[index].clone()
    moved[index][position] += step
    return subject.value(moved)


def _places(gradient: Sequence[torch.Tensor]) -> list[tuple[int, int]]:
    """(datum, position) of the largest gradients, one a datum, and some drawn from all: a missing one is 0."""
    best = sorted(
        ((float(g.abs().max()), i, int(g.abs().argmax())) for i, g in enumerate(gradient) if len(g)), reverse=True
    )
    chosen = [(i, p) for _, i, p in best[:LARGEST]]
    rng = np.random.default_rng(0)
    for index in rng.integers(len(gradient), size=DRAWN).tolist():
        if len(gradient[index]):
            # The later half: positions at the beginning are the prompt's, and usually of weight 0.
            chosen += [(index, int(rng.integers(len(gradient[index]) // 2, len(gradient[index]))))]
    return list(dict.fromkeys(chosen))


def _own_functions(loss: torch.Tensor) -> list[str]:
    """Names of autograd Functions written in Python that the loss was computed with."""
    found: list[str] = []
    seen: set[Any] = set()
    queue: list[Any] = [loss.grad_fn]
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            found.append(type(node).__name__.removesuffix("Backward"))
        queue += [following for following, _ in node.next_functions]
    return found


def split(subject: Subject, lines: list[Line]) -> tuple[Reduction, int]:
    """How the value comes about from datums or from pairs: (their sum, their mean, or coupled; datums an item)."""
    double = subject.double()
    whole, gradient = subject.gradient(double)
    unit = 1
    for size, name in ((1, "datums"), (2, "pairs")):
        if len(double) % size or len(double) < 2 * size:
            continue
        try:
            parts = [
                subject.gradient(double[s : s + size], subject.data[s : s + size]) for s in range(0, len(double), size)
            ]
        except (Finding, OutOfTime):
            raise
        except Exception:
            unit = 2  # a loss on pairs refuses single datums, as it should
            continue
        pieces = [g for _, part in parts for g in part]
        total = math.fsum(value for value, _ in parts)
        if close(whole, total) and _proportional(gradient, pieces, 1.0):
            lines.append(Line("batch split", "info", f"the value is the sum over its {name}"))
            return "sum", size
        if close(whole, total / len(parts)) and _proportional(gradient, pieces, 1 / len(parts)):
            text = f"the value is the mean over its {name}, so it does not grow with the batch"
            lines.append(Line("batch split", "info", text))
            return "mean", size
    lines.append(Line("batch split", "info", "coupled: the value needs the whole batch at once"))
    return "coupled", unit


def _proportional(whole: Sequence[torch.Tensor], pieces: Sequence[torch.Tensor], factor: float) -> bool:
    scale = max(float(g.abs().max()) for g in whole)
    return all(float((g - factor * piece).abs().max()) <= 1e-5 * scale for g, piece in zip(whole, pieces, strict=True))


def _equal(values: Sequence[float]) -> bool:
    return max(values) - min(values) <= SAME * max(1.0, abs(values[0]))


def close(a: float, b: float) -> bool:
    """Whether two values of a loss are the same, apart from rounding."""
    return abs(a - b) <= 1e-5 * max(1.0, abs(a), abs(b))
