"""Reference log-probabilities from the base model, and a fingerprint of its weights.

The reference is no second copy of the model: a forward pass without a graph runs with all adapters disabled.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
import torch

from .step import forward_batch, split_into_micro_batches

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .batch import Batch
    from .models import BaseModel

__all__ = ["fingerprint", "reference_logprobs"]


def reference_logprobs(base: BaseModel, batch: Batch, max_tokens: int | None) -> list[NDArray[np.float32]]:
    """Compute the log-probability of each target under the base model without an adapter.

    Args:
        base: The base model.
        batch: A checked batch.
        max_tokens: Token budget of a micro-batch, as in :func:`~mint_lab.engine.step.run_pass`.

    Returns:
        ``(N_i,)`` for each datum, nats.
    """
    rows: list[NDArray[np.float32]] = []
    with base.using(None):
        for micro_batch in split_into_micro_batches(base, batch, max_tokens):
            _, logprobs, _ = forward_batch(base, micro_batch, needs_graph=False)
            rows += [piece.numpy() for piece in logprobs.values.cpu().split(micro_batch.lengths)]
    return rows


def fingerprint(base: BaseModel) -> str:
    """Return a hexadecimal hash of the base model: its name, its configuration, and its weights without any adapter.

    Every weight is read once, which takes seconds for a model of a few billion parameters.
    """
    digest = hashlib.sha256()
    # "_name_or_path" is where the model was loaded from: for the bundled one, another path in every installation.
    config = {key: value for key, value in base.config.to_dict().items() if key != "_name_or_path"}
    digest.update(json.dumps([base.name, config], sort_keys=True, default=str).encode())
    for name, weight in sorted(base.weights.items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
