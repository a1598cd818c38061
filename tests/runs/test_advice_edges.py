"""Each threshold of the advice just below, at and just above its edge, and each text word for word.

``record``, ``steps`` and ``warnings_of`` are those of ``test_advice``.
"""

from __future__ import annotations

from math import inf, nan, nextafter

import pytest

from mint_lab.runs import advice
from mint_lab.runs.advice import EarlierSteps, RunAdvice, findings

from .test_advice import record, steps, warnings_of

DIVERGES = "it diverges. Lower the learning rate, and start again if the loss does not recover"


def sized(losses: list[float], batch_size: float = 64.0, **columns: list[float]) -> list:
    """Records of one batch size; with 64 items or more, a loss has blown up at twice its start."""
    records = steps(loss=losses, **columns)
    for each in records:
        each.settings["batch_size"] = batch_size
    return records


def test_displacement_begins_at_a_tenth_of_the_pairs() -> None:
    assert findings([record(1, held_displacement_frac=nextafter(0.1, 0))]) == {}
    assert findings([record(1, held_displacement_frac=0.1)]) == {
        "displacement": "10% of held-out pairs: margin up, chosen log-probability down (displacement). The loss lowers "
        "the rejected side more than it raises the chosen one; try fewer steps, a lower learning rate, or a loss that "
        "also raises the chosen side"
    }


@pytest.mark.parametrize(
    ("losses", "accuracies", "norms", "said"),
    [
        ([0.0199] * 20, [1.0] * 20, [1.0] * 20, True),
        ([0.0199] * 19 + [0.02], [1.0] * 20, [1.0] * 20, False),
        ([-0.0199] * 20, [1.0] * 20, [1.0] * 20, True),
        ([-0.02] * 20, [1.0] * 20, [1.0] * 20, False),
        ([0.0] * 20, [1.0] * 19 + [0.8], [1.0] * 20, True),  # mean 0.99
        ([0.0] * 20, [1.0] * 19 + [0.79], [1.0] * 20, False),
        ([0.4] * 21, [1.0] * 21, [100.0] + [1.99] * 20, True),  # the norm has faded to 0.02 of the largest one
        ([0.4] * 21, [1.0] * 21, [100.0] + [2.0] * 20, False),
        ([0.4] * 40, [1.0] * 40, [100.0] * 29 + [1.0] * 11, True),  # 11 of the last 20
        ([0.4] * 40, [1.0] * 40, [100.0] * 31 + [1.0] * 9, False),
    ],
)
def test_saturation_at_its_edges(losses: list[float], accuracies: list[float], norms: list[float], said: bool) -> None:
    assert ("saturation" in findings(steps(loss=losses, pair_accuracy=accuracies, grad_norm=norms))) == said


def test_saturation_reads_the_last_20_steps() -> None:
    """Mean accuracy (19 + 0.95) / 20 = 99.75%, median loss of 0.004 and 0.008: 0.006."""
    records = steps(loss=[9.0] * 5 + [0.004] * 10 + [0.008] * 10, pair_accuracy=[0.0] * 5 + [0.95] + [1.0] * 19)
    assert findings(records)["saturation"] == (
        "Saturated: pair_accuracy has been 100% for 20 steps and the loss is 0.006; there is little left to learn from "
        "these pairs. Stop here, or use harder pairs"
    )


@pytest.mark.parametrize(
    ("metrics", "text"),
    [
        ({"loss": nan}, "loss is nan"),
        ({"loss": -inf, "grad_norm": nan}, "loss is -inf and grad_norm is nan"),
    ],
)
def test_number_that_is_not_finite_is_named(metrics: dict[str, float], text: str) -> None:
    advised = ": lower the learning rate, and look for log(0) or exp in the loss"
    assert findings([record(1, **metrics)]) == {"not finite": text + advised}
    assert findings([record(1, **metrics), record(2)]) == {}, "only the last step counts"
    assert findings([record(1, mean_margin=nan)]) == {}


def test_no_gradient_takes_five_steps_of_the_same_settings() -> None:
    text = (
        "The gradient is exactly 0, so the model does not learn: the loss may be detached, clipped or satisfied on all "
        "data; check it with preflight"
    )
    assert findings(steps(grad_norm=[1.0, 1.0] + [0.0] * 4)) == {}
    assert findings(steps(grad_norm=[1.0, 1.0] + [0.0] * 5)) == {"no gradient": text}
    changed = [record(1, grad_norm=1.0), record(2, grad_norm=0.0, version=2)]
    assert findings(changed) == {"no gradient": text}, "the step before belongs to another loss"


