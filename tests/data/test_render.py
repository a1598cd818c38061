"""Prompt and completion -> tokens -> Datum."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.data import encode, to_datum
from mint_lab.data.render import fit
from mint_lab.errors import DataError

CHAT = [{"role": "user", "content": "the cat"}]


def field(datum: Any, name: str) -> list[float]:
    return datum.loss_fn_inputs[name].to_numpy().tolist()


def test_to_datum_by_hand() -> None:
    """Tokens 5 6 | 7 8 9: inputs 5 6 7 8 predict 6 7 8 9, of which 6 is prompt."""
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
def test_a_completion_needs_a_prompt_and_a_token(prompt_length: int) -> None:
    with pytest.raises(DataError, match=f"found {prompt_length} of 3 tokens, expected 1 to 2") as caught:
        to_datum([1, 2, 3], prompt_length)
    assert caught.value.field == "prompt_length"


@pytest.mark.parametrize(
    "given_as",
    [
        [0.5, -1.0],
        np.array([0.5, -1.0]),
        torch.tensor([0.5, -1.0], dtype=torch.bfloat16, requires_grad=True),
    ],
    ids=["list", "numpy", "torch"],
)
def test_more_fields(given_as: Any) -> None:
    datum = to_datum([1, 2, 3], 1, advantages=given_as, group=[3])
    assert datum.loss_fn_inputs["advantages"].dtype == "float32"
    assert field(datum, "advantages") == [0.5, -1.0]
    assert datum.loss_fn_inputs["group"].dtype == "int64"
    assert field(datum, "group") == [3], "a field that is not per token keeps its shape"


def test_weights_can_be_given() -> None:
    assert field(to_datum([1, 2, 3], 1, weights=[0.25, 0.0]), "weights") == [0.25, 0.0]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"advantages": [1.0]}, r"field 'advantages': found shape \(1,\), expected \(2,\)"),
        ({"logprobs": 0.5}, r"field 'logprobs': found shape \(\), expected \(2,\)"),
        ({"weights": "heavy"}, "field 'weights': found str, expected numbers"),
    ],
)
def test_a_bad_field_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        to_datum([1, 2, 3], 1, **fields)


def test_prompt_and_completion_are_tokenized_apart(tokenizer: Any) -> None:
    """'the' is one token; cut in two it must not become one again, or the prompt would depend on what follows."""
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


def test_a_chat_prompt_goes_through_the_template(tokenizer: Any) -> None:
    tokens, prompt_length = encode(tokenizer, CHAT, "sat")
    assert tokenizer.decode(tokens[:prompt_length]) == "<|user|>the cat<|end|>\n<|assistant|>"
    assert tokenizer.decode(tokens[prompt_length:]) == "sat<|end|>", "closed once, without the template's line break"


def test_a_template_that_writes_more_than_the_text(tokenizer: Any) -> None:
    """The assistant's turn is learned as the template writes it: here with a space before and another closing mark."""
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
    assert tokenizer.decode(tokens[prompt_length:]) == " sat\n--<|end|>"


def test_a_last_message_of_the_assistant_is_continued(tokenizer: Any) -> None:
    tokens, _ = encode(tokenizer, [*CHAT, {"role": "assistant", "content": "sat"}], " on")
    assert tokenizer.decode(tokens) == "<|user|>the cat<|end|>\n<|assistant|>sat on<|end|>"


def test_an_empty_prompt_is_the_token_that_ends_the_text_before(tokenizer: Any) -> None:
    assert encode(tokenizer, "", "e") == ([tokenizer.eos_token_id, *tokenizer.encode("e"), tokenizer.eos_token_id], 1)


@pytest.mark.parametrize(
    ("max_length", "kept"),
    [
        (9, "0123|45#"),  # everything fits
        (7, "0123|45#"),
        (6, "123|45#"),
        (4, "3|45#"),
        (3, "3|45"),  # one token of the prompt stays, the completion loses its end
        (2, "3|4"),
    ],
)
def test_max_length_takes_the_prompts_beginning_first(tokenizer: Any, max_length: int, kept: str) -> None:
    tokens, prompt_length = encode(tokenizer, "0123", "45", max_length=max_length)
    prompt, completion = (tokenizer.decode(part) for part in (tokens[:prompt_length], tokens[prompt_length:]))
    assert f"{prompt}|{completion}" == kept.replace("#", "<|end|>")


def test_fit_cuts_the_prompt_alike_for_all() -> None:
    rendered = fit([1, 2, 3, 4], [[5], [6, 7, 8], [9] * 9], 6)
    assert (rendered.prompt, rendered.completions, rendered.cut) == ([4], [[5], [6, 7, 8], [9] * 5], 1)


@pytest.mark.parametrize("max_length", [1, 0, -3])
def test_max_length_must_leave_something(tokenizer: Any, max_length: int) -> None:
    with pytest.raises(DataError, match=f"field 'max_length': found {max_length}, expected at least 2"):
        encode(tokenizer, "0123", "45", max_length=max_length)


@pytest.mark.parametrize(
    ("prompt", "completion", "message"),
    [
        ("the", "", "field 'completion': empty"),
        ([], "the", "field 'prompt': no messages"),
        ([{"role": "user"}], "the", r"field 'prompt': a message has \['role'\], expected 'role' and 'content'"),
    ],
)
def test_what_cannot_be_encoded(tokenizer: Any, prompt: Any, completion: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        encode(tokenizer, prompt, completion)


def test_tokenizers_that_lack_something(tokenizer: Any) -> None:
    bare = SimpleNamespace(encode=tokenizer.encode, eos_token=None, eos_token_id=None, chat_template=None)
    with pytest.raises(DataError, match="no end-of-text token"):
        encode(bare, "the", "cat")
    with pytest.raises(DataError, match="no chat template"):
        encode(bare, CHAT, "cat")
