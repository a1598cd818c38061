"""``varlen_attn`` written out for a CPU, with the signature of PyTorch's and a causal mask aligned at the end."""

from __future__ import annotations

import torch

__all__ = ["varlen_attn"]


def varlen_attn(  # noqa: PLR0917, as PyTorch has it
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    cu_seq_q: torch.Tensor,
    cu_seq_k: torch.Tensor,
    max_q: int,
    max_k: int,
    *,
    scale: float | None = None,
    window_size: tuple[int, int] = (-1, -1),
    enable_gqa: bool = False,
    aligned_at_end: bool = True,
) -> torch.Tensor:
    """Compute ``(queries, heads, dim)``; what PyTorch's kernel would refuse or compute wrongly is an assertion."""
    assert cu_seq_q.dtype == cu_seq_k.dtype == torch.int32
    assert all(x.is_contiguous() for x in (query, key, value))
    assert enable_gqa or query.shape[1] == key.shape[1]
    ends_q, ends_k = cu_seq_q.tolist(), cu_seq_k.tolist()
    assert (ends_q[0], ends_k[0], ends_q[-1], ends_k[-1]) == (0, 0, len(query), len(key))
    left, right = window_size
    repeats = query.shape[1] // key.shape[1]
    outputs = []
    for i in range(len(ends_q) - 1):
        q = query[ends_q[i] : ends_q[i + 1]]
        k, v = (x[ends_k[i] : ends_k[i + 1]].repeat_interleave(repeats, 1) for x in (key, value))
        assert len(q) <= max_q
        assert len(k) <= max_k
        position = torch.arange(len(q), device=q.device)[:, None] + (len(k) - len(q) if aligned_at_end else 0)
        other = torch.arange(len(k), device=q.device)
        allowed = torch.ones(len(q), len(k), dtype=torch.bool, device=q.device)
        if right >= 0:
            allowed &= other <= position + right
        if left >= 0:
            allowed &= other >= position - left
        scores = torch.einsum("qhd,khd->hqk", q, k) * (q.shape[-1] ** -0.5 if scale is None else scale)
        weights = scores.masked_fill(~allowed, float("-inf")).softmax(-1)
        outputs.append(torch.einsum("hqk,khd->qhd", weights, v))
    return torch.cat(outputs)