@pytest.mark.parametrize(
    ("norms", "said"),
    [
        ([2.0] * 8 + [40.0], False),  # nine norms
        ([2.0] * 9 + [40.0], True),
        ([2.0] * 9 + [nextafter(40.0, 0)], False),
        ([nan] * 9 + [40.0], False),
        ([0.0] * 9 + [40.0], False),
        ([10.0] * 5 + [0.1] * 20 + [30.0], True),  # three times the norm at the start
        ([10.0] * 5 + [0.1] * 20 + [nextafter(30.0, 0)], False),
        ([0.1, 0.1] + [10.0] * 3 + [0.1] * 20 + [29.0], False),  # median of the first five: 10; of four or six: 5.05
    ],
)
def test_gradient_explodes_at_20_times_the_usual_and_3_times_the_start(norms: list[float], said: bool) -> None:
    assert ("exploding" in findings(steps(grad_norm=norms))) == said


def test_usual_gradient_norm_is_the_median_of_all_norms_before() -> None:
    """Of four 1s and five 3s the median is 3; without the last 3 it would be 2."""
    text = "The gradient norm is 60, 20 times the usual 3: lower the learning rate"
    assert findings(steps(grad_norm=[1.0] * 4 + [3.0] * 5 + [60.0])) == {"exploding": text}


@pytest.mark.parametrize(
    ("usual", "last", "said"),
    [
        (1.0, 3.0, False),
        (1.0, nextafter(3.0, 4), True),
        (0.0625, 0.2625, False),  # 0.2 more, over three times as much
        (0.0625, 0.263, True),
        (0.0, 9.0, False),
    ],
)
def test_jump_of_the_loss_that_makes_a_faded_gradient_explode(usual: float, last: float, said: bool) -> None:
    norms = [10.0] * 5 + [0.1] * 20 + [9.0]
    losses = [usual] * 20 + [usual * 1.5] * 5 + [last]  # their median is the usual loss
    found = findings(steps(grad_norm=norms, loss=losses))
    expected = "The gradient norm is 9, 90 times the usual 0.1: lower the learning rate"
    assert found.get("exploding", "") == (expected if said else "")


@pytest.mark.parametrize(
    ("batch_size", "losses", "said"),
    [
        (64.0, [1.0] + [2.0] * 5, False),
        (64.0, [1.0] + [2.001] * 5, True),
        (64.0, [1.0] + [9.0] * 4, False),  # four steps after the first
        (64.0, [0.125] + [0.325] * 5, False),  # 0.2 more
        (64.0, [0.125] + [0.326] * 5, True),
        (64.0, [1.0, 0.0] + [4.0] * 5, True),
        (32.0, [1.0] + [2.02] * 5, False),  # exp(4 / sqrt(32)) = 2.028
        (32.0, [1.0] + [2.03] * 5, True),
        (16.0, [1.0] + [2.71] * 5, False),  # exp(4 / sqrt(16)) = 2.718
        (16.0, [1.0] + [2.72] * 5, True),
        (15.0, [1.0] * 3 + [2.44] * 8, False),  # exp(6 / sqrt(3 * 15)) = 2.446
        (15.0, [1.0] * 3 + [2.45] * 8, True),
        (15.0, [1.0] * 3 + [2.45] * 7, False),  # nine steps after the first
        (15.0, [0.1, 0.1, 1.0] + [2.44] * 8, False),  # the highest of three losses is the start
        (15.0, [0.1, 0.1, 0.1, 1.0] + [2.44] * 8, True),
    ],
)
def test_loss_far_above_its_start_diverges(batch_size: float, losses: list[float], said: bool) -> None:
    assert ("diverging" in findings(sized(losses, batch_size))) == said


