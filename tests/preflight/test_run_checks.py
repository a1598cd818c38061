"""The call of preflight: what it accepts, which log-probabilities it uses, and its first lines."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mint_lab.data.pairs import Pair
from mint_lab.data.render import to_datum
from mint_lab.errors import ConfigError
from mint_lab.losses import LOSSES, LossSpec
from mint_lab.losses.preference import pairwise_preference_loss
from mint_lab.preflight import check, preflight, random_logprobs
from mint_lab.types import Datum

from ..losses.references import losses_with_a_stopped_gradient
from .four_pairs import four_pairs, total, verdicts, warnings_of


@pytest.fixture(scope="module")
def data() -> list[Datum]:
    return four_pairs()


@pytest.mark.parametrize("name", list(LOSSES))
def test_the_losses_that_ship_pass(data: list[Datum], name: str) -> None:
    report = preflight(LOSSES[name].bind(), data)
    assert report.ok, report
    assert LOSSES[name].reduction == report.reduction
    assert verdicts(report)["weights"] == "ok"
    stops_a_gradient = name in losses_with_a_stopped_gradient()
    assert verdicts(report)["numerical gradient"] == ("warn" if stops_a_gradient else "ok")


def test_a_loss_that_raises_when_called_again(data: list[Datum]) -> None:
    calls = iter([None])

    def once(d: Any, lps: Any) -> Any:
        next(calls)
        return total(lps), {}

    (line,) = [line for line in preflight(once, data).lines if line.verdict == "fail"]
    assert line.message == "when called again: StopIteration"


def test_metrics_that_are_tensors_and_flat_losses(data: list[Datum]) -> None:
    found = warnings_of(preflight(lambda d, lps: (total(lps) + 0, {"a": torch.tensor(1.0)}), data))
    assert found["metrics"] == "'a' is a Tensor"
    flat = warnings_of(
        preflight(lambda d, lps: (torch.relu(total(lps)), {}), data)
    )  # all log-probabilities are negative
    assert flat["gradient"].startswith("exactly 0 at datum 0, 1, 2 and 5 more of 8")


def test_the_text_is_fixed(data: list[Datum]) -> None:
    assert repr(preflight(pairwise_preference_loss, data)) == repr(preflight(pairwise_preference_loss, data))
    lines = repr(preflight(lambda d, lps: None, data)).splitlines()
    assert lines == [
        "preflight: 1 failed",
        "FAIL  returns             the function returned a NoneType -> return loss, metrics",
    ]


def in_place(data: Any, lps: Any) -> Any:
    for lp in lps:
        lp.data.mul_(2)
    return total(lps), {}


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


def bare() -> list[Datum]:
    """Pairs with tokens and weights only."""
    return [to_datum([5, 6, 7, 8 + i], 2) for i in range(4)]


@pytest.mark.parametrize(
    ("name", "message", "fix"),
    [
        ("dpo", "dpo needs reference_logprobs, which this data does not have", "ml.data.with_reference(data, client)"),
        (
            "importance_sampling",
            "importance_sampling needs logprobs and advantages, which",
            "prompt_length, logprobs=...)",
        ),
        ("reverse_kl", "reverse_kl needs logprobs and teacher_logprobs, which", "compute_logprobs"),
    ],
)
def test_a_missing_field_is_named_with_how_to_fill_it(name: str, message: str, fix: str) -> None:
    reports = [preflight(loss, bare()) for loss in (name, LOSSES[name], LOSSES[name].bind())]
    for report in reports:
        (line,) = report.lines
        assert (line.name, line.verdict) == ("fields", "fail")
        assert line.message.startswith(message)
        assert fix in line.fix
        assert (report.ok, report.cost, report.reduction, report.unit) == (False, "", None, "")


def test_a_field_that_only_some_datums_lack_is_missing() -> None:
    data = [to_datum([5, 6, 7, 8], 2, reference_logprobs=[-1.0] * 3) if i != 2 else bare()[2] for i in range(4)]
    (line,) = preflight("dpo", data).lines
    assert line.message == "dpo needs reference_logprobs, which this data does not have at datum 2 of 4"


def test_a_field_of_a_persons_own_has_its_fix_too() -> None:
    spec = LossSpec("mine", "custom", lambda d, lps: (total(lps), {}), inputs=("score",))
    (line,) = preflight(spec, bare()).lines
    assert line.message == "mine needs score, which this data does not have"
    assert line.fix == "score: add to every datum what the loss reads: to_datum(tokens, prompt_length, NAME=...)"
