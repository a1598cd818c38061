"""Reference log-probabilities in a run: filled when a loss reads them, once, ahead, and refused with a reason."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
import torch

from mint_lab.cells.loss_cell import run_cell
from mint_lab.losses import LOSSES
from mint_lab.losses.decorator import spec_of
from mint_lab.losses.dpo import log_ratios
from mint_lab.recipes import reference_cache as reference
from mint_lab.recipes.preference import Preference
from mint_lab.recipes.reference_cache import ReferenceCache
from mint_lab.runs.run import Run
from mint_lab.runs.sample_batch import sample_data
from mint_lab.types import Datum, TensorData

from ..runs.bigram import BigramClient, CharTokenizer, letter_pairs
from ..runs.conftest import TIMEOUT, finish


class ReferenceBigram(BigramClient):
    """The bigram trainer, which also knows its table before training."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.asked: list[int] = []
        self.before = self.table.detach().clone()

    def reference_folder(self) -> Path:
        return self.folder

    def reference_logprobs(self, data: list[Datum]) -> Future[list[TensorData]]:
        self.asked.append(len(data))
        future: Future[list[TensorData]] = Future()
        now, self.table = self.table, self.before
        future.set_result([TensorData.from_torch(row) for row in self._logprobs(data)])
        self.table = now
        return future


@pytest.fixture
def client(tmp_path: Path) -> ReferenceBigram:
    return ReferenceBigram(tmp_path / "reference")


def values(data: list[Datum]) -> list[list[float]]:
    return [d.loss_fn_inputs["reference_logprobs"].tolist() for d in data]


def test_items_come_with_the_values_of_the_untrained_model(client: ReferenceBigram) -> None:
    job = Preference().prepare(CharTokenizer(), letter_pairs(12), letter_pairs(3), seed=0)
    with torch.no_grad():
        client.table += 1.0
        client.table[:, 5] += 3.0
    found = ReferenceCache(client, job).batch([4, 2])
    plain = job.batch([4, 2])
    assert [d.model_input for d in found] == [d.model_input for d in plain]
    client.table = client.before
    assert values(found) == [row.tolist() for row in client._logprobs(plain)]
    assert all("reference_logprobs" not in d.loss_fn_inputs for d in plain)


def test_one_request_serves_what_lies_ahead(client: ReferenceBigram, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reference, "ITEMS_AHEAD", 6)
    job = Preference().prepare(CharTokenizer(), letter_pairs(12), letter_pairs(15)[12:], seed=0)
    references = ReferenceCache(client, job)
    order = [3, 1, 0, 5, 4, 2, 7, 6, 3, 1, 0, 5]
    for start in range(0, 12, 2):
        references.batch(order[start : start + 2], order[start:])
    assert client.asked == [12, 4]  # six pairs, then the two that were left
    assert values(references.batch([7])) == values(ReferenceCache(client, job).batch([7]))
    assert client.asked == [12, 4]  # read from disk
    assert len(references.held_out) == 6
    assert references.held_out is references.held_out, "filled once"
    assert client.asked == [12, 4, 6]


def test_run_requests_what_its_remaining_steps_need(make_run: Callable[..., Run], client: ReferenceBigram) -> None:
    """Eight pairs are held out. The first request is for 3 steps of 4 pairs; the last for the step with 10 pairs."""
    run = make_run(loss="dpo", client=client, steps=3, batch_size=4, held_out=letter_pairs(48)[40:])
    assert run.step(2).wait(TIMEOUT)
    assert client.asked == [16, 24]
    assert run.set(batch_size=10).start().wait(TIMEOUT)
    assert client.asked == [16, 24, 12], "4 of the 10 pairs were computed before"


