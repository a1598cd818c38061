"""Warnings, by hand-made numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from mint_lab.runs.diagnosis import Diagnosis, findings
from mint_lab.runs.record import StepRecord

from .conftest import finish


def steps(**columns: Sequence[float]) -> list[StepRecord]:
    """Records whose metrics are the columns, ``held_``-prefixed ones held out."""
    n = len(next(iter(columns.values())))
    return [record(i + 1, **{name: values[i] for name, values in columns.items()}) for i in range(n)]


def record(step: int, *, version: int = 1, **numbers: float) -> StepRecord:
    held = {k.removeprefix("held_"): v for k, v in numbers.items() if k.startswith("held_")}
    metrics = {k: v for k, v in numbers.items() if not k.startswith("held_")}
    return StepRecord(step, 0.0, 0.0, 1, "mine", version, {"loss": 1.0, "grad_norm": 1.0, **metrics}, held)


def test_nothing_to_say_of_a_healthy_run() -> None:
    assert findings([]) == {}
    loss = [1.0 / n for n in range(1, 61)]
    accuracy = [0.6 + 0.005 * n for n in range(60)]
    healthy = steps(loss=loss, pair_accuracy=accuracy, grad_norm=[1.0] * 60)
    assert (
        findings([*healthy, record(61, pair_accuracy=0.9, held_pair_accuracy=0.85, held_displacement_frac=0.05)]) == {}
    )


@pytest.mark.parametrize(("share", "said"), [(0.0, False), (0.09, False), (0.12, True), (1.0, True)])
def test_displacement(share: float, said: bool) -> None:
    found = findings([record(1, held_displacement_frac=share)])
    assert ("displacement" in found) == said
    if said:
        assert found["displacement"].startswith(
            f"{share:.0%} of held-out pairs: margin up, chosen log-probability down"
        )


def test_displacement_lasts_until_the_next_evaluation() -> None:
    records = [record(1, held_displacement_frac=0.5), record(2), record(3)]
    assert "displacement" in findings(records)
    assert "displacement" not in findings([*records, record(4, held_displacement_frac=0.0)])


@pytest.mark.parametrize(
    ("accuracy", "loss", "count", "said"),
    [(1.0, 0.01, 20, True), (1.0, 0.01, 19, False), (0.9, 0.01, 20, False), (1.0, 0.5, 20, False)],
)
def test_saturation(accuracy: float, loss: float, count: int, said: bool) -> None:
    found = findings(steps(pair_accuracy=[accuracy] * count, loss=[loss] * count))
    assert ("saturation" in found) == said
    if said:
        assert "pair_accuracy has been 100% for 20 steps and the loss is 0.01" in found["saturation"]


def test_saturation_by_a_gradient_that_has_faded() -> None:
    # A loss with a floor (an offset, a label smoothing) saturates at a value that is not 0.
    records = steps(pair_accuracy=[1.0] * 30, loss=[0.4] * 30, grad_norm=[5.0] * 5 + [0.01] * 25)
    assert "saturation" in findings(records)


def test_saturation_counts_from_a_new_loss() -> None:
    records = [record(n, pair_accuracy=1.0, loss=0.0, version=1 + (n > 15)) for n in range(1, 31)]
    assert "saturation" not in findings(records)


@pytest.mark.parametrize(("name", "value"), [("grad_norm", float("nan")), ("grad_norm", float("inf"))])
def test_not_finite(name: str, value: float) -> None:
    assert f"{name} is {value:g}" in findings([record(1, **{name: value})])["not finite"]


def test_no_gradient() -> None:
    assert "exactly 0" in findings([record(1, grad_norm=0.0)])["no gradient"]
    assert "no gradient" not in findings([record(1, grad_norm=1e-12)])


def test_exploding_gradient() -> None:
    assert "40, 20 times the usual 2" in findings(steps(grad_norm=[2.0] * 12 + [40.0]))["exploding"]
    assert "exploding" not in findings(steps(grad_norm=[2.0] * 12 + [39.0]))
    assert "exploding" not in findings(steps(grad_norm=[2.0] * 8 + [400.0]))  # too early to call anything usual


def test_diverging_loss() -> None:
    up = [1.0] * 10 + [0.5] * 10 + [4.0] * 10
    assert "The loss is 4, up from 0.5 at its best and 1 before" in findings(steps(loss=up))["diverging"]
    noisy = ([0.1] * 4 + [3.0]) * 6  # single bad batches are no divergence
    assert "diverging" not in findings(steps(loss=noisy))
    small = [0.02] * 10 + [0.01] * 10 + [0.05] * 10  # all is learned; what is left jumps about
    assert "diverging" not in findings(steps(loss=small))
    assert "diverging" not in findings(steps(loss=[-1.0 * n for n in range(30)]))  # a reward, which goes down for good


def test_held_out_falling_behind() -> None:
    near = steps(pair_accuracy=[1.0] * 9)
    found = findings([*near, record(10, pair_accuracy=1.0, held_pair_accuracy=0.75)])
    assert "Held-out pair_accuracy is 75%, training 100%" in found["behind"]
    assert "behind" not in findings([*near, record(10, pair_accuracy=1.0, held_pair_accuracy=0.95)])
    # ahead is no trouble
    assert "behind" not in findings(
        [*steps(pair_accuracy=[0.5] * 9), record(10, pair_accuracy=0.5, held_pair_accuracy=0.9)]
    )


def test_held_out_nll_falling_behind() -> None:
    near = steps(nll=[1.0] * 9)
    assert "1.5 nats, training 1 nats" in findings([*near, record(10, nll=1.0, held_nll=1.5)])["behind"]
    assert "behind" not in findings([*near, record(10, nll=1.0, held_nll=1.1)])


def test_one_wording_while_it_lasts_and_a_new_one_after_it_went() -> None:
    diagnosis = Diagnosis()
    records: list[StepRecord] = []

    def add(share: float) -> list[str]:
        records.append(record(len(records) + 1, held_displacement_frac=share))
        return diagnosis.update(records)

    first = add(0.2)
    assert first[0].startswith("20%")
    assert add(0.3) == first
    assert add(0.4) == first
    assert add(0.0) == []
    assert add(0.5)[0].startswith("50%")


def test_each_finding_says_what_to_try() -> None:
    found: dict[str, Any] = {}
    for records in (
        [record(1, held_displacement_frac=0.5, grad_norm=0.0)],
        steps(pair_accuracy=[1.0] * 20, loss=[0.0] * 20),
        steps(loss=[1.0] * 20 + [9.0] * 10),
        steps(grad_norm=[1.0] * 20 + [900.0]),
        [*steps(pair_accuracy=[1.0] * 9), record(10, pair_accuracy=1.0, held_pair_accuracy=0.5)],
        [record(1, grad_norm=float("inf"))],
    ):
        found |= findings(records)
    assert len(found) == 7
    verbs = ("try", "lower", "Stop", "check", "look")
    assert all(any(verb in text for verb in verbs) for text in found.values())


def test_a_batch_that_is_satisfied_now_and_then_is_no_missing_gradient() -> None:
    """Five steps without a gradient are worth a word; one among others is not."""
    norms = [0.3, 0.0, 0.0, 0.2, 0.0]
    records = [record(step, grad_norm=norm) for step, norm in enumerate(norms, 1)]
    assert "no gradient" not in findings(records)
    assert "no gradient" in findings([*records, *(record(step, grad_norm=0.0) for step in range(6, 10))])


def test_a_step_is_not_lost_to_its_diagnosis(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights have moved when the numbers are looked at: whatever happens there, the record is kept."""

    def breaks(recent: Any) -> dict[str, str]:
        if len(recent) == 2:
            raise KeyError("clip_frac/high")
        return {}

    monkeypatch.setattr("mint_lab.runs.diagnosis.rl_findings", breaks)
    run = finish(make_run(steps=3))
    assert run.client.calls.count("optim_step") == len(run.records) == 3
    assert [record.warnings for record in run.records] == [
        [],
        ["The numbers of this step could not be read for advice: KeyError('clip_frac/high')"],
        [],
    ]
