r"""The LM head: from hidden states to logits, and gradients of log-probabilities with respect to its inputs.

Gradients are written out instead of left to autograd, because they have a closed form. With logits
:math:`z = f(c\,(W h + b))`, :math:`p = \mathrm{softmax}(z)` and target :math:`y`,

.. math:: \frac{\partial \log p_y}{\partial h} = c\, W^\top \left[ f' \odot (e_y - p) \right]

which does not depend on the loss. It can therefore be computed together with :math:`\log p_y`, while the logits are in
memory, and later be scaled by the loss gradient.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

__all__ = ["Head", "head_of"]

# Whether this torch has products of bfloat16 matrices with a float32 result; on CUDA devices only.
HAS_OUT_DTYPE = hasattr(torch.ops.aten.mm, "dtype")


@dataclass(frozen=True)
class Head:
    """The LM head at its current weights, with its LoRA adapter and the family's operations on its logits.

    Logits are ``factor * (hidden @ W.T + bias)`` with ``W = weight + scaling * lora_b @ lora_a``, then, if ``cap`` is
    not 0, ``cap * tanh(logits / cap)``. With dropout, LoRA's input is ``hidden * mask`` instead of ``hidden``; the
    methods take the mask's rows, and None for no dropout.

    Attributes:
        weight: ``(vocab, hidden)``.
        bias: ``(vocab,)`` or None.
        lora_a: LoRA's A, ``(rank, hidden)``, or None.
        lora_b: LoRA's B, ``(vocab, rank)``, or None.
        scaling: Factor of LoRA's product.
        factor: Factor of the logits.
        cap: Bound of the logits; 0 for no cap.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    lora_a: torch.nn.Parameter | None = None
    lora_b: torch.nn.Parameter | None = None
    scaling: float = 1.0
    factor: float = 1.0
    cap: float = 0.0

    @property
    def vocab_size(self) -> int:
        """The number of logits a position."""
        return self.weight.shape[0]

    @property
    def hidden_size(self) -> int:
        """The size of a hidden state."""
        return self.weight.shape[1]

    def in_float32(self) -> Head:
        """Return a copy with float32 weights."""
        bias = None if self.bias is None else self.bias.float()
        return dataclasses.replace(self, weight=self.weight.float(), bias=bias)

    @torch.no_grad()
    def logits(
        self, hidden: torch.Tensor, out: torch.Tensor | None = None, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Compute logits without a graph.

        Args:
            hidden: ``(tokens, hidden)``.
            out: ``(tokens, vocab)`` float32, overwritten with the logits unless they are rounded; a new allocation
                would take a quarter of the product's time in addition.
            mask: Dropout of LoRA's input, ``(tokens, hidden)``, or None.

        Returns:
            ``(tokens, vocab)``, float32.
        """
        if self.rounds_logits(hidden):
            z = F.linear(hidden, self.weight, self.bias).float()  # (tokens, vocab)
        else:
            widened = {} if hidden.dtype == torch.float32 else {"out_dtype": torch.float32}
            z = torch.mm(hidden, self.weight.T, out=out, **widened)  # (tokens, vocab)
            z = z if self.bias is None else z.add_(self.bias)
        if self.lora_a is not None and self.lora_b is not None:
            # In place, with A h as (tokens, rank): a separate B A h would be another (tokens, vocab) matrix.
            z.addmm_(_dropped(hidden.float(), mask) @ self.lora_a.T, self.lora_b.T, alpha=self.scaling)
        return self._scaled(z)

    @staticmethod
    def rounds_logits(hidden: torch.Tensor) -> bool:
        """Return whether :meth:`logits` rounds the product to bfloat16, because the device cannot return float32."""
        return hidden.dtype != torch.float32 and not (hidden.device.type == "cuda" and HAS_OUT_DTYPE)

    @torch.no_grad()
    def logits_at(self, hidden: torch.Tensor, tokens: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Compute one logit a position in float32, also where :meth:`logits` rounds them to bfloat16.

        Args:
            hidden: ``(tokens, hidden)``.
            tokens: Token id of each logit, ``(tokens,)``.
            mask: Dropout of LoRA's input, ``(tokens, hidden)``, or None.

        Returns:
            ``(tokens,)``, float32.
        """
        z = (self.weight_rows(tokens, mask) * hidden.float()).sum(-1)  # (tokens,)
        return self._scaled(z if self.bias is None else z.add_(self.bias[tokens]))

    def _scaled(self, z: torch.Tensor) -> torch.Tensor:
        """Return the logits of ``W h + b``, in place."""
        if self.factor != 1:
            z *= self.factor
        return z.div_(self.cap).tanh_().mul_(self.cap) if self.cap else z

    def slope(self, logits: torch.Tensor) -> torch.Tensor | None:
        """Return :math:`f'` at ``logits``, of their shape; None if there is no cap and it is 1 everywhere."""
        # d/du cap * tanh(u / cap) = 1 - tanh(u / cap) ** 2, and tanh(u / cap) = logits / cap
        return 1 - (logits / self.cap) ** 2 if self.cap else None

    @torch.no_grad()
    def weight_rows(self, tokens: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return :math:`dz_y/dh`, the rows of :math:`W` with LoRA.

        Args:
            tokens: Token ids y, ``(tokens,)``.
            mask: Dropout of LoRA's input, ``(tokens, hidden)``, or None.

        Returns:
            ``(tokens, hidden)``, float32.
        """
        rows = self.weight[tokens].float()  # a copy, so that it can be added to
        return self._add_lora(rows, self.lora_b[tokens], mask) if self.lora_b is not None else rows

    @torch.no_grad()
    def grad_hidden(self, grad_z: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Return dL/dhidden, ``(tokens, hidden)``.

        Args:
            grad_z: dL/d(W h + b), ``(tokens, vocab)``.
            mask: Dropout of LoRA's input, ``(tokens, hidden)``, or None.
        """
        grad = (grad_z.to(self.weight.dtype) @ self.weight).float()  # (tokens, hidden)
        return self._add_lora(grad, grad_z @ self.lora_b, mask) if self.lora_b is not None else grad

    def _add_lora(self, rows: torch.Tensor, low: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Add LoRA's part of a gradient, ``scaling * low @ lora_a * mask``, to ``rows``, ``(tokens, hidden)``."""
        assert self.lora_a is not None
        if mask is None:
            return rows.addmm_(low, self.lora_a, alpha=self.scaling)
        return rows.addcmul_(low @ self.lora_a, mask, value=self.scaling)

    @torch.no_grad()
    def grad_lora(
        self, grad_z: torch.Tensor, hidden: torch.Tensor, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return dL/dA, ``(rank, hidden)``, and dL/dB, ``(vocab, rank)``, from ``grad_z`` = dL/d(W h + b).

        Args:
            grad_z: ``(tokens, vocab)``.
            hidden: The head's input, ``(tokens, hidden)``.
            mask: Dropout of LoRA's input, ``(tokens, hidden)``, or None.
        """
        assert self.lora_a is not None
        assert self.lora_b is not None
        hidden = _dropped(hidden.float(), mask)
        grad_a = (grad_z @ self.lora_b).T @ (hidden * self.scaling)  # (rank, hidden)
        grad_b = grad_z.T @ (hidden @ self.lora_a.T * self.scaling)  # (vocab, rank)
        return grad_a, grad_b


def _dropped(hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    return hidden if mask is None else hidden * mask


def head_of(model: Any, config: Any) -> Head:
    """Return the LM head of a transformers causal language model, with the adapter that is active on it, if any."""
    layer = model.get_output_embeddings()
    divisor = getattr(config, "logits_scaling", None)  # Granite
    factor = (getattr(config, "logit_scale", None) or 1.0) / (divisor or 1.0)  # Cohere
    cap = getattr(config, "final_logit_softcapping", None) or 0.0  # Gemma
    # PEFT replaces a layer with LoRA by a wrapper; a plain layer has none of these attributes.
    active = [] if getattr(layer, "disable_adapters", True) else [n for n in layer.active_adapters if n in layer.lora_A]
    base_layer = getattr(layer, "base_layer", layer)
    weight, bias = base_layer.weight.detach(), getattr(base_layer, "bias", None)
    if not active:
        return Head(weight, bias, factor=factor, cap=cap)
    (name,) = active
    lora_a, lora_b = layer.lora_A[name].weight, layer.lora_B[name].weight
    return Head(weight, bias, lora_a, lora_b, layer.scaling[name], factor, cap)
