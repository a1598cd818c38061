"""The trainer on a fixed data set: which items a step uses, what it records, and what an evaluation reads."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mint_lab.data import to_datum
from mint_lab.errors import DataError, LossError
from mint_lab.losses import LOSSES, LossSpec
from mint_lab.losses.decorator import spec_of
from mint_lab.recipes import BatchJob, Measured
from mint_lab.recipes.batch_trainer import EVALUATION_CHUNK, BatchTrainer
from mint_lab.recipes.job import ShuffledSampler
from mint_lab.recipes.plan import StepPlan
from mint_lab.types import Datum

from ..runs.bigram import BigramClient


def datum(text: str) -> Datum:
    """A sequence whose first token is the prompt."""
    return to_datum([ord(c) for c in text], 1)


def text_of(datum: Datum) -> str:
    tokens = [*datum.model_input.to_ints(), datum.loss_fn_inputs["target_tokens"].tolist()[-1]]
    return "".join(map(chr, tokens))


class Job(BatchJob):
    """Measures the mean log-probability of the first target, and of held-out data the change since the baseline."""

    def measure(self, data: list[Any], logprobs: list[torch.Tensor]) -> Measured:
        return Measured(
            {"first": float(torch.stack([row[0] for row in logprobs]).mean())}, {"margin": [len(data)] * 40}
        )

    def evaluate(self, data: list[Any], logprobs: list[torch.Tensor], baseline: list[torch.Tensor]) -> Measured:
        return Measured({"change": sum(float(a[0] - b[0]) for a, b in zip(logprobs, baseline, strict=True))})


def make(train: list[str], held_out: list[str], *, seed: int = 0, unit: int = 1) -> BatchTrainer:
    job = Job([datum(text) for text in train], [datum(text) for text in held_out], unit)
    return BatchTrainer(BigramClient(), job, seed)


def plan(loss: str | LossSpec = "cross_entropy", **options: Any) -> StepPlan:
    spec = LOSSES[loss] if isinstance(loss, str) else loss
    options = {"learning_rate": 0.1, "warmup_steps": 0, "grad_clip_norm": 0.0, "batch_size": 2, "steps": 4, **options}
    return StepPlan.first(spec, {}, **options)


def step(trainer: BatchTrainer, number: int, plan: StepPlan, *, evaluate: bool = False, last: bool = False) -> Any:
    return trainer.step(number, plan, evaluate=evaluate, last=last, started=0.0)


def test_steps_use_the_items_of_the_shuffled_stream() -> None:
    """Five items in batches of two: the third batch takes one item of the first epoch and one of the second."""
    texts = ["ab", "cd", "ef", "gh", "ij"]
    trainer = make(texts, ["kl"], seed=3)
    trainer.measure_baseline(plan())
    for number in (1, 2, 3):
        step(trainer, number, plan())
    client: Any = trainer.client
    assert [[text_of(d) for d in batch] for batch in client.batches] == [
        [texts[i] for i in ShuffledSampler(5, 3).items(start, 2)] for start in (0, 2, 4)
    ]


def test_pairs_stay_together() -> None:
    trainer = make(["aa", "ab", "ba", "bb"], ["ca", "cb"], unit=2)
    trainer.measure_baseline(plan())
    step(trainer, 1, plan(batch_size=1))
    client: Any = trainer.client
    assert [text_of(d) for d in client.batches[0]] in (["aa", "ab"], ["ba", "bb"])


def test_record_has_measures_of_before_the_update_and_those_of_the_loss() -> None:
    """A bigram table gives the log-probability of "b" after "a" and of "c" after "a" by hand."""
    trainer = make(["ab", "ac"], ["ab"])
    client: Any = trainer.client
    row = client.table.detach().log_softmax(-1)[ord("a")]
    trainer.measure_baseline(plan())
    record = step(trainer, 1, plan())
    mean = float((row[ord("b")] + row[ord("c")]) / 2)
    assert record.metrics["first"] == pytest.approx(mean, abs=1e-6)
    assert record.metrics["loss"] == pytest.approx(-2 * mean, abs=1e-5)  # cross_entropy is a sum
    assert record.metrics["grad_norm"] > 0
    assert record.tokens == 2
    assert record.histograms == {"margin": [2] * 40}
    assert (record.loss_name, record.loss_version) == ("cross_entropy", 1)
    assert record.held_out == {}
    client_calls = [call for call in client.calls if call != "forward"]
    assert client_calls == ["forward_backward", "optim_step"]


def test_evaluation_compares_with_the_baseline() -> None:
    trainer = make(["ab"] * 4, ["ab"])
    trainer.measure_baseline(plan())
    assert trainer.baseline["change"] == 0
    first = step(trainer, 1, plan(), evaluate=True)
    second = step(trainer, 2, plan(), last=True)
    assert 0 < first.held_out["change"] < second.held_out["change"], "the only transition becomes likelier"
    assert first.held_out["loss"] > second.held_out["loss"]


def test_quick_evaluation_compares_each_item_with_itself() -> None:
    """Without learning, nothing has changed since the baseline; 50 of the 60 items are evaluated."""
    texts = [f"{chr(97 + k % 26)}{chr(65 + k % 23)}" for k in range(60)]
    trainer = make(["ab"] * 4, texts)
    trainer.measure_baseline(plan())
    record = step(trainer, 1, plan(learning_rate=0.0), evaluate=True)
    assert record.held_out["change"] == 0.0


def test_record_counts_tokens_and_not_datums() -> None:
    trainer = make(["abc", "defghi"], ["jk"])
    trainer.measure_baseline(plan())
    assert step(trainer, 1, plan()).tokens == 2 + 5


def test_record_has_the_clip_that_the_step_used() -> None:
    def clipped(data: Any, logprobs_list: Any, epsilon: float = 0.2) -> Any:
        return -sum(row.sum() for row in logprobs_list), {}

    trainer, first = make(["ab", "cd"], ["ef"]), plan(spec_of(clipped))
    trainer.measure_baseline(first)
    assert step(trainer, 1, first).clip == pytest.approx((0.8, 1.2))
    assert step(trainer, 2, first.with_settings({"epsilon": 0.1})).clip == pytest.approx((0.9, 1.1))
    assert step(trainer, 3, plan()).clip is None


def test_evaluation_is_split_into_requests() -> None:
    trainer = make(["ab"] * 2, ["ab"] * (2 * EVALUATION_CHUNK + 1))
    trainer.measure_baseline(plan())
    client: Any = trainer.client
    assert client.calls == ["forward"] * 3


def test_failing_loss_leaves_the_batch_for_the_retry() -> None:
    failing = [True]  # until the first call

    def mine(data: Any, logprobs_list: Any) -> Any:
        if failing:
            failing.clear()
            raise ValueError("once")
        return -sum(row.sum() for row in logprobs_list), {}

    trainer, spec = make(["ab", "cd", "ef", "gh"], ["ij"]), LossSpec("mine", "custom", mine)
    client: Any = trainer.client
    trainer.measure_baseline(plan())
    with pytest.raises(LossError, match="once"):
        step(trainer, 1, plan(spec))
    assert "optim_step" not in client.calls
    step(trainer, 1, plan(spec))
    first, second = ([text_of(d) for d in batch] for batch in client.batches)
    assert first == second


def test_metrics_of_the_loss_do_not_replace_held_out_measures() -> None:
    """Held-out metrics are computed alike for every loss; only ``mean_margin`` is the loss's, as in training."""

    def mine(data: Any, logprobs_list: Any) -> Any:
        return -sum(row.sum() for row in logprobs_list), {"change": 42.0, "mine": 1.5}

    trainer = make(["ab", "cd"], ["ef", "gh"])
    mine_plan = plan(LossSpec("mine", "custom", mine))
    trainer.measure_baseline(mine_plan)
    record = step(trainer, 1, mine_plan, evaluate=True)
    assert record.metrics["change"] == 42.0
    assert record.held_out["change"] != 42.0
    assert record.held_out["mine"] == 1.5


def test_items_for_a_person_and_for_a_check_of_the_loss() -> None:
    trainer = make(["ab", "cd", "ef"], ["gh", "ij"])
    spec = LOSSES["cross_entropy"]
    assert [text_of(d) for d in trainer.sample(2, spec)] == ["ab", "cd"]
    assert len(trainer.sample(9, spec)) == 3
    assert [text_of(d) for d in trainer.shown(1, spec).data] == ["gh"]
    assert len(trainer.gradient_batch(2, spec)) == 2


def test_without_held_out_data_there_is_nothing_to_show() -> None:
    with pytest.raises(DataError, match="nothing is held out"):
        make(["ab"], []).shown(1, LOSSES["cross_entropy"])
