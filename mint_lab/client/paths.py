"""Where checkpoints lie: the API's ``tinker://RUN/weights/NAME`` paths over a folder on this machine."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import CheckpointError, ConfigError

__all__ = ["Paths", "default_home"]

SCHEME = "tinker://"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def default_home() -> Path:
    """``$MINT_LAB_HOME``, or ``.mint_lab`` in the user's home directory."""
    return Path(os.environ.get("MINT_LAB_HOME") or Path.home() / ".mint_lab")


@dataclass(frozen=True)
class Paths:
    """Checkpoint paths under one folder."""

    home: Path

    def uri(self, model_id: str, kind: Literal["weights", "sampler_weights"], name: str) -> str:
        """The path of a checkpoint.

        Raises:
            ConfigError: ``name`` is not a plain name of letters, digits, dot, dash and underscore.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ConfigError(f"checkpoint name {name!r}: expected letters, digits, '.', '-' and '_' only")
        return f"{SCHEME}{model_id}/{kind}/{name}"

    def folder(self, path: str | os.PathLike[str]) -> Path:
        """The folder that ``path`` means: a path of this API, or a directory.

        Raises:
            CheckpointError: the path has another form.
        """
        text = os.fspath(path)
        if not text.startswith(SCHEME):
            return Path(text).expanduser()
        parts = text.removeprefix(SCHEME).split("/")
        if len(parts) != 3 or not all(_NAME.fullmatch(part) for part in parts):
            raise CheckpointError(f"{text!r} is no checkpoint path; expected {SCHEME}RUN/weights/NAME or a directory")
        return self.home / "checkpoints" / Path(*parts)

    def check_free(self, path: str, overwrite: bool) -> None:
        """Raise :class:`CheckpointError` where ``path`` exists and may not be replaced."""
        if not overwrite and self.folder(path).exists():
            raise CheckpointError(f"{path} exists; choose another name or pass overwrite=True")
