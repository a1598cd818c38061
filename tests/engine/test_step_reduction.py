"""Custom losses on a batch that is split into micro-batches: by their reduction, in two phases, and what is counted.

The rest of ``step.py`` is in ``test_step.py``.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mint_lab.engine.batch import read_batch
from mint_lab.engine.models import Adapter
from mint_lab.engine.step import Custom, PassResult, run_pass
from mint_lab.errors import DataError, LossError
from mint_lab.losses import pairwise_preference_loss
from mint_lab.types import Datum
from mint_lab.usercode.guarded_call import LossCancelled

from .batches import sampled
from .test_step import assert_same_gradients, named_gradients

# Four pairs. Each stores 5 tokens of prompt, 4 and 6 of completion: 15, so 60 in all, and a budget of 32 holds two.
PAIRS = [d for seed in range(4) for d in sampled(seed, (4, 6), prefix=5)]
STORED = 60


def pass_of(
    adapter: Adapter, data: list[Datum], objective: Custom, max_tokens: int | None, **options: Any
) -> PassResult:
    adapter.gradients = None
    batch = read_batch(data, None, vocab_size=adapter.base.vocab_size, context=adapter.base.context)
    return run_pass(adapter, batch, objective, max_tokens=max_tokens, **options)


def summed(data: list[Datum], logprobs_list: list[torch.Tensor]) -> Any:
    value = sum((lp.exp() * torch.arange(1, len(lp) + 1)).sum() for lp in logprobs_list)
    return value, {"datums": float(len(data))}


def squared(data: list[Datum], logprobs_list: list[torch.Tensor]) -> Any:
    return torch.cat(logprobs_list).sum() ** 2, {}


def first_half(data: list[Datum], logprobs_list: list[torch.Tensor]) -> Any:
    """The gradient is 0, but present, in the second half of the datums."""
    half = len(data) // 2
    return sum(lp.sum() * (i < half) for i, lp in enumerate(logprobs_list)), {}


@pytest.mark.parametrize(
    ("fn", "reduction", "passes"),
    [
        (summed, "sum", 1),
        (summed, "mean", 3),
        (summed, "coupled", 2),
        (pairwise_preference_loss, "mean", 1),
        (pairwise_preference_loss, "sum", 3),
        (squared, "sum", 3),
        (squared, "mean", 3),
    ],
)
def test_split_batch_gives_whole_batch_result(fn: Any, reduction: Any, passes: int, adapter: Adapter) -> None:
    """A wrong reduction is found out after one pass over the batch; the two phases come on top."""
    whole = pass_of(adapter, PAIRS, Custom(fn), None)
    expected = named_gradients(adapter)
    assert (whole.passes, whole.micro_batches, whole.stored_tokens, whole.max_tokens) == (1, 1, STORED, None)
    split = pass_of(adapter, PAIRS, Custom(fn, reduction), 32)
    assert (split.passes, split.micro_batches, split.stored_tokens) == (passes, 2, passes * STORED)
    assert split.max_tokens == 32
    assert split.loss == pytest.approx(whole.loss, rel=1e-5)
    assert split.metrics == pytest.approx(whole.metrics, rel=1e-5), "of the whole batch, not of the last micro-batch"
    assert_same_gradients(named_gradients(adapter), expected)
    for a, b in zip(split.gradient, whole.gradient, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_phase_two_skips_zero_gradients(adapter: Adapter) -> None:
    """Both micro-batches in phase 1, one in phase 2: 1.5 passes, rounded up, over 60 + 30 tokens."""
    split = pass_of(adapter, PAIRS, Custom(first_half), 32)
    assert (split.passes, split.stored_tokens) == (2, STORED + STORED // 2)


@pytest.mark.parametrize("reduction", ["sum", "coupled"])
def test_forward_only_takes_one_pass(reduction: Any, adapter: Adapter) -> None:
    found = pass_of(adapter, PAIRS, Custom(summed, reduction), 32, backward=False)
    assert (found.passes, found.stored_tokens, found.micro_batches) == (1, STORED, 2)
    assert adapter.gradients is None
    assert [len(g) for g in found.gradient] == [d.model_input.length for d in PAIRS], (
        "dL/dlogprobs is there all the same"
    )


def test_rejected_micro_batch_falls_back_to_whole_batch(adapter: Adapter) -> None:
    """Micro-batches of three datums have half a pair, which the loss rejects. One of two micro-batches has run by then:
    1/2 + 2 passes, rounded up, over 9 + 18 + 18 tokens.
    """
    data = sampled(3, (3, 3, 3, 3, 3, 3))
    calls: list[int] = []

    def pairs(data: list[Datum], logprobs_list: list[torch.Tensor]) -> Any:
        calls.append(len(data))
        return pairwise_preference_loss(data, logprobs_list)

    whole = pass_of(adapter, data, Custom(pairs), None)
    expected = named_gradients(adapter)
    split = pass_of(adapter, data, Custom(pairs, "mean"), 10)
    assert calls == [6, 3, 6]
    assert (split.passes, split.stored_tokens) == (3, 45)
    assert split.loss == pytest.approx(whole.loss, rel=1e-5)
    assert_same_gradients(named_gradients(adapter), expected)


def test_cancelled_micro_batch_is_not_called_again(adapter: Adapter) -> None:
    calls: list[int] = []

    def cancelled(data: list[Datum], logprobs_list: list[torch.Tensor]) -> Any:
        calls.append(len(data))
        raise LossCancelled("cancelled")

    with pytest.raises(LossCancelled):
        pass_of(adapter, PAIRS, Custom(cancelled, "sum"), 32)
    assert calls == [4]
    assert adapter.gradients is None


@pytest.mark.parametrize("error", [LossError("no"), DataError("no"), KeyError("no")])
def test_failure_on_whole_batch_changes_nothing(error: Exception, adapter: Adapter) -> None:
    def fails(data: list[Datum], logprobs_list: list[torch.Tensor]) -> Any:
        if len(data) == len(PAIRS) or isinstance(error, KeyError):
            raise error
        return summed(data, logprobs_list)

    adapter.gradients = None
    before = adapter.copy()
    with pytest.raises(type(error)):
        pass_of(adapter, PAIRS, Custom(fails, "sum"), 32)
    assert adapter.gradients is None
    assert all(torch.equal(before[name], p) for name, p in adapter.parameters.items())


def test_batch_within_budget_is_passed_whole(adapter: Adapter) -> None:
    calls: list[int] = []

    def counted(data: list[Datum], logprobs_list: list[torch.Tensor]) -> Any:
        calls.append(len(data))
        return summed(data, logprobs_list)

    assert pass_of(adapter, PAIRS, Custom(counted, "sum"), 10_000).micro_batches == 1
    assert calls == [len(PAIRS)]
