"""The failing datum: found by the loop around the line, never guessed."""

from __future__ import annotations

import functools
import json
import linecache
import sys
from types import FrameType, SimpleNamespace
from typing import Any, cast

import pytest
import torch

from mint_lab.data.render import to_datum
from mint_lab.usercode.compile_cell import compile_cell
from mint_lab.usercode.locate import _index_of_arguments, code_of, failing_datum, logprob_range, own_line

DATA = [to_datum([1, 2, 3, 4 + i], 1) for i in range(4)]
LOGPROBS = [torch.full((3,), -1.0 - i) for i in range(4)]
# The variables of a failed list comprehension are lost from Python 3.12 on.
LOSES_VARIABLES = sys.version_info >= (3, 12)


def by_datum(data: Any, logprobs_list: Any) -> Any:
    for datum in data:
        if datum is data[2]:
            raise ValueError


def by_logprobs_in_a_comprehension(data: Any, logprobs_list: Any) -> Any:
    return [fails(lp) if lp is logprobs_list[2] else lp for lp in logprobs_list]


def by_number(data: Any, logprobs_list: Any) -> Any:
    for k in range(len(data)):
        total = 1 / (2 - k)
    return total


def in_a_helper(data: Any, logprobs_list: Any) -> Any:
    for _, lp in zip(data, logprobs_list, strict=True):
        if lp is logprobs_list[2]:
            fails(lp)


def fails(x: Any) -> Any:
    raise ValueError


def after_the_loop(data: Any, logprobs_list: Any) -> Any:
    for datum in data:
        last = datum
    return last.nothing


def a_number_of_something_else(data: Any, logprobs_list: Any) -> Any:
    for size in (1, 2, 0):
        total = 1 / size
    return total


@pytest.mark.parametrize(
    ("fn", "index"),
    [
        (by_datum, 2),
        (by_logprobs_in_a_comprehension, 2),
        (by_number, 2),
        (in_a_helper, 2),
        (after_the_loop, None),
        (a_number_of_something_else, None),
    ],
)
def test_the_failing_datum(fn: Any, index: int | None) -> None:
    with pytest.raises((ValueError, ZeroDivisionError, AttributeError)) as caught:
        fn(DATA, LOGPROBS)
    assert failing_datum(fn, caught.value, DATA, LOGPROBS) == index
    frame = own_line(fn, caught.value)
    assert frame is not None
    assert frame.filename == __file__


def test_logprob_range_describes_the_values() -> None:
    assert logprob_range(torch.tensor([-0.25, -3.5])) == "log-probabilities -3.5 to -0.25 nats"
    assert logprob_range(torch.zeros(0)) == "no log-probabilities"


def raised_by(fn: Any) -> BaseException:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - any exception of the function
        fn(DATA, LOGPROBS)
    return caught.value


@pytest.mark.parametrize(
    ("fn", "text"),
    [
        (by_datum, "raise ValueError"),
        (by_number, "total = 1 / (2 - k)"),
        (in_a_helper, "raise ValueError"),  # the helper's line, not the call of it
        (after_the_loop, "return last.nothing"),
    ],
)
def test_own_line_is_the_deepest_line_of_the_file(fn: Any, text: str) -> None:
    frame = own_line(fn, raised_by(fn))
    assert frame is not None
    assert frame.line == text
    assert linecache.getline(__file__, frame.lineno or 0).strip() == text


