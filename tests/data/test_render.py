"""From prompt and completion to tokens, and from tokens to a Datum."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.data import encode, to_datum
from mint_lab.data.render import Rendered, describe_changes, render, truncate
from mint_lab.errors import DataError

CHAT = [{"role": "user", "content": "the cat"}]


def field(datum: Any, name: str) -> list[float]:
    return datum.loss_fn_inputs[name].to_numpy().tolist()


def test_to_datum_by_hand() -> None:
    """Tokens 5 6 | 7 8 9: inputs 5 6 7 8 predict 6 7 8 9; target 6 is in the prompt."""
    datum = to_datum([5, 6, 7, 8, 9], 2)
    assert datum.model_input.to_ints() == [5, 6, 7, 8]
    assert field(datum, "target_tokens") == [6, 7, 8, 9]
    assert field(datum, "weights") == [0.0, 1.0, 1.0, 1.0]
    assert datum.loss_fn_inputs["target_tokens"].dtype == "int64"
    assert datum.loss_fn_inputs["weights"].dtype == "float32"


@given(st.lists(st.integers(0, 999), min_size=2, max_size=40), st.data())
def test_position_i_predicts_token_i_plus_1(tokens: list[int], data: st.DataObject) -> None:
    prompt_length = data.draw(st.integers(1, len(tokens) - 1))
    datum = to_datum(tokens, prompt_length)
    inputs, targets = datum.model_input.to_ints(), field(datum, "target_tokens")
    assert [*inputs, targets[-1]] == tokens
    assert [inputs[0], *targets] == tokens
    weights = field(datum, "weights")
    assert set(weights) <= {0.0, 1.0}
    assert sum(weights) == len(tokens) - prompt_length
    assert [t for t, w in zip(targets, weights, strict=True) if w] == tokens[prompt_length:]


@pytest.mark.parametrize("prompt_length", [-1, 0, 3, 4])
def test_prompt_and_completion_need_a_token_each(prompt_length: int) -> None:
    with pytest.raises(DataError, match=f"found {prompt_length} of 3 tokens, expected 1 to 2") as caught:
        to_datum([1, 2, 3], prompt_length)
    assert caught.value.field == "prompt_length"


@pytest.mark.parametrize(
    "values",
    [
        [0.5, -1.0],
        np.array([0.5, -1.0]),
        torch.tensor([0.5, -1.0], dtype=torch.bfloat16, requires_grad=True),
    ],
    ids=["list", "numpy", "torch"],
)
def test_further_fields(values: Any) -> None:
    datum = to_datum([1, 2, 3], 1, advantages=values, group=[3])
    assert datum.loss_fn_inputs["advantages"].dtype == "float32"
    assert field(datum, "advantages") == [0.5, -1.0]
    assert datum.loss_fn_inputs["group"].dtype == "int64"
    assert field(datum, "group") == [3], "a field that is not per token keeps its shape"


def test_weights_replace_the_default() -> None:
    assert field(to_datum([1, 2, 3], 1, weights=[0.25, 0.0]), "weights") == [0.25, 0.0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"advantages": [1.0]}, r"field 'advantages': found shape \(1,\), expected \(2,\)"),
        ({"logprobs": 0.5}, r"field 'logprobs': found shape \(\), expected \(2,\)"),
        ({"weights": "heavy"}, "field 'weights': found str, expected numbers"),
    ],
)
def test_error_names_the_bad_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        to_datum([1, 2, 3], 1, **fields)


def test_prompt_and_completion_are_tokenized_separately(tokenizer: Any) -> None:
    """'the' is one token. Split, it must stay two: otherwise the prompt's tokens would depend on the completion."""
    [whole] = tokenizer.encode("the")
    tokens, prompt_length = encode(tokenizer, "th", "e")
    assert whole not in tokens
    assert tokens[:prompt_length] == tokenizer.encode("th")
    assert tokens[prompt_length:] == [*tokenizer.encode("e"), tokenizer.eos_token_id]


