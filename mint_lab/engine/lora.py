"""Which layers carry LoRA, and under which names: shapes of adapters, apart from any model."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from ..errors import ModelError

__all__ = ["LORA_ALPHA", "LoraShape", "linear_layers", "peft_quiet", "targets"]

# alpha as on the hosted service: the update is scaled by alpha / rank, so the learning rate need not follow the rank.
LORA_ALPHA = 32


@dataclass(frozen=True)
class LoraShape:
    """Which adapter: rank, and which kinds of layers carry it."""

    rank: int = 32
    train_mlp: bool = True
    train_attn: bool = True
    train_unembed: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise ModelError(f"rank is {self.rank!r}, expected a whole number from 1 up")
        if not (self.train_mlp or self.train_attn or self.train_unembed):
            raise ModelError("nothing to train: train_mlp, train_attn and train_unembed are all False")


def linear_layers(model: Any) -> dict[str, str]:
    """Path of every linear layer -> "attn", "mlp" or "unembed"."""
    output = model.get_output_embeddings()
    kinds: dict[str, str] = {}
    for path, module in model.named_modules():
        if module is output:
            kinds[path] = "unembed"
        elif isinstance(module, (nn.Linear, Conv1D)):
            kinds[path] = "attn" if "attn" in path.lower() or "attention" in path.lower() else "mlp"
    return kinds


def targets(kinds: dict[str, str], shape: LoraShape) -> list[str]:
    """Names of the layers that carry LoRA, as short as they are unambiguous, so that other loaders know them."""
    wanted = {"attn": shape.train_attn, "mlp": shape.train_mlp, "unembed": shape.train_unembed}
    chosen = [path for path, kind in kinds.items() if wanted[kind]]
    others = [path for path, kind in kinds.items() if not wanted[kind]]
    names: set[str] = set()
    for path in chosen:
        parts = path.split(".")
        tails = (".".join(parts[-n:]) for n in range(1, len(parts) + 1))
        names.add(next(t for t in tails if not any(o == t or o.endswith(f".{t}") for o in others)))
    if not names:
        raise ModelError("this model has no linear layer of the kinds asked for; LoRA has nothing to attach to")
    return sorted(names)


@contextlib.contextmanager
def peft_quiet() -> Generator[None]:
    """What peft warns of while it attaches: its own use of transformers; that it has set fan_in_fan_out for GPT-2's
    layers itself; and that LoRA on a tied output layer must not be merged into the embedding. In here it is merged into
    copies alone (:func:`mint_lab.engine.fused_layers.merged`); who merges a saved adapter is warned by peft again, and finds
    how to do it in the README. peft's ``ensure_weight_tying`` is no help: it puts LoRA on the embedding, another model.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="peft|transformers")
        warnings.filterwarnings("ignore", category=UserWarning, message=".*(tie_word_embeddings|fan_in_fan_out).*")
        yield
