"""The growing cache has the contents of transformers' own, and copies little."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoConfig, DynamicCache

from mint_lab.engine.kv_cache import cache_argument, cache_bytes_per_token, new_cache

from .families import FAMILIES

LAYERS = 2


def configured(family: str) -> AutoConfig:
    return AutoConfig.for_model(family, **FAMILIES[family])


@given(
    st.sampled_from(["qwen3", "mistral", "gemma2"]),
    st.integers(1, 12),
    st.lists(st.one_of(st.just("token"), st.lists(st.integers(0, 2), min_size=1, max_size=4)), max_size=90),
)
def test_cache_matches_transformers(family: str, prompt: int, events: list[str | list[int]]) -> None:
    """A prompt, then tokens and selections of rows (modulo the number of rows), for full and sliding attention."""
    config = configured(family)
    mine, theirs = new_cache(config), DynamicCache(config=config)
    generator = torch.Generator().manual_seed(0)
    rows = 3

    def add(width: int) -> None:
        for layer in range(LAYERS):
            keys, values = torch.randn(2, rows, 2, width, 4, generator=generator)
            for a, b in zip(mine.update(keys, values, layer), theirs.update(keys, values, layer), strict=True):
                assert torch.equal(a, b)

    add(prompt)
    for event in events:
        if event == "token":
            add(1)
        else:
            keep = torch.tensor([int(i) % rows for i in event])
            mine.reorder_cache(keep)  # type: ignore[arg-type]
            theirs.reorder_cache(keep)  # type: ignore[arg-type]
            rows = len(keep)
        for layer in range(LAYERS):
            assert torch.equal(mine.layers[layer].keys, theirs.layers[layer].keys)
            assert mine.get_seq_length(layer) == theirs.get_seq_length(layer)
            assert mine.get_mask_sizes(1, layer) == theirs.get_mask_sizes(1, layer)


def test_tokens_are_written_in_place() -> None:
    """After 64 tokens the buffer has been allocated twice: for the prompt, and once with room for 64."""
    cache = new_cache(configured("qwen3"))
    places = set()
    for width in [10] + [1] * 64:
        keys = torch.randn(3, 2, width, 4)
        cache.update(keys, keys, 0)
        places.add(cache.layers[0].keys.data_ptr())
    assert len(places) == 2


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}, 2 * 3 * 32 * 4),
        ({"num_hidden_layers": 1, "num_attention_heads": 4, "hidden_size": 48}, 2 * 48 * 4),
    ],
)
def test_bytes_per_token_by_hand(facts: dict[str, int], expected: int) -> None:
    assert cache_bytes_per_token(SimpleNamespace(**facts), 4) == expected


def test_cache_argument_follows_the_model() -> None:
    class Older:
        def forward(self, input_ids: Any = None, past_key_values: Any = None, use_cache: Any = None) -> None: ...

    class Newer:
        def forward(self, input_ids: Any = None, cache: Any = None, use_cache: Any = None) -> None: ...

    assert cache_argument(Older()) == "past_key_values"
    assert cache_argument(Newer()) == "cache"


@pytest.mark.parametrize("family", ["qwen3", "gpt2", "phi", "gemma2"])
def test_bytes_per_token_match_a_real_cache(family: str) -> None:
    from transformers import AutoModelForCausalLM

    config = configured(family)
    cache = new_cache(config)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        model(input_ids=torch.tensor([[1, 2, 3, 4]]), **{cache_argument(model): cache}, use_cache=True)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)  # type: ignore[union-attr]
    assert held == 4 * cache_bytes_per_token(config, 4)