def test_numbers_are_rounded_for_a_reader() -> None:
    blown_up = findings(sized([1.23456] + [7.65432] * 6, pair_accuracy=[0.41234] * 7))["diverging"]
    assert blown_up.startswith("The loss is 7.65 (median of the last steps), up from 1.23 at the start, and pair_accur")
    assert "pair_accuracy is 41%, no better" in blown_up
    risen = findings(sized([1.0123] * 5 + [0.51234] * 10 + [1.81234] * 5))["diverging"]
    assert risen.startswith("The loss is 1.81, up from 0.512 at its best and 1.01 before")
    exploded = findings(steps(grad_norm=[2.01234] * 12 + [123.456]))["exploding"]
    assert exploded.startswith("The gradient norm is 123, 61 times the usual 2.01")
    saturated = findings(steps(loss=[0.0123456] * 20, pair_accuracy=[0.99654] * 20))["saturation"]
    assert saturated.startswith("Saturated: pair_accuracy has been 100% for 20 steps and the loss is 0.012;")
    behind = findings([*steps(nll=[1.23456] * 4), record(5, nll=1.23456, held_nll=2.34567)])["behind"]
    assert behind.startswith("Overfitting: held-out nll is 2.35 nats, training 1.23 nats.")
    assert findings([record(1, held_displacement_frac=0.12345)])["displacement"].startswith("12% of held-out pairs")
    assert findings([record(1, loss=-inf)])["not finite"].startswith("loss is -inf: lower")


def test_batch_size_is_32_if_a_run_does_not_say_it() -> None:
    assert "diverging" not in findings(steps(loss=[1.0] + [2.02] * 5))
    assert "diverging" in findings(steps(loss=[1.0] + [2.03] * 5))


def test_divergence_gives_the_median_of_ten_steps() -> None:
    """Of five 9s and five 5s the median is 7."""
    text = f"The loss is 7 (median of the last steps), up from 1 at the start: {DIVERGES}"
    assert findings(sized([1.0] + [9.0] * 10 + [5.0] * 5)) == {"diverging": text}


@pytest.mark.parametrize(
    ("start", "late", "words"),
    [
        (0.4, 0.6, "60%, no better than by chance"),  # at most 0.1 above chance
        (0.4, 0.61, None),
        (0.75, 0.84, "84%, after 75%"),
        (0.75, 0.86, None),
    ],
)
def test_pair_accuracy_that_shows_learning(start: float, late: float, words: str | None) -> None:
    found = findings(sized([1.0] + [3.0] * 10, pair_accuracy=[start] + [late] * 10))
    text = f"The loss is 3 (median of the last steps), up from 1 at the start, and pair_accuracy is {words}: {DIVERGES}"
    assert found == ({} if words is None else {"diverging": text})


def test_accuracy_at_the_start_of_a_small_batch_is_a_mean() -> None:
    """Of 0.2, 0.4 and 0.6 the mean is 0.4, so more than 0.6 shows learning; their highest would ask for 0.7."""
    accuracy = [0.2, 0.4, 0.6] + [0.65] * 10
    assert "diverging" not in findings(sized([1.0] * 3 + [50.0] * 10, 2.0, pair_accuracy=accuracy))
    still = [0.2, 0.4, 0.6] + [0.59] * 10
    assert "diverging" in findings(sized([1.0] * 3 + [50.0] * 10, 2.0, pair_accuracy=still))


def test_nll_shows_learning_only_below_its_start() -> None:
    assert "diverging" in findings(sized([1.0] + [3.0] * 9, nll=[2.0] * 10))
    assert "diverging" not in findings(sized([1.0] + [3.0] * 9, nll=[2.0] + [1.999] * 9))


@pytest.mark.parametrize("name", ["learning_rate", "warmup_steps", "grad_clip_norm", "beta"])
def test_start_is_kept_over_an_edit_of_an_optimizer_setting_only(name: str) -> None:
    records = sized([1.0] * 3 + [9.0] * 6)
    for each in records:
        each.settings[name] = 1.0 + (each.step > 3)
    expected = {} if name == "beta" else {"diverging"}
    assert set(findings(records)) == set(expected)


