r"""Checks a loss function before it may train: pure torch, no model.

What is asked, in this order; each answer is one line, and a line that is not "ok" says what to change:

==================  ================================================================================================
returns             a tuple (loss, metrics); where it raises, the line of the function's own source
loss                a scalar floating-point tensor, finite, on the right device, with a gradient
metrics             a dict of names to floats
inputs              the log-probabilities are read, not written to
gradient            finite, and it reaches every datum
repeatable          the same value when called again (a warning otherwise: some losses draw at random on purpose)
weights             what stands at a position of weight 0 does not matter (a warning: some losses mean it)
numerical gradient  central differences in double precision agree with autograd at the positions that matter most
batch split         separable (the value is the sum over its items) or coupled; neither is wrong
==================  ================================================================================================
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch

from ..errors import ConfigError, LossError

if TYPE_CHECKING:
    from ..types import Datum

__all__ = ["Line", "Report", "check", "preflight", "random_logprobs"]

Verdict = Literal["ok", "info", "warn", "fail"]
MARKS: dict[str, str] = {"ok": "ok  ", "info": "    ", "warn": "warn", "fail": "FAIL"}
POSITIONS = 5  # of the numerical gradient
# Step of its differences, nats, and relative tolerance; for a loss that casts to single precision inside, rounding
# leaves little of a small difference.
STEP, TOLERANCE = 1e-5, 1e-4
STEP_SINGLE, TOLERANCE_SINGLE = 2e-2, 2e-2
SAME = 1e-6  # relative difference of values of one call to the next that is called equal


@dataclass(frozen=True)
class Line:
    """One answer: what was asked, the verdict, what was found, and what to change (empty where nothing is)."""

    name: str
    verdict: Verdict
    message: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{MARKS[self.verdict]}  {self.name:<19} {self.message}" + (f" -> {self.fix}" if self.fix else "")


@dataclass(frozen=True)
class Report:
    """All answers.

    Attributes:
        lines: in the order of the checks; those that could not be asked any more are missing.
        separable: whether the value is the sum over its items; None where that was not reached.
    """

    lines: tuple[Line, ...]
    separable: bool | None = None

    @property
    def ok(self) -> bool:
        """Whether nothing failed; warnings do not count."""
        return all(line.verdict != "fail" for line in self.lines)

    def __repr__(self) -> str:
        fails = sum(line.verdict == "fail" for line in self.lines)
        warns = sum(line.verdict == "warn" for line in self.lines)
        head = "preflight: " + ("ok" if self.ok else f"{fails} failed") + (f", {warns} to look at" if warns else "")
        return "\n".join([head, *(str(line) for line in self.lines)])

    def raise_if_failed(self) -> Report:
        """This report.

        Raises:
            LossError: something failed; the message has every failed line.
        """
        if self.ok:
            return self
        raise LossError("\n".join(f"{x.name}: {x.message}. {x.fix}" for x in self.lines if x.verdict == "fail"))


class _Stop(Exception):
    """A check failed in a way that leaves nothing to ask."""

    def __init__(self, name: str, message: str, fix: str) -> None:
        super().__init__(message)
        self.line = Line(name, "fail", message, fix)


def preflight(
    fn: Callable[..., Any], data: Sequence[Datum], logprobs_list: Sequence[torch.Tensor] | None = None, *, seed: int = 0
) -> Report:
    """Check a loss function on ``data``.

    Args:
        fn: ``(data, logprobs_list) -> (loss, metrics)``.
        data: a few datums, ordered as the loss expects.
        logprobs_list: their log-probabilities, ``(N_i,)`` each; without them plausible ones are drawn.
        seed: of those.

    Raises:
        ConfigError: no data, or log-probabilities that do not fit them.
    """
    return check(fn, data, random_logprobs(data, seed) if logprobs_list is None else logprobs_list)


def random_logprobs(data: Sequence[Datum], seed: int = 0) -> list[torch.Tensor]:
    """Log-probabilities as a model might give them: minus a gamma of mean 1.5 nats, ``(N_i,)`` each, float32."""
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(-rng.gamma(1.5, 1.0, d.model_input.length).astype(np.float32)) for d in data]


def check(fn: Callable[..., Any], data: Sequence[Datum], logprobs_list: Sequence[torch.Tensor]) -> Report:
    """Every check of this module on given log-probabilities. Raises as :func:`preflight`."""
    _check_given(data, logprobs_list)
    lines: list[Line] = []
    separable = None
    subject = _Subject(fn, list(data), [lp.detach().float() for lp in logprobs_list])
    try:
        loss, leaves = subject.first_call(lines)
        subject.gradient(loss, leaves, lines)
        if subject.repeatable(lines):
            subject.weights(lines)
            subject.numerical(lines)
            separable = subject.split(lines)
    except _Stop as stop:
        lines.append(stop.line)
    return Report(tuple(lines), separable)


def _check_given(data: Sequence[Datum], logprobs_list: Sequence[torch.Tensor]) -> None:
    if not data:
        raise ConfigError("preflight needs data: at least one datum, or one pair for a loss on pairs")
    lengths = [datum.model_input.length for datum in data]
    found = [tuple(lp.shape) for lp in logprobs_list]
    if found != [(n,) for n in lengths]:
        raise ConfigError(f"log-probabilities of shapes {found}, expected {[(n,) for n in lengths]} as the data")


@dataclass
class _Subject:
    """A loss function under examination, with the data to call it on."""

    fn: Callable[..., Any]
    data: list[Datum]
    logprobs: list[torch.Tensor]

    def call(self, values: Sequence[torch.Tensor], data: list[Datum] | None = None) -> tuple[Any, list[torch.Tensor]]:
        """What the function returns on fresh leaves, and the leaves."""
        leaves = [v.clone().requires_grad_(True) for v in values]
        with torch.enable_grad():
            result = self.fn(list(self.data if data is None else data), list(leaves))
        return result, leaves

    def value(self, values: Sequence[torch.Tensor], data: list[Datum] | None = None) -> float:
        """The loss as a number, in the precision of ``values``."""
        result, _ = self.call(values, data)
        return float(result[0].detach())

    def first_call(self, lines: list[Line]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        try:
            result, leaves = self.call(self.logprobs)
        except Exception as error:
            raise _raised(self.fn, error) from error
        if not isinstance(result, tuple) or len(result) != 2:
            found = f"a tuple of {len(result)}" if isinstance(result, tuple) else f"a {type(result).__name__}"
            raise _Stop("returns", f"the function returned {found}", "return loss, metrics")
        loss, metrics = result
        lines.append(Line("returns", "ok", "a loss and metrics"))
        lines.append(_loss_line(loss))
        lines.append(_metrics_line(metrics))
        changed = next((i for i, (a, b) in enumerate(zip(leaves, self.logprobs, strict=True)) if not _same(a, b)), None)
        if changed is not None:
            raise _Stop(
                "inputs", f"logprobs_list[{changed}] was changed in place", "work on a copy: logprobs_list[i].clone()"
            )
        return loss, leaves

    def gradient(self, loss: torch.Tensor, leaves: list[torch.Tensor], lines: list[Line]) -> None:
        found = torch.autograd.grad(loss, leaves, allow_unused=True)
        missing = [i for i, g in enumerate(found) if g is None]
        if missing:
            raise _Stop(
                "gradient",
                f"none reaches datum {_some(missing)} of {len(found)}",
                "use every logprobs_list[i] in the loss; look for an index that skips some, for .item() and detach()",
            )
        bad = [i for i, g in enumerate(found) if g is not None and not bool(torch.isfinite(g).all())]
        if bad:
            raise _Stop(
                "gradient",
                f"nan or inf at datum {_some(bad)}",
                "look for log(0), sqrt(0), 0/0 or exp of something large; torch.where does not stop a nan gradient",
            )
        silent = [i for i, g in enumerate(found) if g is not None and not bool(g.any())]
        if silent:
            fix = "is that meant? Clamps, relu and rounding give no gradient where they are flat"
            lines.append(Line("gradient", "warn", f"exactly 0 at datum {_some(silent)} of {len(found)}", fix))
        else:
            lines.append(Line("gradient", "ok", f"finite, reaches every datum ({len(found)})"))

    def repeatable(self, lines: list[Line]) -> bool:
        try:
            values = [self.value(self.logprobs) for _ in range(3)]
        except Exception as error:
            raise _raised(self.fn, error, "when called again: ") from error
        if max(values) - min(values) <= SAME * max(1.0, abs(values[0])):
            lines.append(Line("repeatable", "ok", "the same value when called again"))
            return True
        fix = "draw no random numbers and keep no state between calls, unless that is the point"
        lines.append(Line("repeatable", "warn", f"{values[0]:.6g}, then {values[1]:.6g} and {values[2]:.6g}", fix))
        return False

    def weights(self, lines: list[Line]) -> None:
        moved, count = self._with_masked_moved()
        if not count:
            lines.append(Line("weights", "info", "no position of weight 0 to try"))
            return
        if _close(self.value(self.logprobs), self.value(moved)):
            lines.append(Line("weights", "ok", f"{_count(count, 'position', 'positions')} of weight 0 do not matter"))
            return
        fix = 'multiply by datum.loss_fn_inputs["weights"].to_torch(), unless the prompt is meant to count'
        lines.append(Line("weights", "warn", "log-probabilities of weight 0 (the prompt) change the loss", fix))

    def _with_masked_moved(self) -> tuple[list[torch.Tensor], int]:
        moved: list[torch.Tensor] = []
        count = 0
        for datum, logprobs in zip(self.data, self.logprobs, strict=True):
            weights = datum.loss_fn_inputs.get("weights")
            masked = torch.zeros_like(logprobs) if weights is None else weights.to_torch() == 0
            if masked.shape != logprobs.shape:
                masked = torch.zeros_like(logprobs)
            count += int(masked.sum())
            moved.append(logprobs - masked.to(logprobs))
        return moved, count

    def double(self) -> list[torch.Tensor]:
        """The log-probabilities in double precision, or as they are where the function mixes them with its own float32.

        ``datum.loss_fn_inputs[...].to_torch()`` is float32, and torch.dot of it with a double raises: a natural thing
        to write, and no fault.
        """
        double = [lp.double() for lp in self.logprobs]
        try:
            self.call(double)
        except Exception:
            return self.logprobs
        return double

    def numerical(self, lines: list[Line]) -> None:
        double = self.double()
        result, leaves = self.call(double)
        found = torch.autograd.grad(result[0], leaves, allow_unused=True)
        gradient = [torch.zeros_like(lp) if g is None else g for g, lp in zip(found, double, strict=True)]
        precise = result[0].dtype == double[0].dtype == torch.float64
        step, tolerance = (STEP, TOLERANCE) if precise else (STEP_SINGLE, TOLERANCE_SINGLE)
        worst, where = 0.0, ""
        scale = max(float(g.abs().max()) for g in gradient) or 1.0
        for index, position in _largest(gradient):
            difference = self._difference(double, (index, position), step)
            gap = abs(difference - float(gradient[index][position])) / scale
            if not gap <= worst:
                worst = gap
                where = f"datum {index}, position {position}: {float(gradient[index][position]):.4g} by autograd, "
                where += f"{difference:.4g} by differences"
        if worst <= tolerance:
            lines.append(Line("numerical gradient", "ok", f"agrees with autograd at {POSITIONS} positions"))
            return
        fix = "is a part detached on purpose? Otherwise look for detach(), .item(), .data, no_grad and rounding"
        lines.append(Line("numerical gradient", "warn", where, fix))

    def _difference(self, values: list[torch.Tensor], place: tuple[int, int], step: float) -> float:
        index, position = place
        ends: list[float] = []
        for sign in (1, -1):
            moved = list(values)
            moved[index] = values[index].clone()
            moved[index][position] += sign * step
            ends.append(self.value(moved))
        return (ends[0] - ends[1]) / (2 * step)

    def split(self, lines: list[Line]) -> bool | None:
        """Whether the loss is the sum over its datums, or over its pairs; says which."""
        double = self.double()
        whole = self.value(double)
        for unit, name in ((1, "datums"), (2, "pairs")):
            if len(self.data) % unit or len(self.data) < 2 * unit:
                continue
            starts = range(0, len(self.data), unit)
            try:
                parts = [self.value(double[s : s + unit], self.data[s : s + unit]) for s in starts]
            except Exception:
                continue  # a loss on pairs refuses single datums, as it should
            if _close(whole, math.fsum(parts)):
                lines.append(Line("batch split", "info", f"separable: the value is the sum over its {name}"))
                return unit == 1
            if _close(whole, math.fsum(parts) / len(parts)):
                text = f"coupled: the value is the mean over its {name}, so it does not grow with the batch"
                lines.append(Line("batch split", "info", text))
                return False
        lines.append(Line("batch split", "info", "coupled: the value needs the whole batch at once"))
        return False


def _loss_line(loss: Any) -> Line:
    """Raises :class:`_Stop` where there is nothing to differentiate."""
    if not isinstance(loss, torch.Tensor):
        raise _Stop("loss", f"a {type(loss).__name__}", "return the tensor itself, without float() or .item()")
    if loss.dim() != 0:
        raise _Stop("loss", f"has shape {tuple(loss.shape)}", "reduce it to a scalar with .sum() or .mean()")
    if not loss.is_floating_point():
        raise _Stop("loss", f"is of type {loss.dtype}", "compute it in floating point")
    value = float(loss.detach())
    if not math.isfinite(value):
        raise _Stop("loss", f"is {value:g}", "look for log(0), exp of something large, or a division by 0")
    if not loss.requires_grad:
        raise _Stop(
            "loss", "has no gradient", "compute it from logprobs_list without detach(), .item(), .data or no_grad"
        )
    return Line("loss", "ok", f"a finite scalar, {value:.4g}")


def _metrics_line(metrics: Any) -> Line:
    if not isinstance(metrics, dict):
        raise _Stop("metrics", f"a {type(metrics).__name__}", "return a dict of names to floats, {} for none")
    for name, value in metrics.items():
        if not isinstance(name, str):
            raise _Stop("metrics", f"the name {name!r} is a {type(name).__name__}", "use text as names")
        if isinstance(value, bool) or not isinstance(value, int | float | np.number):
            fix = "write float(x), or float(x.detach()) for a tensor"
            try:
                float(value)
            except (TypeError, ValueError):
                raise _Stop("metrics", f"{name!r} is a {type(value).__name__}", fix) from None
            return Line("metrics", "warn", f"{name!r} is a {type(value).__name__}", fix)
    return Line("metrics", "ok", ", ".join(metrics) or "none")


def _raised(fn: Callable[..., Any], error: BaseException, when: str = "") -> _Stop:
    code = getattr(fn, "__code__", None) or getattr(getattr(fn, "func", None), "__code__", None)
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if code is not None and f.filename == code.co_filename]
    place = f"line {own[-1].lineno}: {own[-1].line}" if own else ""
    message = f"{when}{type(error).__name__}: {error}".strip()
    return _Stop("returns", message, f"look at {place}" if place else "the error is not in the function itself")


def _largest(gradient: Sequence[torch.Tensor]) -> list[tuple[int, int]]:
    """(datum, position) of the largest gradients, one a datum first."""
    best = sorted(
        ((float(g.abs().max()), i, int(g.abs().argmax())) for i, g in enumerate(gradient) if len(g)), reverse=True
    )
    return [(i, p) for _, i, p in best[:POSITIONS]]


def _close(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-5 * max(1.0, abs(a), abs(b))


def _same(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a.detach(), b)


def _some(indices: Sequence[int]) -> str:
    shown = ", ".join(str(i) for i in indices[:3])
    return shown + (f" and {len(indices) - 3} more" if len(indices) > 3 else "")


def _count(n: int, one: str, many: str) -> str:
    return f"{n} {one if n == 1 else many}"
