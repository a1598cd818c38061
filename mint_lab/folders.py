"""Write a folder so that its name always leads to a complete one, whatever ends the process or the power.

The files are written to a draft folder beside the final place, which is then renamed. No portable call replaces one
folder by another: the old folder is first renamed to ``.NAME.old``. If a process was killed between the two renames,
:func:`recover` restores the old folder; whoever reads, lists, writes or deletes NAME calls it first.

A draft has a lock file beside it, whose lock ends with the process. The next write into the same parent removes the
drafts that nobody has locked.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Generator
from pathlib import Path

from filelock import FileLock

__all__ = ["draft_folder", "flush", "old_folder", "recover", "recover_all", "remove_leftovers", "write_folder"]

_LOCK = re.compile(r"(\..+\.[0-9a-f]{8})\.lock")


def write_folder(folder: Path, fill: Callable[[Path], None]) -> None:
    """Write a folder, and replace what was there.

    The files are on the disk before the folder gets its name: after a power cut it is complete, or the old one.

    Args:
        folder: Its final place.
        fill: Writes the files into the folder that it is given.

    Raises:
        OSError: If it cannot be written; also whatever ``fill`` raises. What was at ``folder`` before is still there.
    """
    with draft_folder(folder) as draft:
        fill(draft)
        for file in draft.iterdir():
            flush(file)
        flush(draft)
        _replace(draft, folder)
        flush(folder.parent)


@contextlib.contextmanager
def draft_folder(folder: Path) -> Generator[Path]:
    """Create an empty folder beside ``folder``, and remove it at the end of the block unless it was renamed.

    What killed processes have left of earlier drafts, of any folder with the same parent, is removed first.

    Raises:
        OSError: If it cannot be created.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder.parent)
    name = f".{folder.name}.{uuid.uuid4().hex[:8]}"
    draft, lock = folder.with_name(f"{name}.draft"), FileLock(folder.with_name(f"{name}.lock"), thread_local=False)
    with contextlib.suppress(Exception):  # on a disk without locks, leftovers stay
        lock.acquire(timeout=0)
    try:
        draft.mkdir(mode=0o700)
        yield draft
    finally:
        shutil.rmtree(draft, ignore_errors=True)
        _end(lock)


def remove_leftovers(parent: Path) -> None:
    """Remove what killed processes have left of drafts in ``parent``. Raises ``OSError`` if it cannot be listed."""
    for entry in list(parent.iterdir()):
        if (match := _LOCK.fullmatch(entry.name)) is None:
            continue
        lock = FileLock(entry, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Exception:  # another process is writing this draft, or the disk has no locks
            continue
        shutil.rmtree(entry.with_name(f"{match[1]}.draft"), ignore_errors=True)
        _end(lock)


def _end(lock: FileLock) -> None:
    """Delete the lock file while it is locked; Windows refuses that, and there filelock deletes it."""
    with contextlib.suppress(OSError):
        Path(lock.lock_file).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        lock.release()


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
    draft.chmod(0o755)  # a draft can only be read by its owner
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
