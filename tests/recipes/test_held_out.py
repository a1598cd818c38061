"""How items are held out, which of them an evaluation takes, and what it makes of what a loss reports."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mint_lab.data.render import to_datum
from mint_lab.errors import DataError
from mint_lab.losses.preference import pairwise_preference_loss
from mint_lab.losses.spec import LossSpec
from mint_lab.recipes.held_out import evaluated_items, held_out_loss, split
from mint_lab.recipes.preference import Preference
from mint_lab.usercode.guarded_loss import GuardedLoss

from ..runs.bigram import CharTokenizer, letter_pairs
from ..runs.conftest import finish


@pytest.mark.parametrize(("items", "held"), [(2, 1), (14, 1), (16, 2), (100, 10)])
def test_a_tenth_is_held_out_and_both_keep_their_order(items: int, held: int) -> None:
    train, test = split(range(items), seed=3)
    assert len(test) == held
    assert sorted(train + test) == list(range(items))
    assert (train, test) == (sorted(train), sorted(test)) == split(range(items), seed=3)


def test_the_seed_says_which() -> None:
    assert len({tuple(split(range(100), seed)[1]) for seed in range(5)}) == 5


def test_one_item_cannot_be_split() -> None:
    with pytest.raises(DataError, match="give held_out= as well"):
        split(["only"], seed=0)


@pytest.mark.parametrize(("total", "batch_size", "count"), [(400, 8, 50), (150, 20, 60), (7, 32, 7), (1000, 333, 999)])
def test_what_is_evaluated_comes_from_every_part_and_every_kind(total: int, batch_size: int, count: int) -> None:
    picked = evaluated_items(total, batch_size, everything=False)
    assert picked == evaluated_items(total, batch_size, everything=False) == sorted(set(picked))
    edges = [k * total // count for k in range(count + 1)]
    assert all(low <= item < high for low, item, high in zip(edges, picked, edges[1:], strict=False))
    assert len(picked) == count
    if total > 2 * count:  # an even stride of 8 would take kind 0 of eight only
        kinds = [sum(item % 8 == kind for item in picked) for kind in range(8)]
        assert min(kinds) > 0
        assert max(kinds) < count / 3
    assert evaluated_items(total, batch_size, everything=True) == list(range(total))


def test_a_metric_is_averaged_over_the_batches_that_report_it() -> None:
    data = Preference().prepare(CharTokenizer(), letter_pairs(12), letter_pairs(5), seed=0).held_out
    logprobs = [torch.full((d.model_input.length,), -1.0) for d in data]
    calls = iter(range(100))

    def sometimes(data: Any, logprobs_list: Any) -> Any:
        call = next(calls)
        return logprobs_list[0].sum() * 0 + call, {"hard": 2.0 + call} if call % 2 else {"bad": float("inf")}

    fn = GuardedLoss(LossSpec("sometimes", "custom", sometimes), sometimes)
    # Ten datums make five batches of two: 0, 1, 2, 3, 4; the second and the fourth report.
    assert held_out_loss(fn, data, logprobs, 2) == {"loss": 2.0, "hard": 4.0}


def test_a_loss_that_overwrites_its_input_changes_no_other_number() -> None:
    """The recipe's own metrics are made of the same log-probabilities."""

    def overwrites(data: Any, lps: Any) -> Any:
        return sum(lp.mul_(2.0).sum() for lp in lps), {}

    data = [to_datum([1, 2, 3], 1)] * 2
    logprobs = [torch.tensor([-1.0, -2.0]), torch.tensor([-4.0, -8.0])]
    fn = GuardedLoss(LossSpec("mine", "custom", overwrites), overwrites)
    assert held_out_loss(fn, data, logprobs, 2) == {}, "a loss must not change what it is given"
    assert [lp.tolist() for lp in logprobs] == [[-1.0, -2.0], [-4.0, -8.0]]


def test_held_out_loss_that_fails_costs_only_that_number(make_run: Any) -> None:
    def only_trains(data: Any, logprobs_list: Any) -> Any:
        assert logprobs_list[0].requires_grad
        return pairwise_preference_loss(data, logprobs_list)

    run = finish(make_run(loss=only_trains))
    assert "loss" not in run.records[-1].held_out
    assert run.records[-1].held_out["pair_accuracy"] > 0


def test_a_loss_cannot_dress_up_the_held_out_accuracy(make_run: Any) -> None:
    def boasts(data: Any, logprobs_list: Any) -> Any:
        loss, _ = pairwise_preference_loss(data, logprobs_list)
        return loss, {"pair_accuracy": 42.0, "mean_margin": 7.0, "mine": 1.5}

    run = finish(make_run(loss=boasts, steps=5))
    assert run.records[-1].metrics["pair_accuracy"] == 42.0  # its own word, on its own batch
    assert 0 <= run.records[-1].held_out["pair_accuracy"] <= 1
    assert run.records[-1].held_out["mean_margin"] == 7.0  # so that both lines of that chart mean the same
    assert run.records[-1].held_out["mine"] == run.records[-1].metrics["mine"] == 1.5