def test_what_lies_ahead_is_read_no_further_than_it_is_used(
    client: ReferenceBigram, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run has up to an epoch ahead of it, which is a million items of a large file, at every step."""
    monkeypatch.setattr(reference, "ITEMS_AHEAD", 3)
    job = Preference().prepare(CharTokenizer(), letter_pairs(12), letter_pairs(15)[12:], seed=0)
    references = ReferenceCache(client, job)
    ahead = iter([1, 0, 2, 2, 3, 4, 5])
    references.batch([0, 1], ahead)
    assert client.asked == [6]  # pairs 0, 1 and 2
    assert list(ahead) == [2, 3, 4, 5]
    ahead = iter([1, 2, 3])
    references.batch([1, 2], ahead)
    assert list(ahead) == [1, 2, 3]


def test_values_that_are_there_stay(client: ReferenceBigram) -> None:
    job = Preference().prepare(CharTokenizer(), letter_pairs(4), letter_pairs(3), seed=0)
    for datum in [*job.data, *job.held_out]:
        datum.loss_fn_inputs["reference_logprobs"] = datum.loss_fn_inputs["weights"]
    references = ReferenceCache(client, job)
    assert values(references.batch([1])) == [d.loss_fn_inputs["weights"].tolist() for d in job.batch([1])]
    assert references.held_out == job.held_out
    assert client.asked == []


@pytest.mark.parametrize("name", [n for n, s in LOSSES.items() if s.family == "preference"])
def test_every_preference_loss_makes_steps_and_is_evaluated(
    name: str, make_run: Callable[..., Run], client: ReferenceBigram
) -> None:
    run = finish(make_run(loss=name, client=client))
    assert {"loss", "pair_accuracy", "mean_margin"} <= set(run.baseline)
    held = run.records[-1].held_out
    assert held["mean_margin"] > run.baseline["mean_margin"]
    if "reference_logprobs" in LOSSES[name].inputs:
        assert run.baseline["rewards/margins"] == pytest.approx(0, abs=1e-6)
        assert held["rewards/margins"] > 0
        assert client.asked == [20, 60]  # the ten held-out pairs of this data are among the forty
    else:
        assert client.asked == []


def test_a_hot_swap_fills_them(make_run: Callable[..., Run], client: ReferenceBigram) -> None:
    run = make_run(client=client)
    run.step(6)
    assert run.wait(TIMEOUT, check=True)
    assert client.asked == []
    finish(run.set_loss("ipo"))
    assert client.asked[0] == 2 * len(set(run._trainer._sampler.items(24, 24)))  # six steps of four pairs are left
    held = run.records[-1].held_out
    rise = held["mean_margin"] - run.baseline["mean_margin"]
    assert held["rewards/margins"] == pytest.approx(0.1 * rise, rel=1e-4)


def test_a_client_without_them_pauses_the_run_and_says_why(make_run: Callable[..., Run]) -> None:
    run = make_run(loss="dpo")
    run.start()
    assert run.wait(TIMEOUT, check=False)
    assert run.status == "paused"
    assert "BigramClient computes no reference log-probabilities" in run.error.message
    run.set_loss("pairwise_preference")
    finish(run)


def test_a_cell_is_checked_on_data_that_have_them(make_run: Callable[..., Run], client: ReferenceBigram) -> None:
    run = make_run(client=client, steps=2)
    finish(run)

    def mine(data: Any, logprobs_list: Any) -> Any:
        return log_ratios(data, logprobs_list[0], logprobs_list[1])

    assert all("reference_logprobs" in d.loss_fn_inputs for d in sample_data(spec_of(mine)))
    assert not any("reference_logprobs" in d.loss_fn_inputs for d in sample_data(LOSSES["hinge"]))
    cell = """from mint_lab.losses.preference import sequence_scores
from mint_lab.losses.dpo import log_ratios

def my_dpo(data, logprobs_list, beta=0.5):
    chosen, rejected, _ = sequence_scores(data, logprobs_list)
    chosen, rejected = log_ratios(data, chosen, rejected)
    return -(beta * (chosen - rejected)).sigmoid().log().mean(), {}
"""
    made = run_cell("my_dpo", cell, {})
    assert made.report is not None
    assert made.report.ok
    assert made.spec.inputs == ("reference_logprobs",)
    finish(make_run(loss="my_dpo", client=client))
