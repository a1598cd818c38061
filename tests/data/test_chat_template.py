"""Tokens of chats under many templates: what is trained on is what the template writes, as in TRL's trainers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jinja2
import pytest
import trl
from transformers import AutoTokenizer
from trl.data_utils import common_prefix_length

from mint_lab import tiny
from mint_lab.data import Pair, encode, load_completions, pairs_to_data, task_of
from mint_lab.data.chats import Chat
from mint_lab.data.render import encode_prompt, render
from mint_lab.errors import DataError

TEMPLATES = Path(trl.__file__).parent / "chat_templates"
# Templates for images take a list of parts, and for these no text is refused or written apart.
TAKE_NO_TEXT = {"llava_next.jinja", "llava_next_training.jinja"}
NAMES = sorted(path.name for path in TEMPLATES.glob("*.jinja") if path.name not in TAKE_NO_TEXT)

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "description": "The weather of a city.",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


def user(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


QUESTION = [user("2+2?")]
CONTENTS: dict[str, tuple[list[dict[str, Any]], str]] = {
    "plain": (QUESTION, "4"),
    "line break": (QUESTION, "4\n"),
    "leading space": (QUESTION, " 4"),
    "reasoning": (QUESTION, "<think>\ntwo twos\n</think>\n\n4"),
    "empty think": (QUESTION, "<think>\n\n</think>\n\n4"),
    "several turns": ([user("1+1?"), assistant("2"), *QUESTION], "4"),
    "system": ([{"role": "system", "content": "Be brief."}, *QUESTION], "4"),
    "tools": (Chat(QUESTION, {"tools": TOOLS}), "4"),
}
# These write a list of parts only, and TRL trains on turns without a word where the content is text.
DROPS_TEXT = {"idefics3.jinja", "idefics3_training.jinja", "smolvlm.jinja", "smolvlm_training.jinja"}


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Any]:
    """For each template the bundled tokenizer, in which the template's marks are tokens."""
    found: dict[str, Any] = {}
    for name in NAMES:
        tokenizer = AutoTokenizer.from_pretrained(tiny.path(), bos_token="<s>")
        tokenizer.chat_template = (TEMPLATES / name).read_text(encoding="utf-8")
        marks = re.findall(r"<[^<>\s'\"{}%]+>|\[/?[A-Z_]+\]", tokenizer.chat_template)
        tokenizer.add_tokens(sorted(set(marks)), special_tokens=True)
        found[name] = tokenizer
    return found


def of_trl(tokenizer: Any, prompt: list[dict[str, Any]], answer: str) -> tuple[list[int], int] | jinja2.TemplateError:
    """The tokens and the length of the prompt in TRL 1.16 (SFTTrainer and DPOTrainer, tokenize_fn), or the refusal."""
    tools = getattr(prompt, "template_arguments", {}).get("tools")

    def ids(messages: list[dict[str, Any]], **options: Any) -> list[int]:
        written = tokenizer.apply_chat_template(list(messages), tools=tools, return_dict=True, **options)
        return list(written["input_ids"])

    try:
        start, whole = ids(prompt, add_generation_prompt=True), ids([*prompt, assistant(answer)])
    except jinja2.TemplateError as error:
        return error
    return whole, common_prefix_length(start, whole)


