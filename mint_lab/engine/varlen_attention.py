r"""Packed attention as one call of PyTorch's variable-length FlashAttention, on CUDA devices in half precision.

``torch.nn.attention.varlen.varlen_attn`` takes the queries of all sequences end to end, and their keys end to end, with
separate lengths for both. A packed layout fits it: the queries of a sequence are the tokens that it stores itself, its
keys are all of its tokens, shared prefix included, and a causal mask that is aligned at the end is then exactly "the
tokens before it in its own sequence". In the order in which they are stored, the queries are the packed row as it is.
Keys are copied only if a prefix is shared.

What the kernel cannot compute runs block by block (:mod:`mint_lab.engine.attention`): scores with a cap, float32, other
devices, GPUs before Ampere, and versions of PyTorch whose function has no windows and no grouped queries. Its alignment
is documented by FlashAttention and not by PyTorch, so it is tested once a process, on the device.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .device import add_rows, to_device
from .packing import Layout, pack

__all__ = ["VarlenPlan", "find_varlen_attn", "plan_varlen", "supports_varlen", "varlen_attention"]

VarlenAttn = Callable[..., torch.Tensor]

# Limits of the kernel: PyTorch's FlashAttention 2.
MAX_HEAD_DIM = 256
HEAD_DIM_MULTIPLE = 8
MIN_CAPABILITY = (8, 0)
# Largest difference of the probe from float32, for numbers of about 1 in bfloat16, which has 8 bits.
PROBE_TOLERANCE = 3e-2


@dataclass(frozen=True)
class VarlenPlan:
    """The arguments of a call that follow from a layout alone, the same for all layers of a pass.

    Attributes:
        key_index: Indices of the keys of all sequences in the packed row, end to end, ``(keys,)``; None if they are the
            row as it is, because no prefix is shared.
        cu_seq_q: Where the queries of each sequence begin, and the end of the last, ``(sequences + 1,)``, int32.
        cu_seq_k: The same for its keys.
        max_q: The largest number of queries of a sequence.
        max_k: The largest number of keys of a sequence.
    """

    key_index: torch.Tensor | None
    cu_seq_q: torch.Tensor
    cu_seq_k: torch.Tensor
    max_q: int
    max_k: int


def plan_varlen(layout: Layout, device: torch.device) -> VarlenPlan:
    """Return the arguments for a packed layout. A duplicate of an earlier sequence stores no token, and is left out."""
    sequences = zip(layout.token_index, layout.shared_lengths, strict=True)
    # In the order of their first own token, so that the queries lie end to end as they are stored.
    own = sorted(
        ((int(index[shared]), index, shared) for index, shared in sequences if len(index) > shared), key=_first
    )
    n_queries = np.array([len(index) - shared for _, index, shared in own])
    n_keys = np.array([len(index) for _, index, _ in own])
    key_index = None if (n_queries == n_keys).all() else np.concatenate([index for _, index, _ in own])
    ends_q, ends_k = (np.concatenate([[0], np.cumsum(n)]).astype(np.int32) for n in (n_queries, n_keys))
    return VarlenPlan(
        None if key_index is None else to_device(key_index, device),
        to_device(ends_q, device),
        to_device(ends_k, device),
        int(n_queries.max()),
        int(n_keys.max()),
    )


def _first(item: tuple[int, Any, int]) -> int:
    return item[0]


def varlen_attention(
    attend: VarlenAttn,
    qkv: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
    plan: VarlenPlan,
    *,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """Compute the attention of a packed row.

    Args:
        attend: ``varlen_attn``, or a function with its signature.
        qkv: Queries ``(tokens, heads, dim)``, keys and values ``(tokens, kv_heads, dim)``.
        plan: The layout's arguments.
        scaling: Factor of the scores; None for ``dim ** -0.5``.
        window: The number of tokens that a query may attend to, itself included; None for no limit.

    Returns:
        ``(tokens, heads, dim)``.
    """
    q, k, v = qkv
    if plan.key_index is not None:
        k, v = (_SelectRows.apply(x, plan.key_index) for x in (k, v))
    # (left, right): tokens before and after the query's own. A window that no sequence exceeds is plainly causal.
    left = -1 if window is None or window >= plan.max_k else window - 1
    return attend(
        q.contiguous(), k.contiguous(), v.contiguous(), plan.cu_seq_q, plan.cu_seq_k, plan.max_q, plan.max_k,
        scale=scaling, window_size=(left, 0), enable_gqa=q.shape[1] != k.shape[1],
    )  # fmt: skip


class _SelectRows(torch.autograd.Function):
    """``x[index]``; in the backward pass, the gradients of a row that occurs several times add up in a fixed order."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(index)
        ctx.shape = x.shape
        return x.index_select(0, index)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_rows: torch.Tensor) -> tuple[torch.Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (index,) = ctx.saved_tensors
        # In float32: a prefix's gradient is the sum over all sequences that share it.
        grad_x = torch.zeros(ctx.shape, dtype=torch.float32, device=grad_rows.device)
        add_rows(grad_x, index, grad_rows.float())
        return grad_x.to(grad_rows.dtype), None


def supports_varlen(q: torch.Tensor, v: torch.Tensor, softcap: float | None) -> VarlenAttn | None:
    """Return ``varlen_attn`` if it can compute this layer, otherwise None.

    Args:
        q: Queries, ``(..., dim)``.
        v: Values, ``(..., v_dim)``.
        softcap: The cap of the layer's scores, or None.
    """
    dim = q.shape[-1]
    fits = dim == v.shape[-1] and dim <= MAX_HEAD_DIM and dim % HEAD_DIM_MULTIPLE == 0
    if q.device.type != "cuda" or q.dtype not in (torch.bfloat16, torch.float16) or softcap is not None or not fits:
        return None
    return _tested(q.device, q.dtype)


@functools.cache
def _tested(device: torch.device, dtype: torch.dtype) -> VarlenAttn | None:
    """Return ``varlen_attn`` if the device has it, and its causal mask is aligned at the end."""
    if torch.version.cuda is None or torch.cuda.get_device_capability(device) < MIN_CAPABILITY:
        return None
    attend = find_varlen_attn()
    return attend if attend is not None and is_aligned_at_the_end(attend, device, dtype) else None


def find_varlen_attn() -> VarlenAttn | None:
    """Return PyTorch's ``varlen_attn`` if it has windows and grouped queries, which came with version 2.11."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    attend: Any = varlen_attn
    return attend if {"window_size", "enable_gqa"} <= inspect.signature(varlen_attn).parameters.keys() else None


@torch.no_grad()
def is_aligned_at_the_end(attend: VarlenAttn, device: torch.device, dtype: torch.dtype) -> bool:
    """Compare ``attend`` with attention written out, on two sequences that share a prefix, with a window and without.

    Aligned at the start, the queries of the second sequence, which stores two of its five tokens, would attend to one
    and two tokens instead of four and five.
    """
    layout = pack([[1, 2, 3, 4], [1, 2, 3, 5, 6]])
    generator = torch.Generator().manual_seed(0)
    shapes = [(layout.stored, heads, 16) for heads in (2, 1, 1)]
    q, k, v = (torch.randn(shape, generator=generator).to(device, dtype) for shape in shapes)
    plan = plan_varlen(layout, device)
    try:
        for window in (None, 2):
            found = varlen_attention(attend, (q, k, v), plan, scaling=0.25, window=window)
            for index, shared in zip(layout.token_index, layout.shared_lengths, strict=True):
                for position in range(shared, len(index)):
                    keys = to_device(index[max(0, position + 1 - (window or len(index))) : position + 1], device)
                    scores = torch.einsum("hd,ktd->hk", q[index[position]].float(), k[keys].float()) * 0.25
                    expected = scores.softmax(-1) @ v[keys, 0].float()  # (heads, dim)
                    if not bool(((found[index[position]].float() - expected).abs() < PROBE_TOLERANCE).all()):
                        return False
    except (RuntimeError, ValueError, TypeError, NotImplementedError):
        return False
    return True
