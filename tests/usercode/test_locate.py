"""The failing datum: found by the loop around the line, never guessed."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mint_lab.data.render import to_datum
from mint_lab.usercode.locate import failing_datum, logprob_range, own_line

DATA = [to_datum([1, 2, 3, 4 + i], 1) for i in range(4)]
LOGPROBS = [torch.full((3,), -1.0 - i) for i in range(4)]


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
