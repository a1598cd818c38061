"""Broken losses, each with its one right message; good ones pass."""

from __future__ import annotations

import html
import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mint_lab.data.pairs import Pair
from mint_lab.data.render import to_datum
from mint_lab.errors import ConfigError
from mint_lab.losses import LOSSES
from mint_lab.losses.preference import pairwise_preference_loss, sequence_scores
from mint_lab.preflight import Report, check, preflight, random_logprobs
from mint_lab.types import Datum


def weights(datum: Datum) -> torch.Tensor:
    return datum.loss_fn_inputs["weights"].to_torch()


@pytest.fixture(scope="module")
def data() -> list[Datum]:
    """Four pairs with prompts of three tokens, with what losses on samples and losses with a reference read."""
    batch: list[Datum] = []
    for i in range(8):
        length = 7 + i % 3
        batch.append(
            to_datum(
                list(range(5, 5 + length)),
                3,
                logprobs=np.full(length - 1, -1.0, dtype=np.float32),
                advantages=np.linspace(-1, 1, length - 1, dtype=np.float32),
                reference_logprobs=np.full(length - 1, -2.0, dtype=np.float32),
                teacher_logprobs=np.full(length - 1, -1.5, dtype=np.float32),
            )
        )
    return batch


def verdicts(report: Report) -> dict[str, str]:
    return {line.name: line.verdict for line in report.lines}


@pytest.mark.parametrize("name", list(LOSSES))
def test_the_losses_that_ship_pass(data: list[Datum], name: str) -> None:
    report = preflight(LOSSES[name].bind(), data)
    assert report.ok, report
    assert LOSSES[name].reduction == report.reduction
    assert verdicts(report)["weights"] == "ok"
    stops_a_gradient = name in ("cispo", "kto", "reverse_kl")
    assert verdicts(report)["numerical gradient"] == ("warn" if stops_a_gradient else "ok")


# -- broken losses: function, check that fails, words of the message, words of the fix -------------------------------


