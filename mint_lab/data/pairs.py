r"""Preference pairs: a prompt, a chosen completion and a rejected one.

Rows of any source may have one of two formats:

*HH-RLHF*: ``chosen`` and ``rejected`` are whole transcripts. The prompt is their common prefix, up to the end of its
last ``"\n\nAssistant:"``.

*TRL*: ``prompt``, ``chosen``, ``rejected``; each is text or chat messages. Without a ``prompt``, the messages that both
sides begin with are the prompt.

*Orca*: ``question``, ``chosen``, ``rejected``, and perhaps ``system``; system and question become chat messages.

The columns ``tools`` and ``chat_template_kwargs`` (TRL) go to the chat template.
"""

from __future__ import annotations

import os
import random
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from ..errors import DataError
from .chats import Completion, Message, Prompt, answer_of, chat_of, is_message, kind_of, prompt_of, text_or_messages
from .problems import addition_problems, mistake
from .render import Rendered, describe_changes, render
from .sources import Rows, named_rows

if TYPE_CHECKING:
    from ..types import Datum

__all__ = [
    "Pair",
    "arithmetic_pairs",
    "describe_pairs",
    "load_pairs",
    "pair_of",
    "pairs_to_data",
    "render_pairs",
]

ASSISTANT_TURN = "\n\nAssistant:"


@dataclass(frozen=True, slots=True)
class Pair:
    """A preference between two completions of a prompt.

    A completion follows the prompt without a separator: after a text prompt it begins with its own space or line break;
    after chat messages it is the content of the assistant's turn.

    Attributes:
        prompt: Text, or chat messages (``role`` and ``content``).
        chosen: The better completion: text; or, after chat messages, an assistant's message with more than text.
        rejected: The worse one.
    """

    prompt: Prompt
    chosen: Completion
    rejected: Completion

    def check(self, index: int | None = None) -> Pair:
        """Return this pair if it is valid.

        Args:
            index: Position of the pair in the data, for the error.

        Raises:
            DataError: If a field has the wrong type, a completion is empty, or the completions are equal.
        """
        for name in ("chosen", "rejected"):
            _check_completion(getattr(self, name), index, name)
        if isinstance(self.prompt, str):
            pass
        elif not isinstance(self.prompt, Sequence) or not all(is_message(m) for m in self.prompt):
            raise DataError(
                f"found {kind_of(self.prompt)}, expected text or chat messages", index=index, field="prompt"
            )
        if self.chosen == self.rejected:
            raise DataError("chosen and rejected are equal, expected two different completions", index=index)
        return self


def load_pairs(source: Any, *, limit: int | None = None) -> list[Pair]:
    """Load pairs from a file or from memory.

    Args:
        source: A path that ends in ``.jsonl``, ``.jsonl.gz`` or ``.parquet``; the name of a data set on the Hugging
            Face hub, such as "Anthropic/hh-rlhf" or "owner/name:configuration:split"; a pandas DataFrame; a
            ``datasets.Dataset``; an iterable of mappings or of :class:`Pair`; or :class:`Rows` of any of these.
        limit: Maximum number of rows to read; later rows are not checked. None for all.

    Raises:
        DataError: If there is no such file, a line is not JSON, there are no rows, columns are missing, or a row is not
            a valid pair. ``error.index`` is the row (from 0), ``error.field`` the column.
    """
    if limit is not None and limit < 1:
        raise DataError(f"found {limit}, expected at least 1, or None for all", field="limit")
    given = Rows.of(source)
    return (given if limit is None else Rows(given, max_rows=limit, on_bad_row=given.on_bad_row)).map(pair_of)


def arithmetic_pairs(n: int = 4000, seed: int = 0, split: Literal["train", "held_out"] = "train") -> list[Pair]:
    """Return pairs of two-digit additions: the right answer, and a wrong one that the bundled model tends to give.

    The list is the same for the same arguments. No problem of one split occurs in the other, in either order of its
    numbers.

    Raises:
        DataError: If ``split`` is neither of the two, or ``n`` is negative.
    """
    rng = random.Random(f"arithmetic pairs/{split}/{seed}")
    return [
        Pair(problem.prompt, problem.answer, mistake(problem, rng)) for problem in addition_problems(n, seed, split)
    ]


def pairs_to_data(
    pairs: Iterable[Pair | Mapping[str, Any]], tokenizer: Any, *, max_length: int | None = None
) -> list[Datum]:
    """Tokenize pairs into datums: ``2 n`` of them, chosen and rejected alternating, with weight 0 on the prompts.

    Both sides of a pair have exactly the same prompt tokens, even if ``max_length`` truncates the prompt: both sides
    lose the same tokens at its beginning. A completion loses its end only if it does not fit without the prompt. One
    ``UserWarning`` says how many of each were truncated.

    Args:
        pairs: Pairs, or anything else that :func:`load_pairs` accepts: rows with named columns, a data frame, a data
            set.
        tokenizer: A transformers tokenizer.
        max_length: Maximum tokens of prompt and completion; None for no limit.

    Raises:
        ConfigError: If ``tokenizer`` is not a tokenizer.
        DataError: If there are no pairs, a pair is invalid, or :func:`mint_lab.data.encode` raises one.
            ``error.index`` is the pair's position.
    """
    given = Rows.of(pairs)
    found = render_pairs(given, tokenizer, max_length=max_length)
    if notes := [note for note in (given.note(), *describe_pairs(found, max_length)) if note]:
        warnings.warn("; ".join(notes), UserWarning, stacklevel=2)
    return [datum for _, rendered in found for datum in rendered.data()]


