"""What becomes a batch, in which order, and what is measured on it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.data.pairs import Pair
from mint_lab.errors import ConfigError, DataError
from mint_lab.losses import LOSSES
from mint_lab.recipes.registry import Order, Preference, Sft, check_loss, recipe_named

from ..runs.bigram import CharTokenizer, letter_pairs


@given(st.integers(1, 30), st.integers(0, 5), st.integers(0, 100), st.integers(1, 40))
def test_order_is_a_shuffle_an_epoch_given_by_seed_and_place(size: int, seed: int, start: int, count: int) -> None:
    order = Order(size, seed)
    stream = [order.items(k, 1)[0] for k in range(3 * size)]
    for epoch in range(3):
        assert sorted(stream[epoch * size : (epoch + 1) * size]) == list(range(size))
    items = Order(size, seed).items(start, count)  # a fresh one, asked for the middle at once
    assert items == [order.items(k, 1)[0] for k in range(start, start + min(count, size))]
    assert items == list(order.stream(start, count))


def test_epochs_and_seeds_differ() -> None:
    assert Order(50, 0).items(0, 50) != Order(50, 0).items(50, 50)
    assert Order(50, 0).items(0, 50) != Order(50, 1).items(0, 50)


def test_pairs_become_consecutive_datums() -> None:
    job = Preference().prepare(CharTokenizer(), letter_pairs(20), None, seed=0)
    assert (job.size, len(job.held_out)) == (18, 4)  # a tenth of 20 pairs is held out
    chosen, rejected = job.batch([3])
    prompt = chosen.model_input.to_ints()[:3]
    assert prompt == rejected.model_input.to_ints()[:3]
    assert chosen.loss_fn_inputs["weights"].tolist() == [0, 0, 1, 1, 1, 1]
    assert [d.model_input.to_ints() for d in job.batch([5, 3])[2:]] == [
        d.model_input.to_ints() for d in (chosen, rejected)
    ]


def test_the_split_depends_on_the_seed_alone() -> None:
    def held(seed: int) -> list[list[int]]:
        job = Preference().prepare(CharTokenizer(), letter_pairs(26), None, seed=seed)
        trained = {tuple(d.model_input.to_ints()) for d in job.pairs}
        assert not trained & {tuple(d.model_input.to_ints()) for d in job.held_out}
        return [d.model_input.to_ints() for d in job.held_out]

    assert held(1) == held(1)
    assert held(1) != held(2)


def test_pair_metrics_by_hand() -> None:
    pairs = [Pair("a:", "y", "n"), Pair("b:", "y", "n")]
    job = Preference().prepare(CharTokenizer(), pairs, pairs, seed=0)
    # Two positions count: the letter and the end mark. Scores: -1, -3 and -4, -2; margins 2 and -2.
    now = [torch.tensor([-9.0, *row]) for row in ([-0.5, -0.5], [-2.0, -1.0], [-3.0, -1.0], [-1.0, -1.0])]
    measured = job.measure(job.held_out, now)
    assert measured.metrics == {
        "pair_accuracy": 0.5,
        "mean_margin": 0.0,
        "logps/chosen": -2.5,
        "logps/rejected": -2.5,
    }
    counts = measured.histograms["margin"]
    assert {i - 20: c for i, c in enumerate(counts) if c} == {2: 1, -2: 1}  # bins of one nat from -20
    # Before: margins 0 and 0, chosen scores -0.5 and -4: the first pair's margin rose while its chosen side fell.
    before = [torch.tensor([-9.0, *row]) for row in ([-0.5, 0.0], [-0.5, 0.0], [-4.0, 0.0], [-4.0, 0.0])]
    assert job.evaluate(job.held_out, now, before).metrics["displacement_frac"] == 0.5


def test_sft_takes_examples_in_three_shapes() -> None:
    pairs = [("a:", "yes"), {"prompt": "b:", "completion": "no"}, Pair("c:", "ja", "nein")]
    job = Sft().prepare(CharTokenizer(), pairs, [("d:", "x")], seed=0)
    texts = ["".join(map(chr, d.loss_fn_inputs["target_tokens"].tolist())) for d in job.batch(range(3))]
    assert texts == [":yes\0", ":no\0", ":ja\0"]
    # nll by hand: four targets, of which the completion and the end mark count.
    metrics = job.measure(job.held_out, [torch.tensor([-5.0, -1.0, -2.0])]).metrics
    assert metrics == {"nll": 1.5}
    assert job.evaluate(job.held_out, [torch.tensor([-5.0, -1.0, -2.0])], [torch.zeros(3)]).metrics == {"nll": 1.5}


def test_sft_reads_a_file_as_it_reads_a_list(tmp_path: Path) -> None:
    rows = [{"prompt": f"{letter}:", "completion": f" {letter.upper()}"} for letter in "abcdefghij"]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    from_list, from_file, from_path = (
        Sft().prepare(CharTokenizer(), source, None, seed=0) for source in (rows, str(path), path)
    )
    assert (from_file.size, len(from_file.held_out)) == (9, 1)
    for job in (from_file, from_path):
        assert [d.model_input.to_ints() for d in job.batch(range(9))] == [
            d.model_input.to_ints() for d in from_list.batch(range(9))
        ]


def test_sft_learns_the_last_turn_of_a_chat() -> None:
    def rendered(messages: Any, *, add_generation_prompt: bool, **_: Any) -> str:
        turns = "".join(f"<{m['role'][0]}>{m['content']}\0" for m in messages)
        return turns + ("<a>" if add_generation_prompt else "")

    tokenizer = CharTokenizer()
    tokenizer.chat_template = "a template"  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.apply_chat_template = rendered  # pyright: ignore[reportAttributeAccessIssue]
    chat = [("user", "hi"), ("assistant", "hello"), ("user", "2+2"), ("assistant", "four")]
    row = {"messages": [{"role": role, "content": content} for role, content in chat]}
    (datum,) = Sft().prepare(tokenizer, [row], [row], seed=0).batch([0])
    text = "".join(map(chr, datum.loss_fn_inputs["target_tokens"].tolist()))
    assert text == "u>hi\0<a>hello\0<u>2+2\0<a>four\0"
    weights = datum.loss_fn_inputs["weights"].tolist()
    assert weights == [0.0] * (len(text) - 5) + [1.0] * 5  # "four" and the end mark


def test_sft_on_pairs_trains_the_chosen_side_and_evaluates_both() -> None:
    job = Sft().prepare(CharTokenizer(), letter_pairs(10), letter_pairs(4), seed=0)
    assert len(job.batch([0, 1])) == 2
    assert len(job.held_out) == 8
    assert len(job.held_out[job.loss_slice]) == 4
    logprobs = [torch.full((d.model_input.length,), -1.0 if i % 2 == 0 else -2.0) for i, d in enumerate(job.held_out)]
    metrics = job.evaluate(job.held_out, logprobs, logprobs).metrics
    assert metrics["nll"] == 1.0  # of the chosen sides
    assert metrics["pair_accuracy"] == 1.0


def test_a_mask_of_zero_hides_what_is_not_finite() -> None:
    job = Sft().prepare(CharTokenizer(), [("a:", "y")] * 2, [("a:", "y")], seed=0)
    assert job.measure(job.held_out, [torch.tensor([-math.inf, -1.0, -3.0])]).metrics == {"nll": 2.0}


@pytest.mark.parametrize("recipe", [Preference(), Sft()])
def test_no_data_or_too_little(recipe: Any) -> None:
    with pytest.raises(DataError, match="empty"):
        recipe.prepare(CharTokenizer(), [], None, seed=0)
    with pytest.raises(DataError, match="give held_out"):
        recipe.prepare(CharTokenizer(), letter_pairs(1), None, seed=0)


def test_an_odd_example_is_named() -> None:
    with pytest.raises(DataError, match="datum 1: found int") as caught:
        Sft().prepare(CharTokenizer(), [("a", "b"), 3], None, seed=0)
    assert caught.value.index == 1
    with pytest.raises(DataError, match="datum 1") as caught:
        Sft().prepare(CharTokenizer(), [("a", "b"), ("a", "")], [("a", "b")], seed=0)
    assert caught.value.index == 1


def test_which_losses_a_recipe_takes() -> None:
    check_loss(recipe_named("preference"), LOSSES["hinge"])
    check_loss(recipe_named("sft"), LOSSES["cross_entropy"])
    with pytest.raises(ConfigError, match="cross_entropy is a supervised loss"):
        check_loss(recipe_named("preference"), LOSSES["cross_entropy"])
    with pytest.raises(ConfigError, match="ppo is a policy loss"):
        check_loss(recipe_named("sft"), LOSSES["ppo"])
    with pytest.raises(ConfigError, match="did you mean 'sft'"):
        recipe_named("sfft")


def test_sft_tells_what_was_cut() -> None:
    """Room for 6 tokens: 'abc', 'xy' and an end fit; of 'abcdef' three are lost; 'uvwxyz' alone is too long."""
    rows = [{"prompt": "abc", "completion": "xy"}, {"prompt": "abcdef", "completion": "xy"}]
    rows.append({"prompt": "a", "completion": "uvwxyz"})
    told = "6 tokens, 1 of 4 completions lost their end and 1 of 4 prompts lost their beginning$"
    with pytest.warns(UserWarning, match=told):
        Sft().prepare(CharTokenizer(), rows, rows[:1], seed=0, max_length=6)
