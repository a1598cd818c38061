r"""Hidden states to target log-probabilities and back, without the ``(tokens, vocabulary)`` matrix.

Forward: logits are made for a chunk of positions at a time and reduced at once to
:math:`\log p_y = z_y - \log\sum_v e^{z_v}` and, where the loss may want a gradient, to
:math:`\partial \log p_y / \partial h`, which needs no loss to be known (see :mod:`mint_lab.engine.head`). Backward:
that is scaled by :math:`dL/d\log p_y`. So the vocabulary is crossed twice a position instead of three times, once
where nothing is learned. LoRA on the output layer itself wants the probabilities again: they are kept where one chunk
holds them all, and made again where not.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from .head import Head

__all__ = ["TargetLogprobs", "chunk_positions"]

# Logits held at a time: 2^23 floats are 32 MB.
CHUNK_LOGITS = 1 << 23


def chunk_positions(vocab_size: int) -> int:
    """Positions whose logits are held at a time."""
    return max(1, CHUNK_LOGITS // vocab_size)


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
        *,
        live: NDArray[np.bool_] | None,
    ) -> None:
        """Compute ``values``.

        Args:
            hidden: ``(places, hidden)``; its graph is not used.
            live: ``(sum N_i,)``: where the loss is expected to want a gradient; None: there will be no backward. A
                gradient elsewhere is right as well, and costs more.
        """
        key = np.concatenate(places) * head.vocab_size + targets
        unique, inverse = np.unique(key, return_inverse=True)
        device = hidden.device
        self._head = head
        self._hidden = hidden.detach()
        self._place = torch.from_numpy(unique // head.vocab_size).to(device)
        self._target = torch.from_numpy(unique % head.vocab_size).to(device)
        self._inverse = torch.from_numpy(inverse).to(device)
        self._values = torch.empty(len(unique), device=device)
        # For each unique (place, target): its row in `_towards`, dlogp/dhidden, or -1.
        self._row = torch.full((len(unique),), -1, device=device)
        self._towards = torch.empty(0, head.hidden_size, device=device)
        # Positions, probabilities and slopes, where LoRA on the output layer will want them and one chunk has them all.
        self._kept: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
        self._buffer: torch.Tensor | None = None
        wanted = torch.zeros(len(unique), dtype=torch.bool)
        if live is not None:
            wanted[torch.from_numpy(inverse[live])] = True
        others = (~wanted).nonzero().flatten().to(device)
        for piece in others.split(chunk_positions(head.vocab_size)) if len(others) else ():
            self._probabilities(piece)
        self._learn(wanted.nonzero().flatten().to(device), keep=head.a is not None)
        self._buffer = None
        self.values = self._values[self._inverse]

    def backward(
        self, gradient: torch.Tensor, parameters: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        """From ``dL/dlogprobs``, ``(sum N_i,)``, to ``dL/dhidden``, ``(places, hidden)``, and ``dL/dparameters``.

        ``parameters`` may hold those of the head itself (LoRA on the output layer); None stands for no gradient.
        """
        unique = torch.zeros(len(self._place), device=gradient.device).index_add(0, self._inverse, gradient)
        missing = ((self._row < 0) & (unique != 0)).nonzero().flatten()
        if len(missing):
            self._kept = None
            self._learn(missing)
        known = (self._row >= 0).nonzero().flatten()
        into = torch.zeros(self._hidden.shape, device=self._hidden.device)
        into.index_add_(0, self._place[known], self._towards[self._row[known]] * unique[known, None])
        found: list[torch.Tensor | None] = [None] * len(parameters)
        head = self._head
        if head.a is not None and head.b is not None:
            a, b = self._into_lora(unique)
            for i, parameter in enumerate(parameters):
                found[i] = a if parameter is head.a else b if parameter is head.b else None
        self._buffer = self._kept = None
        return into, found

    def _learn(self, indices: torch.Tensor, *, keep: bool = False) -> None:
        """Fill ``_values`` and ``_towards`` for these (place, target)."""
        if not len(indices):
            return
        start, head = len(self._towards), self._head
        self._row[indices] = torch.arange(start, start + len(indices), device=indices.device)
        made = [self._towards] if start else []
        for piece in indices.split(chunk_positions(head.vocab_size)):
            probabilities, slope = self._probabilities(piece)
            towards = head.rows(self._target[piece]).mul_(slope).sub_(head.into_hidden(probabilities))
            made.append(towards.mul_(head.factor) if head.factor != 1 else towards)
            if keep and len(piece) == len(indices):
                self._kept = (piece, probabilities, slope)
        self._towards = torch.cat(made) if len(made) > 1 else made[0]

    def _probabilities(self, piece: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Softmax times :math:`f'`, ``(positions, vocab)``, and :math:`f'` at the targets, ``(positions, 1)``.

        Their ``_values`` are filled on the way.
        """
        if self._buffer is None or len(self._buffer) < len(piece):
            self._buffer = torch.empty(len(piece), self._head.vocab_size, device=piece.device)
        logits = self._head.logits(self._hidden[self._place[piece]], self._buffer[: len(piece)])
        picked = logits.gather(-1, self._target[piece, None]).squeeze(-1)
        most, at = logits.max(-1, keepdim=True)
        slope = self._head.slope(logits)
        probabilities = torch.softmax(logits, dim=-1, out=logits)
        # The largest probability is at least 1 / vocabulary, so its logarithm is exact where the target's may not be.
        self._values[piece] = picked - most.squeeze(-1) + probabilities.gather(-1, at).squeeze(-1).log()
        if slope is None:
            return probabilities, torch.ones_like(most)
        return probabilities.mul_(slope), slope.gather(-1, self._target[piece, None])

    def _into_lora(self, unique: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Gradients of LoRA's ``a`` and ``b`` on the output layer."""
        head = self._head
        assert head.a is not None
        assert head.b is not None
        a, b = torch.zeros_like(head.a), torch.zeros_like(head.b)
        live = unique.nonzero().flatten()
        pieces = live.split(chunk_positions(head.vocab_size)) if self._kept is None else [self._kept[0]]
        for piece in pieces:
            probabilities, slope = self._probabilities(piece) if self._kept is None else self._kept[1:]
            rows = probabilities.neg_()
            rows.scatter_add_(-1, self._target[piece, None], slope)
            rows *= unique[piece, None] * head.factor
            more = head.into_lora(rows, self._hidden[self._place[piece]])
            a += more[0]
            b += more[1]
        return a, b