@pytest.mark.parametrize(
    "columns",
    [
        {"grad_norm": [1.0] * 25 + [900.0]},
        {"grad_norm": [0.0] * 26},
        {"pair_accuracy": [1.0] * 26, "grad_norm": [100.0] + [1.0] * 25},
        {"pair_accuracy": [0.9] * 26, "held_pair_accuracy": [0.5] * 26},
        {"held_displacement_frac": [0.5] * 26},
    ],
)
def test_divergence_hides_each_of_its_consequences(columns: dict[str, list[float]]) -> None:
    assert set(findings(sized([1.0] + [9.0] * 25, **columns))) == {"diverging"}
    assert len(findings(sized([1.0] * 26, **columns))) == 1, "without a divergence it is reported"


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ([1.0] * 5 + [0.5] * 10 + [1.5] * 5, True),  # three times the best
        ([1.0] * 5 + [0.5] * 10 + [nextafter(1.5, 1)] * 5, False),
        ([1.0] * 5 + [0.5] * 9 + [1.5] * 5, False),  # 19 losses
        ([0.2] * 5 + [0.0625] * 10 + [0.2625] * 5, True),  # 0.2 above the best
        ([0.2] * 5 + [0.0625] * 10 + [0.262] * 5, False),
        ([1.5] * 5 + [0.5] * 10 + [1.5] * 5, False),  # as high as at first
        ([1.0] * 5 + [0.5] * 10 + [1.6, 1.6, 1.6, 0.5, 0.5], True),  # median of the last five; of four: 1.05
        ([1.0] * 5 + [0.0] * 10 + [1.6] * 5, False),
    ],
)
def test_rise_from_the_best_loss_of_large_batches(losses: list[float], said: bool) -> None:
    text = f"The loss is {losses[-5]:.3g}, up from {min(losses):.3g} at its best and {losses[0]:.3g} before: "
    found = advice._rising(losses, 5)
    assert found == (f"{text}it diverges. Lower the learning rate" if said else "")


def test_losses_of_large_and_small_batches_are_smoothed_over_5_and_20_steps() -> None:
    """A median over 5 steps of three 1.6 is 1.6, over 6 steps 1.05; small batches take twice 20 losses."""
    last = [0.5, 0.5, 0.5, 1.6, 1.6, 1.6]
    assert "diverging" in findings(sized([1.0] * 5 + [0.5] * 10 + last))
    assert "diverging" not in findings(sized([1.0] * 20 + [0.5] * 10 + [1.6] * 9, 15.0))
    assert advice._rising([0.5] * 20 + [1.6] * 19, 20) == "", "39 losses"
    assert advice._rising([0.5] * 20 + [1.6] * 20, 20).startswith("The loss is 1.6, up from 0.5 at its best")


def test_batches_of_16_count_as_large() -> None:
    """A rise over 5 steps is reported for 16 items; with 15, losses are smoothed over 20 steps."""
    losses = [1.0] * 5 + [0.5] * 30 + [1.6] * 5
    assert "diverging" in findings(sized(losses, 16.0))
    assert "diverging" not in findings(sized(losses, 15.0))


@pytest.mark.parametrize(
    ("train", "held", "said"),
    [(0.65, 0.5, True), (0.649, 0.3, False), (1.0, 0.9, False), (1.0, 0.899, True)],
)
def test_overfitting_by_pair_accuracy_at_its_edges(train: float, held: float, said: bool) -> None:
    found = findings([*steps(pair_accuracy=[train] * 4), record(5, pair_accuracy=train, held_pair_accuracy=held)])
    text = (
        f"Overfitting: held-out pair_accuracy is {held:.0%}, training {train:.0%}. Stop earlier, use more data, or "
        "lower the LoRA rank"
    )
    assert found == ({"behind": text} if said else {})


def test_gap_that_overfitting_allows_is_allowed_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advice, "OVERFIT_GAP", 0.25)
    records = [*steps(pair_accuracy=[1.0] * 4), record(5, pair_accuracy=1.0, held_pair_accuracy=0.75)]
    assert findings(records) == {}


@pytest.mark.parametrize(
    ("train", "held", "said"),
    [
        (0.0, 0.05, False),  # the floor
        (0.0, nextafter(0.05, 1), True),
        (100.0, 110.04, False),  # a tenth and the floor
        (100.0, 110.06, True),
        (-100.0, -89.96, False),
        (-100.0, -89.94, True),
    ],
)
def test_overfitting_by_nll_at_its_edges(train: float, held: float, said: bool) -> None:
    found = findings([*steps(nll=[train] * 4), record(5, nll=train, held_nll=held)])
    text = (
        f"Overfitting: held-out nll is {held:.3g} nats, training {train:.3g} nats. Stop earlier, use more data, or "
        "lower the LoRA rank"
    )
    assert found == ({"behind": text} if said else {})


def test_overfitting_compares_five_to_ten_steps_before_the_evaluation() -> None:
    """Steps 11 to 20: (0.9 + 9) / 10 = 99%. With step 10 it would be 90%, without step 11 100%."""
    accuracy = [0.0] * 10 + [0.9] + [1.0] * 9 + [0.0] * 5
    records = steps(pair_accuracy=accuracy)
    records[19].held_out["pair_accuracy"] = 0.7
    assert findings(records)["behind"].startswith("Overfitting: held-out pair_accuracy is 70%, training 99%.")
    four = [*steps(pair_accuracy=[1.0] * 3), record(4, pair_accuracy=1.0, held_pair_accuracy=0.5)]
    assert findings(four) == {}


