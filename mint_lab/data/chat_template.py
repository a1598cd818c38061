"""What a tokenizer's chat template writes for a conversation, and the refusal of what it would drop.

A chat template is a Jinja program in a model's folder (transformers, "Chat templates"). The model was trained on
exactly what its template writes, so nothing here adds, trims or moves a character.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import DataError
from .chats import Message

__all__ = [
    "EXCERPT",
    "PROBE",
    "check_written",
    "common_length",
    "conversation",
    "generation_prompt",
    "marked_tokens",
    "marks_turns",
    "parting",
    "writes_reasoning",
    "writes_tools",
]

# Fields of a message that carry text of a turn, under the names in use. Others, such as ids, a template may leave out.
CONTENT_FIELDS = ("tool_calls", "reasoning_content", "reasoning", "thinking", "tool_plan", "function_call")
REASONING = frozenset({"reasoning_content", "reasoning", "thinking"})
GENERATION = re.compile(r"\{%[-+]?\s*generation\b")
# Ends a thought that is a part of the content (DeepSeek, Qwen).
END_OF_THOUGHT = "</think>"
PROBE = "qzxprobe"
EXCERPT = 60


def conversation(tokenizer: Any, messages: Sequence[Message]) -> str:
    """Return what the template writes for finished turns.

    Raises:
        DataError: If the tokenizer has no chat template, or the template refuses the messages.
    """
    return _written(tokenizer, messages, add_generation_prompt=False)


def generation_prompt(tokenizer: Any, messages: Sequence[Message], *, new_turn: bool = False) -> str:
    """Return the text that the assistant continues.

    Args:
        tokenizer: A transformers tokenizer.
        messages: The prompt.
        new_turn: Whether to open a turn after a last message of the assistant, too; otherwise that message is left
            unfinished.

    Raises:
        DataError: As :func:`conversation`.
    """
    unfinished = messages[-1]["role"] == "assistant" and not new_turn
    return _written(tokenizer, messages, add_generation_prompt=not unfinished, continue_final_message=unfinished)


def marked_tokens(tokenizer: Any, messages: Sequence[Message]) -> list[int] | None:
    """Return 1 for every token between ``{% generation %}`` and ``{% endgeneration %}``, 0 for the others.

    Returns:
        One number per token of the conversation; None if the template marks none, or the tokenizer cannot tell.
    """
    if not marks_turns(tokenizer, messages) or not getattr(tokenizer, "is_fast", False):
        return None
    written = _written(
        tokenizer, messages, tokenize=True, return_dict=True, return_assistant_tokens_mask=True, verbose=False
    )
    marks = [int(mark) for mark in written["assistant_masks"]]
    return marks if any(marks) else None


def marks_turns(tokenizer: Any, messages: Sequence[Message]) -> bool:
    """Return whether the template marks the turns of the assistant with ``{% generation %}``."""
    template = _template_text(tokenizer, messages)
    return template is not None and GENERATION.search(template) is not None


def writes_tools(tokenizer: Any, messages: Sequence[Message]) -> bool:
    """Return False if the messages have tools and the template does not write them."""
    arguments = _arguments(messages)
    return not arguments.get("tools") or not _same(tokenizer, messages, messages, arguments | {"tools": None})


def writes_reasoning(tokenizer: Any, messages: Sequence[Message]) -> bool:
    """Return False if the last message's content has a thought and the template does not write it."""
    content = messages[-1].get("content") or ""
    thought, end, answer = content.rpartition(END_OF_THOUGHT)
    if not end or content.strip() in conversation(tokenizer, messages):
        return True
    opening = "<think>" if "<think>" in thought else ""
    changed = {**messages[-1], "content": f"{opening}\n{PROBE}\n{end}{answer}"}
    return not _same(tokenizer, messages, [*messages[:-1], changed], _arguments(messages))


def check_written(tokenizer: Any, messages: Sequence[Message], n_prompt: int) -> None:
    """Raise if the template leaves out a message, or a part of one that carries text.

    Templates drop the reasoning of earlier turns on purpose, so only that of the last turn is checked.

    Args:
        tokenizer: A transformers tokenizer.
        messages: The whole conversation.
        n_prompt: Number of messages that are the prompt.

    Raises:
        DataError: If the template writes nothing for the role or the text of a message, or for a field of a message.
    """
    arguments = _arguments(messages)
    for number in _maybe_unwritten(tokenizer, messages):
        if not _writes_content(tokenizer, messages, number):
            raise _unwritten(messages[number], number)
    for number, message in enumerate(messages):
        for name in CONTENT_FIELDS:
            if not message.get(name) or (name in REASONING and number < n_prompt):
                continue
            others = {key: value for key, value in message.items() if key != name}
            if _same(tokenizer, messages, [*messages[:number], others, *messages[number + 1 :]], arguments):
                raise DataError(
                    f"the chat template does not write {name!r} of message {number}; write it as part of 'content', "
                    "remove the field, or set tokenizer.chat_template",
                    field=name,
                )


