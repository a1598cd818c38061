"""A folder of run folders: what is in it at a glance, and how one is read, noted and deleted.

Listing reads of each run its settings, its loss versions and a few evaluated records, not its whole history, and reads
them again only after they have changed. Whatever lies in the folder, listing does not raise: what is no run, or is
damaged, is listed with the reason.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import RunError
from .comparison.overlay import table
from .entries import LARGEST_FLOAT
from .folder_lock import is_held, while_free
from .store import EDITS, LOSSES_FILE, RECORDS, REWARD_SOURCES, SETTINGS, SOURCES, SavedRun, load_run

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["NOTE", "RunFolder", "RunSummary"]

NOTE = "note.txt"
NOTE_LENGTH = 10_000  # characters
POINTS = 32  # of a sparkline
METRICS = 48
LARGEST = 4 << 20  # bytes of a settings file that is read
_PART = SETTINGS + ".part"
# What a sparkline shows: the first of these that was evaluated.
MAIN = ("pair_accuracy", "reward", "nll", "loss")
# Our own way of writing: a text inside a record has its quotes escaped, and is never taken for it.
_EVALUATED = re.compile(rb'"held_out": \{"')


@dataclass(frozen=True)
class RunSummary:
    """One folder.

    Attributes:
        name: of the folder.
        title: what the run is called.
        losses: labels of the loss versions that made steps, in order.
        status: as of a run, or "interrupted" where its process ended without saying so; empty where unknown.
        steps, steps_total: optimizer steps made, and to make.
        changed: when it was last written, seconds since 1970.
        before, final: held-out metrics before training and at the last evaluation.
        main: name of the metric in ``curve``.
        curve: its values at some evaluations, the first and the last among them.
        note: what a person wrote.
        problem: why it cannot be read; empty where it can.
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
    note: str = ""
    problem: str = ""