def render_pairs(given: Rows, tokenizer: Any, *, max_length: int | None = None) -> list[tuple[int, Rendered]]:
    """Tokenize pairs: the number of each row with its prompt and its two completions, chosen first.

    Raises:
        ConfigError: As :func:`pairs_to_data`.
        DataError: As :func:`pairs_to_data`.
    """

    def tokenized(row: Any, index: int) -> tuple[int, Rendered]:
        pair = pair_of(row, index)
        return index, render(tokenizer, pair.prompt, (pair.chosen, pair.rejected), max_length=max_length)

    return given.map(tokenized)


def describe_pairs(found: Sequence[tuple[int, Rendered]], max_length: int | None) -> list[str]:
    """Return sentences about pairs that lost something, or whose sides are equal."""
    equal = [index for index, one in found if one.completions[0] == one.completions[1]]
    notes = describe_changes(found, max_length)
    if equal:
        notes.append(
            f"{len(equal)} pairs have equal tokens on both sides, so they have no gradient ({named_rows(equal)})"
        )
    return notes


def pair_of(row: Any, index: int) -> Pair:
    """Return the pair of a row in any format; raise :class:`DataError` with the row and the column."""
    if isinstance(row, Pair):
        return row.check(index)
    if not isinstance(row, Mapping):
        raise DataError(f"found {kind_of(row)}, expected a row with named columns, or a Pair", index=index)
    row = cast("Mapping[str, Any]", row)
    missing = [name for name in ("chosen", "rejected") if name not in row]
    if missing:
        hint = "; rows with one completion and a label are for recipe='unpaired'" if "label" in row else ""
        raise DataError(
            f"no column {' and '.join(map(repr, missing))}; found {', '.join(map(repr, row))}, expected 'chosen' and "
            f"'rejected', with or without 'prompt'{hint}",
            index=index,
            field=missing[0],
        )
    chosen, rejected = (text_or_messages(row[name], index, name) for name in ("chosen", "rejected"))
    prompt = row.get("prompt")
    if prompt is None and "question" in row:
        prompt = _question(row, index)
    if isinstance(chosen, str) and isinstance(rejected, str):
        if prompt is None and "prompt" not in row:
            pair = _from_transcripts(chosen, rejected, index).check(index)
            prompt_of(pair.prompt, row, index)
            return pair
        start = text_or_messages(prompt, index, "prompt")
        return Pair(prompt_of(start, row, index), chosen, rejected).check(index)
    if isinstance(chosen, str) or isinstance(rejected, str):
        raise DataError(
            "one of chosen and rejected is text and the other chat messages, expected both of one kind",
            index=index,
            field="rejected",
        )
    start = None if prompt is None else text_or_messages(prompt, index, "prompt")
    messages, sides = _from_messages(start, chosen, rejected, index)
    return Pair(chat_of(messages, row, index), *sides).check(index)


def _question(row: Mapping[str, Any], index: int) -> list[Message]:
    """Return the message of a row with ``question`` (Orca)."""
    text = row["question"]
    if not isinstance(text, str):
        raise DataError(f"found {kind_of(text)}, expected text", index=index, field="question")
    return [{"role": "user", "content": text}]


def _from_transcripts(chosen: str, rejected: str, index: int) -> Pair:
    """Split transcripts (HH-RLHF): the prompt ends with the last "Assistant:" of their common prefix."""
    if chosen == rejected:
        raise DataError("chosen and rejected are equal, expected two different completions", index=index)
    shared = os.path.commonprefix([chosen, rejected])  # noqa: RUF071 (texts, not paths, so character by character)
    place = shared.rfind(ASSISTANT_TURN)
    if place < 0:
        raise DataError(
            f"chosen and rejected have no common prefix with {ASSISTANT_TURN!r}, expected transcripts that do, or a "
            "column 'prompt'",
            index=index,
            field="prompt",
        )
    end = place + len(ASSISTANT_TURN)
    return Pair(shared[:end], chosen[end:], rejected[end:])


def _from_messages(
    prompt: Prompt | None, chosen: list[Message], rejected: list[Message], index: int
) -> tuple[list[Message], list[Completion]]:
    """Split chats: the messages that both sides begin with are (or repeat) the prompt; one message of each remains."""
    shared = 0
    # Stop before the last message: it is the completion even if both sides are equal, which Pair.check reports.
    while shared < min(len(chosen), len(rejected)) - 1 and chosen[shared] == rejected[shared]:
        shared += 1
    prefix = chosen[:shared]
    if prompt is None or isinstance(prompt, str):
        prompt_messages: list[Message] = [] if prompt is None else [{"role": "user", "content": prompt}]
        whole = prefix or prompt_messages
    else:
        prompt_messages = list(prompt)
        repeats = prefix[: len(prompt_messages)] == prompt_messages
        whole = prompt_messages + (prefix[len(prompt_messages) :] if repeats else prefix)
    if not whole:
        raise DataError(
            "chosen and rejected have different first messages, expected a common beginning, or a column 'prompt'",
            index=index,
            field="prompt",
        )
    sides = (chosen, "chosen"), (rejected, "rejected")
    return whole, [_answer(side[shared:], whole, index, name) for side, name in sides]


def _answer(messages: list[Message], before: Sequence[Message], index: int, name: str) -> Completion:
    """Return the only message after the common beginning; it must be the assistant's."""
    roles = [str(message["role"]) for message in messages]
    if roles != ["assistant"]:
        raise DataError(
            f"after the common beginning found messages of {roles}, expected one message of the assistant",
            index=index,
            field=name,
        )
    return answer_of(messages[0], before)


def _check_completion(value: Any, index: int | None, name: str) -> None:
    if not isinstance(value, str) and not is_message(value):
        raise DataError(f"found {kind_of(value)}, expected text", index=index, field=name)
    if not value:
        raise DataError("empty, expected at least one character", index=index, field=name)
