"""The place where a prompt ends and its completion begins, in tokenizers of the common kinds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from mint_lab.data import Pair, encode, pairs_to_data

TEXT = "abcdeAQR:?#0123456789+. \n"
MERGES = [("a", "b"), ("ab", "c"), (":", "\n"), ("\n", "\n"), ("4", "2"), ("▁", "a"), ("▁a", "b"), ("▁", "▁")]


def bpe(extra: str, *, fallback: bool = False) -> models.BPE:
    """A byte-pair encoding whose merges reach across words and lines, as those of real tokenizers do."""
    merges = [pair for pair in MERGES if all(set(part) <= set(TEXT + extra) for part in pair)]
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256) if fallback), *TEXT, *extra]
    names += ["".join(pair) for pair in merges]
    vocabulary = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=fallback)


def metaspace(scheme: str) -> Any:
    """Llama 2 and Mistral 7B: spaces are ``▁``, and one is put before a text."""
    core = Tokenizer(bpe("▁", fallback=True))
    core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme, split=False)
    core.decoder = decoders.Metaspace(prepend_scheme=scheme, split=False)
    return wrapped(core)


def normalized() -> Any:
    """Llama 2 as it was first converted: the space before a text comes from the normalizer."""
    core = Tokenizer(bpe("▁", fallback=True))
    core.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    core.decoder = decoders.Sequence(steps)
    return wrapped(core)


def gemma() -> Any:
    """Gemma: spaces are ``▁``, nothing is put before a text."""
    core = Tokenizer(bpe("▁", fallback=True))
    core.normalizer = normalizers.Replace(" ", "▁")
    core.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return wrapped(core)


def byte_level() -> Any:
    """GPT-2, Llama 3 and Qwen."""
    core = Tokenizer(models.BPE({name: number for number, name in enumerate(["<unk>", "<s>", "</s>"])}, []))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("a", "b"), ("ab", "c"), (":", "Ċ"), ("Ċ", "Ċ"), ("4", "2"), ("Ġ", "a"), ("Ġa", "b"), ("Ġ", "Ġ")]
    names = ["<unk>", "<s>", "</s>", *alphabet, *("".join(pair) for pair in merges)]
    core = Tokenizer(models.BPE({name: number for number, name in enumerate(names)}, merges))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return wrapped(core)


def wrapped(core: Tokenizer) -> Any:
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")


KINDS = {
    "metaspace first": metaspace("first"),
    "metaspace always": metaspace("always"),
    "normalizer": normalized(),
    "Gemma": gemma(),
    "byte level": byte_level(),
}


def surface(tokenizer: Any, tokens: list[int]) -> str:
    return "".join(tokenizer.convert_ids_to_tokens(tokens))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("prompt", "completion"),
    [
        ("R:\n", "42"),  # a completion at the start of a line
        ("A:", "\n42"),
        ("A:", " 42"),
        ("Q?\nA:", " ab"),
        ("A: ", "42"),  # a prompt that ends with a space
        ("A:", "  ab"),
        ("a", "bc"),  # in the middle of a word
        ("A:\n", "\n4"),
        ("A:\n", " ab"),
    ],
)
def test_no_character_is_added_or_lost(kind: str, prompt: str, completion: str) -> None:
    tokenizer = KINDS[kind]
    tokens, prompt_length = encode(tokenizer, prompt, completion)
    together = tokenizer.encode(prompt + completion)
    assert tokens[-1] == tokenizer.eos_token_id
    assert surface(tokenizer, tokens[:-1]) == surface(tokenizer, together)
    assert tokens[:prompt_length] == tokenizer.encode(prompt), "what a sampler sees"
    if together[:prompt_length] == tokens[:prompt_length]:
        assert tokens[:-1] == together


@pytest.mark.parametrize("kind", KINDS)
@given(prompt=st.text("ab:\n 42", min_size=1, max_size=8), completion=st.text("ab:\n 42", min_size=1, max_size=8))
def test_every_boundary(kind: str, prompt: str, completion: str) -> None:
    tokenizer = KINDS[kind]
    tokens, prompt_length = encode(tokenizer, prompt, completion)
    assert surface(tokenizer, tokens[:-1]) == surface(tokenizer, tokenizer.encode(prompt + completion))
    assert 1 <= prompt_length < len(tokens) - 1


@pytest.mark.parametrize("kind", KINDS)
def test_sides_of_a_pair_share_a_prompt(kind: str) -> None:
    tokenizer = KINDS[kind]
    chosen, rejected = pairs_to_data([Pair("A:\n", "\n4", " ab")], tokenizer)
    lengths = [int((datum.loss_fn_inputs["weights"].to_numpy() == 0).sum()) + 1 for datum in (chosen, rejected)]
    assert lengths[0] == lengths[1] == len(tokenizer.encode("A:\n"))
    start = chosen.model_input.to_ints()[: lengths[0]]
    assert rejected.model_input.to_ints()[: lengths[0]] == start == tokenizer.encode("A:\n")


def test_case_by_hand() -> None:
    """Mistral 7B puts a ``▁`` before "42" if it stands alone, and none after a line break."""
    tokenizer = KINDS["metaspace first"]
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("42")) == ["▁", "42"]
    tokens, prompt_length = encode(tokenizer, "R:\n", "42")
    assert tokenizer.convert_ids_to_tokens(tokens) == ["▁", "R", ":\n", "42", "</s>"]
    assert prompt_length == 3
