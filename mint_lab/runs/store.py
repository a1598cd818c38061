"""A run's folder: append-only, and readable at any moment by people and by pandas.

::

    run.json          settings, versions, seed, status; always replaced as a whole
    records.jsonl     one line per step
    edits.jsonl       one line per edit
    losses/NAME-vN.py source of each loss version that was used; NAME-HASH-vN.py if the name is no portable file name
    losses.jsonl      the step at which each of these versions began, and its settings
    rewards/          sources of the rewards that graded, named likewise
    rewinds/NNN/      records.jsonl and edits.jsonl of the steps that the run has returned from, one folder per rewind
    run.lock          exists while a run writes here (see mint_lab.runs.folder_lock)

Each line is passed to the operating system before any subscriber is notified. If the process is killed, at most the
last line is incomplete; reading skips it with a note. Numbers that are not finite are written as the texts "nan", "inf"
and "-inf", because the files are strict JSON.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import shutil
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..errors import RunError
from ..folders import flush, write_folder
from ..recipes.record import Edit, LossVersion, Rewind, StepRecord
from .entries import RunInfo, read_edit, read_loss, read_record, read_run_info
from .folder_lock import FolderLock

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from ..data.rewards import Reward

__all__ = [
    "RunStore",
    "SavedRun",
    "check_unused",
    "fresh_folder",
    "history_frame",
    "load_parent",
    "load_run",
    "reward_source",
    "reward_versions",
    "samples_frame",
]

T = TypeVar("T")

RUN_INFO, RECORDS, EDITS, LOSSES = "run.json", "records.jsonl", "edits.jsonl", "losses.jsonl"
LOSS_SOURCES, REWARD_SOURCES, REWINDS = "losses", "rewards", "rewinds"
PART_SUFFIX = ".part"  # of a file that is being written and then renamed
BASE_COLUMNS = ("time", "step_time", "tokens", "loss_name", "loss_version")


def fresh_folder(name: str) -> Path:
    """Create ``./runs/<time>-<name>``, with a number appended if that exists; two callers never get the same folder.

    Raises:
        RunError: If the folder cannot be created.
    """
    base = (Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{name}").absolute()
    folder, number = base, 2
    while True:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except FileExistsError:
            if folder.parent.is_dir():
                folder, number = base.with_name(f"{base.name}-{number}"), number + 1
                continue
            raise RunError(f"cannot create the run folder {folder}: {folder.parent} is not a folder") from None
        except OSError as error:
            raise RunError(f"cannot create the run folder {folder}: {error}") from error
        return folder


def check_unused(folder: Path | None) -> None:
    """Refuse a folder that holds a run. None stands for a folder that is still to be created.

    Raises:
        RunError: If ``folder`` holds a run, finished or not.
    """
    if folder is not None and any((folder / name).exists() for name in (RUN_INFO, RECORDS)):
        raise RunError(f"{folder} already holds a run; give another folder, or read this one with load_run(folder)")


class RunStore:
    """Writes one run's folder.

    Raises:
        RunError: If the folder already holds a run, or cannot be created.
    """

    def __init__(self, folder: Path) -> None:
        check_unused(folder)
        try:
            (folder / LOSS_SOURCES).mkdir(parents=True, exist_ok=True)
            (folder / RUN_INFO).open("x").close()  # of several callers at once, only one succeeds
        except FileExistsError:
            check_unused(folder)
            raise RunError(f"cannot create the run folder {folder}: a file is in its place") from None
        except OSError as error:
            raise RunError(f"cannot create the run folder {folder}: {error}") from error
        self.folder = folder
        self._folder_lock = FolderLock(folder)
        # In the order of writing: when a record is on disk, so are the changes that it ran with.
        self._files = {name: _JsonLines(folder / name) for name in (LOSSES, EDITS, RECORDS)}
        self._unwritten_sources: dict[Path, str] = {}

    @classmethod
    def reopen(cls, folder: Path, step: int) -> RunStore:
        """Return a store that continues a run after ``step``; what the folder has of later steps is removed.

        Raises:
            RunError: If the folder cannot be written.
        """
        store = cls.__new__(cls)
        store.folder, store._unwritten_sources = folder, {}
        store._folder_lock = FolderLock(folder)
        try:
            store._keep_to(step)
        except OSError as error:
            raise RunError(f"cannot write the run folder {folder}: {error}") from error
        store._files = {name: _JsonLines(folder / name) for name in (LOSSES, EDITS, RECORDS)}
        return store

    def write_info(self, info: RunInfo) -> None:
        """Replace ``run.json``, then write what an earlier call could not write."""
        self._folder_lock.acquire()
        part = self.folder / (RUN_INFO + PART_SUFFIX)
        part.write_text(_to_json(vars(info), indent=2) + "\n", encoding="utf-8")
        flush(part)  # otherwise a power cut could leave an empty file under the final name
        part.replace(self.folder / RUN_INFO)
        self._write()

    def append(
        self,
        record: StepRecord,
        *,
        edits: Sequence[Edit] = (),
        losses: Sequence[LossVersion] = (),
        rewards: Sequence[Reward] = (),
    ) -> None:
        """Append a step and the edits, loss versions and rewards that began with it; write the sources of the latter.

        Raises:
            OSError: If something could not be written, for example because the disk is full. Nothing is lost: the next
                call of any method, also of :meth:`close`, writes the rest in order.
        """
        self._folder_lock.acquire()
        for loss in losses:
            file = _file_name(loss.name, loss.version)
            self._unwritten_sources[self.folder / LOSS_SOURCES / file] = loss.source
            entry = {
                "step": loss.step,
                "name": loss.name,
                "version": loss.version,
                "config": loss.config,
                "described": loss.described,
            }
            self._files[LOSSES].add(entry | {"file": file})
        for reward in rewards:
            if reward.source:
                file = _file_name(reward.name, reward.version)
                self._unwritten_sources[self.folder / REWARD_SOURCES / file] = reward.source
        for edit in edits:
            self._files[EDITS].add(vars(edit))
        self._files[RECORDS].add(record.entries())
        self._write()

    def rewind(self, step: int, *, past: int) -> None:
        """Return to ``step``: move the lines of later steps than ``past`` to ``rewinds/``, and remove the others.

        Raises:
            OSError: If something could not be written.
        """
        self.close(ended=False)
        later = {name: _lines(self.folder / name, lambda at: at > past) for name in (RECORDS, EDITS)}
        if later[RECORDS]:
            target = self.folder / REWINDS / f"{len(_rewind_folders(self.folder)) + 1:03d}"

            def fill(draft: Path) -> None:
                for name, lines in later.items():
                    (draft / name).write_bytes(lines)

            write_folder(target, fill)
        self._keep_to(step)

    def copy(self, folder: Path, step: int, info: RunInfo) -> None:
        """Write a folder that has the run up to ``step``. The caller has created it, and nothing is in it.

        Args:
            folder: The folder.
            step: The last step.
            info: Content of its ``run.json``.

        Raises:
            OSError: If something could not be written.
        """
        self.close(ended=False)
        for name in (LOSS_SOURCES, REWARD_SOURCES):
            if (self.folder / name).is_dir():
                shutil.copytree(self.folder / name, folder / name)
        for name in self._files:
            if (self.folder / name).exists():
                (folder / name).write_bytes(_lines(self.folder / name, lambda at: at <= step))
        (folder / RUN_INFO).write_text(_to_json(vars(info), indent=2) + "\n", encoding="utf-8")

    def _keep_to(self, step: int) -> None:
        for name in (RECORDS, EDITS, LOSSES):
            path = self.folder / name
            if path.exists():
                part = path.with_name(path.name + PART_SUFFIX)
                part.write_bytes(_lines(path, lambda at: at <= step))
                flush(part)
                part.replace(path)

    def _write(self) -> None:
        for path, source in list(self._unwritten_sources.items()):
            path.parent.mkdir(exist_ok=True)
            path.write_text(source, encoding="utf-8", errors="backslashreplace")
            del self._unwritten_sources[path]
        for file in self._files.values():
            file.write()

    @property
    def written_files(self) -> list[Path]:
        """The files so far, and after them the folders that have their names, from the innermost one."""
        sources = [self.folder / name for name in (LOSS_SOURCES, REWARD_SOURCES)]
        files = [self.folder / name for name in (RUN_INFO, *self._files)]
        files += [file for folder in sources if folder.is_dir() for file in folder.iterdir()]
        return [path for path in (*files, *sources, self.folder, self.folder.parent) if path.exists()]

    def close(self, *, ended: bool = True) -> None:
        """Write what is left, flush it to the disk and close the files; a later append opens them again.

        Args:
            ended: Whether the run is over, so that its folder may be deleted.

        Raises:
            OSError: If something could not be written. The files are closed, and a later call writes the rest.
        """
        with contextlib.ExitStack() as callbacks:  # all of them run, even if one raises
            if ended:
                callbacks.callback(self._folder_lock.release)
            for file in self._files.values():
                callbacks.callback(file.close)
            self._write()


def _lines(path: Path, is_kept: Callable[[int], bool]) -> bytes:
    """Return the lines of the steps for which ``is_kept(step)`` is true; without lines that cannot be read."""
    kept: list[bytes] = []
    for line in path.read_bytes().split(b"\n") if path.exists() else ():
        with contextlib.suppress(ValueError, TypeError, KeyError):
            if is_kept(int(json.loads(line)["step"])):
                kept.append(line + b"\n")
    return b"".join(kept)


def _rewind_folders(folder: Path) -> list[Path]:
    return sorted((folder / REWINDS).glob("[0-9][0-9][0-9]*"))


def reward_source(folder: Path, name: str) -> str:
    """Return the source of the newest version of a reward that a run used; empty if the folder has none."""
    found = reward_versions(folder, name)
    return found[max(found)] if found else ""


def reward_versions(folder: Path, name: str) -> dict[int, str]:
    """Return the source of each version of a reward that a run used, by version."""
    pattern = re.escape(_file_name(name, 0).removesuffix("-v0.py")) + r"-v(\d+)\.py"
    files = [(int(m[1]), f) for f in (folder / REWARD_SOURCES).glob("*.py") if (m := re.fullmatch(pattern, f.name))]
    return {version: file.read_text(encoding="utf-8") for version, file in files}


def _file_name(name: str, version: int) -> str:
    """Return the file name of a source: a different one for every name, on every file system.

    File systems can ignore case, or the difference between two spellings of one letter. A name that such a file system
    could confuse with another one gets a hash.
    """
    plain = re.sub(r"[^\w.-]", "_", name)[:50]
    if unicodedata.normalize("NFKC", plain).casefold() != name:
        plain += f"-{hashlib.sha256(name.encode('utf-8', errors='surrogatepass')).hexdigest()[:8]}"
    return f"{plain}-v{version}.py"


class _JsonLines:
    """An append-only file of JSON lines."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._size = 0  # bytes of the complete lines
        self._backlog: list[bytes] = []

    def add(self, entry: Mapping[str, Any]) -> None:
        """Queue ``entry`` for the next :meth:`write`."""
        self._backlog.append(_to_json(entry).encode() + b"\n")

    def write(self) -> None:
        if not self._backlog:
            return
        if self._file is None:
            self._file = self._path.open("ab", buffering=0)
            self._size = self._file.tell()
        lines = b"".join(self._backlog)
        try:
            written = 0
            while written < len(lines):
                written += self._file.write(lines[written:]) or 0
        except OSError:
            self._file.truncate(self._size)  # no incomplete line in the middle of the file
            raise
        self._size += len(lines)
        self._backlog.clear()

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with file:
                os.fsync(file.fileno())