def total(logprobs_list: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack([lp.sum() for lp in logprobs_list]).sum()


def in_place(data: Any, lps: Any) -> Any:
    for lp in lps:
        lp.data.mul_(2)
    return total(lps), {}


BROKEN: dict[str, tuple[Callable[..., Any], str, str, str]] = {
    "returns a tensor": (lambda d, lps: total(lps), "returns", "a Tensor", "return loss, metrics"),
    "returns None": (lambda d, lps: None, "returns", "a NoneType", "return loss, metrics"),
    "returns three": (lambda d, lps: (total(lps), {}, 1), "returns", "a tuple of 3", "return loss, metrics"),
    "raises": (lambda d, lps: 1 / 0, "returns", "ZeroDivisionError: division by zero", "look at line"),
    "returns a float": (lambda d, lps: (total(lps).item(), {}), "loss", "a float", "without float()"),
    "a vector": (lambda d, lps: (lps[0] * 2, {}), "loss", "has shape (6,)", ".sum() or .mean()"),
    "an integer": (lambda d, lps: (torch.tensor(3), {}), "loss", "torch.int64", "floating point"),
    "nan": (lambda d, lps: (total(lps) * float("nan"), {}), "loss", "is nan", "log(0)"),
    "infinite": (lambda d, lps: (total(lps) * float("-inf"), {}), "loss", "is inf", "log(0)"),
    "detached": (lambda d, lps: (total(lps).detach(), {}), "loss", "has no gradient", "detach()"),
    "a constant": (lambda d, lps: (torch.tensor(1.0), {}), "loss", "has no gradient", "logprobs_list"),
    "metrics a list": (lambda d, lps: (total(lps), [1]), "metrics", "a list", "dict of names to floats"),
    "metrics text": (lambda d, lps: (total(lps), {"a": "b"}), "metrics", "'a' is a str", "float(x)"),
    "metrics a vector": (lambda d, lps: (total(lps), {"a": torch.ones(2)}), "metrics", "'a' is a Tensor", "float(x)"),
    "metrics without names": (lambda d, lps: (total(lps), {1: 2.0}), "metrics", "the name 1", "text as names"),
    "writes to its inputs": (in_place, "inputs", "logprobs_list[0] was changed in place", "clone()"),
    "forgets data": (
        lambda d, lps: (lps[1].sum(), {}),
        "gradient",
        "datum 0, 2, 3 and 4 more of 8",
        "every",
    ),
    "nan gradient": (lambda d, lps: (total(lps) + (lps[2] * 0).sum().sqrt(), {}), "gradient", "datum 2", "sqrt(0)"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_loss_gets_its_message(data: list[Datum], case: str) -> None:
    fn, name, message, fix = BROKEN[case]
    report = preflight(fn, data)
    assert not report.ok
    (line,) = [line for line in report.lines if line.verdict == "fail"]
    assert line.name == name
    assert message in line.message
    assert fix in line.fix


def test_a_loss_that_raises_when_called_again(data: list[Datum]) -> None:
    calls = iter([None])

    def once(d: Any, lps: Any) -> Any:
        next(calls)
        return total(lps), {}

    (line,) = [line for line in preflight(once, data).lines if line.verdict == "fail"]
    assert line.message == "when called again: StopIteration"


# -- losses one should look at -----------------------------------------------------------------------------------------


def warned(report: Report) -> dict[str, str]:
    assert report.ok
    return {line.name: line.message for line in report.lines if line.verdict == "warn"}


def test_ignored_weights(data: list[Datum]) -> None:
    assert "weights" in warned(preflight(lambda d, lps: (total(lps), {}), data))
    masked = preflight(lambda d, lps: (sum((weights(x) * lp).sum() for x, lp in zip(d, lps, strict=True)), {}), data)
    assert warned(masked) == {}


def test_random_and_stateful(data: list[Datum]) -> None:
    rng = random.Random(0)
    assert "repeatable" in warned(preflight(lambda d, lps: (total(lps) * rng.random(), {}), data))


def test_a_partly_detached_loss_disagrees_with_differences(data: list[Datum]) -> None:
    # The true derivative of s**2 is 2s; with one factor detached autograd says s.
    message = warned(preflight(lambda d, lps: (total(lps) * total(lps).detach(), {}), data))["numerical gradient"]
    by_autograd, by_differences = (float(part.split()[0]) for part in message.split(": ")[1].split(", "))
    assert by_differences == pytest.approx(2 * by_autograd, rel=1e-3)


def test_a_cast_to_single_precision_is_no_disagreement(data: list[Datum]) -> None:
    def cast(d: Any, lps: Any) -> Any:
        return sum((weights(x) * lp.float() ** 2).sum() for x, lp in zip(d, lps, strict=True)), {}

    assert warned(preflight(cast, data)) == {}


def test_metrics_that_are_tensors_and_flat_losses(data: list[Datum]) -> None:
    found = warned(preflight(lambda d, lps: (total(lps) + 0, {"a": torch.tensor(1.0)}), data))
    assert found["metrics"] == "'a' is a Tensor"
    flat = warned(preflight(lambda d, lps: (torch.relu(total(lps)), {}), data))  # all log-probabilities are negative
    assert flat["gradient"].startswith("exactly 0 at datum 0, 1, 2 and 5 more of 8")


def test_a_margin_does_not_hide_a_forgotten_mask() -> None:
    """Two sides with the same prompt: what all masked positions share cancels in the margin."""

    def margin(data: list[Datum], logprobs_list: list[torch.Tensor]) -> Any:
        scores = torch.stack([lp.sum() for lp in logprobs_list])
        return -F.logsigmoid(scores[0::2] - scores[1::2]).mean(), {}

    pairs = [to_datum([5, 6, 7, *rest], 3) for rest in ([8, 9], [9, 8], [8, 8], [9, 9])]
    (line,) = [x for x in preflight(margin, pairs).lines if x.name == "weights"]
    assert (line.verdict, line.message) == ("warn", "log-probabilities of weight 0 (the prompt) change the loss")


# -- separable or coupled ----------------------------------------------------------------------------------------------


def split(report: Report) -> str:
    return next(line.message for line in report.lines if line.name == "batch split")


def test_separable_and_coupled(data: list[Datum]) -> None:
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


def test_a_sum_over_pairs_is_coupled_for_single_datums(data: list[Datum]) -> None:
    def summed(d: Any, lps: Any) -> Any:
        chosen, rejected, _ = sequence_scores(d, lps)
        return -torch.nn.functional.logsigmoid(chosen - rejected).sum(), {}

    report = preflight(summed, data)
    assert (report.reduction, report.unit) == ("sum", "pair")
    assert split(report) == "the value is the sum over its pairs"


# -- the call itself ---------------------------------------------------------------------------------------------------


def test_the_text_is_fixed(data: list[Datum]) -> None:
    assert repr(preflight(pairwise_preference_loss, data)) == repr(preflight(pairwise_preference_loss, data))
    lines = repr(preflight(lambda d, lps: None, data)).splitlines()
    assert lines == [
        "preflight: 1 failed",
        "FAIL  returns             the function returned a NoneType -> return loss, metrics",
    ]


def test_given_logprobs_are_used_and_left_alone(data: list[Datum]) -> None:
    given = [lp - 1 for lp in random_logprobs(data)]
    before = [lp.clone() for lp in given]
    assert check(in_place, data, given).ok is False
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))
    value = float(total(given))
    (line,) = [x for x in check(lambda d, lps: (total(lps), {}), data, given).lines if x.name == "loss"]
    assert line.message == f"a finite scalar, {value:.4g}"


def test_drawn_logprobs_are_plausible_and_seeded(data: list[Datum]) -> None:
    drawn = torch.cat(random_logprobs(data * 50))
    assert bool((drawn <= 0).all())
    assert float(drawn.mean()) == pytest.approx(-1.5, abs=0.1)
    assert torch.equal(drawn, torch.cat(random_logprobs(data * 50)))
    assert not torch.equal(drawn, torch.cat(random_logprobs(data * 50, seed=1)))


def test_no_data_or_other_shapes(data: list[Datum]) -> None:
    with pytest.raises(ConfigError, match="needs data"):
        preflight(pairwise_preference_loss, [])
    with pytest.raises(ConfigError, match="log-probabilities of shapes"):
        preflight(pairwise_preference_loss, data, [torch.zeros(3)])


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


# -- what is recorded, and how it is shown ---------------------------------------------------------------------------


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
def test_the_split_is_recorded(data: list[Datum], reduce: Any, found: str, unit: str) -> None:
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


def test_html_escapes_and_tells_the_cost(data: list[Datum]) -> None:
    def fn(d: Any, lps: Any) -> Any:
        print("<script>alert(1)</script>")
        return total(lps), {"<b>": 1.0}

    report = preflight(fn, data)
    page = report._repr_html_()
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)" in page
    assert "&lt;b&gt;" in page
    assert "A call took " in page
    assert "took" not in repr(report)
    assert repr(report).endswith("  | <script>alert(1)</script>")


