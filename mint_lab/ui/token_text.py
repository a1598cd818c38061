"""Tokens as text that a person can read: parts of characters as bytes, white space and invisible signs made visible.

A byte-level tokenizer cuts where it likes, also inside a character: decoded alone, such a token is a replacement
character. Its bytes are shown instead, ⟨0xE2⟩. Whatever comes out is hostile text until it is escaped.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from .wire import travels

__all__ = ["piece", "visible"]

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
_SIGNS = {" ": "\N{OPEN BOX}", "\n": "↵", "\t": "⇥", "\r": "␍"}  # ␣ stands for a token that is all spaces
# Invisible characters that are part of a picture when they stand in one: joiner and variation selectors.
_JOINERS = frozenset("\u200d\ufe0e\ufe0f")


def piece(tokenizer: Any, token: int) -> str:
    """The text of one token by itself, its leading space included; bytes that are no whole character as ⟨0xE2⟩."""
    text = str(tokenizer.decode([token]))
    raw = _raw(tokenizer, token)
    if raw is None:
        return travels(text)
    found = _BYTE.fullmatch(raw)
    if found:  # SentencePiece's byte fallback
        return _from_bytes(bytes([int(found[1], 16)]))
    if "\ufffd" in text and all(sign in _BYTES for sign in raw):
        return _from_bytes(bytes(_BYTES[sign] for sign in raw))
    if raw.startswith("▁") and not text.startswith((" ", "▁")):  # SentencePiece decodes a first word without its space
        return travels(raw.replace("▁", " "))
    return travels(text)


def visible(text: str) -> str:
    """``text`` on one line, with every invisible character shown: ↵ ⇥ ␣ for white space, ⟨U+202E⟩ for the others."""
    if text and not text.strip(" "):
        return _SIGNS[" "] * len(text)
    picture = any(unicodedata.category(sign) == "So" for sign in text)
    return "".join(_visible(sign, picture) for sign in text)


def _visible(sign: str, picture: bool) -> str:
    if sign == " ":
        return sign
    if sign in _SIGNS:
        return _SIGNS[sign]
    if (picture and sign in _JOINERS) or unicodedata.category(sign)[0] not in "CZ":
        return sign
    return f"⟨U+{ord(sign):04X}⟩"


def _raw(tokenizer: Any, token: int) -> str | None:
    """How the vocabulary spells a token; None where the tokenizer does not tell."""
    convert = getattr(tokenizer, "convert_ids_to_tokens", None)
    raw = convert(token) if callable(convert) else None
    return raw if isinstance(raw, str) else None


def _from_bytes(raw: bytes) -> str:
    """UTF-8 where it is, and the single bytes where it is not."""
    text = raw.decode("utf-8", errors="surrogateescape")
    return "".join(f"⟨0x{ord(c) - 0xDC00:02X}⟩" if 0xDC80 <= ord(c) <= 0xDCFF else c for c in text)


def _byte_signs() -> dict[str, int]:
    """The characters by which byte-level tokenizers spell bytes (Radford et al. 2019, the encoder of GPT-2)."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(byte): byte for byte in plain} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTES = _byte_signs()