@pytest.mark.filterwarnings("ignore:.*Token indices sequence length")
@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_those_of_the_template_and_of_trl(tokenizers: dict[str, Any], name: str, content: str) -> None:
    tokenizer, (prompt, answer) = tokenizers[name], CONTENTS[content]
    expected = of_trl(tokenizer, prompt, answer)
    if isinstance(expected, jinja2.TemplateError):
        with pytest.raises(DataError, match=f"refuses the conversation of .*{re.escape(str(expected))}"):
            render(tokenizer, prompt, [answer])
        return
    if name in DROPS_TEXT:
        told = "writes nothing for" if content == "system" else "does not write the text of"
        with pytest.raises(DataError, match=f"the chat template {told} message 0, of role '{prompt[0]['role']}'"):
            render(tokenizer, prompt, [answer])
        return
    rendered = render(tokenizer, prompt, [answer])
    assert (rendered.prompt + rendered.completions[0], len(rendered.prompt)) == expected
    arguments = getattr(prompt, "template_arguments", {})
    whole = tokenizer.apply_chat_template([*prompt, assistant(answer)], tokenize=False, **arguments)
    assert tokenizer.decode(rendered.prompt + rendered.completions[0]) == whole
    weights = rendered.data()[0].loss_fn_inputs["weights"].to_numpy().tolist()
    assert weights == [0.0] * (len(rendered.prompt) - 1) + [1.0] * len(rendered.completions[0])


def test_the_templates_are_those_of_trl() -> None:
    assert len(NAMES) >= 66, "33 for text and their variants"


