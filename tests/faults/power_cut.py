"""What a power cut leaves: only what was flushed, of files and of the names in folders.

A process that calls :func:`watch` notes in a second folder, the shadow, the content of each file and the names of each
folder at the moment of its ``os.fsync``. After the process is killed, :func:`restore` builds the run's folder from the
shadow alone. A file whose name was flushed and whose content was not is empty there: no file system does worse. The
moment of the cut is the Nth call of ``os.fsync`` or ``os.replace``, before it takes effect.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["CALLS", "restore", "watch"]

CALLS = "calls"  # file of the shadow: how many calls there were so far


def watch(root: Path, shadow: Path, cut_at: int | None) -> None:
    """Note what is flushed from now on.

    Args:
        root: The folder that holds the run's folder.
        shadow: Where the notes are written; outside ``root``.
        cut_at: The call before which this process is killed; None for no cut.
    """
    shadow.mkdir(parents=True, exist_ok=True)
    root, lock, calls, real_replace = root.resolve(), threading.RLock(), [0], os.replace

    def note(name: str, content: bytes) -> None:
        (shadow / f"{name}.part").write_bytes(content)
        real_replace(shadow / f"{name}.part", shadow / name)

    def count() -> None:
        calls[0] += 1
        if calls[0] == cut_at:
            os.kill(os.getpid(), signal.SIGKILL)
        note(CALLS, str(calls[0]).encode())

    def fsync(handle: Any) -> None:
        number = handle if isinstance(handle, int) else handle.fileno()
        path = Path(f"/proc/self/fd/{number}").readlink()
        if not path.is_relative_to(root):
            return
        with lock:
            count()
            inode = os.fstat(number).st_ino
            if path.is_dir():
                note(f"folder-{inode}", json.dumps(_names(path, shadow)).encode())
            else:
                note(f"file-{inode}", path.read_bytes())

    def replace(source: Any, target: Any, **options: Any) -> None:
        with lock:
            if Path(target).absolute().is_relative_to(root):
                count()
            real_replace(source, target, **options)

    _patch("fsync", fsync)
    _patch("replace", replace)
    _patch("rename", replace)


def _patch(name: str, function: Callable[..., Any]) -> None:
    setattr(os, name, function)


def _names(folder: Path, shadow: Path) -> dict[str, tuple[str, int]]:
    """Return kind and inode of each name; forget what is known of an inode that another file has now."""
    names: dict[str, tuple[str, int]] = {}
    for entry in os.scandir(folder):
        status = entry.stat(follow_symlinks=False)
        kind = "folder" if stat.S_ISDIR(status.st_mode) else "file"
        names[entry.name] = (kind, status.st_ino)
        known = shadow / f"file-{status.st_ino}"
        if kind == "file" and known.exists() and not Path(entry.path).read_bytes().startswith(known.read_bytes()):
            known.unlink()
    return names


def restore(root: Path, shadow: Path) -> None:
    """Replace what is in ``root`` by what a power cut would have left of it."""
    inode = root.stat().st_ino
    shutil.rmtree(root)
    _restore_folder(root, inode, shadow)


def _restore_folder(folder: Path, inode: int, shadow: Path) -> None:
    folder.mkdir()
    names = shadow / f"folder-{inode}"
    for name, (kind, child) in json.loads(names.read_text()).items() if names.exists() else ():
        content = shadow / f"file-{child}"
        if kind == "folder":
            _restore_folder(folder / name, child, shadow)
        else:
            (folder / name).write_bytes(content.read_bytes() if content.exists() else b"")
