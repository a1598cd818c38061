"""A folder of run folders: list what is in it, read one run, keep a note beside it, delete it.

To list a run, its ``run.json``, its loss versions and a few evaluated records are read, not its whole history; they are
read again only after they have changed. Listing never raises: a folder that holds no run, or a damaged one, is listed
with the reason.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import RunError
from ..recipes.record import LARGEST_FLOAT
from ..recipes.registry import recipe_of
from .comparison.metric_table import metric_table
from .entries import Evaluation, RunInfo, read_evaluation, read_loss, read_run_info
from .folder_lock import LOCK_FILE, exclude_runs
from .run_files import PART_SUFFIX
from .snapshots import SnapshotFolder
from .store import (
    EDITS,
    LOSS_SOURCES,
    LOSSES,
    RECORDS,
    REWARD_SOURCES,
    REWINDS,
    RUN_INFO,
    SavedRun,
    current_status,
    load_run,
    rewind_folders,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NOTE", "RunFolder", "RunSummary"]

T = TypeVar("T")

NOTE = "note.txt"
MAX_NOTE_LENGTH = 10_000  # characters
MAX_CURVE_POINTS = 32
MAX_METRICS = 48
MAX_TAGS = 32
MAX_INFO_BYTES = 4 << 20  # of a run.json
MAX_LOSSES = 1000  # lines of losses.jsonl that are read
MAX_NAME_LENGTH = 200  # characters
# As a RunStore writes it. Text inside a record has its quotes escaped, so that it never matches.
_EVALUATED = re.compile(rb'"held_out": \{"')


@dataclass(frozen=True)
class RunSummary:
    """What a list shows of one run folder.

    Attributes:
        name: Name of the folder.
        title: Name of the run.
        recipe: Name of the recipe.
        losses: Labels of the loss versions that were used, in order.
        status: Status of the run, or "interrupted" if its process ended while it was running; empty if unknown.
        steps, steps_total: Optimizer steps completed, and to complete.
        seed: Seed of the run; None if unknown.
        changed: Time of the last write, seconds since 1970.
        before, final: Held-out metrics before training and at the last evaluation.
        main: Name of the metric in ``curve``.
        curve: Its values at some evaluations, the first and the last included.
        tags, description: What a person gave the run.
        note: Text that a person wrote beside it.
        problem: Why the run cannot be read; empty if it can.
    """

    name: str
    title: str = ""
    recipe: str = ""
    losses: list[str] = field(default_factory=list)
    status: str = ""
    steps: int = 0
    steps_total: int = 0
    seed: int | None = None
    changed: float = 0.0
    before: dict[str, float] = field(default_factory=dict)
    final: dict[str, float] = field(default_factory=dict)
    main: str = ""
    curve: list[float] = field(default_factory=list)
    tags: tuple[str, ...] = ()
    description: str = ""
    note: str = ""
    problem: str = ""


class RunFolder:
    """The run folders directly inside ``folder``, except hidden ones.

    Args:
        folder: Need not exist yet.
    """

    def __init__(self, folder: str | os.PathLike[str] = "runs") -> None:
        self.folder = Path(folder)
        self._cache: dict[str, tuple[tuple[Any, ...], RunSummary]] = {}  # by name: file stamps, and what was read

    def __repr__(self) -> str:
        return f"RunFolder({str(self.folder)!r})"

    def list(self) -> list[RunSummary]:
        """Return a summary of every folder, the one that was written last first. Never raises."""
        try:
            entries = [entry for entry in os.scandir(self.folder) if not entry.name.startswith(".")]
        except OSError:
            return []
        summaries = [self._summary(Path(entry.path)) for entry in entries if _is_folder(entry)]
        self._cache = {s.name: self._cache[s.name] for s in summaries if s.name in self._cache}
        current = (replace(s, status=current_status(self.folder / s.name, s.status)) for s in summaries)
        return sorted(current, key=lambda summary: (-summary.changed, summary.name))

    def to_frame(self) -> pd.DataFrame:
        """Return one row per folder: its summary, and held-out metrics as ``before/NAME`` and ``final/NAME``.

        ``mean_margin`` is chosen minus rejected score, nats, whatever a loss reports under that name.
        """
        import pandas as pd

        frame = metric_table({summary.name: _row(summary) for summary in self.list()})
        if "changed" in frame:
            frame["changed"] = pd.to_datetime(frame["changed"], unit="s")
        return frame

    def open(self, name: str) -> SavedRun:
        """Read the whole run.

        Raises:
            RunError: If there is no such run, or it cannot be read.
        """
        path = self._path(name)
        try:
            return load_run(path)
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error}") from error

    def note(self, name: str, text: str) -> None:
        """Write ``text`` to ``note.txt`` beside the run; an empty text deletes the note.

        Raises:
            RunError: If there is no such run, the folder is a link to somewhere else, the note is longer than
                ``MAX_NOTE_LENGTH`` characters, or it cannot be written. The previous note then stays.
        """
        path = self._own_path(name)
        if len(text) > MAX_NOTE_LENGTH:
            raise RunError(f"the note has {len(text):,} characters, expected {MAX_NOTE_LENGTH:,} at most")
        try:
            if text.strip():
                _replace(path / NOTE, text.encode("utf-8", errors="backslashreplace"))
            else:
                (path / NOTE).unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"cannot write the note of {name}: {error}") from error

    def delete(self, name: str) -> list[str]:
        """Delete the files that a run writes, and its folder if nothing else is in it.

        Returns:
            Names of the other files in the folder, which stays.

        Raises:
            RunError: If there is no such run, the folder is a link to somewhere else, a run is writing it, or the
                system refuses.
        """
        path = self._own_path(name)
        try:
            with exclude_runs(path) as excluded:
                if not excluded:
                    _check_ended(path)
                    (path / LOCK_FILE).unlink(missing_ok=True)
                _delete_files(path)
            return _delete_folder(path)  # after the lock file is gone, which is in it
        except OSError as error:
            raise RunError(f"cannot delete all of {name}: {error}") from error

    def _own_path(self, name: str) -> Path:
        """As :meth:`_path`, for a change: the folder must hold a run, and be no link to another place."""
        path = self._path(name)
        if path.is_symlink() or path.resolve().parent != self.folder.resolve():
            raise RunError(f"{name} is a link to somewhere else; change the run in its own folder")
        if not any((path / file).is_file() for file in (RUN_INFO, RECORDS)):
            raise RunError(f"{name} holds no run: it has neither {RUN_INFO} nor {RECORDS}")
        return path

    def _path(self, name: str) -> Path:
        path = self.folder / name
        if not name or name.startswith(".") or "\0" in name or {"/", "\\"} & {*name} or path.name != name:
            raise RunError(f"{name!r} cannot name a run of {self.folder}, expected the name of a folder in it")
        if not path.is_dir():
            raise RunError(f"{self.folder} has no run {name!r}")
        return path

    def _summary(self, path: Path) -> RunSummary:
        stamps = tuple(_stamp(path / name) for name in (RUN_INFO, RECORDS, LOSSES, NOTE))
        cached = self._cache.get(path.name)
        if cached is None or cached[0] != stamps:
            cached = stamps, _read(path)
            self._cache[path.name] = cached
        return cached[1]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return found.st_mtime_ns, found.st_size


def _read(path: Path) -> RunSummary:
    changed = max(_stamp(path / name)[0] for name in (RUN_INFO, RECORDS)) / 1e9
    try:
        if not any((path / file).is_file() for file in (RUN_INFO, RECORDS)):
            return RunSummary(path.name, problem=f"holds no run: it has neither {RUN_INFO} nor {RECORDS}")
        return _read_run(path, changed)
    except (OSError, ValueError) as error:
        return RunSummary(path.name, changed=changed, problem=f"cannot be read: {type(error).__name__}: {error}"[:300])


def _read_run(path: Path, changed: float) -> RunSummary:
    info, problem = _read_info(path)
    evaluations, last = _read_evaluations(path / RECORDS)
    before = _metrics(info.baseline)
    held_out = [_metrics(evaluation.held_out) for evaluation in evaluations]
    # The curve in the table shows the recipe's most important metric that was evaluated.
    headlines = recipe_of(info.recipe).headlines
    main = next((name for name in headlines if any(name in metrics for metrics in [before, *held_out])), "")
    return RunSummary(
        path.name,
        title=_short(info.name),
        recipe=_short(info.recipe),
        losses=_read_losses(path, info),
        status=_short(info.status),
        steps=last.step,
        steps_total=info.steps,
        seed=info.seed,
        changed=changed,
        before=before,
        final=held_out[-1] if held_out else {},
        main=main,
        curve=[metrics[main] for metrics in [before, *held_out] if main in metrics],
        tags=tuple(_short(tag) for tag in info.tags[:MAX_TAGS]),
        description=_short(info.description),
        note=_read_note(path),
        problem=problem,
    )


def _read_info(path: Path) -> tuple[RunInfo, str]:
    """Return the content of ``run.json``, and why it cannot be read. An entry that fails its check has its default."""
    file = path / RUN_INFO
    if not file.is_file():
        return RunInfo(), f"{RUN_INFO} is missing"
    if file.stat().st_size > MAX_INFO_BYTES:
        return RunInfo(), f"{RUN_INFO} has {file.stat().st_size:,} bytes, more than any run writes"
    try:
        return read_run_info(file.read_bytes())[0], ""
    except (OSError, ValueError) as error:
        return RunInfo(), f"{RUN_INFO} cannot be read: {error}"[:300]


def _check_ended(path: Path) -> None:
    status = _read_info(path)[0].status
    if status in ("running", "paused"):
        raise RunError(
            f"the status of {path.name} is {status!r}, and its disk has no locks to check that with; if no process "
            f"writes it, delete {path} by hand"
        )


def _read_evaluations(path: Path) -> tuple[list[Evaluation], Evaluation]:
    """Return up to ``MAX_CURVE_POINTS`` evaluations, evenly spread, first and last included; and the last record."""
    if not path.is_file() or not path.stat().st_size:
        return [], Evaluation()
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        end = text.rfind(b"\n")  # an incomplete line can follow
        places = [match.start() for match in _EVALUATED.finditer(text) if match.start() < end]
        if len(places) > MAX_CURVE_POINTS:
            count = MAX_CURVE_POINTS
            places = [places[i * (len(places) - 1) // (count - 1)] for i in range(count)]
        lines = [text[text.rfind(b"\n", 0, place) + 1 : text.find(b"\n", place)] for place in places]
        last = text[text.rfind(b"\n", 0, end) + 1 : end] if end > 0 else b""
    return _readable(lines, read_evaluation), next(iter(_readable([last], read_evaluation)), Evaluation())


def _read_losses(path: Path, info: RunInfo) -> list[str]:
    try:
        lines = (path / LOSSES).read_bytes().splitlines()[:MAX_LOSSES]
    except OSError:
        lines = []
    losses = [(loss.name, loss.version) for loss in _readable(lines, lambda line: read_loss(line, lambda _: ""))]
    if not losses and info.loss:
        losses = [(info.loss, info.loss_version)]
    return list(dict.fromkeys(f"{_short(name)} v{version}" for name, version in losses))


def _readable(lines: list[bytes], read_line: Callable[[bytes], T]) -> list[T]:
    """Read ``lines``, without those that are damaged."""
    entries: list[T] = []
    for line in lines:
        with contextlib.suppress(ValueError):
            entries.append(read_line(line))
    return entries


def _read_note(path: Path) -> str:
    file = path / NOTE
    try:
        if not file.is_file() or file.stat().st_size > 8 * MAX_NOTE_LENGTH:
            return ""
        return file.read_text(encoding="utf-8", errors="replace")[:MAX_NOTE_LENGTH]
    except OSError:
        return ""


def _short(text: str) -> str:
    """Limit the length of a name, and escape half a surrogate pair, which JSON can hold and UTF-8 cannot."""
    return text[:MAX_NAME_LENGTH].encode("utf-8", errors="backslashreplace").decode("utf-8")


def _metrics(numbers: Mapping[str, float]) -> dict[str, float]:
    """Return the finite numbers, ``MAX_METRICS`` at most."""
    shown = list(numbers.items())[:MAX_METRICS]
    return {_short(name): float(value) for name, value in shown if abs(value) <= LARGEST_FLOAT}


def _row(summary: RunSummary) -> dict[str, Any]:
    return {
        "title": summary.title,
        "recipe": summary.recipe,
        "losses": ", ".join(summary.losses),
        "status": summary.status,
        "steps": summary.steps,
        "steps_total": summary.steps_total,
        "seed": summary.seed,
        "changed": summary.changed,
        "tags": ", ".join(summary.tags),
        "description": summary.description,
        "note": summary.note,
        "problem": summary.problem,
        "before": summary.before,
        "final": summary.final,
    }


def _replace(path: Path, content: bytes) -> None:
    """Write to a new file and rename it, so that every reader sees either the old content or the new one."""
    handle, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def _delete_files(path: Path) -> None:
    """Delete what a run writes, ``run.json`` last: a run that is half deleted is still listed, and can be deleted."""
    for folder in (path / LOSS_SOURCES, path / REWARD_SOURCES):
        if folder.is_dir() and not folder.is_symlink():
            for source in folder.glob("*.py"):
                source.unlink()  # if it is a link, only the link
            with contextlib.suppress(OSError):  # something else is in it
                folder.rmdir()
    SnapshotFolder(path).delete()
    rewinds = path / REWINDS
    if rewinds.is_dir() and not rewinds.is_symlink():
        for rewound in rewind_folders(path):
            _delete_rewind(rewound)
        with contextlib.suppress(OSError):
            rewinds.rmdir()
    for name in (LOSSES, EDITS, NOTE, RECORDS, RUN_INFO):
        (path / (name + PART_SUFFIX)).unlink(missing_ok=True)
        (path / name).unlink(missing_ok=True)


def _delete_rewind(folder: Path) -> None:
    if folder.is_symlink():
        folder.unlink()
        return
    for name in (RECORDS, EDITS):
        (folder / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # something else is in it
        folder.rmdir()


def _delete_folder(path: Path) -> list[str]:
    """Delete the folder if it is empty; return the names of what is in it otherwise."""
    others = sorted(entry.name for entry in path.iterdir())
    if not others:
        path.rmdir()
    return others
