r"""Attention over a packed batch: each sequence's own tokens look along its path, and at nothing else.

The linear layers see one long row of tokens without padding. Attention cannot: who sees whom differs. So it runs over
:class:`Block`s. The queries of a sequence are its own tokens, :math:`o` of them; its keys are its whole path of
:math:`N` tokens, a shared prefix included; the mask is causal, aligned at the end. That is :math:`o \cdot N` products
where one row for all would take the square of the batch. Long sequences are blocks of one, which are slices and need no
mask; short ones are gathered and padded into blocks of many, because a call costs as much as a few thousand products.

It is plugged into a family through transformers' own registry of attention functions, for the length of a pass. A
family that does not go through the registry is found out when it is loaded (:mod:`mint_lab.engine.family_probes`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from transformers import AttentionInterface

from .packing import Layout

__all__ = ["AttentionPlan", "Block", "attending", "plan"]

NAME = "mint_lab_packed"
# What a call costs beside the products of queries and keys that it makes, in such products times features, by device:
# a block takes in another sequence where the padding costs less than a call of its own.
CALL = {"cpu": 1 << 20}
ELSEWHERE = 1 << 25
# A sequence with the work of so many calls is long.
LONG = 8

_plan: ContextVar[AttentionPlan] = ContextVar("plan")


@dataclass(frozen=True)
class Block:
    """Sequences whose attention is computed together.

    Attributes:
        queries: indices of their own tokens, ``(sequences, queries)``, padded at the end; a slice for a single one.
        keys: indices of their paths, ``(sequences, keys)``, likewise; for a single one a slice where it shares nothing,
            and where it does the slices that its path runs through.
        own, shared: for each sequence its own tokens, and how many of its path come before them.
        real: where ``queries``, flattened, is not padding; None for a slice.
    """

    queries: slice | torch.Tensor
    keys: slice | tuple[slice, ...] | torch.Tensor
    own: torch.Tensor
    shared: torch.Tensor
    real: torch.Tensor | None

    def mask(self, window: int | None) -> torch.Tensor | None:
        """``(sequences, 1, queries, keys)``, bool, True where a query may see a key; None for plain causal attention.

        ``window``: how many tokens a query looks back, itself included.
        """
        longest = int((self.own + self.shared).max())
        if isinstance(self.keys, slice) and (window is None or longest <= window):
            return None
        query = torch.arange(int(self.own.max())) + self.shared[:, None]
        # A padded query sees what the last real one sees: one that saw nothing would have no softmax.
        query = torch.minimum(query, (self.own + self.shared - 1)[:, None])[:, :, None]
        key = torch.arange(longest)
        seen = key <= query
        return (seen if window is None else seen & (key > query - window))[:, None]


@dataclass
class AttentionPlan:
    """The blocks of a layout on a device, and what is made from them once for all layers of a pass.

    Attributes:
        windows: the sliding windows that the family's layers asked for, None among them for a layer without.
    """

    blocks: list[Block]
    device: torch.device
    windows: set[int | None] = field(default_factory=set)
    _masks: dict[tuple[int, int | None, torch.dtype], torch.Tensor | None] = field(default_factory=dict)

    def mask(self, block: int, window: int | None, dtype: torch.dtype) -> torch.Tensor | None:
        """The block's mask, to be added to the scores: 0 or -inf."""
        key = (block, window, dtype)
        if key not in self._masks:
            seen = self.blocks[block].mask(window)
            self._masks[key] = (
                None
                if seen is None
                else torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, float("-inf")).to(self.device)
            )
        return self._masks[key]


@contextlib.contextmanager
def attending(config: Any, plan: AttentionPlan) -> Generator[None]:
    """In here models of ``config`` attend by ``plan``."""
    before = config._attn_implementation
    token = _plan.set(plan)
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before
        _plan.reset(token)


def plan(layout: Layout, features: int, device: torch.device) -> AttentionPlan:
    """Blocks for a packed layout.

    Args:
        features: of all heads together; with them a product of a query and a key costs more.
    """
    wanted = [
        (len(p) - shared, len(p), i) for i, (p, shared) in enumerate(zip(layout.places, layout.shared, strict=True))
    ]
    call = CALL.get(device.type, ELSEWHERE) // max(features, 1)
    groups = _grouped(sorted((w for w in wanted if w[0]), reverse=True), call)
    return AttentionPlan(
        [_block([(layout.places[i], layout.shared[i]) for i in group], device) for group in groups], device
    )


def _grouped(wanted: list[tuple[int, int, int]], call: int) -> list[list[int]]:
    """Indices of (own, path, index), long ones first, put together where padding costs less than another call.

    A long one stays alone even where another is as long: it would be copied, and need a mask, to save one call in many.
    """
    groups: list[list[int]] = []
    queries = keys = 0
    for own, path, index in wanted:
        if groups and queries * keys <= LONG * call:
            count, wider = len(groups[-1]), max(keys, path)
            if (count + 1) * queries * wider <= count * queries * keys + own * path + call:
                groups[-1].append(index)
                keys = wider
                continue
        groups.append([index])
        queries, keys = own, path
    return groups


def _block(members: list[tuple[NDArray[np.int64], int]], device: torch.device) -> Block:
    own = torch.tensor([len(place) - shared for place, shared in members])
    shared = torch.tensor([shared for _, shared in members])
    if len(members) == 1:
        place, before = members[0]
        queries = slice(int(place[before]), int(place[-1]) + 1)
        return Block(queries, _runs(place) if before else queries, own, shared, None)
    queries = _padded([place[before:] for place, before in members])
    keys = _padded([place for place, _ in members])
    real = (torch.arange(queries.shape[1]) < own[:, None]).flatten().nonzero().flatten()
    return Block(queries.to(device), keys.to(device), own, shared, real.to(device))


