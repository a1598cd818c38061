"""Attention by blocks against one dense attention over the whole row, whose mask is made from the paths alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.engine import attention
from mint_lab.engine.attention import AttentionPlan, _grouped, _packed_attention, attending, plan
from mint_lab.engine.packing import Layout, pack

CPU = torch.device("cpu")
DIM = 4
MODULE = torch.nn.Module()


@st.composite
def batches(draw: Any) -> list[list[int]]:
    """Unequal lengths, nothing, something or all shared, prefixes within prefixes, single tokens, duplicates."""
    made = draw(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=12), min_size=1, max_size=7))
    prefix = draw(st.lists(st.integers(0, 2), max_size=6))
    copies = draw(st.integers(0, 2))
    return [prefix + sequence for sequence in made] + made[:copies]


def tensors(layout: Layout, heads: int, groups: int, seed: int = 0) -> list[torch.Tensor]:
    """Queries, keys and values as a family gives them, ``(1, heads, tokens, dim)``, with gradients."""
    draw = torch.Generator().manual_seed(seed)
    shapes = [(1, n, layout.stored, DIM) for n in (heads, groups, groups)]
    return [torch.randn(shape, generator=draw).requires_grad_() for shape in shapes]


def ancestors(layout: Layout, window: int | None) -> torch.Tensor:
    """``(tokens, tokens)``, True where the first sees the second: earlier on its path, within the window."""
    seen = torch.zeros(layout.stored, layout.stored, dtype=torch.bool)
    for place in layout.places:
        for i, query in enumerate(place):
            for j in range(0 if window is None else max(0, i + 1 - window), i + 1):
                seen[query, place[j]] = True
    return seen


def dense(
    layout: Layout, qkv: list[torch.Tensor], *, scaling: float, softcap: float | None, window: int | None
) -> torch.Tensor:
    q, k, v = qkv
    repeats = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1)
    scores = q @ k.transpose(-1, -2) * scaling
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~ancestors(layout, window), -torch.inf)
    return (scores.softmax(-1) @ v).transpose(1, 2)


def packed(blocks: AttentionPlan, qkv: list[torch.Tensor], **options: Any) -> torch.Tensor:
    with attending(SimpleNamespace(_attn_implementation="sdpa"), blocks):
        return _packed_attention(MODULE, *qkv, None, **options)[0]


@pytest.mark.parametrize("call", [0, attention.CALL["cpu"], 1 << 60])
@given(
    batch=batches(),
    shape=st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 1)]),
    window=st.sampled_from([None, 1, 2, 5, 100]),
    softcap=st.sampled_from([None, 2.0]),
    scaling=st.sampled_from([DIM**-0.5, 0.9]),
)
def test_outputs_and_gradients_are_dense_attentions(
    *, call: int, batch: list[list[int]], shape: tuple[int, int], window: int | None, softcap: float | None,
    scaling: float,
) -> None:  # fmt: skip
    layout = pack(batch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(attention.CALL, "cpu", call)
        blocks = plan(layout, shape[0] * DIM, CPU)
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
    """[5 6] and [5 7]: all scores 0, so each token's output is the mean of the values on its path: 1, (1 + 4) / 2 and
    (1 + 8) / 2. From a gradient of 1 each, the shared value gets 1 + 1/2 + 1/2, the others 1/2.
    """
    layout = pack([[5, 6], [5, 7]])
    q, k = torch.zeros(1, 1, 3, 1), torch.zeros(1, 1, 3, 1)
    v = torch.tensor([1.0, 4.0, 8.0]).view(1, 1, 3, 1).requires_grad_()
    found = packed(plan(layout, 1, CPU), [q, k, v], scaling=1.0)
    assert found.flatten().tolist() == [1.0, 2.5, 4.5]
    found.sum().backward()
    assert v.grad is not None
    assert v.grad.flatten().tolist() == [2.0, 0.5, 0.5]


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_stay_what_they_are(dtype: torch.dtype) -> None:
    layout = pack([[1, 2, 3, 4], [1, 2, 5], [6]])
    qkv = [t.detach().to(dtype).requires_grad_() for t in tensors(layout, 2, 1)]
    expected = dense(layout, [t.double() for t in qkv], scaling=DIM**-0.5, softcap=2.0, window=2)
    for softcap in (2.0, None):
        found = packed(plan(layout, 2 * DIM, CPU), qkv, softcap=softcap, sliding_window=2)
        assert found.dtype == dtype
        assert all(g.dtype == dtype for g in torch.autograd.grad(found.sum(), qkv))
        if softcap is not None:
            limit = 2e-2 if dtype == torch.bfloat16 else 1e-6  # the softmax is made in float32
            torch.testing.assert_close(found.double(), expected, rtol=limit, atol=limit)


def test_only_what_is_asked_for_gets_a_gradient_and_nothing_without_a_graph() -> None:
    layout = pack([[1, 2, 3], [1, 2, 4], [5]])
    qkv = tensors(layout, 2, 2)
    blocks = plan(layout, 2 * DIM, CPU)
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
def test_every_query_is_in_one_block_and_sees_something(batch: list[list[int]], call: int, window: int | None) -> None:
    layout = pack(batch)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(attention.CALL, "cpu", call)
        blocks = plan(layout, 1, CPU)
    row = torch.arange(layout.stored)
    covered: list[int] = []
    for i, block in enumerate(blocks.blocks):
        taken = row[block.queries].flatten()
        covered += (taken if block.real is None else taken[block.real]).tolist()
        seen = block.mask(window)
        if seen is None:
            assert block.real is None
            assert blocks.mask(i, window, torch.float32) is None
            continue
        assert bool(seen.any(-1).all()), "softmax of nothing has no value"
        added = blocks.mask(i, window, torch.float32)
        assert added is not None
        assert torch.equal(added == 0, seen)
        assert bool((added[~seen] == -torch.inf).all())
        assert blocks.mask(i, window, torch.float32) is added, "made once for all layers"
    assert sorted(covered) == row.tolist()


def test_a_mask_by_hand() -> None:
    """[1 2 3 4] and [1 2 5]: the second has one token of its own and looks back three; a window of 2 cuts both."""
    first, second = (plan(pack([[1, 2, 3, 4], [1, 2, 5]]), 1 << 60, CPU)).blocks
    assert (first.queries, first.keys) == (slice(0, 4), slice(0, 4))
    assert first.mask(None) is None
    assert first.mask(4) is None
    assert first.mask(2).int().tolist() == [[[[1, 0, 0, 0], [1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1]]]]  # type: ignore[union-attr]
    assert second.queries == slice(4, 5)
    assert second.keys == (slice(0, 2), slice(4, 5))
    assert second.mask(None).tolist() == [[[[True] * 3]]]  # type: ignore[union-attr]
    assert second.mask(2).int().tolist() == [[[[0, 1, 1]]]]  # type: ignore[union-attr]


def test_short_ones_go_together_and_long_ones_alone() -> None:
    """4 and 3 tokens together cost 2 x 4 x 4 = 32 products, apart 16 + 9: it pays from a call of 7 on."""
    wanted = [(4, 4, 0), (3, 3, 1)]
    assert _grouped(wanted, 6) == [[0], [1]]
    assert _grouped(wanted, 7) == [[0, 1]]
    assert _grouped(wanted, 1 << 60) == [[0, 1]]
    # A path of 6 widens what is there already: 2 x 4 x 6 = 48 against 16 + 3 x 6 = 34.
    assert _grouped([(4, 4, 0), (3, 6, 1)], 13) == [[0], [1]]
    assert _grouped([(4, 4, 0), (3, 6, 1)], 14) == [[0, 1]]
    features = 64
    short = pack([[n, n + 1, n + 2] for n in range(0, 300, 3)])
    assert len(plan(short, features, CPU).blocks) == 1
    long = pack([[n] * (2000 - 300 * n) for n in range(5)])
    assert [type(b.keys) for b in plan(long, features, CPU).blocks] == [slice] * 5
    assert _grouped([], 10) == []


# --- plugged into transformers ---------------------------------------------------------------------------------------


def test_the_familys_own_attention_comes_back_after_an_error() -> None:
    config = SimpleNamespace(_attn_implementation="eager")
    blocks = plan(pack([[1, 2]]), 1, CPU)
    with attending(config, blocks):
        assert config._attn_implementation == attention.NAME
        with pytest.raises(ZeroDivisionError), attending(config, plan(pack([[3]]), 1, CPU)):
            1 // 0  # noqa: B018
        assert config._attn_implementation == attention.NAME
        assert attention._plan.get() is blocks
    assert config._attn_implementation == "eager"
    with pytest.raises(LookupError):
        attention._plan.get()


def test_attention_sinks_are_refused() -> None:
    layout = pack([[1, 2]])
    with pytest.raises(NotImplementedError, match="attention sinks"):
        packed(plan(layout, DIM, CPU), tensors(layout, 1, 1), s_aux=torch.zeros(1))
