"""Checkpoints: folders in PEFT's layout, which transformers, peft and vLLM load as they are.

Tensors are in safetensors files only, and all of their numbers are finite; nothing is pickled.

::

    NAME/adapter_model.safetensors  adapter_config.json    as peft's save_pretrained writes them
    NAME/optimizer.safetensors                             moments of AdamW (training checkpoints)
    NAME/start.safetensors                                 where training started, if not at the base model
    NAME/mint_lab.json                                     base model, LoRA's options, format version
    NAME/tokenizer.json  chat_template.jinja  ...          tokenizer, for other programs (exported adapters)

A folder that PEFT or TRL wrote, without ``mint_lab.json``, is a checkpoint for a sampler.

A checkpoint is written to a draft folder beside its final place and then renamed, so that a name always leads to a
complete one. No portable call replaces one folder by another: the old folder is first renamed to ``.NAME.old``. If a
save was killed between the two renames, the next read, list, save or delete of NAME restores the old folder.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError

from ..errors import CheckpointError, ConfigError, ModelError
from ..folders import draft_folder, old_folder, recover, write_folder
from ..lora_options import ADAPTER_CONFIG, DEFAULT_ALPHA, LoraOptions
from ..tensors import load_tensors, save_tensors
from .models import Adapter, Weights
from .optimizer import Optimizer
from .peft_folder import WEIGHTS_FILE, PeftFolder, read_peft_folder

__all__ = [
    "METADATA_FILE",
    "Checkpoint",
    "delete_checkpoint",
    "load_base_of",
    "load_checkpoint",
    "read_adapter",
    "read_metadata",
    "save_checkpoint",
]

FORMAT_VERSION = 2
METADATA_FILE = "mint_lab.json"
T = TypeVar("T")

START_FILE = "start.safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint folder.

    Attributes:
        base_model: Name of the base model.
        lora: Options of the adapter.
        weights: The adapter's weights by PEFT's names.
        optimizer: State of the optimizer; None for sampler weights.
        start: The weights at which training started; None for the base model.
        dropout: The seed of dropout, and the number of training passes with it; None for sampler weights.
        config: PEFT's configuration of the adapter, which :meth:`write` needs; None of a checkpoint that was read.
    """

    base_model: str
    lora: LoraOptions
    weights: Weights
    optimizer: dict[str, torch.Tensor] | None
    start: Weights | None = None
    dropout: tuple[int, int] | None = None
    config: Any = None

    @classmethod
    def of(cls, adapter: Adapter, optimizer: Optimizer | None) -> Checkpoint:
        """Return copies of an adapter's weights and, if given, of an optimizer's state."""
        is_whole = optimizer is not None
        return cls(
            base_model=adapter.base.name,
            lora=adapter.lora,
            weights=adapter.copy(),
            optimizer=None if optimizer is None else optimizer.state(),
            start=adapter.start if is_whole else None,
            dropout=(adapter.dropout_seed, adapter.dropout_passes) if is_whole else None,
            config=copy.deepcopy(adapter.base.peft_config(adapter)),
        )

    def write(self, folder: Path) -> None:
        """Write the files into an existing folder; on any thread. ``mint_lab.json`` names all files that are there.

        Raises:
            CheckpointError: If a number is not finite.
            OSError, SafetensorError: If a file cannot be written.
        """
        save_tensors(self.weights, folder / WEIGHTS_FILE)
        self.config.save_pretrained(str(folder))
        if self.optimizer is not None:
            save_tensors(self.optimizer, folder / "optimizer.safetensors")
            if self.start is not None:
                save_tensors(self.start, folder / START_FILE)
        metadata: dict[str, Any] = {
            "format": FORMAT_VERSION,
            "base_model": self.base_model,
            "lora": self.lora.record(),
            # So that they can be told from those of a person.
            "files": sorted([METADATA_FILE, *(entry.name for entry in folder.iterdir())]),
        }
        if self.dropout is not None:
            metadata["dropout"] = list(self.dropout)
        (folder / METADATA_FILE).write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")

    def load_into(self, adapter: Adapter, optimizer: Optimizer | None = None) -> None:
        """Load the weights into ``adapter`` and, if given, the moments into ``optimizer``.

        With an optimizer, the saved training continues: it started where the saved one did, and dropout continues
        with its masks. Without one, a training starts at these weights.

        Raises:
            CheckpointError: If the checkpoint is of another base model or adapter shape. Nothing is changed then.
        """
        try:
            weights = self._weights_for(adapter)
            if optimizer is not None:
                optimizer.check(self.optimizer or {})  # before the weights are changed
            if optimizer is not None and self.start is not None:
                adapter.check(self.start)
            adapter.load(weights)
            if optimizer is None:
                adapter.start_here()
            else:
                optimizer.load(self.optimizer or {})
                self._continue_training(adapter)
        except ModelError as error:
            raise CheckpointError(str(error)) from error

    def refer(self, adapter: Adapter) -> None:
        """Make the weights of this checkpoint the reference of ``adapter``, which keeps its own.

        Raises:
            CheckpointError: If the checkpoint is of another base model or adapter shape. Nothing is changed then.
        """
        weights = self._weights_for(adapter)
        adapter.start = {name: weights[name].to(p) for name, p in adapter.parameters.items()}

    def _weights_for(self, adapter: Adapter) -> Weights:
        """Return the weights without copies of the base model's own. Raises as :meth:`refer`."""
        if self.base_model != adapter.base.name:
            raise CheckpointError(
                f"the checkpoint is of base model {self.base_model!r}, but this client trains {adapter.base.name!r}"
            )
        weights = {name: w for name, w in self.weights.items() if not adapter.base.is_copy(name, w)}
        try:
            adapter.check(weights)
        except ModelError as error:
            raise CheckpointError(str(error)) from error
        if self.lora.scaling != adapter.lora.scaling:
            raise CheckpointError(
                f"the checkpoint has {self.lora}, which scales its update by {self.lora.scaling:g}, and this "
                f"client's adapter {adapter.lora}, which scales by {adapter.lora.scaling:g}"
            )
        return weights

    def _continue_training(self, adapter: Adapter) -> None:
        adapter.start = None
        if self.start is not None:
            adapter.start = {name: self.start[name].to(p) for name, p in adapter.parameters.items()}
        if self.dropout is not None:
            adapter.dropout_seed, adapter.dropout_passes = self.dropout