def _to_json(entry: Mapping[str, Any], indent: int | None = None) -> str:
    try:  # nearly all entries are plain already, and json alone is several times as fast as a copy
        return json.dumps(entry, indent=indent, allow_nan=False)
    except (TypeError, ValueError):
        return json.dumps(_to_plain(entry), indent=indent, allow_nan=False)


def _to_plain(value: Any) -> Any:
    """Return ``value`` as JSON can hold it: nonfinite numbers and unknown objects as text."""
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


@dataclass(frozen=True)
class SavedRun:
    """A run that was read from its folder.

    Attributes:
        folder: The folder.
        info: The content of ``run.json``.
        records, edits, losses, rewinds: As in :class:`~mint_lab.runs.run.Run`.
        notes: What was wrong with the files, in plain words.
    """

    folder: Path
    info: RunInfo
    records: list[StepRecord]
    edits: list[Edit]
    losses: list[LossVersion]
    notes: list[str] = field(default_factory=list)
    rewinds: list[Rewind] = field(default_factory=list)

    def __repr__(self) -> str:
        name, loss, status = (text or "?" for text in (self.info.name, self.info.loss, self.info.status))
        step = f"step {len(self.records)}/{self.info.steps or '?'}"
        return f"SavedRun({str(self.folder)!r}, {name}: {loss}, {status}, {step})"

    @property
    def baseline(self) -> dict[str, float]:
        """Held-out metrics before training."""
        return self.info.baseline

    @property
    def parent(self) -> dict[str, Any]:
        """As in :class:`~mint_lab.runs.run.Run`."""
        return self.info.parent

    @property
    def config(self) -> dict[str, Any]:
        """Every setting of the run in one flat dictionary."""
        return self.info.config

    @property
    def history(self) -> pd.DataFrame:
        """One row per step, see :func:`history_frame`."""
        return history_frame(self.records)

    @property
    def samples(self) -> pd.DataFrame:
        """One row per response, see :func:`samples_frame`."""
        return samples_frame(self.records)

    def figure(self) -> go.Figure:
        """Draw the same figure as the live run."""
        from .figure import draw_run

        return draw_run(self.info.recipe, self, load_parent(self.parent))


