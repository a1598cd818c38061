"""Losses that are sums or means of their parts: a batch above the budget in one pass, and what happens where that is
said and not so. The rest of ``step.py`` is in ``test_step.py``.
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

from .batches import sampled
from .test_step import assert_same_gradients, named_gradients


def pass_of(adapter: Adapter, data: list[Datum], objective: Custom, max_tokens: int | None) -> PassResult:
    adapter.gradients = None
    batch = read_batch(data, None, vocab_size=adapter.base.vocab_size, context=adapter.base.context)
    return run_pass(adapter, batch, objective, max_tokens=max_tokens)


def summed(data: list[Datum], logprobs_list: list[torch.Tensor]) -> Any:
    value = sum((lp.exp() * torch.arange(1, len(lp) + 1)).sum() for lp in logprobs_list)
    return value, {"datums": float(len(data))}


def squared(data: list[Datum], logprobs_list: list[torch.Tensor]) -> Any:
    return torch.cat(logprobs_list).sum() ** 2, {}


PAIRS = [d for seed in range(4) for d in sampled(seed, (4, 6), prefix=5)]


@pytest.mark.parametrize(
    ("fn", "said", "passes"),
    [
        (summed, "sum", 1),
        (summed, "mean", 2),
        (summed, "coupled", 2),
        (pairwise_preference_loss, "mean", 1),
        (pairwise_preference_loss, "sum", 2),
        (squared, "sum", 2),
        (squared, "mean", 2),
    ],
)
def test_value_and_gradient_are_those_of_the_whole_batch(fn: Any, said: str, passes: int, adapter: Adapter) -> None:
    whole = pass_of(adapter, PAIRS, Custom(fn), None)
    expected = named_gradients(adapter)
    assert (whole.passes, whole.micro_batches) == (1, 1)
    cut = pass_of(adapter, PAIRS, Custom(fn, said), 32)
    assert (cut.passes, cut.micro_batches > 1) == (passes, True)
    assert cut.loss == pytest.approx(whole.loss, rel=1e-5)
    assert cut.metrics == pytest.approx(whole.metrics, rel=1e-5), "of the whole batch, not of the last part"
    assert_same_gradients(named_gradients(adapter), expected)
    for a, b in zip(cut.gradient, whole.gradient, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_part_that_is_no_batch_to_the_loss(adapter: Adapter) -> None:
    """Parts of three datums hold half a pair: the loss refuses them, and gets the whole batch after all."""
    data = sampled(3, (3, 3, 3, 3, 3, 3))
    calls: list[int] = []

    def pairs(data: list[Datum], logprobs_list: list[torch.Tensor]) -> Any:
        calls.append(len(data))
        return pairwise_preference_loss(data, logprobs_list)

    whole = pass_of(adapter, data, Custom(pairs), None)
    expected = named_gradients(adapter)
    cut = pass_of(adapter, data, Custom(pairs, "mean"), 10)
    assert calls == [6, 3, 6]
    assert (cut.passes, cut.loss) == (2, pytest.approx(whole.loss, rel=1e-5))
    assert_same_gradients(named_gradients(adapter), expected)


@pytest.mark.parametrize("error", [LossError("no"), DataError("no"), KeyError("no")])
def test_a_loss_that_fails_on_the_whole_leaves_nothing(error: Exception, adapter: Adapter) -> None:
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


def test_a_batch_that_fits_goes_to_the_function_whole(adapter: Adapter) -> None:
    calls: list[int] = []

    def counted(data: list[Datum], logprobs_list: list[torch.Tensor]) -> Any:
        calls.append(len(data))
        return summed(data, logprobs_list)

    assert pass_of(adapter, PAIRS, Custom(counted, "sum"), 10_000).micro_batches == 1
    assert calls == [len(PAIRS)]
