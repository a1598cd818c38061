r"""Checks a loss function before it may train: pure torch, no model.

What is asked, in this order; each answer is one line, and a line that is not "ok" says what to change. Some lines are
only there when there is something to say.

==================  ================================================================================================
returns             a tuple (loss, metrics); where it raises, the line of the function's own source and the datum
fields              what it reads is in the data
loss                a scalar, finite, float32, on the device of its inputs, with a gradient
metrics             a dict of names to finite floats
inputs              log-probabilities and data are read, not written to, and ``backward`` is left to the trainer
gradient            finite, and it reaches every datum
output              how much a call prints
repeatable          the same value when called again (a warning otherwise: random, or stateful)
memory              no tensor of a call is kept alive after it (a warning)
weights             what stands at a position of weight 0 does not matter, nor how many there are (a warning)
numerical gradient  central differences in double precision agree with autograd; kinks are known as such
batch split         the value is the sum over its items, their mean, or coupled; none is wrong
pairs               for a loss on pairs: chosen and rejected are taken in this order, in turn (a warning)
large margins       for a loss on pairs: finite where one side is far behind, as in long completions (a warning)
time                a call returns
==================  ================================================================================================
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import ConfigError
from ..losses import LOSSES
from ..losses.spec import LossSpec, Reduction, Unit
from ..usercode.locate import own_line
from ..usercode.nonfinite import first_operation, first_part
from .checks import memory, numerical, repeatable, split, weights
from .pair_checks import margins, order
from .probe import FLOOD, TORRENT, Finding, OutOfTime, Subject, random_state, set_random_state, some
from .report import Line, Report

if TYPE_CHECKING:
    from ..types import Datum

__all__ = ["LIMIT", "Line", "Report", "check", "preflight", "random_logprobs"]

LIMIT = 5.0  # seconds


def preflight(
    fn: str | LossSpec | Callable[..., Any],
    data: Sequence[Datum],
    logprobs_list: Sequence[torch.Tensor] | None = None,
    *,
    seed: int = 0,
    client: Any = None,
    limit: float = LIMIT,
) -> Report:
    """Check a loss function on ``data``.

    Args:
        fn: ``(data, logprobs_list) -> (loss, metrics)``; or a name of ``LOSSES`` or a ``LossSpec``, with its defaults.
        data: a few datums, ordered as the loss expects; they are not changed.
        logprobs_list: their log-probabilities, ``(N_i,)`` each; without them the client's, or else plausible ones.
        seed: of those.
        client: a training client, or a run that has one: its model gives the log-probabilities and its time is shown
            beside the function's. Nothing of it is changed.
        limit: seconds after which a call is broken off, and after which no further check is begun.

    Raises:
        ConfigError: no data or something else than datums, log-probabilities that do not fit them, no such loss, or a
            limit that is no time.
    """
    if isinstance(fn, str):
        fn = LOSSES[fn]
    if isinstance(fn, LossSpec):
        fn = fn.bind()
    if not callable(fn):
        raise ConfigError(f"the loss is {fn!r}, expected a name, a LossSpec or a function (data, logprobs_list)")
    for index, datum in enumerate(data):
        if not hasattr(datum, "model_input"):
            raise ConfigError(
                f"data[{index}] is a {type(datum).__name__}, expected a Datum; "
                "pairs_to_data(pairs, client.get_tokenizer()) makes them of pairs"
            )
    if not limit > 0:
        raise ConfigError(f"limit is {limit!r}, expected seconds above 0")
    model_seconds = None
    client = getattr(client, "client", client)  # a run's
    if client is not None and data:
        found, model_seconds = _from_model(client, data, limit)
        logprobs_list = found if logprobs_list is None else logprobs_list
    if logprobs_list is None:
        logprobs_list = random_logprobs(data, seed)
    return check(fn, data, logprobs_list, limit=limit, model_seconds=model_seconds)


def random_logprobs(data: Sequence[Datum], seed: int = 0) -> list[torch.Tensor]:
    """Log-probabilities as a model might give them: minus a gamma of mean 1.5 nats, ``(N_i,)`` each, float32."""
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(-rng.gamma(1.5, 1.0, d.model_input.length).astype(np.float32)) for d in data]


def check(
    fn: Callable[..., Any],
    data: Sequence[Datum],
    logprobs_list: Sequence[torch.Tensor],
    *,
    limit: float = LIMIT,
    model_seconds: float | None = None,
) -> Report:
    """Every check of this module on given log-probabilities. Raises as :func:`preflight`."""
    _check_given(data, logprobs_list)
    lines: list[Line] = []
    subject = Subject(fn, data, logprobs_list, limit)
    state = random_state()
    reduction: Reduction | None = None
    unit: Unit = ""
    try:
        _first_call(subject, lines)
        if repeatable(subject, lines):
            memory(subject, lines)
            weights(subject, lines)
            numerical(subject, lines)
            reduction, size = split(subject, lines)
            unit = "" if reduction == "coupled" else "pair" if size == 2 else "datum"
            if order(subject, reduction, size, lines):
                unit = "pair"
                margins(subject, lines)
    except Finding as finding:
        lines.append(finding.line)
    except OutOfTime:
        fix = "give it less data, or more time with preflight(..., limit=seconds)"
        lines.append(Line("time", "warn", f"more than {limit:g} s are over, so the rest was not asked", fix))
    except Exception as error:
        # It returned at first: on these other values, or parts of the batch, it does not.
        lines.append(subject.raised(error, "when called again: ").line)
    finally:
        set_random_state(state)
    printed = subject.first.kept if subject.first is not None else ""
    return Report(tuple(lines), reduction, unit, printed, median(subject.times), model_seconds)


def _check_given(data: Sequence[Datum], logprobs_list: Sequence[torch.Tensor]) -> None:
    if not data:
        raise ConfigError("preflight needs data: at least one datum, or one pair for a loss on pairs")
    lengths = [datum.model_input.length for datum in data]
    found = [tuple(lp.shape) for lp in logprobs_list]
    if found != [(n,) for n in lengths]:
        raise ConfigError(f"log-probabilities of shapes {found}, expected {[(n,) for n in lengths]} as the data")


def _from_model(client: Any, data: Sequence[Datum], limit: float) -> tuple[list[torch.Tensor] | None, float | None]:
    """Log-probabilities and the seconds that they took; neither where the model is busy for longer than ``limit``."""
    plain = [
        type(d)(
            model_input=d.model_input, loss_fn_inputs={k: d.loss_fn_inputs[k] for k in ("target_tokens", "weights")}
        )
        if {"target_tokens", "weights"} <= set(d.loss_fn_inputs)
        else d
        for d in data
    ]
    began = time.perf_counter()
    try:
        output = client.forward(plain, "cross_entropy").result(limit)
    except TimeoutError:
        return None, None
    seconds = output.metrics.get("time:sum") or time.perf_counter() - began
    return [piece["logprobs"].to_torch() for piece in output.loss_fn_outputs], seconds


def _first_call(subject: Subject, lines: list[Line]) -> None:
    try:
        result, leaves = subject.call(subject.logprobs)
    except (Finding, OutOfTime):
        raise
    except Exception as error:
        raise subject.raised(error) from error
    if not isinstance(result, tuple) or len(result) != 2:
        found = f"a tuple of {len(result)}" if isinstance(result, tuple) else f"a {type(result).__name__}"
        raise Finding("returns", f"the function returned {found}", "return loss, metrics")
    loss, metrics = result
    lines.append(Line("returns", "ok", "a loss and metrics"))
    lines.append(_loss_line(subject, loss))
    lines.append(_metrics_line(metrics))
    _inputs(subject, leaves)
    _gradient(loss, leaves, lines)
    printed = subject.first.lines if subject.first is not None else 0
    if printed > TORRENT:
        raise Finding(
            "output", f"{printed:,} lines printed in one call", "print less: that takes longer than the model"
        )
    if printed > FLOOD:
        fix = "print less; a run shows the first lines of each call and drops the rest"
        lines.append(Line("output", "warn", f"{printed:,} lines printed in one call", fix))
    elif printed:
        lines.append(Line("output", "info", f"{printed} {'line' if printed == 1 else 'lines'} printed in one call"))


def _loss_line(subject: Subject, loss: Any) -> Line:
    if not isinstance(loss, torch.Tensor):
        raise Finding("loss", f"a {type(loss).__name__}", "return the tensor itself, without float() or .item()")
    if loss.dim() != 0:
        raise Finding("loss", f"has shape {tuple(loss.shape)}", "reduce it to a scalar with .sum() or .mean()")
    if not loss.is_floating_point():
        raise Finding("loss", f"is of type {loss.dtype}", "compute it from logprobs_list, which are floating point")
    device = subject.logprobs[0].device
    if loss.device != device:
        fix = "make new tensors with device=logprobs_list[0].device"
        raise Finding("loss", f"is on {loss.device}, logprobs_list on {device}", fix)
    value = float(loss.detach())
    if not math.isfinite(value):
        part = first_part(subject.fn, subject.data, subject.logprobs, value)
        cause = first_operation(subject.fn, subject.data, subject.logprobs)
        frame = None if cause is None else own_line(subject.fn, cause)
        fix = "look for log(0), exp of something large, or a division by 0"
        if frame is not None:
            fix = f"{cause}, at line {frame.lineno}: {frame.line}; {fix}"
        raise Finding("loss", f"is {value:g}" + ("" if part is None else f": {part}"), fix)
    if not loss.requires_grad:
        raise Finding(
            "loss", "has no gradient", "compute it from logprobs_list without detach(), .item(), .data or no_grad"
        )
    if loss.dtype != torch.float32:
        fix = "logprobs_list are float32; look for .double(), .half(), or a numpy number in the sum"
        return Line("loss", "warn", f"is {loss.dtype}, {value:.4g}", fix)
    return Line("loss", "ok", f"a finite scalar, {value:.4g}")


def _metrics_line(metrics: Any) -> Line:
    if not isinstance(metrics, dict):
        raise Finding("metrics", f"a {type(metrics).__name__}", "return a dict of names to floats, {} for none")
    odd: Line | None = None
    for name, value in metrics.items():
        if not isinstance(name, str):
            raise Finding("metrics", f"the name {name!r} is a {type(name).__name__}", "use text as names")
        if not isinstance(value, float):
            fix = "write float(x), or float(x.detach()) for a tensor"
            try:
                value = float(value.detach() if isinstance(value, torch.Tensor) else value)  # noqa: PLW2901
            except (TypeError, ValueError, RuntimeError):
                raise Finding("metrics", f"{name!r} is a {type(metrics[name]).__name__}", fix) from None
            odd = odd or Line("metrics", "warn", f"{name!r} is a {type(metrics[name]).__name__}", fix)
        if not math.isfinite(value):
            fix = "charts leave it out; look for a mean of nothing or a division by 0"
            odd = Line("metrics", "warn", f"{name!r} is {value:g}", fix)
    return odd or Line("metrics", "ok", ", ".join(metrics) or "none")


def _inputs(subject: Subject, leaves: list[torch.Tensor]) -> None:
    if any(leaf.grad is not None for leaf in leaves):
        raise Finding(
            "inputs", "the function called backward() itself", "return the loss; the trainer differentiates it"
        )
    for index, (leaf, before) in enumerate(zip(leaves, subject.logprobs, strict=True)):
        if not torch.equal(leaf.detach(), before):
            fix = "work on a copy: logprobs_list[i].clone()"
            raise Finding("inputs", f"logprobs_list[{index}] was changed in place", fix)
    for index, (datum, before) in enumerate(zip(subject.data, subject.given, strict=True)):
        now, then = datum.loss_fn_inputs, before.loss_fn_inputs
        changed = sorted(set(now) ^ set(then)) or [k for k in then if not _same(now[k], then[k])]
        if changed:
            fix = "work on a copy: .to_torch() shares the datum's memory, .to_torch().clone() does not"
            raise Finding("inputs", f'data[{index}].loss_fn_inputs["{changed[0]}"] was changed', fix)


def _same(a: Any, b: Any) -> bool:
    a, b = a.to_numpy(), b.to_numpy()
    return a.shape == b.shape and np.array_equal(a, b, equal_nan=True)


def _gradient(loss: torch.Tensor, leaves: list[torch.Tensor], lines: list[Line]) -> None:
    try:
        found = torch.autograd.grad(loss, leaves, allow_unused=True)
    except RuntimeError as error:
        raise Finding("gradient", f"autograd says: {str(error).splitlines()[0]}", "look for edits in place") from None
    missing = [i for i, g in enumerate(found) if g is None]
    if missing:
        raise Finding(
            "gradient",
            f"none reaches datum {some(missing)} of {len(found)}",
            "use every logprobs_list[i] in the loss; look for an index that skips some, for .item() and detach()",
        )
    bad = [i for i, g in enumerate(found) if g is not None and not bool(torch.isfinite(g).all())]
    if bad:
        raise Finding(
            "gradient",
            f"nan or inf at datum {some(bad)}",
            "look for log(0), sqrt(0), 0/0 or exp of something large; torch.where does not stop a nan gradient",
        )
    silent = [i for i, g in enumerate(found) if g is not None and not bool(g.any())]
    if silent:
        fix = "is that meant? Clamps, relu and rounding give no gradient where they are flat"
        lines.append(Line("gradient", "warn", f"exactly 0 at datum {some(silent)} of {len(found)}", fix))
    else:
        lines.append(Line("gradient", "ok", f"finite, reaches every datum ({len(found)})"))
