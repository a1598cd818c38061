"""Save the adapter of a run to a folder that other programs load."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..client.protocol import AdapterClient
from ..errors import ConfigError, RunError

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["save_adapter"]

# The files of an adapter's folder. mint_lab.json names those of the tokenizer, which differ between models. A folder
# that holds anything else is not replaced, because that would delete it.
ADAPTER_FILES = {"adapter_config.json", "adapter_model.safetensors", "mint_lab.json"}


def save_adapter(
    client: Any,
    path: str | os.PathLike[str],
    *,
    steps_done: int,
    call: Callable[[Callable[[], Any]], Future[Any]],
) -> Path:
    """Write the LoRA adapter of ``client`` to a folder in PEFT's layout; see :meth:`mint_lab.runs.run.Run.save`.

    Args:
        client: The training client of the run; None before it is loaded.
        path: The folder; must be new, empty, or an adapter's.
        steps_done: Optimizer steps of the run; an untrained adapter is not saved.
        call: Calls a function between two steps of the run.
    """
    folder = Path(path).expanduser().absolute()
    if not steps_done:
        raise RunError("this run has completed no step, so there is nothing to save; call run.start().wait() first")
    if not isinstance(client, AdapterClient):
        raise ConfigError(
            f"{type(client).__name__} keeps its weights on a server: name them with "
            "run.client.save_weights_for_sampler(name).result().path, and download that path from the service "
            "(of Tinker: `tinker checkpoint download PATH`)"
        )
    _check_replaceable(folder)
    call(lambda: client.save_adapter(folder).result()).result()
    return folder


def _check_replaceable(folder: Path) -> None:
    if folder.is_dir():
        others = sorted({entry.name for entry in folder.iterdir()} - ADAPTER_FILES - _written(folder))
        if others:
            raise ConfigError(
                f"{folder} is not an adapter's folder: it holds {others[0]!r}; choose a folder that is new or empty"
            )
    elif folder.exists() or folder.is_symlink():
        raise ConfigError(f"{folder} is a file; choose a folder that is new or empty")


def _written(folder: Path) -> set[str]:
    """Return the files that the last save wrote to the folder, as it recorded them."""
    try:
        metadata = json.loads((folder / "mint_lab.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    files = metadata.get("files") if isinstance(metadata, dict) else None
    return {name for name in files if isinstance(name, str)} if isinstance(files, list) else set()
