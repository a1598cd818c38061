"""What a chat is: messages from rows of every common format.

A message is a mapping with ``role`` and ``content`` (OpenAI, TRL) or with ``from`` and ``value`` (ShareGPT). Content is
text, a list of parts of text, or nothing where the message has ``tool_calls``. Further fields are kept: the chat
template decides what it writes, and :mod:`mint_lab.data.chat_template` refuses what a template would drop.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, cast

from ..errors import DataError

__all__ = [
    "Chat",
    "Completion",
    "Message",
    "Prompt",
    "answer_of",
    "chat_of",
    "is_message",
    "is_weighted",
    "kind_of",
    "prompt_of",
    "text_or_messages",
]

Message: TypeAlias = Mapping[str, Any]
Prompt: TypeAlias = "str | Sequence[Message]"
Completion: TypeAlias = "str | Message"
"""Text that follows a prompt; or the assistant's message after chat messages, where it has more than text."""

SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "system": "system",
    "tool": "tool",
    "observation": "tool",
    "function_response": "tool",
}


SYSTEM_COLUMNS = ("system", "system_prompt")
"""Columns with the text of a system message beside a chat."""


class Chat(list[Message]):
    """Chat messages, with arguments for the chat template that renders them.

    Attributes:
        template_arguments: Arguments of ``apply_chat_template``: ``tools``, and whatever a row's
            ``chat_template_kwargs`` hold, such as ``enable_thinking``.
    """

    def __init__(self, messages: Iterable[Message], template_arguments: Mapping[str, Any] | None = None) -> None:
        super().__init__(messages)
        self.template_arguments: dict[str, Any] = dict(template_arguments or {})

    def __repr__(self) -> str:
        return f"Chat({list(self)!r}, {self.template_arguments!r})" if self.template_arguments else repr(list(self))


def prompt_of(prompt: Prompt, row: Mapping[str, Any], index: int | None) -> Prompt:
    """Return a text prompt as it is, and chat messages with the other columns of their row (:func:`chat_of`).

    Raises:
        DataError: As :func:`chat_of`; and if the row has a system message beside a text prompt.
    """
    if not isinstance(prompt, str):
        return chat_of(prompt, row, index)
    name, text = _system(row, index)
    if text:
        raise DataError(
            "a text prompt has no place for a system message; write it into the prompt, give chat messages as the "
            "prompt, or remove the column",
            index=index,
            field=name,
        )
    return prompt


def chat_of(messages: Iterable[Message], row: Mapping[str, Any], index: int | None) -> Chat:
    """Return ``messages`` with what other columns of their row say.

    They are ``tools`` and ``chat_template_kwargs``, and ``system`` or ``system_prompt``: the text of the first message.

    Raises:
        DataError: If one of the columns has another type than a template takes, or the messages begin with another
            system message.
    """
    messages = list(messages)
    name, text = _system(row, index)
    if text and messages and messages[0]["role"] == "system":
        if messages[0].get("content") != text:
            raise DataError("the messages begin with another system message; keep one", index=index, field=name)
    elif text:
        messages = [{"role": "system", "content": text}, *messages]
    arguments: dict[str, Any] = {}
    tools = _loaded(row.get("tools"))
    if tools:
        if not isinstance(tools, list) or not all(isinstance(tool, Mapping) for tool in cast("list[Any]", tools)):
            raise DataError(f"found {kind_of(tools)}, expected a list of JSON schemas", index=index, field="tools")
        arguments["tools"] = [_without_none(tool) for tool in cast("list[Any]", tools)]
    given = _loaded(row.get("chat_template_kwargs"))
    if given:
        if not isinstance(given, Mapping):
            raise DataError(
                f"found {kind_of(given)}, expected a mapping of names to values",
                index=index,
                field="chat_template_kwargs",
            )
        arguments |= _without_none(given)
    return Chat(messages, arguments)


def _system(row: Mapping[str, Any], index: int | None) -> tuple[str, str]:
    """Return the column of a row's system message and its text; "" if the row has none."""
    for name in SYSTEM_COLUMNS:
        value = row.get(name)
        if isinstance(value, str) and value:
            return name, value
        if not isinstance(value, str) and not kind_of(value).startswith("nothing"):
            raise DataError(f"found {kind_of(value)}, expected text", index=index, field=name)
    return SYSTEM_COLUMNS[0], ""


def answer_of(message: Message, before: Sequence[Message]) -> Completion:
    """Return an assistant's message as a completion: its text, or the message itself if it has more than that.

    A message that follows another one of the assistant stays one, because a text would continue the other.

    Args:
        message: The message.
        before: The messages before it.
    """
    is_text = set(message) <= {"role", "content"} and not (before and before[-1]["role"] == "assistant")
    return message["content"] if is_text else message


