"""A custom loss as a run calls it: it can be broken off, cannot flood the page, and its failures name datum and values.

What the function returns reaches the trainer unchanged, whichever trainer that is.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from ..errors import LossError, MintLabError
from .guarded_call import LossInterrupted, call_guarded
from .locate import datum_in_hand, span
from .nonfinite import first_operation, first_part
from .output import Printed

if TYPE_CHECKING:
    from ..losses.spec import LossSpec
    from ..types import Datum

__all__ = ["WatchedLoss"]

LINES = 20  # that one call may print


class WatchedLoss:
    """``fn`` with settings, in the custom call form.

    Args:
        spec: the loss, for its name and version.
        fn: it, with its settings bound.
        asked: whether to break it off once it has run longer than its patience.
        patience: seconds; twice its longest call so far where that is more.

    Attributes:
        notes: what is worth saying of the calls since :meth:`take_notes`.
    """

    def __init__(
        self, spec: LossSpec, fn: Callable[..., Any], asked: Callable[[], bool] = lambda: False, patience: float = 2.0
    ) -> None:
        self.spec = spec
        self.fn = fn
        self.asked = asked
        self.patience = patience
        self._longest = 0.0
        self._notes: list[str] = []

    def __call__(self, data: list[Datum], logprobs_list: list[torch.Tensor]) -> Any:
        """The function's own result.

        Raises:
            LossError: it raised (the cause is what it raised), was broken off, wrote to ``logprobs_list``, called
                ``backward`` itself, or its value is not finite. Errors of this package and of memory pass through.
        """
        before = _flat(logprobs_list)
        result = self._call(data, logprobs_list)
        self._check_inputs(before, logprobs_list)
        loss = result[0] if isinstance(result, tuple) and result else None
        if isinstance(loss, torch.Tensor) and loss.dim() == 0 and loss.is_floating_point():
            self._check_value(loss, data, logprobs_list)
        return result

    def take_notes(self) -> list[str]:
        """What was worth saying since this was asked last."""
        notes, self._notes = self._notes, []
        return notes

    def _call(self, data: list[Datum], logprobs_list: list[torch.Tensor]) -> Any:
        began = time.perf_counter()
        printed = Printed(LINES, echo=True)
        # The lists are the function's to keep or change; what is in them is looked at afterwards.
        args = list(data), list(logprobs_list)
        try:
            result = call_guarded(self.fn, args, give_up=self._give_up, printed=printed)
        except LossInterrupted as error:
            raise self._interrupted(error, logprobs_list) from error.__cause__
        except (MintLabError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            index = datum_in_hand(self.fn, error, data, logprobs_list)
            text = f"{type(error).__name__}: {error}".rstrip(": ")
            if index is not None:
                text += f" (at datum {index}, {span(logprobs_list[index])})"
            raise LossError(text, index=index) from error
        finally:
            if printed.dropped:
                note = f"{self.spec.label} printed {printed.lines:,} lines in one call, of which {LINES} are shown"
                self._notes = [note]
        self._longest = max(self._longest, time.perf_counter() - began)
        return result

    def _give_up(self, seconds: float) -> bool:
        return self.asked() and seconds > max(self.patience, 2 * self._longest)

    def _interrupted(self, error: LossInterrupted, logprobs_list: list[torch.Tensor]) -> LossInterrupted:
        text = f"the loss had not returned after {error.seconds:.1f} s; {error}. "
        if any(lp.requires_grad for lp in logprobs_list):  # an evaluation comes after the update
            text += "No weight was changed. "
        text += "Look for a loop that does not end" if not error.stuck else "Look for a call that waits"
        return LossInterrupted(text, stuck=error.stuck, seconds=error.seconds)

    def _check_inputs(self, before: torch.Tensor, logprobs_list: list[torch.Tensor]) -> None:
        if any(lp.is_leaf and lp.grad is not None for lp in logprobs_list):
            raise LossError("the function called backward() itself; return the loss, the trainer differentiates it")
        after = _flat(logprobs_list)
        if torch.equal(before, after):
            return
        flat = int((before != after).nonzero()[0])
        index = 0
        while flat >= len(logprobs_list[index]):
            flat -= len(logprobs_list[index])
            index += 1
        raise LossError(
            f"logprobs_list[{index}] was changed in place; work on a copy: logprobs_list[i].clone()", index=index
        )

    def _check_value(self, loss: torch.Tensor, data: list[Datum], logprobs_list: list[torch.Tensor]) -> None:
        if loss.device != logprobs_list[0].device:
            raise LossError(
                f"the loss is on {loss.device}, logprobs_list on {logprobs_list[0].device}; "
                "make new tensors with device=logprobs_list[0].device"
            )
        value = float(loss.detach())
        if math.isfinite(value):
            return
        text = f"the loss is {value:g}, expected a finite number"
        part = first_part(self.fn, data, logprobs_list, value)
        if part is not None:
            text += f": {part}"
        else:
            text += f", with {span(torch.cat(list(logprobs_list)))}; no datum or pair alone leads there"
        cause = first_operation(self.fn, data, logprobs_list)
        text += "" if cause is None else f"; {cause}"
        text += ". Look for log(0), exp of something large, or a division by 0"
        raise LossError(text, index=None if part is None else part.index) from cause


def _flat(logprobs_list: list[torch.Tensor]) -> torch.Tensor:
    return torch.cat([lp.detach() for lp in logprobs_list])
