"""The line of a failure: in the loss's own source, however the error was wrapped."""

from __future__ import annotations

import inspect
from typing import Any

from mint_lab.errors import DataError, LossError
from mint_lab.losses.decorator import spec_of
from mint_lab.losses.preference import pairwise_preference_loss
from mint_lab.runs.failure import describe


def caught(fn: Any) -> BaseException:
    try:
        fn()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def outer(data: Any, logprobs_list: Any) -> Any:
    total = 1
    return inner(total - 1)


def inner(x: int) -> float:
    return 1 / x


def source() -> str:
    return inspect.getsource(outer)


def test_error_in_a_called_function_names_the_line_of_the_call() -> None:
    spec = spec_of(outer, source=source())
    failure = describe(caught(lambda: outer(None, None)), spec)
    assert failure.line == 3
    assert "-->   3     return inner(total - 1)" in failure.traceback
    assert failure.message == "outer v1, line 3: ZeroDivisionError: division by zero"


def test_wrapped_error_keeps_its_index_and_message() -> None:
    def wrapped() -> None:
        try:
            outer(None, None)
        except ZeroDivisionError as error:
            raise LossError("the loss raised", index=4) from error

    failure = describe(caught(wrapped), spec_of(outer, source=source()))
    assert (failure.line, failure.index) == (3, 4)
    assert failure.message == "outer v1, line 3: the loss raised"
    assert failure.traceback.endswith("ZeroDivisionError: division by zero")
    assert str(failure) == failure.message


def test_error_outside_the_loss_has_the_whole_traceback() -> None:
    failure = describe(DataError("too long", index=2, field="weights"), spec_of(outer, source=source()))
    assert (failure.line, failure.index) == (None, 2)
    assert failure.message == "datum 2, field 'weights': too long"
    assert "DataError" in failure.traceback


def test_line_that_the_error_has_is_used() -> None:
    assert describe(LossError("bad", line=9)).line == 9


def test_circular_causes_end() -> None:
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert "ValueError: a" in describe(first).message


def test_without_source_there_is_no_line() -> None:
    failure = describe(caught(lambda: outer(None, None)), spec_of(outer))
    assert failure.line is None
    assert "ZeroDivisionError" in failure.traceback


def test_line_inside_a_partial_is_found() -> None:
    import functools

    spec = spec_of(pairwise_preference_loss, source=inspect.getsource(pairwise_preference_loss))
    bound = functools.partial(spec.fn, beta=0.5)
    failure = describe(caught(lambda: bound([], [])), spec)
    assert failure.line is not None
    assert "sequence_scores" in spec.source.splitlines()[failure.line - 1]


def test_excerpt_has_two_lines_before_and_after_the_failing_one() -> None:
    spec = spec_of(long, source=inspect.getsource(long))
    failure = describe(caught(lambda: long(None, None)), spec)
    assert failure.traceback.splitlines() == [
        "long v1, line 5:",
        "      3     b = a + 1",
        "      4     c = b + 1",
        "-->   5     d = c / 0",
        "      6     e = d + 1",
        "      7     return e + 1",
        "ZeroDivisionError: division by zero",
    ]


def long(data: Any, logprobs_list: Any) -> Any:
    a = 1
    b = a + 1
    c = b + 1
    d = c / 0
    e = d + 1
    return e + 1


def test_excerpt_ends_with_the_source() -> None:
    spec = spec_of(outer, source=source())
    lines = describe(caught(lambda: outer(None, None)), spec).traceback.splitlines()
    assert [line[4:7] for line in lines[1:-1]] == ["  1", "  2", "  3"]


def raises_again(data: Any, logprobs_list: Any) -> Any:
    try:
        return 1 / 0
    except ZeroDivisionError as error:
        raise ValueError("no pairs") from error


def test_line_is_that_of_the_innermost_cause() -> None:
    """Both lines are in the loss; the first of the two errors is the one to look for."""
    spec = spec_of(raises_again, source=inspect.getsource(raises_again))
    failure = describe(caught(lambda: raises_again(None, None)), spec)
    assert failure.line == 3
    assert failure.message == "raises_again v1, line 3: ValueError: no pairs"
    assert failure.traceback.endswith("ZeroDivisionError: division by zero")
