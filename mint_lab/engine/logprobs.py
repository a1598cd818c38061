r"""Target log-probabilities from hidden states, and their backward pass, without the ``(tokens, vocab)`` matrix.

Forward: the logits of one chunk of positions at a time are reduced to
:math:`\log p_y = z_y - \log\sum_v e^{z_v}` and, for positions that are expected to need a gradient, to
:math:`\partial \log p_y / \partial h`, which does not depend on the loss (see :mod:`mint_lab.engine.head`). Backward:
that gradient is scaled by :math:`dL/d\log p_y`. A position that needs a gradient thus takes two products with the
``(vocab, hidden)`` matrix instead of three (logits, logits again, gradient), and a position that needs none takes one.
LoRA on the head needs the probabilities in the backward pass too: they are kept if they all fit into one chunk, and
recomputed otherwise.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from .device import add_rows, to_device
from .head import Head
from .memory import free_memory

__all__ = ["LOGIT_BYTES", "TargetLogprobs", "chunk_positions"]

# Logits in memory at a time on a CPU: 2^23 floats are 32 MB.
CHUNK_LOGITS = 1 << 23
# On a CUDA device, reading the weights limits a product of so few rows. 2^28 floats are 1,766 rows at a vocabulary of
# 152 thousand: arithmetic limits a product of these, and more rows would gain nothing.
MAX_CUDA_CHUNK_LOGITS = 1 << 28
# The share of the free memory that the logits of a CUDA device take.
CUDA_CHUNK_SHARE = 1 / 16
# Bytes for each logit: float32, its copy in the type of the weights, and what the softmax needs.
LOGIT_BYTES = 8


def chunk_positions(vocab_size: int, device: torch.device) -> int:
    """Return the number of positions whose logits are in memory at a time."""
    return max(1, (_cuda_chunk_logits(device) if device.type == "cuda" else CHUNK_LOGITS) // vocab_size)


@functools.cache
def _cuda_chunk_logits(device: torch.device) -> int:
    """Return the logits in memory at a time, a power of two; computed once, so that all passes have equal chunks."""
    logits = int(free_memory(device) * CUDA_CHUNK_SHARE) // LOGIT_BYTES
    return min(max(CHUNK_LOGITS, 1 << max(logits, 1).bit_length() - 1), MAX_CUDA_CHUNK_LOGITS)


class TargetLogprobs:
    """Log-probabilities of given targets at given tokens of the packed row, and their backward pass.

    The plain equivalent, differentiated by autograd, is::

        index = np.concatenate(token_index)  # (sum N_i,)
        values = torch.log_softmax(logits(hidden[index]), dim=-1)[range(len(index)), targets]

    Sequences that share a prefix have the same (token, target) pairs there; each distinct pair is computed once.

    Attributes:
        values: ``(sum N_i,)``, float32, without a graph: the log-probability of each target, sequences end to end.
    """

    def __init__(
        self,
        head: Head,
        hidden: torch.Tensor,
        token_index: Sequence[NDArray[np.int64]],
        targets: NDArray[np.int64],
        *,
        loss_mask: NDArray[np.bool_] | None,
        dropout_mask: torch.Tensor | None = None,
    ) -> None:
        """Compute ``values``.

        Args:
            head: The LM head.
            hidden: Hidden states of the packed row, ``(tokens, hidden)``; their graph is not used.
            token_index: For each sequence, ``(N_i,)`` indices of its tokens in the packed row.
            targets: Target token ids of all sequences end to end, ``(sum N_i,)``.
            loss_mask: Where the loss is expected to have a gradient, ``(sum N_i,)``; None if :meth:`backward` will not
                be called. A gradient elsewhere is computed correctly too, at the cost of another product.
            dropout_mask: Dropout of the input of the head's LoRA, ``(tokens, hidden)``; None for no dropout.
        """
        # 1. Find the distinct (token, target) pairs. All tensors below are ordered by pair.
        pair = np.concatenate(token_index) * head.vocab_size + targets  # (sum N_i,)
        unique, inverse = np.unique(pair, return_inverse=True)
        device = hidden.device
        self._head = head
        self._hidden = hidden.detach()
        self._dropout_mask = dropout_mask
        self._token = to_device(unique // head.vocab_size, device)  # (pairs,)
        self._target = to_device(unique % head.vocab_size, device)  # (pairs,)
        self._inverse = torch.from_numpy(inverse)  # (sum N_i,), the pair of each position
        self._values = torch.empty(len(unique), device=device)  # (pairs,)
        # The row of each pair in `_dlogp_dhidden`; -1 if that gradient has not been computed. Which pairs a product
        # needs is decided on the host, so that it never waits for the device.
        self._row = np.full(len(unique), -1)  # (pairs,)
        self._dlogp_dhidden = torch.empty(0, head.hidden_size, device=device)  # (pairs with a gradient, hidden)
        # (pairs, probabilities, slopes) from the forward pass, if LoRA on the head needs them and one chunk has all.
        self._kept: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None = None
        self._buffer: torch.Tensor | None = None
        # 2. Pairs without a gradient: log-probabilities only.
        needs_grad = np.zeros(len(unique), dtype=np.bool_)
        if loss_mask is not None:
            needs_grad[inverse[loss_mask]] = True
        for chunk in self._chunks(np.flatnonzero(~needs_grad)):
            self._probabilities(chunk)
        # 3. Pairs with a gradient: log-probabilities and dlogp/dhidden.
        self._compute_gradients(np.flatnonzero(needs_grad), keep=head.lora_a is not None)
        self._buffer = None
        self.values = self._values[to_device(inverse, device)]

    def backward(
        self, grad_logprobs: torch.Tensor, parameters: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, list[torch.Tensor | None]]:
        """Compute dL/dhidden and dL/dparameters.

        Args:
            grad_logprobs: dL/dlogprobs, ``(sum N_i,)`` float32 on the CPU.
            parameters: Parameters to compute gradients for; those of the head's LoRA may be among them.

        Returns:
            dL/dhidden, ``(tokens, hidden)``, and for each parameter its gradient through the head, or None if it is not
            the head's.
        """
        # A pair's gradient is the sum over all positions that have it.
        grad_pairs = torch.zeros(len(self._row)).index_add(0, self._inverse, grad_logprobs)  # (pairs,)
        nonzero = np.flatnonzero(grad_pairs.numpy())
        missing = nonzero[self._row[nonzero] < 0]
        if len(missing):  # the loss has a gradient outside its mask
            self._kept = None
            self._compute_gradients(missing)
        device = self._hidden.device
        grad_pairs = to_device(grad_pairs, device)
        known = np.flatnonzero(self._row >= 0)
        rows, known = to_device(self._row[known], device), to_device(known, device)
        grad_hidden = torch.zeros(self._hidden.shape, device=device)  # (tokens, hidden)
        add_rows(grad_hidden, self._token[known], self._dlogp_dhidden[rows] * grad_pairs[known, None])
        grads: list[torch.Tensor | None] = [None] * len(parameters)
        head = self._head
        if head.lora_a is not None and head.lora_b is not None:
            grad_a, grad_b = self._grad_lora(grad_pairs, nonzero)
            for i, parameter in enumerate(parameters):
                grads[i] = grad_a if parameter is head.lora_a else grad_b if parameter is head.lora_b else None
        self._buffer = self._kept = None
        return grad_hidden, grads

    def _chunks(self, pairs: NDArray[np.intp]) -> Sequence[torch.Tensor]:
        """Return indices of pairs, ``(n,)``, on the device and in chunks that the head computes at a time."""
        size = chunk_positions(self._head.vocab_size, self._hidden.device)
        return to_device(pairs, self._hidden.device).split(size) if len(pairs) else ()

    def _compute_gradients(self, pairs: NDArray[np.intp], *, keep: bool = False) -> None:
        """Fill ``_values`` and append to ``_dlogp_dhidden`` for these pairs.

        Args:
            pairs: Indices of pairs, ``(n,)``.
            keep: Whether to keep the probabilities for LoRA's gradient, if one chunk has them all.
        """
        if not len(pairs):
            return
        start, head = len(self._dlogp_dhidden), self._head
        self._row[pairs] = np.arange(start, start + len(pairs))
        gradients = [self._dlogp_dhidden] if start else []
        for chunk in self._chunks(pairs):
            probabilities, slope = self._probabilities(chunk)
            # c * (f'_y W_y - W^T (f' * p)), (chunk, hidden)
            mask = self._mask(chunk)
            rows = head.weight_rows(self._target[chunk], mask)
            gradient = rows.mul_(slope).sub_(head.grad_hidden(probabilities, mask))
            gradients.append(gradient.mul_(head.factor) if head.factor != 1 else gradient)
            if keep and len(chunk) == len(pairs):
                self._kept = (chunk, probabilities, slope)
        self._dlogp_dhidden = torch.cat(gradients) if len(gradients) > 1 else gradients[0]

    def _probabilities(self, pairs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the softmax at these pairs, and fill their ``_values``.

        Returns:
            Softmax times :math:`f'`, ``(n, vocab)``, and :math:`f'` at the targets, ``(n, 1)``. The former is a view
            of the buffer and is overwritten by the next call.
        """
        if self._buffer is None or len(self._buffer) < len(pairs):
            self._buffer = torch.empty(len(pairs), self._head.vocab_size, device=pairs.device)
        hidden = self._hidden[self._token[pairs]]  # (n, hidden)
        mask, target = self._mask(pairs), self._target[pairs]
        logits = self._head.logits(hidden, self._buffer[: len(pairs)], mask)  # (n, vocab)
        if self._head.rounds_logits(hidden):  # log p_y contains most of the rounding of its own logit
            logits.scatter_(-1, target[:, None], self._head.logits_at(hidden, target, mask)[:, None])
        at_target = logits.gather(-1, target[:, None]).squeeze(-1)  # (n,)
        largest, argmax = logits.max(-1, keepdim=True)  # (n, 1) each
        slope = self._head.slope(logits)
        probabilities = torch.softmax(logits, dim=-1, out=logits)  # in place: the logits are no longer needed
        # log p_y = z_y - z_max + log p_max. p_max is at least 1 / vocab, so its logarithm is accurate; that of p_y is
        # -inf if p_y underflows.
        self._values[pairs] = at_target - largest.squeeze(-1) + probabilities.gather(-1, argmax).squeeze(-1).log()
        if slope is None:
            return probabilities, torch.ones_like(largest)
        return probabilities.mul_(slope), slope.gather(-1, target[:, None])

    def _mask(self, pairs: torch.Tensor) -> torch.Tensor | None:
        """Return the rows of the dropout mask for these pairs, ``(n, hidden)``; None for no dropout."""
        return None if self._dropout_mask is None else self._dropout_mask[self._token[pairs]]

    def _grad_lora(self, grad_pairs: torch.Tensor, nonzero: NDArray[np.intp]) -> tuple[torch.Tensor, torch.Tensor]:
        """Compute the gradients of LoRA's A, ``(rank, hidden)``, and B, ``(vocab, rank)``, on the head.

        Args:
            grad_pairs: dL/dlogp, ``(pairs,)``.
            nonzero: The pairs at which it is not 0.
        """
        head = self._head
        assert head.lora_a is not None
        assert head.lora_b is not None
        grad_a, grad_b = torch.zeros_like(head.lora_a), torch.zeros_like(head.lora_b)
        chunks = self._chunks(nonzero) if self._kept is None else [self._kept[0]]
        for chunk in chunks:
            probabilities, slope = self._probabilities(chunk) if self._kept is None else self._kept[1:]
            # dL/d(W h + b) = dL/dlogp * c * f' * (e_y - p), (n, vocab), in the memory of the probabilities
            grad_z = probabilities.neg_()
            grad_z.scatter_add_(-1, self._target[chunk, None], slope)
            grad_z *= grad_pairs[chunk, None] * head.factor
            chunk_a, chunk_b = head.grad_lora(grad_z, self._hidden[self._token[chunk]], self._mask(chunk))
            grad_a += chunk_a
            grad_b += chunk_b
        return grad_a, grad_b
