"""KTO and BCO on completions with labels: by hand, against their results on pairs, and labels that are none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.errors import DataError
from mint_lab.losses import LOSSES
from mint_lab.losses.dpo import dpo_loss
from mint_lab.losses.unpaired import bco_loss, judged_batch, kto_loss, labels_of
from mint_lab.types import Datum, ModelInput, TensorData

NAMES = ["kto", "bco"]
RATIOS = st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=5)


def datum(label: object = None, *, reference: float = -2.0) -> Datum:
    """One prompt position and one completion token."""
    fields = {"weights": np.float32([0, 1]), "reference_logprobs": np.float32([-9, reference])}
    if label is not None:
        fields["label"] = np.asarray(label)
    return Datum(
        model_input=ModelInput.from_ints([1, 1]),
        loss_fn_inputs={name: TensorData.from_numpy(value) for name, value in fields.items()},
    )


def batch(*judged: tuple[float, int]) -> tuple[list[Datum], list[torch.Tensor]]:
    """Completions with these log-ratios and labels; the reference's score is -2."""
    lists = [torch.tensor([-5.0, ratio - 2.0], requires_grad=True) for ratio, _ in judged]
    return [datum([label]) for _, label in judged], lists


def gradients(lists: list[torch.Tensor]) -> list[float]:
    """Of the completion's token; the prompt's is 0."""
    found = [row.grad for row in lists if row.grad is not None]
    assert len(found) == len(lists)
    assert all(grad[0] == 0 for grad in found)
    return [float(grad[1]) for grad in found]


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_kto_by_hand() -> None:
    """h+ = 1 and 3, h- = -1: z = 1. At beta 0.5 the terms are 2 (1 - sigma(0)), 2 (1 - sigma(1)), 3 (1 - sigma(1))."""
    data, lists = batch((1.0, 1), (-1.0, 0), (3.0, 1))
    loss, metrics = kto_loss(data, lists, beta=0.5, desirable_weight=2.0, undesirable_weight=3.0)
    loss.backward()
    assert loss.item() == metrics["loss"] == pytest.approx((1 + 5 * (1 - sigmoid(1))) / 3, rel=1e-6)
    slope = 0.5 * sigmoid(1) * sigmoid(-1) / 3
    assert gradients(lists) == pytest.approx([-2 * 0.5 * 0.25 / 3, 3 * slope, -2 * slope], rel=1e-5)
    assert metrics["kl/reference"] == 1


def test_bco_by_hand() -> None:
    """Rewards 0.5 and 1.5, and -0.5: delta = (1 - 0.5) / 2 = 0.25; the logits are 0.25, 1.25 and 0.25 + 0.5 = 0.75."""
    data, lists = batch((1.0, 1), (-1.0, 0), (3.0, 1))
    loss, metrics = bco_loss(data, lists, beta=0.5)
    loss.backward()
    expected = -sum(math.log(sigmoid(logit)) for logit in (0.25, 1.25, 0.75)) / 3
    assert loss.item() == metrics["loss"] == pytest.approx(expected, rel=1e-6)
    slopes = [-sigmoid(-0.25), sigmoid(-0.75), -sigmoid(-1.25)]
    assert gradients(lists) == pytest.approx([0.5 * slope / 3 for slope in slopes], rel=1e-5)
    assert metrics["rewards/shift"] == 0.25


@pytest.mark.parametrize("name", NAMES)
def test_metrics_by_hand(name: str) -> None:
    """Scores -1 and 1 of the desirable completions, -3 of the undesirable one; rewards 0.2 h."""
    metrics = LOSSES[name].fn(*batch((1.0, 1), (-1.0, 0), (3.0, 1)), beta=0.2)[1]
    own = {"loss", "kl/reference" if name == "kto" else "rewards/shift"}
    expected = {"logps/chosen": 0.0, "logps/rejected": -3.0}
    expected |= {"rewards/chosen": 0.4, "rewards/rejected": -0.2, "rewards/margins": 0.6}
    assert {k: v for k, v in metrics.items() if k not in own} == pytest.approx(expected)
    assert all(isinstance(value, float) for value in metrics.values())


