"""Checkpoints: folders in PEFT's layout, which transformers, peft and vLLM load as they are.

Tensors are in safetensors files only; nothing is pickled.

::

    NAME/adapter_model.safetensors  adapter_config.json    as peft's save_pretrained writes them
    NAME/optimizer.safetensors                             moments of AdamW (training checkpoints)
    NAME/mint_lab.json                                     base model, adapter shape, format version

A checkpoint is written to a draft folder beside its final place and then renamed, so that a name always leads to a
complete one. No portable call replaces one folder by another: the old folder is first renamed to ``.NAME.old``. If a
save was killed between the two renames, the next read, list, save or delete of NAME restores the old folder.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..errors import CheckpointError, ModelError
from .models import Adapter, LoraShape, Weights
from .optimizer import Optimizer

__all__ = [
    "METADATA_FILE",
    "Checkpoint",
    "delete_checkpoint",
    "load_checkpoint",
    "read_metadata",
    "recover",
    "recover_all",
    "save_checkpoint",
]

FORMAT_VERSION = 1
METADATA_FILE = "mint_lab.json"


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint folder.

    Attributes:
        base_model: Name of the base model.
        shape: Shape of the adapter.
        weights: The adapter's weights by PEFT's names.
        optimizer: State of the optimizer; None for sampler weights.
    """

    base_model: str
    shape: LoraShape
    weights: Weights
    optimizer: dict[str, torch.Tensor] | None

    def load_into(self, adapter: Adapter, optimizer: Optimizer | None = None) -> None:
        """Load the weights into ``adapter`` and, if given, the moments into ``optimizer``.

        Raises:
            CheckpointError: If the checkpoint is of another base model or adapter shape. Nothing is changed then.
        """
        if self.base_model != adapter.base.name:
            raise CheckpointError(
                f"the checkpoint is of base model {self.base_model!r}, but this client trains {adapter.base.name!r}"
            )
        try:
            if optimizer is not None:
                optimizer.check(self.optimizer or {})  # before the weights are changed
            adapter.load(self.weights)
            if optimizer is not None:
                optimizer.load(self.optimizer or {})
        except ModelError as error:
            raise CheckpointError(str(error)) from error


def save_checkpoint(folder: Path, adapter: Adapter, optimizer: Optimizer | None) -> None:
    """Write a checkpoint to ``folder``, and replace what was there.

    Args:
        folder: Its final place.
        adapter: The adapter to save.
        optimizer: The optimizer to save; None for sampler weights.

    Raises:
        CheckpointError: If it cannot be written. What was at ``folder`` before is still there.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        try:
            save_file(
                {name: w.cpu().contiguous() for name, w in adapter.copy().items()},
                draft / "adapter_model.safetensors",
                metadata={"format": "pt"},
            )
            adapter.base.peft_config(adapter).save_pretrained(str(draft))
            if optimizer is not None:
                save_file(
                    {k: v.cpu().contiguous() for k, v in optimizer.state().items()}, draft / "optimizer.safetensors"
                )
            metadata = {"format": FORMAT_VERSION, "base_model": adapter.base.name, "lora": asdict(adapter.shape)}
            (draft / METADATA_FILE).write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
            _replace(draft, folder)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write checkpoint {folder}: {error}") from error


def _replace(draft: Path, folder: Path) -> None:
    """Rename ``draft`` to ``folder``; if that fails, restore the old folder."""
    draft.chmod(0o755)  # mkdtemp creates folders that only their owner can read
    old = _old_folder(folder)
    recover(folder)
    while True:
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.replace(old)
        try:
            draft.replace(folder)
            break
        except OSError:
            if not folder.exists() or old.exists():
                recover(folder)
                raise
            # Otherwise a reader came between the two renames and restored the old folder: try again.
    shutil.rmtree(old, ignore_errors=True)


def _old_folder(folder: Path) -> Path:
    """Return where the old folder is between the two renames."""
    return folder.with_name(f".{folder.name}.old")


def recover(folder: Path) -> None:
    """Restore the old folder at ``folder`` if a save was killed between its two renames."""
    with contextlib.suppress(OSError):
        if not folder.exists():
            _old_folder(folder).replace(folder)


def recover_all(parent: Path) -> None:
    """Call :func:`recover` for every name in ``parent``."""
    for old in parent.glob(".?*.old"):
        recover(old.with_name(old.name[1 : -len(".old")]))


def delete_checkpoint(folder: Path) -> None:
    """Delete ``folder``, and the old folder that a killed save may have left, which must not be restored in its place.

    Raises:
        CheckpointError: If it cannot be deleted.
    """
    try:
        if _old_folder(folder).exists():
            shutil.rmtree(_old_folder(folder))
        trash = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        folder.replace(trash / folder.name)  # renamed first, so that nothing reads a half-deleted checkpoint
        shutil.rmtree(trash)
    except OSError as error:
        raise CheckpointError(f"cannot delete checkpoint {folder}: {error}") from error


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: If it is missing, damaged, or of a newer format.
    """
    base_model, shape = read_metadata(folder)
    moments = folder / "optimizer.safetensors"
    try:
        return Checkpoint(
            base_model=base_model,
            shape=shape,
            weights=load_file(folder / "adapter_model.safetensors"),
            optimizer=load_file(moments) if moments.is_file() else None,
        )
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint {folder} is damaged: {error}") from error


def read_metadata(folder: Path) -> tuple[str, LoraShape]:
    """Return base model and adapter shape of a checkpoint without reading its weights.

    Raises:
        CheckpointError: If the checkpoint is missing, damaged, or of a newer format.
    """
    recover(folder)
    file = folder / METADATA_FILE
    if not file.is_file():
        raise CheckpointError(f"no checkpoint at {folder}: expected a folder with {METADATA_FILE} in it")
    try:
        metadata = json.loads(file.read_text(encoding="utf-8"))
        if metadata["format"] > FORMAT_VERSION:
            raise CheckpointError(
                f"{folder} has format {metadata['format']}, this version reads up to {FORMAT_VERSION}; upgrade mint_lab"
            )
        return str(metadata["base_model"]), LoraShape(**metadata["lora"])
    except (OSError, ValueError, KeyError, TypeError, ModelError) as error:
        raise CheckpointError(f"checkpoint {folder} is damaged: {error}") from error
