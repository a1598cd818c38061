"""Pair metrics by hand arithmetic and by their symmetries."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.errors import DataError
from mint_lab.metrics import auc, displacement_frac, margins, pair_metrics

scores = st.lists(st.tuples(*[st.floats(-50, 0, width=32)] * 4), min_size=1, max_size=9)


def test_pair_metrics_by_hand() -> None:
    """Margins 2, 0, -1, 3: two wins of four (a tie is not a win), mean 1."""
    chosen, rejected = torch.tensor([-1.0, -2, -4, -1]), torch.tensor([-3.0, -2, -3, -4])
    assert margins(chosen, rejected).tolist() == [2, 0, -1, 3]
    assert pair_metrics(chosen, rejected) == {
        "pair_accuracy": 0.5,
        "mean_margin": 1.0,
        "logps/chosen": -2.0,
        "logps/rejected": -3.0,
    }


def test_displacement_by_hand() -> None:
    """Only pair 0 counts. The margin of pair 1 did not rise, the chosen side of pair 2 did, pair 3 is unchanged."""
    before = torch.tensor([-1.0, -1, -1, -1]), torch.tensor([-1.0, -1, -1, -1])
    after = torch.tensor([-2.0, -2, -0.5, -1]), torch.tensor([-5.0, -1, -1, -1])
    assert displacement_frac(*after, *before) == 0.25
    assert displacement_frac(*before, *before) == 0


@given(scores)
def test_swapping_the_sides_negates_the_margin(rows: list[tuple[float, ...]]) -> None:
    a, b, c, d = torch.tensor(rows, dtype=torch.float64).T
    metrics, swapped = pair_metrics(a, b), pair_metrics(b, a)
    ties = float((a == b).double().mean())
    assert metrics["pair_accuracy"] + swapped["pair_accuracy"] + ties == pytest.approx(1)
    assert metrics["mean_margin"] == pytest.approx(-swapped["mean_margin"])
    assert metrics["mean_margin"] == pytest.approx(metrics["logps/chosen"] - metrics["logps/rejected"], abs=1e-9)
    fell = float((a < c).double().mean())
    assert 0 <= displacement_frac(a, b, c, d) <= fell + 1e-6  # one mean is float32, the other float64


def test_results_are_detached() -> None:
    chosen = torch.tensor([1.0], requires_grad=True)
    assert not margins(chosen, torch.zeros(1)).requires_grad
    assert all(isinstance(v, float) for v in pair_metrics(chosen, torch.zeros(1)).values())


@pytest.mark.parametrize(("a", "b"), [((2,), (3,)), ((0,), (0,)), ((2, 1), (2, 1)), ((), ())])
def test_bad_shapes_are_refused(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    good = torch.zeros(2)
    with pytest.raises(DataError, match="expected one score per pair"):
        pair_metrics(torch.zeros(a), torch.zeros(b))
    with pytest.raises(DataError, match="expected one score per pair"):
        displacement_frac(good, good, torch.zeros(a), torch.zeros(b))


def test_auc_by_hand() -> None:
    """Of 2 x 3 couples 3 has 1, 2 and half of 3 below it, 1 half of 1: (2.5 + 0.5) / 6."""
    assert auc(torch.tensor([3.0, 1.0]), torch.tensor([1.0, 2.0, 3.0])) == 0.5
    assert auc(torch.tensor([3.0, 4.0]), torch.tensor([1.0, 2.0, 3.0])) == 5.5 / 6
    assert auc(torch.tensor([0.0]), torch.tensor([0.0])) == 0.5
    assert auc(torch.tensor([math.inf]), torch.tensor([-math.inf, 0.0])) == 1
    assert auc(torch.tensor([3, 4]), torch.tensor([5])) == 0


@given(
    st.lists(st.integers(-3, 3), min_size=1, max_size=30),
    st.lists(st.integers(-3, 3), min_size=1, max_size=30),
)
def test_auc_counts_every_couple(above: list[int], below: list[int]) -> None:
    """Exactly, ties one half; swapping the kinds gives the complement; a rising function changes nothing."""
    one, two = torch.tensor(above, dtype=torch.float32, requires_grad=True), torch.tensor(below, dtype=torch.float32)
    couples = [(a > b) + 0.5 * (a == b) for a in above for b in below]
    assert auc(one, two) == sum(couples) / len(couples)
    assert auc(one, two) + auc(two, one) == pytest.approx(1, abs=1e-12)
    assert auc(one**3, two**3) == auc(one, two)


def test_auc_of_many_is_exact() -> None:
    """3e9 couples, more than 32 bits count."""
    n = 60_000
    assert auc(torch.arange(n) + 0.5, torch.arange(n)) == (n + 1) / (2 * n)


@pytest.mark.parametrize(
    ("one", "two", "words"),
    [
        ([], [1.0], "expected at least one value in each"),
        ([1.0], [], "expected at least one value in each"),
        ([[1.0]], [1.0], "expected at least one value in each"),
        ([math.nan], [1.0], "a value is nan"),
        ([1.0], [0.0, math.nan], "a value is nan"),
    ],
)
def test_auc_of_what_cannot_be_ordered(one: list[float], two: list[float], words: str) -> None:
    with pytest.raises(DataError, match=words):
        auc(torch.tensor(one), torch.tensor(two))
