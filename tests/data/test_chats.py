"""Messages of every common format become one, and what cannot be used is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mint_lab.data import Pair, load_completions, load_pairs, task_of
from mint_lab.data.chats import Chat, answer_of, kind_of, text_or_messages
from mint_lab.errors import DataError

CHAT = [{"role": "user", "content": "the cat"}]
USER, ANSWER = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}
CALL = {"type": "function", "function": {"name": "look", "arguments": {}}}


@pytest.mark.parametrize("value", [CHAT, tuple(CHAT), np.array(CHAT, dtype=object)], ids=["list", "tuple", "array"])
def test_chat_messages_of_every_sequence_type(value: Any) -> None:
    assert text_or_messages(value, 0, "prompt") == CHAT


@pytest.mark.parametrize(
    "messages",
    [
        [USER, ANSWER],
        [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}],
        [{"role": "user", "content": [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]}, ANSWER],
        [{"role": "user", "content": ["Hi"], "tool_calls": None}, {**ANSWER, "name": None}],
        [USER, {**ANSWER, "tool_calls": []}],
    ],
    ids=["roles", "ShareGPT", "parts", "fields of Arrow", "no calls"],
)
@pytest.mark.parametrize("column", ["messages", "conversations"])
def test_formats_of_messages(messages: Any, column: str) -> None:
    assert load_completions([{column: messages}]) == [([USER], "Hello")]


def test_every_name_of_a_role() -> None:
    names = ["system", "human", "user", "gpt", "chatgpt", "assistant", "tool", "observation", "function_response"]
    found = text_or_messages([{"from": name, "value": "x"} for name in names], 0, "messages")
    assert [message["role"] for message in found] == [  # type: ignore[index]
        *("system", "user", "user", "assistant", "assistant", "assistant", "tool", "tool", "tool")
    ]


@pytest.mark.parametrize(
    ("value", "kind"),
    [(None, "nothing (None)"), (float("nan"), "nothing (None)"), ([], "an empty list"), (3, "int"), ([{}], "list")],
)
def test_other_values_are_refused(value: Any, kind: str) -> None:
    assert text_or_messages("text", 0, "prompt") == "text"
    assert kind_of(value) == kind
    with pytest.raises(DataError, match=r"datum 2, field 'chosen': found .*, expected text or chat messages"):
        text_or_messages(value, 2, "chosen")


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ({"from": "narrator", "value": "x"}, r"message 1 is from 'narrator', expected one of 'human'"),
        ({"role": "user", "content": [{"type": "image", "url": "x"}]}, "message 1 has a part of type 'image'"),
        ({"role": "user", "content": [7]}, "message 1 has a part of type 'int'"),
        ({"role": "user", "content": {"a": 1}}, "message 1 has a dict as 'content'"),
        ({"role": "user", "content": None}, r"message 1 has role: str, content: nothing \(None\)"),
        ({"role": "assistant", "content": None, "tool_calls": []}, "message 1 has role: str, content: nothing"),
        ({"role": 3, "content": "x"}, "message 1 has role: int, content: str"),
        ({}, "message 1 has no fields"),
    ],
)
def test_unusable_messages_are_refused_by_name(message: Any, told: str) -> None:
    with pytest.raises(DataError, match=f"datum 1, field 'messages': .*{told}") as caught:
        load_completions([{"messages": [USER, ANSWER]}, {"messages": [USER, message, ANSWER]}])
    assert (caught.value.index, caught.value.field) == (1, "messages")


def test_an_answer_with_more_than_text_stays_a_message() -> None:
    assert answer_of(ANSWER, [USER]) == "Hello"
    assert answer_of(ANSWER, [USER, ANSWER]) == ANSWER, "a text would continue the message before it"
    calls = {**ANSWER, "tool_calls": [CALL]}
    assert load_completions([{"messages": [USER, calls]}]) == [([USER], calls)]
    silent = {"role": "assistant", "tool_calls": [CALL]}
    assert load_completions([{"messages": [USER, silent]}]) == [([USER], {**silent, "content": None})]
    [pair] = load_pairs([{"prompt": [USER], "chosen": [calls], "rejected": [ANSWER]}])
    assert (pair.chosen, pair.rejected) == (calls, "Hello")


@pytest.mark.parametrize(
    "tools", [[{"name": "look", "strict": None}], '[{"name": "look"}]', np.array([{"name": "look"}])]
)
def test_tools_stay_with_the_prompt(tools: Any) -> None:
    [(prompt, _)] = load_completions([{"messages": [USER, ANSWER], "tools": tools}])
    [pair] = load_pairs([{"prompt": [USER], "chosen": "a", "rejected": "b", "tools": tools}])
    for chat in (prompt, pair.prompt):
        assert isinstance(chat, Chat)
        assert chat.template_arguments == {"tools": [{"name": "look"}]}
    assert "look" in repr(pair)


@pytest.mark.parametrize(
    ("columns", "field"),
    [({"tools": "look"}, "tools"), ({"tools": [3]}, "tools"), ({"chat_template_kwargs": [1]}, "chat_template_kwargs")],
)
def test_arguments_of_another_type_are_refused(columns: dict[str, Any], field: str) -> None:
    with pytest.raises(DataError, match=f"datum 1, field '{field}': found") as caught:
        load_completions([{"messages": [USER, ANSWER]}, {"messages": [USER, ANSWER], **columns}])
    assert caught.value.field == field


def test_rows_of_orca() -> None:
    row = {"system": "Be brief.", "question": "Hi", "chosen": "Hello", "rejected": "Go away"}
    assert load_pairs([row, {**row, "system": ""}, {**row, "system": None}]) == [
        Pair([{"role": "system", "content": "Be brief."}, USER], "Hello", "Go away"),
        Pair([USER], "Hello", "Go away"),
        Pair([USER], "Hello", "Go away"),
    ]
    with pytest.raises(DataError, match=r"datum 1, field 'question': found nothing \(None\), expected text"):
        load_pairs([row, {**row, "question": None}])


SYSTEM = {"role": "system", "content": "Be brief."}


@pytest.mark.parametrize("name", ["system", "system_prompt"])
def test_system_message_of_a_row_begins_its_chat(name: str) -> None:
    column = {name: "Be brief."}
    sharegpt = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
    assert (
        load_completions(
            [
                {"conversations": sharegpt, **column},
                {"messages": [SYSTEM, USER, ANSWER], **column},
                {"prompt": [USER], "completion": "Hello", **column},
                {"messages": [USER, ANSWER], name: None},
                {"messages": [USER, ANSWER], name: float("nan")},
            ]
        )
        == [([SYSTEM, USER], "Hello")] * 3 + [([USER], "Hello")] * 2
    )
    pair = {"prompt": [USER], "chosen": [ANSWER], "rejected": [{**ANSWER, "content": "x"}], **column}
    assert load_pairs([pair]) == [Pair([SYSTEM, USER], "Hello", "x")]
    task = task_of([{"prompt": [USER], "answer": "Hello", **column}])
    assert task.prompt(task.problems(1)[0]) == [SYSTEM, USER]


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": "Hi", "completion": " Hello", "system": "s"}, "a text prompt has no place for a system message"),
        ({"prompt": "Hi", "chosen": " a", "rejected": " b", "system": "s"}, "a text prompt has no place"),
        ({"chosen": "\n\nAssistant: a", "rejected": "\n\nAssistant: b", "system": "s"}, "a text prompt has no place"),
        ({"messages": [SYSTEM, USER, ANSWER], "system": "Be long."}, "begin with another system message; keep one"),
        ({"messages": [USER, ANSWER], "system": 3}, "found int, expected text"),
    ],
)
def test_system_message_without_a_place_is_refused(row: dict[str, Any], told: str) -> None:
    load = load_pairs if "chosen" in row else load_completions
    with pytest.raises(DataError, match=told) as caught:
        load([row])
    assert (caught.value.index, caught.value.field) == (0, "system")


def test_a_bad_example_is_not_learned() -> None:
    good = {"prompt": "Hi", "completion": " Hello", "label": True}
    assert load_completions([good]) == [("Hi", " Hello")]
    with pytest.raises(DataError, match=r"datum 1, field 'label': the label is False.*leave the row out"):
        load_completions([good, {**good, "label": False}])
    chat = {"messages": [USER, ANSWER], "label": True}
    assert len(load_completions([chat, {**chat, "label": None}])) == 2  # nothing says that it is undesirable
    for label in (False, 0, np.False_, np.int64(0)):
        with pytest.raises(DataError, match=r"the label is .* with recipe='unpaired'") as caught:
            load_completions([chat, {**chat, "label": label}])
        assert (caught.value.index, caught.value.field) == (1, "label")
