"""A key-value cache with room to grow.

transformers' own cache copies all keys and values for every token, which on a CPU took most of the time of a batch.
Here a token is written in place into buffers that are enlarged by halves; what attention reads is a view of them.
Layers that look back without limit or through a sliding window are treated so, others keep transformers' own.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

__all__ = ["KeyValueBuffers", "cache_argument", "cache_bytes", "new_cache"]

# Room for new tokens in a buffer that is made, at least.
ROOM = 64


def new_cache(config: Any) -> DynamicCache:
    """An empty cache for a model of ``config``."""
    cache = DynamicCache(config=config)
    cache.layers = [_with_room(layer) for layer in cache.layers]
    return cache


def cache_argument(model: Any) -> str:
    """What a model of transformers calls its cache: "cache" since release 5.24, "past_key_values" before."""
    return "cache" if "cache" in inspect.signature(type(model).forward).parameters else "past_key_values"


def cache_bytes(config: Any, itemsize: int) -> int:
    """Bytes of keys and values that one token takes, by the usual shapes of a decoder."""
    heads = int(getattr(config, "num_attention_heads", None) or 1)
    dim = int(getattr(config, "head_dim", None) or config.hidden_size // heads)
    shared = int(getattr(config, "num_key_value_heads", None) or heads)
    return 2 * int(getattr(config, "num_hidden_layers", None) or 1) * shared * dim * itemsize


def _with_room(layer: Any) -> Any:
    if type(layer) is DynamicLayer:
        return _Layer()
    if type(layer) is DynamicSlidingWindowLayer:
        return _WindowLayer(int(layer.sliding_window))
    return layer


class KeyValueBuffers:
    """Keys and values of one layer, ``(rows, heads, capacity, dim)``, of which the first ``length`` columns are filled.

    ``start`` is the first column that is still wanted: a sliding window leaves the ones before it behind.
    """

    def __init__(self) -> None:
        self.length = 0
        self._keys = torch.empty(0)
        self._values = torch.empty(0)

    def append(self, keys: torch.Tensor, values: torch.Tensor, start: int) -> None:
        """Add columns after the last one; those before ``start`` may go where the buffers have to be enlarged."""
        before, self.length = self.length, self.length + keys.shape[-2]
        if before == 0:
            self._keys, self._values = keys, values  # a prompt stands alone until the first token after it
            return
        if self.length > self._keys.shape[-2]:
            self._keys = _enlarged(self._keys, before, self.length, start)
            self._values = _enlarged(self._values, before, self.length, start)
        self._keys[:, :, before : self.length] = keys
        self._values[:, :, before : self.length] = values

    def since(self, start: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Views of the columns from ``start`` on."""
        return self._keys[:, :, start : self.length], self._values[:, :, start : self.length]

    def select(self, rows: torch.Tensor, start: int) -> None:
        """Keep these rows, in this order; a row may be taken several times."""
        self._keys = _enlarged(self._keys, self.length, self.length, start, rows)
        self._values = _enlarged(self._values, self.length, self.length, start, rows)


def _enlarged(
    old: torch.Tensor, filled: int, wanted: int, start: int, rows: torch.Tensor | None = None
) -> torch.Tensor:
    """A copy of columns ``start`` to ``filled`` in a buffer for ``wanted`` columns and some more."""
    count = old.shape[0] if rows is None else len(rows)
    new = old.new_empty(count, old.shape[1], wanted + max(ROOM, wanted // 2), old.shape[3])
    kept = old[:, :, start:filled]
    new[:, :, start:filled] = kept if rows is None else kept.index_select(0, rows.to(old.device))
    return new


class _Layer(DynamicLayer):
    """Attention that looks back without limit."""

    def __init__(self) -> None:
        super().__init__()
        self._buffers = KeyValueBuffers()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        self._buffers.append(key_states, value_states, 0)
        self.keys, self.values = self._buffers.since(0)
        return self.keys, self.values

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        if self._buffers.length:  # a layer may use another one's keys and have none
            self._buffers.select(beam_idx, 0)
            self.keys, self.values = self._buffers.since(0)


class _WindowLayer(DynamicSlidingWindowLayer):
    """Attention through a sliding window: of what lies before a token, ``window - 1`` columns are wanted."""

    def __init__(self, window: int) -> None:
        super().__init__(window)
        self._buffers = KeyValueBuffers()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self._start
        self._buffers.append(key_states, value_states, start)
        self.cumulative_length = self._buffers.length
        self.keys, self.values = self._buffers.since(self._start)
        return self._buffers.since(start)

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        if self._buffers.length:
            self._buffers.select(beam_idx, self._start)
            self.keys, self.values = self._buffers.since(self._start)

    @property
    def _start(self) -> int:
        return max(self._buffers.length - self.sliding_window + 1, 0)
