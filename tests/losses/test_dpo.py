"""Losses with a reference model: by hand, masks, gradients, extremes, and references that are missing or wrong."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from mint_lab.errors import ConfigError, DataError
from mint_lab.losses import LOSSES
from mint_lab.losses.dpo import apo_zero_loss, dpo_loss, log_ratios, robust_dpo_loss
from mint_lab.losses.preference import sequence_scores
from mint_lab.losses.unpaired import kto_loss
from mint_lab.metrics.preference import pair_metrics
from mint_lab.types import Datum, ModelInput, TensorData

NAMES = ["dpo", "robust_dpo", "dpo_hinge", "ipo", "kto", "apo_zero", "apo_down", "nca_pair", "bco"]
Batch = tuple[list[Datum], list[torch.Tensor]]


def datum(weights: list[float], reference: list[float] | None) -> Datum:
    fields = {"weights": weights} if reference is None else {"weights": weights, "reference_logprobs": reference}
    return Datum(
        model_input=ModelInput.from_ints([1] * len(weights)),
        loss_fn_inputs={k: TensorData.from_numpy(np.array(v, dtype=np.float32)) for k, v in fields.items()},
    )


def leaf(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, requires_grad=True)


def one_pair() -> Batch:
    """Scores -1 and -3, references -2 and -2.5: log-ratios 1 and -0.5; weighted lengths 1 and 1.5."""
    return [datum([0, 1], [-7, -2]), datum([0.5, 1], [-1, -2])], [leaf(-9, -1), leaf(-2, -2)]


def gradients(lists: list[torch.Tensor]) -> list[list[float]]:
    return [lp.grad.tolist() for lp in lists if lp.grad is not None]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def slope(x: float) -> float:
    return sigmoid(x) * sigmoid(-x)


def test_log_ratios_by_hand() -> None:
    data, lists = one_pair()
    chosen, rejected, _ = sequence_scores(data, lists)
    assert [h.tolist() for h in log_ratios(data, chosen, rejected)] == [[1.0], [-0.5]]


# At beta b, with h+ = 1, h- = -0.5, so that d = 1.5 b, and per token 1 and -1/3: value, dL/dh+, dL/dh-.
BY_HAND: dict[str, Callable[[float], tuple[float, float, float]]] = {
    "dpo": lambda b: (math.log1p(math.exp(-1.5 * b)), -b * sigmoid(-1.5 * b), b * sigmoid(-1.5 * b)),
    # epsilon 0.1: (0.9 ln(1 + e^-d) - 0.1 ln(1 + e^d)) / 0.8
    "robust_dpo": lambda b: (
        (0.9 * math.log1p(math.exp(-1.5 * b)) - 0.1 * math.log1p(math.exp(1.5 * b))) / 0.8,
        -b * (0.9 * sigmoid(-1.5 * b) + 0.1 * sigmoid(1.5 * b)) / 0.8,
        b * (0.9 * sigmoid(-1.5 * b) + 0.1 * sigmoid(1.5 * b)) / 0.8,
    ),
    "dpo_hinge": lambda b: (1 - 1.5 * b, -b, b),
    # (4/3 - 1/2b)^2, of h+ / 1 and h- / 1.5
    "ipo": lambda b: ((4 / 3 - 0.5 / b) ** 2, 2 * (4 / 3 - 0.5 / b), -2 * (4 / 3 - 0.5 / b) / 1.5),
    # z = mean(1, -0.5) = 0.25, without gradient; the mean is over two completions
    "kto": lambda b: (
        (1 - sigmoid(0.75 * b) + 1 - sigmoid(0.75 * b)) / 2,
        -b * slope(0.75 * b) / 2,
        b * slope(0.75 * b) / 2,
    ),
    "apo_zero": lambda b: (1 - sigmoid(b) + sigmoid(-0.5 * b), -b * slope(b), b * slope(-0.5 * b)),
    "apo_down": lambda b: (
        sigmoid(b) + 1 - sigmoid(1.5 * b),
        b * slope(b) - b * slope(1.5 * b),
        b * slope(1.5 * b),
    ),
    "nca_pair": lambda b: (
        math.log1p(math.exp(-b)) + 0.5 * math.log1p(math.exp(b)) + 0.5 * math.log1p(math.exp(-0.5 * b)),
        -b * sigmoid(-b) + 0.5 * b * sigmoid(b),
        0.5 * b * sigmoid(-0.5 * b),
    ),
    # delta = mean(b, -0.5 b) = 0.25 b, without gradient; the mean is over two completions
    "bco": lambda b: (math.log1p(math.exp(-0.75 * b)), -b * sigmoid(-0.75 * b) / 2, b * sigmoid(-0.75 * b) / 2),
}


@pytest.mark.loss_reference("dpo", "robust_dpo", "dpo_hinge", "ipo", "apo_zero", "apo_down", "nca_pair")
@pytest.mark.loss_reference("kto", "bco", stops_gradient=True)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("beta", [0.1, 0.5])
def test_by_hand(name: str, beta: float) -> None:
    """A token's gradient is its sequence's, times its weight."""
    data, lists = one_pair()
    loss, metrics = LOSSES[name].fn(data, lists, beta=beta)
    loss.backward()
    value, chosen, rejected = BY_HAND[name](beta)
    assert loss.item() == metrics["loss"] == pytest.approx(value, rel=1e-5)
    found = gradients(lists)
    assert found[0] == pytest.approx([0, chosen], rel=1e-4, abs=1e-7)
    assert found[1] == pytest.approx([0.5 * rejected, rejected], rel=1e-4, abs=1e-7)


@pytest.mark.parametrize("name", NAMES)
def test_metrics_by_hand(name: str) -> None:
    """Of the scores -1 and -3 as every loss has them; rewards are beta times the log-ratios 1 and -0.5."""
    data, lists = one_pair()
    _, metrics = LOSSES[name].fn(data, lists, beta=0.2)
    chosen, rejected, _ = sequence_scores(data, lists)
    expected = pair_metrics(chosen, rejected) | {
        "rewards/chosen": 0.2,
        "rewards/rejected": -0.1,
        "rewards/margins": 0.3,
        "rewards/accuracies": 1.0,
    }
    own = {"loss", *{"kto": ["kl/reference"], "bco": ["rewards/shift"]}.get(name, [])}
    assert {k: v for k, v in metrics.items() if k not in own} == pytest.approx(expected)
    assert set(metrics) == set(expected) | own
    assert all(isinstance(value, float) for value in metrics.values())


def test_a_model_that_has_not_moved() -> None:
    """All log-ratios are 0: no reward, ties, and the losses at their starting values."""
    data = [datum([1], [-2]), datum([1], [-3])]
    start = {"dpo": math.log(2), "robust_dpo": math.log(2), "dpo_hinge": 1, "ipo": 25, "kto": 0.5, "apo_zero": 1}
    start |= {"apo_down": 1, "nca_pair": 2 * math.log(2), "bco": math.log(2)}
    for name in NAMES:
        loss, metrics = LOSSES[name].fn(data, [leaf(-2), leaf(-3)])
        assert loss.item() == pytest.approx(start[name], rel=1e-6)
        assert (metrics["rewards/margins"], metrics["rewards/accuracies"]) == (0, 0.5)
        assert (metrics["pair_accuracy"], metrics["mean_margin"]) == (1, 1)


@pytest.mark.parametrize("name", NAMES)
def test_rounding_is_no_preference(name: str) -> None:
    """Of scores of 1,000 nats float32 holds steps of 6e-5: a gap of one is a tie, one of 0.01 nats is not."""
    for score, tie, win in ((-1000.0, 6.2e-5, 1e-2), (-0.5, 5e-6, 2e-5)):
        for gap, accuracy in ((0.0, 0.5), (tie, 0.5), (-tie, 0.5), (win, 1.0), (-win, 0.0)):
            data = [datum([1], [score]), datum([1], [score])]
            _, metrics = LOSSES[name].fn(data, [leaf(score + gap), leaf(score)])
            assert metrics["rewards/accuracies"] == accuracy, (score, gap)


def test_label_smoothing() -> None:
    """Conservative DPO is flat where sigma(d) = 1 - epsilon; robust DPO at epsilon 0 is DPO; 0.5 leaves nothing."""
    data = [datum([1], [-2.0]), datum([1], [-2.0])]
    lists = [leaf(-2.0 + math.log(9)), leaf(-2.0)]
    loss, _ = dpo_loss(data, lists, beta=1.0, label_smoothing=0.1)
    loss.backward()
    assert np.array(gradients(lists)) == pytest.approx(0, abs=1e-6)
    assert loss.item() == pytest.approx(-0.9 * math.log(0.9) - 0.1 * math.log(0.1), rel=1e-5)
    batch = one_pair()
    assert robust_dpo_loss(*batch, label_smoothing=0.0)[0].item() == pytest.approx(dpo_loss(*batch)[0].item())
    for share in (0.5, -0.1, math.nan):
        with pytest.raises(ConfigError, match=r"expected a share from 0 to below 0\.5"):
            robust_dpo_loss(*batch, label_smoothing=share)
    with pytest.raises(ConfigError, match=r"robust_dpo: label_smoothing is 0\.5, expected a number from 0 to 0\.49"):
        LOSSES["robust_dpo"].config({"label_smoothing": 0.5})


def test_robust_dpo_is_unbiased() -> None:
    """A tenth of the labels flipped, at epsilon 0.1: in expectation DPO on the clean ones."""
    data, lists = one_pair()
    clean = robust_dpo_loss(data, lists)[0].item()
    flipped = robust_dpo_loss(data[::-1], lists[::-1])[0].item()
    assert 0.9 * clean + 0.1 * flipped == pytest.approx(dpo_loss(data, lists)[0].item(), rel=1e-5)


def test_kto_where_z_is_0_is_half_of_apo_zero() -> None:
    data, lists = one_pair()
    lists = [leaf(-9, -2.5), lists[1]]  # log-ratios -0.5 and -0.5
    loss, metrics = kto_loss(data, lists)
    assert metrics["kl/reference"] == 0
    assert loss.item() == pytest.approx(apo_zero_loss(data, lists)[0].item() / 2, rel=1e-6)


def test_kto_weighs_its_sides() -> None:
    """At beta 1 both terms are 1 - sigma(0.75)."""
    data, lists = one_pair()
    loss, metrics = kto_loss(data, lists, beta=1.0, desirable_weight=3.0, undesirable_weight=0.5)
    assert metrics["kl/reference"] == 0.25
    assert loss.item() == pytest.approx(3.5 * (1 - sigmoid(0.75)) / 2, rel=1e-6)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "bco"])
def test_gradient_check(name: str) -> None:
    """In double precision. KTO's z has no gradient on purpose, so it is checked where z is 0; BCO's shift never is."""
    noise = torch.Generator().manual_seed(0)
    weights = [[0, 1, 1], [0, 0.5, 1], [1, 1], [0, 1, 0.25]]
    lists = [-2 * torch.rand(len(w), generator=noise, dtype=torch.float64) - 2 for w in weights]
    data = [datum(w, [-1.5] * len(w)) for w in weights]

    def loss(*leaves: torch.Tensor) -> torch.Tensor:
        return LOSSES[name].fn(data, list(leaves), beta=0.3)[0]

    assert torch.autograd.gradcheck(loss, [lp.requires_grad_() for lp in lists])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("odd", [math.inf, -math.inf, math.nan])
def test_a_weight_of_0_adds_exactly_0(name: str, odd: float) -> None:
    """Whatever stands there, in the log-probabilities or in the reference."""
    clean, dirty = one_pair(), one_pair()
    dirty[1][0] = leaf(odd, -1)
    dirty[0][0] = datum([0, 1], [odd, -2])
    values = []
    for data, lists in (clean, dirty):
        loss, _ = LOSSES[name].fn(data, lists)
        loss.backward()
        values.append((loss.item(), gradients(lists)))
    assert values[0] == values[1]
    assert values[0][1][0][0] == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ratio", [-1e4, 1e4])
def test_extreme_log_ratios_are_finite(name: str, ratio: float) -> None:
    data, lists = [datum([1], [-1]), datum([1], [-1])], [leaf(ratio - 1), leaf(-1)]
    loss, metrics = LOSSES[name].fn(data, lists)
    loss.backward()
    assert all(map(math.isfinite, metrics.values()))
    assert np.isfinite(gradients(lists)).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_is_the_mean_over_pairs(name: str) -> None:
    data, lists = one_pair()
    once, _ = LOSSES[name].fn(data, lists)
    many, _ = LOSSES[name].fn(data * 3, lists * 3)
    assert many.item() == pytest.approx(once.item(), rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("reference", "words"),
    [
        (None, r"missing; fill it with data = mint_lab.data.with_reference\(data, client\)"),
        ([-1.0], r"shape \(1,\), expected \(2,\) as the weights"),
        ([-1.0, math.nan], "not finite at a weighted token"),
        ([-1.0, -math.inf], "not finite at a weighted token"),
    ],
)
def test_references_that_do_not_fit(name: str, reference: list[float] | None, words: str) -> None:
    data, lists = one_pair()
    with pytest.raises(DataError, match=words) as caught:
        LOSSES[name].fn([data[0], datum([0.5, 1], reference)], lists)
    assert (caught.value.index, caught.value.field) == (1, "reference_logprobs")


@pytest.mark.parametrize("name", NAMES)
def test_pairs_that_are_none(name: str) -> None:
    with pytest.raises(DataError, match=r"got 1 datums, expected consecutive \(chosen, rejected\) pairs"):
        LOSSES[name].fn([datum([1], [-1])], [leaf(-1)])


def test_ipo_needs_something_to_take_a_mean_of() -> None:
    with pytest.raises(DataError, match="every weight is 0") as caught:
        LOSSES["ipo"].fn([datum([1], [-1]), datum([0], [-1])], [leaf(-1), leaf(-1)])
    assert caught.value.index == 1
    with pytest.raises(ConfigError, match="ipo: beta is 0, expected"):
        LOSSES["ipo"].config({"beta": 0})


@pytest.mark.parametrize("name", NAMES)
def test_what_the_registry_says_of_them(name: str) -> None:
    spec = LOSSES[name]
    assert (spec.family, spec.unit, spec.builtin) == ("preference", "pair", False)
    assert spec.inputs == ("weights", "reference_logprobs")
    assert spec.paper.startswith("https://arxiv.org/abs/")
    assert spec.formula
    assert spec.config()["beta"] == (0.5 if name == "apo_down" else 0.1)
