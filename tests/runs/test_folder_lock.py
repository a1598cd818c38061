"""The lock on a run's folder: who has it, when it ends, and what a disk without locks does."""

from __future__ import annotations

import errno
import gc
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import pytest

from mint_lab.errors import RunError
from mint_lab.runs import Run
from mint_lab.runs.folder_lock import LOCK_FILE, FolderLock, exclude_runs, is_locked

from ..waiting import TIMEOUT, Gate, join, until
from .bigram import BigramClient
from .conftest import finish

HOLD = (
    "import sys, pathlib; from mint_lab.runs.folder_lock import FolderLock\n"
    "lock = FolderLock(pathlib.Path(sys.argv[1])); print('locked', flush=True); sys.stdin.read(); lock.release()"
)


@contextmanager
def other_process(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has ``folder`` locked until its input is closed."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"locked"
        yield process
    finally:
        process.kill()
        process.communicate()


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def test_lock_lasts_until_it_is_released(tmp_path: Path) -> None:
    assert is_locked(tmp_path) is False
    lock = FolderLock(tmp_path)
    lock.acquire()  # once more changes nothing
    assert is_locked(tmp_path) is True
    assert names(tmp_path) == [LOCK_FILE]
    lock.release()
    lock.release()
    assert is_locked(tmp_path) is False
    assert names(tmp_path) == []
    lock.acquire()
    assert is_locked(tmp_path) is True
    lock.release()


def test_another_thread_may_release_it(tmp_path: Path) -> None:
    """The worker thread acquires the lock, and the thread that calls stop() releases it."""
    lock = FolderLock(tmp_path)
    file = lock._lock
    thread = threading.Thread(target=lock.release)
    thread.start()
    join(thread)
    assert is_locked(tmp_path) is False
    assert file is not None
    assert not file.is_locked, "the file is deleted, and still open"


def test_forgotten_lock_ends(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    assert is_locked(tmp_path) is True
    del lock
    gc.collect()
    assert is_locked(tmp_path) is False
    assert names(tmp_path) == [LOCK_FILE], "the file alone says nothing"


def test_looking_at_a_folder_creates_nothing(tmp_path: Path) -> None:
    assert is_locked(tmp_path) is False
    assert names(tmp_path) == []
    assert is_locked(tmp_path / "nowhere") is False
    assert not (tmp_path / "nowhere").exists()
    lock = FolderLock(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()
    lock.release()


def test_another_process_has_it_until_it_releases_it(tmp_path: Path) -> None:
    with other_process(tmp_path) as process:
        assert is_locked(tmp_path) is True
        with pytest.raises(RunError, match="is being written by a run; stop that run first"), exclude_runs(tmp_path):
            raise AssertionError("the block must not be entered")
        process.communicate(timeout=TIMEOUT)
        assert process.returncode == 0
        assert is_locked(tmp_path) is False
        assert names(tmp_path) == []


def test_lock_ends_with_a_process_that_is_killed(tmp_path: Path) -> None:
    with other_process(tmp_path) as process:
        assert is_locked(tmp_path) is True
        process.kill()
        process.wait(TIMEOUT)
        until(lambda: is_locked(tmp_path) is False)
        assert names(tmp_path) == [LOCK_FILE]
    lock = FolderLock(tmp_path)
    assert is_locked(tmp_path) is True
    lock.release()


def test_runs_are_excluded_for_the_block(tmp_path: Path) -> None:
    with exclude_runs(tmp_path) as excluded:
        assert excluded is True
        assert is_locked(tmp_path) is True
    assert is_locked(tmp_path) is False
    assert names(tmp_path) == []


def test_a_look_at_the_folder_does_not_keep_a_run_from_its_lock(tmp_path: Path) -> None:
    """A look holds the lock for a moment, and a run waits for longer than that."""
    probe = filelock.FileLock(tmp_path / LOCK_FILE, thread_local=False)
    probe.acquire()
    locks: list[FolderLock] = []
    thread = threading.Thread(target=lambda: locks.append(FolderLock(tmp_path)))
    thread.start()
    probe.release()
    join(thread)
    assert is_locked(tmp_path) is True
    locks[0].release()


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (OSError(errno.ENOLCK, "No locks available"), None),
        (PermissionError(errno.EACCES, "Permission denied"), None),
        (NotImplementedError("FileSystem does not appear to support flock"), None),
        (OSError(errno.EROFS, "Read-only file system"), False),  # nobody writes there
    ],
)
def test_disk_without_locks_breaks_no_run(
    make_run: Callable[..., Run], monkeypatch: pytest.MonkeyPatch, error: Exception, answer: bool | None
) -> None:
    def refuse(self: Any, *_: Any, **__: Any) -> None:
        Path(self.lock_file).touch()  # as an attempt leaves it
        raise error

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    run = make_run(steps=2)
    assert run.step().wait(TIMEOUT)
    assert run.folder is not None
    assert is_locked(run.folder) is answer
    with exclude_runs(run.folder) as excluded:
        assert excluded is False
    finish(run)
    assert LOCK_FILE not in names(run.folder)


def test_run_has_its_folder_locked_while_it_may_write(make_run: Callable[..., Run]) -> None:
    run = make_run(client=BigramClient(gate=(gate := Gate())), steps=2)
    run.start()
    gate.wait()
    assert run.folder is not None
    assert is_locked(run.folder) is True
    run.pause()
    gate.open(5)
    assert run.wait(TIMEOUT)
    assert (run.status, is_locked(run.folder)) == ("paused", True)
    finish(run)
    assert is_locked(run.folder) is False
    run.set(steps=4)
    assert run.step().wait(TIMEOUT)
    assert (run.status, is_locked(run.folder)) == ("paused", True)
    run.stop()
    assert is_locked(run.folder) is False
