"""The bundled model as it is checked in: its files, its card and its configuration."""

from __future__ import annotations

import re
from typing import Any

import pytest

from mint_lab import tiny
from mint_lab.tiny.card import sha256
from mint_lab.tiny.corpus import END


def test_files() -> None:
    names = {file.name for file in tiny.path().iterdir()}
    assert names >= {
        "MODEL_CARD.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    weights = tiny.path() / "model.safetensors"
    assert weights.stat().st_size <= 4_000_000
    assert weights.stat().st_mode & 0o444 == 0o444


def test_card_has_the_checksums_of_the_files() -> None:
    card = (tiny.path() / "MODEL_CARD.md").read_text(encoding="utf-8")
    for name in ("model.safetensors", "tokenizer.json"):
        checksum = re.search(rf"`{re.escape(name)}`.*sha256 `([0-9a-f]{{64}})`", card)
        assert checksum is not None
        assert checksum.group(1) == sha256(tiny.path() / name)


def test_model_is_small_float32_qwen3_with_tied_embeddings(model: Any) -> None:
    import torch

    assert type(model).__name__ == "Qwen3ForCausalLM"
    assert sum(p.numel() for p in model.parameters()) < 1_000_000
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.config.max_position_embeddings >= 512


def test_model_and_tokenizer_agree(model: Any, tokenizer: Any) -> None:
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer.eos_token == tokenizer.pad_token == END
    assert tokenizer.bos_token is None
    for config in (model.config, model.generation_config):
        assert config.eos_token_id == config.pad_token_id == tokenizer.eos_token_id


def test_missing_model_error_says_how_to_train_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tiny, "NAME", "no-such-model")
    with pytest.raises(FileNotFoundError, match=r"python -m mint_lab\.tiny\.build"):
        tiny.path()
