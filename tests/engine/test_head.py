"""The output layer's arithmetic against autograd, and against what families really do to their logits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from mint_lab.engine.head import Head, head_of
from mint_lab.engine.models import load_base

from .conftest import random_adapter
from .families import FAMILIES, VOCAB

HIDDEN, ROWS, RANK, SCALING = 5, 9, 2, 1.5


def made(seed: int, *, bias: bool, lora: bool, factor: float, cap: float) -> Head:
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=draw)

    weight = normal(ROWS, HIDDEN)
    b = normal(ROWS) if bias else None
    if not lora:
        return Head(weight, b, factor=factor, cap=cap)
    down, up = torch.nn.Parameter(normal(RANK, HIDDEN)), torch.nn.Parameter(normal(ROWS, RANK))
    return Head(weight, b, down, up, SCALING, factor, cap)


def linear(head: Head, hidden: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """W h + b with LoRA, as PEFT writes it, with a graph; a mask drops inputs of LoRA."""
    z = F.linear(hidden, head.weight, head.bias)
    if head.lora_a is None or head.lora_b is None:
        return z
    kept = hidden if mask is None else hidden * mask
    return z + head.scaling * (kept @ head.lora_a.T) @ head.lora_b.T


def logits(head: Head, hidden: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    z = linear(head, hidden, mask) * head.factor
    return head.cap * torch.tanh(z / head.cap) if head.cap else z


heads = st.builds(
    made,
    st.integers(0, 99),
    bias=st.booleans(),
    lora=st.booleans(),
    factor=st.sampled_from([1.0, 0.25, 3.0]),
    cap=st.sampled_from([0.0, 2.0]),
)


@given(heads, st.integers(1, 6))
def test_logits_and_their_slope(head: Head, tokens: int) -> None:
    hidden = torch.randn(tokens, HIDDEN, generator=torch.Generator().manual_seed(1)).requires_grad_()
    z = (linear(head, hidden) * head.factor).detach().requires_grad_()
    capped = head.cap * torch.tanh(z / head.cap) if head.cap else z * 1
    found = head.logits(hidden)
    assert not found.requires_grad
    torch.testing.assert_close(found, capped.detach(), rtol=1e-5, atol=1e-5)
    given = torch.full((tokens, ROWS), torch.nan)
    again = head.logits(hidden, given)
    assert again.data_ptr() == given.data_ptr()
    torch.testing.assert_close(again, found, rtol=1e-5, atol=1e-5)
    (expected,) = torch.autograd.grad(capped.sum(), z)
    slope = head.slope(found)
    assert (slope is None) == (not head.cap)
    torch.testing.assert_close(torch.ones_like(z) if slope is None else slope, expected, rtol=1e-4, atol=1e-4)


@given(heads, st.integers(1, 6))
def test_gradients_are_autograds(head: Head, tokens: int) -> None:
    draw = torch.Generator().manual_seed(2)
    hidden = torch.randn(tokens, HIDDEN, generator=draw).requires_grad_()
    rows = torch.randn(tokens, ROWS, generator=draw)
    parameters = [p for p in (head.lora_a, head.lora_b) if p is not None]
    into, *rest = torch.autograd.grad(linear(head, hidden), [hidden, *parameters], rows)
    torch.testing.assert_close(head.grad_hidden(rows), into, rtol=1e-5, atol=1e-5)
    if parameters:
        for found, expected in zip(head.grad_lora(rows, hidden.detach()), rest, strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    ids = torch.tensor([3, 0, 3])
    whole = torch.autograd.functional.jacobian(lambda h: linear(head, h), torch.zeros(HIDDEN))
    found = head.weight_rows(ids)
    assert not found.requires_grad
    torch.testing.assert_close(found, whole[ids].detach(), rtol=1e-5, atol=1e-5)


@given(heads)
def test_inputs_are_not_changed(head: Head) -> None:
    before = [None if t is None else t.detach().clone() for t in (head.weight, head.bias, head.lora_a, head.lora_b)]
    hidden, rows = torch.ones(2, HIDDEN), torch.ones(2, ROWS)
    head.slope(head.logits(hidden))
    head.weight_rows(torch.tensor([0, 1])).zero_()
    head.grad_hidden(rows)
    if head.lora_a is not None:
        head.grad_lora(rows, hidden)
    assert bool((hidden == 1).all() and (rows == 1).all())
    for old, new in zip(before, (head.weight, head.bias, head.lora_a, head.lora_b), strict=True):
        assert (old is None and new is None) or torch.equal(old, new)  # type: ignore[arg-type]


def test_by_hand() -> None:
    """W = (1, 2), b = (0, 1), BA = (2, 6), scaling 1/2: z = (1 + 1, 2 + 3) h + (0, 1) = (4, 11) at h = 2, halved."""
    head = Head(
        torch.tensor([[1.0], [2.0]]), torch.tensor([0.0, 1.0]), torch.nn.Parameter(torch.tensor([[2.0]])),
        torch.nn.Parameter(torch.tensor([[1.0], [3.0]])), scaling=0.5, factor=0.5,
    )  # fmt: skip
    assert (head.vocab_size, head.hidden_size) == (2, 1)
    assert head.logits(torch.tensor([[2.0]])).tolist() == [[2.0, 5.5]]
    assert head.weight_rows(torch.tensor([1])).tolist() == [[5.0]]
    assert head.grad_hidden(torch.tensor([[1.0, 1.0]])).tolist() == [[7.0]]
    a, b = head.grad_lora(torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0]]))
    assert a.tolist() == [[4.0]]  # s B^T rows h = 1/2 (1 + 3) 2
    assert b.tolist() == [[2.0], [2.0]]  # s A h = 1/2 x 2 x 2


def test_bfloat16_head_gives_float32() -> None:
    whole = made(3, bias=True, lora=True, factor=1.0, cap=0.0)
    assert whole.bias is not None
    half = Head(whole.weight.bfloat16(), whole.bias.bfloat16(), whole.lora_a, whole.lora_b, SCALING)
    hidden, rows = torch.randn(4, HIDDEN).bfloat16(), torch.randn(4, ROWS)
    found = half.logits(hidden, torch.empty(4, ROWS))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, whole.logits(hidden.float()), rtol=2e-2, atol=5e-2)
    targets = torch.tensor([2, 0, 1, 2])
    exact = half.in_float32().logits(hidden.float())
    torch.testing.assert_close(half.logits_at(hidden, targets), exact[range(4), targets], rtol=1e-6, atol=1e-6)
    assert not torch.allclose(found[range(4), targets], exact[range(4), targets], rtol=1e-4, atol=1e-4)
    for a, b in (
        (half.grad_hidden(rows), whole.grad_hidden(rows)),
        (half.weight_rows(torch.arange(3)), whole.weight_rows(torch.arange(3))),
    ):
        assert a.dtype == torch.float32
        torch.testing.assert_close(a, b, rtol=2e-2, atol=5e-2)


# --- of a model ------------------------------------------------------------------------------------------------------


def own_logits(model: Any, base: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Hidden states and logits of a few tokens, as transformers and PEFT compute them."""
    ids = torch.tensor([[3, 1, 4, 1, 5]])
    with torch.no_grad():
        hidden = getattr(base, base.base_model_prefix)(input_ids=ids, use_cache=False).last_hidden_state[0]
        return hidden, model(input_ids=ids, use_cache=False).logits[0]


