"""The bundled tokenizer: digits, round trips, and the chat template."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.data.problems import KINDS, SPLITS, problems, slips
from mint_lab.tiny.corpus import END, documents
from mint_lab.tiny.tokenizer import VOCAB_SIZE, train_tokenizer


def test_training_is_deterministic_and_keeps_digits_apart() -> None:
    """Two hundred documents do not fill the vocabulary; 256 bytes and END are always in it."""
    first, second = (train_tokenizer(documents(200, seed=1), context=64) for _ in range(2))
    assert first.get_vocab() == second.get_vocab()
    assert 257 <= len(first) <= VOCAB_SIZE
    assert first.model_max_length == 64
    assert [first.decode([i]) for i in first.encode("12")] == ["1", "2"]


def test_digits_are_single_tokens(tokenizer: Any) -> None:
    assert all(len(tokenizer.encode(str(d))) == 1 for d in range(10))
    vocabulary = [tokenizer.decode([i]) for i in range(len(tokenizer))]
    assert sorted(t for t in vocabulary if re.search("[0-9]", t)) == list("0123456789")


def test_prompt_length(tokenizer: Any) -> None:
    assert len(tokenizer.encode("Question: What is 12 + 7?\nAnswer:")) == 14
    assert len(tokenizer.encode(" 19")) == 3


@given(st.text())
def test_any_text_round_trips(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", SPLITS)
def test_prompt_and_answer_tokenize_separately_as_together(tokenizer: Any, kind: str, split: str) -> None:
    for problem in problems(kind, 100, seed=5, split=split):
        prompt = tokenizer.encode(problem.prompt)
        for answer in (problem.answer, *slips(problem)):
            together = tokenizer.encode(problem.prompt + answer)
            assert together == prompt + tokenizer.encode(answer)


def test_chat_prompt_is_the_plain_prompt(tokenizer: Any) -> None:
    messages = [{"role": "user", "content": "What is 12 + 7?"}]
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    assert prompt == "Question: What is 12 + 7?\nAnswer:"
    messages.append({"role": "assistant", "content": "19"})
    whole = tokenizer.apply_chat_template(messages, tokenize=False)
    assert whole == prompt + " 19" + END
    messages = [{"role": "system", "content": "Be right."}, *messages, messages[0]]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == (f"Be right.\n{whole}Question: What is 12 + 7?\n")