def load_run(folder: str | os.PathLike[str]) -> SavedRun:
    """Read a run's folder, finished or not. Damaged entries are left out and listed in ``notes``.

    Raises:
        RunError: If the folder holds no run.
    """
    path = Path(folder)
    if not any((path / name).is_file() for name in (RUN_INFO, RECORDS)):
        raise RunError(f"{path} holds no run: it has neither {RUN_INFO} nor {RECORDS}")
    notes: list[str] = []

    def source_of(file: str) -> str:
        # Only the last part of the name counts: a file cannot lead out of the folder.
        return _read_source(path / LOSS_SOURCES / Path(file).name, notes)

    info = _read_info(path / RUN_INFO, notes)
    records = _read_lines(path / RECORDS, notes, read_record)
    edits = _read_lines(path / EDITS, notes, read_edit)
    losses = _read_lines(path / LOSSES, notes, lambda line: read_loss(line, source_of))
    rewinds = [_read_rewind(rewound, notes) for rewound in _rewind_folders(path)]
    return SavedRun(path, info, records, edits, losses, notes, [rewind for rewind in rewinds if rewind.records])


def load_parent(parent: Mapping[str, Any]) -> SavedRun | None:
    """Read the run that a fork comes from; None if there is none, or its folder is gone.

    Args:
        parent: As in :class:`~mint_lab.runs.run.Run`.
    """
    folder, name, step = (parent.get(key) for key in ("folder", "name", "step"))
    if not isinstance(folder, str) or not isinstance(name, str) or not isinstance(step, int):
        return None
    try:
        return load_run(folder)
    except (RunError, OSError, ValueError):
        return None