@pytest.mark.parametrize(
    ("body", "line"),
    [
        ("def mine(data, logprobs_list): return 1 / 0\n", 1),
        ("def mine(data, logprobs_list):\n    return 1 / 0\n", 2),
        ("def mine(data, logprobs_list):\n    x = 1\n\n    return x / 0", 4),  # the last line, without a line end
        ("def mine(data, logprobs_list):\n    return (\n        1\n        / 0\n        + 2\n    )\n", 3),
        ("def mine(data, logprobs_list):\n    return max(\n        1,\n        1 / 0,\n    )\n", 4),
        ("def root(x):\n    return 1 / x\n\ndef mine(data, logprobs_list):\n    return root(root(0))\n", 2),
        ("import json\n\ndef mine(data, logprobs_list):\n    return [\n        json.loads('{'),\n    ]\n", 5),
        ("def mine(data, logprobs_list):\n    def inner():\n        return [][3]\n\n    return inner()\n", 3),
    ],
)
def test_line_of_a_cell(body: str, line: int) -> None:
    fn = compile_cell(body, "mine", 1, {}).fn
    frame = own_line(fn, raised_by(fn))
    assert frame is not None
    assert frame.lineno == line


def test_error_outside_of_the_function_has_no_line() -> None:
    error = raised_by(lambda *_: json.loads("{"))
    assert own_line(in_a_helper, raised_by(lambda *_: fails(0))) is not None, "the same file"
    assert own_line(json.loads, error) is not None
    assert own_line(functools.partial(torch.add), error) is None, "torch.add is not in Python"
    assert own_line(compile_cell("def mine(data, logprobs_list): pass\n", "mine", 1, {}).fn, error) is None
    assert failing_datum(functools.partial(torch.add), error, DATA, LOGPROBS) is None


def test_code_inside_partials_and_decorators() -> None:
    @functools.wraps(by_datum)
    def wrapped(*args: Any) -> Any:
        return by_datum(*args)

    assert code_of(functools.partial(functools.partial(wrapped, 1), 2)) is by_datum.__code__
    assert code_of(torch.add) is None


def nested_loops(data: Any, logprobs_list: Any) -> Any:
    for first in data:
        for second in data:
            if first is data[3] and second is data[1]:
                raise ValueError(first)


def counted_outside(data: Any, logprobs_list: Any) -> Any:
    for k in range(len(data)):
        for size in (5, 6):
            if (k, size) == (3, 6):
                raise ValueError(size)


def enumerated(data: Any, logprobs_list: Any) -> Any:
    return [1 / (3 - k) for k, _ in enumerate("abcd")]


def past_the_end(data: Any, logprobs_list: Any) -> Any:
    for k in range(len(data) + 1):
        data[k].loss_fn_inputs.get("weights")


def before_the_start(data: Any, logprobs_list: Any) -> Any:
    for k in range(-1, 3):
        [][k]


def truths(data: Any, logprobs_list: Any) -> Any:
    for k in enumerate([True]):
        for flag in range(2):
            flag = bool(flag)  # noqa: PLW2901 - True is not the number of a datum
            if flag:
                raise ValueError(k)


def one_line_loop(data: Any, logprobs_list: Any) -> Any:
    for d in data[1:]: d.nothing  # fmt: skip  # noqa: B018, E701


def loop_of_the_caller(data: Any, logprobs_list: Any) -> Any:
    for d in data:
        divide(d)


def divide(datum: Any) -> Any:
    for size in (2, 1, 0):
        1 / size


def first_of_two_loops(data: Any, logprobs_list: Any) -> Any:
    for d in data:
        last = d
    for x in (1, 0):
        last = x / 0
    return last


@pytest.mark.parametrize(
    ("fn", "index"),
    [
        (nested_loops, 1),  # the innermost loop
        (counted_outside, 3),
        (enumerated, None if LOSES_VARIABLES else 3),
        (past_the_end, None),  # no datum has the number 4
        (before_the_start, None),
        (truths, None),
        (one_line_loop, 1),
        (loop_of_the_caller, 0),
        (first_of_two_loops, None),
    ],
)
def test_loop_around_the_failing_line(fn: Any, index: int | None) -> None:
    assert failing_datum(fn, raised_by(fn), DATA, LOGPROBS) == index


def of_the_name_of_another_loop(data: Any, logprobs_list: Any) -> Any:
    for lp in logprobs_list:
        last = lp
    return last, [1 / (lp is not logprobs_list[1]) for lp in logprobs_list]


