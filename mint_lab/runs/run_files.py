"""Files whose content is also in memory: they are written again if something else deletes, shortens or extends them.

Every write is preceded by a check of the size of the file: one call of the system, which costs microseconds.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
import stat
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Generic, Protocol, TypeVar

import numpy as np

from ..folders import flush

__all__ = [
    "PART_SUFFIX",
    "LineFile",
    "WholeFile",
    "damage_of",
    "encoded",
    "lines_of_steps",
    "replace_file",
    "size_of",
    "storage_problem",
    "to_json",
]

PART_SUFFIX = ".part"  # of a file that is being written and then renamed


class StepEntry(Protocol):
    """What a line describes: it belongs to a step."""

    @property
    def step(self) -> int: ...


E = TypeVar("E", bound=StepEntry)
T = TypeVar("T")


class LineFile(Generic[E]):
    """An append-only file of JSON lines, one for each entry. The file exists once it has an entry.

    Args:
        path: The file.
        encode: Returns what is written of an entry.
        entries: Those that the file has already.
    """

    def __init__(self, path: Path, encode: Callable[[E], Mapping[str, Any]], entries: list[E] | None = None) -> None:
        self.path = path
        self.entries: list[E] = entries or []
        self._encode = encode
        self._file: IO[bytes] | None = None
        self._written = len(self.entries)
        self._size = size_of(path)  # bytes of the complete lines
        self._is_damaged = False

    def add(self, entry: E) -> None:
        """Queue an entry for the next :meth:`write`."""
        self.entries.append(entry)

    def damage(self) -> str:
        """Return what something else has done to the file, in words: once, and the next :meth:`write` repairs it."""
        if self._is_damaged or (not self._size and self._file is None):
            return ""
        found = damage_of(self.path, self._size)
        self._is_damaged = bool(found)
        if found or not self._is_open_file():
            self._close()
        return found

    def write(self) -> None:
        """Write what is not on the disk yet. If that fails, the file ends with a complete line."""
        if self._is_damaged:
            lines = self._lines(0)
            replace_file(self.path, lines)
            self._size, self._is_damaged = len(lines), False
        elif self._written < len(self.entries):
            lines = self._lines(self._written)
            if self._file is None:
                self._file = self.path.open("ab", buffering=0)
                self._size = self._file.tell()
            with _naming(self.path):
                self._append(self._file, lines)
            self._size += len(lines)
        self._written = len(self.entries)

    def keep_to(self, step: int) -> None:
        """Remove later entries than ``step``, from the file too."""
        self._close()
        self.entries = [entry for entry in self.entries[: self._written] if entry.step <= step]
        if self.path.exists():
            replace_file(self.path, lines_of_steps(self.path, lambda at: at <= step))
        self._size, self._written = size_of(self.path), len(self.entries)

    def close(self) -> None:
        """Close the file, and flush it to the disk."""
        file, self._file = self._file, None
        if file is not None:
            with file:
                os.fsync(file.fileno())

    def _append(self, file: IO[bytes], lines: bytes) -> None:
        try:
            written = 0
            while written < len(lines):
                written += file.write(lines[written:]) or 0
        except OSError:
            file.truncate(self._size)  # no incomplete line in the middle of the file
            raise

    def _lines(self, start: int) -> bytes:
        return encoded(self.entries[start:], self._encode)

    def _is_open_file(self) -> bool:
        """Whether the path leads to the file that is open; otherwise it was replaced by an equal one."""
        with contextlib.suppress(OSError):
            return self._file is None or os.path.samestat(os.fstat(self._file.fileno()), self.path.stat())
        return False

    def _close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()


class WholeFile:
    """A file that is always replaced as a whole.

    Args:
        path: The file.
        content: Its content; None for that which it has already.
        flushed: As of :func:`replace_file`.
    """

    def __init__(self, path: Path, content: bytes | None = None, *, flushed: bool = False) -> None:
        self.path = path
        self._is_flushed = flushed
        self._is_written = content is None
        if content is None:
            with contextlib.suppress(OSError):  # what cannot be read is not known, and is never written
                content = path.read_bytes()
        self._content = content

    def set(self, content: bytes) -> None:
        """Queue another content for the next :meth:`write`."""
        self._content, self._is_written = content, False

    def damage(self) -> str:
        """As :meth:`LineFile.damage`."""
        is_checked = self._is_written and self._content is not None
        found = damage_of(self.path, len(self._content or b"")) if is_checked else ""
        self._is_written &= not found
        return found

    def write(self) -> None:
        """Write the file if it is not on the disk yet."""
        if not self._is_written and self._content is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(self.path, self._content, flushed=self._is_flushed)
            self._is_written = True


def damage_of(path: Path, size: int) -> str:
    """Return what is wrong with a file that should have ``size`` bytes, in words; empty if nothing is."""
    try:
        found = path.stat()
    except OSError:
        return "is gone"
    if not stat.S_ISREG(found.st_mode):
        return "is no file any more"
    return "" if found.st_size == size else f"has {found.st_size:,} bytes, expected {size:,}"


def replace_file(path: Path, content: bytes, *, flushed: bool = True) -> None:
    """Write a new file and rename it: every reader finds the old content or the new one.

    Args:
        path: The file.
        content: Its content.
        flushed: Whether that is so after a power cut, too, which could otherwise leave an empty file.
    """
    part = path.with_name(path.name + PART_SUFFIX)
    with _naming(path):
        part.write_bytes(content)
        if flushed:
            flush(part)
    part.replace(path)


def lines_of_steps(path: Path, is_kept: Callable[[int], bool]) -> bytes:
    """Return the lines of the steps for which ``is_kept(step)`` is true; without lines that cannot be read."""
    kept: list[bytes] = []
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        with contextlib.suppress(ValueError, TypeError, KeyError):
            if is_kept(int(json.loads(line)["step"])):
                kept.append(line + b"\n")
    return b"".join(kept)


def storage_problem(folder: Path, error: OSError) -> str:
    """Return why a run's folder cannot be written, and what to do."""
    place = error.filename2 or error.filename or folder
    advice = "make it writable again"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        with contextlib.suppress(OSError):
            advice = f"{shutil.disk_usage(_existing(folder)).free / 1e6:,.0f} MB of the disk are free; "
        advice += "free some space there, for example delete old runs"
    return f"{place} cannot be written: {error.strerror or error}; {advice}, then continue the run: nothing is lost"


def encoded(entries: Sequence[T], encode: Callable[[T], Mapping[str, Any]]) -> bytes:
    """Return the lines of the entries."""
    return b"".join(to_json(encode(entry)).encode() + b"\n" for entry in entries)


def to_json(entry: Mapping[str, Any], indent: int | None = None) -> str:
    """Return ``entry`` as strict JSON: numbers that are not finite, and unknown objects, are texts."""
    try:  # nearly all entries are plain already, and json alone is several times as fast as a copy
        return json.dumps(entry, indent=indent, allow_nan=False)
    except (TypeError, ValueError):
        return json.dumps(_to_plain(entry), indent=indent, allow_nan=False)


def _to_plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): _to_plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_to_plain(v) for v in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return str(value)


@contextlib.contextmanager
def _naming(path: Path) -> Generator[None]:
    """Add the path to an error of an open file, which has none."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(path)
        raise


def size_of(path: Path) -> int:
    """Return the size of a file, bytes; 0 if there is none."""
    return path.stat().st_size if path.is_file() else 0


def _existing(folder: Path) -> Path:
    """Return the innermost of a folder and its parents that exists."""
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())
