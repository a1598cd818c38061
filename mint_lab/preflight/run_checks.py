r"""Checks of a loss function before it may train: pure torch, without a model.

The checks run in this order. Each gives one line, and a line that is not "ok" says what to change. Some lines are only
there if there is something to say.

==================  ================================================================================================
fields              the data have what the loss reads
returns             a tuple (loss, metrics); if the function raises, its source line and the datum
inputs              log-probabilities and data are read, not written to, and ``backward`` is left to the trainer
loss                a scalar, finite, float32, on the device of its inputs, with a gradient
metrics             a dict of names to finite floats
gradient            finite, and reaches every datum
output              how much a call prints
repeatable          the same value when called again (otherwise a warning: random, or stateful)
memory              no tensor of a call stays alive after it (a warning)
weights             positions of weight 0 do not matter, neither their values nor their number (a warning)
numerical gradient  central differences in double precision agree with autograd; kinks are recognized as such
batch split         the value is the sum over its datums or pairs, their mean, or coupled; none of these is wrong
pairs               for a loss on pairs: chosen and rejected are used in this order, in turn (a warning)
large margins       for a loss on pairs: finite if one side is far behind, as in long completions (a warning)
labels              for labelled data: balance, and whether length or prompt tells the label (a warning)
time                a call returns
==================  ================================================================================================

The checks "returns" to "gradient" are those of :mod:`mint_lab.usercode.result`, which a client and a run make in every
step.
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
from ..losses.spec import LABEL, REFERENCE, DataKind, LossSpec, Reduction, Unit
from ..usercode.locate import own_line
from ..usercode.nonfinite import explain_nonfinite
from ..usercode.result import NonfiniteLoss, ResultError, evaluate_loss, first_few, metric_number
from .checks import check_memory, check_numerical_gradient, check_repeatable, check_weights, find_reduction
from .label_checks import check_labelled_data
from .pair_checks import check_large_margins, check_pair_order
from .probe import MAX_LINES, WARN_LINES, CheckFailed, LossProbe, OutOfTime, leaves_of, random_state, set_random_state
from .report import Report, ReportLine

if TYPE_CHECKING:
    from ..types import Datum

__all__ = ["LIMIT_SECONDS", "Report", "ReportLine", "check", "preflight", "random_logprobs"]

LIMIT_SECONDS = 5.0

# How to fill a field that a loss reads and the data do not have.
_FIELD_SOURCES = {
    REFERENCE: "ml.data.with_reference(data, client) adds them; a run adds them by itself",
    "logprobs": "add the log-probabilities that the sampler gave: to_datum(tokens, prompt_length, logprobs=...)",
    "teacher_logprobs": "add the teacher's, for example from compute_logprobs of its sampling client: "
    "to_datum(tokens, prompt_length, teacher_logprobs=...)",
    "advantages": "add one for each token: to_datum(tokens, prompt_length, advantages=...)",
    "weights": "to_datum(tokens, prompt_length) adds them: 0 on the prompt, 1 on the completion",
    LABEL: "ml.data.unpaired_to_data(rows, tokenizer) adds it: 1 desirable, 0 undesirable",
}


def preflight(
    fn: str | LossSpec | Callable[..., Any],
    data: Sequence[Datum],
    logprobs_list: Sequence[torch.Tensor] | None = None,
    *,
    seed: int = 0,
    client: Any = None,
    limit: float = LIMIT_SECONDS,
) -> Report:
    """Check a loss function on ``data``.

    Args:
        fn: ``(data, logprobs_list) -> (loss, metrics)``; or a name of ``LOSSES`` or a ``LossSpec``, with its defaults.
        data: A few datums, ordered as the loss expects; they are not changed.
        logprobs_list: Their log-probabilities, ``(N_i,)`` each; by default the client's, or else random ones.
        seed: Seed of the random ones.
        client: A training client, or a run that has one. Its model gives the log-probabilities, and its time is shown
            beside the function's. It is not changed.
        limit: Seconds after which a call is cancelled, and after which no further check begins.

    Raises:
        ConfigError: If there are no data, an item is not a datum, the log-probabilities do not fit the data, the loss
            is unknown, or the limit is not a time.
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
    spec = getattr(fn, "spec", None)  # of a bound loss
    missing = _missing_fields(spec, data) if isinstance(spec, LossSpec) and data else None
    if missing is not None:
        return Report((missing,))
    model_seconds = None
    client = getattr(client, "client", client)  # of a run
    if client is not None and data:
        from_model, model_seconds = _from_model(client, data, limit)
        logprobs_list = from_model if logprobs_list is None else logprobs_list
    if logprobs_list is None:
        logprobs_list = random_logprobs(data, seed)
    return check(fn, data, logprobs_list, limit=limit, model_seconds=model_seconds)


