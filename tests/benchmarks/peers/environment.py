"""The environment that TRL runs in, created on demand beside this one."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

__all__ = ["NoPeer", "peer_python"]

ROOT = Path(__file__).parents[3]
TRL = "1.16.*"


class NoPeer(RuntimeError):
    """The peer's environment cannot be created."""


def peer_python(folder: Path) -> Path:
    """Return the Python of an environment with TRL and otherwise the versions of this one.

    Raises:
        NoPeer: If a command that creates it failed; the message has its last lines.
    """
    python = (folder / "bin" / "python").absolute()
    if _has_trl(python):
        return python
    _run([sys.executable, "-m", "venv", str(folder)])
    # torch by the Makefile, the one place that names its version and knows where the small build is
    _run(["make", "--no-print-directory", "torch", f"VENV={folder.absolute()}"])
    ours = [f"{name}=={version(name)}" for name in ("transformers", "peft")]
    _run([str(python), "-m", "pip", "install", "--quiet", f"trl=={TRL}", *ours, "datasets"])
    if not _has_trl(python):
        raise NoPeer(f"{folder} was created, but TRL cannot be imported there; delete it and try again")
    return python


def _has_trl(python: Path) -> bool:
    test = "from importlib.metadata import version; version('torch'); print(version('trl'))"
    if not python.exists():
        return False
    found = subprocess.run([python, "-c", test], capture_output=True, text=True, check=False)
    return found.returncode == 0 and found.stdout.startswith(TRL.rstrip("*"))


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    except OSError as error:
        raise NoPeer(f"cannot run {command[0]}: {error}") from error
    if done.returncode:
        last = "\n".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise NoPeer(f"`{' '.join(command)}` failed:\n{last}\nTRL has to be installed from a package index.")
