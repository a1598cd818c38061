"""What a captured call prints: counted, limited, and separate from other output."""

from __future__ import annotations

import contextlib
import contextvars
import io
import sys
import threading
from typing import Any

import pytest

from mint_lab.usercode import output
from mint_lab.usercode.guarded_call import call_guarded
from mint_lab.usercode.output import CHARACTERS_PER_LINE, Printed, capture_output
from tests.waiting import Attempt, Gate, join


def never(seconds: float) -> bool:
    return False


def prints(n: int, text: str = "x") -> None:
    for i in range(n):
        print(text, i)
    print("err", file=sys.stderr)


def test_lines_are_counted_and_the_first_ones_kept(capfd: pytest.CaptureFixture[str]) -> None:
    stdout = sys.stdout
    silent, loud = Printed(3, echo=False), Printed(3, echo=True)
    call_guarded(prints, (2,), should_cancel=never, printed=silent)
    assert (silent.lines, silent.kept, silent.truncated) == (3, "x 0\nx 1\nerr\n", False)
    assert capfd.readouterr() == ("", "")
    call_guarded(prints, (10,), should_cancel=never, printed=loud)
    assert (loud.lines, loud.kept, loud.truncated) == (11, "x 0\nx 1\nx 2\n", True)
    assert capfd.readouterr() == ("x 0\nx 1\nx 2\n", "")
    assert sys.stdout is stdout


def test_text_without_line_ends_is_limited_too() -> None:
    printed = Printed(2, echo=False)
    call_guarded(lambda: print("y" * 10_000, end=""), (), should_cancel=never, printed=printed)
    assert (len(printed.kept), printed.truncated) == (2 * CHARACTERS_PER_LINE, True)


def test_a_call_that_prints_nothing_is_false() -> None:
    printed = Printed(2, echo=False)
    assert not printed
    printed.add("text without a line end", io.StringIO())
    assert printed
    assert (printed.lines, printed.truncated) == (0, False)


def test_a_stream_that_the_function_installs_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = io.StringIO()

    def swaps() -> None:
        monkeypatch.setattr(sys, "stdout", theirs)

    call_guarded(swaps, (), should_cancel=never, printed=Printed(3, echo=False))
    assert sys.stdout is theirs


def test_captures_can_overlap_and_the_last_one_removes_the_proxy(capfd: pytest.CaptureFixture[str]) -> None:
    stdout = sys.stdout
    contexts, captured = [contextvars.copy_context() for _ in range(2)], [Printed(5, echo=False) for _ in range(2)]
    with capture_output(contexts[0], captured[0]):
        with capture_output(contexts[1], captured[1]):
            contexts[1].run(sys.stdout.writelines, ["one\n", "two\n"])
            assert sys.stdout.isatty() == stdout.isatty()  # all other methods are the stream's
        contexts[0].run(print, "first")
        print("not captured")
    assert sys.stdout is stdout
    assert [p.kept for p in captured] == ["first\n", "one\ntwo\n"]
    assert capfd.readouterr().out == "not captured\n"


def test_proxies_are_removed_if_the_wait_for_the_call_fails() -> None:
    """By Ctrl+C, for example."""
    before = sys.stdout, sys.stderr
    with contextlib.suppress(KeyboardInterrupt), capture_output(contextvars.copy_context(), Printed(1, echo=False)):
        assert sys.stdout is not before[0]
        raise KeyboardInterrupt
    assert (sys.stdout, sys.stderr) == before


def test_other_threads_print_as_usual(capfd: pytest.CaptureFixture[str]) -> None:
    printed = Printed(5, echo=False)

    def function() -> None:
        thread = threading.Thread(target=print, args=("another thread",))
        thread.start()
        thread.join()
        print("the function")

    call_guarded(function, (), should_cancel=never, printed=printed)
    assert printed.kept == "the function\n"
    assert capfd.readouterr().out == "another thread\n"


def test_proxies_are_installed_and_removed_by_one_thread_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last call that ends removes them; a call that begins meanwhile installs them again."""
    before, gate, proxy = sys.stdout, Gate(holds=1), output._StreamProxy

    class Slow(proxy):  # type: ignore[misc, valid-type]
        def __init__(self, stream: Any) -> None:
            gate()
            super().__init__(stream)

    monkeypatch.setattr(output, "_StreamProxy", Slow)

    def call() -> Any:
        with capture_output(contextvars.copy_context(), Printed(1, echo=False)):
            return sys.stdout

    first = threading.Thread(target=call)
    first.start()
    gate.wait()
    attempts = [Attempt(function, output, "_lock") for function in (call, output._remove_proxies)]
    assert [attempt.waits for attempt in attempts] == [True, True]
    gate.open()
    join(first)
    attempts[1].result()
    assert isinstance(attempts[0].result(), Slow)
    output._install_proxies()  # for the removal that belonged to no call
    assert output._captures == 0
    sys.stdout, sys.stderr = (getattr(stream, "stream", stream) for stream in (sys.stdout, sys.stderr))
    assert sys.stdout is before


def test_proxies_cannot_be_installed_while_they_are_removed() -> None:
    before, gate = sys.stdout, Gate(holds=1)

    class SlowName:
        """Stands for sys, whose attributes are read slowly."""

        def __getattr__(self, name: str) -> Any:
            gate()
            return getattr(sys, name)

        def __setattr__(self, name: str, value: Any) -> None:
            setattr(sys, name, value)

    output._install_proxies()
    real, output.sys = output.sys, SlowName()  # type: ignore[assignment]
    first = threading.Thread(target=output._remove_proxies)
    first.start()
    gate.wait()
    attempt = Attempt(output._install_proxies, output, "_lock")
    assert attempt.waits
    gate.open()
    join(first)
    attempt.result()
    assert isinstance(sys.stdout, output._StreamProxy)
    output._remove_proxies()
    output.sys = real
    assert sys.stdout is before
