"""Preference losses: by hand, against MinT's example as documented, ties, masks, and pairs that are none."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.errors import ConfigError, DataError
from mint_lab.losses import LOSSES, pairwise_preference_loss
from mint_lab.losses.preference import cpo_loss, hinge_loss, orpo_loss, sequence_scores, simpo_loss
from mint_lab.types import Datum, ModelInput, TensorData

ALL = [pairwise_preference_loss, hinge_loss, simpo_loss, cpo_loss, orpo_loss]


def datum(weights: list[float]) -> Datum:
    return Datum(
        model_input=ModelInput.from_ints([1] * len(weights)),
        loss_fn_inputs={"weights": TensorData.from_numpy(np.array(weights, dtype=np.float32))},
    )


def leaf(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, requires_grad=True)


def one_pair() -> tuple[list[Datum], list[torch.Tensor]]:
    """Scores -1 (of -9 masked, -1) and -3 (of -2 * 0.5 and -2): margin 2 nats; lengths 1 and 1.5."""
    return [datum([0, 1]), datum([0.5, 1])], [leaf(-9, -1), leaf(-2, -2)]


def documented(data: list[Datum], logprobs_list: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
    """The example of MinT's documentation, as printed there."""
    if len(data) % 2 != 0:
        raise ValueError("Expected (chosen, rejected) pairs.")
    chosen_scores, rejected_scores = [], []
    for chosen_datum, rejected_datum, chosen_logprobs, rejected_logprobs in zip(
        data[::2], data[1::2], logprobs_list[::2], logprobs_list[1::2], strict=True
    ):
        chosen_scores.append(
            torch.dot(chosen_logprobs.flatten().float(), chosen_datum.loss_fn_inputs["weights"].to_torch())
        )
        rejected_scores.append(
            torch.dot(rejected_logprobs.flatten().float(), rejected_datum.loss_fn_inputs["weights"].to_torch())
        )
    margins = torch.stack(chosen_scores) - torch.stack(rejected_scores)
    loss = -F.logsigmoid(margins).mean()
    return loss, {
        "loss": float(loss.detach()),
        "pair_accuracy": float((margins > 0).float().mean()),
        "mean_margin": float(margins.mean().detach()),
    }


sides = st.lists(st.tuples(st.floats(-9, 0, width=32), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=6)


@given(st.lists(st.tuples(sides, sides), min_size=1, max_size=5))
def test_it_is_mints_documented_example(pairs: list[Any]) -> None:
    rows = [side for pair in pairs for side in pair]
    data = [datum([w for _, w in row]) for row in rows]
    ours, theirs = ([leaf(*(lp for lp, _ in row)) for row in rows] for _ in range(2))
    loss, metrics = pairwise_preference_loss(data, ours)
    expected, expected_metrics = documented(data, theirs)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)
    chosen, rejected, _ = sequence_scores(data, ours)
    if not bool(((chosen - rejected).abs() < 1e-4).any()):  # two orders of summation may disagree about a tie
        assert metrics == pytest.approx(expected_metrics, rel=1e-4, abs=1e-4)
    assert metrics["mean_margin"] == pytest.approx(expected_metrics["mean_margin"], rel=1e-4, abs=1e-4)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)


def test_scores_by_hand() -> None:
    chosen, rejected, lengths = sequence_scores(*one_pair())
    assert (chosen.tolist(), rejected.tolist(), lengths.tolist()) == ([-1.0], [-3.0], [[1.0, 1.5]])


@pytest.mark.loss_reference("pairwise_preference")
@pytest.mark.parametrize("beta", [1.0, 0.5])
def test_bradley_terry_by_hand(beta: float) -> None:
    """Loss ln(1 + e^-2b); d/ds = -b sigma(-2b) on the chosen side, times each token's weight."""
    data, lists = one_pair()
    loss, metrics = pairwise_preference_loss(data, lists, beta=beta)
    loss.backward()
    slope = beta / (1 + math.exp(2 * beta))
    assert loss.item() == pytest.approx(math.log1p(math.exp(-2 * beta)), rel=1e-6)
    assert metrics == pytest.approx({"loss": loss.item(), "pair_accuracy": 1.0, "mean_margin": 2 * beta})
    assert lists[0].grad is not None
    assert lists[1].grad is not None
    assert lists[0].grad.tolist() == pytest.approx([0, -slope])
    assert lists[1].grad.tolist() == pytest.approx([0.5 * slope, slope])


@pytest.mark.loss_reference("hinge")
def test_hinge_by_hand() -> None:
    """Margin 2: at beta 1 it is satisfied (0, gradient 0); at beta 0.25 the loss is 1 - 0.5 and the slope beta."""
    data, lists = one_pair()
    loss, _ = hinge_loss(data, lists)
    loss.backward()
    assert loss.item() == 0
    assert [lp.grad.tolist() for lp in lists if lp.grad is not None] == [[0, 0], [0, 0]]
    data, lists = one_pair()
    loss, metrics = hinge_loss(data, lists, beta=0.25)
    loss.backward()
    assert (loss.item(), metrics["mean_margin"]) == (0.5, 0.5)
    assert [lp.grad.tolist() for lp in lists if lp.grad is not None] == [[0, -0.25], [0.125, 0.25]]


