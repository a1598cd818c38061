r"""Key-value cache of many samples in which all samples of one prompt share the prompt's keys and values.

The next token of a sample attends to the columns of its prompt and to those of the sample itself. The softmax over both
is computed from two partial sums,

.. math:: o = \frac{e^{m_p - m} \sum_j e^{s_j - m_p} v_j + e^{m_q - m} \sum_k e^{s_k - m_q} v_k}
                   {e^{m_p - m} \sum_j e^{s_j - m_p} + e^{m_q - m} \sum_k e^{s_k - m_q}}

with :math:`m_p` and :math:`m_q` the largest scores of the prompt and of the sample, and :math:`m` the larger of them.
The plain equivalent copies the prompt's keys and values for each sample::

    k = torch.cat([prompt_keys[owner], sample_keys], dim=-2)  # (samples, kv_heads, prompt + sample columns, dim)
    v = torch.cat([prompt_values[owner], sample_values], dim=-2)
    o = torch.softmax(q @ k.transpose(-1, -2), dim=-1) @ v

On a CPU, generation is limited by reading memory: eight samples of a prompt read it once instead of eight times.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from contextvars import ContextVar
from typing import Any

import torch
from transformers import AttentionInterface, DynamicCache
from transformers.cache_utils import DynamicLayer

from .device import to_device
from .kv_cache import KeyValueBuffers

__all__ = ["SharedPromptCache"]

ATTENTION_NAME = "mint_lab_shared_prompt"

_current_cache: ContextVar[SharedPromptCache] = ContextVar("current_cache")


class SharedPromptCache:
    """The cache of some prompts and of the samples that continue them.

    Run the model on the prompts first. Then, within :meth:`use`, run it on one token of every sample at a time.

    Args:
        config: The configuration of the text model.
        owner: The index of each sample's prompt, ``(samples,)``.
        pads: Columns of padding before each prompt, ``(prompts,)``.
        width: Columns of every prompt, padding included.
        device: The device that the model runs on.

    Attributes:
        cache: The cache to pass to the model.
        owner: As above, for the samples that are left.
    """

    def __init__(self, config: Any, owner: torch.Tensor, pads: torch.Tensor, width: int, device: torch.device) -> None:
        self._config = config
        self._device = device
        self.cache = DynamicCache(config=config)
        self._layers = [_PromptAndSampleLayer() for _ in self.cache.layers]
        self.cache.layers[:] = self._layers
        is_padding = torch.arange(width) < pads[:, None]  # (prompts, width)
        mask = torch.zeros(is_padding.shape).masked_fill_(is_padding, float("-inf"))
        self._prompt_mask = to_device(mask[:, None, None], device)  # (prompts, 1, 1, width)
        self._assign(owner)

    @contextlib.contextmanager
    def use(self) -> Generator[None]:
        """Within this context, the model's input is the next token of every sample."""
        before = self._config._attn_implementation
        token = _current_cache.set(self)
        self._config._attn_implementation = ATTENTION_NAME
        try:
            yield
        finally:
            self._config._attn_implementation = before
            _current_cache.reset(token)

    def select(self, samples: torch.Tensor) -> None:
        """Keep the samples at these indices, in this order, and only the prompts that they continue."""
        prompts, owner = torch.unique(self.owner[samples], return_inverse=True)
        some_ended = len(prompts) < len(self._prompt_mask)  # if not, the prompts need no copy
        prompts = to_device(prompts, self._device)
        if some_ended:
            self._prompt_mask = self._prompt_mask[prompts]
        for layer in self._layers:
            layer.select(to_device(samples, self._device), prompts if some_ended else None)
        self._assign(owner)

    def _assign(self, owner: torch.Tensor) -> None:
        """Arrange the samples in a table with a row for each prompt, ``(prompts, most samples)``.

        ``_samples`` has the sample of each cell of the flattened table (0 in unused cells, whose results are never
        read), ``_cells`` the cell of each sample.
        """
        self.owner = owner
        n_prompts = len(self._prompt_mask)
        order = torch.argsort(owner, stable=True)  # samples by prompt
        counts = torch.bincount(owner, minlength=n_prompts)
        most = int(counts.max())
        # The number of each sample, in `order`, among those of its prompt: 0, 1, 2, 0, 1, ...
        column = torch.arange(len(owner)) - torch.repeat_interleave(counts.cumsum(0) - counts, counts)
        cells = torch.empty_like(owner)
        cells[order] = owner[order] * most + column
        samples = torch.zeros(n_prompts * most, dtype=torch.int64)
        samples[cells] = torch.arange(len(owner))
        self._cells, self._samples = to_device(cells, self._device), to_device(samples, self._device)

    def attend(
        self, q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, layer: int, softcap: float | None
    ) -> torch.Tensor:
        """Compute the attention of the samples' next tokens.

        Args:
            q: Queries, already scaled, ``(samples, heads, dim)``.
            keys: The samples' own keys, ``(samples, kv_heads, columns, dim)``.
            values: The samples' own values, of the same shape.
            layer: Number of the layer.
            softcap: Scores are squashed to ``softcap * tanh(scores / softcap)``; None for no cap.

        Returns:
            ``(samples, heads, dim)``, float32.
        """
        prompts = self._layers[layer]
        # 1. Queries arranged by prompt, so that one product reads each prompt once.
        by_prompt = q[self._samples].view(len(self._prompt_mask), -1, *q.shape[1:])  # (prompts, most, heads, dim)
        prompt_part = _partial_attention(
            by_prompt, prompts.prompt_keys, prompts.prompt_values, self._prompt_mask, softcap
        )
        sample_part = _partial_attention(q[:, None], keys, values, None, softcap)
        # 2. Back to one row a sample: output (samples, heads, dim), maximum and total (samples, heads, 1).
        output_p, max_p, total_p = (x.flatten(0, 1)[self._cells] for x in prompt_part)
        output_s, max_s, total_s = (x.flatten(0, 1) for x in sample_part)
        # 3. Combine the two partial sums, relative to the larger maximum.
        largest = torch.maximum(max_p, max_s)
        scale_p, scale_s = (max_p - largest).exp_(), (max_s - largest).exp_()
        return (output_p * scale_p + output_s * scale_s) / (total_p * scale_p + total_s * scale_s)


