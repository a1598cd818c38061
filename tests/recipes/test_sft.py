"""The recipe sft: completions as datums, and their metrics."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from mint_lab.data.pairs import Pair
from mint_lab.data.render import to_datum
from mint_lab.errors import DataError
from mint_lab.recipes.sft import Sft

from ..runs.bigram import CharTokenizer, letter_pairs


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


def test_a_token_counts_by_its_weight() -> None:
    """Weights 0, 0.5 and 2 of log-probabilities -4, -1 and -3: (0.5 + 6) / 2.5 = 2.6."""
    job = Sft().prepare(CharTokenizer(), [("a:", "y")] * 2, [("a:", "y")], seed=0)
    datum = to_datum([1, 2, 3, 4], 1, weights=[0.0, 0.5, 2.0])
    nll = job.measure([datum], [torch.tensor([-4.0, -1.0, -3.0])]).metrics["nll"]
    assert nll == pytest.approx(2.6, rel=1e-6)


def test_an_odd_example_is_named() -> None:
    with pytest.raises(DataError, match="datum 1: found int") as caught:
        Sft().prepare(CharTokenizer(), [("a", "b"), 3], None, seed=0)
    assert caught.value.index == 1
    with pytest.raises(DataError, match="datum 1") as caught:
        Sft().prepare(CharTokenizer(), [("a", "b"), ("a", "")], [("a", "b")], seed=0)
    assert caught.value.index == 1


def test_sft_tells_what_was_cut() -> None:
    """Room for 6 tokens: 'abc', 'xy' and an end fit; of 'abcdef' three are lost; 'uvwxyz' alone is too long."""
    rows = [{"prompt": "abc", "completion": "xy"}, {"prompt": "abcdef", "completion": "xy"}]
    rows.append({"prompt": "a", "completion": "uvwxyz"})
    told = r"6 tokens: 1 of 3 completions lost their end and 1 of 3 prompts lost their beginning \(rows 1 and 2\)$"
    with pytest.warns(UserWarning, match=told):
        Sft().prepare(CharTokenizer(), rows, rows[:1], seed=0, max_length=6)


def test_no_data_or_too_little() -> None:
    with pytest.raises(DataError, match="empty"):
        Sft().prepare(CharTokenizer(), [], None, seed=0)
    with pytest.raises(DataError, match="give held_out"):
        Sft().prepare(CharTokenizer(), letter_pairs(1), None, seed=0)
