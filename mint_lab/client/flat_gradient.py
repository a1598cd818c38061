"""The gradient that one pass accumulates, as a vector."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from ..types import TensorData

if TYPE_CHECKING:
    from ..engine.models import Adapter

__all__ = ["flat_gradient"]


def flat_gradient(adapter: Adapter, accumulate: Callable[[], object]) -> TensorData:
    """Return what ``accumulate()`` adds to the adapter's gradients.

    The gradients accumulated before are restored afterwards, also if ``accumulate`` raises. Call this on the worker.

    Args:
        adapter: The adapter.
        accumulate: Runs a pass that adds to ``adapter.gradients``.

    Returns:
        ``(parameters,)`` float32, all zero if nothing was added, in the order of the adapter's parameters.
    """
    accumulated, adapter.gradients = adapter.gradients, None
    try:
        accumulate()
        gradients = adapter.gradients or [torch.zeros_like(parameter) for parameter in adapter.parameters.values()]
        return TensorData.from_torch(torch.cat([piece.detach().flatten().float().cpu() for piece in gradients]))
    finally:
        adapter.gradients = accumulated
