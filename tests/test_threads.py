"""Threads at the end of the interpreter and after a fork; programs that end are in ``tests/ending.py``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mint_lab import threads
from mint_lab.client.futures import Worker
from mint_lab.errors import RunError
from mint_lab.runs.notifier import ChangeNotifier
from mint_lab.threads import (
    OwnedCondition,
    OwnedLock,
    PackageThread,
    ProcessExit,
    check_process,
    is_importing,
    process_lock,
    raise_in,
)
from tests.ending import CASES

from .waiting import TIMEOUT, Gate, join, until

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


# -- the end of the interpreter ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ends(tmp_path_factory: pytest.TempPathFactory, root: Path) -> dict[str, dict[str, Any]]:
    """How each program of ``tests/ending.py`` ended, and its folder."""
    folder = tmp_path_factory.mktemp("ends")
    command = [sys.executable, "-W", "ignore", "-m", "tests.ending", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(root)}
    found = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stderr[-3000:]
    results = [json.loads(line) for line in found.stdout.splitlines()]
    return {one["case"]: one | {"folder": folder / one["case"].replace(" ", "_")} for one in results}


STATUS = {"exit status 3": 3, "error": 1}


@forks
@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_program_ends_with_its_own_status(case: str, ends: dict[str, dict[str, Any]]) -> None:
    assert ends[case]["status"] == STATUS.get(case, 0), ends[case]["stderr"]
    if case == "error":
        assert ends[case]["stderr"].endswith("ValueError: the program failed\n")
    else:
        assert not ends[case]["stderr"]


@forks
@pytest.mark.slow
def test_a_checkpoint_that_was_requested_is_saved_with_all_calls_before_it(ends: dict[str, dict[str, Any]]) -> None:
    from mint_lab.engine.checkpoints import load_checkpoint

    (saved,) = (ends["several calls and a save"]["folder"] / "home").rglob("last")
    checkpoint = load_checkpoint(saved)
    assert checkpoint.optimizer is not None
    assert checkpoint.optimizer["step"] == 3 if "step" in checkpoint.optimizer else checkpoint.optimizer


@forks
@pytest.mark.slow
@pytest.mark.parametrize("case", ["run with snapshots", "stopped run", "page", "exit status 3"])
def test_a_run_is_recorded_as_stopped_without_an_error(case: str, ends: dict[str, dict[str, Any]]) -> None:
    from mint_lab.runs.folder_lock import is_locked
    from mint_lab.runs.store import load_run

    saved = load_run(ends[case]["folder"] / "run")
    assert (saved.info.status, saved.info.error, saved.notes) == ("stopped", None, [])
    assert saved.info.steps_done == len(saved.records) >= 1
    assert not is_locked(saved.folder)


def run_at_exit(monkeypatch: pytest.MonkeyPatch, *mine: PackageThread) -> None:
    """Do what happens at the exit, for these threads only."""
    monkeypatch.setattr(threads, "_threads", set(mine))
    monkeypatch.setattr(threads, "_callbacks", [])
    monkeypatch.setattr(threads, "GRACE_SECONDS", 0.05)
    threads._end_all()


def test_threads_that_serve_end_after_those_that_need_them(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    asked = threading.Event()
    server = PackageThread(lambda: (asked.wait(TIMEOUT), order.append("server")), "server", end=asked.set)
    needs = threading.Event()
    user = PackageThread(lambda: (needs.wait(TIMEOUT), order.append("user")), "user")
    for thread in (server, user):
        thread.start()
    monkeypatch.setattr(threads, "GRACE_SECONDS", TIMEOUT)
    monkeypatch.setattr(threads, "_threads", {server, user})
    monkeypatch.setattr(threads, "_callbacks", [needs.set])
    threads._end_all()
    assert order == ["user", "server"]


def test_a_thread_that_does_not_end_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    swallowed: list[str] = []

    def work() -> None:
        for _ in range(3):
            try:
                while True:
                    pass
            except BaseException as error:
                swallowed.append(type(error).__name__)
        while True:
            pass

    thread = PackageThread(work, "busy")
    thread.start()
    run_at_exit(monkeypatch, thread)
    assert not thread.is_alive()
    assert swallowed == ["ProcessExit"] * 3


def test_a_thread_that_waits_in_c_for_ever_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    forever = threading.Lock()
    forever.acquire()
    thread = PackageThread(forever.acquire, "stuck")
    thread.start()
    monkeypatch.setattr(threads, "IDLE_SECONDS", 0.05)
    run_at_exit(monkeypatch, thread)
    assert thread.is_alive()
    forever.release()
    join(thread)


def test_callbacks_run_last_first_even_if_one_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[int] = []
    callbacks = [lambda: order.append(1), lambda: order.append(1 // 0), lambda: order.append(3)]
    monkeypatch.setattr(threads, "_threads", set[Any]())
    monkeypatch.setattr(threads, "_callbacks", callbacks)
    threads._end_all()
    assert order == [3, 1]


def test_worker_at_exit_runs_what_saves_and_cancels_the_rest() -> None:
    worker, gate, ran = Worker("t"), Gate(holds=1), list[str]()
    first = worker.submit(gate)
    before = worker.submit(lambda: ran.append("before"))
    save = worker.submit(lambda: ran.append("save"), saves=True)
    after = worker.submit(lambda: ran.append("after"))
    gate.wait()
    closing = threading.Thread(target=worker._calls.close)
    closing.start()
    until(after.future().cancelled)
    late = worker.submit(lambda: ran.append("late"))
    with pytest.raises(RunError, match=r"^the interpreter is exiting, so no further call can run$"):
        late.result(TIMEOUT)
    assert closing.is_alive()
    gate.open()
    join(closing)
    join(worker._thread)
    assert ran == ["before", "save"]
    assert [f.future().done() for f in (first, before, save)] == [True] * 3


def test_worker_without_a_save_cancels_all_that_wait() -> None:
    worker, gate = Worker("t"), Gate(holds=1)
    worker.submit(gate)
    calls = [worker.submit(int) for _ in range(3)]
    gate.wait()
    worker._calls.close()
    assert all(call.future().cancelled() for call in calls)
    gate.open()
    join(worker._thread)


def test_raise_in_reaches_a_thread_at_its_next_line_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    begun = threading.Event()

    def work() -> None:
        begun.set()
        while True:
            pass

    thread = PackageThread(work, "busy")
    thread.start()
    assert begun.wait(TIMEOUT)
    raise_in(thread, ProcessExit)
    join(thread)
    assert capfd.readouterr().err == ""


def test_is_importing_sees_an_import_however_deep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(holds=1)
    state = types.ModuleType("gate_of_the_test")
    state.__dict__["gate"] = gate
    monkeypatch.setitem(sys.modules, "gate_of_the_test", state)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "slow_module.py").write_text("from gate_of_the_test import gate\n\ndef deep():\n    gate()\n\ndeep()\n")
    thread = PackageThread(lambda: __import__("slow_module"), "imports")
    thread.start()
    gate.wait()
    assert is_importing(thread)
    assert not is_importing(threading.main_thread())
    gate.open()
    join(thread)


# -- after a fork -----------------------------------------------------------------------------------------------------


def in_fork(act: Callable[[], object]) -> str:
    """Call ``act`` in a forked process, and return its result or its error as text; a call that hangs is an error."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 warns of what the test is about
        child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(60)
        try:
            text = str(act())
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writer, text.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    _, status = os.waitpid(child, 0)
    return text if status == 0 else f"the forked process ended with status {status}"


