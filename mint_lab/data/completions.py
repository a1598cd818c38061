r"""Prompts with one completion each, for supervised fine-tuning.

Every source of rows may have one of these formats:

*messages* (TRL): a chat whose last message is from the assistant. That message is the completion; the messages before
it are the prompt, which the tokenizer's chat template renders. Earlier assistant messages belong to the prompt.

*prompt* and *completion* (TRL), or *prompt* and *response*: each is text or chat messages. A text completion follows
its prompt without a separator, so after a text prompt it must begin with its own space or line break.

*question* and *answer* (GSM8K): become the prompt ``"Question: ...\nAnswer:"`` and the completion ``" <answer>"``.

*chosen* and *rejected*: pairs in the formats of :func:`mint_lab.data.load_pairs`; the chosen side is the completion.

A row whose ``label`` is False has a completion that nobody should learn to say, so it is refused;
:mod:`mint_lab.data.unpaired` uses such rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, cast

import numpy as np

from ..errors import DataError
from .chats import Completion, Message, Prompt, answer_of, chat_of, prompt_of, text_or_messages
from .pairs import Pair, pair_of
from .render import Rendered, TrainOn, render
from .sources import Rows

__all__ = ["COMPLETED", "Example", "completion_of", "example_of", "load_completions", "render_examples"]

Example: TypeAlias = "tuple[Prompt, Completion]"
# The columns of the formats that hold one completion.
COMPLETED: tuple[frozenset[str], ...] = (
    frozenset({"messages"}),
    frozenset({"conversations"}),
    frozenset({"prompt", "completion"}),
    frozenset({"prompt", "response"}),
    frozenset({"question", "answer"}),
)
COLUMNS = (
    "'messages', 'prompt' and 'completion' (or 'response'), 'question' and 'answer', 'conversations', or 'chosen' "
    "and 'rejected'"
)


def load_completions(source: Any) -> list[Example | Pair]:
    """Load ``(prompt, completion)`` tuples from a file or from memory; a :class:`Pair` is returned unchanged.

    Args:
        source: As in :func:`mint_lab.data.load_pairs`, with rows in this module's formats. An iterable may also hold
            ``(prompt, completion)`` tuples and :class:`Pair` objects.

    Raises:
        DataError: If there is no such file, a line is not JSON, there are no rows, or a row has none of the formats.
            ``error.index`` is the row (from 0), ``error.field`` the column.
    """
    return Rows.of(source).map(example_of)


def render_examples(
    given: Rows, tokenizer: Any, *, max_length: int | None = None, train_on: TrainOn = "last"
) -> list[tuple[int, bool, Rendered]]:
    """Tokenize examples.

    Returns:
        For each the number of its row, whether it is a pair, and its prompt with its completion; a pair has two
        completions, chosen first.

    Raises:
        ConfigError: As :func:`mint_lab.data.encode`.
        DataError: As :func:`load_completions` and :func:`mint_lab.data.encode`.
    """

    def tokenized(row: Any, index: int) -> tuple[int, bool, Rendered]:
        example = example_of(row, index)
        is_pair = isinstance(example, Pair)
        prompt, *completions = (example.prompt, example.chosen, example.rejected) if is_pair else example
        return index, is_pair, render(tokenizer, prompt, completions, max_length=max_length, train_on=train_on)

    return given.map(tokenized)


def example_of(row: Any, index: int) -> Example | Pair:
    """Return the example of a row in any format; raise :class:`DataError` with the row and the column."""
    if isinstance(row, Pair) or (isinstance(row, Mapping) and "chosen" in row and "rejected" in row):
        return pair_of(row, index)
    example = completion_of(row, index)
    if isinstance(row, Mapping) and "label" in row and _is_false(cast("Mapping[str, Any]", row)["label"]):
        raise DataError(
            f"the label is {cast('Mapping[str, Any]', row)['label']!r}: supervised fine-tuning would learn to say this "
            "completion; leave the row out, or learn from desirable and undesirable completions with "
            "recipe='unpaired'",
            index=index,
            field="label",
        )
    return example


def completion_of(row: Any, index: int, purpose: str = "supervised fine-tuning") -> Example:
    """Return the prompt and the completion of a row that is no pair, whatever its label; raise as :func:`example_of`.

    Args:
        row: The row.
        index: Its number, from 0.
        purpose: What the columns are needed for, for the error.
    """
    if isinstance(row, tuple) and len(cast("tuple[Any, ...]", row)) == 2:
        return _joined(*cast("tuple[Any, Any]", row), {}, index, "prompt", "completion")
    if not isinstance(row, Mapping):
        raise DataError(
            f"found {type(row).__name__}, expected a row with named columns, (prompt, completion) or a Pair",
            index=index,
        )
    row = cast("Mapping[str, Any]", row)
    for name in ("messages", "conversations"):
        if name in row:
            return _chat(text_or_messages(row[name], index, name), row, index, name)
    for before, after in (("prompt", "completion"), ("prompt", "response"), ("question", "answer")):
        if before in row and after in row:
            prompt, completion = row[before], row[after]
            if before == "question" and isinstance(prompt, str) and isinstance(completion, str):
                prompt, completion = f"Question: {prompt}\nAnswer:", f" {completion.lstrip()}"
            return _joined(prompt, completion, row, index, before, after)
    names = ", ".join(repr(str(name)) for name in row) or "none"
    raise DataError(f"found the columns {names}, expected for {purpose} {COLUMNS}", index=index)


def _is_false(label: Any) -> bool:
    """Return True for False and 0, also of numpy; a missing label says nothing."""
    return isinstance(label, bool | int | float | np.bool_ | np.number) and not label


def _joined(  # noqa: PLR0917 - two cells and where they are
    prompt: Any, completion: Any, row: Mapping[str, Any], index: int, prompt_field: str, completion_field: str
) -> Example:
    """Check a prompt and its completion; if the completion is messages, both become one chat."""
    before, after = text_or_messages(prompt, index, prompt_field), text_or_messages(completion, index, completion_field)
    if isinstance(after, str):
        if not after:
            raise DataError("empty, expected at least one character", index=index, field=completion_field)
        return prompt_of(before, row, index), after
    prompt_messages: list[Message] = [{"role": "user", "content": before}] if isinstance(before, str) else list(before)
    return _chat([*prompt_messages, *after], row, index, completion_field)


def _chat(messages: str | Sequence[Message], row: Mapping[str, Any], index: int, field: str) -> Example:
    """Split a chat into the messages before its last turn and that turn; the turn must be the assistant's."""
    if isinstance(messages, str):
        raise DataError("found text, expected chat messages with 'role' and 'content'", index=index, field=field)
    *before, last = messages
    if not before or last["role"] != "assistant" or not answer_of(last, ()):
        roles = [str(message["role"]) for message in messages]
        raise DataError(
            f"found messages of {roles}, expected at least two; the last must be the assistant's and not empty",
            index=index,
            field=field,
        )
    return chat_of(before, row, index), answer_of(last, before)
