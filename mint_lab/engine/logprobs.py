r"""Hidden states to target log-probabilities, without the ``(tokens, vocabulary)`` matrix.

Forward: logits are made for a chunk of positions at a time and reduced at once to
:math:`\log p_t = z_t - \log\sum_v e^{z_v}`. Backward: only positions whose log-probability has a gradient are visited,
and their logits are made again. A batch that fits into one chunk keeps its graph instead, which saves the second time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["TargetLogprobs"]

# Logits held at a time: 2^24 floats are 64 MB.
CHUNK_LOGITS = 1 << 24

Head = Callable[[torch.Tensor], torch.Tensor]


class TargetLogprobs:
    """Log-probabilities of given targets at given places of the hidden states, and the way back.

    Where sequences share a prefix, the same (place, target) occurs in each; it is computed once.

    Attributes:
        values: ``(sum N_i,)``, float32, no graph: log-probability of each target, sequences end to end.
    """

    def __init__(
        self,
        head: Head,
        hidden: torch.Tensor,
        places: Sequence[NDArray[np.int64]],
        targets: NDArray[np.int64],
        vocab_size: int,
        *,
        keep_graph: bool,
    ) -> None:
        """``hidden`` is ``(places, hidden)``; with ``keep_graph`` :meth:`backward` may be called once."""
        key = np.concatenate(places) * vocab_size + targets
        unique, inverse = np.unique(key, return_inverse=True)
        self._head = head
        self._hidden = hidden.detach()
        self._place = torch.from_numpy(unique // vocab_size).to(hidden.device)
        self._target = torch.from_numpy(unique % vocab_size).to(hidden.device)
        self._inverse = torch.from_numpy(inverse).to(hidden.device)
        self._chunk = max(1, CHUNK_LOGITS // vocab_size)
        self._leaf: torch.Tensor | None = None
        self._graph: torch.Tensor | None = None
        if keep_graph and len(unique) <= self._chunk:
            self._leaf = self._hidden.requires_grad_(True)
            self._graph = self._logprobs(self._leaf, slice(None))
            values = self._graph.detach()
        else:
            with torch.no_grad():
                pieces = range(0, len(unique), self._chunk)
                values = torch.cat([self._logprobs(self._hidden, slice(i, i + self._chunk)) for i in pieces])
        self.values = values[self._inverse]

    def backward(
        self, gradient: torch.Tensor, parameters: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        """From ``dL/dlogprobs``, ``(sum N_i,)``, to ``dL/dhidden``, ``(places, hidden)``, and ``dL/dparameters``.

        ``parameters`` are those of the head itself (LoRA on the output layer); None stands for no gradient.
        """
        unique = torch.zeros_like(self._place, dtype=gradient.dtype).index_add(0, self._inverse, gradient)
        if self._graph is not None and self._leaf is not None:
            found = torch.autograd.grad(self._graph, [self._leaf, *parameters], unique, allow_unused=True)
            self._graph = None
            assert found[0] is not None
            return found[0], list(found[1:])
        live = unique.nonzero().flatten()
        into = torch.zeros_like(self._hidden)
        total: list[torch.Tensor | None] = [None] * len(parameters)
        leaf = self._hidden.detach().requires_grad_(True)
        for piece in live.split(self._chunk):
            with torch.enable_grad():
                logprobs = self._logprobs(leaf, piece)
            found = torch.autograd.grad(logprobs, [leaf, *parameters], unique[piece], allow_unused=True)
            assert found[0] is not None
            into += found[0]
            total = [_plus(a, b) for a, b in zip(total, found[1:], strict=True)]
        return into, total

    def _logprobs(self, hidden: torch.Tensor, piece: slice | torch.Tensor) -> torch.Tensor:
        logits = self._head(hidden[self._place[piece]])
        picked = logits.gather(-1, self._target[piece, None]).squeeze(-1)
        return picked - torch.logsumexp(logits, dim=-1)


def _plus(a: torch.Tensor | None, b: torch.Tensor | None) -> torch.Tensor | None:
    return b if a is None else a if b is None else a + b
