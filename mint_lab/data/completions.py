r"""Prompts with one completion each, for supervised fine-tuning.

Every source of rows may have one of these formats:

*messages* (TRL): a chat whose last message is from the assistant. That message is the completion; the messages before
it are the prompt, which the tokenizer's chat template renders. Earlier assistant messages belong to the prompt.

*prompt* and *completion* (TRL), or *prompt* and *response*: each is text or chat messages. A text completion follows
its prompt without a separator, so after a text prompt it must begin with its own space or line break.

*question* and *answer* (GSM8K): become the prompt ``"Question: ...\nAnswer:"`` and the completion ``" <answer>"``.

*chosen* and *rejected*: pairs in the formats of :func:`mint_lab.data.load_pairs`; the chosen side is the completion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

from ..errors import DataError
from .pairs import Pair, load_pairs
from .render import Message, Prompt, text_or_messages
from .sources import rows

__all__ = ["Completion", "load_completions"]

Completion: TypeAlias = "tuple[Prompt, str]"
COLUMNS = "'messages', 'prompt' and 'completion' (or 'response'), 'question' and 'answer', or 'chosen' and 'rejected'"


def load_completions(source: Any) -> list[Completion | Pair]:
    """Load ``(prompt, completion)`` tuples from a file or from memory; a :class:`Pair` is returned unchanged.

    Args:
        source: As in :func:`mint_lab.data.load_pairs`, with rows in this module's formats. An iterable may also hold
            ``(prompt, completion)`` tuples and :class:`Pair` objects.

    Raises:
        DataError: If there is no such file, a line is not JSON, there are no rows, or a row has none of the formats.
            ``error.index`` is the row (from 0), ``error.field`` the column.
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
        return _chat(text_or_messages(row["messages"], index, "messages"), index, "messages")
    for before, after in (("prompt", "completion"), ("prompt", "response"), ("question", "answer")):
        if before in row and after in row:
            prompt, completion = row[before], row[after]
            if before == "question" and isinstance(prompt, str) and isinstance(completion, str):
                prompt, completion = f"Question: {prompt}\nAnswer:", f" {completion.lstrip()}"
            return _joined(prompt, completion, index, before, after)
    names = ", ".join(repr(str(name)) for name in row) or "none"
    raise DataError(f"found the columns {names}, expected for supervised fine-tuning {COLUMNS}", index=index)


def _joined(prompt: Any, completion: Any, index: int, prompt_field: str, completion_field: str) -> Completion:
    """Check a prompt and its completion; if the completion is messages, both become one chat."""
    before, after = text_or_messages(prompt, index, prompt_field), text_or_messages(completion, index, completion_field)
    if isinstance(after, str):
        if not after:
            raise DataError("empty, expected at least one character", index=index, field=completion_field)
        return before, after
    prompt_messages: list[Message] = [{"role": "user", "content": before}] if isinstance(before, str) else list(before)
    return _chat([*prompt_messages, *after], index, completion_field)


def _chat(messages: str | Sequence[Message], index: int, field: str) -> Completion:
    """Split a chat into the messages before its last turn and that turn's text; the turn must be the assistant's."""
    if isinstance(messages, str):
        raise DataError("found text, expected chat messages with 'role' and 'content'", index=index, field=field)
    *before, last = messages
    if not before or last["role"] != "assistant" or not last["content"]:
        roles = [str(message["role"]) for message in messages]
        raise DataError(
            f"found messages of {roles}, expected at least two; the last must be the assistant's and not empty",
            index=index,
            field=field,
        )
    return before, last["content"]
