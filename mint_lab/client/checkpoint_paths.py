"""Where checkpoints are stored: the API's ``tinker://RUN/weights/NAME`` paths as folders on this machine.

MinT writes ``mint://RUN/weights/NAME``; both are read.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..errors import CheckpointError, ConfigError
from ..folders import recover

__all__ = ["CheckpointPaths", "default_home"]

SCHEME = "tinker://"
_SCHEMES = (SCHEME, "mint://")
_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def default_home() -> Path:
    """Return ``$MINT_LAB_HOME``, or ``.mint_lab`` in the user's home directory."""
    return Path(os.environ.get("MINT_LAB_HOME") or Path.home() / ".mint_lab")


@dataclass(frozen=True)
class CheckpointPaths:
    """Checkpoint paths under one folder, ``home``."""

    home: Path

    def uri(self, model_id: str, kind: Literal["weights", "sampler_weights"], name: str) -> str:
        """Return the API's path of a checkpoint.

        Raises:
            ConfigError: If ``name`` is not a plain name of letters, digits, dots, dashes and underscores.
        """
        if not isinstance(name, str) or not _PLAIN_NAME.fullmatch(name):
            raise ConfigError(f"checkpoint name {name!r}: expected letters, digits, '.', '-' and '_' only")
        return f"{SCHEME}{model_id}/{kind}/{name}"

    def folder(self, path: str | os.PathLike[str]) -> Path:
        """Return the folder of a path, which is either one of the API or a directory.

        Raises:
            CheckpointError: If the path has another form.
        """
        if not isinstance(path, (str, os.PathLike)):
            raise _path_error(path)
        text = os.fspath(path)
        if not text.startswith(_SCHEMES):
            return Path(text).expanduser()
        run, kind, name = self.parse(text)
        return self.run_folder(run) / kind / name

    def parse(self, path: str) -> tuple[str, str, str]:
        """Return run, kind (``weights`` or ``sampler_weights``) and name of a path of the API.

        Raises:
            CheckpointError: If the path has another form.
        """
        scheme = next((scheme for scheme in _SCHEMES if str(path).startswith(scheme)), None)
        parts = str(path).removeprefix(scheme or "").split("/")
        if scheme is None or len(parts) != 3 or not all(map(_PLAIN_NAME.fullmatch, parts)):
            raise _path_error(path)
        return parts[0], parts[1], parts[2]

    def uri_of_folder(self, run: str, kind: str, name: str) -> str | None:
        """Return the API's path of an existing folder, or None if its name is not a plain name."""
        return f"{SCHEME}{run}/{kind}/{name}" if _PLAIN_NAME.fullmatch(name) else None

    def run_folder(self, name: str) -> Path:
        """Return the folder of a run.

        Raises:
            CheckpointError: If ``name`` is not a plain name.
        """
        if not isinstance(name, str) or not _PLAIN_NAME.fullmatch(name):
            raise CheckpointError(f"{name!r} is not the name of a run; expected letters, digits, '.', '-' and '_' only")
        return self.home / "checkpoints" / name

    def run_names(self) -> list[str]:
        """Return the names of the runs that have a folder."""
        return [folder.name for folder in (self.home / "checkpoints").glob("*") if _PLAIN_NAME.fullmatch(folder.name)]

    def check_free(self, path: str, overwrite: bool) -> None:
        """Raise CheckpointError if ``path`` exists and must not be overwritten."""
        recover(self.folder(path))
        if not overwrite and self.folder(path).exists():
            raise CheckpointError(f"{path} exists; choose another name or pass overwrite=True")


def _path_error(path: object) -> CheckpointError:
    return CheckpointError(f"{path!r} is not a checkpoint path; expected {SCHEME}RUN/weights/NAME or a directory")
