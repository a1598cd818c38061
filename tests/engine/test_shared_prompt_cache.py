"""Samples that share their prompt's cache are those with a copy of it each."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig

from mint_lab.engine import generation, shared_prompt_cache
from mint_lab.engine.generation import GenerationRequest, generate
from mint_lab.engine.shared_prompt_cache import SharedPromptCache

from .conftest import random_adapter
from .families import FAMILIES

WINDOWED = {"mistral", "gemma2", "gemma3_text", "gpt_neo"}


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_samples_match_copied_caches(name: str, family: Callable[[str], Path]) -> None:
    """Prompts of many lengths and numbers of samples, which end at different times, so that prompts are dropped too."""
    adapter = random_adapter(family(name))
    base = adapter.base
    random = np.random.default_rng(1)
    requests = [
        GenerationRequest(random.integers(0, 256, length).tolist(), samples, tokens, seed=length)
        for length, samples, tokens in ((1, 5, 3), (7, 1, 30), (12, 4, 9), (20, 2, 21))
    ]
    found = []
    for shares in (False, None):
        base.shares_prompts = shares
        with base.using(adapter):
            found.append(generate(base, requests))
    assert base.shares_prompts is (name not in WINDOWED), "a family that can share prompts does"
    for copied, shared in zip(*found, strict=True):
        for a, b in zip(copied, shared, strict=True):
            assert a.tokens == b.tokens
            np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)


@pytest.mark.parametrize("cap", [None, 2.0])
@pytest.mark.parametrize("groups", [1, 2, 4])
def test_attention_matches_one_softmax(groups: int, cap: float | None) -> None:
    """Two prompts of 5 and 3 columns, three samples of 4 tokens so far, four heads, against the plain formula."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    config = AutoConfig.for_model("qwen3", **{**FAMILIES["qwen3"], "num_hidden_layers": 1})
    owner, pads = torch.tensor([1, 0, 1]), torch.tensor([0, 2])
    state = SharedPromptCache(config, owner, pads, 5, torch.device("cpu"))
    prompt_keys, prompt_values = draw(2, groups, 5, 8), draw(2, groups, 5, 8)
    state.cache.update(prompt_keys, prompt_values, 0)
    keys, values = state.cache.update(draw(3, groups, 1, 8), draw(3, groups, 1, 8), 0)
    for _ in range(3):
        keys, values = state.cache.update(draw(3, groups, 1, 8), draw(3, groups, 1, 8), 0)
    q = draw(3, 4, 8)
    found = state.attend(q, keys, values, 0, cap)
    for row, prompt in enumerate(owner.tolist()):
        pad = int(pads[prompt])
        all_keys = torch.cat([prompt_keys[prompt, :, pad:], keys[row]], 1).repeat_interleave(4 // groups, 0)
        all_values = torch.cat([prompt_values[prompt, :, pad:], values[row]], 1).repeat_interleave(4 // groups, 0)
        scores = (all_keys @ q[row, :, :, None]).squeeze(-1)
        scores = scores if cap is None else cap * torch.tanh(scores / cap)
        expected = (scores.softmax(-1)[:, None] @ all_values).squeeze(1)
        torch.testing.assert_close(found[row], expected, rtol=1e-5, atol=1e-6)


def test_other_attention_falls_back_to_copies(qwen3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sharing that raises, or gives other logits, is not used."""
    adapter = random_adapter(qwen3)
    base = adapter.base
    with base.using(adapter):
        base.shares_prompts = None
        right = generate(base, [GenerationRequest([5, 6], 3, 8, seed=0)])
        assert base.shares_prompts
        for wrong in (_zeros, _fails):
            monkeypatch.setattr(shared_prompt_cache.SharedPromptCache, "attend", wrong)
            base.shares_prompts = None
            assert [s.tokens for s in generate(base, [GenerationRequest([5, 6], 3, 8, seed=0)])[0]] == [
                s.tokens for s in right[0]
            ]
            assert base.shares_prompts is False
    base.shares_prompts = None


def _zeros(_: SharedPromptCache, q: torch.Tensor, *__: object) -> torch.Tensor:
    return torch.zeros_like(q)


def _fails(*_: object) -> torch.Tensor:
    raise TypeError("no such argument")


def test_family_attention_is_restored() -> None:
    config = AutoConfig.for_model("qwen3", **FAMILIES["qwen3"])
    before = config._attn_implementation
    state = SharedPromptCache(config, torch.tensor([0]), torch.tensor([0]), 2, torch.device("cpu"))
    with contextlib.suppress(ZeroDivisionError), state.use():
        assert config._attn_implementation == shared_prompt_cache.ATTENTION_NAME
        raise ZeroDivisionError
    assert config._attn_implementation == before


def test_sinks_and_windows_raise() -> None:
    query = torch.zeros(1, 1, 1, 2)
    for odd in ({"s_aux": torch.zeros(1)}, {"sliding_window": 4}):
        with pytest.raises(NotImplementedError):
            shared_prompt_cache._shared_prompt_attention(None, query, query, query, None, **odd)


def test_sharing_is_tested_once(qwen3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = random_adapter(qwen3).base
    base.shares_prompts = None
    tried: list[int] = []
    original = generation._shares_exactly
    monkeypatch.setattr(generation, "_shares_exactly", lambda b: tried.append(1) or original(b))
    with base.using(None):
        for _ in range(3):
            generate(base, [GenerationRequest([5], 2, 3, seed=0)])
    assert tried == [1]
