"""A run's folder: append-only, readable at any moment, by people and by pandas.

::

    run.json          settings, versions, seed, status; replaced as a whole, never half
    records.jsonl     one line a step
    edits.jsonl       one line an edit
    losses/NAME-vN.py the source of every loss version that made a step
    losses.jsonl      which of them began at which step, with which settings

Each line is handed to the operating system before anyone hears of it, so a killed process leaves at worst a torn last
line, which reading passes over with a note. Numbers that are not finite are written as the strings "nan", "inf" and
"-inf": the files are strict JSON.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from ..errors import RunError
from .record import Edit, LossVersion, StepRecord

if TYPE_CHECKING:
    import pandas as pd
    import plotly.graph_objects as go

__all__ = ["RunStore", "SavedRun", "history_frame", "load_run"]

SETTINGS, RECORDS, EDITS, LOSSES_FILE, SOURCES = "run.json", "records.jsonl", "edits.jsonl", "losses.jsonl", "losses"
BASE_COLUMNS = ("time", "step_time", "tokens", "loss_name", "loss_version")


class RunStore:
    """Writes one run's folder.

    Raises:
        RunError: the folder already holds a run, or cannot be made.
    """

    def __init__(self, folder: Path) -> None:
        try:
            (folder / SOURCES).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make the run folder {folder}: {error}") from error
        if (folder / SETTINGS).exists() or (folder / RECORDS).exists():
            raise RunError(f"{folder} already holds a run; give another folder, or read it with load_run(folder)")
        self.folder = folder
        self._lines = {name: _Lines(folder / name) for name in (RECORDS, EDITS, LOSSES_FILE)}

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Replace ``run.json``."""
        part = self.folder / (SETTINGS + ".part")
        part.write_text(json.dumps(_plain(settings), indent=2, allow_nan=False) + "\n", encoding="utf-8")
        part.replace(self.folder / SETTINGS)

    def append(self, record: StepRecord) -> None:
        """Add a step. After an ``OSError`` (a full disk, say) the next call writes what this one could not."""
        self._lines[RECORDS].append(record.to_json())

    def append_edit(self, edit: Edit) -> None:
        """Add an edit; errors as :meth:`append`."""
        self._lines[EDITS].append({"step": edit.step, "kind": edit.kind, "label": edit.label})

    def append_loss(self, loss: LossVersion) -> None:
        """Add a loss version and its source; errors as :meth:`append`."""
        name = f"{re.sub(r'[^A-Za-z0-9_.-]', '_', loss.name)}-v{loss.version}.py"
        (self.folder / SOURCES / name).write_text(loss.source, encoding="utf-8")
        self._lines[LOSSES_FILE].append(
            {"step": loss.step, "name": loss.name, "version": loss.version, "config": loss.config, "file": name}
        )

    def close(self) -> None:
        """Flush to the disk itself and close; a later append opens the files again."""
        for lines in self._lines.values():
            lines.close()


class _Lines:
    """A file of JSON lines that is only ever added to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._end = 0
        self._backlog: list[bytes] = []

    def append(self, entry: Mapping[str, Any]) -> None:
        self._backlog.append(json.dumps(_plain(entry), allow_nan=False).encode() + b"\n")
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
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None


def _plain(value: Any) -> Any:
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

    @property
    def baseline(self) -> dict[str, float]:
        """Held-out metrics before training."""
        return _numbers(self.settings.get("baseline", {}))

    @property
    def history(self) -> pd.DataFrame:
        """As :func:`history_frame`."""
        return history_frame(self.records)

    def figure(self) -> go.Figure:
        """The same picture that the live run draws."""
        from .figure import draw

        return draw(self.records, self.edits, self.baseline)


def load_run(folder: str | os.PathLike[str]) -> SavedRun:
    """Read a run's folder, finished or not.

    Raises:
        RunError: there is no run in it.
    """
    path = Path(folder)
    if not any((path / name).is_file() for name in (SETTINGS, RECORDS)):
        raise RunError(f"{path} holds no run: neither {SETTINGS} nor {RECORDS} is there")
    notes: list[str] = []
    settings: dict[str, Any] = {}
    try:
        settings = json.loads((path / SETTINGS).read_bytes())
    except (OSError, ValueError) as error:
        notes.append(f"{SETTINGS} cannot be read ({error}); settings are unknown")
    records = [_record(entry) for entry in _read(path / RECORDS, notes, ("step",))]
    edits = [Edit(**entry) for entry in _read(path / EDITS, notes, ("step", "kind", "label"))]
    losses = [
        LossVersion(
            e["step"],
            e["name"],
            e["version"],
            _source(path / SOURCES / Path(e["file"]).name, notes),
            _numbers(e["config"]),
        )
        for e in _read(path / LOSSES_FILE, notes, ("step", "name", "version", "config", "file"))
    ]
    return SavedRun(path, settings, records, edits, losses, notes)


def _read(path: Path, notes: list[str], needed: Sequence[str]) -> list[dict[str, Any]]:
    if not path.is_file():
        return []
    entries: list[dict[str, Any]] = []
    lines = path.read_bytes().split(b"\n")
    if lines and lines.pop():
        notes.append(f"{path.name}: the last line is torn (the process was killed while writing); it was left out")
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or any(key not in entry for key in needed):
            notes.append(f"{path.name}: line {number} cannot be read; it was left out")
        else:
            entries.append(entry)
    return entries


def _source(path: Path, notes: list[str]) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        notes.append(f"{path.name} cannot be read ({error}); that loss has no source")
        return ""


def _record(entry: Mapping[str, Any]) -> StepRecord:
    known = {f.name for f in fields(StepRecord)}
    kept = {k: v for k, v in entry.items() if k in known}
    for key in ("metrics", "held_out", "settings"):
        kept[key] = _numbers(kept.get(key, {}))
    return StepRecord(**kept)


def _numbers(mapping: Mapping[str, Any]) -> dict[str, float]:
    return {key: float(value) if isinstance(value, str) else value for key, value in mapping.items()}


def history_frame(records: Sequence[StepRecord]) -> pd.DataFrame:
    """One row a step, indexed by ``step``.

    Columns, always: ``time``, ``step_time`` (seconds), ``tokens``, ``loss_name``, ``loss_version``. Then each metric of
    the training batch under its own name, every held-out metric under ``held_out/NAME`` (nan where it was not
    evaluated), and the settings under ``settings/NAME``.
    """
    import pandas as pd

    rows = [
        {name: getattr(record, name) for name in BASE_COLUMNS}
        | record.metrics
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
