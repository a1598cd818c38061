"""Reference log-probabilities, by default those of the model before training, and a fingerprint of its weights.

The reference is no second copy of the model: a forward pass without a graph runs with all adapters disabled, or with
the weights of the reference, by default those at which the adapter started.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .micro_batches import Fitted, Progress, run_in_micro_batches
from .step import forward_batch

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .batch import Batch
    from .models import Adapter, BaseModel

__all__ = ["fingerprint", "reference_fingerprint", "reference_logprobs"]


def reference_logprobs(adapter: Adapter, batch: Batch, max_tokens: int | None) -> Fitted[list[NDArray[np.float32]]]:
    """Compute the log-probability of each target under the adapter's reference, ``adapter.start``.

    That is the base model alone, or the base model with the weights there.

    Args:
        adapter: The adapter.
        batch: A checked batch.
        max_tokens: Token budget of a micro-batch, as in :func:`~mint_lab.engine.step.run_pass`.

    Returns:
        ``(N_i,)`` for each datum, nats.

    Raises:
        ModelError: If a single sequence does not fit into memory.
    """
    base = adapter.base

    def run(micro_batches: list[Batch], progress: Progress) -> list[NDArray[np.float32]]:
        rows: list[NDArray[np.float32]] = []
        with base.using(None if adapter.start is None else adapter, adapter.start):
            for progress.micro_batch in micro_batches:
                _, logprobs, _ = forward_batch(base, progress.micro_batch, needs_graph=False)
                rows += [piece.numpy() for piece in logprobs.values.cpu().split(progress.micro_batch.lengths)]
        return rows

    return run_in_micro_batches(base, batch, max_tokens, run)


def fingerprint(base: BaseModel) -> str:
    """Return a hexadecimal hash of the base model: its name, its configuration, and its weights without any adapter.

    Every weight is read once, which takes seconds for a model of a few billion parameters.
    """
    digest = hashlib.sha256()
    # "_name_or_path" is where the model was loaded from: for the bundled one, another path in every installation.
    config = {key: value for key, value in base.config.to_dict().items() if key != "_name_or_path"}
    digest.update(json.dumps([base.name, config], sort_keys=True, default=str).encode())
    _add_weights(digest, base.weights)
    return digest.hexdigest()


def reference_fingerprint(adapter: Adapter, base_fingerprint: str) -> str:
    """Return a hexadecimal hash of the model at which the adapter's training started.

    Args:
        adapter: The adapter.
        base_fingerprint: What :func:`fingerprint` returned for its base model; the result for a new adapter.
    """
    if adapter.start is None:
        return base_fingerprint
    digest = hashlib.sha256(f"{base_fingerprint} {adapter.lora.scaling!r}".encode())
    _add_weights(digest, adapter.start)
    return digest.hexdigest()


def _add_weights(digest: Any, weights: Mapping[str, torch.Tensor]) -> None:
    for name, weight in sorted(weights.items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
