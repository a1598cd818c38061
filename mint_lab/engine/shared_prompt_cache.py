r"""Attention of the next tokens of many samples, the keys and values of a prompt stored and read once for all of them.

A token's attention is the softmax over its prompt's columns and over its own sample's. Both are summed by themselves,

.. math:: o = \frac{e^{m_p - m} \sum_j e^{s_j - m_p} v_j + e^{m_q - m} \sum_k e^{s_k - m_q} v_k}
                   {e^{m_p - m} \sum_j e^{s_j - m_p} + e^{m_q - m} \sum_k e^{s_k - m_q}}

with :math:`m_p`, :math:`m_q` the largest scores of each part and :math:`m` the larger one. What generation waits for on
a CPU is memory: eight samples of a prompt read it once instead of eight times.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from contextvars import ContextVar
from typing import Any

import torch
from transformers import AttentionInterface, DynamicCache
from transformers.cache_utils import DynamicLayer

from .kv_cache import KeyValueBuffers

__all__ = ["SharedPromptCache"]

NAME = "mint_lab_continuing"

_now: ContextVar[SharedPromptCache] = ContextVar("continuing")


class SharedPromptCache:
    """Samples, the prompts that they continue, and the cache of both.

    Attributes:
        cache: give it to the model, with the prompts first and then, within :meth:`attending`,
            with a token of every sample at a time.
        owner: ``(samples,)``: the prompt of each.
    """

    def __init__(self, config: Any, owner: torch.Tensor, pads: torch.Tensor, width: int, device: torch.device) -> None:
        """``pads``: columns of padding before each prompt, ``(prompts,)``; ``width``: columns of all of them."""
        self._config = config
        self._device = device
        self.cache = DynamicCache(config=config)
        self._layers = [_Layer() for _ in self.cache.layers]
        self.cache.layers[:] = self._layers
        hidden = torch.arange(width) < pads[:, None]
        self._hidden = torch.zeros(hidden.shape).masked_fill_(hidden, float("-inf"))[:, None, None].to(device)
        self._arrange(owner)

    @contextlib.contextmanager
    def attending(self) -> Generator[None]:
        """In here the model's tokens are the samples' next ones."""
        before = self._config._attn_implementation
        token = _now.set(self)
        self._config._attn_implementation = NAME
        try:
            yield
        finally:
            self._config._attn_implementation = before
            _now.reset(token)

    def select(self, samples: torch.Tensor) -> None:
        """Keep these samples, in this order, and the prompts that they continue."""
        prompts, owner = torch.unique(self.owner[samples], return_inverse=True)
        fewer = len(prompts) < len(self._hidden)
        prompts = prompts.to(self._device)
        if fewer:
            self._hidden = self._hidden[prompts]
        for layer in self._layers:
            layer.select(samples.to(self._device), prompts if fewer else None)
        self._arrange(owner)

    def _arrange(self, owner: torch.Tensor) -> None:
        """A table of samples by prompt, ``(prompts, most samples)``, and the place of each sample in it."""
        self.owner = owner
        prompts = len(self._hidden)
        order = torch.argsort(owner, stable=True)
        counts = torch.bincount(owner, minlength=prompts)
        most = int(counts.max())
        rank = torch.arange(len(owner)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        places = torch.empty_like(owner)
        places[order] = owner[order] * most + rank
        table = torch.zeros(prompts * most, dtype=torch.int64)
        table[places] = torch.arange(len(owner))
        self._places, self._table = places.to(self._device), table.to(self._device)

    def attend(self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, layer: int, cap: float | None) -> Any:
        """Output ``(samples, heads, dim)`` of scaled queries of that shape; the samples' own keys and values given."""
        prompts = self._layers[layer]
        by_prompt = q[self._table].view(len(self._hidden), -1, *q.shape[1:])  # (prompts, most, heads, dim)
        of_prompt = _part(by_prompt, (prompts.prompt_keys, prompts.prompt_values), self._hidden, cap)
        of_own = _part(q[:, None], (keys, values), None, cap)
        found = [piece.flatten(0, 1)[self._places] for piece in of_prompt]
        others = [piece.flatten(0, 1) for piece in of_own]
        most = torch.maximum(found[1], others[1])
        a, b = (found[1] - most).exp_(), (others[1] - most).exp_()
        return (found[0] * a + others[0] * b) / (found[2] * a + others[2] * b)


class _Layer(DynamicLayer):
    """Keys and values of the prompts, then those of the samples."""

    def __init__(self) -> None:
        super().__init__()
        self.prompt_keys: torch.Tensor | None = None
        self.prompt_values: torch.Tensor | None = None
        self._buffers = KeyValueBuffers()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.prompt_keys is None:
            self.lazy_initialization(key_states, value_states)
            # Laid out as the product with them wants it: it would be done again for every token.
            self.prompt_keys = key_states.transpose(-1, -2).contiguous().transpose(-1, -2)
            self.prompt_values = value_states.contiguous()
            self.keys, self.values = key_states, value_states
        else:
            self._buffers.append(key_states, value_states, 0)
            self.keys, self.values = self._buffers.since(0)
        return self.keys, self.values

    def select(self, samples: torch.Tensor, prompts: torch.Tensor | None) -> None:
        if self._buffers.length:
            self._buffers.select(samples, 0)
            self.keys, self.values = self._buffers.since(0)
        if prompts is not None and self.prompt_keys is not None and self.prompt_values is not None:
            keys = self.prompt_keys.transpose(-1, -2)[prompts]
            self.prompt_keys, self.prompt_values = keys.transpose(-1, -2), self.prompt_values[prompts]


def _part(
    q: torch.Tensor, columns: tuple[Any, Any], hidden: torch.Tensor | None, cap: float | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Unnormalized attention: weighted values, largest score, and sum of exponentials.

    Args:
        q: ``(batch, samples, heads, dim)``; ``columns``: keys and values, ``(batch, groups, columns, dim)`` each.
        hidden: ``(batch, 1, 1, columns)``, added to the scores.

    Returns:
        ``(batch, samples, heads, dim)``, and twice ``(batch, samples, heads, 1)``, all float32.
    """
    keys, values = columns
    batch, samples, heads, _ = q.shape
    groups = keys.shape[1]
    each = q.unflatten(2, (groups, -1)).transpose(1, 2).flatten(2, 3)  # (batch, groups, samples * heads / groups, dim)
    scores = (each @ keys.transpose(-1, -2)).float()
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    if hidden is not None:
        scores = scores + hidden
    most = scores.amax(-1, keepdim=True)
    weights = scores.sub_(most).exp_()
    total = weights.sum(-1, keepdim=True)
    output = (weights.to(values.dtype) @ values).float()
    found = (output, most, total)
    return tuple(  # pyright: ignore[reportReturnType]
        x.view(batch, groups, samples, heads // groups, -1).transpose(1, 2).flatten(2, 3) for x in found
    )


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """The attention interface of transformers, of one token a sample: ``(samples, heads, 1, dim)``."""
    if s_aux is not None or sliding_window is not None:
        raise NotImplementedError("attention sinks and sliding windows")
    q = query[:, :, 0] * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    output = _now.get().attend(q, key, value, module.layer_idx, softcap)
    return output.to(query.dtype)[:, None], None


AttentionInterface.register(NAME, _attention)
