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
import os
import re
import shutil
import unicodedata
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import RunError
from ..folders import remove_leftovers, write_folder
from ..recipes.record import Edit, LossVersion, Rewind, StepRecord
from .entries import RunInfo, read_edit, read_loss, read_record, read_run_info
from .folder_lock import FolderLock, is_locked
from .run_files import (
    PART_SUFFIX,
    LineFile,
    WholeFile,
    damage_of,
    encoded,
    lines_of_steps,
    size_of,
    storage_problem,
    to_json,
)

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
    "rewind_folders",
    "samples_frame",
]

T = TypeVar("T")

RUN_INFO, RECORDS, EDITS, LOSSES = "run.json", "records.jsonl", "edits.jsonl", "losses.jsonl"
LOSS_SOURCES, REWARD_SOURCES, REWINDS = "losses", "rewards", "rewinds"
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
    """Writes one run's folder, and writes again from memory what something else deletes, shortens or extends.

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
        self._open(folder, [], [], [])

    @classmethod
    def reopen(cls, saved: SavedRun, step: int) -> RunStore:
        """Return a store that continues a run after ``step``; what the folder has of later steps is removed.

        Args:
            saved: The run as :func:`load_run` has read it.
            step: The last step to keep.

        Raises:
            RunError: If the folder cannot be written.
        """
        store = cls.__new__(cls)
        with _explained(saved.folder):
            store._open(saved.folder, list(saved.records), list(saved.edits), list(saved.losses))
            store._keep_to(step)
            store._remove_leftovers()
        return store

    def _open(self, folder: Path, records: list[StepRecord], edits: list[Edit], losses: list[LossVersion]) -> None:
        self.folder = folder
        self._folder_lock = FolderLock(folder)
        self._losses = LineFile(folder / LOSSES, _loss_entry, losses)
        self._edits = LineFile(folder / EDITS, vars, edits)
        self._records = LineFile(folder / RECORDS, StepRecord.entries, records)
        # In the order of writing: when a record is on disk, so are the changes that it ran with.
        self._files = {RUN_INFO: WholeFile(folder / RUN_INFO, flushed=True)} | {
            f"{kind}/{file.name}": WholeFile(file)
            for kind in (LOSS_SOURCES, REWARD_SOURCES)
            for file in sorted((folder / kind).glob("*.py"))
        }
        for loss in losses:  # an earlier version may have called the file differently
            name = _source_file(loss)
            if loss.source and name not in self._files:
                self._files[name] = WholeFile(folder / name, _source_content(loss))
        self._lines = (self._losses, self._edits, self._records)
        self._rewinds = [_Rewound.read(path) for path in rewind_folders(folder)]
        self._notes: list[str] = []
        self._is_gone = False

    def write_info(self, info: RunInfo) -> None:
        """Replace ``run.json``, then write what an earlier call could not write.

        Raises:
            RunError: If something could not be written, as of :meth:`append`.
        """
        self._files[RUN_INFO].set(_info_content(info))
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
            RunError: If something could not be written, for example because the disk is full. Nothing is lost: the next
                call of any method, also of :meth:`close`, writes the rest in order.
        """
        for used in (*losses, *(reward for reward in rewards if reward.source)):
            name = _source_file(used)
            self._files[name] = WholeFile(self.folder / name, _source_content(used))
        for loss in losses:
            self._losses.add(loss)
        for edit in edits:
            self._edits.add(edit)
        self._records.add(record)
        self._write()

    def take_notes(self) -> list[str]:
        """Return what something else has done to the folder since the last call; the next write repairs it."""
        self._check()
        notes, self._notes = self._notes, []
        return notes

    def rewind(self, step: int, *, past: int) -> None:
        """Return to ``step``: move the lines of later steps than ``past`` to ``rewinds/``, and remove the others.

        Raises:
            OSError, RunError: If something could not be written.
        """
        self.close(ended=False)
        later = _Rewound(
            self.folder / REWINDS / f"{len(self._rewinds) + 1:03d}",
            [record for record in self._records.entries if record.step > past],
            [edit for edit in self._edits.entries if edit.step > past],
        )
        if later.records:
            later.write()
            self._rewinds.append(later)
        self._keep_to(step)

    def copy(self, folder: Path, step: int, info: RunInfo) -> None:
        """Write a folder that has the run up to ``step``. The caller has created it, and nothing is in it.

        Args:
            folder: The folder.
            step: The last step.
            info: Content of its ``run.json``.

        Raises:
            OSError, RunError: If something could not be written.
        """
        self.close(ended=False)
        for name in (LOSS_SOURCES, REWARD_SOURCES):
            if (self.folder / name).is_dir():
                shutil.copytree(self.folder / name, folder / name)
        for file in self._lines:
            if file.path.exists():
                (folder / file.path.name).write_bytes(lines_of_steps(file.path, lambda at: at <= step))
        (folder / RUN_INFO).write_bytes(_info_content(info))

    def _keep_to(self, step: int) -> None:
        for file in reversed(self._lines):
            file.keep_to(step)

    def _remove_leftovers(self) -> None:
        """Remove what a killed process has left of files and folders that it was writing."""
        for place in (self.folder, self.folder / LOSS_SOURCES, self.folder / REWARD_SOURCES):
            for part in place.glob(f"*{PART_SUFFIX}"):
                part.unlink()
        if (self.folder / REWINDS).is_dir():
            remove_leftovers(self.folder / REWINDS)

    def _check(self) -> None:
        """Note what something else has done to the folder, and mark it for the next write."""
        was_gone, self._is_gone = self._is_gone, not self.folder.is_dir()
        found = [f"{name} {damage}" for name, file in self._files.items() if (damage := file.damage())]
        found += [f"{file.path.name} {damage}" for file in self._lines if (damage := file.damage())]
        found += [f"{REWINDS}/{damage}" for rewound in self._rewinds if (damage := rewound.damage())]
        if self._is_gone and not was_gone:
            self._notes.append(
                f"The folder {self.folder} was deleted or moved while the run was writing it: it is written again from "
                "memory, with all steps; its earlier snapshots are gone."
            )
        elif found and not was_gone:
            self._notes.append(
                f"In {self.folder}, {'; '.join(found)}: something else changed this while the run was writing it. It "
                "is written again from memory."
            )

    def _write(self) -> None:
        with _explained(self.folder):
            self._check()
            self.folder.mkdir(parents=True, exist_ok=True)
            self._folder_lock.acquire()
            for file in (*self._rewinds, *self._files.values(), *self._lines):
                file.write()

    @property
    def written_files(self) -> list[Path]:
        """The files so far, and after them the folders that have their names, from the innermost one."""
        sources = [self.folder / name for name in (LOSS_SOURCES, REWARD_SOURCES)]
        files = [file.path for file in (*self._files.values(), *self._lines)]
        return [path for path in (*files, *sources, self.folder, self.folder.parent) if path.exists()]

    def close(self, *, ended: bool = True) -> None:
        """Write what is left, flush it to the disk and close the files; a later append opens them again.

        Args:
            ended: Whether the run is over, so that its folder may be deleted.

        Raises:
            RunError: If something could not be written. The files are closed, and a later call writes the rest.
        """
        with contextlib.ExitStack() as callbacks:  # all of them run, even if one raises
            callbacks.enter_context(_explained(self.folder))
            if ended:
                callbacks.callback(self._folder_lock.release)
            for file in self._lines:
                callbacks.callback(file.close)
            self._write()