@pytest.mark.loss_reference("simpo")
def test_simpo_by_hand() -> None:
    """Means -1 and -3/1.5 = -2: margin 2 (-1 + 2) = 2, loss -ln sigma(2 - 1) = ln(1 + e^-1)."""
    data, lists = one_pair()
    loss, metrics = simpo_loss(data, lists)
    loss.backward()
    assert loss.item() == pytest.approx(math.log1p(math.exp(-1)), rel=1e-6)
    assert metrics == pytest.approx({"loss": loss.item(), "pair_accuracy": 1.0, "mean_margin": 2.0})
    slope = 2 / (1 + math.e)
    assert lists[0].grad is not None
    assert lists[1].grad is not None
    assert lists[0].grad.tolist() == pytest.approx([0, -slope])
    assert lists[1].grad.tolist() == pytest.approx([0.5 * slope / 1.5, slope / 1.5])


def gradients(lists: list[torch.Tensor]) -> list[list[float]]:
    return [lp.grad.tolist() for lp in lists if lp.grad is not None]


@pytest.mark.loss_reference("cpo")
def test_cpo_by_hand() -> None:
    """Bradley-Terry at beta 0.5 on a margin of 2, and 3 times the chosen side's nll of 1 over one token."""
    data, lists = one_pair()
    loss, metrics = cpo_loss(data, lists, beta=0.5, alpha=3.0)
    loss.backward()
    slope = 0.5 / (1 + math.e)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-1)) + 3, rel=1e-6)
    assert metrics == pytest.approx({"loss": loss.item(), "pair_accuracy": 1.0, "mean_margin": 1.0, "nll": 1.0})
    assert gradients(lists)[0] == pytest.approx([0, -slope - 3])
    assert gradients(lists)[1] == pytest.approx([0.5 * slope, slope])


def test_the_nll_of_cpo_is_a_mean_over_tokens_and_not_over_pairs() -> None:
    """Chosen sides of three tokens at -1 and one at -5: 8 / 4, where a mean of means would be 3."""
    data = [datum([1, 1, 1]), datum([1]), datum([1]), datum([1])]
    lists = [leaf(-1, -1, -1), leaf(-1), leaf(-5), leaf(-1)]
    assert cpo_loss(data, lists)[1]["nll"] == pytest.approx(2)
    assert orpo_loss(data, lists)[1]["nll"] == pytest.approx(2)


@pytest.mark.loss_reference("orpo")
def test_orpo_by_hand() -> None:
    """Means -1 and -2: log-odds -1 - ln(1 - 1/e) and -2 - ln(1 - 1/e^2), slopes 1 / (1 - p); nll 1."""
    data, lists = one_pair()
    loss, metrics = orpo_loss(data, lists, beta=0.3)
    loss.backward()
    margin = 1 - math.log(1 - math.exp(-1)) + math.log(1 - math.exp(-2))
    slope = 0.3 / (1 + math.exp(margin))
    assert loss.item() == pytest.approx(1 + 0.3 * math.log1p(math.exp(-margin)), rel=1e-6)
    assert metrics == pytest.approx({"loss": loss.item(), "pair_accuracy": 1.0, "mean_margin": margin, "nll": 1.0})
    down = slope / (1 - math.exp(-2)) / 1.5
    assert gradients(lists)[0] == pytest.approx([0, -1 - slope / (1 - math.exp(-1))])
    assert gradients(lists)[1] == pytest.approx([0.5 * down, down])


@pytest.mark.parametrize("values", [(0.0, -1.0), (-1.0, 0.0), (-1e-9, -1e4), (-1e4, -1e-9)])
def test_orpo_is_finite_where_a_side_is_certain(values: tuple[float, float]) -> None:
    """The odds of p = 1 are infinite."""
    lists = [leaf(values[0]), leaf(values[1])]
    loss, metrics = orpo_loss([datum([1]), datum([1])], lists)
    loss.backward()
    assert math.isfinite(loss.item())
    assert math.isfinite(metrics["mean_margin"])
    assert np.isfinite(gradients(lists)).all()


@pytest.mark.parametrize("loss_fn", ALL)
def test_gradient_check(loss_fn: Callable[..., Any]) -> None:
    noise = torch.Generator().manual_seed(0)
    weights = [[0, 1, 1], [0, 0.5, 1], [1, 1], [0, 1, 0.25]]
    lists = [-torch.rand(len(w), generator=noise, dtype=torch.float64) - 0.1 for w in weights]

    def loss(*leaves: torch.Tensor) -> torch.Tensor:
        return loss_fn([datum(w) for w in weights], list(leaves), beta=0.3)[0]

    assert torch.autograd.gradcheck(loss, [lp.requires_grad_() for lp in lists])


