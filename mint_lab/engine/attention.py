r"""Attention over a packed row: each token attends to the tokens before it in its own sequence, prefix included.

The linear layers process one long row of tokens without padding. Attention cannot, because what a token may attend to
depends on its sequence. Without the optimizations below, packed attention is::

    for index, shared in zip(layout.token_index, layout.shared_lengths):  # index: (N_i,), all tokens of one sequence
        own = index[shared:]  # the tokens that this sequence stores, after the shared prefix
        output[own] = attend(q[own], k[index], v[index])  # causal, aligned at the end

With :math:`o` own tokens that is :math:`o N` query-key products a sequence. One masked call for the whole row would
take the square of the batch.

Two optimizations reduce the number of calls and of copies. Attention runs over :class:`Block`\ s. A long sequence is a
block by itself: its queries are a slice, and so are its keys unless it shares a prefix. Short sequences are gathered
and padded into one block of many, because a call costs as much as a few thousand products. A block needs no mask only
if it is one sequence that shares no prefix and does not exceed the layer's sliding window: then attention is plainly
causal. On CUDA devices, one kernel computes most layers in one call instead (:mod:`mint_lab.engine.varlen_attention`).

The function is plugged into a model family through transformers' registry of attention functions, for the duration of
a pass. A family that bypasses the registry is detected when its model is loaded
(:mod:`mint_lab.engine.family_probes`).
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Generator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from transformers import AttentionInterface

from .device import add_rows, to_device
from .packing import Layout
from .varlen_attention import VarlenPlan, plan_varlen, supports_varlen, varlen_attention

__all__ = ["AttentionPlan", "Block", "plan_attention", "use_packed_attention"]

ATTENTION_NAME = "mint_lab_packed"
# Fixed cost of one attention call by device, in multiply-adds (query-key products times features). A sequence joins a
# block if the additional padding costs less than a separate call.
CALL_COST = {"cpu": 1 << 20}
DEFAULT_CALL_COST = 1 << 25
# A sequence whose own work exceeds that of this many calls is long.
LONG_SEQUENCE_CALLS = 8

_current_plan: ContextVar[AttentionPlan] = ContextVar("current_plan")


@dataclass(frozen=True)
class Block:
    """Sequences whose attention is computed in one call.

    Attributes:
        queries: Indices of the tokens that the sequences store themselves, ``(sequences, queries)``, padded at the
            end. For a single sequence a slice.
        keys: Indices of all tokens of the sequences, ``(sequences, keys)``, padded at the end. For a single sequence a
            slice if it shares no prefix, otherwise the contiguous runs of its token indices.
        suffix_lengths: For each sequence, the number of its queries, ``(sequences,)``.
        shared_lengths: For each sequence, the number of its keys before its first query, ``(sequences,)``.
        real: Indices into the flattened ``queries`` that are not padding; None for a single sequence.
    """

    queries: slice | torch.Tensor
    keys: slice | tuple[slice, ...] | torch.Tensor
    suffix_lengths: torch.Tensor
    shared_lengths: torch.Tensor
    real: torch.Tensor | None

    def mask(self, window: int | None) -> torch.Tensor | None:
        """Return which keys each query may attend to.

        Args:
            window: The number of tokens that a query may attend to, itself included; None for no limit.

        Returns:
            ``(sequences, 1, queries, keys)``, bool; None if plain causal attention does the same: for one sequence
            that shares no prefix and does not exceed the window.
        """
        lengths = self.shared_lengths + self.suffix_lengths  # (sequences,)
        longest = int(lengths.max())
        if isinstance(self.keys, slice) and (window is None or longest <= window):
            return None
        # Position of each query in its sequence, (sequences, queries). A padding query gets the position of the last
        # real one: if it could attend to nothing, its softmax would be nan.
        query = torch.arange(int(self.suffix_lengths.max())) + self.shared_lengths[:, None]
        query = torch.minimum(query, (lengths - 1)[:, None])[:, :, None]
        key = torch.arange(longest)
        allowed = key <= query  # excludes padding keys too: they lie after the last real position
        return (allowed if window is None else allowed & (key > query - window))[:, None]


@dataclass
class AttentionPlan:
    """A layout on a device, as blocks or as the arguments of one call, and the masks that all layers of a pass share.

    Attributes:
        layout: A packed layout.
        call_cost: Fixed cost of an attention call, in query-key products.
        device: The device that attention runs on.
        windows: The sliding windows that layers have passed so far; None stands for a layer without a window.
    """

    layout: Layout
    call_cost: int
    device: torch.device
    windows: set[int | None] = field(default_factory=set)
    _masks: dict[tuple[int, int | None, torch.dtype], torch.Tensor | None] = field(default_factory=dict)

    @functools.cached_property
    def blocks(self) -> list[Block]:
        """The blocks; each stored token is a query in exactly one of them."""
        sequences = list(zip(self.layout.token_index, self.layout.shared_lengths, strict=True))
        # (own tokens, all tokens, index). A duplicate of an earlier sequence stores no token, so it has no query.
        sizes = [(len(index) - shared, len(index), i) for i, (index, shared) in enumerate(sequences)]
        groups = _group(sorted((size for size in sizes if size[0]), reverse=True), self.call_cost)
        return [_block([sequences[i] for i in group], self.device) for group in groups]

    @functools.cached_property
    def varlen(self) -> VarlenPlan:
        """The arguments of a call that computes all sequences."""
        return plan_varlen(self.layout, self.device)

    def mask(self, block: int, window: int | None, dtype: torch.dtype) -> torch.Tensor | None:
        """Return the mask of block number ``block`` as a summand of the scores: 0 if allowed, -inf if not."""
        key = (block, window, dtype)
        if key not in self._masks:
            allowed = self.blocks[block].mask(window)
            added = None
            if allowed is not None:
                added = torch.zeros(allowed.shape, dtype=dtype).masked_fill_(~allowed, float("-inf"))
            self._masks[key] = None if added is None else to_device(added, self.device)
        return self._masks[key]


@contextlib.contextmanager
def use_packed_attention(config: Any, plan: AttentionPlan) -> Generator[None]:
    """Within this context, models of ``config`` compute attention by ``plan``; may be nested."""
    before = config._attn_implementation
    token = _current_plan.set(plan)
    config._attn_implementation = ATTENTION_NAME
    try:
        yield
    finally:
        config._attn_implementation = before
        _current_plan.reset(token)


def plan_attention(layout: Layout, features: int, device: torch.device) -> AttentionPlan:
    """Return the plan for a packed layout.

    Args:
        layout: A packed layout.
        features: Size of all query heads together; each query-key product costs this many multiply-adds.
        device: The device that attention runs on.
    """
    return AttentionPlan(layout, CALL_COST.get(device.type, DEFAULT_CALL_COST) // max(features, 1), device)


def _group(sizes: list[tuple[int, int, int]], call_cost: int) -> list[list[int]]:
    """Put sequences into one block if the padding costs less than another call.

    A long sequence stays alone even if the next is as long: a block of two would need copies and a mask to save one
    call in many.

    Args:
        sizes: (own tokens, all tokens, index) of each sequence, the longest first.
        call_cost: Cost of a call in query-key products.

    Returns:
        The indices of the sequences in each block.
    """
    groups: list[list[int]] = []
    queries = keys = 0  # of the last group; its first sequence has the most queries
    for n_own, n_all, index in sizes:
        if groups and queries * keys <= LONG_SEQUENCE_CALLS * call_cost:
            count, wider = len(groups[-1]), max(keys, n_all)
            together, apart = (count + 1) * queries * wider, count * queries * keys + n_own * n_all
            if together <= apart + call_cost:
                groups[-1].append(index)
                keys = wider
                continue
        groups.append([index])
        queries, keys = n_own, n_all
    return groups


def _block(members: list[tuple[NDArray[np.int64], int]], device: torch.device) -> Block:
    """Build the block of some sequences, given as (token index, length of the shared prefix)."""
    suffix_lengths = torch.tensor([len(index) - shared for index, shared in members])
    shared_lengths = torch.tensor([shared for _, shared in members])
    if len(members) == 1:
        index, shared = members[0]
        queries = slice(int(index[shared]), int(index[-1]) + 1)  # own tokens are stored contiguously
        return Block(queries, _runs(index) if shared else queries, suffix_lengths, shared_lengths, None)
    queries = _padded([index[shared:] for index, shared in members])
    keys = _padded([index for index, _ in members])
    real = (torch.arange(queries.shape[1]) < suffix_lengths[:, None]).flatten().nonzero().flatten()
    on_device = (to_device(index, device) for index in (queries, keys, real))
    queries, keys, real = on_device
    return Block(queries, keys, suffix_lengths, shared_lengths, real)


def _runs(index: NDArray[np.int64]) -> tuple[slice, ...]:
    """Return ``index`` as contiguous slices, in order: adding into slices is much faster than into scattered rows."""
    starts = np.flatnonzero(np.diff(index, prepend=-2) != 1)
    ends = [*starts[1:], len(index)]
    return tuple(slice(int(index[a]), int(index[b - 1]) + 1) for a, b in zip(starts, ends, strict=True))


def _padded(rows: list[NDArray[np.int64]]) -> torch.Tensor:
    """Stack index rows into ``(rows, longest)``, padded with 0: any valid index, since masks exclude it."""
    table = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    for i, row in enumerate(rows):
        table[i, : len(row)] = row
    return torch.from_numpy(table)


def _packed_attention(
    module: torch.nn.Module,
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
    """Implement transformers' attention interface with the current plan.

    Args:
        module: The attention layer; not used.
        query: ``(1, heads, tokens, dim)``; key, value: ``(1, kv_heads, tokens, dim)``.
        attention_mask: Not used: the plan has the masks.
        scaling: Factor of the scores; None for ``dim ** -0.5``.
        softcap: Scores are squashed to ``softcap * tanh(scores / softcap)``; None for no cap.
        sliding_window: Tokens that a query may attend to, itself included; None for no limit.
        s_aux: Attention sinks.

    Returns:
        ``(1, tokens, heads, dim)``, and None for the attention weights.

    Raises:
        NotImplementedError: If the family uses attention sinks.
    """
    if s_aux is not None:
        raise NotImplementedError("attention sinks")
    plan = _current_plan.get()
    plan.windows.add(sliding_window)
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # (tokens, heads, dim)
    attend = supports_varlen(q, v, softcap)
    if attend is not None:
        return varlen_attention(attend, (q, k, v), plan.varlen, scaling=scaling, window=sliding_window)[None], None
    options = _LayerOptions(plan, scaling, softcap, sliding_window)
    return _BlockAttention.apply(q, k, v, options)[None], None  # pyright: ignore[reportOptionalSubscript]


AttentionInterface.register(ATTENTION_NAME, _packed_attention)


@dataclass(frozen=True)
class _LayerOptions:
    """A layer's arguments besides its queries, keys and values."""

    plan: AttentionPlan
    scaling: float | None
    softcap: float | None
    window: int | None


