"""Advice on hand-made numbers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from mint_lab.recipes.base import Recipe
from mint_lab.recipes.preference import Preference
from mint_lab.recipes.record import StepRecord
from mint_lab.runs import Run
from mint_lab.runs.advice import RunAdvice, findings

from .conftest import finish


def steps(**columns: Sequence[float]) -> list[StepRecord]:
    """Records whose metrics are the columns, ``held_``-prefixed ones held out."""
    n = len(next(iter(columns.values())))
    return [record(i + 1, **{name: values[i] for name, values in columns.items()}) for i in range(n)]


def record(step: int, *, version: int = 1, settings: dict[str, float] | None = None, **numbers: float) -> StepRecord:
    held = {k.removeprefix("held_"): v for k, v in numbers.items() if k.startswith("held_")}
    metrics = {k: v for k, v in numbers.items() if not k.startswith("held_")}
    return StepRecord(
        step, 0.0, 0.0, 1, "mine", version, {"loss": 1.0, "grad_norm": 1.0, **metrics}, held, settings=settings or {}
    )


def warnings_of(records: Sequence[StepRecord]) -> list[list[str]]:
    """The warnings of each step, as a run would keep them."""
    advice = RunAdvice()
    return [advice.update(records[max(0, k - advice.window) : k + 1]) for k in range(len(records))]


# Measured on the tiny model: learning_rate=0.1, 32 pairs a batch.
BLOWN_UP = {
    "loss": [1.026, 0.987, 2.705, 11.12, 5.346, 9.579, 9.047, 12.51, 6.89, 6.718, 16.72, 6.472, 10.79, 6.976, 9.674],
    "pair_accuracy": [0.41, 0.62, 0.31, 0.38, 0.44, 0.31, 0.72, 0.47, 0.38, 0.56, 0.41, 0.53, 0.38, 0.47, 0.47],
    "grad_norm": [1.48, 6.31, 11.1, 19.2, 34.2, 24.4, 10.1, 20.0, 15.0, 11.7, 24.6, 17.2, 19.4, 18.4, 18.4],
}


def test_healthy_run_gets_no_advice() -> None:
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


def test_spike_of_a_faded_gradient_is_no_explosion() -> None:
    faded = [1.4, 1.2, 1.1, 1.0, 0.9] + [0.003] * 60
    assert warnings_of(steps(grad_norm=[*faded, 0.207]))[-1] == []
    assert "9, 3000 times the usual 0.003" in warnings_of(steps(grad_norm=[*faded, 9.0]))[-1][0]
    jumped = steps(grad_norm=[*faded, 0.207], loss=[1.0] * 5 + [0.01] * 60 + [2.0])
    assert "0.207, 69 times the usual 0.003" in warnings_of(jumped)[-1][0], "the loss rose with it"


def test_saturated_run_is_not_warned_of_a_spike() -> None:
    norms = [0.003] * 30 + [0.2]
    records = steps(grad_norm=norms, pair_accuracy=[1.0] * 31, loss=[0.001] * 31)
    assert set(findings(records)) == {"saturation"}


def test_diverging_loss() -> None:
    up = [1.0] * 10 + [0.5] * 10 + [1.8] * 10
    assert "The loss is 1.8, up from 0.5 at its best and 1 before" in findings(steps(loss=up))["diverging"]
    noisy = ([0.1] * 4 + [3.0]) * 6  # single bad batches are no divergence
    assert "diverging" not in findings(steps(loss=noisy))
    small = [0.02] * 10 + [0.01] * 10 + [0.05] * 10  # all is learned; what is left jumps about
    assert "diverging" not in findings(steps(loss=small))
    assert "diverging" not in findings(steps(loss=[-1.0 * n for n in range(30)]))  # a reward, which goes down for good


def test_early_divergence_is_reported_at_once_and_as_long_as_it_lasts() -> None:
    long = {name: values + values[5:] * 6 for name, values in BLOWN_UP.items()}
    warnings = warnings_of(steps(**long))
    assert len(warnings) > 60, "further than the window goes back"
    assert warnings[:5] == [[]] * 5
    text = "The loss is 5.35 (median of the last steps), up from 1.03 at the start, and pair_accuracy is 41%"
    assert warnings[5][0].startswith(text)
    assert "it diverges. Lower the learning rate" in warnings[5][0]
    assert all(len(texts) == 1 and "diverges" in texts[0] for texts in warnings[5:])


def test_divergence_hides_its_consequences() -> None:
    records = steps(**BLOWN_UP)
    for k in range(9, 15):
        records[k].metrics["grad_norm"] = 0.0
    records[9].held_out.update({"displacement_frac": 0.4, "pair_accuracy": 0.2})
    assert set(findings(records)) == {"diverging"}


def test_higher_loss_of_a_learning_run_is_no_divergence() -> None:
    loss = [1.0] + [3.0] * 9
    assert "diverging" in findings(steps(loss=loss, pair_accuracy=[0.4] + [0.55] * 9))
    assert "diverging" not in findings(steps(loss=loss, pair_accuracy=[0.4] + [0.75] * 9))
    assert "diverging" not in findings(steps(loss=loss, nll=[2.0] + [1.5] * 9))
    assert "diverging" in findings(steps(loss=loss, nll=[2.0] + [6.0] * 9))


@pytest.mark.parametrize("start", [0.0, -0.5, 0.001])
def test_loss_that_starts_at_0_or_is_negative_is_not_compared_with_its_start(start: float) -> None:
    assert "diverging" not in findings(steps(loss=[start] + [0.15] * 9))
    assert "diverging" not in findings(steps(loss=[start, -1.0] + [4.0] * 7))


def test_divergence_compares_steps_of_one_loss_and_settings_at_any_learning_rate() -> None:
    other_loss = [record(n, version=1 + (n > 5), loss=1.0 if n <= 5 else 9.0) for n in range(1, 30)]
    assert warnings_of(other_loss) == [[]] * 29
    beta = [record(n, settings={"beta": 1.0 + (n > 5)}, loss=1.0 if n <= 5 else 9.0) for n in range(1, 30)]
    assert warnings_of(beta) == [[]] * 29
    # A lower rate has the same start, and is given the time to come back.
    loss = [1.0, *[9.0] * 9, *[0.9] * 20]
    rate = [record(n, settings={"learning_rate": 0.1 if n <= 10 else 0.01}, loss=x) for n, x in enumerate(loss, 1)]
    assert [bool(texts) for texts in warnings_of(rate)] == [False] * 5 + [True] * 10 + [False] * 15
    stuck = [*rate[:10], *(record(n, settings={"learning_rate": 0.01}, loss=9.0) for n in range(11, 80))]
    assert [bool(texts) for texts in warnings_of(stuck)][5:] == [True] * 74


# The loss of a batch at 97 to 100% accuracy is that of its few hard pairs; measured on the tiny model, summed over 32.
HARD_PAIRS = [0.3, 3.7, 2.0, 1.8, 0.3, 1.0, 1.5, 0.4, 3.7, 2.0, 1.8, 1.1, 2.6, 0.9, 1.4, 3.1] * 4


def changed_at_full_accuracy(losses: list[float], accuracy: float, **columns: float) -> list[StepRecord]:
    before = [record(n, loss=1.0 / n, pair_accuracy=min(1.0, 0.5 + n / 50)) for n in range(1, 61)]
    after = [record(60 + n, version=2, loss=x, pair_accuracy=accuracy, **columns) for n, x in enumerate(losses, 1)]
    return [*before, *after]


def test_loss_changed_at_full_accuracy_is_not_reported_as_diverged() -> None:
    """The first batch of the new loss happened to be easy; the model ranks as well as before."""
    texts = warnings_of(changed_at_full_accuracy(HARD_PAIRS, 0.99))[60:]
    assert not [text for step in texts for text in step if "diverge" in text]


def test_loss_changed_at_full_accuracy_is_reported_if_the_accuracy_falls() -> None:
    good = changed_at_full_accuracy(HARD_PAIRS[:10], 1.0)
    broken = [record(n, version=2, loss=20.0, pair_accuracy=0.5) for n in range(71, 90)]
    texts = warnings_of([*good, *broken])
    assert "diverges" in texts[-1][0]
    recovered = [record(n, version=2, loss=1.0, pair_accuracy=0.97) for n in range(90, 110)]
    assert not [text for text in warnings_of([*good, *broken, *recovered])[-1] if "diverge" in text], "not latched"


def test_loss_that_is_higher_in_every_step_is_reported_at_full_accuracy_too() -> None:
    """A likelihood term can blow up while the order of the two sides stays right."""
    texts = warnings_of(changed_at_full_accuracy([0.5] * 10 + [9.0] * 25, 1.0))
    assert "The loss is 9" in texts[-1][0]
    assert "diverges" in texts[-1][0]


def test_saturation_compares_gradients_of_one_loss() -> None:
    """A loss of a smaller scale has smaller gradients; they have not faded."""
    old = [record(n, grad_norm=100.0, pair_accuracy=1.0) for n in range(1, 26)]
    new = [record(n, version=2, grad_norm=1.0, pair_accuracy=1.0) for n in range(26, 50)]
    assert "saturation" not in findings([*old, *new])


def test_weights_that_ran_away_at_once_are_a_divergence() -> None:
    """Measured with learning_rate=1e3: one huge loss, then log-probabilities that are all alike."""
    records = steps(
        loss=[1.026, 3769.2, 1.437, 0.879, 0.858, 1.044, 0.858, 1.065],
        pair_accuracy=[0.41, 0.56, 0.0, 0.0, 0.03, 0.03, 0.03, 0.0],
        grad_norm=[1.48, 300384.0] + [0.0] * 6,
    )
    texts = warnings_of(records)
    assert texts[:6] == [[]] * 6
    assert len(texts[6]) == 1
    assert texts[6][0].startswith("The gradient is exactly 0, after a norm of 1.48 at the start, and pair_accuracy is")
    assert "the run diverged" in texts[6][0]
    assert "lower learning rate" in texts[6][0]


@pytest.mark.parametrize(
    ("columns", "kind"),
    [
        ({"pair_accuracy": [0.5] + [1.0] * 9}, "no gradient"),  # a satisfied hinge loss
        ({"pair_accuracy": [0.5] + [0.3] * 9}, "diverging"),
        ({"nll": [2.0] + [2.05] * 9}, "no gradient"),
        ({"nll": [2.0] + [7.0] * 9}, "diverging"),
        ({"logps/chosen": [-1.0] + [-10.0] * 9}, "no gradient"),
        ({"logps/chosen": [-1.0] + [-12.0] * 9}, "diverging"),
        ({"logps/chosen": [-1.0] + [-12.0] * 9, "rewards/auc": [0.5] + [0.9] * 9}, "no gradient"),
    ],
)
def test_missing_gradient_is_a_divergence_if_the_model_became_worse(columns: dict[str, list[float]], kind: str) -> None:
    found = findings(steps(loss=[1.0] * 10, grad_norm=[2.0] + [0.0] * 9, **columns))
    assert kind in found
    assert not {"no gradient", "diverging"} - {kind} & set(found)
    detached = findings(steps(loss=[1.0] * 10, grad_norm=[0.0] * 10, **columns))
    assert "diverging" not in detached, "it never had a gradient"


@pytest.mark.parametrize("recipe", ["preference", "sft", "unpaired", "rl"])
def test_learning_rate_of_a_thousand_sets_off_the_advice(recipe: str, tmp_path: Path) -> None:
    run = Run(recipe, steps=10, learning_rate=1e3, folder=tmp_path / "run", eval_every=20)
    run.start()
    run.wait(300, check=True)
    assert any("diverge" in text for text in run.records[-1].warnings)
    assert not any("preflight" in text for record in run.records for text in record.warnings)


def test_broken_model_is_not_reported_as_a_detached_loss() -> None:
    """With learning_rate=5.0, log-probabilities end where they are all alike: the loss is low again, the gradient 0."""
    records = steps(
        loss=[1.03, 20.0, 3500.0, 9000.0, 20000.0, 30000.0, 20000.0, 15000.0] + [1.05] * 80,
        pair_accuracy=[0.41, 0.59, 0.38, 0.72, 0.53, 0.59, 0.47, 0.44] + [0.01] * 80,
        grad_norm=[1.5] + [1000.0] * 7 + [0.0] * 80,
    )
    for record in records[9::10]:
        record.held_out.update({"pair_accuracy": 0.01, "displacement_frac": 0.49})
    warnings = warnings_of(records)
    assert all(len(texts) == 1 and "diverge" in texts[0] for texts in warnings[5:])
    assert warnings[-1][0].startswith("The loss went up from 1.03 at the start to 1.5e+04, and is now 1.05")
    assert "Start again with a lower learning rate" in warnings[-1][0]
    good = warnings_of([*records, *(better(n) for n in range(89, 120))])
    assert good[-1] == []


def better(step: int) -> StepRecord:
    return record(step, loss=0.5, pair_accuracy=0.8, held_displacement_frac=0.0)


def test_first_loss_of_a_small_batch_may_be_low_by_chance() -> None:
    loss = [0.02] + [1.0] * 20
    assert "diverging" in findings([record(n, settings={"batch_size": 32.0}, loss=x) for n, x in enumerate(loss, 1)])
    assert "diverging" not in findings([record(n, settings={"batch_size": 2.0}, loss=x) for n, x in enumerate(loss, 1)])


def test_loss_of_small_batches_may_jump_in_a_run_that_learns() -> None:
    loss = [0.5] * 10 + [0.05] * 20 + [1.0] * 15

    def run(batch_size: float, accuracy: float) -> list[StepRecord]:
        settings = {"batch_size": batch_size}
        rates = [0.5] * 10 + [accuracy] * 35
        return [
            record(n, settings=settings, loss=x, pair_accuracy=rate)
            for n, (x, rate) in enumerate(zip(loss, rates, strict=True), 1)
        ]

    assert "diverging" not in findings(run(2.0, 0.85))
    assert "diverging" in findings(run(2.0, 0.5))
    assert "diverging" in findings(run(32.0, 0.85))


def test_overfitting_by_pair_accuracy() -> None:
    near = steps(pair_accuracy=[1.0] * 9)
    found = findings([*near, record(10, pair_accuracy=1.0, held_pair_accuracy=0.75)])
    assert "Overfitting: held-out pair_accuracy is 75%, training 100%. Stop earlier" in found["behind"]
    assert "behind" not in findings([*near, record(10, pair_accuracy=1.0, held_pair_accuracy=0.95)])
    # ahead is no trouble
    assert "behind" not in findings(
        [*steps(pair_accuracy=[0.5] * 9), record(10, pair_accuracy=0.5, held_pair_accuracy=0.9)]
    )


def test_training_no_better_than_a_coin_cannot_overfit() -> None:
    def behind(train: float, held: float) -> bool:
        near = steps(pair_accuracy=[train] * 9)
        return "behind" in findings([*near, record(10, pair_accuracy=train, held_pair_accuracy=held)])

    assert not behind(0.51, 0.39)
    assert not behind(0.6, 0.45)
    assert behind(0.7, 0.5)
    assert not behind(0.7, 0.65)


def test_overfitting_by_nll() -> None:
    near = steps(nll=[1.0] * 9)
    assert "1.5 nats, training 1 nats" in findings([*near, record(10, nll=1.0, held_nll=1.5)])["behind"]
    assert "behind" not in findings([*near, record(10, nll=1.0, held_nll=1.1)])


def test_wording_is_kept_while_the_finding_lasts() -> None:
    advice = RunAdvice()
    records: list[StepRecord] = []

    def add(**numbers: float) -> list[str]:
        records.append(record(len(records) + 1, **numbers))
        return advice.update(records)

    first = add(held_displacement_frac=0.2)
    assert first[0].startswith("20%")
    assert add(held_displacement_frac=0.24) == first
    assert add() == first
    assert add(held_displacement_frac=0.0) == []
    assert add(held_displacement_frac=0.23)[0].startswith("23%")


def test_number_is_updated_if_it_changed_noticeably() -> None:
    shares = [0.22, 0.24, 0.26, 0.28, 0.3, 0.94, 0.91, 0.88]
    texts = warnings_of([record(n, held_displacement_frac=share) for n, share in enumerate(shares, 1)])
    assert [text[0][:3] for text in texts] == ["22%", "22%", "22%", "28%", "28%", "94%", "94%", "88%"]


def test_number_is_updated_at_evaluations_or_after_a_window_without_one() -> None:
    loss = [1.0, *[4.0] * 9, *[8.0] * 90]
    records = steps(loss=loss)
    records[29].held_out["pair_accuracy"] = 0.5
    texts = [text[0] for text in warnings_of(records)[5:]]
    assert [text[:14] for text in texts] == ["The loss is 4 "] * 24 + ["The loss is 8 "] * 71
    del records[29].held_out["pair_accuracy"]
    texts = [text[0] for text in warnings_of(records)[5:]]
    assert [text[:14] for text in texts] == ["The loss is 4 "] * 50 + ["The loss is 8 "] * 45


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
    verbs = ("try", "ower", "Stop", "check", "look")
    assert all(any(verb in text for verb in verbs) for text in found.values())


def test_single_batches_without_gradient_are_not_reported() -> None:
    """Five steps without a gradient in a row are reported; single ones are not."""
    norms = [0.3, 0.0, 0.0, 0.2, 0.0]
    records = [record(step, grad_norm=norm) for step, norm in enumerate(norms, 1)]
    assert "no gradient" not in findings(records)
    assert "no gradient" in findings([*records, *(record(step, grad_norm=0.0) for step in range(6, 10))])


class _Chess(Recipe):
    """A recipe that counts lost games; the value of its loss gives only a direction."""

    name = "chess"
    default_loss = "cross_entropy"
    lower_loss_is_better = False

    def prepare(self, tokenizer: Any, data: Any, held_out: Any, *, seed: int, max_length: int | None = None) -> Any: ...

    def advice(self, recent: Sequence[StepRecord]) -> dict[str, str]:
        lost = sum(record.metrics["lost"] for record in recent)
        return {"lost games": f"{lost:g} games lost: play an easier opponent" if lost > 2 else "", "draws": ""}


def test_recipe_adds_its_own_findings() -> None:
    assert findings(steps(lost=[1, 1]), recipe=_Chess()) == {}
    assert findings(steps(lost=[1, 1, 1]), recipe=_Chess()) == {"lost games": "3 games lost: play an easier opponent"}
    advice = RunAdvice(_Chess())
    assert advice.update(steps(lost=[2, 2])) == ["4 games lost: play an easier opponent"]
    assert RunAdvice().update(steps(lost=[2, 2])) == []


def test_recipe_sees_the_last_records_only() -> None:
    counted: list[int] = []

    class Counting(_Chess):
        def advice(self, recent: Sequence[StepRecord]) -> dict[str, str]:
            counted.append(len(recent))
            return {}

    findings(steps(lost=[0.0] * 80), recipe=Counting())
    assert counted == [RunAdvice.window]


def test_recipe_says_whether_a_rising_loss_is_bad() -> None:
    blown_up = steps(**BLOWN_UP, lost=[0] * len(BLOWN_UP["loss"]))
    assert "diverging" in findings(blown_up)
    assert "diverging" not in findings(blown_up, recipe=_Chess())


def test_failing_advice_does_not_lose_the_step(make_run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The weights are updated before the advice is computed, so the record must be kept whatever happens there."""

    def breaks(self: Preference, recent: Any) -> dict[str, str]:
        if len(recent) == 2:
            raise KeyError("clip_frac/high")
        return {}

    monkeypatch.setattr(Preference, "advice", breaks)
    run = finish(make_run(steps=3))
    assert run.client.calls.count("optim_step") == len(run.records) == 3
    assert [record.warnings for record in run.records] == [
        [],
        ["The numbers of this step could not be read for advice: KeyError('clip_frac/high')"],
        [],
    ]