@pytest.mark.parametrize("loss_fn", ALL)
def test_the_loss_is_the_mean_over_pairs(loss_fn: Callable[..., Any]) -> None:
    data, lists = one_pair()
    once, _ = loss_fn(data, lists)
    many, _ = loss_fn(data * 3, lists * 3)
    assert many.item() == pytest.approx(once.item(), rel=1e-6)


@pytest.mark.parametrize("loss_fn", ALL)
def test_a_tie_is_not_a_win(loss_fn: Callable[..., Any]) -> None:
    data, lists = [datum([1]), datum([1])], [leaf(-2), leaf(-2)]
    assert loss_fn(data, lists)[1]["pair_accuracy"] == 0
    data, lists = data * 2, [*lists, leaf(-1), leaf(-2)]
    assert loss_fn(data, lists)[1]["pair_accuracy"] == 0.5


def test_a_tie_costs_ln_2() -> None:
    assert pairwise_preference_loss([datum([1]), datum([1])], [leaf(-2), leaf(-2)])[0].item() == pytest.approx(
        math.log(2)
    )


@pytest.mark.parametrize("loss_fn", ALL)
@pytest.mark.parametrize("odd", [math.inf, -math.inf, math.nan])
def test_a_weight_of_0_adds_exactly_0(loss_fn: Callable[..., Any], odd: float) -> None:
    data, clean = one_pair()
    _, dirty = one_pair()
    dirty[0] = leaf(odd, -1)
    losses = []
    for lists in (clean, dirty):
        loss, _ = loss_fn(data, lists, beta=0.3)
        loss.backward()
        losses.append(loss.item())
    assert losses[0] == losses[1]
    for a, b in zip(clean, dirty, strict=True):
        assert a.grad is not None
        assert b.grad is not None
        assert a.grad.tolist() == b.grad.tolist()


@pytest.mark.parametrize("margin", [-200.0, 200.0])
def test_extreme_margins_are_finite(margin: float) -> None:
    """-log sigma(-200) = 200 where exp would have overflowed."""
    lists = [leaf(margin), leaf(0.0)]
    loss, _ = pairwise_preference_loss([datum([1]), datum([1])], lists)
    loss.backward()
    assert loss.item() == pytest.approx(max(0.0, -margin))
    assert all(lp.grad is not None and bool(torch.isfinite(lp.grad).all()) for lp in lists)


@pytest.mark.parametrize("loss_fn", ALL)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_pairs_that_are_none(loss_fn: Callable[..., Any], count: int) -> None:
    with pytest.raises(DataError, match=f"got {count} datums, expected consecutive .chosen, rejected. pairs"):
        loss_fn([datum([1])] * count, [leaf(-1)] * count)


@pytest.mark.parametrize("loss_fn", ALL)
def test_weights_that_do_not_fit(loss_fn: Callable[..., Any]) -> None:
    bare = Datum(model_input=ModelInput.from_ints([1]), loss_fn_inputs={})
    with pytest.raises(DataError, match="missing; 0 on the prompt and 1 on the completion") as caught:
        loss_fn([datum([1]), bare], [leaf(-1), leaf(-1)])
    assert (caught.value.index, caught.value.field) == (1, "weights")
    with pytest.raises(DataError, match=r"shape \(2,\), expected \(1,\) as the log-probabilities") as caught:
        loss_fn([datum([1, 1]), datum([1])], [leaf(-1), leaf(-1)])
    assert (caught.value.index, caught.value.field) == (0, "weights")


@pytest.mark.parametrize("loss_fn", [simpo_loss, orpo_loss])
def test_a_mean_needs_something_to_be_taken_of(loss_fn: Callable[..., Any]) -> None:
    with pytest.raises(DataError, match="every weight is 0") as caught:
        loss_fn([datum([1]), datum([0])], [leaf(-1), leaf(-1)])
    assert caught.value.index == 1


def test_cpo_needs_a_chosen_token() -> None:
    with pytest.raises(DataError, match="every weight of the chosen completions is 0"):
        cpo_loss([datum([0]), datum([1])], [leaf(-1), leaf(-1)])


@pytest.mark.parametrize("name", ["pairwise_preference", "hinge", "simpo", "cpo", "orpo"])
def test_settings(name: str) -> None:
    spec = LOSSES[name]
    assert (spec.unit, spec.builtin, spec.inputs) == ("pair", False, ("weights",))
    data, lists = one_pair()
    assert spec.bind({"beta": 0.7})(data, lists)[0].item() == spec.fn(data, lists, beta=0.7)[0].item()
    with pytest.raises(ConfigError, match=f"{name}: unknown setting 'betta'.*did you mean 'beta'"):
        spec.bind({"betta": 1})
    with pytest.raises(ConfigError, match=f"{name}: beta is nan"):
        spec.bind({"beta": math.nan})