class _BlockAttention(torch.autograd.Function):
    """Attention of all blocks of a layer, ``(tokens, heads, dim)`` to ``(tokens, heads, v_dim)``.

    The plain equivalent is the loop in the module's docstring, differentiated by autograd. Here each block has a
    separate graph, built on copies or views of its queries, keys and values. In one common graph, the backward pass of
    every slice and every gather would allocate a gradient of the size of the whole batch.
    """

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, options: _LayerOptions) -> torch.Tensor:
        plan = options.plan
        output = v.new_empty(q.shape[0], q.shape[1], v.shape[2])  # (tokens, heads, v_dim)
        graphs: list[tuple[torch.Tensor, list[torch.Tensor]]] = []
        needs_grad = any(ctx.needs_input_grad[:3])
        for i, block in enumerate(plan.blocks):
            # (sequences, heads or kv_heads, length, dim)
            block_inputs = [_gather(q, block.queries), _gather(k, block.keys), _gather(v, block.keys)]
            with torch.set_grad_enabled(needs_grad):  # autograd is off within forward()
                block_inputs = [x.detach().requires_grad_(needs_grad) for x in block_inputs]
                block_output = _attend(*block_inputs, plan.mask(i, options.window, q.dtype), options)
            _put(output, block.queries, block.real, block_output.detach())
            graphs.append((block_output, block_inputs))
        if needs_grad:
            ctx.graphs, ctx.plan, ctx.shapes = graphs, plan, (q.shape, k.shape, v.shape)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_output: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q_shape, k_shape, v_shape = ctx.shapes  # (tokens, heads, dim); k and v: (tokens, kv_heads, dim)
        # Each token is a query in exactly one block, so grad_q is written once; keys can be shared, so they accumulate.
        grad_q = grad_output.new_empty(q_shape)
        grad_k, grad_v = grad_output.new_zeros(k_shape), grad_output.new_zeros(v_shape)
        for block, (block_output, block_inputs) in zip(ctx.plan.blocks, ctx.graphs, strict=True):
            if block.real is None:  # a single sequence, no padding
                grad_block = grad_output[block.queries]
            else:
                query_index = block.queries.flatten()[block.real]
                grad_block = grad_output.new_zeros(block_output.shape)  # (sequences * queries, heads, v_dim)
                grad_block[block.real] = grad_output[query_index]
            dq, dk, dv = torch.autograd.grad(block_output, block_inputs, grad_block)  # (sequences, heads, length, dim)
            _put(grad_q, block.queries, block.real, dq.transpose(1, 2).flatten(0, 1))  # writes (tokens, heads, dim)
            _add(grad_k, block.keys, dk.transpose(1, 2))
            _add(grad_v, block.keys, dv.transpose(1, 2))
        del ctx.graphs  # free the per-block graphs
        return grad_q, grad_k, grad_v, None