def one_argument(data: Any, logprobs_list: Any) -> Any:
    return {k: fails_at(k - 2, lp) for k, lp in zip(range(4), logprobs_list, strict=True)}


def two_arguments(data: Any, logprobs_list: Any) -> Any:
    return [fails_at(0 if lp is logprobs_list[2] else 1, logprobs_list[0], lp) for lp in logprobs_list]


def in_a_generator(data: Any, logprobs_list: Any) -> Any:
    return sum(1 / (d is not data[2]) for d in data)


def fails_at(zero: int, *_: Any, chosen: Any = None) -> float:
    return 1 / zero


def of_another_datum_than_the_loop(data: Any, logprobs_list: Any) -> Any:
    for _datum in data:
        values = [1 / (lp is not logprobs_list[2]) for lp in logprobs_list]
    return values


def of_the_tokens_of_the_loops_datum(data: Any, logprobs_list: Any) -> Any:
    for lp in logprobs_list:
        values = [1 / (x > -3) for x in lp.tolist()]
    return values


@pytest.mark.parametrize(
    ("fn", "index"),
    [
        (of_another_datum_than_the_loop, None if LOSES_VARIABLES else 2),  # never 0, where the loop around it is
        (of_the_tokens_of_the_loops_datum, 2),
        (of_the_name_of_another_loop, None if LOSES_VARIABLES else 1),  # never 3, where the other loop ended
        (one_argument, None if LOSES_VARIABLES else 2),  # `*_` is not an argument with a name
        (two_arguments, None if LOSES_VARIABLES else 2),
        (in_a_generator, 2),  # a generator has a frame in every version
    ],
)
def test_datum_of_a_comprehension(fn: Any, index: int | None) -> None:
    assert failing_datum(fn, raised_by(fn), DATA, LOGPROBS) == index


def frame_of(name: str, *arguments: str, named_only: int = 0, **variables: Any) -> FrameType:
    code = SimpleNamespace(
        co_name=name,
        co_argcount=len(arguments) - named_only,
        co_kwonlyargcount=named_only,
        co_varnames=(*arguments, "local"),
    )
    return cast("FrameType", SimpleNamespace(f_code=code, f_locals=variables))


def test_argument_of_what_a_comprehension_called_names_the_datum() -> None:
    """Only one that is the only datum; a number does not count, nor a variable that is not an argument."""
    found = functools.partial(_index_of_arguments, scope="<listcomp>", data=DATA, logprobs_list=LOGPROBS)
    assert found(frame_of("score", "a", "b", a=2, b=DATA[1])) == 1
    assert found(frame_of("score", "a", a=LOGPROBS[3])) == 3
    assert found(frame_of("score", "a", "b", named_only=1, a=0, b=DATA[2])) == 2
    assert found(frame_of("score", "a", "b", a=LOGPROBS[0], b=DATA[0])) == 0  # both are of one datum
    assert found(frame_of("score", "a", "b", a=LOGPROBS[0], b=LOGPROBS[1])) is None
    assert found(frame_of("score", "a", a=2, local=DATA[1])) is None
    assert found(frame_of("<listcomp>", ".0", ".1", **{".0": DATA[1]})) is None
    assert found(None) is None


def test_equal_datums_are_told_apart_by_identity() -> None:
    twins = [to_datum([1, 2, 3], 1) for _ in range(3)]

    def second(data: Any, logprobs_list: Any) -> Any:
        for datum in data:
            if datum is twins[1]:
                raise ValueError("second")

    with pytest.raises(ValueError, match=r"^second$") as caught:
        second(twins, LOGPROBS)
    assert failing_datum(second, caught.value, twins, LOGPROBS[:3]) == 1


def test_range_of_one_value_has_four_digits() -> None:
    assert logprob_range(torch.tensor([-1.23456], requires_grad=True)) == "log-probabilities -1.235 to -1.235 nats"
