"""Checks of a loss that returns a finite scalar with a gradient: repeatable, weights, slope, reduction, memory."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from mint_lab.data.render import to_datum
from mint_lab.losses.preference import pairwise_preference_loss, sequence_scores
from mint_lab.preflight import Report, check, preflight
from mint_lab.preflight.checks import STEP, is_close, loss_mask
from mint_lab.types import Datum, ModelInput

from .four_pairs import four_pairs, total, warnings_of, weights


@pytest.fixture(scope="module")
def data() -> list[Datum]:
    return four_pairs()


def test_ignored_weights(data: list[Datum]) -> None:
    assert "weights" in warnings_of(preflight(lambda d, lps: (total(lps), {}), data))
    masked = preflight(lambda d, lps: (sum((weights(x) * lp).sum() for x, lp in zip(d, lps, strict=True)), {}), data)
    assert warnings_of(masked) == {}


def test_random_and_stateful(data: list[Datum]) -> None:
    rng = random.Random(0)
    assert "repeatable" in warnings_of(preflight(lambda d, lps: (total(lps) * rng.random(), {}), data))


def test_a_partly_detached_loss_disagrees_with_differences(data: list[Datum]) -> None:
    # The true derivative of s**2 is 2s; with one factor detached autograd says s.
    message = warnings_of(preflight(lambda d, lps: (total(lps) * total(lps).detach(), {}), data))["numerical gradient"]
    by_autograd, by_differences = (float(part.split()[0]) for part in message.split(": ")[1].split(", "))
    assert by_differences == pytest.approx(2 * by_autograd, rel=1e-3)


def test_a_kink_that_only_the_wide_step_reaches_is_no_disagreement() -> None:
    """All log-probabilities are -1, and the slope changes from 1 to 3 at 0.3 of a step above; a tenth ends before."""
    data = [to_datum([1, 2, 3], 1), to_datum([4, 5, 6], 1)]
    logprobs = [torch.full((2,), -1.0) for _ in data]

    def bent(_: Any, lps: Any) -> Any:
        return sum((2 * lp + (lp + 1 - 0.3 * STEP).abs()).sum() for lp in lps), {}

    lines = {line.name: line for line in check(bent, data, logprobs).lines}
    assert lines["numerical gradient"].verdict == "ok"


def test_a_cast_to_single_precision_is_no_disagreement(data: list[Datum]) -> None:
    def cast(d: Any, lps: Any) -> Any:
        return sum((weights(x) * lp.float() ** 2).sum() for x, lp in zip(d, lps, strict=True)), {}

    assert warnings_of(preflight(cast, data)) == {}


def test_a_margin_does_not_hide_a_forgotten_mask() -> None:
    """Two sides with the same prompt: what all masked positions share cancels in the margin."""

    def margin(data: list[Datum], logprobs_list: list[torch.Tensor]) -> Any:
        scores = torch.stack([lp.sum() for lp in logprobs_list])
        return -F.logsigmoid(scores[0::2] - scores[1::2]).mean(), {}

    pairs = [to_datum([5, 6, 7, *rest], 3) for rest in ([8, 9], [9, 8], [8, 8], [9, 9])]
    (line,) = [x for x in preflight(margin, pairs).lines if x.name == "weights"]
    assert (line.verdict, line.message) == ("warn", "log-probabilities of weight 0 (the prompt) change the loss")


def test_a_loss_that_only_takes_single_precision_is_checked_in_it(data: list[Datum]) -> None:
    """torch.dot of a double with the weights, which are float32, raises; the loss is right and natural all the same."""

    def dots(data: Any, logprobs_list: Any) -> Any:
        scores = [
            torch.dot(lp, d.loss_fn_inputs["weights"].to_torch()) for d, lp in zip(data, logprobs_list, strict=True)
        ]
        return -torch.stack(scores).sum(), {}

    report = preflight(dots, data)
    assert report.ok
    assert "ok    numerical gradient" in repr(report)
    assert report.reduction == "sum"


def split(report: Report) -> str:
    return next(line.message for line in report.lines if line.name == "batch split")


def test_reduction_and_unit_are_found(data: list[Datum]) -> None:
    report = preflight(lambda d, lps: (total(lps), {}), data)
    assert (report.reduction, report.unit, split(report)) == ("sum", "datum", "the value is the sum over its datums")
    report = preflight(lambda d, lps: (total(lps) / len(lps), {}), data)
    assert (report.reduction, report.unit) == ("mean", "datum")
    assert "the mean over its datums" in split(report)
    report = preflight(pairwise_preference_loss, data)
    assert (report.reduction, report.unit) == ("mean", "pair")
    assert "the mean over its pairs" in split(report)
    report = preflight(lambda d, lps: (total(lps) ** 2, {}), data)
    assert (report.reduction, report.unit) == ("coupled", "")
    assert "the whole batch" in split(report)


def test_a_sum_over_pairs_is_not_one_over_datums(data: list[Datum]) -> None:
    def summed(d: Any, lps: Any) -> Any:
        chosen, rejected, _ = sequence_scores(d, lps)
        return -torch.nn.functional.logsigmoid(chosen - rejected).sum(), {}

    report = preflight(summed, data)
    assert (report.reduction, report.unit) == ("sum", "pair")
    assert split(report) == "the value is the sum over its pairs"


@pytest.mark.parametrize(
    ("reduce", "found", "unit"),
    [
        (lambda parts: parts.sum(), "sum", "datum"),
        (lambda parts: parts.mean(), "mean", "datum"),
        (lambda parts: parts.sum() ** 2, "coupled", ""),
        (lambda parts: (parts[0::2] - parts[1::2]).relu().sum(), "sum", "pair"),
        (lambda parts: (parts[0::2] - parts[1::2]).relu().mean(), "mean", "pair"),
    ],
)
def test_reduction_of_datums_and_of_pairs(data: list[Datum], reduce: Any, found: str, unit: str) -> None:
    def fn(d: Any, lps: Any) -> Any:
        parts = torch.stack([(weights(x) * lp).sum() for x, lp in zip(d, lps, strict=True)])
        if unit == "pair" and len(parts) % 2:
            raise ValueError("pairs")
        return reduce(parts) + 0.0, {}

    report = preflight(fn, data)
    assert (report.reduction, report.unit) == (found, unit)


def test_a_value_that_happens_to_be_the_sum_is_not_taken_for_one(data: list[Datum]) -> None:
    """The same value at this point, but the parts' gradients are others."""

    def fn(d: Any, lps: Any) -> Any:
        whole = torch.stack([lp.sum() for lp in lps]).sum()
        return whole.detach() + (whole - whole.detach()) * len(lps), {}

    assert preflight(fn, data).reduction == "coupled"


