"""A loss function under examination: how it is called, so that an examination cannot do harm.

It gets copies, is broken off when it does not return, and what it prints is caught.
"""

from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..errors import DataError
from ..usercode.guarded_call import LossInterrupted, call_guarded
from ..usercode.locate import datum_in_hand, own_line, span
from ..usercode.output import Printed
from .report import Line

if TYPE_CHECKING:
    from ..types import Datum

__all__ = ["FLOOD", "TORRENT", "Finding", "OutOfTime", "Subject", "some"]

FLOOD, TORRENT = 50, 10_000  # lines printed in one call that are too many, and that cost more than the model


class Finding(Exception):
    """A check failed in a way that leaves nothing to ask."""

    def __init__(self, name: str, message: str, fix: str) -> None:
        super().__init__(message)
        self.line = Line(name, "fail", message, fix)


class OutOfTime(Exception):
    """The function returns, but takes so long that the rest cannot be asked."""


class Subject:
    """A function and the data to call it on.

    Args:
        fn: ``(data, logprobs_list) -> (loss, metrics)``.
        data: never handed out; the function gets copies.
        logprobs: ``(N_i,)`` each.
        limit: seconds for one call, and for all of them.

    Attributes:
        data: the copies.
        first: what the first call printed.
        times: seconds of each call.
        frozen: state of the random generators that every call begins with; None: they go on.
    """

    def __init__(
        self, fn: Callable[..., Any], data: Sequence[Datum], logprobs: Sequence[torch.Tensor], limit: float
    ) -> None:
        self.fn = fn
        self.given = list(data)
        self.data = copy.deepcopy(self.given)
        self.logprobs = [lp.detach().float().cpu() for lp in logprobs]
        self.limit = limit
        self.first: Printed | None = None
        self.times: list[float] = []
        self.frozen: Any = None
        self._began = time.perf_counter()

    def call(self, values: Sequence[torch.Tensor], data: list[Datum] | None = None) -> tuple[Any, list[torch.Tensor]]:
        """What the function returns on fresh leaves, and the leaves.

        Raises:
            Finding: it did not return in time.
            OutOfTime: there is no time left to call it.
        """
        began = time.perf_counter()
        if began - self._began > self.limit:
            raise OutOfTime
        leaves = [v.clone().requires_grad_(True) for v in values]
        if self.frozen is not None:
            set_random_state(self.frozen)
        printed = Printed(FLOOD, echo=False)
        args = list(self.data if data is None else data), list(leaves)
        try:
            with torch.enable_grad():
                result = call_guarded(self.fn, args, give_up=lambda s: s > self.limit, printed=printed)
        except LossInterrupted as error:
            raise self._endless(error) from None
        finally:
            self.first = self.first or printed
            self.times.append(time.perf_counter() - began)
        return result, leaves

    def value(self, values: Sequence[torch.Tensor], data: list[Datum] | None = None) -> float:
        """The loss as a number, in the precision of ``values``."""
        result, _ = self.call(values, data)
        return float(result[0].detach())

    def gradient(
        self, values: Sequence[torch.Tensor], data: list[Datum] | None = None
    ) -> tuple[float, list[torch.Tensor]]:
        """The loss as a number and its gradient by autograd; zeros where none arrives."""
        result, leaves = self.call(values, data)
        found = torch.autograd.grad(result[0], leaves, allow_unused=True)
        return float(result[0].detach()), [
            torch.zeros_like(lp) if g is None else g for g, lp in zip(found, leaves, strict=True)
        ]

    def double(self) -> list[torch.Tensor]:
        """The log-probabilities in double precision, or as they are where the function mixes them with its own float32.

        ``datum.loss_fn_inputs[...].to_torch()`` is float32, and torch.dot of it with a double raises: a natural thing
        to write, and no fault.
        """
        double = [lp.double() for lp in self.logprobs]
        try:
            self.call(double)
        except (Finding, OutOfTime):
            raise
        except Exception:
            return self.logprobs
        return double

    def raised(self, error: BaseException, when: str = "") -> Finding:
        """What to say of an error that the function raised."""
        cause = error.__cause__
        if cause is not None and not isinstance(cause, Exception):  # SystemExit and its kin come wrapped
            return Finding("returns", f"{when}raised {type(cause).__name__}", self._advice(cause))
        message = f"{when}{type(error).__name__}: {error}".strip().removesuffix(":")
        if len(self.data) % 2 and self._works_on(self.data[:-1], self.logprobs[:-1]):
            return Finding(
                "pairs", f"{len(self.data)} datums, an odd number: {message}", "give both sides of each pair"
            )
        index = error.index if isinstance(error, DataError) else None
        if index is None:
            index = datum_in_hand(self.fn, error, self.data, self.logprobs)
            message += "" if index is None else f" (at datum {index}, {span(self.logprobs[index])})"
        fields = sorted({name for datum in self.data for name in datum.loss_fn_inputs})
        if isinstance(error, KeyError) and error.args and error.args[0] not in fields:
            return Finding("fields", message, f"{self._advice(error)}; the datums have {', '.join(fields)}")
        return Finding("returns", message, self._advice(error))

    def _advice(self, error: BaseException) -> str:
        frame = own_line(self.fn, error)
        place = f"look at line {frame.lineno}: {frame.line}" if frame else "the error is not in the function itself"
        if isinstance(error, TypeError) and "positional argument" in str(error) and frame is None:
            return "define it as (data, logprobs_list), with further parameters after these that have defaults"
        return place

    def _works_on(self, data: list[Datum], logprobs: list[torch.Tensor]) -> bool:
        try:
            self.call(logprobs, data)
        except Exception:
            return False
        return bool(data)

    def _endless(self, error: LossInterrupted) -> Finding:
        frame = own_line(self.fn, error.__cause__) if error.__cause__ else None
        place = f" (it was at line {frame.lineno}: {frame.line})" if frame else ""
        fix = "look for a loop that does not end, or give a slow loss time with preflight(..., limit=seconds)"
        if error.stuck:
            fix = f"{error}"
        return Finding("time", f"did not return within {self.limit:g} s{place}", fix)


def random_state() -> Any:
    """State of torch's, numpy's and Python's generators."""
    return torch.random.get_rng_state(), np.random.get_state(), random.getstate()


def set_random_state(state: Any) -> None:
    """Set what :func:`random_state` gave."""
    torch.random.set_rng_state(state[0])
    np.random.set_state(state[1])
    random.setstate(state[2])


def some(indices: Sequence[int]) -> str:
    """The first few of them, and how many more there are."""
    shown = ", ".join(str(i) for i in indices[:3])
    return shown + (f" and {len(indices) - 3} more" if len(indices) > 3 else "")
