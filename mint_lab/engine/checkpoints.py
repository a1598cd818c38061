"""Checkpoints: a folder in PEFT's own layout, so that transformers, peft and vLLM load it as it is. safetensors only.

::

    NAME/adapter_model.safetensors  adapter_config.json    as peft's save_pretrained writes them
    NAME/optimizer.safetensors                             moments of AdamW (training checkpoints)
    NAME/mint_lab.json                                     base model, adapter shape, format version

A checkpoint is written beside its place and renamed, so a name leads to a whole one. No portable call puts one folder
in the place of another: the old one is moved aside first, to ``.NAME.old``. Where a save was killed right then, whoever
next reads, lists, saves or deletes NAME puts the old one back.
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
    "ABOUT",
    "Checkpoint",
    "delete_checkpoint",
    "describe",
    "load_checkpoint",
    "recover",
    "recover_all",
    "save_checkpoint",
]

FORMAT = 1
ABOUT = "mint_lab.json"


@dataclass(frozen=True)
class Checkpoint:
    """What a folder holds; ``optimizer`` is None for sampler weights."""

    base_model: str
    shape: LoraShape
    weights: Weights
    optimizer: dict[str, torch.Tensor] | None

    def into(self, adapter: Adapter, optimizer: Optimizer | None = None) -> None:
        """Load the weights into ``adapter``, and the moments into ``optimizer`` where one is given.

        Raises:
            CheckpointError: it belongs to another base model or another adapter shape; nothing has been changed then.
        """
        if self.base_model != adapter.base.name:
            raise CheckpointError(
                f"the checkpoint was made on base model {self.base_model!r}, this client trains {adapter.base.name!r}"
            )
        try:
            if optimizer is not None:
                optimizer.check(self.optimizer or {})
            adapter.load(self.weights)
            if optimizer is not None:
                optimizer.load(self.optimizer or {})
        except ModelError as error:
            raise CheckpointError(str(error)) from error


def save_checkpoint(folder: Path, adapter: Adapter, optimizer: Optimizer | None) -> None:
    """Write ``adapter`` (and the optimizer's state) to ``folder``, replacing what was there.

    Raises:
        CheckpointError: the folder cannot be written; what was there before is there still.
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
            about = {"format": FORMAT, "base_model": adapter.base.name, "lora": asdict(adapter.shape)}
            (draft / ABOUT).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
            _replace(draft, folder)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"cannot write checkpoint {folder}: {error}") from error


def _replace(draft: Path, folder: Path) -> None:
    """Put ``draft`` in the place of ``folder``; where that fails, the old one is put back."""
    draft.chmod(0o755)  # mkdtemp's is private
    old = _aside(folder)
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
            # else a reader came between the two renames and has put the old one back: once more
    shutil.rmtree(old, ignore_errors=True)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def recover(folder: Path) -> None:
    """Where a save was killed between its two renames, put back what was at ``folder`` before."""
    with contextlib.suppress(OSError):
        if not folder.exists():
            _aside(folder).replace(folder)


def recover_all(parent: Path) -> None:
    """:func:`recover` for every name in ``parent``."""
    for old in parent.glob(".?*.old"):
        recover(old.with_name(old.name[1 : -len(".old")]))


def delete_checkpoint(folder: Path) -> None:
    """Delete ``folder``, and with it what a killed save has left aside, which must not come back in its place.

    Raises:
        CheckpointError: it cannot be deleted.
    """
    try:
        if _aside(folder).exists():
            shutil.rmtree(_aside(folder))
        gone = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
        folder.replace(gone / folder.name)  # first out of sight, in one step: nobody reads a half-deleted one
        shutil.rmtree(gone)
    except OSError as error:
        raise CheckpointError(f"cannot delete checkpoint {folder}: {error}") from error


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        CheckpointError: it is missing, damaged, or of a newer format.
    """
    base_model, shape = describe(folder)
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


def describe(folder: Path) -> tuple[str, LoraShape]:
    """Base model and adapter shape of a checkpoint, without reading its weights. Raises as :func:`load_checkpoint`."""
    recover(folder)
    about = folder / ABOUT
    if not about.is_file():
        raise CheckpointError(f"no checkpoint at {folder}: expected a folder with {ABOUT} in it")
    try:
        facts = json.loads(about.read_text(encoding="utf-8"))
        if facts["format"] > FORMAT:
            raise CheckpointError(
                f"{folder} has format {facts['format']}, this version reads up to {FORMAT}; upgrade mint_lab"
            )
        return str(facts["base_model"]), LoraShape(**facts["lora"])
    except (OSError, ValueError, KeyError, TypeError, ModelError) as error:
        raise CheckpointError(f"checkpoint {folder} is damaged: {error}") from error
