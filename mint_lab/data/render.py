"""From prompt and completion to tokens, and from tokens to a ``Datum``.

Prompt and completion are tokenized separately and concatenated. Tokenized together, a merge across the boundary could
give the two sides of a pair different prompt tokens. Separately, the prompt's tokens do not depend on the completion:
the sides of a pair can share one prompt, and training sees the same prompt tokens as a sampler that continues it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from ..errors import ConfigError, DataError

if TYPE_CHECKING:
    from ..types import Datum

__all__ = [
    "Message",
    "Prompt",
    "Rendered",
    "describe_truncation",
    "encode",
    "encode_completion",
    "encode_prompt",
    "is_message",
    "kind_of",
    "text_or_messages",
    "to_datum",
    "truncate",
]

Message: TypeAlias = Mapping[str, Any]
Prompt: TypeAlias = "str | Sequence[Message]"

# Fields with one number per target token, (N,); other fields may have any shape.
PER_TOKEN = frozenset({"advantages", "logprobs", "mask", "reference_logprobs", "teacher_logprobs", "weights"})


@dataclass(frozen=True, slots=True)
class Rendered:
    """Tokens of a prompt and of its completions, truncated so that prompt and completion fit a maximum length.

    Attributes:
        prompt: Token ids, the same for every completion.
        completions: Token ids of each completion; they end with the end-of-text token unless truncated.
        n_truncated: Number of completions that lost their end.
        prompt_truncated: Whether the prompt lost its beginning.
    """

    prompt: list[int]
    completions: list[list[int]]
    n_truncated: int = 0
    prompt_truncated: bool = False


def text_or_messages(value: Any, index: int, field: str) -> str | list[Message]:
    """Return ``value`` if it is text, or as a list if it is chat messages.

    Args:
        value: A cell of a row.
        index: The row's index, for the error.
        field: The cell's column, for the error.

    Raises:
        DataError: If ``value`` is neither text nor a non-empty sequence of messages.
    """
    if isinstance(value, str):
        return value
    if hasattr(value, "tolist"):  # data frames and Parquet files hold a list as an array
        value = value.tolist()
    if isinstance(value, Sequence) and value and all(map(is_message, cast("Sequence[Any]", value))):
        return list(cast("Sequence[Message]", value))
    raise DataError(f"found {kind_of(value)}, expected text or chat messages", index=index, field=field)


def is_message(value: Any) -> bool:
    """Return True if ``value`` is a chat message: a mapping with the texts ``role`` and ``content``."""
    if not isinstance(value, Mapping):
        return False
    message = cast("Mapping[str, Any]", value)
    return isinstance(message.get("role"), str) and isinstance(message.get("content"), str)


def kind_of(value: Any) -> str:
    """Describe a value that is not what was expected, for a message. A data frame has nan for a missing value."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "nothing (None)"
    return "an empty list" if isinstance(value, list) and not value else type(value).__name__


def describe_truncation(examples: Iterable[Rendered], max_length: int | None) -> str:
    """Return a sentence that says how many completions and prompts were truncated; "" if none was."""
    every = list(examples)
    n_completions, n_ends = sum(len(one.completions) for one in every), sum(one.n_truncated for one in every)
    n_beginnings = sum(one.prompt_truncated for one in every)
    parts = [f"{n_ends} of {n_completions} completions lost their end"] if n_ends else []
    parts += [f"{n_beginnings} of {len(every)} prompts lost their beginning"] if n_beginnings else []
    return f"truncated to {max_length} tokens: {' and '.join(parts)}" if parts else ""


def encode(tokenizer: Any, prompt: Prompt, completion: str, *, max_length: int | None = None) -> tuple[list[int], int]:
    """Tokenize ``prompt`` followed by ``completion`` and the end-of-text token.

    Args:
        tokenizer: A transformers tokenizer.
        prompt: Text, or chat messages (``role`` and ``content``), which the tokenizer's chat template renders.
        completion: The assistant's text.
        max_length: Maximum length of the result, tokens. The prompt loses its beginning first; a completion that is
            too long even after a single prompt token loses its end, the end-of-text token included.

    Returns:
        ``(tokens, prompt_length)``: ``tokens[:prompt_length]`` is the prompt.

    Raises:
        ConfigError: If ``tokenizer`` is not a tokenizer.
        DataError: If the completion is empty, the messages are invalid, the tokenizer lacks a chat template or an
            end-of-text token, or ``max_length`` leaves no token of the completion.
    """
    rendered = truncate(
        encode_prompt(tokenizer, prompt), [encode_completion(tokenizer, prompt, completion)], max_length
    )
    return rendered.prompt + rendered.completions[0], len(rendered.prompt)


