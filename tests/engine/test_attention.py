"""Attention by blocks against one dense attention over the whole row, with a mask built from the token indices."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.engine import attention
from mint_lab.engine.attention import AttentionPlan, _group, _packed_attention, plan_attention, use_packed_attention
from mint_lab.engine.packing import Layout, pack

CPU = torch.device("cpu")
DIM = 4
MODULE = torch.nn.Module()


@st.composite
def batches(draw: Any) -> list[list[int]]:
    """Unequal lengths; nothing, something or all shared; prefixes within prefixes; single tokens; duplicates."""
    made = draw(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=7))
    prefix = draw(st.lists(st.integers(0, 2), max_size=6))
    copies = draw(st.integers(0, 2))
    return [prefix + sequence for sequence in made] + made[:copies]


def tensors(layout: Layout, heads: int, groups: int, seed: int = 0) -> list[torch.Tensor]:
    """Queries, keys and values as a family gives them, ``(1, heads, tokens, dim)``, with gradients."""
    draw = torch.Generator().manual_seed(seed)
    shapes = [(1, n, layout.stored, DIM) for n in (heads, groups, groups)]
    return [torch.randn(shape, generator=draw).requires_grad_() for shape in shapes]


def allowed_keys(layout: Layout, window: int | None) -> torch.Tensor:
    """``(tokens, tokens)``, True if the first attends to the second: before it in its sequence, within the window."""
    allowed = torch.zeros(layout.stored, layout.stored, dtype=torch.bool)
    for index in layout.token_index:
        for i, query in enumerate(index):
            for j in range(0 if window is None else max(0, i + 1 - window), i + 1):
                allowed[query, index[j]] = True
    return allowed


def dense(
    layout: Layout, qkv: list[torch.Tensor], *, scaling: float, softcap: float | None, window: int | None
) -> torch.Tensor:
    q, k, v = qkv
    repeats = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    scores = q @ k.transpose(-1, -2) * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~allowed_keys(layout, window), -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2)


def packed(blocks: AttentionPlan, qkv: list[torch.Tensor], **options: Any) -> torch.Tensor:
    with use_packed_attention(SimpleNamespace(_attn_implementation="sdpa"), blocks):
        return _packed_attention(MODULE, *qkv, None, **options)[0]


@pytest.mark.parametrize("call", [0, attention.CALL_COST["cpu"], 1 << 60])
@given(
    batch=batches(),
    shape=st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 1)]),
    window=st.sampled_from([None, 1, 2, 5, 100]),
    softcap=st.sampled_from([None, 2.0]),
    scaling=st.sampled_from([DIM**-0.5, 0.9]),
)
def test_outputs_and_gradients_match_dense_attention(
    *, call: int, batch: list[list[int]], shape: tuple[int, int], window: int | None, softcap: float | None,
    scaling: float,
) -> None:  # fmt: skip
    layout = pack(batch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(attention.CALL_COST, "cpu", call)
        blocks = plan_attention(layout, shape[0] * DIM, CPU)
    qkv, plain = tensors(layout, *shape), tensors(layout, *shape)
    found = packed(blocks, qkv, scaling=scaling, softcap=softcap, sliding_window=window)
    expected = dense(layout, plain, scaling=scaling, softcap=softcap, window=window)
    assert found.shape == (1, layout.stored, shape[0], DIM)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    gradient = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    for a, b in zip(
        torch.autograd.grad(found, qkv, gradient), torch.autograd.grad(expected, plain, gradient), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert blocks.windows == {window}


def test_by_hand() -> None:
    """[5 6] and [5 7]: all scores are 0, so each token's output is the mean of the values that it attends to: 1,
    (1 + 4) / 2 and (1 + 8) / 2. From a gradient of 1 each, the shared value gets 1 + 1/2 + 1/2, the others 1/2.
    """
    layout = pack([[5, 6], [5, 7]])
    q, k = torch.zeros(1, 1, 3, 1), torch.zeros(1, 1, 3, 1)
    v = torch.tensor([1.0, 4.0, 8.0]).view(1, 1, 3, 1).requires_grad_()
    found = packed(plan_attention(layout, 1, CPU), [q, k, v], scaling=1.0)
    assert found.flatten().tolist() == [1.0, 2.5, 4.5]
    found.sum().backward()
    assert v.grad is not None
    assert v.grad.flatten().tolist() == [2.0, 0.5, 0.5]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_dtype_is_preserved(dtype: torch.dtype) -> None:
    layout = pack([[1, 2, 3, 4], [1, 2, 5], [6]])
    qkv = [t.detach().to(dtype).requires_grad_() for t in tensors(layout, 2, 1)]
    expected = dense(layout, [t.double() for t in qkv], scaling=DIM**-0.5, softcap=2.0, window=2)
    for softcap in (2.0, None):
        found = packed(plan_attention(layout, 2 * DIM, CPU), qkv, softcap=softcap, sliding_window=2)
        assert found.dtype == dtype
        assert all(g.dtype == dtype for g in torch.autograd.grad(found.sum(), qkv))
        if softcap is not None:
            limit = 2e-2 if dtype == torch.bfloat16 else 1e-6  # the softmax is made in float32
            torch.testing.assert_close(found.double(), expected, rtol=limit, atol=limit)


def test_gradients_only_for_inputs_that_need_them() -> None:
    layout = pack([[1, 2, 3], [1, 2, 4], [5]])
    qkv = tensors(layout, 2, 2)
    blocks = plan_attention(layout, 2 * DIM, CPU)
    expected = packed(blocks, qkv)
    with torch.no_grad():
        found = packed(blocks, qkv)
    assert not found.requires_grad
    assert torch.equal(found, expected.detach())
    frozen = [qkv[0], qkv[1].detach(), qkv[2].detach()]
    torch.testing.assert_close(
        torch.autograd.grad(packed(blocks, frozen).sum(), frozen[0])[0],
        torch.autograd.grad(expected.sum(), qkv[0])[0],
    )


# --- blocks ----------------------------------------------------------------------------------------------------------


@given(batches(), st.sampled_from([0, 100, 1 << 60]), st.sampled_from([None, 1, 3]))
def test_every_query_is_in_one_block(batch: list[list[int]], call: int, window: int | None) -> None:
    layout = pack(batch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(attention.CALL_COST, "cpu", call)
        blocks = plan_attention(layout, 1, CPU)
    row = torch.arange(layout.stored)
    covered: list[int] = []
    for i, block in enumerate(blocks.blocks):
        queries = row[block.queries].flatten()
        covered += (queries if block.real is None else queries[block.real]).tolist()
        allowed = block.mask(window)
        if allowed is None:
            assert block.real is None
            assert blocks.mask(i, window, torch.float32) is None
            continue
        assert bool(allowed.any(-1).all()), "the softmax of no score is nan"
        added = blocks.mask(i, window, torch.float32)
        assert added is not None
        assert torch.equal(added == 0, allowed)
        assert bool((added[~allowed] == -torch.inf).all())
        assert blocks.mask(i, window, torch.float32) is added, "computed once for all layers"
    assert sorted(covered) == row.tolist()


def test_mask_by_hand() -> None:
    """[1 2 3 4] and [1 2 5]: the second stores one token and attends to three. A window of 2 excludes keys in both."""
    first, second = (plan_attention(pack([[1, 2, 3, 4], [1, 2, 5]]), 1 << 60, CPU)).blocks
    assert (first.queries, first.keys) == (slice(0, 4), slice(0, 4))
    assert first.mask(None) is None
    assert first.mask(4) is None
    assert first.mask(2).int().tolist() == [[[[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]]]  # type: ignore[union-attr]
    assert second.queries == slice(4, 5)
    assert second.keys == (slice(0, 2), slice(4, 5))
    assert second.mask(None).tolist() == [[[[True] * 3]]]  # type: ignore[union-attr]
    assert second.mask(2).int().tolist() == [[[[0, 1, 1]]]]  # type: ignore[union-attr]


def test_short_sequences_are_grouped_long_ones_alone() -> None:
    """4 and 3 tokens together cost 2 x 4 x 4 = 32 products, apart 16 + 9: it pays from a call of 7 on."""
    wanted = [(4, 4, 0), (3, 3, 1)]
    assert _group(wanted, 6) == [[0], [1]]
    assert _group(wanted, 7) == [[0, 1]]
    assert _group(wanted, 1 << 60) == [[0, 1]]
    # A sequence of 6 widens the block that is there: 2 x 4 x 6 = 48 against 16 + 3 x 6 = 34.
    assert _group([(4, 4, 0), (3, 6, 1)], 13) == [[0], [1]]
    assert _group([(4, 4, 0), (3, 6, 1)], 14) == [[0, 1]]
    features = 64
    short = pack([[n, n + 1, n + 2] for n in range(0, 300, 3)])
    assert len(plan_attention(short, features, CPU).blocks) == 1
    long = pack([[n] * (2000 - 300 * n) for n in range(5)])
    assert [type(b.keys) for b in plan_attention(long, features, CPU).blocks] == [slice] * 5
    assert _group([], 10) == []


# --- plugged into transformers ---------------------------------------------------------------------------------------


def test_family_attention_is_restored_after_error() -> None:
    config = SimpleNamespace(_attn_implementation="eager")
    blocks = plan_attention(pack([[1, 2]]), 1, CPU)
    with use_packed_attention(config, blocks):
        assert config._attn_implementation == attention.ATTENTION_NAME
        with pytest.raises(ZeroDivisionError), use_packed_attention(config, plan_attention(pack([[3]]), 1, CPU)):
            1 // 0  # noqa: B018
        assert config._attn_implementation == attention.ATTENTION_NAME
        assert attention._current_plan.get() is blocks
    assert config._attn_implementation == "eager"
    with pytest.raises(LookupError):
        attention._current_plan.get()


def test_attention_sinks_raise() -> None:
    layout = pack([[1, 2]])
    with pytest.raises(NotImplementedError, match="attention sinks"):
        packed(plan_attention(layout, DIM, CPU), tensors(layout, 1, 1), s_aux=torch.zeros(1))