def test_html_has_a_row_a_check_with_its_verdict_and_no_cost_of_a_failure(data: list[Datum]) -> None:
    def fn(d: Any, lps: Any) -> Any:
        return total(lps).detach(), {}

    report = preflight(fn, data)
    page = report.to_html()
    found = re.findall(r'aria-label="(\w+)"', page)
    assert found == [line.verdict for line in report.lines]
    assert found[-1] == "fail"
    assert f"→ {report.lines[-1].fix}" in html.unescape(page)
    assert report.cost == ""
    assert "A call took" not in page


def test_the_model_of_a_client_gives_logprobs_and_time_and_is_not_changed(data: list[Datum]) -> None:
    from tests.runs.bigram import BigramClient

    client = BigramClient()
    before = client.table.detach().clone()
    report = preflight(pairwise_preference_loss, data, client=client)
    assert client.calls == ["forward"]
    assert client.gradient is None
    assert torch.equal(client.table, before)
    assert "the model's forward pass over the same datums, " in report.cost
    own = [lp.detach() for lp in client._logprobs(data)]
    assert repr(report) == repr(preflight(pairwise_preference_loss, data, own))


def test_a_limit_that_is_no_time(data: list[Datum]) -> None:
    with pytest.raises(ConfigError, match="expected seconds above 0"):
        preflight(pairwise_preference_loss, data, limit=0)


def test_pairs_are_asked_only_of_losses_on_pairs(data: list[Datum]) -> None:
    for name in LOSSES:
        found = verdicts(preflight(LOSSES[name].bind(), data))
        assert found.get("pairs") == ("ok" if LOSSES[name].unit == "pair" else None)


def test_a_loss_that_wants_a_margin_of_a_certain_size_is_not_swapped(data: list[Datum]) -> None:
    """IPO: neither more nor less than the target, relative to a reference."""

    def ipo(d: Any, lps: Any, tau: float = 0.5) -> Any:
        if len(d) % 2:
            raise ValueError("pairs")
        base = [x.loss_fn_inputs["reference_logprobs"].to_torch() for x in d]
        scores = torch.stack([(weights(x) * (lp - b)).sum() for x, lp, b in zip(d, lps, base, strict=True)])
        return ((scores[0::2] - scores[1::2] - 1 / (2 * tau)) ** 2).mean(), {}

    reference = [
        to_datum(
            [*x.model_input.to_ints(), 1],
            3,
            reference_logprobs=x.loss_fn_inputs["logprobs"].to_numpy() * (1 + i),
        )
        for i, x in enumerate(data)
    ]
    assert verdicts(preflight(ipo, reference))["pairs"] == "ok"
    assert verdicts(preflight(lambda d, lps: ipo(d, lps, -0.5), reference))["pairs"] == "warn"


def test_a_loss_by_name_or_spec(data: list[Datum]) -> None:
    expected = repr(preflight(LOSSES["dpo"].bind(), data))
    assert repr(preflight("dpo", data)) == repr(preflight(LOSSES["dpo"], data)) == expected
    with pytest.raises(ConfigError, match=r"unknown loss 'dppo'.*did you mean"):
        preflight("dppo", data)
    with pytest.raises(ConfigError, match="the loss is 3, expected a name, a LossSpec or a function"):
        preflight(3, data)  # type: ignore[arg-type]


def test_pairs_are_no_datums(data: list[Datum]) -> None:
    with pytest.raises(ConfigError, match=r"data\[1\] is a Pair, expected a Datum; pairs_to_data\(pairs, "):
        preflight("dpo", [data[0], Pair("2+2=", "4", "5")])  # type: ignore[list-item]