def _read_rewind(folder: Path, notes: list[str]) -> Rewind:
    records = _read_lines(folder / RECORDS, notes, read_record)
    edits = _read_lines(folder / EDITS, notes, read_edit)
    return Rewind(records[0].step - 1 if records else 0, records, edits)


def _read_info(file: Path, notes: list[str]) -> RunInfo:
    try:
        info, reasons = read_run_info(file.read_bytes())
    except (OSError, ValueError) as error:
        notes.append(f"{file.name} cannot be read ({error}); the run's settings are unknown")
        return RunInfo()
    notes += [f"{file.name}: {reason}; this entry was left out" for reason in reasons]
    return info


def _read_lines(path: Path, notes: list[str], read_line: Callable[[bytes], T]) -> list[T]:
    if not path.is_file():
        return []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        notes.append(f"{path.name} cannot be read ({error}); it was left out")
        return []
    entries: list[T] = []
    if lines.pop():
        notes.append(
            f"{path.name}: the last line is incomplete (the process was killed while writing it); it was left out"
        )
    for number, line in enumerate(lines, 1):
        try:
            entries.append(read_line(line))
        except ValueError as error:
            notes.append(f"{path.name}: line {number} cannot be read ({error}); it was left out")
    return entries


def _read_source(path: Path, notes: list[str]) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        notes.append(f"{path.name} cannot be read ({error}); the source of that loss is unknown")
        return ""


def history_frame(records: Sequence[StepRecord]) -> pd.DataFrame:
    """Return one row per step, indexed by ``step``.

    The first columns are always ``time``, ``step_time`` (seconds), ``tokens``, ``loss_name`` and ``loss_version``. Then
    come the metrics of the training batch under their own names, the held-out metrics under ``held_out/NAME`` (nan for
    a step without an evaluation), and the settings under ``settings/NAME``. A metric of the training batch that is
    named like another column (``tokens``, ``step``, ``held_out/...``) is under ``metrics/NAME``.
    """
    import pandas as pd

    rows = [
        {name: getattr(record, name) for name in BASE_COLUMNS}
        | {_column(name): value for name, value in record.metrics.items()}
        | {f"held_out/{k}": v for k, v in record.held_out.items()}
        | {f"settings/{k}": v for k, v in record.settings.items()}
        for record in records
    ]
    frame = pd.DataFrame(rows, index=pd.Index([r.step for r in records], name="step", dtype="int64"))
    for column in (c for c in BASE_COLUMNS if c not in frame):  # there are no records
        frame[column] = []
    others = [c for c in frame.columns if c not in BASE_COLUMNS]
    main = [c for c in others if "/" not in c or c.startswith("logps/")]
    held_out = [c for c in others if c.startswith("held_out/")]
    settings = [c for c in others if c.startswith("settings/")]
    remaining = [c for c in others if c not in {*main, *held_out, *settings}]
    return frame.reindex(columns=[*BASE_COLUMNS, *main, *remaining, *held_out, *settings])


def _column(metric: str) -> str:
    is_used = metric in ("step", *BASE_COLUMNS) or metric.startswith(("held_out/", "settings/", "metrics/"))
    return f"metrics/{metric}" if is_used else metric


def samples_frame(records: Sequence[StepRecord]) -> pd.DataFrame:
    """Return the responses in ``records``, one per row: ``step`` and the keys of :attr:`StepRecord.samples`."""
    import pandas as pd

    columns = ["step", "source", "prompt", "response", "reward", "advantage", "tokens", "ratio", "clipped"]
    rows = [{"step": record.step, **sample} for record in records for sample in record.samples]
    return pd.DataFrame(rows).reindex(columns=columns)
