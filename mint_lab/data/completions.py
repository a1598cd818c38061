r"""Prompts with one completion each, for supervised fine-tuning.

Rows are understood in these shapes, whatever they are stored in:

*messages* (TRL): a chat whose last message is the assistant's. That message is the completion and what comes before it
the prompt, which goes through the tokenizer's chat template; earlier turns of the assistant's are prompt as well.

*prompt* and *completion* (TRL), or *prompt* and *response*: each text or chat messages. A completion that is text
follows its prompt directly, so after a text prompt it begins with its own space or line break.

*question* and *answer* (GSM8K): become ``"Question: ...\nAnswer:"`` and the answer behind one space.

*chosen* and *rejected*: pairs, as :func:`mint_lab.data.load_pairs` reads them; the chosen side is what is learned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

from ..errors import DataError
from .pairs import Pair, load_pairs
from .render import Message, Prompt
from .sources import rows

__all__ = ["Completion", "load_completions"]

Completion: TypeAlias = "tuple[Prompt, str]"
COLUMNS = "'messages', 'prompt' and 'completion' (or 'response'), 'question' and 'answer', or 'chosen' and 'rejected'"


def load_completions(source: Any) -> list[Completion | Pair]:
    """``(prompt, completion)`` of each row of a file or of memory; a :class:`Pair` stays one.

    Args:
        source: as of :func:`mint_lab.data.load_pairs`, with rows as this module's text says; an iterable may also hold
            ``(prompt, completion)`` tuples and :class:`Pair`.

    Raises:
        DataError: no file, a line that is not JSON, no rows, or a row of no such shape. The row is ``error.index``
            (from 0), the column ``error.field``.
    """
    found = list(rows(source))
    if not found:
        raise DataError("there is nothing to train on: the data are empty")
    if isinstance(found[0], Mapping) and "chosen" in found[0] and "rejected" in found[0]:
        return list(load_pairs(found))
    return [_completion(row, index) for index, row in enumerate(found)]


def _completion(row: Any, index: int) -> Completion | Pair:
    if isinstance(row, Pair):
        return row.check(index)
    if isinstance(row, tuple) and len(cast("tuple[Any, ...]", row)) == 2:
        return _joined(*cast("tuple[Any, Any]", row), index, "prompt", "completion")
    if not isinstance(row, Mapping):
        raise DataError(
            f"found {type(row).__name__}, expected a row with named columns, (prompt, completion) or a Pair",
            index=index,
        )
    row = cast("Mapping[str, Any]", row)
    if "messages" in row:
        return _chat(_side(row["messages"], index, "messages"), index, "messages")
    for asked, answered in (("prompt", "completion"), ("prompt", "response"), ("question", "answer")):
        if asked in row and answered in row:
            prompt, completion = row[asked], row[answered]
            if asked == "question" and isinstance(prompt, str) and isinstance(completion, str):
                prompt, completion = f"Question: {prompt}\nAnswer:", f" {completion.lstrip()}"
            return _joined(prompt, completion, index, asked, answered)
    names = ", ".join(repr(str(name)) for name in row) or "none"
    raise DataError(f"found the columns {names}; supervised fine-tuning expected {COLUMNS}", index=index)


def _joined(prompt: Any, completion: Any, index: int, asked: str, answered: str) -> Completion:
    before, after = _side(prompt, index, asked), _side(completion, index, answered)
    if isinstance(after, str):
        if not after:
            raise DataError("empty, expected at least one character", index=index, field=answered)
        return before, after
    given: list[Message] = [{"role": "user", "content": before}] if isinstance(before, str) else list(before)
    return _chat([*given, *after], index, answered)


def _chat(messages: str | Sequence[Message], index: int, field: str) -> Completion:
    """The last turn, which is the assistant's, and what leads up to it."""
    if isinstance(messages, str):
        raise DataError("found text, expected chat messages with 'role' and 'content'", index=index, field=field)
    *before, last = messages
    if not before or last["role"] != "assistant" or not last["content"]:
        roles = [str(message["role"]) for message in messages]
        raise DataError(
            f"found messages of {roles}, expected at least two, of which the last is the assistant's and not empty",
            index=index,
            field=field,
        )
    return before, last["content"]


def _side(value: Any, index: int, field: str) -> str | list[Message]:
    """Text, or chat messages."""
    if isinstance(value, str):
        return value
    if hasattr(value, "tolist"):  # an array, which is how a data frame holds a list
        value = value.tolist()
    if isinstance(value, Sequence) and value and all(map(_is_message, cast("Sequence[Any]", value))):
        return list(cast("Sequence[Message]", value))
    found = "nothing (None)" if value is None else "an empty list" if value == [] else type(value).__name__
    raise DataError(f"found {found}, expected text or chat messages", index=index, field=field)


def _is_message(value: Any) -> bool:
    if not isinstance(value, Mapping):
        return False
    message = cast("Mapping[str, Any]", value)
    return isinstance(message.get("role"), str) and isinstance(message.get("content"), str)