def to_datum(tokens: Sequence[int], prompt_length: int, **fields: Any) -> Datum:
    """Build a training example in which position ``i`` of the input predicts ``tokens[i + 1]``.

    Args:
        tokens: Prompt and completion, ``N + 1`` tokens.
        prompt_length: Number of prompt tokens, 1 to N. A weight is 0 if its *target* is in the prompt, so the prompt's
            last position, which predicts the completion's first token, has weight 1.
        fields: Further ``loss_fn_inputs``, such as ``logprobs`` and ``advantages``; per-token fields have shape
            ``(N,)``. ``weights`` replaces the default weights.

    Raises:
        DataError: If the prompt is empty, the completion is empty, or a per-token field does not have shape ``(N,)``.
    """
    import numpy as np

    from ..types import Datum, ModelInput, TensorData

    length = len(tokens) - 1
    if not 1 <= prompt_length <= length:
        raise DataError(
            f"found {prompt_length} of {len(tokens)} tokens, expected 1 to {length}: prompt and completion need at "
            "least one token each",
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
    """Return the token ids of a prompt, at least one.

    A completion's first token needs an input to be predicted from, so an empty prompt becomes the beginning-of-text
    token or, if the tokenizer has none, the end-of-text token.

    Raises:
        ConfigError: As :func:`encode`.
        DataError: As :func:`encode`.
    """
    _check_tokenizer(tokenizer)
    if isinstance(prompt, str):
        tokens = _tokens(tokenizer, prompt, special=True)
        end = tokenizer.eos_token_id
        # Some tokenizers append the end-of-text token to every text; a prompt must not end unless its text says so.
        if tokens and tokens[-1] == end and not prompt.endswith(tokenizer.eos_token):
            tokens.pop()
    else:
        tokens = _tokens(tokenizer, _chat(tokenizer, prompt))
    if tokens:
        return tokens
    start = getattr(tokenizer, "bos_token_id", None)
    return [_end_of_text(tokenizer) if start is None else int(start)]


def encode_completion(tokenizer: Any, prompt: Prompt, completion: str) -> list[int]:
    """Return the token ids of a completion of ``prompt``, with the end-of-text token at the end.

    After a chat prompt the text is what the chat template writes for the assistant's turn, up to the end-of-text token:
    a template may add a leading space or an end-of-turn marker.

    Raises:
        ConfigError: As :func:`encode`.
        DataError: As :func:`encode`.
    """
    _check_tokenizer(tokenizer)
    if not completion:
        raise DataError("empty, expected at least one character", field="completion")
    end = _end_of_text(tokenizer)
    text = completion if isinstance(prompt, str) else _assistant_turn(tokenizer, prompt, completion)
    tokens = _tokens(tokenizer, text)
    if not tokens:
        raise DataError(
            f"the tokenizer returns no tokens for {completion[:40]!r}, expected at least one", field="completion"
        )
    return tokens if tokens[-1] == end else [*tokens, end]


def truncate(prompt: list[int], completions: list[list[int]], max_length: int | None) -> Rendered:
    """Truncate a prompt and its completions so that prompt plus longest completion has ``max_length`` tokens.

    The prompt loses its beginning, down to one token, before any completion loses its end. Every completion has the
    same prompt.

    Args:
        prompt: Token ids.
        completions: Token ids of each completion.
        max_length: Maximum length, tokens; None for no limit.

    Raises:
        DataError: If ``max_length`` is below 2, which leaves no token of a completion.
    """
    if max_length is None:
        return Rendered(prompt, completions)
    if max_length < 2:
        raise DataError(
            f"found {max_length}, expected at least 2: one token of the prompt and one of the completion",
            field="max_length",
        )
    completion_limit = max_length - 1
    kept = [tokens[:completion_limit] for tokens in completions]
    prompt_limit = max_length - max(map(len, kept))
    n_truncated = sum(len(tokens) > completion_limit for tokens in completions)
    return Rendered(prompt[-prompt_limit:], kept, n_truncated, prompt_truncated=len(prompt) > prompt_limit)


def _array(name: str, value: Any, length: int) -> Any:
    """Return a field as an int64 or float32 array; raise :class:`DataError` if a per-token field has another length."""
    import numpy as np

    if hasattr(value, "to_numpy"):  # TensorData, pandas
        value = value.to_numpy()
    elif hasattr(value, "detach"):  # a torch tensor; an isinstance check would need to import torch
        value = value.detach().cpu().float() if value.is_floating_point() else value.detach().cpu()
    try:
        array = np.asarray(value)
        array = array.astype(np.int64 if array.dtype.kind in "iub" else np.float32)
    except (TypeError, ValueError):
        raise DataError(f"found {type(value).__name__}, expected numbers", field=name) from None
    if name in PER_TOKEN and array.shape != (length,):
        raise DataError(f"found shape {array.shape}, expected ({length},), one number per target token", field=name)
    return array


def _check_tokenizer(tokenizer: Any) -> None:
    if not (hasattr(tokenizer, "encode") and hasattr(tokenizer, "eos_token_id")):
        found = repr(tokenizer) if isinstance(tokenizer, str) else f"a {type(tokenizer).__name__}"
        raise ConfigError(
            f"the tokenizer is {found}, expected a transformers tokenizer, such as client.get_tokenizer()"
        )


def _tokens(tokenizer: Any, text: str, *, special: bool = False) -> list[int]:
    # verbose=False: transformers warns about texts beyond the model's context; those are truncated or refused later.
    return list(tokenizer.encode(text, add_special_tokens=special, verbose=False))


def _end_of_text(tokenizer: Any) -> int:
    if tokenizer.eos_token_id is None:
        raise DataError("the tokenizer has no end-of-text token (eos_token), expected one to end completions with")
    return int(tokenizer.eos_token_id)


def _chat(tokenizer: Any, messages: Sequence[Message]) -> str:
    """Render messages as the text that the assistant continues; a last assistant message is left unfinished."""
    if not messages:
        raise DataError("no messages, expected at least one", field="prompt")
    for message in messages:
        if not {"role", "content"} <= set(message):
            raise DataError(f"a message has the keys {sorted(message)}, expected 'role' and 'content'", field="prompt")
    if not getattr(tokenizer, "chat_template", None):
        raise DataError(
            "the prompt is a list of chat messages, but the tokenizer has no chat template; pass text as the prompt, "
            "or set tokenizer.chat_template",
            field="prompt",
        )
    unfinished = messages[-1]["role"] == "assistant"
    return tokenizer.apply_chat_template(
        list(messages), tokenize=False, add_generation_prompt=not unfinished, continue_final_message=unfinished
    )


def _assistant_turn(tokenizer: Any, prompt: Sequence[Message], completion: str) -> str:
    """Return what the chat template writes for the assistant's turn after ``prompt``, end-of-turn marker included."""
    before = _chat(tokenizer, prompt)
    if prompt[-1]["role"] == "assistant":
        return completion
    whole: str = tokenizer.apply_chat_template(
        [*prompt, {"role": "assistant", "content": completion}], tokenize=False, add_generation_prompt=False
    )
    # The first place after the prompt: the text can also occur in the prompt, and after the end-of-text token.
    start = whole.find(completion, len(before))
    if not whole.startswith(before) or start < 0:
        # The template rewrites earlier turns or the content, so the assistant's turn cannot be located in its output.
        return completion
    lead, suffix = whole[len(before) : start], whole[start + len(completion) :]
    end: str = tokenizer.eos_token or ""
    suffix = suffix[: suffix.index(end) + len(end)] if end and end in suffix else suffix.rstrip()
    return lead + completion + suffix
