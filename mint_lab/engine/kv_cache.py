"""A key-value cache with spare capacity.

Transformers' own cache copies all keys and values for every token, which on a CPU took most of the time of a batch.
Here a token is written in place into buffers that grow by half, and attention reads a view of them. Layers with full or
sliding-window attention are replaced so; other kinds of layers keep transformers' own cache.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from .device import to_device

__all__ = ["KeyValueBuffers", "cache_argument", "cache_bytes_per_token", "layer_configs", "new_cache", "query_heads"]

# A buffer has room for at least this many new tokens when it is allocated.
MIN_SPARE_TOKENS = 64


def new_cache(config: Any) -> DynamicCache:
    """Create an empty cache for a model of ``config``."""
    cache = DynamicCache(config=config)
    cache.layers = [_growing_layer(layer) for layer in cache.layers]
    return cache


def cache_argument(model: Any) -> str:
    """Return the name of the model's cache argument: "cache" since transformers 5.24, before "past_key_values"."""
    return "cache" if "cache" in inspect.signature(type(model).forward).parameters else "past_key_values"


def cache_bytes_per_token(config: Any, itemsize: int) -> int:
    """Return the bytes of keys and values that one token takes, by the usual shapes of a decoder.

    Args:
        config: The configuration of the text model.
        itemsize: Bytes of an element.
    """
    total = 0
    for layer in layer_configs(config):
        heads, dim = query_heads(layer)
        total += 2 * int(getattr(layer, "num_key_value_heads", None) or heads) * dim
    return total * itemsize


def layer_configs(config: Any) -> list[Any]:
    """Return the configuration of every layer; families such as Gemma 4 have layers of different shapes."""
    count = int(getattr(config, "num_hidden_layers", None) or 1)
    if not getattr(config, "is_heterogeneous", False):
        return [config] * count
    return [config.per_layer_config[index] for index in range(count)]


def query_heads(config: Any) -> tuple[int, int]:
    """Return the number of query heads of a layer and the size of each."""
    heads = int(getattr(config, "num_attention_heads", None) or 1)
    return heads, int(getattr(config, "head_dim", None) or config.hidden_size // heads)


def _growing_layer(layer: Any) -> Any:
    if type(layer) is DynamicLayer:
        return _FullLayer()
    if type(layer) is DynamicSlidingWindowLayer:
        return _WindowLayer(int(layer.sliding_window))
    return layer


class KeyValueBuffers:
    """Keys and values of one layer, ``(rows, kv_heads, capacity, dim)`` each; the first ``length`` columns are filled.

    The plain equivalent is ``keys = torch.cat([keys, new], dim=-2)`` for every token. In the methods, ``start`` is the
    first column that is still needed: a sliding window no longer needs those before it.
    """

    def __init__(self) -> None:
        self.length = 0
        self._keys = torch.empty(0)
        self._values = torch.empty(0)

    def append(self, keys: torch.Tensor, values: torch.Tensor, start: int) -> None:
        """Append columns, ``(rows, kv_heads, columns, dim)``; columns before ``start`` may be dropped."""
        before, self.length = self.length, self.length + keys.shape[-2]
        if before == 0:
            self._keys, self._values = keys, values  # no spare room until the first token after the prompt
            return
        if self.length > self._keys.shape[-2]:
            self._keys = _reallocate(self._keys, before, self.length, start)
            self._values = _reallocate(self._values, before, self.length, start)
        self._keys[:, :, before : self.length] = keys
        self._values[:, :, before : self.length] = values

    def since(self, start: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return views of keys and values from column ``start``, ``(rows, kv_heads, length - start, dim)``."""
        return self._keys[:, :, start : self.length], self._values[:, :, start : self.length]

    def select(self, rows: torch.Tensor, start: int) -> None:
        """Keep the rows at these indices, in this order; an index may occur several times."""
        self._keys = _reallocate(self._keys, self.length, self.length, start, rows)
        self._values = _reallocate(self._values, self.length, self.length, start, rows)


def _reallocate(
    old: torch.Tensor, filled: int, needed: int, start: int, rows: torch.Tensor | None = None
) -> torch.Tensor:
    """Copy columns ``start`` to ``filled``, of all or some rows, to a buffer with room for more than ``needed``."""
    count = old.shape[0] if rows is None else len(rows)
    new = old.new_empty(count, old.shape[1], needed + max(MIN_SPARE_TOKENS, needed // 2), old.shape[3])
    kept = old[:, :, start:filled]
    new[:, :, start:filled] = kept if rows is None else kept.index_select(0, to_device(rows, old.device))
    return new


class _FullLayer(DynamicLayer):
    """The cache of a layer with full attention."""

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
        if self._buffers.length:  # a layer that uses another layer's keys has none itself
            self._buffers.select(beam_idx, 0)
            self.keys, self.values = self._buffers.since(0)


class _WindowLayer(DynamicSlidingWindowLayer):
    """The cache of a layer with a sliding window: the next token needs the last ``window - 1`` columns."""

    def __init__(self, window: int) -> None:
        super().__init__(window)
        self._buffers = KeyValueBuffers()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        start = self._start  # of the first new token; attention now reads from here, the cache keeps fewer columns
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
        """The first column that the next token can attend to."""
        return max(self._buffers.length - self.sliding_window + 1, 0)
