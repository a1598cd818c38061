r"""Preference pairs: one prompt, a chosen completion and a rejected one.

Two shapes of rows are understood, whatever they are stored in:

*HH-RLHF*: ``chosen`` and ``rejected`` hold whole transcripts. What both begin with, cut back to the end of its last
``"\n\nAssistant:"``, is the prompt.

*TRL*: ``prompt``, ``chosen``, ``rejected``; each text or chat messages. Without a ``prompt``, messages that both sides
begin with are the prompt.
"""

from __future__ import annotations

import itertools
import math
import os
import random
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from ..errors import DataError
from .problems import addition_problems, mistake
from .render import Message, Prompt, Rendered, encode_completion, encode_prompt, fit, lost, to_datum
from .sources import rows

if TYPE_CHECKING:
    from ..types import Datum

__all__ = ["Pair", "arithmetic_pairs", "load_pairs", "pairs_to_data"]

TURN = "\n\nAssistant:"


@dataclass(frozen=True, slots=True)
class Pair:
    """One preference.

    Attributes:
        prompt: text, or chat messages (``role`` and ``content``).
        chosen, rejected: the two completions, as text that follows the prompt directly: after a text prompt it begins
            with its own space or line break, after chat messages it is the content of the assistant's turn.
    """

    prompt: Prompt
    chosen: str
    rejected: str

    def check(self, index: int | None = None) -> Pair:
        """This pair, if it can be learned from; ``index`` is its place in the data, for the message.

        Raises:
            DataError: a field that is no text, an empty completion, or two equal ones.
        """
        for name in ("chosen", "rejected"):
            _text(getattr(self, name), index, name)
        if isinstance(self.prompt, str):
            pass
        elif not isinstance(self.prompt, Sequence) or not all(_is_message(m) for m in self.prompt):
            raise DataError(f"found {_kind(self.prompt)}, expected text or chat messages", index=index, field="prompt")
        if self.chosen == self.rejected:
            raise DataError("chosen and rejected are the same, expected two to prefer between", index=index)
        return self


def load_pairs(source: Any, *, limit: int | None = None) -> list[Pair]:
    """Pairs from a file or from memory.

    Args:
        source: a path ending in ``.jsonl``, ``.jsonl.gz`` or ``.parquet``; a pandas DataFrame; a ``datasets.Dataset``;
            or an iterable of mappings or of :class:`Pair`.
        limit: read this many rows at most; what comes after them is not looked at.

    Raises:
        DataError: no file, a line that is not JSON, no rows, missing columns, or a row that is no pair. The row is
            ``error.index`` (from 0), the column ``error.field``.
    """
    if limit is not None and limit < 1:
        raise DataError(f"found {limit}, expected at least 1, or None for all", field="limit")
    found = itertools.islice(rows(source), limit)
    pairs = [row.check(i) if isinstance(row, Pair) else _pair(row, i) for i, row in enumerate(found)]
    if not pairs:
        name = f"{os.fspath(source)} is" if isinstance(source, (str, Path)) else f"the {type(source).__name__} given is"
        raise DataError(f"{name} empty, expected at least one row")
    return pairs


def arithmetic_pairs(n: int = 4000, seed: int = 0, split: Literal["train", "held_out"] = "train") -> list[Pair]:
    """Two-digit additions: the right answer against a wrong one that the bundled model itself tends to give.

    The same list for the same arguments; no problem of one split occurs in the other, in either order of its numbers.

    Raises:
        DataError: another split than these two, or a negative ``n``.
    """
    rng = random.Random(f"arithmetic pairs/{split}/{seed}")
    return [
        Pair(problem.prompt, problem.answer, mistake(problem, rng)) for problem in addition_problems(n, seed, split)
    ]


def pairs_to_data(
    pairs: Iterable[Pair | Mapping[str, Any]], tokenizer: Any, *, max_length: int | None = None
) -> list[Datum]:
    """Datums of pairs, chosen and rejected in turn: ``2 n`` of them, prompts with weight 0.

    What :func:`load_pairs` reads is taken as well: rows with named columns, a data frame, a data set.

    Both sides of a pair have exactly the same prompt tokens, also where ``max_length`` (tokens) cuts it: the prompt
    loses its beginning by the same amount on both sides, and only a completion that does not fit by itself loses its
    end. How many of either did is said in one ``UserWarning``.

    Raises:
        ConfigError: ``tokenizer`` is none.
        DataError: no pairs, a pair that cannot be learned from, or what :func:`mint_lab.data.encode` raises.
            ``error.index`` is the place of the pair.
    """
    data: list[Datum] = []
    every: list[Rendered] = []
    same = 0
    for index, pair in enumerate(load_pairs(pairs)):
        try:
            sides = [encode_completion(tokenizer, pair.prompt, text) for text in (pair.chosen, pair.rejected)]
            rendered = fit(encode_prompt(tokenizer, pair.prompt), sides, max_length)
        except DataError as error:
            message = str(error).removeprefix(f"field {error.field!r}: ")
            raise DataError(message, index=index, field=error.field) from error
        every.append(rendered)
        same += rendered.completions[0] == rendered.completions[1]
        length = len(rendered.prompt)
        data += [to_datum(rendered.prompt + completion, length) for completion in rendered.completions]
    cut = lost(every)
    found = [f"of what does not fit into {max_length} tokens, {cut}"] if cut else []
    found += [f"{same} pairs have two equal sides as tokens and teach nothing"] if same else []
    if found:
        warnings.warn("; ".join(found), UserWarning, stacklevel=2)
    return data