def random_logprobs(data: Sequence[Datum], seed: int = 0) -> list[torch.Tensor]:
    """Return log-probabilities like a model's: minus a gamma variable of mean 1.5 nats, ``(N_i,)`` each, float32."""
    rng = np.random.default_rng(seed)
    return [torch.from_numpy(-rng.gamma(1.5, 1.0, d.model_input.length).astype(np.float32)) for d in data]


def check(
    fn: Callable[..., Any],
    data: Sequence[Datum],
    logprobs_list: Sequence[torch.Tensor],
    *,
    limit: float = LIMIT_SECONDS,
    model_seconds: float | None = None,
) -> Report:
    """Make every check on given log-probabilities. Raises as :func:`preflight`."""
    _check_shapes(data, logprobs_list)
    lines: list[ReportLine] = []
    probe = LossProbe(fn, data, logprobs_list, limit)
    state = random_state()
    reduction: Reduction | None = None
    unit: Unit = ""
    try:
        _check_result(probe, lines)
        _check_output(probe, lines)
        if check_repeatable(probe, lines):
            check_memory(probe, lines)
            check_weights(probe, lines)
            check_numerical_gradient(probe, lines)
            reduction, candidate = find_reduction(probe, lines)
            unit = candidate if reduction != "coupled" else ""
            if check_pair_order(probe, reduction, candidate, lines):
                unit = "pair"
                check_large_margins(probe, lines)
            spec = getattr(fn, "spec", None)  # of a bound loss
            lines += check_labelled_data(probe.data, spec if isinstance(spec, LossSpec) else None)
    except CheckFailed as failure:
        lines.append(failure.line)
    except OutOfTime:
        fix = "give it less data, or more time with preflight(..., limit=seconds)"
        text = f"the limit of {limit:g} s is over; the remaining checks were skipped"
        lines.append(ReportLine("time", "warn", text, fix))
    except Exception as error:
        # The function returned at first, but raises for other values or for a part of the batch.
        lines.append(probe.raised(error, "when called again: ").line)
    finally:
        set_random_state(state)
    printed = probe.printed.kept if probe.printed is not None else ""
    return Report(tuple(lines), reduction, unit, printed, median(probe.seconds), model_seconds)


def _check_shapes(data: Sequence[Datum], logprobs_list: Sequence[torch.Tensor]) -> None:
    if not data:
        raise ConfigError("preflight needs data: at least one datum, or one pair for a loss on pairs")
    lengths = [datum.model_input.length for datum in data]
    shapes = [tuple(lp.shape) for lp in logprobs_list]
    if shapes != [(n,) for n in lengths]:
        raise ConfigError(f"log-probabilities of shapes {shapes}, expected {[(n,) for n in lengths]} as the data")


def _missing_fields(spec: LossSpec, data: Sequence[Datum]) -> ReportLine | None:
    """Return the line about fields that the loss reads and not all datums have; None if there are none."""
    common = frozenset.intersection(*(frozenset(datum.loss_fn_inputs) for datum in data))
    reason = spec.unfit(DataKind(common))
    if reason is None:
        return None
    missing = [name for name in spec.inputs if name not in common]
    lacking = [index for index, datum in enumerate(data) if not set(missing) <= set(datum.loss_fn_inputs)]
    if len(lacking) < len(data):
        reason += f" at datum {first_few(lacking)} of {len(data)}"
    default = "add to every datum what the loss reads: to_datum(tokens, prompt_length, NAME=...)"
    fix = "; ".join(f"{name}: {_FIELD_SOURCES.get(name, default)}" for name in missing)
    return ReportLine("fields", "fail", f"{spec.name} {reason}", fix)