def save_checkpoint(
    folder: Path, adapter: Adapter, optimizer: Optimizer | None, *, with_tokenizer: bool = False
) -> None:
    """Write a checkpoint to ``folder``, and replace what was there.

    Args:
        folder: Its final place.
        adapter: The adapter to save.
        optimizer: The optimizer to save; None for sampler weights.
        with_tokenizer: Whether to write the tokenizer with its chat template and the generation configuration, which
            other programs look for beside an adapter.

    Raises:
        CheckpointError: If it cannot be written, or a number is not finite. What was at ``folder`` before is still
            there.
    """
    try:
        checkpoint = Checkpoint.of(adapter, optimizer)

        def fill(draft: Path) -> None:
            if with_tokenizer:
                adapter.base.save_tokenizer(draft)
            checkpoint.write(draft)

        write_folder(folder, fill)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write checkpoint {folder}: {error}") from error


def delete_checkpoint(folder: Path) -> None:
    """Delete ``folder``, and the old folder that a killed save may have left, which must not be restored in its place.

    Raises:
        CheckpointError: If it cannot be deleted.
    """
    try:
        if old_folder(folder).exists():
            shutil.rmtree(old_folder(folder))
        with draft_folder(folder) as trash:
            folder.replace(trash / folder.name)  # renamed first, so that nothing reads a half-deleted checkpoint
    except OSError as error:
        raise CheckpointError(f"cannot delete checkpoint {folder}: {error}") from error


