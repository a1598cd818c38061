"""Custom losses that a pass refuses; the rest of ``step.py`` is in ``test_step.py``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from mint_lab.engine.models import Adapter
from mint_lab.errors import DataError, LossError
from mint_lab.losses import pairwise_preference_loss

from .batches import sampled
from .test_step import go


def bad(kind: str) -> Callable[..., Any]:
    def fn(data: Any, logprobs_list: list[torch.Tensor]) -> Any:
        total = torch.cat(logprobs_list).sum()
        return {
            "not a tuple": lambda: total,
            "three": lambda: (total, {}, 1),
            "float": lambda: (float(total.detach()), {}),
            "vector": lambda: (torch.cat(logprobs_list), {}),
            "nan": lambda: (total * float("nan"), {}),
            "detached": lambda: (total.detach(), {}),
            "one datum left out": lambda: (logprobs_list[0].sum(), {}),
            "metrics a list": lambda: (total, [1.0]),
            "metric a word": lambda: (total, {"accuracy": "high"}),
            "nan gradient": lambda: (torch.sqrt(torch.cat(logprobs_list) * 0).sum(), {}),
            "in place": lambda: (logprobs_list[0].mul_(2).sum(), {}),
            "raises": lambda: 1 / 0,
        }[kind]()

    return fn


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("not a tuple", LossError, "returned a Tensor, expected a tuple"),
        ("three", LossError, "a tuple of 3"),
        ("float", LossError, "the loss is a float"),
        ("vector", LossError, r"shape \(17,\), expected a scalar"),
        ("nan", LossError, "the loss is nan"),
        ("detached", LossError, "has no gradient"),
        ("one datum left out", LossError, "no gradient reaches datum 1"),
        ("metrics a list", LossError, "metrics are a list"),
        ("metric a word", LossError, "metric 'accuracy' is a str"),
        ("nan gradient", LossError, "the gradient is .* at datum 0, position 0"),
        ("in place", RuntimeError, "in-place"),
        ("raises", ZeroDivisionError, "division by zero"),
    ],
)
def test_bad_custom_losses_change_nothing(kind: str, error: type[Exception], words: str, adapter: Adapter) -> None:
    data = sampled(1)
    go(adapter, data)
    before = [g.clone() for g in adapter.gradients or []]
    weights = adapter.copy()
    with pytest.raises(error, match=words):
        go(adapter, data, bad(kind))
    assert all(torch.equal(a, b) for a, b in zip(adapter.gradients or [], before, strict=True))
    assert all(torch.equal(p, weights[n]) for n, p in adapter.parameters.items())


def test_an_odd_batch_of_pairs_raises(adapter: Adapter) -> None:
    with pytest.raises(DataError, match="got 3 datums"):
        go(adapter, sampled(1), pairwise_preference_loss)


# --- the optimizer ---------------------------------------------------------------------------------------------------