@given(prompt=st.text(min_size=1, max_size=30), completion=st.text(min_size=1, max_size=30))
def test_encode_round_trips(tokenizer: Any, prompt: str, completion: str) -> None:
    tokens, prompt_length = encode(tokenizer, prompt, completion)
    assert tokenizer.decode(tokens[:prompt_length]) == prompt
    assert tokenizer.decode(tokens[prompt_length:]) == completion + "<|end|>"


def test_chat_prompt_uses_the_template(tokenizer: Any) -> None:
    tokens, prompt_length = encode(tokenizer, CHAT, "sat")
    assert tokenizer.decode(tokens[:prompt_length]) == "<|user|>the cat<|end|>\n<|assistant|>"
    assert tokenizer.decode(tokens[prompt_length:]) == "sat<|end|>\n", "what the template writes, to its last character"


def test_assistant_turn_is_what_the_template_writes(tokenizer: Any) -> None:
    """This template adds a leading space and an end-of-turn marker to the assistant's turn."""
    template = (
        "{% for m in messages %}{{ m['role'] + ':' }}{{ ' ' + m['content'] + '\n--\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"
    )
    other = SimpleNamespace(
        encode=tokenizer.encode,
        eos_token="<|end|>",
        eos_token_id=tokenizer.eos_token_id,
        chat_template=template,
        apply_chat_template=lambda messages, **options: tokenizer.apply_chat_template(
            messages, chat_template=template, **options
        ),
    )
    tokens, prompt_length = encode(other, CHAT, "sat")
    assert tokenizer.decode(tokens[:prompt_length]) == "user: the cat\n--\nassistant:"
    assert tokenizer.decode(tokens[prompt_length:]) == " sat\n--\n"


def test_last_assistant_message_is_continued(tokenizer: Any) -> None:
    tokens, _ = encode(tokenizer, [*CHAT, {"role": "assistant", "content": "sat"}], " on")
    assert tokenizer.decode(tokens) == "<|user|>the cat<|end|>\n<|assistant|>sat on<|end|>\n"


def test_empty_prompt_becomes_the_end_of_text_token(tokenizer: Any) -> None:
    assert encode(tokenizer, "", "e") == ([tokenizer.eos_token_id, *tokenizer.encode("e"), tokenizer.eos_token_id], 1)


@pytest.mark.parametrize(
    ("max_length", "kept"),
    [
        (9, "0123|45#"),  # everything fits
        (7, "0123|45#"),
        (6, "123|45#"),
        (4, "3|45#"),
        (3, "3|45"),  # one prompt token remains, the completion loses its end
        (2, "3|4"),
    ],
)
def test_max_length_truncates_the_prompt_first(tokenizer: Any, max_length: int, kept: str) -> None:
    tokens, prompt_length = encode(tokenizer, "0123", "45", max_length=max_length)
    prompt, completion = (tokenizer.decode(part) for part in (tokens[:prompt_length], tokens[prompt_length:]))
    assert f"{prompt}|{completion}" == kept.replace("#", "<|end|>")


def test_truncate_gives_every_completion_the_same_prompt() -> None:
    rendered = truncate(Rendered([1, 2, 3, 4], [[5], [6, 7, 8], [9] * 9]), 6)
    assert (rendered.prompt, rendered.completions, rendered.n_truncated) == ([4], [[5], [6, 7, 8], [9] * 5], 1)


@pytest.mark.parametrize("max_length", [1, 0, -3])
def test_max_length_must_be_at_least_two(tokenizer: Any, max_length: int) -> None:
    with pytest.raises(DataError, match=f"field 'max_length': found {max_length}, expected at least 2"):
        encode(tokenizer, "0123", "45", max_length=max_length)


