"""A job's datums with the reference model's log-probabilities, for losses that compare with a reference model.

They are computed when a loss first reads them (also if that loss is chosen in the middle of a run), for as many items
ahead as one request is worth. ``mint_lab.data.with_reference`` keeps them on disk, and the next run reads them there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from ..data.reference_logprobs import with_reference
from ..losses.spec import REFERENCE, LossSpec

if TYPE_CHECKING:
    from ..types import Datum
    from .job import BatchJob

__all__ = ["ReferenceCache", "reads_reference"]

# Items per request: a run can pause only between two requests, and each request writes to disk.
ITEMS_AHEAD = 2048


def reads_reference(spec: LossSpec) -> bool:
    """Return True if ``spec`` reads ``reference_logprobs``."""
    return REFERENCE in spec.inputs


class ReferenceCache:
    """Return a job's datums as :class:`~mint_lab.recipes.BatchJob` does, with ``reference_logprobs``.

    Datums that already have them are left as they are.

    Args:
        client: A training client that can compute them.
        job: The job whose datums are returned.
    """

    def __init__(self, client: Any, job: BatchJob) -> None:
        self._client = client
        self._job = job
        self._items: dict[int, list[Datum]] = {}
        self._held_out: list[Datum] | None = None

    @property
    def held_out(self) -> list[Datum]:
        """All held-out datums. Raises as :meth:`batch`."""
        if self._held_out is None:
            self._held_out = self._filled(self._job.held_out)
        return self._held_out

    def batch(self, items: Sequence[int], ahead: Iterable[int] = ()) -> list[Datum]:
        """Return the datums of ``items``, in that order.

        Args:
            items: Positions in the training data.
            ahead: Items that are needed next; some are computed together with the batch. Only these are read from the
                iterable.

        Raises:
            ConfigError: If the client computes no reference log-probabilities.
            DataError: If a datum does not fit the model.
        """
        if any(item not in self._items for item in items):
            requested = self._missing(chain(items, ahead), max(ITEMS_AHEAD, len(items)))
            filled = self._filled(self._job.batch(requested))
            unit = self._job.unit
            self._items |= {item: filled[unit * k : unit * (k + 1)] for k, item in enumerate(requested)}
        return [datum for item in items for datum in self._items[item]]

    def _missing(self, items: Iterable[int], count: int) -> list[int]:
        """Return the first ``count`` different items that have no values yet."""
        missing: dict[int, None] = {}
        for item in items:
            if item not in self._items:
                missing[item] = None
                if len(missing) == count:
                    break
        return list(missing)

    def _filled(self, data: list[Datum]) -> list[Datum]:
        if all(REFERENCE in datum.loss_fn_inputs for datum in data):
            return data
        return with_reference(data, self._client)