def test_a_coupled_loss_that_refuses_single_datums_is_on_pairs(data: list[Datum]) -> None:
    def hardest(d: Any, lps: Any) -> Any:
        chosen, rejected, _ = sequence_scores(d, lps)
        return -F.logsigmoid(chosen - rejected).min(), {}

    report = preflight(hardest, data)
    assert (report.reduction, report.unit) == ("coupled", "pair")


def test_an_empty_datum_is_no_fault(data: list[Datum]) -> None:
    """It has no log-probability that could get a gradient."""
    empty = Datum(model_input=ModelInput.from_ints([]), loss_fn_inputs={})
    lengths = [d.model_input.length for d in (*data, empty)]
    report = check(lambda d, lps: (total(lps), {}), [*data, empty], [torch.full((n,), -1.0) for n in lengths])
    assert "gradient" not in warnings_of(report)
    assert (report.reduction, report.unit) == ("sum", "datum")


def test_parts_whose_sum_is_not_a_number_are_coupled(data: list[Datum]) -> None:
    """An infinity for single datums or pairs, finite for the batch."""

    def fn(d: Any, lps: Any) -> Any:
        far = 0.0 if len(d) == len(data) else float("inf") * (1 if lps[0][0] < lps[-1][-1] else -1)
        return total(lps) + far, {}

    assert preflight(fn, data).reduction == "coupled"


def test_loss_mask_is_where_the_weights_are_not_0() -> None:
    datum = to_datum([1, 2, 3, 4], 2)
    assert loss_mask(datum, 3).tolist() == [False, True, True]
    assert loss_mask(datum, 5).tolist() == [True] * 5  # weights of another shape say nothing
    del datum.loss_fn_inputs["weights"]
    assert loss_mask(datum, 3).tolist() == [True] * 3


def test_is_close_allows_for_rounding() -> None:
    assert is_close(1000.0, 1000.009)
    assert not is_close(1000.0, 1000.02)
    assert is_close(0.0, 9e-6)
    assert not is_close(float("nan"), float("nan"))
