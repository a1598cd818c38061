"""Run a batch in micro-batches that fit into memory: the token budget is halved as often as memory runs out.

What a batch results in does not depend on the split, so an attempt that ran out of memory is repeated with a smaller
budget until each micro-batch is a single sequence. One that fails even then, twice, is an error that gives its length.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from ..errors import ModelError
from ..usercode.out_of_memory import first_line, is_out_of_memory
from .batch import Batch
from .memory import free_memory, release_memory
from .packing import split_batch

if TYPE_CHECKING:
    from .models import BaseModel

__all__ = ["Fitted", "Progress", "run_in_micro_batches", "split_into_micro_batches"]

T = TypeVar("T")


@dataclass
class Progress:
    """What an attempt is computing.

    Attributes:
        micro_batch: The micro-batch in the model; None between them.
        in_loss: True while a custom loss runs: if memory runs out then, and a smaller micro-batch would not give the
            loss more of it, the loss's own error propagates.
    """

    micro_batch: Batch | None = None
    in_loss: bool = False


@dataclass(frozen=True)
class Fitted(Generic[T]):
    """The result of an attempt that fitted into memory.

    Attributes:
        value: The result.
        micro_batches: Number of micro-batches.
        budget: Token budget that they kept to; None for no limit.
        retries: Number of attempts that ran out of memory before.
        failed_tokens: Tokens that the first of those attempts had in the model; 0 without one.
    """

    value: T
    micro_batches: int
    budget: int | None
    retries: int
    failed_tokens: int

    @property
    def note(self) -> str:
        """What a person should know about a budget that was lowered, in plain words; empty if it was not."""
        if not self.retries:
            return ""
        return (
            f"memory ran out: {self.failed_tokens:,} tokens at a time did not fit. The token budget (max_batch_tokens) "
            f"is now {self.budget:,}, and larger batches run in several parts, with the same result"
        )


def split_into_micro_batches(base: BaseModel, batch: Batch, max_tokens: int | None) -> list[Batch]:
    """Split ``batch`` into micro-batches of at most ``max_tokens`` tokens, or of one datum that exceeds them."""
    if max_tokens is None or len(batch.tokens) * max(batch.lengths) <= max_tokens:  # fits even if it is padded
        return [batch]
    groups = split_batch(batch.tokens, max_tokens, base.computed_tokens)  # pyright: ignore[reportArgumentType]
    return [batch.select(indices) for indices in groups] if len(groups) > 1 else [batch]


def run_in_micro_batches(
    base: BaseModel,
    batch: Batch,
    max_tokens: int | None,
    run: Callable[[list[Batch], Progress], T],
    *,
    gradient_checkpointing: bool = True,
) -> Fitted[T]:
    """Call ``run`` with the micro-batches of ``batch``; repeat with half the token budget while memory runs out.

    Args:
        base: The model.
        batch: A checked batch.
        max_tokens: Token budget of the first attempt, shared prefixes counted once; None to run the whole batch at
            once. A single datum may exceed it.
        run: Computes the result from micro-batches, keeps the progress up to date, and changes nothing if it fails.
        gradient_checkpointing: False if the pass could save memory by it, for the advice of the error.

    Raises:
        ModelError: If a single sequence does not fit. Whatever else ``run`` raises propagates, also the error of a
            custom loss that runs out of memory by itself.
    """
    budget, retries, failed_tokens, is_last_try = max_tokens, 0, 0, False
    while True:
        micro_batches, progress = split_into_micro_batches(base, batch, budget), Progress()
        try:
            value = run(micro_batches, progress)
            return Fitted(value, len(micro_batches), budget, retries, failed_tokens)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            parts = micro_batches if progress.micro_batch is None else [progress.micro_batch]
            cannot_split = all(len(part.data) == 1 for part in parts)
            # A custom loss takes its memory outside the model, so a smaller part helps only while the model has one.
            if progress.in_loss and (progress.micro_batch is None or (cannot_split and is_last_try)):
                raise
            reason = first_line(error)
        # Retry outside the except block: the exception's traceback keeps the failed pass's tensors alive.
        release_memory(base.device)
        size = max(base.computed_tokens(part.tokens) for part in parts)
        if cannot_split and is_last_try:
            raise _does_not_fit(base, progress.micro_batch, size, reason, gradient_checkpointing)
        # What the failed attempt held is free now, so that even a single sequence gets a second try.
        is_last_try |= cannot_split
        retries, failed_tokens = retries + 1, failed_tokens or size
        in_use = size if budget is None or not cannot_split else budget
        budget = max(1, in_use // 2)


def _does_not_fit(
    base: BaseModel, failed: Batch | None, size: int, reason: str, gradient_checkpointing: bool
) -> ModelError:
    what = f"{size:,} tokens do not fit, although each sequence runs by itself"
    if failed is not None:
        what = f"datum {failed.origin[0]} has {failed.lengths[0]:,} tokens and does not fit even by itself"
    needed, free = base.cost.bytes_of(size, gradient_checkpointing=False), free_memory(base.device)
    can_checkpoint = base.supports_gradient_checkpointing and not gradient_checkpointing
    advice = "gradient_checkpointing=True in ServiceClient, " if can_checkpoint else ""
    return ModelError(
        f"out of memory: {what}; a training pass over them takes about {_gib(needed)}, and {_gib(free)} are free "
        f"({reason}). Weights, optimizer and accumulated gradients are unchanged. Use a shorter max_length, {advice}"
        "a smaller LoRA rank, or free memory held by other programs"
    )


def _gib(count: int) -> str:
    return f"{count / (1 << 30):.2f} GiB"