# -- the assistant's turns ---------------------------------------------------------------------------------------------

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
MARKED = (
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}<end>{% endgeneration %}{% else %}{{ m.content }}<end>{% endif %}\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
CLOSED = "{% for m in messages %}[{{ m.role }}]{{ m.content }}[/]{% endfor %}{% if add_generation_prompt %}[assistant]"
CLOSED += "{% else %}<|endoftext|>{% endif %}"
FORGETS = (
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' and not loop.last %}"
    "{{ m.content.split('</think>')[-1] }}{% else %}{{ m.content }}{% endif %}<end>\n{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
TALK = [user("1+1?"), assistant("two"), user("2+2?"), assistant("four")]


@pytest.fixture
def chat_tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(tiny.path())


def weighted(tokenizer: Any, rendered: Any) -> str:
    """The text of the tokens with weight 1."""
    [datum] = rendered.data()
    targets, weights = (datum.loss_fn_inputs[name].to_numpy() for name in ("target_tokens", "weights"))
    return tokenizer.decode([int(token) for token, weight in zip(targets, weights, strict=True) if weight == 1.0])


@pytest.mark.parametrize(
    ("template", "last", "every"),
    [
        (CHATML, "four<|im_end|>\n", "two<|im_end|>\nfour<|im_end|>\n"),
        (MARKED, "four<end>", "two<end>four<end>"),
        (CLOSED, "four[/]<|endoftext|>", "two[/]four[/]<|endoftext|>"),
    ],
)
def test_turns_that_are_trained_on(chat_tokenizer: Any, template: str, last: str, every: str) -> None:
    chat_tokenizer.chat_template = template
    prompt, answer = TALK[:-1], TALK[-1]["content"]
    assert weighted(chat_tokenizer, render(chat_tokenizer, prompt, [answer])) == last
    assert weighted(chat_tokenizer, render(chat_tokenizer, prompt, [answer], train_on="all")) == every


def test_a_template_that_marks_none_of_these_turns_is_as_one_without_marks(chat_tokenizer: Any) -> None:
    chat_tokenizer.chat_template = MARKED.replace("m.role == 'assistant'", "m.role == 'narrator'")
    prompt, answer = TALK[:-1], TALK[-1]["content"]
    assert weighted(chat_tokenizer, render(chat_tokenizer, prompt, [answer])) == "four<end>"
    every = render(chat_tokenizer, prompt, [answer], train_on="all")
    assert weighted(chat_tokenizer, every) == "two<end>four<end>"


def test_a_first_turn_of_the_assistant_is_a_turn_like_the_others(chat_tokenizer: Any) -> None:
    chat_tokenizer.chat_template = CHATML
    talk = [assistant("Hello!"), *TALK[:-1]]
    every = render(chat_tokenizer, talk, ["four"], train_on="all")
    assert chat_tokenizer.decode(every.prompt).startswith("<|im_start|>assistant\nHello!<|im_end|>")
    assert weighted(chat_tokenizer, every) == "Hello!<|im_end|>\ntwo<|im_end|>\nfour<|im_end|>\n"


def test_a_turn_that_a_template_rewrites_cannot_be_trained_on(chat_tokenizer: Any) -> None:
    chat_tokenizer.chat_template = FORGETS
    talk = [user("1+1?"), assistant("<think>hm</think>two"), user("2+2?")]
    assert "<think>" not in chat_tokenizer.decode(render(chat_tokenizer, talk, ["four"]).prompt)
    with pytest.raises(DataError, match=r"writes message 1 differently.*they part at character 27: the prompt has"):
        render(chat_tokenizer, talk, ["four"], train_on="all")


@pytest.mark.parametrize(("train_on", "trained"), [("last", "four"), ("all", "two|or so|four")])
def test_turns_that_follow_each_other_stay_turns(chat_tokenizer: Any, train_on: Any, trained: str) -> None:
    """The template opens a turn for each of the assistant's messages; what opens a turn is not trained."""
    chat_tokenizer.chat_template = CHATML
    talk = [user("1+1?"), assistant("two"), assistant("or so"), assistant("four")]
    [(prompt, answer)] = load_completions([{"messages": talk}])
    rendered = render(chat_tokenizer, prompt, [answer], train_on=train_on)
    whole = chat_tokenizer.apply_chat_template(talk, tokenize=False)
    assert chat_tokenizer.decode(rendered.prompt + rendered.completions[0]) == whole
    assert weighted(chat_tokenizer, rendered) == "".join(f"{turn}<|im_end|>\n" for turn in trained.split("|"))
    pair = {"prompt": talk[:2], "chosen": talk[2:3], "rejected": [assistant("no")]}
    chosen, rejected = pairs_to_data([pair], chat_tokenizer)
    assert chat_tokenizer.decode(chosen.model_input.to_ints()).endswith(
        "assistant\ntwo<|im_end|>\n<|im_start|>assistant\nor so<|im_end|>"
    )
    assert chat_tokenizer.decode(rejected.model_input.to_ints()).endswith("<|im_start|>assistant\nno<|im_end|>")


def test_text_after_an_unfinished_turn_continues_it(chat_tokenizer: Any) -> None:
    chat_tokenizer.chat_template = CHATML
    rendered = render(chat_tokenizer, [user("1+1?"), assistant("two")], [" or so"])
    assert weighted(chat_tokenizer, rendered) == " or so<|im_end|>\n"
    assert chat_tokenizer.decode(rendered.prompt).endswith("<|im_start|>assistant\ntwo")


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_a_greeting_before_any_prompt_is_a_turn(chat_tokenizer: Any, template: str) -> None:
    chat_tokenizer.chat_template = template
    talk = [assistant("hello"), user("2+2?")]
    end = "<|im_end|>\n" if template == CHATML else "<end>"
    assert weighted(chat_tokenizer, render(chat_tokenizer, talk, ["four"], train_on="all")) == f"hello{end}four{end}"


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_messages_of_weight_0_are_read_and_not_trained(chat_tokenizer: Any, template: str) -> None:
    chat_tokenizer.chat_template = template
    end = "<|im_end|>\n" if template == CHATML else "<end>"
    talk = [user("1+1?"), assistant("three", weight=0), user("Sure?"), assistant("two", weight=1), user("2+2?")]
    rendered = render(chat_tokenizer, talk, ["four"], train_on="all")
    assert "three" in chat_tokenizer.decode(rendered.prompt)
    assert weighted(chat_tokenizer, rendered) == f"two{end}four{end}"
    with pytest.raises(DataError, match="the assistant's last message has weight 0") as caught:
        render(chat_tokenizer, talk, [assistant("four", weight=0)])
    assert caught.value.field == "weight"
    with pytest.raises(DataError, match=r"field 'weight': found 0.5, expected 0 or 1"):
        render(chat_tokenizer, [user("1+1?"), assistant("two", weight=0.5), user("2+2?")], ["four"], train_on="all")


def test_a_prompt_that_a_template_rewrites_is_refused_with_both_texts(chat_tokenizer: Any) -> None:
    """Here the number of messages is written first."""
    chat_tokenizer.chat_template = "{{ messages | length }}" + CHATML
    with pytest.raises(DataError, match=r"datum 1, field 'messages': .*part at character 0: the prompt has '1<\|im_st"):
        pairs_to_data([Pair("a", "b", "c"), Pair(QUESTION, "4", "5")], chat_tokenizer)


def test_sides_of_a_pair_share_the_prompt_up_to_the_first_that_leaves_it(chat_tokenizer: Any) -> None:
    """The generation prompt opens a thought; one side closes it, and the other does not have it."""
    chat_tokenizer.chat_template = (
        "{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}"
        "{% if add_generation_prompt %}a:<think>\n{% endif %}"
    )
    rendered = render(chat_tokenizer, QUESTION, ["<think>\nhm</think>4", "5"])
    assert chat_tokenizer.decode(rendered.prompt) == "u:2+2?;a:"
    assert [chat_tokenizer.decode(c) for c in rendered.completions] == ["<think>\nhm</think>4;", "5;"]


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.content }}{% endfor %}",
        (
            "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
            "{% else %}{{ m.content }}{% endif %}{% endfor %}"
        ),
    ],
    ids=["bare", "marked for training"],
)
def test_template_without_marks_keeps_a_prompt_of_one_merged_token(chat_tokenizer: Any, template: str) -> None:
    """The tokens are those of two texts, and not those of the conversation, which are fewer."""
    chat_tokenizer.chat_template = template
    merged = next(
        text
        for text in (chat_tokenizer.decode([token]) for token in range(chat_tokenizer.vocab_size))
        if len(text) == 2 and text.isalpha()
    )
    tokens, prompt_length = encode(chat_tokenizer, [user(merged[0])], merged[1])
    assert (chat_tokenizer.decode(tokens[:prompt_length]), chat_tokenizer.decode(tokens)) == (merged[0], merged)
    assert weighted(chat_tokenizer, render(chat_tokenizer, [user(merged[0])], [merged[1]])) == merged[1]


