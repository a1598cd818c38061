"""Tokens as readable text, with bytes and invisible characters written out."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer

from mint_lab import tiny
from mint_lab.ui.token_text import token_text, visible

SIGNS = [
    ("cat", "cat"),
    (" cat", " cat"),
    ("  ", "␣␣"),
    ("a\n\tb", "a↵⇥b"),
    ("\u202egnp.exe", "⟨U+202E⟩gnp.exe"),
    ("\x00\x1b", "⟨U+0000⟩⟨U+001B⟩"),
    ("a\u200bb", "a⟨U+200B⟩b"),
    ("\u200d", "⟨U+200D⟩"),
    ("👩\u200d👧", "👩\u200d👧"),
    ("<img src=x>", "<img src=x>"),
]


@pytest.mark.parametrize(("text", "shown"), SIGNS)
def test_invisible_characters_are_written_out(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_parts_of_characters_are_bytes() -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(tiny.path()))
    pieces = [token_text(tokenizer, token) for token in tokenizer.encode("é <b> €")]
    assert "".join(pieces).replace("<b>", "") == "⟨0xC3⟩⟨0xA9⟩  ⟨0xE2⟩⟨0x82⟩⟨0xAC⟩"
    plain = "Question: 12 + 34?\nAnswer: 46"
    assert "".join(token_text(tokenizer, token) for token in tokenizer.encode(plain)) == plain


def test_sentencepiece_keeps_spaces_and_bytes() -> None:
    raw = ["▁the", "<0xE2>", "cat"]
    spm = SimpleNamespace(
        decode=lambda ids: ["the", "\ufffd", "cat"][ids[0]], convert_ids_to_tokens=lambda token: raw[token]
    )
    assert [token_text(spm, token) for token in range(3)] == [" the", "⟨0xE2⟩", "cat"]


def test_half_a_surrogate_pair_is_escaped() -> None:
    assert token_text(SimpleNamespace(decode=lambda ids: "a\ud800"), 0).encode("utf-8") == b"a\\ud800"
