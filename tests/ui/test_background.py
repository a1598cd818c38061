"""Long requests of a page: one at a time, on a thread, with the reason if one fails."""

from __future__ import annotations

import threading

import pytest

from mint_lab.errors import ConfigError, RunError
from mint_lab.ui.background import Background
from mint_lab.ui.state import Activity
from tests.waiting import Gate, until


def idle(background: Background) -> bool:
    return not background.activity().text


def test_a_job_is_done_on_another_thread_and_the_caller_does_not_wait() -> None:
    gate, seen, changes = Gate(holds=1), [], []
    background = Background(lambda: changes.append(background.activity()))
    background.start("Returning to step 4…", lambda: (gate(), seen.append(threading.current_thread())))
    gate.wait()
    assert background.activity() == Activity("Returning to step 4…")
    with pytest.raises(ConfigError, match=r"Returning to step 4\. Wait until that is done"):
        background.start("Forking…", lambda: None)
    gate.open()
    until(lambda: idle(background) and len(changes) == 2)
    assert changes == [Activity("Returning to step 4…"), Activity()]
    assert seen
    assert seen[0] is not threading.current_thread()


def test_an_error_is_kept_until_a_person_does_something_else(caplog: pytest.LogCaptureFixture) -> None:
    def refuse() -> None:
        raise RunError("no snapshot")

    def fail() -> None:
        raise ValueError("a bug")

    background = Background(lambda: None)
    background.start("one", refuse)
    until(lambda: idle(background))
    assert background.activity() == Activity("", "no snapshot")
    assert not caplog.records
    background.forget_error()
    assert background.activity() == Activity()
    background.start("two", fail)
    until(lambda: idle(background))
    assert background.activity() == Activity("", "ValueError: a bug")
    assert "a page's request failed" in caplog.text


def test_forgetting_does_not_touch_a_job_in_progress() -> None:
    gate = Gate(holds=1)
    background = Background(lambda: None)
    background.start("one", gate)
    gate.wait()
    background.forget_error()
    assert background.activity() == Activity("one")
    gate.open()
    until(lambda: idle(background))


def test_without_a_thread_the_next_job_is_possible(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    background = Background(lambda: None)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError, match="new thread"):
            background.start("one", lambda: None)
    done: list[int] = []
    background.start("two", lambda: done.append(1))
    until(lambda: idle(background))
    assert done == [1]
