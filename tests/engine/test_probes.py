"""What a model's attention is found to do when it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import CONFIG_MAPPING

from mint_lab.engine.models import load_base
from mint_lab.errors import ModelError

from .families import FAMILIES, VOCAB
from .test_models import build_config

PADDED = {"mistral", "gemma2", "gemma3_text"}  # sliding windows of 8, below the probe's 21 tokens


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_causal_and_known_to_pack_or_not(name: str, family: Callable[[str], Path]) -> None:
    assert load_base(str(family(name))).packs == (name not in PADDED)


@pytest.mark.parametrize("decoder", [False, True])
def test_a_bidirectional_model_is_refused(decoder: bool, tmp_path: Path) -> None:
    """BERT loads as a causal language model; whether it is one, a flag in its configuration says."""
    config = CONFIG_MAPPING["bert"](
        vocab_size=VOCAB, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=128, is_decoder=decoder,
    )  # fmt: skip
    folder = str(build_config(config, tmp_path))
    if decoder:
        load_base(folder)
    else:
        with pytest.raises(ModelError, match=r"cannot use base model '.*': its hidden states depend on later tokens"):
            load_base(folder)