def test_a_batch_of_one_label() -> None:
    """KTO's z is the batch's own mean, 2, or 0 if that is negative; BCO does not shift."""
    loss, metrics = kto_loss(*batch((1.0, 1), (3.0, 1)), beta=0.5)
    assert metrics["kl/reference"] == 2
    assert loss.item() == pytest.approx((1 - sigmoid(-0.5) + 1 - sigmoid(0.5)) / 2)
    assert kto_loss(*batch((-1.0, 0), (-3.0, 0)))[1]["kl/reference"] == 0
    loss, metrics = bco_loss(*batch((1.0, 1), (3.0, 1)), beta=0.5)
    assert metrics["rewards/shift"] == 0
    assert loss.item() == pytest.approx(-(math.log(sigmoid(0.5)) + math.log(sigmoid(1.5))) / 2)
    assert set(metrics) == {"loss", "logps/chosen", "rewards/chosen", "rewards/shift"}
    loss, metrics = bco_loss(*batch((1.0, 0)), beta=0.5)
    assert loss.item() == pytest.approx(-math.log(sigmoid(-0.5)))
    assert set(metrics) == {"loss", "logps/rejected", "rewards/rejected", "rewards/shift"}


@pytest.mark.parametrize("label", [0, 1])
def test_gradient_check_of_a_batch_of_one_label(label: int) -> None:
    """BCO's shift and, at negative log-ratios, KTO's z are constants there, so nothing is left out of the gradient."""
    lists = [torch.tensor([-5.0, score], dtype=torch.float64, requires_grad=True) for score in (-3.0, -4.5)]
    for name in NAMES:
        assert torch.autograd.gradcheck(
            lambda *rows, fn=LOSSES[name].fn: fn([datum([label])] * 2, list(rows))[0], lists
        )


@given(chosen=RATIOS, seed=st.integers(0, 9))
@pytest.mark.parametrize("name", NAMES)
def test_labels_of_pairs_are_the_pairs(name: str, chosen: list[float], seed: int) -> None:
    """The same loss and gradients, bit for bit, and in any order up to rounding."""
    rng = np.random.default_rng(seed)
    judged = [side for ratio in chosen for side in ((ratio, 1), (float(rng.normal()), 0))]
    data, labelled = batch(*judged)
    paired = [row.detach().clone().requires_grad_() for row in labelled]
    loss, of_labels = LOSSES[name].fn(data, labelled, beta=0.3)
    same, of_pairs = LOSSES[name].fn([datum() for _ in judged], paired, beta=0.3)
    loss.backward()
    same.backward()
    assert torch.equal(loss, same)
    assert gradients(labelled) == gradients(paired)
    shared = of_labels.keys() & of_pairs.keys()
    assert shared >= {"logps/chosen", "rewards/rejected", "rewards/margins"}
    assert {k: of_labels[k] for k in shared} == pytest.approx({k: of_pairs[k] for k in shared}, rel=1e-5, abs=1e-5)
    order = rng.permutation(len(judged)).tolist()
    moved, _ = LOSSES[name].fn([data[i] for i in order], [labelled[i].detach() for i in order], beta=0.3)
    assert moved.item() == pytest.approx(loss.item(), rel=1e-5, abs=1e-7)


def test_kto_on_pairs_has_the_bits_of_its_formula() -> None:
    """As sums over chosen and rejected sides: what it is on pairs does not depend on what it does with labels."""
    noise = torch.Generator().manual_seed(0)
    lists = [torch.tensor([-5.0, 0.0]) + torch.randn(2, generator=noise) for _ in range(14)]
    scores = torch.stack([row[1] for row in lists])
    chosen, rejected = scores[0::2] + 2.0, scores[1::2] + 2.0
    z = torch.cat([chosen, rejected]).mean().clamp(min=0)
    assert z > 0
    sides = 1.5 * (1 - torch.sigmoid(0.3 * (chosen - z))), 0.5 * (1 - torch.sigmoid(0.3 * (z - rejected)))
    loss, _ = kto_loss([datum() for _ in lists], lists, beta=0.3, desirable_weight=1.5, undesirable_weight=0.5)
    assert torch.equal(loss, torch.cat(sides).mean())