def test_earlier_steps_keep_the_first_five_of_a_loss() -> None:
    records = [record(n, version=1 + (n > 8)) for n in range(1, 70)]
    earlier = EarlierSteps()
    kept = []
    for k in range(len(records)):
        earlier.update(records[max(0, k - 49) : k + 1])
        kept.append([each.step for each in earlier.first])
    assert kept[:8] == [[1], [1, 2], [1, 2, 3], [1, 2, 3, 4], *[[1, 2, 3, 4, 5]] * 4]
    assert kept[8:11] == [[9], [9, 10], [9, 10, 11]]
    assert kept[12:] == [[9, 10, 11, 12, 13]] * 57


def test_peak_of_the_old_loss_is_gone_at_the_first_step_of_the_new_one() -> None:
    records = [record(n, loss=1.0 if n == 1 else 9.0) for n in range(1, 11)]
    earlier = EarlierSteps()
    peaks = []
    for swapped in [*records, record(11, version=2, loss=9.0)]:
        earlier.update([*records[: swapped.step - 1], swapped])
        peaks.append(earlier.peak)
    assert peaks == [0.0] * 5 + [9.0] * 5 + [0.0]


@pytest.mark.parametrize(
    ("late", "recovered"),
    [
        ({"loss": 0.99}, True),
        ({"loss": 1.0}, False),  # as high as at the start
        ({"loss": 0.99, "pair_accuracy": 0.5}, True),
        ({"loss": 0.99, "pair_accuracy": 0.49}, False),
        ({"loss": 5.0, "pair_accuracy": 0.61}, True),
        ({"loss": 0.99, "nll": 2.0}, False),
        ({"loss": 5.0, "nll": 1.99}, True),
    ],
)
def test_recovery_from_a_divergence(late: dict[str, float], recovered: bool) -> None:
    """The start has loss 1, pair_accuracy 0.5 and nll 2; the peak of 9 is the highest median."""
    start = {"loss": 1.0, "pair_accuracy": 0.5, "nll": 2.0}
    names = [name for name in start if name in late]
    columns = {name: [start[name]] + [9.0 if name == "loss" else start[name]] * 9 + [late[name]] * 12 for name in names}
    records = sized(columns.pop("loss"), **columns)
    records[-1].held_out["loss"] = 1.0  # an evaluation, at which the advice is worded again
    texts = warnings_of(records)
    accuracy = f", and pair_accuracy is {late.get('pair_accuracy', 0):.0%}, no better than by chance"
    text = (
        f"The loss went up from 1 at the start to 9, and is now {late['loss']:.3g}"
        f"{accuracy if 'pair_accuracy' in late else ''}: the run diverged and has not recovered. Start again with a "
        "lower learning rate"
    )
    assert texts[9][0].startswith("The loss is 9 (median of the last steps), up from 1 at the start")
    assert texts[-1] == ([] if recovered else [text])


@pytest.mark.parametrize(
    ("before", "now", "differs"),
    [
        ("loss 4", "loss 5", False),  # a quarter
        ("loss 4", "loss 5.01", True),
        ("loss 4", "loss 3", False),
        ("loss 4", "loss 2.99", True),
        ("loss -4", "loss -5.01", True),
        ("loss 1,000", "loss 1,250", False),
        ("loss 1,000", "loss 1,251", True),
        ("loss 1e-3", "loss 1.3e-3", True),
        ("90%", "94.9%", False),
        ("90%", "95%", True),  # five points
        ("20%", "24.9%", False),
        ("4 and 90%", "4 and 90%", False),
        ("4 and 90%", "4 and 60%", True),
        ("loss 4", "cost 4", True),
    ],
)
def test_change_that_a_reader_notices(before: str, now: str, differs: bool) -> None:
    assert advice._differs_noticeably(before, now) == differs


def test_window_is_50_records() -> None:
    assert RunAdvice.window == 50
    old = steps(loss=[1.0] * 50)
    old[0].held_out["displacement_frac"] = 0.5
    assert "displacement" in findings(old)
    assert "displacement" not in findings([*old, record(51)]), "the evaluation is 51 records ago"
