"""Texts that are far longer than a sequence: the tokens are those of a whole tokenization, which the test computes."""

from __future__ import annotations

import random
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from mint_lab.client import text_source
from mint_lab.data import long_texts
from mint_lab.data.render import Rendered, render
from mint_lab.errors import DataError

from ..conftest import CHAT_TEMPLATE

SPECIAL = ["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
WORDS = "the cat sat on a mat, twelve (12) cats; don't say 3.14 — naïve Ωmega 漢字 end.\n\tx1 y2z  two   <|end|>".split(
    " "
)


def words(seed: int, characters: int) -> str:
    """Return words, numbers, signs, rows of spaces and special tokens in random order."""
    rng, text = random.Random(seed), ""
    while len(text) < characters:
        text += rng.choice(WORDS) + rng.choice([" ", " ", " ", "", "\n", "  "])
    return text


def trained(core: Any, trainer: Any) -> Any:
    core.train_from_iterator([words(seed, 4000) for seed in range(3)], trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|end|>", bos_token="<|system|>", chat_template=CHAT_TEMPLATE
    )


def byte_level() -> Any:
    return text_source("mint-tiny").get_tokenizer()


def byte_level_without_words() -> Any:
    """Merges are stopped by nothing: a token can span several words."""
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    return trained(core, trainers.BpeTrainer(vocab_size=600, special_tokens=SPECIAL, initial_alphabet=alphabet))


def like_llama() -> Any:
    """BPE over the whole text, with a space before it and every space written as "▁"."""
    core = Tokenizer(models.BPE(byte_fallback=False, unk_token="<|system|>", fuse_unk=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    core.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    tokenizer = trained(core, trainers.BpeTrainer(vocab_size=400, special_tokens=SPECIAL))
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence([])
    return tokenizer


def unigram() -> Any:
    core = Tokenizer(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    return trained(core, trainers.UnigramTrainer(vocab_size=300, special_tokens=SPECIAL, unk_token="<|system|>"))


TOKENIZERS = {f.__name__: f for f in (byte_level, byte_level_without_words, like_llama, unigram)}


@pytest.fixture(scope="module", params=TOKENIZERS)
def some_tokenizer(request: pytest.FixtureRequest) -> Any:
    return TOKENIZERS[request.param]()


@pytest.fixture
def lengths(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of all texts that are tokenized; texts of 500 characters count as long."""
    monkeypatch.setattr(long_texts, "LONG_CHARACTERS", 500)
    monkeypatch.setattr(long_texts, "CHUNK_CHARACTERS", 300)
    monkeypatch.setattr(long_texts, "CONTEXT_CHARACTERS", 100)
    return []


def whole(monkeypatch: pytest.MonkeyPatch, *arguments: Any, **options: Any) -> Rendered:
    with monkeypatch.context() as patch:
        patch.setattr(long_texts, "LONG_CHARACTERS", 10**9)
        return render(*arguments, **options)


def watched(tokenizer: Any, lengths: list[int]) -> Any:
    class Watched:
        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

        def encode(self, text: str, **options: Any) -> list[int]:
            lengths.append(len(text))
            return tokenizer.encode(text, **options)

    return Watched()


@pytest.mark.parametrize("max_length", [8, 30])
@pytest.mark.parametrize("seed", range(4))
def test_text_is_tokenized_as_a_whole_text_is(
    some_tokenizer: Any, max_length: int, seed: int, lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt, completions = words(seed, 5000), [words(seed + 10, 4000), words(seed + 20, 40), words(seed + 30, 3000)]
    arguments = (some_tokenizer, prompt, completions)
    assert render(*arguments, max_length=max_length) == whole(monkeypatch, *arguments, max_length=max_length)


@pytest.mark.parametrize("seed", range(4))
def test_chat_is_tokenized_as_a_whole_chat_is(
    some_tokenizer: Any, seed: int, lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    chat = [{"role": "user", "content": words(seed, 5000)}, {"role": "assistant", "content": words(seed + 1, 2000)}]
    chat.append({"role": "user", "content": words(seed + 2, 3000)})
    for train_on in ("last", "all"):
        options: dict[str, Any] = {"max_length": 24, "train_on": train_on}
        arguments = (some_tokenizer, chat, [words(seed + 3, 2500), "yes"])
        assert render(*arguments, **options) == whole(monkeypatch, *arguments, **options)


@pytest.mark.parametrize("make", [byte_level, like_llama, unigram])
def test_no_long_text_is_tokenized(make: Any, lengths: list[int]) -> None:
    """Limit 8: at most 8 * 16 characters are kept and doubled a few times; pieces that are counted have 2 * 300."""
    tokenizer = watched(make(), lengths)
    found = render(tokenizer, words(1, 20_000), [words(2, 20_000)], max_length=8)
    assert len(found.prompt) == 1
    assert len(found.completions[0]) == 7
    assert found.lost_beginning > 3000
    assert max(lengths) < 2000


def test_a_vocabulary_with_tokens_of_several_words_is_left_alone(lengths: list[int]) -> None:
    tokenizer = byte_level_without_words()
    assert any(" " in tokenizer.decode([token]).strip() for token in range(len(tokenizer)))
    text = words(1, 3000)
    render(watched(tokenizer, lengths), text, ["end"], max_length=8)
    assert max(lengths) >= len(text)


def test_a_text_without_spaces_is_tokenized_as_a_whole(lengths: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a row of equal letters is cut decides how the letters pair up."""
    for length in (3000, 3001):
        arguments = (byte_level(), "a" * length, ["b" * length])
        assert render(*arguments, max_length=10) == whole(monkeypatch, *arguments, max_length=10)


def test_without_a_limit_nothing_is_cut(lengths: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = watched(byte_level(), lengths)
    text = words(1, 3000)
    assert render(tokenizer, text, ["end"]) == whole(monkeypatch, tokenizer, text, ["end"])
    assert max(lengths) >= len(text)


@pytest.mark.parametrize("place", [10, 1500, 2990])
def test_half_a_character_is_found_anywhere(place: int, lengths: list[int]) -> None:
    """Also in what would not be tokenized."""
    text = words(1, 3000)[:3000]
    broken = f"{text[:place]}\ud800{text[place:]}"
    for prompt, completion in ((broken, "x"), ("x", broken)):
        with pytest.raises(
            DataError, match=f"^field '(prompt|completion)': character {place} is half of a surrogate pair"
        ):
            render(byte_level(), prompt, [completion], max_length=8)
