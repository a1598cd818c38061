"""Tokens as readable text: parts of characters as bytes, white space and invisible characters made visible.

A byte-level tokenizer can split a token inside a character. Decoded alone, such a token is a replacement character; its
bytes are shown instead, ⟨0xE2⟩. The result is hostile text until it is escaped.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from .utf8 import as_utf8

__all__ = ["token_text", "visible"]

BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
SYMBOLS = {" ": "\N{OPEN BOX}", "\n": "↵", "\t": "⇥", "\r": "␍"}  # ␣ only for a text of spaces alone
# Invisible characters that are part of an emoji when they stand in one: joiner and variation selectors.
EMOJI_JOINERS = frozenset("\u200d\ufe0e\ufe0f")


def token_text(tokenizer: Any, token: int) -> str:
    """Return the text of one token alone, its leading space included.

    Bytes that are not a whole character are written as ⟨0xE2⟩.

    Args:
        tokenizer: Anything with ``decode``.
        token: Token id.
    """
    text = str(tokenizer.decode([token]))
    entry = _vocabulary_entry(tokenizer, token)
    if entry is None:
        return as_utf8(text)
    byte = BYTE_TOKEN.fullmatch(entry)
    if byte:  # SentencePiece's byte fallback
        return _text_of_bytes(bytes([int(byte[1], 16)]))
    if "\ufffd" in text and all(character in BYTE_OF_CHARACTER for character in entry):
        return _text_of_bytes(bytes(BYTE_OF_CHARACTER[character] for character in entry))
    if entry.startswith("▁") and not text.startswith((" ", "▁")):  # SentencePiece drops the space of a first word
        return as_utf8(entry.replace("▁", " "))
    return as_utf8(text)


def visible(text: str) -> str:
    """Return ``text`` on one line with every invisible character written out.

    White space becomes ↵ ⇥ ␣; other invisible characters become their code, such as ⟨U+202E⟩.
    """
    if text and not text.strip(" "):
        return SYMBOLS[" "] * len(text)
    has_emoji = any(unicodedata.category(character) == "So" for character in text)
    return "".join(_visible_character(character, has_emoji) for character in text)


def _visible_character(character: str, has_emoji: bool) -> str:
    if character == " ":
        return character
    if character in SYMBOLS:
        return SYMBOLS[character]
    if (has_emoji and character in EMOJI_JOINERS) or unicodedata.category(character)[0] not in "CZ":
        return character
    return f"⟨U+{ord(character):04X}⟩"


def _vocabulary_entry(tokenizer: Any, token: int) -> str | None:
    """Return how the vocabulary spells a token; None if the tokenizer does not say."""
    convert = getattr(tokenizer, "convert_ids_to_tokens", None)
    entry = convert(token) if callable(convert) else None
    return entry if isinstance(entry, str) else None


def _text_of_bytes(raw: bytes) -> str:
    """Decode valid UTF-8 and write out all other bytes."""
    text = raw.decode("utf-8", errors="surrogateescape")
    return "".join(f"⟨0x{ord(c) - 0xDC00:02X}⟩" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in text)


def _byte_of_character() -> dict[str, int]:
    """Return the characters that stand for bytes in byte-level vocabularies (Radford et al. 2019, GPT-2's encoder)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTE_OF_CHARACTER = _byte_of_character()
