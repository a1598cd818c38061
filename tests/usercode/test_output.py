"""What a captured call prints: counted, limited, and separate from other output."""

from __future__ import annotations

import contextvars
import io
import sys
import threading

import pytest

from mint_lab.usercode.guarded_call import call_guarded
from mint_lab.usercode.output import CHARACTERS_PER_LINE, Printed, capture_output


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
