"""Shapes of LoRA adapters: which layers carry one, and under which names."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from ..errors import ModelError

__all__ = [
    "LORA_ALPHA",
    "LoraShape",
    "linear_layers",
    "stacked_experts",
    "suppress_peft_warnings",
    "target_modules",
    "target_parameters",
    "without_lora",
]

# The hosted service's alpha. The update is scaled by alpha / rank, so the learning rate need not follow the rank.
LORA_ALPHA = 32


@dataclass(frozen=True)
class LoraShape:
    """The shape of an adapter.

    Attributes:
        rank: Rank of the update of each layer.
        train_mlp: Whether the MLP's layers carry LoRA: every linear layer that is neither attention nor the head.
        train_attn: Whether the attention's layers carry LoRA.
        train_unembed: Whether the LM head carries LoRA.

    Raises:
        ModelError: If the rank is not a positive whole number, or no kind of layer carries LoRA.
    """

    rank: int = 32
    train_mlp: bool = True
    train_attn: bool = True
    train_unembed: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.rank, bool) or not isinstance(self.rank, int) or self.rank < 1:
            raise ModelError(f"rank is {self.rank!r}, expected a whole number of at least 1")
        if not (self.train_mlp or self.train_attn or self.train_unembed):
            raise ModelError("nothing to train: train_mlp, train_attn and train_unembed are all False; set one to True")


def linear_layers(model: Any) -> dict[str, str]:
    """Return the path of every linear layer with its kind: "attn", "mlp" or "unembed" (the LM head).

    A layer that computes something else than a linear map, such as the router of some mixtures of experts, is none.
    """
    head = model.get_output_embeddings()
    kinds: dict[str, str] = {}
    for path, module in model.named_modules():
        if module is head:
            kinds[path] = "unembed"
        elif type(module).forward in {nn.Linear.forward, Conv1D.forward}:
            kinds[path] = "attn" if "attn" in path.lower() or "attention" in path.lower() else "mlp"
    return kinds


def stacked_experts(model: Any) -> list[str]:
    """Return the names of the parameters ``(experts, in, out)`` that hold the layers of all experts of a mixture."""
    return [
        f"{path}.{name}"
        for path, module in model.named_modules()
        if not isinstance(module, (nn.Conv1d, nn.Conv2d))
        for name, parameter in module.named_parameters(recurse=False)
        if parameter.dim() == 3 and min(parameter.shape) > 1
    ]


def target_parameters(experts: list[str], shape: LoraShape) -> list[str]:
    """Return PEFT's ``target_parameters``: the endings of the experts' names, if the MLP carries LoRA."""
    return sorted({".".join(name.split(".")[-2:]) for name in experts}) if shape.train_mlp else []


def without_lora(kinds: dict[str, str], experts: list[str], shape: LoraShape, parameters: Iterable[str]) -> list[str]:
    """Return which layers of the requested kinds got no LoRA, with ``*`` for the number of a layer or an expert.

    Args:
        kinds: What :func:`linear_layers` returned.
        experts: What :func:`stacked_experts` returned.
        shape: The adapter's shape.
        parameters: Names of the adapter's parameters in PEFT's files.
    """
    covered = {name.removeprefix("base_model.model.").partition(".lora_")[0] for name in parameters}
    requested = {"attn": shape.train_attn, "mlp": shape.train_mlp, "unembed": shape.train_unembed}
    missing = [path for path, kind in kinds.items() if requested[kind] and path not in covered]
    # peft puts the second parameter of a module under "base_layer".
    owners = {path.removesuffix(".base_layer") for path in covered}
    missing += [name for name in experts if shape.train_mlp and name.rpartition(".")[0] not in owners]
    return sorted({".".join("*" if part.isdigit() else part for part in path.split(".")) for path in missing})


def target_modules(kinds: dict[str, str], shape: LoraShape) -> list[str]:
    """Return PEFT's ``target_modules``: the shortest path endings that match the requested layers and no others.

    Short names are what other programs that load the adapter expect.

    Raises:
        ModelError: If the model has no layer of a requested kind.
    """
    requested = {"attn": shape.train_attn, "mlp": shape.train_mlp, "unembed": shape.train_unembed}
    chosen = [path for path, kind in kinds.items() if requested[kind]]
    others = [path for path, kind in kinds.items() if not requested[kind]]
    names: set[str] = set()
    for path in chosen:
        parts = path.split(".")
        endings = (".".join(parts[-n:]) for n in range(1, len(parts) + 1))
        names.add(next(e for e in endings if not any(o == e or o.endswith(f".{e}") for o in others)))
    if not names:
        raise ModelError("this model has no linear layer of the requested kinds, so LoRA cannot be attached to it")
    return sorted(names)


@contextlib.contextmanager
def suppress_peft_warnings() -> Generator[None]:
    """Within this context, ignore what peft warns of while it attaches an adapter.

    Four warnings are ignored: a deprecated use of transformers by peft itself; that peft has set ``fan_in_fan_out``
    for GPT-2's layers; that peft's own pattern for the experts of a mixture, which are parameters, matches no module;
    and that LoRA on a tied LM head must not be merged into the embedding. The engine merges into copies only
    (:func:`mint_lab.engine.fused_layers.merged`). Whoever merges a saved adapter gets peft's warning again, and the
    documentation says how to do it. peft's ``ensure_weight_tying`` is not an alternative: it puts LoRA on the
    embedding, which is another model.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="peft|transformers")
        warnings.filterwarnings("ignore", category=RuntimeWarning, message=".*_pattern keys did not match any")
        warnings.filterwarnings("ignore", category=UserWarning, message=".*(tie_word_embeddings|fan_in_fan_out).*")
        yield