def load_base_of(base_model: str, place: object, load: Callable[[str], T]) -> T:
    """Load the base model that the adapter in ``place`` names.

    Args:
        base_model: Name of the base model.
        place: Where the adapter is, for the message.
        load: Loads a base model by its name.

    Raises:
        ModelError: If it cannot be loaded.
    """
    try:
        return load(base_model)
    except ModelError as error:
        raise ModelError(
            f"the adapter in {place} is on base model {base_model!r}, which cannot be loaded: {error}. If that model "
            f"is somewhere else now, write its directory or hub name into {ADAPTER_CONFIG} (base_model_name_or_path), "
            f"and into {METADATA_FILE} (base_model) if the adapter has that file"
        ) from error


def read_adapter(folder: Path) -> PeftFolder:
    """Return base model and options of a checkpoint, or of an adapter that another program wrote; no weights are read.

    Raises:
        CheckpointError: As :func:`load_checkpoint`.
    """
    recover(folder)
    return _saved_adapter(folder, _metadata_if_any(folder))


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint, or an adapter in PEFT's layout that another program wrote.

    Raises:
        CheckpointError: If it is missing, damaged, of a newer format, or an adapter with a feature that cannot be
            trained; a tensor with a number that is not finite counts as damaged.
    """
    recover(folder)
    metadata = _metadata_if_any(folder)
    saved = _saved_adapter(folder, metadata)
    moments, start = folder / "optimizer.safetensors", folder / START_FILE
    try:
        return Checkpoint(
            base_model=saved.base_model,
            lora=saved.lora,
            weights=load_tensors(folder / WEIGHTS_FILE),
            optimizer=load_tensors(moments) if metadata and moments.is_file() else None,
            start=load_tensors(start) if metadata and start.is_file() else None,
            dropout=metadata.dropout if metadata else None,
        )
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint {folder} is damaged: {error}") from error


def read_metadata(folder: Path) -> tuple[str, LoraOptions]:
    """Return base model and adapter options of a checkpoint without reading its weights.

    Raises:
        CheckpointError: If the checkpoint is missing, damaged, or of a newer format.
    """
    recover(folder)
    metadata = _read_metadata(folder)
    return metadata.base_model, metadata.lora


@dataclass(frozen=True)
class _Metadata(PeftFolder):
    """The contents of ``mint_lab.json``."""

    dropout: tuple[int, int] | None


def _saved_adapter(folder: Path, metadata: _Metadata | None) -> PeftFolder:
    """Return what the folder says about the adapter: ``mint_lab.json``, unless peft has replaced the adapter since."""
    if metadata is not None and not (folder / ADAPTER_CONFIG).is_file():
        return metadata
    found = read_peft_folder(folder)
    if metadata is None:
        return found
    same = all(getattr(found.lora, name) == getattr(metadata.lora, name) for name in ("rank", "alpha", "rslora"))
    return metadata if same else PeftFolder(metadata.base_model, found.lora)


def _metadata_if_any(folder: Path) -> _Metadata | None:
    is_peft_alone = (folder / ADAPTER_CONFIG).is_file() and not (folder / METADATA_FILE).is_file()
    return None if is_peft_alone else _read_metadata(folder)


def _read_metadata(folder: Path) -> _Metadata:
    file = folder / METADATA_FILE
    if not file.is_file():
        raise CheckpointError(
            f"no checkpoint at {folder}: expected a folder with {METADATA_FILE} or {ADAPTER_CONFIG} in it"
        )
    try:
        metadata = json.loads(file.read_text(encoding="utf-8"))
        if metadata["format"] > FORMAT_VERSION:
            raise CheckpointError(
                f"{folder} has format {metadata['format']}, this version reads up to {FORMAT_VERSION}; upgrade mint_lab"
            )
        lora: dict[str, Any] = metadata["lora"]
        if metadata["format"] == 1:  # had kinds of layers only, under other names
            lora = {name.removeprefix("train_"): value for name, value in lora.items()} | {"alpha": DEFAULT_ALPHA}
        dropout = metadata.get("dropout")
        return _Metadata(
            str(metadata["base_model"]),
            LoraOptions(**lora),
            None if dropout is None else (int(dropout[0]), int(dropout[1])),
        )
    except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, ConfigError) as error:
        raise CheckpointError(f"checkpoint {folder} is damaged: {error}") from error
