"""The base model as reference: its log-probabilities with every adapter off, and a name for its weights.

There is no second copy of the model: the adapters are switched off for the pass, which keeps no graph.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING

import numpy as np
import torch

from .step import parts_of, target_logprobs

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .batch import Batch
    from .models import BaseModel

__all__ = ["fingerprint", "reference_logprobs"]


def reference_logprobs(base: BaseModel, batch: Batch, max_tokens: int | None) -> list[NDArray[np.float32]]:
    """Log-probability of each datum's targets under the base model alone, ``(N_i,)`` each, nats.

    Packed and chunked as in training; ``max_tokens`` as in :func:`~mint_lab.engine.step.run_pass`.
    """
    found: list[NDArray[np.float32]] = []
    with base.using(None):
        for part in parts_of(base, batch, max_tokens):
            _, logprobs, _ = target_logprobs(base, part, graph=False)
            found += [piece.numpy() for piece in logprobs.values.cpu().split(part.lengths)]
    return found


def fingerprint(base: BaseModel) -> str:
    """Hexadecimal hash of the base model: its name, its configuration, and its weights without any adapter's.

    Reads every weight once: seconds for a model of some billions of parameters.
    """
    digest = hashlib.sha256()
    config = {key: value for key, value in base.config.to_dict().items() if key != "_name_or_path"}
    digest.update(json.dumps([base.name, config], sort_keys=True, default=str).encode())
    for name, weight in sorted(base.weights.items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