def _from_model(client: Any, data: Sequence[Datum], limit: float) -> tuple[list[torch.Tensor] | None, float | None]:
    """Return the model's log-probabilities and its seconds; None for both if it is busy for longer than ``limit``."""
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


def _check_result(probe: LossProbe, lines: list[ReportLine]) -> None:
    """Call the function once and check what it returned and did, as a client and a run do."""

    def on_pass(check: str, value: Any) -> None:
        if check == "returns":
            lines.append(ReportLine("returns", "ok", "a loss and metrics"))
        elif check == "loss":
            lines.append(_loss_line(value))
        elif check == "metrics":
            lines.append(_metrics_line(value))
        elif check == "gradient":
            lines.append(_gradient_line(value))

    try:
        with torch.enable_grad():
            evaluate_loss(probe.run, probe.data, leaves_of(probe.logprobs), on_pass=on_pass)
    except (CheckFailed, OutOfTime):
        raise
    except NonfiniteLoss as fault:
        raise _nonfinite_failure(probe, fault) from None
    except ResultError as fault:
        raise CheckFailed(fault.check, fault.found, fault.fix) from None
    except Exception as error:
        raise probe.raised(error) from error


def _nonfinite_failure(probe: LossProbe, fault: NonfiniteLoss) -> CheckFailed:
    explained, operation = explain_nonfinite(fault, probe.fn, probe.data, probe.logprobs)
    frame = None if operation is None else own_line(probe.fn, operation)
    fix = explained.fix
    if frame is not None:
        fix = f"{operation}, at line {frame.lineno}: {frame.line}; {fault.fix}"
    return CheckFailed(explained.check, explained.found, fix)


def _check_output(probe: LossProbe, lines: list[ReportLine]) -> None:
    count = probe.printed.lines if probe.printed is not None else 0
    text = f"{count:,} {'line' if count == 1 else 'lines'} printed in one call"
    if count > MAX_LINES:
        raise CheckFailed("output", text, "print less: that takes longer than the model")
    if count > WARN_LINES:
        fix = "print less; a run shows the first lines of each call and drops the rest"
        lines.append(ReportLine("output", "warn", text, fix))
    elif count:
        lines.append(ReportLine("output", "info", text))


def _loss_line(loss: torch.Tensor) -> ReportLine:
    value = float(loss.detach())
    if loss.dtype != torch.float32:
        fix = "logprobs_list are float32; look for .double(), .half(), or a numpy number in the sum"
        return ReportLine("loss", "warn", f"is {loss.dtype}, {value:.4g}", fix)
    return ReportLine("loss", "ok", f"a finite scalar, {value:.4g}")


def _metrics_line(metrics: dict[str, Any]) -> ReportLine:
    """Return the line about metrics that passed the check: the last one that is not finite, or the first odd type."""
    warning: ReportLine | None = None
    for name, value in metrics.items():
        if not isinstance(value, float):
            fix = "write float(x), or float(x.detach()) for a tensor"
            warning = warning or ReportLine("metrics", "warn", f"{name!r} is a {type(value).__name__}", fix)
        number = metric_number(value)
        if not math.isfinite(number):
            fix = "charts leave it out; look for a mean of nothing or a division by 0"
            warning = ReportLine("metrics", "warn", f"{name!r} is {number:g}", fix)
    return warning or ReportLine("metrics", "ok", ", ".join(metrics) or "none")


def _gradient_line(gradient: Sequence[torch.Tensor]) -> ReportLine:
    zero = [index for index, piece in enumerate(gradient) if len(piece) and not bool(piece.any())]
    if zero:
        fix = "is that meant? Clamps, relu and rounding give no gradient where they are flat"
        return ReportLine("gradient", "warn", f"exactly 0 at datum {first_few(zero)} of {len(gradient)}", fix)
    return ReportLine("gradient", "ok", f"finite, reaches every datum ({len(gradient)})")
