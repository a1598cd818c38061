r"""The output layer: from hidden states to logits, and what a log-probability's gradient is with respect to both.

Written out instead of left to autograd, because everything about it is known. With logits
:math:`z = f(c\,(W h + b))`, :math:`p = \mathrm{softmax}(z)` and target :math:`y`,

.. math:: \frac{\partial \log p_y}{\partial h} = c\, W^\top \left[ f' \odot (e_y - p) \right]

which depends on no loss. So it can be made together with :math:`\log p_y` while the logits are there, and a loss's
gradient merely scales it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

__all__ = ["Head", "head_of"]


@dataclass(frozen=True)
class Head:
    """The output layer as it is now, LoRA and what the family does to its logits included.

    Attributes:
        weight: ``(vocab, hidden)``; ``bias``: ``(vocab,)`` or None.
        a, b: LoRA's parameters, ``(rank, hidden)`` and ``(vocab, rank)``, or None; ``scaling``: of their product.
        factor: logits are multiplied by it. ``cap``: then squashed by ``cap * tanh(logits / cap)``; 0 for not.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None = None
    a: torch.nn.Parameter | None = None
    b: torch.nn.Parameter | None = None
    scaling: float = 1.0
    factor: float = 1.0
    cap: float = 0.0

    @property
    def vocab_size(self) -> int:
        return self.weight.shape[0]

    @property
    def hidden_size(self) -> int:
        return self.weight.shape[1]

    @torch.no_grad()
    def logits(self, hidden: torch.Tensor, out: torch.Tensor | None = None) -> torch.Tensor:
        """``(tokens, vocab)``, float32, no graph; of hidden states ``(tokens, hidden)``.

        They are put into ``out`` where that is given: fresh memory costs a quarter of the product's time again.
        """
        if out is not None and hidden.dtype == out.dtype:
            z = torch.mm(hidden, self.weight.T, out=out)
            z = z if self.bias is None else z.add_(self.bias)
        else:
            z = F.linear(hidden, self.weight, self.bias).float()
        if self.a is not None and self.b is not None:
            z.addmm_(hidden.float() @ self.a.T, self.b.T, alpha=self.scaling)
        if self.factor != 1:
            z *= self.factor
        return z.div_(self.cap).tanh_().mul_(self.cap) if self.cap else z

    def slope(self, logits: torch.Tensor) -> torch.Tensor | None:
        """:math:`f'` at these logits, of their shape; None where it is 1 everywhere."""
        return 1 - (logits / self.cap) ** 2 if self.cap else None

    def rows(self, tokens: torch.Tensor) -> torch.Tensor:
        """Rows of :math:`W`, LoRA included, for these token ids: ``(tokens, hidden)``, float32."""
        rows = self.weight[tokens].float()
        if self.a is not None and self.b is not None:
            rows.addmm_(self.b.detach()[tokens], self.a.detach(), alpha=self.scaling)
        return rows

    @torch.no_grad()
    def into_hidden(self, rows: torch.Tensor) -> torch.Tensor:
        """From a gradient with respect to :math:`Wh + b`, ``(tokens, vocab)``, to that of the hidden states."""
        into = (rows.to(self.weight.dtype) @ self.weight).float()
        if self.a is not None and self.b is not None:
            into.addmm_(rows @ self.b, self.a, alpha=self.scaling)
        return into

    @torch.no_grad()
    def into_lora(self, rows: torch.Tensor, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Likewise to those of ``a`` and ``b``; ``hidden`` is what the layer was given."""
        assert self.a is not None
        assert self.b is not None
        hidden = hidden.float()
        return (rows @ self.b).T @ (hidden * self.scaling), rows.T @ (hidden @ self.a.T * self.scaling)


def head_of(model: Any, config: Any) -> Head:
    """The output layer of a causal language model of transformers, with the adapter that is active on it, if any."""
    layer = model.get_output_embeddings()
    divisor = getattr(config, "logits_scaling", None)  # Granite
    factor = (getattr(config, "logit_scale", None) or 1.0) / (divisor or 1.0)  # Cohere
    cap = getattr(config, "final_logit_softcapping", None) or 0.0  # Gemma
    active = [] if getattr(layer, "disable_adapters", True) else [n for n in layer.active_adapters if n in layer.lora_A]
    layer_itself = getattr(layer, "base_layer", layer)
    weight, bias = layer_itself.weight.detach(), getattr(layer_itself, "bias", None)
    if not active:
        return Head(weight, bias, factor=factor, cap=cap)
    (name,) = active
    a, b = layer.lora_A[name].weight, layer.lora_B[name].weight
    return Head(weight, bias, a, b, layer.scaling[name], factor, cap)
