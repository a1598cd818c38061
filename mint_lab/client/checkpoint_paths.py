"""Where checkpoints lie: the API's ``tinker://RUN/weights/NAME`` paths over a folder on this machine."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ..engine.checkpoints import recover
from ..errors import CheckpointError, ConfigError

__all__ = ["CheckpointPaths", "default_home"]

SCHEME = "tinker://"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def default_home() -> Path:
    """``$MINT_LAB_HOME``, or ``.mint_lab`` in the user's home directory."""
    return Path(os.environ.get("MINT_LAB_HOME") or Path.home() / ".mint_lab")


@dataclass(frozen=True)
class CheckpointPaths:
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
        if not isinstance(path, (str, os.PathLike)):
            raise CheckpointError(f"{path!r} is no checkpoint path; expected {SCHEME}RUN/weights/NAME or a directory")
        text = os.fspath(path)
        if not text.startswith(SCHEME):
            return Path(text).expanduser()
        run, kind, name = self.parts(text)
        return self.run(run) / kind / name

    def parts(self, path: str) -> tuple[str, str, str]:
        """Run, kind (``weights`` or ``sampler_weights``) and name of a path of this API.

        Raises:
            CheckpointError: the path has another form.
        """
        parts = str(path).removeprefix(SCHEME).split("/")
        if not str(path).startswith(SCHEME) or len(parts) != 3 or not all(map(_NAME.fullmatch, parts)):
            raise CheckpointError(f"{path!r} is no checkpoint path; expected {SCHEME}RUN/weights/NAME or a directory")
        return parts[0], parts[1], parts[2]

    def path_of(self, run: str, kind: str, name: str) -> str | None:
        """The path of this API for a folder that was found; None where its name is no plain one."""
        return f"{SCHEME}{run}/{kind}/{name}" if _NAME.fullmatch(name) else None

    def run(self, name: str) -> Path:
        """The folder of a run.

        Raises:
            CheckpointError: ``name`` is no plain name.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise CheckpointError(f"{name!r} is no run's name")
        return self.home / "checkpoints" / name

    def runs(self) -> list[str]:
        """Names of the runs that have a folder here."""
        return [folder.name for folder in (self.home / "checkpoints").glob("*") if _NAME.fullmatch(folder.name)]

    def check_free(self, path: str, overwrite: bool) -> None:
        """Raise :class:`CheckpointError` where ``path`` exists and may not be replaced."""
        recover(self.folder(path))
        if not overwrite and self.folder(path).exists():
            raise CheckpointError(f"{path} exists; choose another name or pass overwrite=True")
