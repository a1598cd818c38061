"""A job's datums with the base model's log-probabilities, for losses that measure against a reference.

They are computed when a loss first reads them, also when that loss comes in the middle of a run, for as many items
ahead as are worth one request. ``mint_lab.data.with_reference`` keeps them on disk, so that the next run reads them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

from ..data.reference_logprobs import with_reference
from ..losses.spec import REFERENCE, LossSpec

if TYPE_CHECKING:
    from ..types import Datum
    from .registry import Job

__all__ = ["References", "reads_reference"]

# Items computed at a time: a run can only be paused between two requests, and each writes to disk.
AHEAD = 2048


def reads_reference(spec: LossSpec) -> bool:
    """Whether ``spec`` reads ``reference_logprobs``."""
    return REFERENCE in spec.inputs


class References:
    """Hands out a job's datums as :class:`~mint_lab.recipes.registry.Job` does, with ``reference_logprobs``.

    Datums that have them already are left as they are.

    Args:
        client: a training client that can compute them.
        job: whose datums.
    """

    def __init__(self, client: Any, job: Job) -> None:
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
        """The datums of ``items``, in that order.

        Args:
            items: positions in the training data.
            ahead: items that will be asked for next; some are computed together with those of the batch. It is read
                no further than that.

        Raises:
            ConfigError: the client computes no reference log-probabilities.
            DataError: a datum is not fit for the model.
        """
        if any(item not in self._items for item in items):
            wanted = self._unknown(chain(items, ahead), max(AHEAD, len(items)))
            filled = self._filled(self._job.batch(wanted))
            unit = self._job.unit
            self._items |= {item: filled[unit * k : unit * (k + 1)] for k, item in enumerate(wanted)}
        return [datum for item in items for datum in self._items[item]]

    def _unknown(self, items: Iterable[int], count: int) -> list[int]:
        """The first ``count`` different items that have no values yet."""
        found: dict[int, None] = {}
        for item in items:
            if item not in self._items:
                found[item] = None
                if len(found) == count:
                    break
        return list(found)

    def _filled(self, data: list[Datum]) -> list[Datum]:
        if all(REFERENCE in datum.loss_fn_inputs for datum in data):
            return data
        return with_reference(data, self._client)