class RunFolder:
    """The run folders directly inside ``folder``; hidden ones are passed over.

    Args:
        folder: need not exist yet.
    """

    def __init__(self, folder: str | os.PathLike[str] = "runs") -> None:
        self.folder = Path(folder)
        self._known: dict[str, tuple[tuple[Any, ...], RunSummary]] = {}

    def __repr__(self) -> str:
        return f"RunFolder({str(self.folder)!r})"

    def list(self) -> list[RunSummary]:
        """Every folder, the one last written first. Never raises."""
        try:
            entries = [entry for entry in os.scandir(self.folder) if not entry.name.startswith(".")]
        except OSError:
            return []
        found = [self._summary(Path(entry.path)) for entry in entries if _is_folder(entry)]
        self._known = {summary.name: self._known[summary.name] for summary in found if summary.name in self._known}
        return sorted((_awake(self.folder, summary) for summary in found), key=lambda s: (-s.changed, s.name))

    def to_frame(self) -> pd.DataFrame:
        """One row a folder: its entries, and held-out metrics as ``before/NAME`` and ``final/NAME``.

        ``mean_margin`` is chosen minus rejected score, nats, whatever a loss reports under that name.
        """
        import pandas as pd

        frame = table({summary.name: _row(summary) for summary in self.list()})
        if "changed" in frame:
            frame["changed"] = pd.to_datetime(frame["changed"], unit="s")
        return frame

    def open(self, name: str) -> SavedRun:
        """The whole run.

        Raises:
            RunError: there is no such run, or it cannot be read.
        """
        path = self._path(name)
        try:
            return load_run(path)
        except OSError as error:
            raise RunError(f"{path} cannot be read: {error}") from error

    def note(self, name: str, text: str) -> None:
        """Keep ``text`` beside the run, in ``note.txt``; an empty one takes the note away.

        Raises:
            RunError: there is no such run, it is a link to somewhere else, the note is longer than ``NOTE_LENGTH``
                characters, or it cannot be written; the note before is then still there.
        """
        path = self._own(name)
        if len(text) > NOTE_LENGTH:
            raise RunError(f"the note has {len(text):,} characters, expected {NOTE_LENGTH:,} at most")
        try:
            if text.strip():
                _replace(path / NOTE, text.encode("utf-8", errors="backslashreplace"))
            else:
                (path / NOTE).unlink(missing_ok=True)
        except OSError as error:
            raise RunError(f"cannot write the note of {name}: {error}") from error

    def delete(self, name: str) -> list[str]:
        """Delete the files that a run writes, and its folder where nothing else is in it.

        Returns:
            Names of what else was in the folder, which stays.

        Raises:
            RunError: there is no such run, it is a link to somewhere else, a run writes it now, or the system refuses.
        """
        path = self._own(name)
        with while_free(path) as known:
            if not known and _status(path) in ("running", "paused"):
                raise RunError(f"{name} says that it is running, and this system cannot tell; delete {path} by hand")
            try:
                return _delete(path)
            except OSError as error:
                raise RunError(f"cannot delete {name} altogether: {error}") from error

    def _own(self, name: str) -> Path:
        """As :meth:`_path`, for something to be changed: a run, and really inside this folder."""
        path = self._path(name)
        if path.is_symlink() or path.resolve().parent != self.folder.resolve():
            raise RunError(f"{name} is a link to somewhere else; nothing is changed there from here")
        if not any((path / file).is_file() for file in (SETTINGS, RECORDS)):
            raise RunError(f"{name} holds no run: neither {SETTINGS} nor {RECORDS} is there")
        return path

    def _path(self, name: str) -> Path:
        path = self.folder / name
        if not name or name.startswith(".") or "\0" in name or {"/", "\\"} & {*name} or path.name != name:
            raise RunError(f"{name!r} names no run of {self.folder}, expected the name of a folder in it")
        if not path.is_dir():
            raise RunError(f"{self.folder} has no run {name!r}")
        return path

    def _summary(self, path: Path) -> RunSummary:
        key = tuple(_stamp(path / name) for name in (SETTINGS, RECORDS, LOSSES_FILE, NOTE))
        known = self._known.get(path.name)
        if known is None or known[0] != key:
            known = key, _read(path)
            self._known[path.name] = known
        return known[1]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _awake(folder: Path, summary: RunSummary) -> RunSummary:
    """A run that says it is running is so only while somebody holds its folder."""
    if summary.status != "running" or is_held(folder / summary.name) is not False:
        return summary
    return replace(summary, status="interrupted")


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return (0, 0)
    return found.st_mtime_ns, found.st_size


def _read(path: Path) -> RunSummary:
    changed = max(_stamp(path / name)[0] for name in (SETTINGS, RECORDS)) / 1e9
    try:
        if not any((path / file).is_file() for file in (SETTINGS, RECORDS)):
            return RunSummary(path.name, problem=f"holds no run: neither {SETTINGS} nor {RECORDS} is there")
        return _read_run(path, changed)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        return RunSummary(path.name, changed=changed, problem=f"cannot be read: {type(error).__name__}: {error}"[:300])


def _read_run(path: Path, changed: float) -> RunSummary:
    settings, problem = _settings(path)
    evaluated, last = _some_records(path / RECORDS)
    before = _metrics(settings.get("baseline"))
    held_out = [_metrics(record.get("held_out")) for record in evaluated]
    main = next((name for name in MAIN if any(name in found for found in [before, *held_out])), "")
    return RunSummary(
        path.name,
        title=_text(settings.get("name", "")),
        recipe=_text(settings.get("recipe", "")),
        losses=_losses(path, settings),
        status=_text(settings.get("status", "")),
        steps=_whole(last.get("step"), 0),
        steps_total=_whole(settings.get("steps"), 0),
        seed=_whole(settings.get("seed"), None),
        changed=changed,
        before=before,
        final=held_out[-1] if held_out else {},
        main=main,
        curve=[found[main] for found in [before, *held_out] if main in found],
        note=_note(path),
        problem=problem,
    )


