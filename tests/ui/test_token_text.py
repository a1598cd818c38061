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


def test_every_byte_of_a_byte_level_vocabulary_is_written() -> None:
    """GPT-2 writes byte b as a character of its own: !-~, ¡-¬ and ®-ÿ as themselves, the others from U+0100 on."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = iter(range(256, 512))
    entries = [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]
    tokenizer = SimpleNamespace(decode=lambda ids: "\ufffd", convert_ids_to_tokens=lambda token: entries[token])
    for byte in range(256):
        expected = chr(byte) if byte < 0x80 else f"⟨0x{byte:02X}⟩"
        assert token_text(tokenizer, byte) == expected


@pytest.mark.parametrize(
    ("entry", "text", "shown"),
    [
        ("<0x41>", "?", "A"),
        ("<0x80>", "?", "⟨0x80⟩"),
        ("<0xFF>", "?", "⟨0xFF⟩"),
        ("<0xe2>", "<0xe2>", "<0xe2>"),  # not how SentencePiece writes it
        ("▁", "", " "),
        ("▁▁a", "▁▁a", "▁▁a"),  # decoded as it is
        ("▁a", " a", " a"),
        ("cat", "cat", "cat"),
        ("Ġcat", " cat", " cat"),
        ("â\u0122¬", "€", "€"),  # a whole character
        ("你", "\ufffd", "\ufffd"),  # no byte-level entry
        ("▁\ud800", "\ud800", " \\ud800"),
        ("a\ud800", "a\ud800", "a\\ud800"),
        (None, "a\ud800", "a\\ud800"),
        (7, "seven", "seven"),
    ],
)
def test_text_by_the_entry_of_the_vocabulary(entry: object, text: str, shown: str) -> None:
    tokenizer = SimpleNamespace(decode=lambda ids: text, convert_ids_to_tokens=lambda token: entry)
    assert token_text(tokenizer, 3) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        (" ", "␣"),
        ("\r\n", "␍↵"),
        ("\t ", "⇥ "),
        ("❤\ufe0f", "❤\ufe0f"),
        ("❤\ufe0e", "❤\ufe0e"),
        ("a\ufe0f", "a\ufe0f"),  # a mark of its own category, which is visible or not by the font
        ("👩\u200b", "👩⟨U+200B⟩"),
        ("\u00a0", "⟨U+00A0⟩"),
        ("\u2028", "⟨U+2028⟩"),
        ("\U000e0041", "⟨U+E0041⟩"),
        ("é", "é"),
    ],
)
def test_signs_for_white_space_and_format_characters(text: str, shown: str) -> None:
    assert visible(text) == shown
