"""Shorten a text that is far longer than a sequence before it is tokenized, without changing any token that is kept.

A row can be a whole book. Tokenizing all of it several times (the prompt alone, the prompt with each completion) takes
minutes, and then nearly all tokens are thrown away. So the text is cut where no token can span the cut: a space between
two letters, if no token of the vocabulary contains a space between letters. Then each side is tokenized as if the other
were not there: byte-pair merges cannot cross the cut, and the best path of a unigram model falls apart into two. What a
tokenizer does beyond that (normalizers, a space put before each text) is checked on the text around the cut. A text
without such a place is tokenized as a whole.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Shortened", "shorten"]

LONG_CHARACTERS = 100_000  # shorter texts are tokenized as a whole
CHARACTERS_PER_TOKEN = 16  # of what is kept at first; doubled until it has enough tokens
CHUNK_CHARACTERS = 20_000  # tokenized at a time to be counted
CONTEXT_CHARACTERS = 1000  # on each side of a cut, on which the cut is checked
MAX_ATTEMPTS = 3  # places that are checked near one
_PLACE = re.compile(r"(?<=[A-Za-z]) (?=[A-Za-z])")
_SPANNING = re.compile(r"[A-Za-z][Ġ▁ ][A-Za-z]")  # "Ġ" and "▁" are how tokenizers write a space


@dataclass(frozen=True)
class Shortened:
    """A prompt without its beginning, and completions without their ends.

    Attributes:
        prompt, completions: What is left of the texts.
        lost_beginning: Tokens of the beginning of the prompt that is left out.
        lost_ends: Tokens of the end of each completion that is left out.
    """

    prompt: str
    completions: list[str]
    lost_beginning: int
    lost_ends: tuple[int, ...]


def shorten(
    tokens: Callable[[str], list[int]], tokenizer: Any, prompt: str, completions: Sequence[str], max_length: int | None
) -> Shortened:
    """Leave out most of what a truncation to ``max_length`` tokens leaves out anyway.

    Args:
        tokens: Returns the tokens of a text, without special tokens.
        tokenizer: A transformers tokenizer.
        prompt: Text that loses its beginning.
        completions: Texts that lose their ends.
        max_length: Maximum length of prompt and completion, tokens; None for no limit.
    """
    whole = Shortened(prompt, list(completions), 0, (0,) * len(completions))
    if max_length is None or max(map(len, [prompt, *completions])) < _long(max_length):
        return whole
    if any(map(_SPANNING.search, tokenizer.get_vocab())):
        return whole
    cutter = _Cutter(tokens, max_length)
    end, begin = cutter.before_end(prompt)
    ends = [cutter.after_start(text) for text in completions]
    return Shortened(
        prompt[begin:],
        [text[:end] for text, (end, _) in zip(completions, ends, strict=True)],
        cutter.count(prompt[:end]),
        tuple(cutter.count(text[begin:]) for text, (_, begin) in zip(completions, ends, strict=True)),
    )


def _long(max_length: int) -> int:
    return max(LONG_CHARACTERS, 4 * CHARACTERS_PER_TOKEN * max_length)


class _Cutter:
    """Finds places where texts can be cut.

    Each place is a pair: where the left side ends and where the right side begins. The space between the two belongs to
    the right side, or to neither if the tokenizer puts a space before each text.
    """

    def __init__(self, tokens: Callable[[str], list[int]], max_length: int) -> None:
        self._tokens, self._max_length = tokens, max_length

    def before_end(self, text: str) -> tuple[int, int]:
        """Return a place with at least twice the maximum length after it; (0, 0) if there is none."""
        size = CHARACTERS_PER_TOKEN * self._max_length
        while len(text) >= max(size, _long(self._max_length)):
            place = self._place(text, len(text) - size)
            if place is None:
                break
            if len(self._tokens(text[place[1] :])) >= 2 * self._max_length:
                return place
            size *= 2
        return 0, 0

    def after_start(self, text: str) -> tuple[int, int]:
        """Return a place with at least twice the maximum length before it; the end of the text if there is none."""
        size = CHARACTERS_PER_TOKEN * self._max_length
        while len(text) >= max(size, _long(self._max_length)):
            place = self._place(text, size)
            if place is None:
                break
            if len(self._tokens(text[: place[0]])) >= 2 * self._max_length:
                return place
            size *= 2
        return len(text), len(text)

    def count(self, text: str) -> int:
        """Return the number of tokens of a text, counted piece by piece."""
        number = start = 0
        while len(text) - start > 2 * CHUNK_CHARACTERS:
            place = self._place(text, start + CHUNK_CHARACTERS)
            if place is None:
                break
            number += len(self._tokens(text[start : place[0]]))
            start = place[1]
        return number + (len(self._tokens(text[start:])) if text else 0)

    def _place(self, text: str, near: int) -> tuple[int, int] | None:
        """Return a place from ``near`` on, not far from it; None if there is none."""
        for match in itertools.islice(_PLACE.finditer(text, near, near + CHUNK_CHARACTERS), MAX_ATTEMPTS):
            end = match.start()
            before, after = text[max(0, end - CONTEXT_CHARACTERS) : end], text[end : end + CONTEXT_CHARACTERS]
            whole, left = self._tokens(before + after), self._tokens(before)
            for skipped in (0, 1):
                if left + self._tokens(after[skipped:]) == whole:
                    return end, end + skipped
        return None
