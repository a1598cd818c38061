"""Gradient checkpointing changes memory only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import CONFIG_MAPPING

from mint_lab.engine.models import load_base
from mint_lab.losses import pairwise_preference_loss

from .batches import sampled
from .conftest import random_adapter
from .families import FAMILIES, VOCAB
from .test_models import build_config
from .test_step import go, named_gradients


@pytest.mark.parametrize("name", FAMILIES)
def test_loss_and_gradients_are_unchanged(name: str, family: Callable[[str], Path]) -> None:
    adapter = random_adapter(family(name))
    data = sampled(2, (5, 20, 3, 8), prefix=3)
    plain = go(adapter, data)
    expected = named_gradients(adapter)
    adapter.gradients = None
    found = go(adapter, data, gradient_checkpointing=True)
    assert found.loss == pytest.approx(plain.loss, rel=1e-5)
    scale = max(float(g.abs().max()) for g in expected.values())
    for key, gradient in named_gradients(adapter).items():
        torch.testing.assert_close(gradient, expected[key], rtol=1e-5, atol=1e-5 * scale)


def test_coupled_loss_on_split_batch(qwen3: Path) -> None:
    adapter = random_adapter(qwen3)
    data = sampled(2, (5, 9, 3, 8))
    loss = go(adapter, data, pairwise_preference_loss).loss
    found = go(adapter, data, pairwise_preference_loss, gradient_checkpointing=True, max_tokens=12)
    assert found.passes == 2
    assert found.loss == pytest.approx(loss, rel=1e-5)


def test_dropout_stays_off_and_flags_are_restored(tmp_path: Path) -> None:
    """OPT's layers call dropout with their own training flag, GPT-2's have modules for it: both at 0.5 here."""
    opt = CONFIG_MAPPING["opt"](
        vocab_size=VOCAB, hidden_size=48, ffn_dim=80, num_hidden_layers=2, num_attention_heads=4, dropout=0.5,
        attention_dropout=0.5, word_embed_proj_dim=48, max_position_embeddings=128, bos_token_id=256,
        eos_token_id=256, pad_token_id=256,
    )  # fmt: skip
    gpt2 = CONFIG_MAPPING["gpt2"](
        vocab_size=VOCAB, n_embd=48, n_layer=2, n_head=4, n_positions=128, resid_pdrop=0.5, embd_pdrop=0.5,
        attn_pdrop=0.5, bos_token_id=256, eos_token_id=256,
    )  # fmt: skip
    for name, config in (("opt", opt), ("gpt2", gpt2)):
        (tmp_path / name).mkdir()
        adapter = random_adapter(build_config(config, tmp_path / name))
        plain = go(adapter, sampled(1)).loss
        before = [module.training for module in adapter.base._model.modules()]
        assert go(adapter, sampled(1), gradient_checkpointing=True).loss == pytest.approx(plain, rel=1e-5)
        assert [module.training for module in adapter.base._model.modules()] == before
        assert go(adapter, sampled(1)).loss == plain


def test_clients_of_one_model_choose_independently(qwen3: Path) -> None:
    first, second = random_adapter(qwen3), random_adapter(qwen3)
    assert first.base is second.base
    assert go(first, sampled(1), gradient_checkpointing=True).loss == pytest.approx(
        go(second, sampled(1)).loss, rel=1e-6
    )
    assert load_base(str(qwen3)).supports_gradient_checkpointing
