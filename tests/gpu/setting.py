"""Models with random weights, batches, and the calls of the engine, without any package that a bare machine lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config

from mint_lab.engine.batch import Batch, read_batch
from mint_lab.engine.models import Adapter, BaseModel
from mint_lab.engine.step import Builtin, Custom, PassResult, run_pass
from mint_lab.lora_options import LoraOptions
from mint_lab.losses import LOSSES

__all__ = ["SHAPES", "Row", "adam", "adapter_on", "base_model", "batch_of", "go", "rows"]

SHAPES: dict[str, dict[str, int]] = {
    "tiny": {"vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16},
    "0.6B": {"vocab_size": 151_936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
             "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128},
    "4B": {"vocab_size": 151_936, "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
           "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128},
}  # fmt: skip


@dataclass
class _Numbers:
    """A field of a datum, with the two methods of the API's tensors that the engine and the losses call."""

    values: np.ndarray[Any, Any]

    def to_numpy(self) -> np.ndarray[Any, Any]:
        return self.values

    def to_torch(self) -> torch.Tensor:
        return torch.from_numpy(self.values)


@dataclass
class Row:
    """A datum, as the engine reads it."""

    model_input: Any
    loss_fn_inputs: dict[str, Any] = field(default_factory=dict)


def rows(seed: int, *, prefixes: int, copies: int, prefix: int, suffix: int, vocab: int, reference: bool) -> list[Row]:
    """Return ``prefixes`` prompts of ``prefix`` tokens with ``copies`` continuations of ``suffix`` tokens each."""
    draw = np.random.default_rng(seed)
    made: list[Row] = []
    for _ in range(prefixes):
        prompt = draw.integers(0, vocab, prefix)
        for _ in range(copies):
            tokens = np.concatenate([prompt, draw.integers(0, vocab, suffix + 1)])
            n = len(tokens) - 1
            weights = (np.arange(n) >= prefix - 1).astype(np.float32)
            numbers: dict[str, Any] = {"target_tokens": tokens[1:], "weights": weights}
            if reference:
                numbers["reference_logprobs"] = np.full(n, -np.log(vocab), dtype=np.float32)
            else:
                numbers["logprobs"] = draw.normal(-np.log(vocab), 0.1, n).astype(np.float32)
                numbers["advantages"] = np.full(n, draw.normal(), dtype=np.float32)
            chunk = SimpleNamespace(tokens=tokens[:-1].tolist())
            made.append(Row(SimpleNamespace(chunks=[chunk]), {k: _Numbers(v) for k, v in numbers.items()}))
    return made


def base_model(shape: str, device: torch.device, dtype: torch.dtype, context: int = 4096) -> BaseModel:
    """Return a Qwen3 with random weights. A small one has the same weights on every device."""
    torch.manual_seed(0)
    config = Qwen3Config(**SHAPES[shape], max_position_embeddings=context, tie_word_embeddings=True)
    where = torch.device("cpu") if shape == "tiny" else device  # billions of random numbers take long on a CPU
    with where:
        model: Any = AutoModelForCausalLM.from_config(config, dtype=dtype)
    if shape == "tiny":  # larger than usual, so that the next-token distribution is far from uniform
        for parameter in model.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    vocabulary = {f"<{i}>": i for i in range(config.vocab_size)}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.WordLevel(vocabulary)), eos_token="<0>")
    model.name_or_path = f"qwen3-{shape}"  # peft compares it with the name in its configuration
    model = model.to(device).eval().requires_grad_(False)
    return BaseModel(f"qwen3-{shape}", f"qwen3-{shape}", model, tokenizer, device)


def adapter_on(base: BaseModel, **options: Any) -> Adapter:
    """Return an adapter whose B is not 0, as after some training; equal on every device."""
    adapter = base.attach(LoraOptions(**{"rank": 16, **options}), seed=0)
    generator = torch.Generator().manual_seed(7)
    for parameter in adapter.parameters.values():
        with torch.no_grad():
            parameter.copy_(0.02 * torch.randn(parameter.shape, generator=generator))
    return adapter


def batch_of(adapter: Adapter, data: Sequence[Any], loss: Any) -> Batch:
    spec = LOSSES[loss] if isinstance(loss, str) else None
    return read_batch(list(data), spec, vocab_size=adapter.base.vocab_size, context=adapter.base.context)


def go(adapter: Adapter, data: Sequence[Any], loss: Any, **options: Any) -> PassResult:
    """Run a training pass with a built-in loss, by name, or a custom loss."""
    spec = LOSSES[loss] if isinstance(loss, str) else None
    objective = Builtin(spec, spec.config(None)) if spec is not None else Custom(loss)
    return run_pass(adapter, batch_of(adapter, data, loss), objective, **options)


def adam(learning_rate: float = 1e-4) -> Any:
    return SimpleNamespace(
        learning_rate=learning_rate, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.0, grad_clip_norm=1.0
    )
