"""Prompt and completion -> tokens -> ``Datum``.

Prompt and completion are tokenized apart and joined. A merge across the boundary would give the two sides of a pair
different prompt tokens; apart, the prompt's tokens are the same whatever follows, which is what lets a pair share one
prompt and what a sampler sees when it continues that prompt.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from ..errors import ConfigError, DataError

if TYPE_CHECKING:
    from ..types import Datum

__all__ = ["Message", "Prompt", "Rendered", "encode", "encode_completion", "encode_prompt", "fit", "lost", "to_datum"]

Message: TypeAlias = Mapping[str, Any]
Prompt: TypeAlias = "str | Sequence[Message]"

# Fields that hold one number a token; any other field keeps the shape it comes in.
PER_TOKEN = frozenset({"advantages", "logprobs", "mask", "reference_logprobs", "teacher_logprobs", "weights"})


@dataclass(frozen=True, slots=True)
class Rendered:
    """Tokens of one prompt and of the completions that follow it, cut to a common length.

    Attributes:
        prompt: token ids, the same for every completion.
        completions: token ids of each, ending with the end-of-text token unless cut.
        cut: how many completions lost their end.
        shortened: whether the prompt lost its beginning.
    """

    prompt: list[int]
    completions: list[list[int]]
    cut: int = 0
    shortened: bool = False


def lost(rendered: Iterable[Rendered]) -> str:
    """How many completions and prompts were cut, in words; "" where none was."""
    every = list(rendered)
    completions, ends = sum(len(one.completions) for one in every), sum(one.cut for one in every)
    begins = sum(one.shortened for one in every)
    parts = [f"{ends} of {completions} completions lost their end"] if ends else []
    parts += [f"{begins} of {len(every)} prompts lost their beginning"] if begins else []
    return " and ".join(parts)


def encode(tokenizer: Any, prompt: Prompt, completion: str, *, max_length: int | None = None) -> tuple[list[int], int]:
    """Tokens of ``prompt`` followed by ``completion`` and the end-of-text token.

    Args:
        tokenizer: a transformers tokenizer.
        prompt: text, or chat messages (``role`` and ``content``), which go through the tokenizer's chat template.
        completion: the assistant's text.
        max_length: longest result, tokens. The prompt loses its beginning first; a completion that is too long even
            with one prompt token left loses its end, the end-of-text token included.

    Returns:
        ``(tokens, prompt_length)``: ``tokens[:prompt_length]`` is the prompt.

    Raises:
        ConfigError: ``tokenizer`` is none.
        DataError: an empty completion, messages that are none, a tokenizer without chat template or without
            end-of-text token, or a ``max_length`` that leaves nothing of the completion.
    """
    rendered = fit(encode_prompt(tokenizer, prompt), [encode_completion(tokenizer, prompt, completion)], max_length)
    return rendered.prompt + rendered.completions[0], len(rendered.prompt)


def to_datum(tokens: Sequence[int], prompt_length: int, **fields: Any) -> Datum:
    """One training example: position ``i`` of the input predicts ``tokens[i + 1]``.

    Args:
        tokens: prompt and completion, ``N + 1`` of them.
        prompt_length: how many belong to the prompt, 1 to N. Weights are 0 where the *target* lies in the prompt, so
            the prompt's last position, which predicts the completion's first token, has weight 1.
        fields: more ``loss_fn_inputs``, such as ``logprobs`` and ``advantages``; per-token ones have shape ``(N,)``.
            ``weights`` replaces the default ones.

    Raises:
        DataError: a prompt length that leaves no token to predict or none to predict it from, or a per-token field of
            another shape than ``(N,)``.
    """
    import numpy as np

    from ..types import Datum, ModelInput, TensorData

    length = len(tokens) - 1
    if not 1 <= prompt_length <= length:
        raise DataError(
            f"found {prompt_length} of {len(tokens)} tokens, expected 1 to {length}: the completion needs a token "
            "before it to be predicted from, and at least one of its own",
            field="prompt_length",
        )
    weights = np.ones(length, dtype=np.float32)
    weights[: prompt_length - 1] = 0.0
    inputs = {"target_tokens": np.asarray(tokens[1:], dtype=np.int64), "weights": weights}
    inputs |= {name: _array(name, value, length) for name, value in fields.items()}
    return Datum(
        model_input=ModelInput.from_ints(list(tokens[:-1])),
        loss_fn_inputs={name: TensorData.from_numpy(array) for name, array in inputs.items()},
    )


def encode_prompt(tokenizer: Any, prompt: Prompt) -> list[int]:
    """Token ids of a prompt, at least one.

    An empty prompt becomes the token that starts a text (or, where there is none, the one that ends the text before),
    since a completion's first token has to be predicted from something.

    Raises:
        ConfigError, DataError: as :func:`encode`.
    """
    _check_tokenizer(tokenizer)
    if isinstance(prompt, str):
        tokens = _tokens(tokenizer, prompt, special=True)
        end = tokenizer.eos_token_id
        # Some tokenizers close every text; a prompt is not closed, unless its own text says so.
        if tokens and tokens[-1] == end and not prompt.endswith(tokenizer.eos_token):
            tokens.pop()
    else:
        tokens = _tokens(tokenizer, _chat(tokenizer, prompt))
    if tokens:
        return tokens
    start = getattr(tokenizer, "bos_token_id", None)
    return [_end_of_text(tokenizer) if start is None else int(start)]


def encode_completion(tokenizer: Any, prompt: Prompt, completion: str) -> list[int]:
    """Token ids of a completion of ``prompt``, closed by the end-of-text token.

    After a chat prompt it is what the chat template itself writes for the assistant's turn (which may begin with a
    space or end with a mark of its own), up to the end-of-text token.

    Raises:
        ConfigError, DataError: as :func:`encode`.
    """
    _check_tokenizer(tokenizer)
    if not completion:
        raise DataError("empty, expected at least one character", field="completion")
    end = _end_of_text(tokenizer)
    text = completion if isinstance(prompt, str) else _assistant_turn(tokenizer, prompt, completion)
    tokens = _tokens(tokenizer, text)
    if not tokens:
        raise DataError(f"the tokenizer makes no tokens of {completion[:40]!r}", field="completion")
    return tokens if tokens[-1] == end else [*tokens, end]


def fit(prompt: list[int], completions: list[list[int]], max_length: int | None) -> Rendered:
    """Cut a prompt and its completions to ``max_length`` tokens, the prompt by the same amount for all of them.

    The prompt loses its beginning, down to one token, before any completion loses its end.

    Raises:
        DataError: ``max_length`` is below 2, which leaves nothing of a completion.
    """
    if max_length is None:
        return Rendered(prompt, completions)
    if max_length < 2:
        raise DataError(
            f"found {max_length}, expected at least 2: one token of the prompt and one of the completion",
            field="max_length",
        )
    room = max_length - 1
    kept = [tokens[:room] for tokens in completions]
    space = max_length - max(map(len, kept))
    cut = sum(len(tokens) > room for tokens in completions)
    return Rendered(prompt[-space:], kept, cut, shortened=len(prompt) > space)


def _array(name: str, value: Any, length: int) -> Any:
    """A field as int64 or float32, on the CPU; per-token fields checked for their length."""
    import numpy as np

    if hasattr(value, "to_numpy"):  # TensorData, pandas
        value = value.to_numpy()
    elif hasattr(value, "detach"):  # torch, which cannot be imported here only to ask
        value = value.detach().cpu().float() if value.is_floating_point() else value.detach().cpu()
    try:
        array = np.asarray(value)
        array = array.astype(np.int64 if array.dtype.kind in "iub" else np.float32)
    except (TypeError, ValueError):
        raise DataError(f"found {type(value).__name__}, expected numbers", field=name) from None
    if name in PER_TOKEN and array.shape != (length,):
        raise DataError(f"found shape {array.shape}, expected ({length},), one number a target token", field=name)
    return array


def _check_tokenizer(tokenizer: Any) -> None:
    if not (hasattr(tokenizer, "encode") and hasattr(tokenizer, "eos_token_id")):
        found = repr(tokenizer) if isinstance(tokenizer, str) else f"a {type(tokenizer).__name__}"
        raise ConfigError(f"the tokenizer is {found}, expected one of transformers: client.get_tokenizer()")


def _tokens(tokenizer: Any, text: str, *, special: bool = False) -> list[int]:
    # Not verbose: transformers warns of texts longer than the model's context, which are cut here or refused later.
    return list(tokenizer.encode(text, add_special_tokens=special, verbose=False))


def _end_of_text(tokenizer: Any) -> int:
    if tokenizer.eos_token_id is None:
        raise DataError("the tokenizer has no end-of-text token (eos_token), so a completion cannot be closed")
    return int(tokenizer.eos_token_id)


def _chat(tokenizer: Any, messages: Sequence[Message]) -> str:
    """Messages as the text the assistant continues; a last message of the assistant's own is left open."""
    if not messages:
        raise DataError("no messages, expected at least one", field="prompt")
    for message in messages:
        if not {"role", "content"} <= set(message):
            raise DataError(f"a message has {sorted(message)}, expected 'role' and 'content'", field="prompt")
    if not getattr(tokenizer, "chat_template", None):
        raise DataError(
            "the prompt is a list of chat messages and the tokenizer has no chat template; give the prompt as text, or "
            "set tokenizer.chat_template",
            field="prompt",
        )
    is_open = messages[-1]["role"] == "assistant"
    return tokenizer.apply_chat_template(
        list(messages), tokenize=False, add_generation_prompt=not is_open, continue_final_message=is_open
    )


def _assistant_turn(tokenizer: Any, prompt: Sequence[Message], completion: str) -> str:
    """What the chat template writes for the assistant's turn after ``prompt``, its closing mark included."""
    before = _chat(tokenizer, prompt)
    if prompt[-1]["role"] == "assistant":
        return completion
    whole: str = tokenizer.apply_chat_template(
        [*prompt, {"role": "assistant", "content": completion}], tokenize=False, add_generation_prompt=False
    )
    place = whole.rfind(completion)
    if not whole.startswith(before) or place < len(before):
        return completion  # a template that rewrites its past or the content: nothing to learn from it here
    lead, closing = whole[len(before) : place], whole[place + len(completion) :]
    end: str = tokenizer.eos_token or ""
    closing = closing[: closing.index(end) + len(end)] if end and end in closing else closing.rstrip()
    return lead + completion + closing
