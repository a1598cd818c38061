"""The boundary of prompt and completion in tokenizers that real models have."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaTokenizer, PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter

from mint_lab.data import encode

PLACES = [
    ("Response:\n", "42"),
    ("A:", "\n42"),
    ("A:", " 42"),
    ("Question: 2+2?\nAnswer:", " 4"),
    ("A:\n", "\n4"),
    ("Answer: ", "4"),
    ("wor", "ld"),
    ("A:", "  two"),
    ("日本", "語"),
    ("x", "é"),
    ("emoji ", "🎉"),
    ("def f():\n", "    return 1\n"),
]


@pytest.fixture(scope="module", params=["mistral_v1", "mistral_v3", "qwen", "deepseek"])
def real_tokenizer(request: pytest.FixtureRequest, place: Path) -> Any:
    folder = place / "tokenizers" / request.param
    if request.param.startswith("mistral"):
        return LlamaTokenizer.from_pretrained(folder)
    if request.param == "deepseek":
        return PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"), eos_token="<｜end▁of▁sentence｜>")  # noqa: RUF001
    marks = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    converted = TikTokenConverter(vocab_file=str(folder / "qwen.tiktoken"), extra_special_tokens=marks).converted()
    return PreTrainedTokenizerFast(tokenizer_object=converted, eos_token="<|im_end|>")


@pytest.mark.parametrize(("prompt", "completion"), PLACES)
def test_no_character_is_added_or_lost(real_tokenizer: Any, prompt: str, completion: str) -> None:
    tokens, prompt_length = encode(real_tokenizer, prompt, completion)
    together = real_tokenizer.encode(prompt + completion)
    assert tokens[-1] == real_tokenizer.eos_token_id
    assert tokens[:prompt_length] == real_tokenizer.encode(prompt), "what a sampler sees"
    assert surface(real_tokenizer, tokens[:-1]) == surface(real_tokenizer, together)
    if together[:prompt_length] == tokens[:prompt_length]:
        assert tokens[:-1] == together


def surface(tokenizer: Any, tokens: list[int]) -> str:
    return "".join(tokenizer.convert_ids_to_tokens(tokens))