@contextlib.contextmanager
def _explained(folder: Path) -> Generator[None]:
    """Say why the folder cannot be written, and what to do."""
    try:
        yield
    except OSError as error:
        raise RunError(storage_problem(folder, error)) from error


class _Rewound:
    """The records and edits that a rewind has taken back, in a folder.

    Args:
        folder: The folder.
        records, edits: What it has.
    """

    def __init__(self, folder: Path, records: list[StepRecord], edits: list[Edit]) -> None:
        self.records = records
        self._folder, self._edits, self._is_written = folder, edits, folder.is_dir()
        self._sizes = {name: size_of(folder / name) for name in (RECORDS, EDITS)}

    @classmethod
    def read(cls, folder: Path) -> _Rewound:
        """Read what a rewind has written."""
        found = _read_rewind(folder, [])
        return cls(folder, found.records, found.edits)

    def damage(self) -> str:
        """As :meth:`~mint_lab.runs.run_files.LineFile.damage`."""
        if not self._is_written:
            return ""
        found = ((name, damage_of(self._folder / name, size)) for name, size in self._sizes.items())
        damage = next((f"{self._folder.name}/{name} {damage}" for name, damage in found if damage), "")
        self._is_written = not damage
        return damage

    def write(self) -> None:
        """Write the folder, unless it is on the disk."""
        if self._is_written:
            return
        content = {RECORDS: encoded(self.records, StepRecord.entries), EDITS: encoded(self._edits, vars)}

        def fill(draft: Path) -> None:
            for name, lines in content.items():
                (draft / name).write_bytes(lines)

        write_folder(self._folder, fill)
        self._sizes, self._is_written = {name: len(lines) for name, lines in content.items()}, True


def _loss_entry(loss: LossVersion) -> dict[str, Any]:
    return {
        "step": loss.step,
        "name": loss.name,
        "version": loss.version,
        "config": loss.config,
        "described": loss.described,
        "file": _file_name(loss.name, loss.version),
    }


def _source_file(used: LossVersion | Reward) -> str:
    kind = LOSS_SOURCES if isinstance(used, LossVersion) else REWARD_SOURCES
    return f"{kind}/{_file_name(used.name, used.version)}"


def _source_content(used: LossVersion | Reward) -> bytes:
    return used.source.encode(errors="backslashreplace")


def _info_content(info: RunInfo) -> bytes:
    return (to_json(vars(info), indent=2) + "\n").encode()


def rewind_folders(folder: Path) -> list[Path]:
    """Return the folders of what a run's rewinds have taken back, the first rewind first."""
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


def current_status(folder: Path, status: str) -> str:
    """Return the status of a run, given its file's: "interrupted" if that is "running", and nobody writes there."""
    return "interrupted" if status == "running" and is_locked(folder) is False else status


def load_run(folder: str | os.PathLike[str]) -> SavedRun:
    """Read a run's folder, finished or not.

    Damaged entries are left out and listed in ``notes``, as are steps that are missing. A run whose process has
    died has the status "interrupted".

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
    info = replace(info, status=current_status(path, info.status))
    records = _read_lines(path / RECORDS, notes, read_record)
    expected = max(info.steps_done, records[-1].step if records else 0)
    if len(records) != expected:
        notes.append(f"{RECORDS}: {len(records)} of {expected} steps can be read, the others are missing")
    edits = _read_lines(path / EDITS, notes, read_edit)
    losses = _read_lines(path / LOSSES, notes, lambda line: read_loss(line, source_of))
    rewinds = [_read_rewind(rewound, notes) for rewound in rewind_folders(path)]
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
