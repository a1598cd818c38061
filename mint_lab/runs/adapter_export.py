"""What a run has learnt, as a folder that other programs load."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..client.protocol import AdapterClient
from ..errors import ConfigError, RunError

if TYPE_CHECKING:
    from .run import Run

__all__ = ["save_adapter"]

# What such a folder consists of. One that holds anything else is not replaced: it would be lost.
OF_AN_ADAPTER = {"adapter_config.json", "adapter_model.safetensors", "mint_lab.json"}


def save_adapter(run: Run, path: str | os.PathLike[str]) -> Path:
    """As :meth:`mint_lab.runs.run.Run.save`."""
    folder = Path(path).expanduser().absolute()
    if not run.steps_done:
        raise RunError("this run has made no step, so there is nothing learnt to save; call run.start().wait()")
    client = run.client
    if not isinstance(client, AdapterClient):
        raise ConfigError(
            f"{type(client).__name__} keeps its weights on a server: name them with "
            "run.client.save_weights_for_sampler(name).result().path, and download that path from the service "
            "(of Tinker: `tinker checkpoint download PATH`)"
        )
    _check_replaceable(folder)
    run.call(lambda: client.save_adapter(folder).result()).result()
    return folder


def _check_replaceable(folder: Path) -> None:
    if folder.is_dir():
        others = sorted({entry.name for entry in folder.iterdir()} - OF_AN_ADAPTER)
        if others:
            raise ConfigError(
                f"{folder} is no adapter's folder: it holds {others[0]!r}; choose one that is new or empty"
            )
    elif folder.exists() or folder.is_symlink():
        raise ConfigError(f"{folder} is a file; choose a folder that is new or empty")
