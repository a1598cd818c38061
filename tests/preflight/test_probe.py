"""The loss under preflight: called on copies, with a time limit, with the same random numbers if requested."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mint_lab.errors import DataError
from mint_lab.preflight.probe import CheckFailed, LossProbe, OutOfTime, leaves_of, random_state, set_random_state
from mint_lab.types import Datum

from .four_pairs import four_pairs, total, weights


def probe_of(fn: Any, limit: float = 60.0, data: list[Datum] | None = None) -> LossProbe:
    data = four_pairs() if data is None else data
    return LossProbe(fn, data, [torch.full((d.model_input.length,), -1.0) for d in data], limit)


def weighted(data: Any, lps: Any) -> Any:
    return sum((weights(d) * lp).sum() for d, lp in zip(data, lps, strict=True)), {}


def test_value_and_gradient_by_hand() -> None:
    """Weights are 0 on two positions and 1 on the rest; the loss is minus their number, its gradient the weights."""
    probe = probe_of(weighted)
    value, gradient = probe.gradient(probe.logprobs)
    assert value == probe.value(probe.logprobs) == -sum(d.model_input.length - 2 for d in probe.data)
    assert [g.tolist() for g in gradient] == [weights(d).tolist() for d in probe.data]
    _, gradient = probe_of(lambda d, lps: (lps[0].sum(), {})).gradient(probe.logprobs)
    assert [float(g.sum()) for g in gradient] == [6.0] + [0.0] * 7  # zeros where none arrives


def test_the_function_gets_copies() -> None:
    data = four_pairs()

    def edits(d: Any, lps: Any) -> Any:
        weights(d[0]).fill_(9)
        lps[0].data.fill_(9)
        d.clear()
        return total(lps), {}

    probe = probe_of(edits, data=data)
    _, leaves = probe.call(probe.logprobs)
    assert float(leaves[0].detach().min()) == 9
    assert float(probe.logprobs[0].max()) == -1
    assert float(weights(data[0]).max()) == 1
    assert len(probe.data) == 8


def test_double_falls_back_if_the_function_mixes_types() -> None:
    def dots(d: Any, lps: Any) -> Any:
        return torch.stack([torch.dot(weights(x), lp) for x, lp in zip(d, lps, strict=True)]).sum(), {}

    assert {lp.dtype for lp in probe_of(weighted).double()} == {torch.float64}
    assert {lp.dtype for lp in probe_of(dots).double()} == {torch.float32}


def test_time_is_limited_for_a_call_and_for_all() -> None:
    def endless(d: Any, lps: Any) -> Any:
        while True:
            pass

    with pytest.raises(CheckFailed) as caught:
        probe_of(endless, limit=0.2).value([])
    line = caught.value.line
    assert (line.name, line.verdict) == ("time", "fail")
    assert line.message.startswith("did not return within 0.2 s (it was at line ")
    probe = probe_of(weighted, limit=0.0)
    with pytest.raises(OutOfTime):
        probe.value(probe.logprobs)


def test_a_fixed_random_state_gives_the_same_numbers() -> None:
    def draws(d: Any, lps: Any) -> Any:
        return total(lps) + torch.rand(()) + np.random.rand(), {}

    probe, before = probe_of(draws), random_state()
    assert probe.value(probe.logprobs) != probe.value(probe.logprobs)
    probe.fixed_random_state = before
    assert probe.value(probe.logprobs) == probe.value(probe.logprobs)
    set_random_state(before)


def test_first_output_and_times_are_kept() -> None:
    def prints(d: Any, lps: Any) -> Any:
        print("call")
        return total(lps), {}

    probe = probe_of(prints)
    assert probe.printed is None
    for _ in range(2):
        probe.value(probe.logprobs)
    assert probe.printed is not None
    assert probe.printed.kept == "call\n"
    assert len(probe.seconds) == 2


@pytest.mark.parametrize(
    ("error", "name", "message"),
    [
        (ValueError("a planted bug"), "returns", "again: ValueError: a planted bug"),
        (ValueError(), "returns", "again: ValueError"),
        (KeyError("score"), "fields", "again: KeyError: 'score'"),
        (KeyError("weights"), "returns", "again: KeyError: 'weights'"),
        (DataError("is short", index=3), "returns", "again: DataError: datum 3: is short"),
    ],
)
def test_an_error_is_described(error: Exception, name: str, message: str) -> None:
    line = probe_of(weighted).raised(error, "again: ").line
    assert (line.name, line.message, line.verdict) == (name, message, "fail")


def test_leaves_are_copies_that_require_grad() -> None:
    value = torch.ones(2)
    (leaf,) = leaves_of([value])
    assert leaf.requires_grad
    assert leaf.is_leaf
    leaf.data.zero_()
    assert value.tolist() == [1, 1]