def _settings(path: Path) -> tuple[dict[str, Any], str]:
    file = path / SETTINGS
    if not file.is_file():
        return {}, f"{SETTINGS} is missing"
    if file.stat().st_size > LARGEST:
        return {}, f"{SETTINGS} is no run's: it has {file.stat().st_size:,} bytes"
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        return {}, f"{SETTINGS} cannot be read: {error}"[:300]
    return (found, "") if isinstance(found, dict) else ({}, f"{SETTINGS} holds a {type(found).__name__}, no settings")


def _status(path: Path) -> str:
    return _text(_settings(path)[0].get("status", ""))


def _some_records(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Up to ``POINTS`` records with an evaluation, evenly spread, first and last among them; and the last record."""
    if not path.is_file() or not path.stat().st_size:
        return [], {}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        end = text.rfind(b"\n")  # what lies behind it was torn off
        places = [match.start() for match in _EVALUATED.finditer(text) if match.start() < end]
        if len(places) > POINTS:
            places = [places[i * (len(places) - 1) // (POINTS - 1)] for i in range(POINTS)]
        lines = [text[text.rfind(b"\n", 0, place) + 1 : text.find(b"\n", place)] for place in places]
        last = text[text.rfind(b"\n", 0, end) + 1 : end] if end > 0 else b""
    records = [record for line in lines if (record := _record(line))]
    return records, _record(last)


def _record(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _losses(path: Path, settings: Mapping[str, Any]) -> list[str]:
    labels: list[str] = []
    with contextlib.suppress(OSError):
        for line in (path / LOSSES_FILE).read_bytes().splitlines()[:1000]:
            found = _record(line)
            if "name" in found:
                labels.append(f"{_text(found['name'])} v{_whole(found.get('version'), 1)}")
    if not labels and "loss" in settings:
        labels.append(f"{_text(settings['loss'])} v{_whole(settings.get('loss_version'), 1)}")
    return list(dict.fromkeys(labels))


def _note(path: Path) -> str:
    file = path / NOTE
    try:
        if not file.is_file() or file.stat().st_size > 8 * NOTE_LENGTH:
            return ""
        return file.read_text(encoding="utf-8", errors="replace")[:NOTE_LENGTH]
    except OSError:
        return ""


def _text(value: Any) -> str:
    """As a name that travels: not endless, and without half a surrogate pair, which JSON can hold."""
    return str(value)[:200].encode("utf-8", errors="backslashreplace").decode("utf-8")


def _whole(value: Any, default: Any) -> Any:
    return int(value) if not isinstance(value, bool) and _is_finite(value) else default


def _is_finite(value: Any) -> bool:
    """Whether it is a number that a float can hold: JSON holds larger ones."""
    return isinstance(value, int | float) and abs(value) <= LARGEST_FLOAT


def _metrics(found: Any) -> dict[str, float]:
    if not isinstance(found, Mapping):
        return {}
    numbers = ((_text(name), value) for name, value in list(found.items())[:METRICS])
    return {n: float(v) for n, v in numbers if _is_finite(v)}


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
        "note": summary.note,
        "problem": summary.problem,
        "before": summary.before,
        "final": summary.final,
    }


def _replace(path: Path, content: bytes) -> None:
    """Write beside it and rename: whoever reads sees the old text or the new one."""
    handle, part = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        Path(part).replace(path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def _delete(path: Path) -> list[str]:
    """Settings last: what is deleted half-way is still listed, and can be deleted again."""
    for folder in (path / SOURCES, path / REWARD_SOURCES):
        if folder.is_dir() and not folder.is_symlink():
            for source in folder.glob("*.py"):
                source.unlink()  # of a link, the link alone
            with contextlib.suppress(OSError):  # something else is in it
                folder.rmdir()
    for name in (LOSSES_FILE, EDITS, NOTE, RECORDS, _PART, SETTINGS):
        (path / name).unlink(missing_ok=True)
    kept = sorted(entry.name for entry in path.iterdir())
    if not kept:
        path.rmdir()
    return kept