# -- what a template would drop ----------------------------------------------------------------------------------------

IGNORANT = (
    "{% for m in messages %}{% if m.role in ('user', 'assistant') %}<{{ m.role }}>{{ m.content }}<end>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
KNOWING = (
    "{% if tools %}[tools {{ tools | tojson }}]{% endif %}{% for m in messages %}<{{ m.role }}>"
    "{% if m.reasoning_content %}<think>{{ m.reasoning_content }}</think>{% endif %}{{ m.content or '' }}"
    "{% for call in m.tool_calls or [] %}[call {{ call.function.name }}]{% endfor %}<end>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Rome"}}}
ROWS: dict[str, tuple[list[dict[str, Any]], str, str]] = {
    "role": ([{"role": "developer", "content": "Be brief."}, *QUESTION, assistant("4")], "4<end>", "'developer'"),
    "tool_calls": ([*QUESTION, assistant("Let me look.", tool_calls=[CALL])], "Let me look.[call weather]<end>", "0"),
    "reasoning_content": ([*QUESTION, assistant("4", reasoning_content="twos")], "<think>twos</think>4<end>", "0"),
}


@pytest.mark.parametrize("field", ROWS)
def test_a_part_is_written_or_refused_by_name(chat_tokenizer: Any, field: str) -> None:
    messages, written, _ = ROWS[field]
    [(prompt, answer)] = load_completions([{"messages": messages}])
    chat_tokenizer.chat_template = KNOWING
    assert weighted(chat_tokenizer, render(chat_tokenizer, prompt, [answer])) == written
    chat_tokenizer.chat_template = IGNORANT
    with pytest.raises(DataError, match=f"message {0 if field == 'role' else 1}") as caught:
        render(chat_tokenizer, prompt, [answer])
    assert caught.value.field == field