def _runs(place: NDArray[np.int64]) -> tuple[slice, ...]:
    """``place`` as slices, in order: adding into slices is many times as fast as into scattered rows."""
    starts = np.flatnonzero(np.diff(place, prepend=-2) != 1)
    ends = [*starts[1:], len(place)]
    return tuple(slice(int(place[a]), int(place[b - 1]) + 1) for a, b in zip(starts, ends, strict=True))


def _padded(rows: list[NDArray[np.int64]]) -> torch.Tensor:
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
    """The attention interface of transformers: ``(1, heads, tokens, dim)`` each, to ``(1, tokens, heads, dim)``."""
    if s_aux is not None:
        raise NotImplementedError("attention sinks")
    present = _plan.get()
    present.windows.add(sliding_window)
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))  # (tokens, heads, dim)
    return _Blocks.apply(q, k, v, _How(present, scaling, softcap, sliding_window))[None], None  # pyright: ignore[reportOptionalSubscript]


AttentionInterface.register(NAME, _packed_attention)


@dataclass(frozen=True)
class _How:
    """What a layer asks for besides its queries, keys and values."""

    plan: AttentionPlan
    scaling: float | None
    softcap: float | None
    window: int | None


class _Blocks(torch.autograd.Function):
    """All blocks of a layer, ``(tokens, heads, dim)`` each.

    Each block has a graph of its own, from copies or views of its queries, keys and values: left to one graph, every
    slice and every gather would cost a tensor of the whole batch on the way back.
    """

    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, how: _How) -> torch.Tensor:
        plan = how.plan
        output = v.new_empty(q.shape[0], q.shape[1], v.shape[2])
        graphs: list[tuple[torch.Tensor, list[torch.Tensor]]] = []
        learns = any(ctx.needs_input_grad[:3])
        for i, block in enumerate(plan.blocks):
            leaves = [_taken(q, block.queries), _taken(k, block.keys), _taken(v, block.keys)]
            with torch.set_grad_enabled(learns):
                leaves = [leaf.detach().requires_grad_(learns) for leaf in leaves]
                found = _attend(*leaves, plan.mask(i, how.window, q.dtype), how)
            _put(output, block.queries, block.real, found.detach())
            graphs.append((found, leaves))
        if learns:
            ctx.graphs, ctx.plan, ctx.shapes = graphs, plan, (q.shape, k.shape, v.shape)
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        of_query, of_key, of_value = ctx.shapes
        # Every token is the query of one block, and of one alone.
        into = [gradient.new_empty(of_query), gradient.new_zeros(of_key), gradient.new_zeros(of_value)]
        for block, (found, leaves) in zip(ctx.plan.blocks, ctx.graphs, strict=True):
            if block.real is None:
                rows = gradient[block.queries]
            else:
                rows = gradient.new_zeros(found.shape)
                rows[block.real] = gradient[block.queries.flatten()[block.real]]
            of_q, of_k, of_v = torch.autograd.grad(found, leaves, rows)
            _put(into[0], block.queries, block.real, of_q.transpose(1, 2).flatten(0, 1))
            _add(into[1], block.keys, of_k.transpose(1, 2))
            _add(into[2], block.keys, of_v.transpose(1, 2))
        del ctx.graphs
        return *into, None


def _taken(x: torch.Tensor, where: slice | tuple[slice, ...] | torch.Tensor) -> torch.Tensor:
    """``(tokens, heads, dim)`` to ``(sequences, heads, columns, dim)``."""
    if isinstance(where, slice):
        return x[where].transpose(0, 1)[None]
    if isinstance(where, tuple):
        return torch.cat([x[run] for run in where]).transpose(0, 1)[None]
    return x.index_select(0, where.flatten()).view(*where.shape, *x.shape[1:]).transpose(1, 2)


def _put(x: torch.Tensor, where: slice | torch.Tensor, real: torch.Tensor | None, rows: torch.Tensor) -> None:
    """Write ``rows``, ``(sequences * columns, heads, dim)``, where :func:`_taken` took them, padding left out."""
    if isinstance(where, slice):
        x[where] = rows
    else:
        x[where.flatten()[real]] = rows[real]


def _add(x: torch.Tensor, where: slice | tuple[slice, ...] | torch.Tensor, rows: torch.Tensor) -> None:
    """Add ``rows``, ``(sequences, columns, heads, dim)``, where :func:`_taken` took them; that of padding is 0."""
    if isinstance(where, slice):
        x[where] += rows[0]
    elif isinstance(where, tuple):
        for run, piece in zip(where, rows[0].split([run.stop - run.start for run in where]), strict=True):
            x[run] += piece
    else:
        flat = rows.reshape(where.numel(), -1)
        x.view(len(x), -1).scatter_add_(0, where.reshape(-1, 1).expand_as(flat), flat)


def _attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: torch.Tensor | None, how: _How) -> torch.Tensor:
    """Attention of one block, ``(sequences * queries, heads, dim)``."""
    repeats = q.shape[1] // k.shape[1]
    # PyTorch's kernel for the CPU takes fewer keys than queries as they are; those that take masks on CUDA do not.
    grouped = repeats > 1 and q.device.type == "cpu" and how.softcap is None
    if repeats > 1 and not grouped:
        k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    if how.softcap is None:
        output = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=how.scaling, enable_gqa=grouped
        )
    else:
        scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if how.scaling is None else how.scaling)
        scores = how.softcap * torch.tanh(scores / how.softcap)
        if mask is None:
            mask = torch.full(scores.shape[-2:], float("-inf"), device=q.device, dtype=q.dtype).triu(1)
        output = (scores + mask).softmax(-1, dtype=torch.float32).to(v.dtype) @ v
    return output.transpose(1, 2).flatten(0, 1)
