"""The gradient that a pass accumulates, by itself and as one vector."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from ..types import TensorData

if TYPE_CHECKING:
    from ..engine.models import Adapter

__all__ = ["flat_gradient"]


def flat_gradient(adapter: Adapter, accumulate: Callable[[], object]) -> TensorData:
    """What ``accumulate()`` adds to ``adapter.gradients``, ``(parameters,)`` float32, in the order of its parameters.

    What had accumulated before is there again afterwards, also where ``accumulate`` raises. Call it on the worker.
    """
    held, adapter.gradients = adapter.gradients, None
    try:
        accumulate()
        made = adapter.gradients or [torch.zeros_like(parameter) for parameter in adapter.parameters.values()]
        return TensorData.from_torch(torch.cat([piece.detach().flatten().float().cpu() for piece in made]))
    finally:
        adapter.gradients = held