def common_length(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Return the number of items (characters, tokens) that both sequences begin with."""
    same, end = 0, min(len(one), len(other))
    while same < end:  # slices are compared in C, which a text of millions of characters needs
        middle = (same + end + 1) // 2
        if one[same:middle] == other[same:middle]:
            same = middle
        else:
            end = middle - 1
    return same


def parting(start: str, whole: str) -> str:
    """Return, for a message, where two texts part: both of them from a little before that place."""
    place = common_length(start, whole)
    begin = max(0, place - EXCERPT // 2)
    one, other = (f"{text[begin : begin + EXCERPT]!r}" for text in (start, whole))
    return f"they part at character {place}: the prompt has {one}, the conversation {other}"


def _arguments(messages: Sequence[Message]) -> dict[str, Any]:
    return dict(getattr(messages, "template_arguments", {}))


def _written(tokenizer: Any, messages: Sequence[Message], **options: Any) -> Any:
    if not getattr(tokenizer, "chat_template", None):
        raise DataError(
            "the prompt is a list of chat messages, but the tokenizer has no chat template; pass text as the prompt, "
            "or set tokenizer.chat_template",
            field="prompt",
        )
    try:
        return tokenizer.apply_chat_template(list(messages), **{"tokenize": False, **_arguments(messages), **options})
    except Exception as error:  # a template is a program: it may raise anything, on purpose or by mistake
        roles = [str(message["role"]) for message in messages]
        raise DataError(
            f"the chat template refuses the conversation of {roles}: {str(error).strip() or type(error).__name__}",
            field="messages",
        ) from error


def _same(tokenizer: Any, messages: Sequence[Message], others: Sequence[Message], arguments: Mapping[str, Any]) -> bool:
    """Return True if the template writes the same for both; a template that fails without a part does write it."""
    try:
        other = tokenizer.apply_chat_template(list(others), tokenize=False, **arguments)
    except Exception:
        return False
    return other == conversation(tokenizer, messages)


def _maybe_unwritten(tokenizer: Any, messages: Sequence[Message]) -> list[int]:
    """Return the numbers of the messages whose content the template may leave out: those without a word of it.

    All contents are replaced at once, so that a conversation is written once more and not once for every message.
    """
    names = {
        number: f"{PROBE}{number}{PROBE}"
        for number, message in enumerate(messages)
        if message.get("content") or message["role"] not in {"user", "assistant"}
    }
    probes = [{**message, "content": names[i]} if i in names else message for i, message in enumerate(messages)]
    try:
        written = tokenizer.apply_chat_template(probes, tokenize=False, **_arguments(messages))
    except Exception:  # the template reads the content
        return list(names)
    return [number for number, name in names.items() if name not in written]


def _unwritten(message: Message, number: int) -> DataError:
    role = str(message["role"])
    if role not in {"user", "assistant"}:
        told = f"writes nothing for message {number}, of role {role!r}; rename the role, or set tokenizer.chat_template"
        return DataError(f"the chat template {told}", field="role")
    beside = " beside its 'tool_calls'" if message.get("tool_calls") else ""
    return DataError(
        f"the chat template does not write the text of message {number}, of role {role!r}{beside}; set a "
        "tokenizer.chat_template that does, or remove the row",
        field="content",
    )


def _writes_content(tokenizer: Any, messages: Sequence[Message], number: int) -> bool:
    """Return True if another content of message ``number`` changes what the template writes."""
    changed = [*messages[:number], {**messages[number], "content": PROBE}, *messages[number + 1 :]]
    return not _same(tokenizer, messages, changed, _arguments(messages))


def _template_text(tokenizer: Any, messages: Sequence[Message]) -> str | None:
    """Return the source of the template that renders ``messages``: tokenizers may have several by name."""
    choose = getattr(tokenizer, "get_chat_template", None)
    if choose is None:
        found = getattr(tokenizer, "chat_template", None)
        return found if isinstance(found, str) else None
    return choose(None, _arguments(messages).get("tools"))
