"""Write a folder so that its name always leads to a complete one, whatever ends the process or the power.

The files are written to a draft folder beside the final place, which is then renamed. No portable call replaces one
folder by another: the old folder is first renamed to ``.NAME.old``. If a process was killed between the two renames,
:func:`recover` restores the old folder; whoever reads, lists, writes or deletes NAME calls it first.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

__all__ = ["flush", "old_folder", "recover", "recover_all", "write_folder"]


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Write a folder, and replace what was there.

    The files are on the disk before the folder gets its name: after a power cut it is complete, or the old one.

    Args:
        folder: Its final place.
        fill: Writes the files into the folder that it is given.

    Raises:
        OSError: If it cannot be written; also whatever ``fill`` raises. What was at ``folder`` before is still there.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        fill(draft)
        for file in draft.iterdir():
            flush(file)
        flush(draft)
        _replace(draft, folder)
        flush(folder.parent)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk. Not every system can flush a folder."""
    if path.is_dir() and not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace(draft: Path, folder: Path) -> None:
    """Rename ``draft`` to ``folder``; if that fails, restore the old folder."""
    draft.chmod(0o755)  # mkdtemp creates folders that only their owner can read
    old = old_folder(folder)
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


def old_folder(folder: Path) -> Path:
    """Return where the old folder is between the two renames."""
    return folder.with_name(f".{folder.name}.old")


def recover(folder: Path) -> None:
    """Restore the old folder at ``folder`` if a save was killed between its two renames."""
    with contextlib.suppress(OSError):
        if not folder.exists():
            old_folder(folder).replace(folder)


def recover_all(parent: Path) -> None:
    """Call :func:`recover` for every name in ``parent``."""
    for old in parent.glob(".?*.old"):
        recover(old.with_name(old.name[1 : -len(".old")]))