def _gather(x: torch.Tensor, index: slice | tuple[slice, ...] | torch.Tensor) -> torch.Tensor:
    """Select the rows of ``x`` that a block uses: ``(tokens, heads, dim)`` to ``(sequences, heads, length, dim)``."""
    if isinstance(index, slice):
        return x[index].transpose(0, 1)[None]
    if isinstance(index, tuple):
        return torch.cat([x[run] for run in index]).transpose(0, 1)[None]
    return x.index_select(0, index.flatten()).view(*index.shape, *x.shape[1:]).transpose(1, 2)


def _put(x: torch.Tensor, index: slice | torch.Tensor, real: torch.Tensor | None, rows: torch.Tensor) -> None:
    """Write ``rows``, ``(sequences * length, heads, dim)``, to ``x[index]``, padding left out."""
    if isinstance(index, slice):
        x[index] = rows
    else:
        x[index.flatten()[real]] = rows[real]


def _add(x: torch.Tensor, index: slice | tuple[slice, ...] | torch.Tensor, rows: torch.Tensor) -> None:
    """Add ``rows``, ``(sequences, length, heads, dim)``, to ``x[index]``; the rows of padding must be 0."""
    if isinstance(index, slice):
        x[index] += rows[0]
    elif isinstance(index, tuple):
        for run, piece in zip(index, rows[0].split([run.stop - run.start for run in index]), strict=True):
            x[run] += piece
    elif x.device.type == "cuda":
        add_rows(x, index.flatten(), rows.flatten(0, 1))
    else:
        flat = rows.reshape(index.numel(), -1)  # (sequences * length, heads * dim)
        x.view(len(x), -1).scatter_add_(0, index.reshape(-1, 1).expand_as(flat), flat)


