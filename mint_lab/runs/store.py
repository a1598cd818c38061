"""A run's folder: append-only, readable at any moment, by people and by pandas.

::

    run.json          settings, versions, seed, status; replaced as a whole, never half
    records.jsonl     one line a step
    edits.jsonl       one line an edit
    losses/NAME-vN.py the source of every loss version that made a step; NAME-HASH-vN.py where the name does not fit
    losses.jsonl      which of them began at which step, with which settings
    rewards/          sources of the rewards that graded, named likewise

Each line is handed to the operating system before anyone hears of it, so a killed process leaves at worst a torn last
line, which reading passes over with a note. Numbers that are not finite are written as the strings "nan", "inf" and
"-inf": the files are strict JSON.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

import numpy as np

from ..errors import RunError
from ..recipes.record import Edit, LossVersion, StepRecord
from .entries import an_object, edit_of, loss_of, numbers, record_of, typed
from .folder_lock import Hold

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

    from ..data.rewards import Reward

__all__ = ["RunStore", "SavedRun", "check_unused", "fresh_folder", "history_frame", "load_run", "samples_frame"]

T = TypeVar("T")

SETTINGS, RECORDS, EDITS, LOSSES_FILE, SOURCES = "run.json", "records.jsonl", "edits.jsonl", "losses.jsonl", "losses"
REWARD_SOURCES = "rewards"
BASE_COLUMNS = ("time", "step_time", "tokens", "loss_name", "loss_version")


def fresh_folder(what: str) -> Path:
    """Make ``./runs/<time>-<what>``, with a number behind it where that exists: nobody else is given the same.

    Raises:
        RunError: it cannot be made.
    """
    base = (Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{what}").absolute()
    folder, number = base, 2
    while True:
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        except FileExistsError:
            if folder.parent.is_dir():
                folder, number = base.with_name(f"{base.name}-{number}"), number + 1
                continue
            raise RunError(f"cannot make the run folder {folder}: {folder.parent} is no folder") from None
        except OSError as error:
            raise RunError(f"cannot make the run folder {folder}: {error}") from error
        return folder


def check_unused(folder: Path | None) -> None:
    """Refuse a folder that a run is recorded in; None is one that is still to be made.

    Raises:
        RunError: it holds a run, finished or not.
    """
    if folder is not None and any((folder / name).exists() for name in (SETTINGS, RECORDS)):
        raise RunError(f"{folder} already holds a run; give another folder, or read it with load_run(folder)")


class RunStore:
    """Writes one run's folder.

    Raises:
        RunError: the folder already holds a run, or cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        check_unused(folder)
        try:
            (folder / SOURCES).mkdir(parents=True, exist_ok=True)
            (folder / SETTINGS).open("x").close()  # of several at once only one comes past this
        except FileExistsError:
            check_unused(folder)
            raise RunError(f"cannot make the run folder {folder}: a file is in its place") from None
        except OSError as error:
            raise RunError(f"cannot make the run folder {folder}: {error}") from error
        self.folder = folder
        self._hold = Hold(folder)
        # In the order of writing: a record on disk has what changed before it on disk too.
        self._lines = {name: _Lines(folder / name) for name in (LOSSES_FILE, EDITS, RECORDS)}
        self._sources: dict[Path, str] = {}  # not written yet

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Replace ``run.json``, then write what an earlier call could not."""
        self._hold.take()
        part = self.folder / (SETTINGS + ".part")
        part.write_text(json.dumps(_plain(settings), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        part.replace(self.folder / SETTINGS)
        self._write()

    def append(
        self,
        record: StepRecord,
        *,
        edits: Sequence[Edit] = (),
        losses: Sequence[LossVersion] = (),
        rewards: Sequence[Reward] = (),
    ) -> None:
        """Add a step, with what changed before it: edits, loss versions and rewards, these with their sources.

        Nothing of it is lost to an ``OSError`` (a full disk, say): whatever could not be written is kept, in order, and
        written by the next call of any method, :meth:`close` too.
        """
        self._hold.take()
        for loss in losses:
            file = _file_name(loss.name, loss.version)
            self._sources[self.folder / SOURCES / file] = loss.source
            self._lines[LOSSES_FILE].add(
                {"step": loss.step, "name": loss.name, "version": loss.version, "config": loss.config, "file": file}
            )
        for reward in rewards:
            if reward.source:
                self._sources[self.folder / REWARD_SOURCES / _file_name(reward.name, reward.version)] = reward.source
        for edit in edits:
            self._lines[EDITS].add({"step": edit.step, "kind": edit.kind, "label": edit.label})
        self._lines[RECORDS].add(record.to_json())
        self._write()

    def _write(self) -> None:
        for path, source in list(self._sources.items()):
            path.parent.mkdir(exist_ok=True)
            path.write_text(source, encoding="utf-8", errors="backslashreplace")
            del self._sources[path]
        for lines in self._lines.values():
            lines.write()

    def close(self, *, ended: bool = True) -> None:
        """Write what is left, flush to the disk itself and close; a later append opens the files again.

        Args:
            ended: the run is over, and its folder may be deleted.

        Raises:
            OSError: not all could be written; the files are closed, and a later call writes the rest.
        """
        with contextlib.ExitStack() as ends:  # each of them, whatever the others raise
            if ended:
                ends.callback(self._hold.release)
            for lines in self._lines.values():
                ends.callback(lines.close)
            self._write()


def _file_name(name: str, version: int) -> str:
    """Another file for every name: where the name cannot stand as it is, a hash of it tells the files apart.

    File systems that know no case, or no difference between two spellings of one letter, are thought of.
    """
    plain = re.sub(r"[^\w.-]", "_", name)[:50]
    if unicodedata.normalize("NFKC", plain).casefold() != name:
        plain += f"-{hashlib.sha256(name.encode('utf-8', errors='surrogatepass')).hexdigest()[:8]}"
    return f"{plain}-v{version}.py"


class _Lines:
    """A file of JSON lines that is only ever added to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._end = 0
        self._backlog: list[bytes] = []

    def add(self, entry: Mapping[str, Any]) -> None:
        """Take ``entry``, for the next :meth:`write`."""
        self._backlog.append(json.dumps(_plain(entry), allow_nan=False).encode() + b"\n")

    def write(self) -> None:
        if not self._backlog:
            return
        if self._file is None:
            self._file = self._path.open("ab", buffering=0)
            self._end = self._file.tell()
        whole = b"".join(self._backlog)
        try:
            written = 0
            while written < len(whole):
                written += self._file.write(whole[written:]) or 0
        except OSError:
            self._file.truncate(self._end)  # no torn line in the middle of the file
            raise
        self._end += len(whole)
        self._backlog.clear()

    def close(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            with file:
                os.fsync(file.fileno())


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return str(value)


@dataclass(frozen=True)
class SavedRun:
    """A run as its folder tells it.

    Attributes:
        folder: where it was read from.
        settings: the content of ``run.json``.
        records, edits, losses: as of the live run.
        notes: what was amiss with the files, in plain words; empty when nothing was.
    """

    folder: Path
    settings: dict[str, Any]
    records: list[StepRecord]
    edits: list[Edit]
    losses: list[LossVersion]
    notes: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        facts = {key: self.settings.get(key, "?") for key in ("name", "loss", "status", "steps")}
        steps = f"step {len(self.records)}/{facts['steps']}"
        return f"SavedRun({str(self.folder)!r}, {facts['name']}: {facts['loss']}, {facts['status']}, {steps})"

    @property
    def baseline(self) -> dict[str, float]:
        """Held-out metrics before training."""
        return numbers(self.settings, "baseline")

    @property
    def history(self) -> pd.DataFrame:
        """As :func:`history_frame`."""
        return history_frame(self.records)

    @property
    def samples(self) -> pd.DataFrame:
        """As :func:`samples_frame`."""
        return samples_frame(self.records)

    def figure(self) -> go.Figure:
        """The same picture that the live run draws."""
        from .figure import draw

        return draw(self.records, self.edits, self.baseline)


def load_run(folder: str | os.PathLike[str]) -> SavedRun:
    """Read a run's folder, finished or not. What is damaged in it is left out and told in ``notes``.

    Raises:
        RunError: there is no run in it.
    """
    path = Path(folder)
    if not any((path / name).is_file() for name in (SETTINGS, RECORDS)):
        raise RunError(f"{path} holds no run: neither {SETTINGS} nor {RECORDS} is there")
    notes: list[str] = []
    settings = _settings(path / SETTINGS, notes)
    records = _read(path / RECORDS, notes, record_of)
    edits = _read(path / EDITS, notes, edit_of)
    losses = _read(path / LOSSES_FILE, notes, lambda entry: _loss(entry, path / SOURCES, notes))
    return SavedRun(path, settings, records, edits, losses, notes)


def _settings(file: Path, notes: list[str]) -> dict[str, Any]:
    try:
        settings = an_object(json.loads(file.read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        notes.append(f"{file.name} cannot be read ({error}); settings are unknown")
        return {}
    try:
        numbers(settings, "baseline")
    except ValueError as error:
        notes.append(f"{file.name}: {error}; what was measured before training is unknown")
        del settings["baseline"]
    return settings


def _read(path: Path, notes: list[str], entry_of: Callable[[dict[str, Any]], T]) -> list[T]:
    if not path.is_file():
        return []
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        notes.append(f"{path.name} cannot be read ({error}); it was left out")
        return []
    entries: list[T] = []
    if lines.pop():
        notes.append(f"{path.name}: the last line is torn (the process was killed while writing); it was left out")
    for number, line in enumerate(lines, 1):
        try:
            entries.append(entry_of(an_object(json.loads(line))))
        except (ValueError, RecursionError) as error:
            notes.append(f"{path.name}: line {number} cannot be read ({error}); it was left out")
    return entries


def _source(path: Path, notes: list[str]) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        notes.append(f"{path.name} cannot be read ({error}); that loss has no source")
        return ""


def _loss(entry: Mapping[str, Any], sources: Path, notes: list[str]) -> LossVersion:
    version = loss_of(entry)
    return replace(version, source=_source(sources / Path(typed(entry, "file", str)).name, notes))


def history_frame(records: Sequence[StepRecord]) -> pd.DataFrame:
    """One row a step, indexed by ``step``.

    Columns, always: ``time``, ``step_time`` (seconds), ``tokens``, ``loss_name``, ``loss_version``. Then each metric of
    the training batch under its own name, every held-out metric under ``held_out/NAME`` (nan where it was not
    evaluated), and the settings under ``settings/NAME``. A metric of the training batch whose own name is one of these
    (``tokens``, ``step``, ``held_out/...``) stands under ``metrics/NAME``.
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
    first = [c for c in BASE_COLUMNS if c not in frame]
    for column in first:
        frame[column] = []
    rest = [c for c in frame.columns if c not in BASE_COLUMNS]
    order = [c for c in rest if "/" not in c or c.startswith("logps/")]
    held = [c for c in rest if c.startswith("held_out/")]
    settings = [c for c in rest if c.startswith("settings/")]
    others = [c for c in rest if c not in {*order, *held, *settings}]
    return frame.reindex(columns=[*BASE_COLUMNS, *order, *others, *held, *settings])


def _column(metric: str) -> str:
    taken = metric in ("step", *BASE_COLUMNS) or metric.startswith(("held_out/", "settings/", "metrics/"))
    return f"metrics/{metric}" if taken else metric


def samples_frame(records: Sequence[StepRecord]) -> pd.DataFrame:
    """The responses that records hold, one a row: ``step`` and the keys of :attr:`StepRecord.samples`."""
    import pandas as pd

    columns = ["step", "source", "prompt", "response", "reward", "advantage", "tokens", "ratio", "clipped"]
    rows = [{"step": record.step, **sample} for record in records for sample in record.samples]
    return pd.DataFrame(rows).reindex(columns=columns)
