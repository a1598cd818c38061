"""Tiny configurations of further families, for the tests that hold for all of them."""

from __future__ import annotations

from typing import Any

from .families import FAMILIES, VOCAB

_SMALL = FAMILIES["llama"]
_HEAD = {**_SMALL, "head_dim": 12}
_EXPERTS = {
    **_SMALL,
    **{"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
}
_ROUTED = {**_EXPERTS, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
_GPT = {name: value for name, value in FAMILIES["gpt2"].items() if not name.endswith("pdrop")}
_OPT = {
    **{"vocab_size": VOCAB, "hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 80},
    **{"max_position_embeddings": 128, "word_embed_proj_dim": 48},
    **{"bos_token_id": 256, "eos_token_id": 256, "pad_token_id": 256},
}
_MAMBA = {"vocab_size": VOCAB, "hidden_size": 48, "num_hidden_layers": 2, "state_size": 8}
_LOW_RANK = {"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12}

DENSE: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("gemma", "starcoder2", "olmo", "olmo2", "nemotron", "arcee", "apertus", "ernie4_5"), _SMALL),
    **dict.fromkeys(("bitnet", "diffllama", "lfm2", "vaultgemma", "phi3", "persimmon"), _SMALL),
    **dict.fromkeys(("glm", "glm4", "smollm3", "helium", "seed_oss", "exaone4", "hunyuan_v1_dense"), _HEAD),
    "olmo3": {**_SMALL, "sliding_window": 8},
    "cohere2": {**_HEAD, "sliding_window": 8},
    "gemma4_text": {
        **_HEAD,
        "sliding_window": 8,
        "hidden_size_per_layer_input": 16,
        "vocab_size_per_layer_input": VOCAB,
    }
    | {"num_kv_shared_layers": 0, "global_head_dim": 24},
    "gptj": {**_GPT, "rotary_dim": 8},
    "codegen": {**_GPT, "rotary_dim": 8},
    "gpt_bigcode": _GPT,
    "opt": _OPT,
    "biogpt": {name: value for name, value in _SMALL.items() if name != "num_key_value_heads"},
    "bloom": {
        "vocab_size": VOCAB,
        "hidden_size": 48,
        "n_layer": 2,
        "n_head": 4,
        "bos_token_id": 256,
        "eos_token_id": 256,
    },
}
MIXTURES: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("mixtral", "olmoe", "granitemoe", "phimoe", "flex_olmo", "qwen2_moe"), _EXPERTS),
    "qwen3_moe": {**_EXPERTS, "head_dim": 12},
    "gpt_oss": {**_EXPERTS, "head_dim": 12, "sliding_window": 8},
    "jetmoe": {**_EXPERTS, "kv_channels": 12},
    "jamba": {
        **_EXPERTS,
        "mamba_d_state": 8,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "use_mamba_kernels": False,
    },
}
# peft takes the names of their dense layers for those of the experts, so that the dense layers get no LoRA.
PARTLY: dict[str, dict[str, Any]] = {
    "glm4_moe": {**_ROUTED, "head_dim": 12},
    "deepseek_v3": {**_ROUTED, **_LOW_RANK, "num_key_value_heads": 4},
    "ernie4_5_moe": _EXPERTS,
}
# Their layers keep a state instead of keys and values.
STATEFUL: dict[str, dict[str, Any]] = {
    "mamba": _MAMBA,
    "mamba2": {**_MAMBA, "num_heads": 8, "head_dim": 12, "n_groups": 1},
    "falcon_mamba": _MAMBA,
}
LONG_ROPE: dict[str, Any] = {
    **_SMALL,
    "original_max_position_embeddings": 32,
    "rope_parameters": {
        **{"rope_type": "longrope", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32},
        **{"short_factor": [1.0] * 6, "long_factor": [2.0] * 6},
    },
}