def test_a_part_without_which_a_template_fails_is_written(chat_tokenizer: Any) -> None:
    chat_tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'assistant' and not m.reasoning_content %}"
        "{{ raise_exception('a thought is missing') }}{% endif %}<{{ m.role }}>{{ m.reasoning_content }}{{ m.content }}"
        "<end>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    [(prompt, answer)] = load_completions([{"messages": ROWS["reasoning_content"][0]}])
    assert weighted(chat_tokenizer, render(chat_tokenizer, prompt, [answer])) == "twos4<end>"


def test_reasoning_of_an_earlier_turn_may_be_left_out(chat_tokenizer: Any) -> None:
    chat_tokenizer.chat_template = IGNORANT
    talk = [user("1+1?"), assistant("two", reasoning_content="one and one"), user("2+2?")]
    tokens, _ = encode(chat_tokenizer, talk, "four")
    assert chat_tokenizer.decode(tokens).endswith("<assistant>two<end><user>2+2?<end><assistant>four<end>")


@pytest.mark.parametrize(
    ("message", "beside"),
    [(assistant("Let me look.", tool_calls=[CALL]), " beside its 'tool_calls'"), (assistant("4"), "")],
)
def test_text_is_written_or_refused(chat_tokenizer: Any, message: dict[str, Any], beside: str) -> None:
    """Llama 3.1 writes calls instead of the text; templates of image models write parts only."""
    text = "{% if m.content is string %}{% else %}{{ m.content }}{% endif %}" if not beside else "{{ m.content }}"
    chat_tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}>{% if m.tool_calls %}{{ m.tool_calls | tojson }}"
        "{% elif m.role == 'user' %}{{ m.content }}{% else %}" + text + "{% endif %}<end>{% endfor %}"
        "{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    [(prompt, answer)] = load_completions([{"messages": [*QUESTION, message]}])
    with pytest.raises(DataError, match=f"not write the text of message 1, of role 'assistant'{beside}; set") as caught:
        render(chat_tokenizer, prompt, [answer])
    assert caught.value.field == "content"


def test_text_that_is_a_part_of_a_mark_is_not_taken_for_written(chat_tokenizer: Any) -> None:
    """The template writes "assistant", but not because the content says so."""
    chat_tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}><end>{% endfor %}"
    with pytest.raises(DataError, match="does not write the text of message 0, of role 'user'"):
        render(chat_tokenizer, [user("user")], ["assistant"])