@pytest.mark.parametrize(
    ("prompt", "completion", "message"),
    [
        ("the", "", "field 'completion': empty"),
        ([], "the", "field 'prompt': no messages"),
        (
            [{"role": "user"}],
            "the",
            "field 'prompt': found list, expected text or chat messages; message 0 has role: str, expected",
        ),
    ],
)
def test_invalid_prompts_and_completions_are_refused(
    tokenizer: Any, prompt: Any, completion: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        encode(tokenizer, prompt, completion)


def test_tokenizers_without_a_required_part_are_refused(tokenizer: Any) -> None:
    bare = SimpleNamespace(encode=tokenizer.encode, eos_token=None, eos_token_id=None, chat_template=None)
    with pytest.raises(DataError, match="no end-of-text token"):
        encode(bare, "the", "cat")
    with pytest.raises(DataError, match="no chat template"):
        encode(bare, CHAT, "cat")


def test_describe_changes_by_hand() -> None:
    """Of two rows with two completions each, one prompt loses its beginning and three completions their end."""
    rows = [(7, truncate(Rendered([1, 2, 3], [[4], [5] * 9]), 4)), (9, truncate(Rendered([1], [[4] * 5, [5] * 6]), 4))]
    [note] = describe_changes(rows, 4)
    assert note == (
        "truncated to 4 tokens: 3 of 4 completions lost their end and "
        "1 of 2 prompts lost their beginning (rows 7 and 9)"
    )
    assert describe_changes([(0, Rendered([1], [[2]]))], None) == []
    assert describe_changes([(0, Rendered([1], [[2]])), (3, Rendered([1], [[2]], tools_unwritten=True))], None) == [
        "1 of 2 rows have tools, which the chat template does not write (row 3)"
    ]


@pytest.mark.parametrize(
    ("max_length", "weights"),
    [(None, [0, 1, 0, 0, 1, 0]), (6, [0, 1, 0, 0, 1, 0]), (5, [1, 0, 0, 1, 0]), (3, [0, 0, 1]), (2, [0, 0])],
)
def test_weights_are_truncated_with_their_tokens(max_length: int | None, weights: list[float]) -> None:
    """Three prompt tokens, of which the second has weight 1, and a completion of three with its second weighted."""
    whole = Rendered([1, 2, 3], [[4, 5, 6]], [[0, 1, 0, 0, 1, 0]])
    [datum] = truncate(whole, max_length).data()
    assert field(datum, "weights") == weights[1:]


def test_half_a_character_is_refused_by_its_place(tokenizer: Any) -> None:
    with pytest.raises(DataError, match=r"character 3 is half of a surrogate pair \('\\ude00'\)"):
        encode(tokenizer, "the", "cat\ude00")
    with pytest.raises(DataError, match="character 0 is half of a surrogate pair"):
        encode(tokenizer, "\ud83d", "cat")


def test_facts_of_a_row() -> None:
    """A limit of 4 tokens leaves one of three prompt tokens; the second completion loses 9 - 3 = 6."""
    rendered = truncate(Rendered([1, 2, 3], [[4], [5] * 9], sampled_further=1), 4)
    facts = rendered.facts(7)
    assert (facts.row, facts.prompt_length, facts.lost_beginning, facts.lost_ends) == (7, 1, 2, (0, 6))
    assert (facts.sampled_further, facts.tools_unwritten) == (1, False)
    assert truncate(Rendered([1], [[2]]), 4).facts(0).lost_ends == ()


def test_prompt_that_a_sampler_sees_further(tokenizer: Any) -> None:
    """The generation prompt opens a thought, 7 characters without a merge, which the answers do not contain."""
    thinking = copy.deepcopy(tokenizer)
    thinking.chat_template = tokenizer.chat_template.replace("<|assistant|>' }}", "<|assistant|><think>' }}")
    assert render(tokenizer, CHAT, ["sat"]).sampled_further == 0
    assert render(thinking, CHAT, ["sat"]).sampled_further == len(tokenizer.encode("<think>")) == 7
    assert render(tokenizer, "the c", ["at"]).sampled_further == 0
