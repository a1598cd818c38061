"""Read the folder of a LoRA adapter in PEFT's layout, whichever program wrote it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import peft
from safetensors import SafetensorError, safe_open

from ..errors import CheckpointError, ConfigError
from ..lora_options import ADAPTER_CONFIG, LoraOptions
from .pretrained import canonical_name

__all__ = ["WEIGHTS_FILE", "PeftFolder", "read_peft_folder"]

WEIGHTS_FILE = "adapter_model.safetensors"
PICKLE_FILE = "adapter_model.bin"

# Entries of PEFT's configuration that this module reads, or that do not change what a saved adapter computes.
_KNOWN = {
    "auto_mapping", "base_model_name_or_path", "eva_config", "exclude_modules", "fan_in_fan_out", "inference_mode",
    "init_lora_weights", "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout", "megatron_core",
    "peft_type", "peft_version", "r", "revision", "runtime_config", "target_modules", "target_parameters", "task_type",
    "use_rslora",
}  # fmt: skip
# Initial values that leave the base model's weights as they are.
_PLAIN_INITS = {True, False, "gaussian", "orthogonal", "eva"}


@dataclass(frozen=True)
class PeftFolder:
    """What the folder of an adapter says about it, without its weights.

    Attributes:
        base_model: Name of the base model, as :class:`~mint_lab.engine.models.BaseModel` has it.
        lora: The adapter's options. It carries LoRA on the layers whose tensors are in the folder.
    """

    base_model: str
    lora: LoraOptions


def read_peft_folder(folder: Path) -> PeftFolder:
    """Read the configuration of an adapter, and the names of its tensors.

    Raises:
        CheckpointError: If the folder is damaged, its weights are a pickle file, it is no LoRA adapter of a causal
            language model, or it has a feature that cannot be trained on, which is named.
    """
    config = _config(folder)
    _check_features(config, folder)
    if not (folder / WEIGHTS_FILE).is_file() and (folder / PICKLE_FILE).is_file():
        raise CheckpointError(
            f"the weights of adapter {folder} are in {PICKLE_FILE}, a pickle file, which can run any code when it is "
            "loaded; expected safetensors: if you trust the file, load the adapter once with peft and call its "
            "save_pretrained(folder)"
        )
    try:
        lora = LoraOptions(
            config.get("r", 8),
            alpha=config.get("lora_alpha", 8),
            dropout=config.get("lora_dropout", 0.0),
            rslora=config.get("use_rslora", False),
            target_modules=_layers(config, folder),
        )
    except ConfigError as error:
        raise CheckpointError(f"adapter {folder} is damaged: {error}") from error
    return PeftFolder(_base_model(config, folder), lora)


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"adapter {folder} is damaged: cannot read {ADAPTER_CONFIG}: {error}") from error
    if not isinstance(config, dict):
        raise CheckpointError(f"adapter {folder} is damaged: {ADAPTER_CONFIG} is no JSON object")
    return config


def _check_features(config: dict[str, Any], folder: Path) -> None:
    """Refuse what is not plain LoRA: every entry that this module does not know must have PEFT's default."""
    kind, task = config.get("peft_type"), config.get("task_type")
    if kind != "LORA":
        raise CheckpointError(f"adapter {folder} has peft_type {kind!r}; only LoRA adapters ('LORA') can be trained")
    if task not in (None, "CAUSAL_LM"):
        raise CheckpointError(f"adapter {folder} has task_type {task!r}; only 'CAUSAL_LM' can be trained")
    defaults = {**peft.LoraConfig().to_dict(), "lora_bias": False}
    for name, value in config.items():
        if name not in _KNOWN and value != defaults.get(name) and (value or defaults.get(name)):
            raise CheckpointError(
                f"adapter {folder} has {name}={value!r}, which cannot be trained here: only plain LoRA can, without "
                f"{name}; merge the adapter into its base model with peft, and train a new one on the result"
            )
    if config.get("revision") not in (None, "main"):
        raise CheckpointError(
            f"adapter {folder} is of revision {config['revision']!r} of its base model; only 'main' can be loaded: "
            "download that revision, and write its directory into base_model_name_or_path, without the revision"
        )
    init = config.get("init_lora_weights", True)
    if not isinstance(init, (bool, str)) or init not in _PLAIN_INITS:
        raise CheckpointError(
            f"adapter {folder} has init_lora_weights={init!r}, which changes the weights of its base model too; "
            "convert it to plain LoRA with peft (path_initial_model_for_weight_conversion of save_pretrained)"
        )


def _layers(config: dict[str, Any], folder: Path) -> list[str]:
    """Return names of the layers that carry LoRA: PEFT's, unless they are a pattern or only some depths are meant."""
    modules, parameters = config.get("target_modules"), config.get("target_parameters") or []
    is_list = isinstance(modules, list) or (modules is None and parameters)
    if is_list and not any(config.get(name) for name in ("exclude_modules", "layers_to_transform", "layers_pattern")):
        return sorted({*(modules or []), *parameters})
    if parameters:
        raise CheckpointError(
            f"adapter {folder} has target_parameters and a pattern of layers; only lists of names can be trained"
        )
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as file:
            names = list(file.keys())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"adapter {folder} is damaged: cannot read {WEIGHTS_FILE}: {error}") from error
    return sorted({name.removeprefix("base_model.model.").partition(".lora_")[0] for name in names if ".lora_" in name})


def _base_model(config: dict[str, Any], folder: Path) -> str:
    """Return the name of the base model; a directory may be given relative to the present one, or to the folder."""
    name = config.get("base_model_name_or_path")
    if not isinstance(name, str) or not name:
        raise CheckpointError(
            f"adapter {folder} names no base model: write its directory or hub name into base_model_name_or_path of "
            f"{ADAPTER_CONFIG}"
        )
    for place in (Path(name).expanduser(), folder / name):
        if place.is_dir():
            return canonical_name(str(place.resolve()))
    return name