class _PromptAndSampleLayer(DynamicLayer):
    """Keys and values of one layer: those of the prompts from the first call, then those of the samples."""

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
            # Stored as q @ keys.T reads them, contiguous along the columns; otherwise every token would copy them.
            self.prompt_keys = key_states.transpose(-1, -2).contiguous().transpose(-1, -2)
            self.prompt_values = value_states.contiguous()
            self.keys, self.values = key_states, value_states
        else:
            self._buffers.append(key_states, value_states, 0)
            self.keys, self.values = self._buffers.since(0)
        return self.keys, self.values

    def select(self, samples: torch.Tensor, prompts: torch.Tensor | None) -> None:
        """Keep these samples and, unless ``prompts`` is None, these prompts."""
        if self._buffers.length:
            self._buffers.select(samples, 0)
            self.keys, self.values = self._buffers.since(0)
        if prompts is not None and self.prompt_keys is not None and self.prompt_values is not None:
            keys = self.prompt_keys.transpose(-1, -2)[prompts]  # indexed in the stored layout, which is kept
            self.prompt_keys, self.prompt_values = keys.transpose(-1, -2), self.prompt_values[prompts]


def _partial_attention(
    q: torch.Tensor, keys: Any, values: Any, mask: torch.Tensor | None, softcap: float | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    r"""Compute unnormalized attention over some of the columns.

    Args:
        q: Scaled queries, ``(batch, samples, heads, dim)``.
        keys: ``(batch, kv_heads, columns, dim)``.
        values: ``(batch, kv_heads, columns, dim)``.
        mask: Added to the scores, ``(batch, 1, 1, columns)``, or None.
        softcap: Scores are squashed to ``softcap * tanh(scores / softcap)``; None for no cap.

    Returns:
        With scores :math:`s_j` and their maximum :math:`m`: :math:`\sum_j e^{s_j - m} v_j`,
        ``(batch, samples, heads, dim)``; :math:`m` and :math:`\sum_j e^{s_j - m}`, ``(batch, samples, heads, 1)``. All
        are float32.
    """
    batch, samples, heads, _ = q.shape
    kv_heads = keys.shape[1]
    # Query heads of one key head become rows of one product: (batch, kv_heads, samples * heads / kv_heads, dim).
    grouped_q = q.unflatten(2, (kv_heads, -1)).transpose(1, 2).flatten(2, 3)
    scores = (grouped_q @ keys.transpose(-1, -2)).float()  # (batch, kv_heads, rows, columns)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if mask is not None:
        scores = scores + mask
    largest = scores.amax(-1, keepdim=True)
    weights = scores.sub_(largest).exp_()
    total = weights.sum(-1, keepdim=True)  # (batch, kv_heads, rows, 1)
    output = (weights.to(values.dtype) @ values).float()  # (batch, kv_heads, rows, dim)
    return tuple(  # pyright: ignore[reportReturnType]
        x.view(batch, kv_heads, samples, heads // kv_heads, -1).transpose(1, 2).flatten(2, 3)
        for x in (output, largest, total)
    )


def _shared_prompt_attention(
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
    """Implement transformers' attention interface with the current cache, for one token of each sample.

    Args:
        module: The attention layer, which has its number.
        query: ``(samples, heads, 1, dim)``.
        key: The samples' own keys, ``(samples, kv_heads, columns, dim)``; value alike.
        attention_mask: Not used: the cache knows the padding.
        scaling: Factor of the scores; None for ``dim ** -0.5``.
        softcap: As in :meth:`SharedPromptCache.attend`.
        sliding_window: The layer's window.
        s_aux: Attention sinks.

    Returns:
        ``(samples, 1, heads, dim)``, and None for the attention weights.

    Raises:
        NotImplementedError: If the layer has a sliding window or attention sinks.
    """
    if s_aux is not None or sliding_window is not None:
        raise NotImplementedError("attention sinks and sliding windows")
    q = query[:, :, 0] * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    output = _current_cache.get().attend(q, key, value, module.layer_idx, softcap)
    return output.to(query.dtype)[:, None], None


AttentionInterface.register(ATTENTION_NAME, _shared_prompt_attention)
