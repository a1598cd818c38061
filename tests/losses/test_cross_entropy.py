from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.errors import ConfigError
from mint_lab.losses import LOSSES
from mint_lab.losses.builtin import cross_entropy

numbers = st.floats(-20, 0, width=32)
values = st.lists(st.tuples(numbers, st.floats(0, 5, width=32)), min_size=1, max_size=9)


@pytest.mark.loss_reference("cross_entropy")
def test_by_hand() -> None:
    """-(1 * ln 1/2 + 0.5 * ln 1/4) = ln 2 + ln 2 = 2 ln 2; gradient -w."""
    logp = torch.tensor([math.log(0.5), math.log(0.25)], requires_grad=True)
    loss = cross_entropy(logp, weights=torch.tensor([1.0, 0.5]))
    assert loss.tolist() == pytest.approx([math.log(2), math.log(2)])
    loss.sum().backward()
    assert logp.grad is not None
    assert logp.grad.tolist() == [-1.0, -0.5]


@given(values)
def test_it_is_the_documented_formula(rows: list[tuple[float, float]]) -> None:
    target_logprobs, weights = torch.tensor(rows).T
    torch.testing.assert_close(
        cross_entropy(target_logprobs, weights=weights).sum(), (-target_logprobs * weights).sum()
    )


@pytest.mark.parametrize("odd", [math.inf, -math.inf, math.nan])
def test_a_weight_of_0_adds_exactly_0(odd: float) -> None:
    logp = torch.tensor([odd, -1.0], requires_grad=True)
    loss = cross_entropy(logp, weights=torch.tensor([0.0, 2.0]))
    assert loss.tolist() == [0.0, 2.0]
    loss.sum().backward()
    assert logp.grad is not None
    assert logp.grad.tolist() == [0.0, -2.0]


def test_a_weighted_token_that_is_impossible_is_not_hidden() -> None:
    assert cross_entropy(torch.tensor([-math.inf]), weights=torch.tensor([1.0])).tolist() == [math.inf]


def test_the_sum_grows_with_the_tokens() -> None:
    """A sum, never silently a mean."""
    logp = torch.full((10,), -1.0)
    assert float(cross_entropy(logp, weights=torch.ones(10)).sum()) == 10.0


def test_what_the_registry_says_of_it() -> None:
    spec = LOSSES["cross_entropy"]
    assert (spec.builtin, spec.reduction, spec.unit, spec.inputs, spec.optional) == (
        True,
        "sum",
        "datum",
        ("weights",),
        (),
    )
    with pytest.raises(ConfigError, match="it takes no settings"):
        spec.config({"beta": 1})
