"""The bundled model as it is checked in: files, tokenizer, and what it can and cannot do."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mint_lab import tiny
from mint_lab.data.problems import KINDS, SPLITS, addition_problems, has_carry, problems, slips
from mint_lab.tiny.card import sha256
from mint_lab.tiny.corpus import END
from mint_lab.tiny.evaluate import greedy_answers, sampled_answers


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny.path())


@pytest.fixture(scope="module")
def model() -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny.path())


def test_files() -> None:
    names = {file.name for file in tiny.path().iterdir()}
    assert names >= {
        "MODEL_CARD.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    weights = tiny.path() / "model.safetensors"
    assert weights.stat().st_size <= 4_000_000
    assert weights.stat().st_mode & 0o444 == 0o444


def test_card_names_these_very_files() -> None:
    card = (tiny.path() / "MODEL_CARD.md").read_text(encoding="utf-8")
    for name in ("model.safetensors", "tokenizer.json"):
        found = re.search(rf"`{re.escape(name)}`.*sha256 `([0-9a-f]{{64}})`", card)
        assert found is not None
        assert found.group(1) == sha256(tiny.path() / name)


def test_model_is_small_float32_qwen3_with_tied_embeddings(model: Any) -> None:
    import torch

    assert type(model).__name__ == "Qwen3ForCausalLM"
    assert sum(p.numel() for p in model.parameters()) < 1_000_000
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert model.config.max_position_embeddings >= 512


def test_model_and_tokenizer_agree(model: Any, tokenizer: Any) -> None:
    assert len(tokenizer) == model.config.vocab_size
    assert tokenizer.eos_token == tokenizer.pad_token == END
    assert tokenizer.bos_token is None
    for config in (model.config, model.generation_config):
        assert config.eos_token_id == config.pad_token_id == tokenizer.eos_token_id


def test_digits_are_single_tokens(tokenizer: Any) -> None:
    assert all(len(tokenizer.encode(str(d))) == 1 for d in range(10))
    vocabulary = [tokenizer.decode([i]) for i in range(len(tokenizer))]
    assert sorted(t for t in vocabulary if re.search("[0-9]", t)) == list("0123456789")


def test_a_prompt_is_short(tokenizer: Any) -> None:
    assert len(tokenizer.encode("Question: What is 12 + 7?\nAnswer:")) == 14
    assert len(tokenizer.encode(" 19")) == 3


@given(st.text())
def test_any_text_round_trips(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", SPLITS)
def test_prompt_and_answer_tokenize_apart_as_together(tokenizer: Any, kind: str, split: str) -> None:
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


def test_half_taught(model: Any, tokenizer: Any) -> None:
    """About half of the held-out additions come out right, and what is wrong drops the carry."""
    asked = addition_problems(200, 0, "held_out")
    answers = greedy_answers(model, tokenizer, [p.prompt for p in asked])
    right = [answer == p.answer for answer, p in zip(answers, asked, strict=True)]
    assert 0.35 <= sum(right) / 200 <= 0.65
    carry = [has_carry(*map(int, p.operands)) for p in asked]
    dropped = [c and answer in slips(p) for answer, p, c in zip(answers, asked, carry, strict=True)]
    assert sum(right) + sum(dropped) >= 0.95 * 200


def test_sampling_leaves_room_both_ways(model: Any, tokenizer: Any) -> None:
    asked = addition_problems(200, 1, "held_out")
    prompts = [p.prompt for p in asked]
    first = sampled_answers(model, tokenizer, prompts, seed=0)
    assert first == sampled_answers(model, tokenizer, prompts, seed=0)
    right = [answer == p.answer for answer, p in zip(first, asked, strict=True)]
    assert 0.35 <= sum(right) / 200 <= 0.65


def test_a_missing_model_says_how_to_make_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tiny, "NAME", "no-such-model")
    with pytest.raises(FileNotFoundError, match=r"python -m mint_lab\.tiny\.build"):
        tiny.path()
