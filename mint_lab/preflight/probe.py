"""The loss under preflight: called on copies of the data, with a time limit, and with its output captured."""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import DataError
from ..usercode.guarded_call import LossCancelled, call_guarded
from ..usercode.locate import failing_datum, logprob_range, own_line
from ..usercode.output import Printed
from .report import ReportLine

if TYPE_CHECKING:
    from ..types import Datum

__all__ = ["MAX_LINES", "WARN_LINES", "CheckFailed", "LossProbe", "OutOfTime", "random_state", "set_random_state"]

# Lines printed in one call: more are a warning; more fail, because printing them takes longer than the model.
WARN_LINES, MAX_LINES = 50, 10_000


class CheckFailed(Exception):
    """A check failed, and the remaining checks make no sense.

    Attributes:
        line: The line of the report.
    """

    def __init__(self, name: str, message: str, fix: str) -> None:
        super().__init__(message)
        self.line = ReportLine(name, "fail", message, fix)


class OutOfTime(Exception):
    """The function returns, but the time limit is over before the remaining checks."""


class LossProbe:
    """A loss and the data to call it on.

    Args:
        fn: ``(data, logprobs_list) -> (loss, metrics)``.
        data: The datums. The function gets copies of them.
        logprobs: Their log-probabilities, ``(N_i,)`` each.
        limit: Seconds for one call, and for all calls together.

    Attributes:
        data: Copies of the datums.
        logprobs: The log-probabilities, float32, on the CPU, without a graph.
        printed: What the first call printed; None before it.
        seconds: Seconds of each call.
        fixed_random_state: State of the random generators at the start of each call; None leaves the generators alone.
    """

    def __init__(
        self, fn: Callable[..., Any], data: Sequence[Datum], logprobs: Sequence[torch.Tensor], limit: float
    ) -> None:
        self.fn = fn
        self.data = copy.deepcopy(list(data))
        self.logprobs = [lp.detach().float().cpu() for lp in logprobs]
        self.limit = limit
        self.printed: Printed | None = None
        self.seconds: list[float] = []
        self.fixed_random_state: Any = None
        self._began = time.perf_counter()

    def run(self, data: Sequence[Datum], leaves: Sequence[torch.Tensor]) -> Any:
        """Return what the function returns for ``leaves``, ``(N_i,)`` each; they require grad.

        Raises:
            CheckFailed: If the function did not return in time.
            OutOfTime: If there is no time left for a call.
        """
        began = time.perf_counter()
        if began - self._began > self.limit:
            raise OutOfTime
        if self.fixed_random_state is not None:
            set_random_state(self.fixed_random_state)
        printed = Printed(WARN_LINES, echo=False)
        args = list(data), list(leaves)
        try:
            with torch.enable_grad():
                return call_guarded(self.fn, args, should_cancel=lambda s: s > self.limit, printed=printed)
        except LossCancelled as error:
            raise self._not_returned(error) from None
        finally:
            self.printed = self.printed or printed
            self.seconds.append(time.perf_counter() - began)

    def call(self, values: Sequence[torch.Tensor], data: list[Datum] | None = None) -> tuple[Any, list[torch.Tensor]]:
        """Return what the function returns at ``values``, ``(N_i,)`` each, and the leaf tensors it got.

        Raises as :meth:`run`.
        """
        leaves = leaves_of(values)
        return self.run(self.data if data is None else data, leaves), leaves

    def value(self, values: Sequence[torch.Tensor], data: list[Datum] | None = None) -> float:
        """Return the loss as a number, in the precision of ``values``."""
        result, _ = self.call(values, data)
        return float(result[0].detach())

    def gradient(
        self, values: Sequence[torch.Tensor], data: list[Datum] | None = None
    ) -> tuple[float, list[torch.Tensor]]:
        """Return the loss as a number and its gradient by autograd, ``(N_i,)`` each; zeros where there is none."""
        result, leaves = self.call(values, data)
        gradient = torch.autograd.grad(result[0], leaves, allow_unused=True)
        return float(result[0].detach()), [
            torch.zeros_like(lp) if g is None else g for g, lp in zip(gradient, leaves, strict=True)
        ]

    def double(self) -> list[torch.Tensor]:
        """Return the log-probabilities in double precision, or in single precision if the function needs that.

        ``datum.loss_fn_inputs[...].to_torch()`` is float32, and torch.dot of it with a double raises. That is natural
        to write, and not a mistake.
        """
        double = [lp.double() for lp in self.logprobs]
        try:
            self.call(double)
        except (CheckFailed, OutOfTime):
            raise
        except Exception:
            return self.logprobs
        return double

    def raised(self, error: BaseException, when: str = "") -> CheckFailed:
        """Describe an error that the function raised; ``when`` comes first in the message."""
        cause = error.__cause__
        if cause is not None and not isinstance(cause, Exception):  # call_guarded wraps SystemExit and the like
            return CheckFailed("returns", f"{when}raised {type(cause).__name__}", self._advice(cause))
        message = f"{when}{type(error).__name__}: {error}".strip().removesuffix(":")
        if len(self.data) % 2 and self._works_on(self.data[:-1], self.logprobs[:-1]):
            fix = "give both sides of each pair"
            return CheckFailed("pairs", f"{len(self.data)} datums, an odd number: {message}", fix)
        index = error.index if isinstance(error, DataError) else None
        if index is None:
            index = failing_datum(self.fn, error, self.data, self.logprobs)
            message += "" if index is None else f" (at datum {index}, {logprob_range(self.logprobs[index])})"
        fields = sorted({name for datum in self.data for name in datum.loss_fn_inputs})
        if isinstance(error, KeyError) and error.args and error.args[0] not in fields:
            return CheckFailed("fields", message, f"{self._advice(error)}; the datums have {', '.join(fields)}")
        return CheckFailed("returns", message, self._advice(error))

    def _advice(self, error: BaseException) -> str:
        frame = own_line(self.fn, error)
        if isinstance(error, TypeError) and "positional argument" in str(error) and frame is None:
            return "define it as (data, logprobs_list), with further parameters after these that have defaults"
        return f"look at line {frame.lineno}: {frame.line}" if frame else "the error is not in the function itself"

    def _works_on(self, data: list[Datum], logprobs: list[torch.Tensor]) -> bool:
        try:
            self.call(logprobs, data)
        except Exception:
            return False
        return bool(data)

    def _not_returned(self, error: LossCancelled) -> CheckFailed:
        frame = own_line(self.fn, error.__cause__) if error.__cause__ else None
        place = f" (it was at line {frame.lineno}: {frame.line})" if frame else ""
        fix = "look for a loop that does not end, or give a slow loss time with preflight(..., limit=seconds)"
        if error.abandoned:
            fix = f"{error}"
        return CheckFailed("time", f"did not return within {self.limit:g} s{place}", fix)


def leaves_of(values: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return copies of ``values`` as leaf tensors that require grad."""
    return [v.detach().clone().requires_grad_(True) for v in values]


def random_state() -> Any:
    """Return the state of torch's, numpy's and Python's generators."""
    return torch.random.get_rng_state(), np.random.get_state(), random.getstate()


def set_random_state(state: Any) -> None:
    """Set the state that :func:`random_state` returned."""
    torch.random.set_rng_state(state[0])
    np.random.set_state(state[1])
    random.setstate(state[2])