def text_or_messages(value: Any, index: int | None, field: str) -> str | list[Message]:
    """Return ``value`` if it is text, or as a list of messages with ``role`` and ``content``.

    Args:
        value: A cell of a row.
        index: The row's index, for the error; None if unknown.
        field: The cell's column, for the error.

    Raises:
        DataError: If ``value`` is neither text nor a non-empty sequence of messages, or a message cannot be used.
    """
    if isinstance(value, str):
        return value
    if hasattr(value, "tolist"):  # data frames and Parquet files hold a list as an array
        value = value.tolist()
    if isinstance(value, Sequence) and value and all(isinstance(one, Mapping) for one in cast("Sequence[Any]", value)):
        messages = cast("Sequence[Message]", value)
        return Chat(
            [_message(message, number, index, field) for number, message in enumerate(messages)],
            getattr(messages, "template_arguments", None),
        )
    raise DataError(f"found {kind_of(value)}, expected text or chat messages", index=index, field=field)


def is_message(value: Any) -> bool:
    """Return True if ``value`` is a message as :func:`text_or_messages` returns it: a role, and text or tool calls."""
    if not isinstance(value, Mapping):
        return False
    message = cast("Message", value)
    return isinstance(message.get("role"), str) and (
        isinstance(message.get("content"), str) or bool(message.get("tool_calls"))
    )


def is_weighted(message: Message) -> bool:
    """Return False if the message of the assistant has weight 0 (OpenAI's format): it is read and not trained.

    Raises:
        DataError: If the weight is neither 0 nor 1.
    """
    weight = message.get("weight", 1)
    if message["role"] != "assistant" or weight in (0, 1):
        return message["role"] != "assistant" or bool(weight)
    raise DataError(f"found {weight!r}, expected 0 or 1: whether a message is trained", field="weight")


def kind_of(value: Any) -> str:
    """Describe a value that is not what was expected, for a message. A data frame has nan for a missing value."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "nothing (None)"
    return "an empty list" if isinstance(value, list) and not value else type(value).__name__


def _message(message: Message, number: int, index: int | None, field: str) -> Message:
    """Return one message with ``role`` and ``content``, without fields that are None (Arrow fills them in)."""
    given = _without_none(message)
    if "from" in given and "role" not in given:
        role = str(given.pop("from"))
        if role not in SHAREGPT_ROLES:
            raise DataError(
                f"message {number} is from {role!r}, expected one of {', '.join(map(repr, SHAREGPT_ROLES))}",
                index=index,
                field=field,
            )
        given = {"role": SHAREGPT_ROLES[role], "content": given.pop("value", None), **given}
    if not given.get("tool_calls"):
        given.pop("tool_calls", None)
    if not isinstance(given.get("content"), str) and given.get("content") is not None:
        given["content"] = _joined_parts(given["content"], number, index, field)
    if given.get("content") is None and "tool_calls" in given:
        given["content"] = None  # templates ask whether it is none
    if not is_message(given):
        raise DataError(
            f"found list, expected text or chat messages; message {number} has {_described(message)}, expected a "
            "'role' and a text as 'content'",
            index=index,
            field=field,
        )
    return given


def _joined_parts(content: Any, number: int, index: int | None, field: str) -> str:
    """Return content that is a list of parts as one text; only text can be trained on."""
    if hasattr(content, "tolist"):
        content = content.tolist()
    if not isinstance(content, list):
        raise DataError(
            f"message {number} has a {type(content).__name__} as 'content', expected text or a list of parts of text",
            index=index,
            field=field,
        )
    texts: list[str] = []
    for part in cast("list[Any]", content):
        text = part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None
        if not isinstance(text, str):
            kind = cast("Message", part).get("type", "no type") if isinstance(part, Mapping) else type(part).__name__
            raise DataError(
                f"message {number} has a part of type {kind!r}, expected parts of type 'text' only",
                index=index,
                field=field,
            )
        texts.append(text)
    return "".join(texts)


def _described(message: Message) -> str:
    return ", ".join(f"{name}: {kind_of(value)}" for name, value in message.items()) or "no fields"


def _loaded(value: Any) -> Any:
    """Return a cell that may hold JSON as text, as Parquet files do for nested values."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, str):
        try:
            return json.loads(value) if value.strip() else None
        except json.JSONDecodeError:
            return value
    return None if isinstance(value, float) and math.isnan(value) else value


def _without_none(value: Any) -> Any:
    """Return mappings without the fields that are None, at every depth: Arrow gives every row every field."""
    if isinstance(value, Mapping):
        return {str(k): _without_none(v) for k, v in cast("Mapping[Any, Any]", value).items() if v is not None}
    if hasattr(value, "tolist") and not isinstance(value, str):
        value = value.tolist()
    return [_without_none(one) for one in cast("list[Any]", value)] if isinstance(value, list) else value
