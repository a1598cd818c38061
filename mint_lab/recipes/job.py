"""A recipe with its data, ready to train.

:class:`Job` is the least that a run needs to know. :class:`BatchJob` is a job on a fixed data set, ready for
:class:`~mint_lab.recipes.batch_trainer.BatchTrainer`. Neither knows a model, a thread or a loss function.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from ..data.audit import DataView, items_of_datums
from ..data.render import RowFacts
from ..data.sources import Rows

if TYPE_CHECKING:
    import torch

    from ..types import Datum

__all__ = ["BatchJob", "Job", "JobFacts", "Measured", "ShuffledSampler"]


@dataclass(frozen=True)
class Measured:
    """Metrics by name, and histograms (counts by bin) by name, of some data."""

    metrics: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class JobFacts:
    """What is known of the rows that the items of a job came from.

    Attributes:
        train: One per training item.
        held_out: One per held-out item.
        read: The source of the training rows after it was read, with the rows that were left out.
        held_out_read: The source of the held-out rows; the same object if a part of the data is held out.
    """

    train: Sequence[RowFacts]
    held_out: Sequence[RowFacts]
    read: Rows
    held_out_read: Rows


class Job(Protocol):
    """A recipe with its data, ready to train. An item is what a batch counts: a pair, an example, a prompt."""

    @property
    def size(self) -> int:
        """Items to train on."""
        ...

    @property
    def held_out_size(self) -> int:
        """Items held out."""
        ...


@dataclass(frozen=True)
class BatchJob:
    """A job on a fixed data set; it measures nothing but the loss. Subclasses add metrics.

    Attributes:
        data: Training datums, ``unit`` consecutive ones per item.
        held_out: Held-out datums, ``held_out_unit`` consecutive ones per item.
        unit: Datums per training item: 2 for pairs.
        held_out_unit: Datums per held-out item; 0 stands for ``unit``. If it is larger than ``unit``, the loss sees the
            first datums of every held-out item, for example the chosen completion of a pair.
        facts: Where the items came from; None if the recipe does not say.
    """

    data: list[Datum]
    held_out: list[Datum]
    unit: int = 1
    held_out_unit: int = 0
    facts: JobFacts | None = field(default=None, repr=False, compare=False, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "held_out_unit", self.held_out_unit or self.unit)

    @property
    def size(self) -> int:
        """Items to train on."""
        return len(self.data) // self.unit

    @property
    def held_out_size(self) -> int:
        """Items held out."""
        return len(self.held_out) // self.held_out_unit

    @property
    def loss_slice(self) -> slice:
        """Which held-out datums the loss sees."""
        return slice(None, None, self.held_out_unit // self.unit)

    def view(self) -> DataView:
        """Return the data as :func:`mint_lab.audit` reads them."""
        facts = self.facts
        items = items_of_datums(self.data, self.unit, facts and facts.train, held_out=False)
        items += items_of_datums(self.held_out, self.held_out_unit, facts and facts.held_out, held_out=True)
        kind = "pair" if self.unit == 2 else "completion"
        if facts is None:
            return DataView(kind, items, has_rows=False)
        read, other = facts.read, None if facts.held_out_read is facts.read else facts.held_out_read
        return DataView(
            kind, items, (read.n_read, other.n_read if other else 0), (read.skipped, other.skipped if other else {})
        )

    def fingerprint(self) -> str:
        """Return a hash of all datums: of their tokens and of every field."""
        digest = hashlib.sha256()
        for datum in (*self.data, *self.held_out):
            digest.update(np.asarray(datum.model_input.to_ints(), np.int64).tobytes())
            for name, values in sorted(datum.loss_fn_inputs.items()):
                array = values.to_numpy()
                digest.update(f"{name} {array.dtype} {array.shape}".encode())
                digest.update(array.tobytes())
        return digest.hexdigest()

    def batch(self, items: Sequence[int]) -> list[Datum]:
        """Return the datums of ``items`` (positions in the training data, 0-based), in that order."""
        return [datum for i in items for datum in self.data[self.unit * i : self.unit * (i + 1)]]

    def measure(self, data: list[Datum], logprobs: list[torch.Tensor]) -> Measured:
        """Measure a training batch.

        Args:
            data: The batch.
            logprobs: Log-probabilities of the targets from before the update, ``(N_i,)`` each, nats.
        """
        return Measured()

    def evaluate(self, data: list[Datum], logprobs: list[torch.Tensor], baseline: list[torch.Tensor]) -> Measured:
        """Measure held-out data.

        Args:
            data: Held-out datums.
            logprobs: Log-probabilities of their targets now, ``(N_i,)`` each, nats.
            baseline: The same before training.
        """
        return self.measure(data, logprobs)


class ShuffledSampler:
    """An endless stream of item numbers: each epoch is a new shuffle of all items, determined by seed and epoch."""

    def __init__(self, size: int, seed: int) -> None:
        self.size = size
        self.seed = seed
        self._cached: tuple[int, list[int]] = (-1, [])

    def items(self, start: int, count: int) -> list[int]:
        """Return the items at stream positions ``start`` to ``start + count``; at most one epoch's worth."""
        return list(self.stream(start, count))

    def stream(self, start: int, count: int) -> Iterator[int]:
        """Iterate over what :meth:`items` returns."""
        return (self._epoch(k // self.size)[k % self.size] for k in range(start, start + min(count, self.size)))

    def _epoch(self, epoch: int) -> list[int]:
        if self._cached[0] != epoch:
            self._cached = (epoch, np.random.default_rng([self.seed, epoch]).permutation(self.size).tolist())
        return self._cached[1]
