"""Calling a function so that it can be broken off, and nothing else is."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from typing import Any

import pytest
import torch

from mint_lab.errors import LossError
from mint_lab.usercode.guarded_call import LossInterrupted, _News, call_guarded, hand_back
from mint_lab.usercode.output import CHARACTERS_A_LINE, Printed

TIMEOUT = 30


def never(seconds: float) -> bool:
    return False


def soon(seconds: float) -> bool:
    return seconds > 0.1


def test_result_error_and_gradient_mode_come_through() -> None:
    def asked(x: int) -> tuple[int, bool]:
        return x + 1, torch.is_grad_enabled()

    assert call_guarded(asked, (1,), give_up=never) == (2, True)
    with torch.no_grad():
        assert call_guarded(asked, (1,), give_up=never) == (2, False)

    def fails() -> None:
        raise ValueError("a planted bug")

    with pytest.raises(ValueError, match="a planted bug") as caught:
        call_guarded(fails, (), give_up=never)
    names = [entry.name for entry in caught.traceback]
    assert names[-1] == "fails"


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit])
def test_what_would_mean_something_else_here_is_wrapped(kind: type[BaseException]) -> None:
    def raises() -> None:
        raise kind

    with pytest.raises(LossError, match=f"raised {kind.__name__}") as caught:
        call_guarded(raises, (), give_up=never)
    assert isinstance(caught.value.__cause__, kind)


def test_one_thread_serves_call_after_call_and_a_broken_off_one_is_not_used_again() -> None:
    first = call_guarded(threading.current_thread, (), give_up=never)
    assert call_guarded(threading.current_thread, (), give_up=never) is first
    assert first is not threading.current_thread()

    def endless() -> None:
        while True:
            pass

    with pytest.raises(LossInterrupted) as caught:
        call_guarded(endless, (), give_up=soon)
    assert not caught.value.stuck
    assert caught.value.seconds >= 0.1
    assert call_guarded(threading.current_thread, (), give_up=never) is not first
    first.join(TIMEOUT)
    assert not first.is_alive()


def test_the_place_is_told() -> None:
    def endless() -> None:
        while True:
            time.time()

    with pytest.raises(LossInterrupted) as caught:
        call_guarded(endless, (), give_up=soon)
    cause = caught.value.__cause__
    assert cause is not None
    found = cause.__traceback__
    names = []
    while found is not None:
        names.append(found.tb_frame.f_code.co_name)
        found = found.tb_next
    assert names[-1] == "endless"


def test_calls_may_stand_inside_of_each_other() -> None:
    def outer() -> int:
        return 1 + call_guarded(lambda: 1, (), give_up=never)

    assert call_guarded(outer, (), give_up=never) == 2


def test_a_job_is_handed_back_to_the_thread_that_waits_and_to_no_other() -> None:
    here = threading.current_thread()
    done: list[Any] = []
    came = threading.Event()

    def asks() -> bool:
        other = threading.Thread(target=lambda: None)
        assert not hand_back(other, lambda: done.append("no"))
        assert hand_back(here, lambda: (done.append(threading.current_thread()), came.set()))
        return came.wait(TIMEOUT)

    assert call_guarded(asks, (), give_up=never)
    assert done == [here]
    assert not hand_back(here, lambda: done.append("no"))  # outside of any call


def test_a_function_that_asks_for_ever_is_broken_off_too() -> None:
    here = threading.current_thread()

    def asks() -> None:
        while True:
            came = threading.Event()
            hand_back(here, came.set)
            came.wait()

    with pytest.raises(LossInterrupted):
        call_guarded(asks, (), give_up=soon)


# -- printing ----------------------------------------------------------------------------------------------------------


def prints(n: int, text: str = "x") -> None:
    for i in range(n):
        print(text, i)
    print("err", file=sys.stderr)


def test_printing_is_counted_kept_and_cut(capfd: pytest.CaptureFixture[str]) -> None:
    stdout = sys.stdout
    silent, loud = Printed(3, echo=False), Printed(3, echo=True)
    call_guarded(prints, (2,), give_up=never, printed=silent)
    assert (silent.lines, silent.kept, silent.dropped) == (3, "x 0\nx 1\nerr\n", False)
    assert capfd.readouterr() == ("", "")
    call_guarded(prints, (10,), give_up=never, printed=loud)
    assert (loud.lines, loud.kept, loud.dropped) == (11, "x 0\nx 1\nx 2\n", True)
    assert capfd.readouterr() == ("x 0\nx 1\nx 2\n", "")
    assert sys.stdout is stdout


def test_a_flood_without_line_ends_is_cut_as_well() -> None:
    printed = Printed(2, echo=False)
    call_guarded(lambda: print("y" * 10_000, end=""), (), give_up=never, printed=printed)
    assert (len(printed.kept), printed.dropped) == (2 * CHARACTERS_A_LINE, True)


def test_a_stream_that_somebody_else_put_there_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    theirs = io.StringIO()

    def swaps() -> None:
        monkeypatch.setattr(sys, "stdout", theirs)

    call_guarded(swaps, (), give_up=never, printed=Printed(3, echo=False))
    assert sys.stdout is theirs


def test_functions_can_be_traced_after_a_call_was_broken_off() -> None:
    """In a process of its own: where it goes wrong (Python 3.11), the interpreter never comes back."""
    program = """
import faulthandler, sys, time
faulthandler.dump_traceback_later(60, exit=True)
from mint_lab.usercode.guarded_call import LossInterrupted, call_guarded

def endless():
    while True: pass

def traced(): return 1

for fn in (endless, lambda: time.sleep(5)):
    try:
        call_guarded(fn, (), give_up=lambda seconds: seconds > 0.1)
    except LossInterrupted:
        time.sleep(0.3)
    events = []
    sys.settrace(lambda frame, event, arg: events.append(event))
    traced()
    sys.settrace(None)
    assert "call" in events
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stderr


def test_waiting_for_news_ends_however_short_it_is_and_whatever_rang_before() -> None:
    news = _News()
    for timeout in (0.0, 1e-9, 1e-6, 0.01):
        with pytest.raises(queue.Empty):
            news.get(timeout)
    news.put(print)
    news.put(None)
    assert (news.get(0), news.get(0)) == (print, None)
    with pytest.raises(queue.Empty):  # the bell rang for what has been taken since
        news.get(1e-6)
    with pytest.raises(queue.Empty):
        news.get(0.01)