def refusal(what: str) -> str:
    return f"RunError: {what} belongs to process {os.getpid()}, and this is process "


@forks
def test_what_belongs_to_a_process_is_refused_in_a_fork() -> None:
    assert in_fork(lambda: check_process(os.getppid(), "it")).startswith(refusal("it"))
    check_process(os.getpid(), "it")


@forks
@pytest.mark.parametrize("make", [OwnedLock, OwnedCondition])
def test_lock_that_another_thread_holds_is_refused_in_a_fork(make: Any) -> None:
    lock, gate = make("this thing"), Gate(holds=1)

    def hold() -> None:
        with lock:
            gate()

    thread = threading.Thread(target=hold)
    thread.start()
    gate.wait()

    def use() -> None:
        with lock:
            pass

    assert in_fork(use).startswith(refusal("this thing"))
    gate.open()
    join(thread)
    use()
    use()


@forks
def test_process_lock_is_open_in_a_fork() -> None:
    lock = process_lock()
    with lock:
        assert in_fork(lambda: lock.acquire(blocking=False)) == "True"
        assert not lock.acquire(blocking=False)


@forks
def test_client_is_refused_in_a_fork_also_for_calls_that_were_waiting() -> None:
    worker, gate = Worker("t"), Gate(holds=1)
    running, waiting = worker.submit(gate), worker.submit(int)
    gate.wait()
    assert in_fork(lambda: worker.submit(int)).startswith(refusal("this client"))
    for call in (running, waiting):
        answer = in_fork(lambda call=call: call.result(TIMEOUT))
        assert answer == "RunError: this call was submitted in another process, from which this one was forked"
    gate.open()
    assert waiting.result(TIMEOUT) == 0


@forks
def test_notifier_is_refused_in_a_fork() -> None:
    notifier = ChangeNotifier()
    dispose = notifier.subscribe(lambda: None)
    assert in_fork(lambda: notifier.subscribe(lambda: None)).startswith(refusal("this run"))
    dispose()