@given(chosen=RATIOS, rejected=st.floats(-20, 20, width=32), constant=st.floats(-5, 5, width=32))
def test_bco_does_not_see_what_all_completions_share(chosen: list[float], rejected: float, constant: float) -> None:
    """The shift takes out a constant that is added to every log-ratio."""
    judged = [*((ratio, 1) for ratio in chosen), (rejected, 0)]
    before = bco_loss(*batch(*judged), beta=0.4)[0].item()
    moved = bco_loss(*batch(*((ratio + constant, label) for ratio, label in judged)), beta=0.4)[0].item()
    assert moved == pytest.approx(before, rel=1e-4, abs=1e-5)


@given(ratios=st.lists(st.tuples(st.floats(-20, 20, width=32), st.floats(-20, 20, width=32)), min_size=1, max_size=4))
def test_bco_bounds_dpo_from_above(ratios: list[tuple[float, float]]) -> None:
    """The two terms of a pair are at least DPO's: sigma(a) sigma(b) < sigma(a + b). BCO is a mean over completions."""
    lists = [torch.tensor([-5.0, ratio - 2.0]) for pair in ratios for ratio in pair]
    data = [datum() for _ in lists]
    assert 2 * bco_loss(data, lists, beta=0.3)[0].item() >= dpo_loss(data, lists, beta=0.3)[0].item() - 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_extreme_log_ratios_are_finite(name: str) -> None:
    for ratio in (-1e4, 1e4):
        for label in (0, 1):
            data, lists = batch((ratio, label), (0.0, 1 - label))
            loss, metrics = LOSSES[name].fn(data, lists)
            loss.backward()
            assert all(map(math.isfinite, metrics.values()))
            assert np.isfinite(gradients(lists)).all()


@pytest.mark.parametrize(
    ("labels", "index", "words"),
    [
        ([[1], None, [0]], 1, "missing, and other datums have one; expected a label for every datum, or for none"),
        ([None, [1], [0]], 0, "missing, and other datums have one"),
        ([[1], [0], [2]], 2, r"found 2, expected one number of shape \(1,\): 1 desirable, 0 undesirable"),
        ([[1], [-1], [0]], 1, "found -1, expected one number"),
        ([[1], [0], np.float32([0.5])], 2, r"found 0\.5, expected one number"),
        ([[1], [0], np.float32([math.nan])], 2, "found nan, expected one number"),
        ([[1], [0, 0], [0]], 1, r"found shape \(2,\), expected one number of shape \(1,\)"),
    ],
)
def test_labels_that_are_none(labels: list[object], index: int, words: str) -> None:
    data = [datum(label) for label in labels]
    for name in NAMES:
        with pytest.raises(DataError, match=words) as caught:
            LOSSES[name].fn(data, [torch.zeros(2)] * 3)
        assert (caught.value.index, caught.value.field) == (index, "label")


def test_labels_are_whole_numbers_or_not() -> None:
    found = labels_of([datum([1]), datum(np.float32([0])), datum([0])])
    assert found is not None
    assert found.tolist() == [True, False, False]
    assert labels_of([datum(), datum()]) is None


def test_a_single_datum_needs_a_label() -> None:
    with pytest.raises(DataError, match=r"got 3 datums, expected .* pairs, or a label for every datum"):
        judged_batch([datum()] * 3, [torch.zeros(2)] * 3)
    with pytest.raises(DataError, match="got 0 datums, expected at least one"):
        judged_batch([], [])


def test_a_weight_of_0_adds_exactly_0() -> None:
    for name in NAMES:
        data, lists = batch((1.0, 1), (-1.0, 0))
        clean, _ = LOSSES[name].fn(data, lists)
        dirty, _ = LOSSES[name].fn(data, [torch.stack([torch.tensor(-math.inf), row[1]]) for row in lists])
        assert torch.equal(clean, dirty)


def test_what_the_registry_says_of_them() -> None:
    for name in NAMES:
        spec = LOSSES[name]
        assert (spec.family, spec.unit, spec.optional) == ("preference", "pair", ("label",))
        assert spec.reduction == "coupled"  # z and the shift are of the whole batch
    whole = F.logsigmoid(torch.tensor(0.0))  # at the start every logit is 0
    assert bco_loss(*batch((0.0, 1), (0.0, 0)))[0].item() == pytest.approx(-float(whole))