def _attend(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, options: _LayerOptions
) -> torch.Tensor:
    """Compute the attention of one block.

    Args:
        q: ``(sequences, heads, queries, dim)``; k, v: ``(sequences, kv_heads, keys, dim)``.
        mask: Added to the scores, ``(sequences, 1, queries, keys)``; None for plain causal attention.
        options: The layer's scaling and cap.

    Returns:
        ``(sequences * queries, heads, v_dim)``.
    """
    repeats = q.shape[1] // k.shape[1]  # query heads for each key and value head (grouped-query attention)
    # PyTorch's CPU kernel accepts fewer key heads than query heads. The CUDA kernels that accept masks do not, so keys
    # and values are repeated there.
    grouped = repeats > 1 and q.device.type == "cpu" and options.softcap is None
    if repeats > 1 and not grouped:
        k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)  # (sequences, heads, keys, dim)
    if options.softcap is None:
        output = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=options.scaling, enable_gqa=grouped
        )
    else:  # PyTorch's kernels have no cap
        scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if options.scaling is None else options.scaling)
        scores = options.softcap * torch.tanh(scores / options.softcap)  # (sequences, heads, queries, keys)
        if mask is None:
            mask = torch.full(scores.shape[-2:], float("-inf"), device=q.device, dtype=q.dtype).triu(1)
        output = (scores + mask).softmax(-1, dtype=torch.float32).to(v.dtype) @ v
    return output.transpose(1, 2).flatten(0, 1)
