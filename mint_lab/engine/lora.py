"""Which layers of a model carry LoRA, and the names that PEFT gets for them."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from ..errors import ModelError
from ..lora_options import LoraOptions

__all__ = [
    "LoraLayers",
    "check_rank",
    "layers_below_rank",
    "linear_layers",
    "lora_layers",
    "stacked_experts",
    "suppress_peft_warnings",
    "without_lora",
]


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


@dataclass(frozen=True)
class LoraLayers:
    """The layers that carry LoRA.

    Attributes:
        linear: Paths of linear layers.
        experts: Names of the parameters that hold the layers of all experts of a mixture.
        target_modules: PEFT's names of the linear layers.
        target_parameters: PEFT's names of the parameters.
    """

    linear: list[str]
    experts: list[str]
    target_modules: list[str]
    target_parameters: list[str]


def lora_layers(kinds: Mapping[str, str], experts: list[str], options: LoraOptions) -> LoraLayers:
    """Return the layers that carry LoRA.

    For kinds of layers, PEFT's names are the shortest path endings that match the requested layers and no others. Short
    names are what other programs that load the adapter expect.

    Args:
        kinds: What :func:`linear_layers` returned.
        experts: What :func:`stacked_experts` returned.
        options: The adapter's options.

    Raises:
        ModelError: If the model has no layer of a requested kind, or no layer of a name.
    """
    if options.target_modules is not None:
        return _named_layers(kinds, experts, options.target_modules)
    requested = {"attn": options.attn, "mlp": options.mlp, "unembed": options.unembed}
    chosen = [path for path, kind in kinds.items() if requested[kind]]
    others = [path for path, kind in kinds.items() if not requested[kind]]
    names: set[str] = set()
    for path in chosen:
        parts = path.split(".")
        endings = (".".join(parts[-n:]) for n in range(1, len(parts) + 1))
        names.add(next(e for e in endings if not any(_matches(o, e) for o in others)))
    stacked = experts if options.mlp else []
    if not (names or stacked):
        raise ModelError("this model has no linear layer of the requested kinds, so LoRA cannot be attached to it")
    return LoraLayers(chosen, stacked, sorted(names), sorted({_last_two(name) for name in stacked}))


def _named_layers(kinds: Mapping[str, str], experts: list[str], names: Iterable[str]) -> LoraLayers:
    modules = [name for name in names if any(_matches(path, name) for path in kinds)]
    parameters = [name for name in names if any(_matches(path, name) for path in experts)]
    unknown = [name for name in names if name not in modules and name not in parameters]
    if unknown:
        available = sorted({path.rpartition(".")[2] for path in kinds} | {_last_two(name) for name in experts})
        raise ModelError(
            f"target_modules names {', '.join(map(repr, unknown))}, and no linear layer of this model has such a name; "
            f"its layers are {', '.join(available)}"
        )
    linear = [path for path in kinds if any(_matches(path, name) for name in modules)]
    stacked = [path for path in experts if any(_matches(path, name) for name in parameters)]
    return LoraLayers(linear, stacked, modules, parameters)


def _matches(path: str, name: str) -> bool:
    """Return whether PEFT takes ``name`` for the layer at ``path``."""
    return path == name or path.endswith(f".{name}")


def _last_two(name: str) -> str:
    return ".".join(name.split(".")[-2:])


def check_rank(smaller: Mapping[str, int], options: LoraOptions) -> None:
    """Check the rank of a new adapter.

    Args:
        smaller: The smaller dimension of each layer that is to carry LoRA, by path.
        options: The adapter's options.

    Raises:
        ModelError: If the rank is above the smaller dimension of every layer, which bounds the rank of any update.
    """
    bound = max(smaller.values())
    if options.rank > bound:
        raise ModelError(
            f"rank is {options.rank}, expected at most {bound}: an update has at most the rank of its layer's smaller "
            f"dimension, and that is {bound} or less in every layer that is to carry LoRA"
        )


def layers_below_rank(smaller: Mapping[str, int], options: LoraOptions) -> list[str]:
    """Return the layers whose smaller dimension is below the rank, with ``*`` for the number of a layer.

    Args:
        smaller: The smaller dimension of each layer that carries LoRA, by path.
        options: The adapter's options.
    """
    return _numbered(path for path, size in smaller.items() if size < options.rank)


def without_lora(layers: LoraLayers, parameters: Iterable[str]) -> list[str]:
    """Return which layers that were to carry LoRA got none, with ``*`` for the number of a layer or an expert.

    Args:
        layers: The layers that were to carry LoRA.
        parameters: Names of the adapter's parameters in PEFT's files.
    """
    covered = {name.removeprefix("base_model.model.").partition(".lora_")[0] for name in parameters}
    missing = [path for path in layers.linear if path not in covered]
    # peft puts the second parameter of a module under "base_layer".
    owners = {path.removesuffix(".base_layer") for path in covered}
    return _numbered(missing + [name for name in layers.experts if name.rpartition(".")[0] not in owners])


def _numbered(paths: Iterable[str]) -> list[str]:
    return sorted({".".join("*" if part.isdigit() else part for part in path.split(".")) for path in paths})


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
