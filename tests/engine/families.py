"""Tiny models of many families with random weights; their forward passes have every part of the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedTokenizerFast

VOCAB = 270

_SMALL: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 256,
    "eos_token_id": 256,
    "pad_token_id": 256,
}
_GPT2: dict[str, Any] = {
    "vocab_size": VOCAB,
    "n_embd": 48,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 128,
    "bos_token_id": 256,
    "eos_token_id": 256,
}
_HEAD = {"head_dim": 12}

FAMILIES: dict[str, dict[str, Any]] = {
    "qwen3": {**_SMALL, **_HEAD, "tie_word_embeddings": True},
    "qwen2": {**_SMALL, "tie_word_embeddings": False},
    "llama": {**_SMALL, "tie_word_embeddings": False},
    "mistral": {**_SMALL, **_HEAD, "sliding_window": 8},
    "gemma2": {**_SMALL, **_HEAD, "sliding_window": 8, "query_pre_attn_scalar": 12},
    "gemma3_text": {**_SMALL, **_HEAD, "sliding_window": 8, "query_pre_attn_scalar": 12},
    "gpt2": {**_GPT2, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "gpt_neox": {k: v for k, v in _SMALL.items() if k != "num_key_value_heads"},
    "phi": _SMALL,
    "granite": {**_SMALL, "logits_scaling": 0.5, "residual_multiplier": 0.7},
    "cohere": {**_SMALL, "logit_scale": 0.5},
    # Its attention bypasses the registry of attention functions, and measures its window along the row.
    "gpt_neo": {
        "vocab_size": VOCAB,
        "hidden_size": 48,
        "num_layers": 2,
        "num_heads": 4,
        "max_position_embeddings": 128,
        "window_size": 8,
        "attention_types": [[["global", "local"], 1]],
        "bos_token_id": 256,
        "eos_token_id": 256,
    },
}


def build(family: str, folder: Path, sizes: dict[str, Any] | None = None) -> Path:
    """Write a model of ``family`` with random weights and a byte-level tokenizer to ``folder``."""
    config = CONFIG_MAPPING[family](**(FAMILIES[family] if sizes is None else sizes))
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():  # larger than usual, so that the next-token distribution is far from uniform
        parameter.data += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    vocabulary = {c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))} | {"<|end|>": 256}
    core = Tokenizer(models.BPE(vocabulary, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<|end|>").save_pretrained(folder)
    return folder