@pytest.mark.parametrize("name", sorted(FAMILIES))
@pytest.mark.parametrize("unembed", [True, False])
def test_head_is_the_familys(name: str, unembed: bool, family: Callable[[str], Path]) -> None:
    adapter = random_adapter(family(name), unembed=unembed)
    base = adapter.base
    with base.using(adapter):
        head = base.head()
        assert (head.lora_a is not None) == (head.lora_b is not None) == unembed
        hidden, expected = own_logits(base, base._model)
        torch.testing.assert_close(head.logits(hidden), expected, rtol=1e-5, atol=1e-5)
    if unembed:
        assert any(p is head.lora_a for p in adapter.parameters.values())
        assert any(p is head.lora_b for p in adapter.parameters.values())
    with base.using(None):
        head = base.head()
        assert head.lora_a is None
        assert head.lora_b is None
        hidden, expected = own_logits(base, base._model)
        torch.testing.assert_close(head.logits(hidden), expected, rtol=1e-5, atol=1e-5)


def test_head_follows_active_adapter(family: Callable[[str], Path]) -> None:
    folder = family("llama")
    with_head, without = random_adapter(folder), random_adapter(folder, unembed=False)
    base = load_base(str(folder))
    for adapter in (with_head, without, with_head):
        with base.using(adapter):
            assert (base.head().lora_a is not None) == (adapter is with_head)


@pytest.mark.parametrize(
    ("name", "more", "factor", "cap"),
    [
        ("granite", {"logits_scaling": 8.0}, 1 / 8, 0),
        ("cohere", {"logit_scale": 0.25}, 0.25, 0),
        ("gemma2", {"final_logit_softcapping": 0.5, "head_dim": 12, "query_pre_attn_scalar": 12}, 1, 0.5),
        ("gemma2", {"final_logit_softcapping": None, "head_dim": 12, "query_pre_attn_scalar": 12}, 1, 0),
    ],
)
def test_scale_and_cap_of_families(name: str, more: dict[str, Any], factor: float, cap: float) -> None:
    config = CONFIG_MAPPING[name](
        vocab_size=VOCAB, hidden_size=48, intermediate_size=80, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2, pad_token_id=0, bos_token_id=1, eos_token_id=2, **more,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    head = head_of(model, model.config)
    assert (head.factor, head.cap) == (factor, cap)
    hidden, expected = own_logits(model, model)
    assert float(expected.std()) > 0.05
    torch.testing.assert_close(head.logits(hidden), expected, rtol=1e-5, atol=1e-5)
