"""A guarded loss: cancelled if it takes too long, limited in what it prints, and failures that name the datum."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mint_lab.data.render import to_datum
from mint_lab.errors import ConfigError, DataError, LossError
from mint_lab.losses import LossSpec
from mint_lab.usercode.guarded_call import LossCancelled
from mint_lab.usercode.guarded_loss import MAX_PRINTED_LINES, GuardedLoss
from mint_lab.usercode.result import ResultError

DATA = [to_datum([1, 2, 3, 4 + i], 1) for i in range(4)]


def leaves() -> list[torch.Tensor]:
    return [torch.full((3,), -1.0 - i, requires_grad=True) for i in range(4)]


def guarded(fn: Any, **options: Any) -> GuardedLoss:
    return GuardedLoss(LossSpec("mine", "custom", fn), fn, **options)


def total(data: Any, lps: Any) -> Any:
    return sum(lp.sum() for lp in lps), {"n": len(lps)}


def endless(data: Any, lps: Any) -> Any:
    while True:
        pass


def test_result_is_the_functions_and_can_be_differentiated() -> None:
    """The sum of 3 * (-1 - i) over four datums is -30."""
    given = leaves()
    loss, metrics = guarded(total)(DATA, given)
    assert (float(loss.detach()), metrics) == (-30.0, {"n": 4.0})
    loss.backward()
    assert [lp.grad.tolist() for lp in given] == [[1.0] * 3] * 4  # type: ignore[union-attr]
    result = guarded(total).evaluate(DATA, leaves())
    assert [g.tolist() for g in result.gradient] == [[1.0] * 3] * 4


def test_an_exception_names_the_datum_and_its_values() -> None:
    def fails(data: Any, lps: Any) -> Any:
        for datum in data:
            if datum is data[2]:
                raise ValueError("a planted bug")

    with pytest.raises(LossError) as caught:
        guarded(fails)(DATA, leaves())
    assert str(caught.value) == "ValueError: a planted bug (at datum 2, log-probabilities -3 to -3 nats)"
    assert caught.value.index == 2
    assert isinstance(caught.value.__cause__, ValueError)


@pytest.mark.parametrize("argument", [0, 1])
def test_the_datum_is_named_although_the_function_empties_its_lists(argument: int) -> None:
    def fails(*lists: list[Any]) -> Any:
        items = tuple(lists[argument])
        for item in items:
            del lists[0][0], lists[1][0]
            if item is items[2]:
                raise ValueError("a planted bug")

    given, data = leaves(), list(DATA)
    with pytest.raises(LossError) as caught:
        guarded(fails)(data, given)
    assert str(caught.value) == "ValueError: a planted bug (at datum 2, log-probabilities -3 to -3 nats)"
    assert (len(data), len(given)) == (4, 4)


@pytest.mark.parametrize(
    "error", [DataError("7 datums"), ConfigError("no"), MemoryError(), torch.OutOfMemoryError("no")]
)
def test_errors_of_the_package_and_of_memory_propagate(error: Exception) -> None:
    def fails(data: Any, lps: Any) -> Any:
        raise error

    with pytest.raises(type(error)) as caught:
        guarded(fails)(DATA, leaves())
    assert caught.value is error


def test_an_unusable_result_is_refused() -> None:
    with pytest.raises(ResultError, match=r"the loss has no gradient; compute it from logprobs_list"):
        guarded(lambda d, lps: (torch.tensor(1.0), {}))(DATA, leaves())


def test_the_cause_of_a_loss_that_is_not_finite_is_named() -> None:
    def log_of_zero(data: Any, lps: Any) -> Any:
        return sum((lp + 3).sum().log() if lp is lps[2] else lp.sum() for lp in lps), {}

    def whole_batch_only(data: Any, lps: Any) -> Any:
        return sum(lp.sum() for lp in lps) / (0.0 if len(lps) == 4 else 1.0), {}

    with pytest.raises(ResultError) as caught:
        guarded(whole_batch_only)(DATA, leaves())
    assert caught.value.index is None
    assert caught.value.found == "is -inf, with log-probabilities -4 to -1 nats; no datum or pair alone gives that"
    with pytest.raises(ResultError, match="log makes the first inf; look for log") as caught:
        guarded(log_of_zero)(DATA, leaves())
    assert isinstance(caught.value.__cause__, FloatingPointError)


def test_a_call_is_cancelled_once_that_is_requested_and_it_has_run_too_long() -> None:
    polls = 0

    def requested() -> bool:
        nonlocal polls
        polls += 1
        return polls > 2

    with pytest.raises(LossCancelled) as caught:
        guarded(endless, cancel_requested=requested, cancel_after=0.0)(DATA, leaves())
    assert polls == 3
    text = str(caught.value)
    assert text.startswith(f"the loss had not returned after {caught.value.seconds:.1f} s; it was cancelled. ")
    assert text.endswith("No weight was changed. Look for a loop that does not end")


def test_an_evaluation_that_is_cancelled_says_nothing_of_weights() -> None:
    """It follows the update, so a weight was changed."""
    with torch.no_grad(), pytest.raises(LossCancelled) as caught:
        guarded(endless, cancel_requested=lambda: True, cancel_after=0.0)(DATA, [lp.detach() for lp in leaves()])
    assert "weight" not in str(caught.value)


def test_a_slow_loss_may_take_twice_its_longest_call() -> None:
    """The longest call took 10 s: 20 s are allowed. Before it, ``cancel_after``."""
    requested = [True]
    loss = guarded(total, cancel_requested=lambda: requested[0], cancel_after=2.0)
    assert [loss._should_cancel(seconds) for seconds in (1.9, 2.1)] == [False, True]
    loss(DATA, leaves())
    assert loss._longest_seconds > 0
    loss._longest_seconds = 10.0
    assert [loss._should_cancel(seconds) for seconds in (19.9, 20.1)] == [False, True]
    requested[0] = False
    assert not loss._should_cancel(1e9)


def test_limit_follows_the_longest_call_and_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    """Calls of 10 s and 1 s: the limit is 20 s, and only on request."""
    now, requested = [0.0], [True]
    monkeypatch.setattr("mint_lab.usercode.guarded_loss.time", SimpleNamespace(perf_counter=lambda: now[0]))
    seconds = iter([10.0, 1.0])

    def slow(data: Any, lps: Any) -> Any:
        now[0] += next(seconds)
        return total(data, lps)

    fn = guarded(slow, cancel_requested=lambda: requested[0], cancel_after=2.0)
    assert [fn._should_cancel(after) for after in (2.0, 2.1)] == [False, True]
    for _ in range(2):
        fn(DATA, leaves())
    assert [fn._should_cancel(after) for after in (2.1, 20.0, 20.1)] == [False, False, True]
    requested[0] = False
    assert not fn._should_cancel(1e9)


def test_output_is_limited_and_noted_once(capfd: pytest.CaptureFixture[str]) -> None:
    def prints(data: Any, lps: Any) -> Any:
        for i in range(1000):
            print("value", i)
        return total(data, lps)

    loss = guarded(prints)
    assert loss.take_notes() == []
    loss(DATA, leaves())
    assert capfd.readouterr().out.splitlines() == [f"value {i}" for i in range(MAX_PRINTED_LINES)]
    assert loss.take_notes() == ["mine v1 printed 1,000 lines in one call, of which 20 are shown"]
    assert loss.take_notes() == []