def test_template_that_reads_the_content_is_asked_message_by_message(chat_tokenizer: Any) -> None:
    """Here a content without a digit is an error, as in templates that parse what they write."""
    chat_tokenizer.chat_template = (
        "{% for m in messages %}{% if '2' not in m.content and '4' not in m.content %}{{ raise_exception('no digit') }}"
        "{% endif %}<{{ m.role }}>{{ m.content }}<end>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    )
    assert weighted(chat_tokenizer, render(chat_tokenizer, QUESTION, ["4"])) == "4<end>"
    silent = ">{{ m.content if m.role == 'user' }}<end>"
    chat_tokenizer.chat_template = chat_tokenizer.chat_template.replace(">{{ m.content }}<end>", silent).replace(
        "'2' not in m.content and '4' not in m.content", "'qzx' in m.content and m.role == 'user'"
    )
    with pytest.raises(DataError, match="does not write the text of message 1"):
        render(chat_tokenizer, QUESTION, ["4"])


@pytest.mark.parametrize("content", ["<think>\ntwos\n</think>\n\n4", "twos</think>4"])
def test_reasoning_in_the_text_is_written_or_noted(chat_tokenizer: Any, content: str) -> None:
    """The template of DeepSeek R1's distilled models drops what comes before </think> in every turn."""
    chat_tokenizer.chat_template = CHATML
    assert not render(chat_tokenizer, QUESTION, [content]).reasoning_unwritten
    written = "{{ m.content.split('</think>')[-1] if m.role == 'assistant' else m.content }}"
    chat_tokenizer.chat_template = CHATML.replace("{{ m.content }}", written)
    assert render(chat_tokenizer, QUESTION, [content]).reasoning_unwritten
    assert not render(chat_tokenizer, QUESTION, ["4"]).reasoning_unwritten
    row = {"prompt": QUESTION, "chosen": [assistant(content)], "rejected": [assistant("5")]}
    told = r"1 of 2 rows have reasoning before </think>, which the chat template does not write \(row 1\)"
    with pytest.warns(UserWarning, match=told):
        pairs_to_data([Pair("a", "b", "c"), row], chat_tokenizer)


def test_tools_are_written_or_noted(chat_tokenizer: Any) -> None:
    row = {"prompt": QUESTION, "chosen": [assistant("4")], "rejected": [assistant("5")], "tools": TOOLS}
    chat_tokenizer.chat_template = KNOWING
    text = chat_tokenizer.decode(pairs_to_data([row], chat_tokenizer)[0].model_input.to_ints())
    assert text.startswith("[tools [{")
    assert "The weather of a city." in text
    chat_tokenizer.chat_template = IGNORANT
    with pytest.warns(UserWarning, match=r"1 of 2 rows have tools, which the chat template does not write \(row 1\)"):
        pairs_to_data([Pair("a", "b", "c"), row], chat_tokenizer)


def test_arguments_of_a_row_reach_the_template(chat_tokenizer: Any) -> None:
    chat_tokenizer.chat_template = "{% if enable_thinking %}[thinks]{% endif %}" + CHATML
    row = {"messages": TALK[:2], "chat_template_kwargs": {"enable_thinking": True}}
    [(prompt, answer)] = load_completions([row])
    assert chat_tokenizer.decode(render(chat_tokenizer, prompt, [answer]).prompt).startswith("[thinks]<|im_start|>user")


@pytest.mark.parametrize("message", ["System role not supported", "'dict object' has no attribute 'nothing'"])
def test_error_of_a_template_names_its_row(chat_tokenizer: Any, message: str) -> None:
    wrong = "raise_exception('System role not supported')" if "System" in message else "m.nothing.more"
    chat_tokenizer.chat_template = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ " + wrong + " }}{% endif %}{{ m.content }};{% endfor %}"
    )
    bad = {"role": "system", "content": "s"}
    with pytest.raises(DataError, match=re.escape(message)) as caught:
        pairs_to_data([Pair(QUESTION, "4", "5")] * 3 + [Pair([bad, *QUESTION], "4", "5")], chat_tokenizer)
    assert (caught.value.index, caught.value.field) == (3, "messages")


def test_a_prompt_to_sample_from_may_end_within_a_turn_of_the_assistant(chat_tokenizer: Any) -> None:
    chat_tokenizer.chat_template = CHATML
    tokens = encode_prompt(chat_tokenizer, [user("2+2?"), assistant("It is")])
    assert chat_tokenizer.decode(tokens) == "<|im_start|>user\n2+2?<|im_end|>\n<|im_start|>assistant\nIt is"


def test_a_prompt_to_sample_from_drops_nothing_either(chat_tokenizer: Any) -> None:
    chat_tokenizer.chat_template = KNOWING
    task = task_of([{"prompt": QUESTION, "answer": "4", "tools": TOOLS}])
    [example] = task.problems(1)
    text = chat_tokenizer.decode(encode_prompt(chat_tokenizer, task.prompt(example)))
    assert text.startswith("[tools [{")
    assert text.endswith("<user>2+2?<end><assistant>")
    chat_tokenizer.chat_template = IGNORANT
    with pytest.raises(DataError, match="writes nothing for message 0, of role 'developer'"):
        encode_prompt(chat_tokenizer, [{"role": "developer", "content": "Be brief."}, *QUESTION])
