"""A custom loss as a run calls it: with cancellation, limited output, and errors that name the datum and its values."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..errors import LossError, MintLabError
from .guarded_call import LossCancelled, call_guarded
from .locate import failing_datum, logprob_range
from .nonfinite import explain_nonfinite
from .out_of_memory import is_out_of_memory
from .output import Printed
from .result import LossResult, NonfiniteLoss, evaluate_loss

if TYPE_CHECKING:
    from ..losses.spec import LossSpec
    from ..types import Datum

__all__ = ["CANCEL_AFTER_SECONDS", "GuardedLoss"]

CANCEL_AFTER_SECONDS = 2.0
MAX_PRINTED_LINES = 20  # of one call


def _never() -> bool:
    return False


class GuardedLoss:
    """A loss with its settings, in the custom call form; calls can be cancelled, and failures are explained.

    Any trainer can call it: a local client calls :meth:`evaluate`, a hosted client's SDK calls the object itself.

    Args:
        spec: The loss; messages have its name and version, a trainer reads its reduction.
        fn: The loss in the custom call form, with its settings bound.
        cancel_requested: Polled while the loss runs; True cancels a call that has run longer than ``cancel_after``.
        cancel_after: Seconds from the start of a call before it can be cancelled (twice the longest call so far, if
            that is more).
    """

    def __init__(
        self,
        spec: LossSpec,
        fn: Callable[..., Any],
        cancel_requested: Callable[[], bool] = _never,
        cancel_after: float = CANCEL_AFTER_SECONDS,
    ) -> None:
        self.spec = spec
        self.fn = fn
        self.cancel_requested = cancel_requested
        self.cancel_after = cancel_after
        self._longest_seconds = 0.0
        self._notes: list[str] = []

    def __call__(
        self, data: Sequence[Datum], logprobs_list: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the checked loss, which can still be differentiated, and its metrics. Raises as :meth:`evaluate`."""
        result = self.evaluate(data, logprobs_list, keep_graph=True)
        return result.loss, result.metrics

    def evaluate(
        self, data: Sequence[Datum], logprobs_list: Sequence[torch.Tensor], *, keep_graph: bool = False
    ) -> LossResult:
        """Call, check and differentiate the loss as :func:`~mint_lab.usercode.result.evaluate_loss` does.

        Raises:
            LossError: If the loss raised (its exception is the cause), was cancelled (``LossCancelled``), or did not
                pass the check (``ResultError``). Errors of this package and of memory propagate unchanged.
        """
        try:
            return evaluate_loss(self._call, data, logprobs_list, keep_graph=keep_graph)
        except NonfiniteLoss as fault:
            explained, operation = explain_nonfinite(fault, self.fn, data, logprobs_list)
            raise explained from operation

    def take_notes(self) -> list[str]:
        """Return, and forget, what a person should know about the calls since the last time: a flood of output."""
        notes, self._notes = self._notes, []
        return notes

    def _call(self, data: list[Datum], logprobs_list: list[torch.Tensor]) -> Any:
        began = time.perf_counter()
        printed = Printed(MAX_PRINTED_LINES, echo=True)
        try:
            # Lists of its own, which the function may change: the datum that failed is looked up in these two below.
            args = list(data), list(logprobs_list)
            result = call_guarded(self.fn, args, should_cancel=self._should_cancel, printed=printed)
        except LossCancelled as error:
            raise _with_advice(error, logprobs_list) from error.__cause__
        except MintLabError:
            raise
        except Exception as error:
            if is_out_of_memory(error):  # the trainer may retry with less of the model in memory
                raise
            index = failing_datum(self.fn, error, data, logprobs_list)
            text = f"{type(error).__name__}: {error}".rstrip(": ")
            if index is not None:
                text += f" (at datum {index}, {logprob_range(logprobs_list[index])})"
            raise LossError(text, index=index) from error
        finally:
            if printed.truncated:
                counts = f"{printed.lines:,} lines in one call, of which {MAX_PRINTED_LINES} are shown"
                self._notes = [f"{self.spec.label} printed {counts}"]
        self._longest_seconds = max(self._longest_seconds, time.perf_counter() - began)
        return result

    def _should_cancel(self, seconds: float) -> bool:
        return self.cancel_requested() and seconds > max(self.cancel_after, 2 * self._longest_seconds)


def _with_advice(error: LossCancelled, logprobs_list: Sequence[torch.Tensor]) -> LossCancelled:
    text = f"the loss had not returned after {error.seconds:.1f} s; {error}. "
    if any(lp.requires_grad for lp in logprobs_list):  # without grad it is an evaluation, which follows the update
        text += "No weight was changed. "
    text += "Look for a call that waits" if error.abandoned else "Look for a loop that does not end"
    return LossCancelled(text, abandoned=error.abandoned, seconds=error.seconds)