def _pair(row: Any, index: int) -> Pair:
    """One row in either shape; raises :class:`DataError` naming the row and the column."""
    if not isinstance(row, Mapping):
        raise DataError(f"found {_kind(row)}, expected a row with named columns, or a Pair", index=index)
    row = cast("Mapping[str, Any]", row)
    missing = [name for name in ("chosen", "rejected") if name not in row]
    if missing:
        raise DataError(
            f"no column {' and '.join(map(repr, missing))}; found {', '.join(map(repr, row))}, expected 'chosen' and "
            "'rejected', with or without 'prompt'",
            index=index,
            field=missing[0],
        )
    chosen, rejected = (_side(row[name], index, name) for name in ("chosen", "rejected"))
    prompt = row.get("prompt")
    if isinstance(chosen, str) and isinstance(rejected, str):
        if "prompt" not in row:
            return _from_transcripts(chosen, rejected, index).check(index)
        return Pair(_prompt(prompt, index), chosen, rejected).check(index)
    if isinstance(chosen, str) or isinstance(rejected, str):
        raise DataError("one of chosen and rejected is text and the other chat messages", index=index, field="rejected")
    return _from_messages(None if prompt is None else _prompt(prompt, index), chosen, rejected, index).check(index)


def _from_transcripts(chosen: str, rejected: str, index: int) -> Pair:
    """The HH-RLHF shape: the prompt ends with the last turn mark that both transcripts share."""
    if chosen == rejected:
        raise DataError("chosen and rejected are the same, expected two to prefer between", index=index)
    shared = os.path.commonprefix([chosen, rejected])  # noqa: RUF071 (texts, not paths: by character is right)
    place = shared.rfind(TURN)
    if place < 0:
        raise DataError(
            f"chosen and rejected share no beginning that ends with {TURN!r}; expected transcripts that do, or "
            "a column 'prompt'",
            index=index,
            field="prompt",
        )
    end = place + len(TURN)
    return Pair(shared[:end], chosen[end:], rejected[end:])


def _from_messages(prompt: Prompt | None, chosen: list[Message], rejected: list[Message], index: int) -> Pair:
    """Chat messages: what both sides begin with is (or repeats) the prompt; one message of each is left."""
    shared = 0
    # The last message of a side is its completion even where both sides' are equal, which the check then reports.
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    beginning = chosen[:shared]
    if prompt is None or isinstance(prompt, str):
        given: list[Message] = [] if prompt is None else [{"role": "user", "content": prompt}]
        whole = beginning or given
    else:
        given = list(prompt)
        whole = given + beginning[len(given) :] if beginning[: len(given)] == given else given + beginning
    if not whole:
        raise DataError(
            "chosen and rejected share no first message; expected the same beginning, or a column 'prompt'",
            index=index,
            field="prompt",
        )
    return Pair(
        whole, *(_answer(side[shared:], index, name) for side, name in ((chosen, "chosen"), (rejected, "rejected")))
    )


def _answer(messages: list[Message], index: int, name: str) -> str:
    """The content of the one assistant's message that is left when the shared beginning is taken away."""
    roles = [str(message["role"]) for message in messages]
    if roles != ["assistant"]:
        raise DataError(
            f"after what both sides share come messages of {roles}, expected one of the assistant's",
            index=index,
            field=name,
        )
    return messages[0]["content"]


def _side(value: Any, index: int, name: str) -> str | list[Message]:
    """``chosen`` or ``rejected`` as text or as a list of messages."""
    if isinstance(value, str):
        return value
    if hasattr(value, "tolist"):  # an array, which is how Parquet gives a list
        value = value.tolist()
    if isinstance(value, Sequence) and value and all(_is_message(m) for m in cast("Sequence[Any]", value)):
        return list(cast("Sequence[Message]", value))
    raise DataError(f"found {_kind(value)}, expected text or chat messages", index=index, field=name)


def _prompt(value: Any, index: int) -> Prompt:
    return _side(value, index, "prompt")


def _text(value: Any, index: int | None, name: str) -> None:
    if not isinstance(value, str):
        raise DataError(f"found {_kind(value)}, expected text", index=index, field=name)
    if not value:
        raise DataError("empty, expected at least one character", index=index, field=name)


def _is_message(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    message = cast("Mapping[str, Any]", value)
    return isinstance(message.get("role"), str) and isinstance(message.get("content"), str)


def _kind(value: Any) -> str:
    """What a wrong value is, in the words of a message; a data frame shows a missing value as nan."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "nothing (None)"
    return "an empty list" if isinstance(value, list) and not value else type(value).__name__
