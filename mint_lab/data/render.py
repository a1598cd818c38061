"""From prompt and completion to tokens, and from tokens to a ``Datum``.

*Text*: the prompt's tokens are those that a sampler sees, and the completion continues them. A completion is tokenized
together with its prompt, because some tokenizers put a space before a text that stands alone (SentencePiece). Where a
merge would cross the boundary, the two are tokenized separately: the prompt's tokens do not depend on the completion.

*Chat*: the tokens are those of the whole conversation as the chat template writes it. The prompt is what they have in
common with the tokens of the generation prompt, as in TRL; the sides of a pair share one prompt.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ..errors import ConfigError, DataError
from .chat_template import (
    EXCERPT,
    PROBE,
    check_written,
    common_length,
    conversation,
    generation_prompt,
    marked_tokens,
    marks_turns,
    parting,
    writes_reasoning,
    writes_tools,
)
from .chats import Chat, Completion, Message, Prompt, is_weighted, text_or_messages
from .long_texts import Shortened, shorten
from .sources import named_rows

if TYPE_CHECKING:
    from ..types import Datum

__all__ = [
    "Rendered",
    "RowFacts",
    "TrainOn",
    "describe_changes",
    "encode",
    "encode_prompt",
    "render",
    "to_datum",
    "truncate",
]

TrainOn: TypeAlias = Literal["last", "all"]
"""Which turns of the assistant have weight 1: the completion, or those in the prompt as well."""

# Characters that hardly any tokenizer merges with what follows.
SEPARATORS = ("\n", ":", "a")

# What a row may have that a template leaves out on purpose, by the field of :class:`Rendered` that says so.
UNWRITTEN = {"tools_unwritten": "tools", "reasoning_unwritten": "reasoning before </think>"}

# Fields with one number per target token, (N,); other fields may have any shape.
PER_TOKEN = frozenset({"advantages", "logprobs", "mask", "reference_logprobs", "teacher_logprobs", "weights"})


@dataclass(frozen=True, slots=True)
class RowFacts:
    """What is known of a row of data beyond its datums; fields without a description are those of :class:`Rendered`.

    Attributes:
        row: The number of the row in its data, from 0.
        prompt_length: Tokens of the prompt.
    """

    row: int
    prompt_length: int
    lost_beginning: int = 0
    lost_ends: tuple[int, ...] = ()
    tools_unwritten: bool = False
    reasoning_unwritten: bool = False
    sampled_further: int = 0


@dataclass(frozen=True, slots=True)
class Rendered:
    """Tokens of a prompt and of its completions, truncated so that prompt and completion fit a maximum length.

    Attributes:
        prompt: Token ids, the same for every completion.
        completions: Token ids of each completion. After a text prompt they end with the end-of-text token, after a chat
            with what the template writes last; unless truncated.
        weights: For each completion the weight of every token of prompt and completion; empty for 0 on the prompt and 1
            on the completion.
        lost_ends: Tokens that each completion lost at its end; empty if none lost any.
        lost_beginning: Tokens that the prompt lost at its beginning.
        tools_unwritten: Whether the row has tools that the chat template does not write.
        reasoning_unwritten: Whether a completion has a thought, up to ``</think>``, that the template does not write.
        sampled_further: Tokens at the end of the prompt that a sampler sees which are not part of the prompt here: each
            completion begins with others.
    """

    prompt: list[int]
    completions: list[list[int]]
    weights: list[list[float]] = field(default_factory=list)
    lost_ends: tuple[int, ...] = ()
    lost_beginning: int = 0
    tools_unwritten: bool = False
    reasoning_unwritten: bool = False
    sampled_further: int = 0

    @property
    def n_truncated(self) -> int:
        """Number of completions that lost their end."""
        return sum(lost > 0 for lost in self.lost_ends)

    @property
    def prompt_truncated(self) -> bool:
        """Whether the prompt lost its beginning."""
        return self.lost_beginning > 0

    def facts(self, row: int) -> RowFacts:
        """Return what is known of this row beyond its datums.

        Args:
            row: The number of the row in its data, from 0.
        """
        return RowFacts(
            row,
            len(self.prompt),
            lost_beginning=self.lost_beginning,
            lost_ends=self.lost_ends,
            tools_unwritten=self.tools_unwritten,
            reasoning_unwritten=self.reasoning_unwritten,
            sampled_further=self.sampled_further,
        )

    def data(self) -> list[Datum]:
        """Return one datum per completion."""
        length = len(self.prompt)
        given = [{"weights": weights[1:]} for weights in self.weights] or [{}] * len(self.completions)
        return [
            to_datum(self.prompt + completion, length, **fields)
            for completion, fields in zip(self.completions, given, strict=True)
        ]


def describe_changes(found: Iterable[tuple[int, Rendered]], max_length: int | None) -> list[str]:
    """Return sentences that say which rows lost something: how many, and the numbers of the first.

    Args:
        found: Rows with their numbers.
        max_length: The limit that they were truncated to, tokens.
    """
    every = list(found)
    n_completions, n_ends = sum(len(one.completions) for _, one in every), sum(one.n_truncated for _, one in every)
    n_beginnings = sum(one.prompt_truncated for _, one in every)
    parts = [f"{n_ends} of {n_completions} completions lost their end"] if n_ends else []
    parts += [f"{n_beginnings} of {len(every)} prompts lost their beginning"] if n_beginnings else []
    shorter = [index for index, one in every if one.n_truncated or one.prompt_truncated]
    notes = [f"truncated to {max_length} tokens: {' and '.join(parts)} ({named_rows(shorter)})"] if parts else []
    for fact, what in UNWRITTEN.items():
        if rows := [index for index, one in every if getattr(one, fact)]:
            told = f"{len(rows)} of {len(every)} rows have {what}, which the chat template does not write"
            notes.append(f"{told} ({named_rows(rows)})")
    return notes


def encode(
    tokenizer: Any, prompt: Prompt, completion: Completion, *, max_length: int | None = None
) -> tuple[list[int], int]:
    """Tokenize ``prompt`` followed by ``completion``.

    Args:
        tokenizer: A transformers tokenizer.
        prompt: Text, or chat messages (``role`` and ``content``), which the tokenizer's chat template renders.
        completion: The assistant's text; after chat messages also a list of messages. After a text prompt the
            end-of-text token follows it; in a chat, what the template writes.
        max_length: Maximum length of the result, tokens. The prompt loses its beginning first; a completion that is
            too long even after a single prompt token loses its end, the end-of-text token included.

    Returns:
        ``(tokens, prompt_length)``: ``tokens[:prompt_length]`` is the prompt.

    Raises:
        ConfigError: If ``tokenizer`` is not a tokenizer.
        DataError: If the completion is empty, the messages are invalid, the template drops a part of them or writes the
            prompt differently once a completion follows, the tokenizer lacks a chat template or an end-of-text token,
            or ``max_length`` leaves no token of the completion.
    """
    rendered = render(tokenizer, prompt, [completion], max_length=max_length)
    return rendered.prompt + rendered.completions[0], len(rendered.prompt)


def render(
    tokenizer: Any,
    prompt: Prompt,
    completions: Sequence[Completion],
    *,
    max_length: int | None = None,
    train_on: TrainOn = "last",
) -> Rendered:
    """Tokenize a prompt with each of its completions; see the top of this module.

    Args:
        tokenizer: A transformers tokenizer.
        prompt: As in :func:`encode`.
        completions: As in :func:`encode`; all after the same prompt.
        max_length: As in :func:`encode`.
        train_on: Which turns of the assistant have weight 1.

    Raises:
        ConfigError: As :func:`encode`.
        DataError: As :func:`encode`; and if ``train_on`` is "all" and the template writes an earlier turn differently
            once further turns follow.
    """
    _check_tokenizer(tokenizer)
    if any(not completion for completion in completions):
        raise DataError("empty, expected at least one character", field="completion")
    if not isinstance(prompt, str):
        return _render_chat(tokenizer, prompt, completions, train_on, max_length)
    texts = [completion for completion in completions if isinstance(completion, str)]
    if len(texts) < len(completions):
        raise DataError("found chat messages after a text prompt, expected text", field="completion")
    _check_characters(prompt, "prompt")
    for text in texts:
        _check_characters(text, "completion")
    short = _shortened(tokenizer, prompt, texts, max_length)
    written = [_writes_end(tokenizer, text, rest) for text, rest in zip(texts, short.completions, strict=True)]
    short = replace(short, lost_ends=tuple(map(operator.sub, short.lost_ends, written)))
    start = encode_prompt(tokenizer, short.prompt)
    wholes = [_continued(tokenizer, short.prompt, start, text) for text in short.completions]
    return _truncated(_shared_prompt(start, wholes), short, max_length)


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
        tokens = _tokens(tokenizer, prompt, special=True, field="prompt")
        end = tokenizer.eos_token_id
        # Some tokenizers append the end-of-text token to every text; a prompt must not end unless its text says so.
        if tokens and tokens[-1] == end and not prompt.endswith(tokenizer.eos_token):
            tokens.pop()
    else:
        messages = _messages(prompt)
        check_written(tokenizer, messages, len(messages))
        tokens = _tokens(tokenizer, generation_prompt(tokenizer, messages))
    if tokens:
        return tokens
    start = getattr(tokenizer, "bos_token_id", None)
    return [_end_of_text(tokenizer) if start is None else int(start)]


def truncate(rendered: Rendered, max_length: int | None) -> Rendered:
    """Truncate a prompt and its completions so that prompt plus longest completion has ``max_length`` tokens.

    The prompt loses its beginning, down to one token, before any completion loses its end. Every completion has the
    same prompt.

    Args:
        rendered: A prompt and its completions, as they are.
        max_length: Maximum length, tokens; None for no limit.

    Raises:
        DataError: If ``max_length`` is below 2, which leaves no token of a completion.
    """
    if max_length is None:
        return rendered
    if max_length < 2:
        raise DataError(
            f"found {max_length}, expected at least 2: one token of the prompt and one of the completion",
            field="max_length",
        )
    prompt, completion_limit = rendered.prompt, max_length - 1
    kept = [tokens[:completion_limit] for tokens in rendered.completions]
    lost = max(0, len(prompt) - (max_length - max(map(len, kept))))
    lost_ends = tuple(len(tokens) - len(rest) for tokens, rest in zip(rendered.completions, kept, strict=True))
    ends = [len(prompt) + len(completion) for completion in kept]
    return replace(
        rendered,
        prompt=prompt[lost:],
        completions=kept,
        weights=[weights[lost:end] for weights, end in zip(rendered.weights, ends, strict=bool(rendered.weights))],
        lost_ends=lost_ends if any(lost_ends) else (),
        lost_beginning=lost,
    )


def _shortened(tokenizer: Any, prompt: str, completions: Sequence[str], max_length: int | None) -> Shortened:
    return shorten(lambda text: _tokens(tokenizer, text), tokenizer, prompt, completions, max_length)


def _writes_end(tokenizer: Any, text: str, rest: str) -> bool:
    """Return whether a text that was shortened to ``rest`` has the end-of-text token already, which ``rest`` gets."""
    return len(rest) < len(text) and _tokens(tokenizer, text[-EXCERPT:])[-1:] == [tokenizer.eos_token_id]


def _truncated(rendered: Rendered, short: Shortened, max_length: int | None) -> Rendered:
    """As :func:`truncate`, and count what was lost before."""
    found = truncate(rendered, max_length)
    lost_ends = tuple(map(sum, zip(found.lost_ends, short.lost_ends, strict=True))) if found.lost_ends else ()
    return replace(found, lost_beginning=found.lost_beginning + short.lost_beginning, lost_ends=lost_ends)


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


def _check_characters(text: str, field: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        place = error.start
        around = text[max(0, place - EXCERPT // 4) : place + EXCERPT // 4]
        raise DataError(
            f"character {place} is half of a surrogate pair ({text[place]!r}), expected whole characters, in "
            f"{around!r}; repair the text or remove the row",
            field=field,
        ) from None


def _tokens(tokenizer: Any, text: str, *, special: bool = False, field: str = "messages") -> list[int]:
    _check_characters(text, field)
    # verbose=False: transformers warns about texts beyond the model's context; those are truncated or refused later.
    return list(tokenizer.encode(text, add_special_tokens=special, verbose=False))


def _end_of_text(tokenizer: Any) -> int:
    if tokenizer.eos_token_id is None:
        raise DataError("the tokenizer has no end-of-text token (eos_token), expected one to end completions with")
    return int(tokenizer.eos_token_id)


def _continued(tokenizer: Any, prompt: str, start: list[int], completion: str) -> list[int]:
    """Return the tokens of a text prompt, a completion and the end-of-text token.

    Args:
        tokenizer: A transformers tokenizer.
        prompt: The prompt.
        start: Its tokens.
        completion: The completion.
    """
    end = _end_of_text(tokenizer)
    alone = _tokens(tokenizer, completion, field="completion")
    if not alone:
        raise DataError(
            f"the tokenizer returns no tokens for {completion[:40]!r}, expected at least one", field="completion"
        )
    together = _tokens(tokenizer, prompt + completion, special=True) if prompt else [*start, *alone]
    tokens = together if together[: len(start)] == start else _unmerged(tokenizer, start, together, completion)
    return tokens if tokens[-1] == end else [*tokens, end]


def _unmerged(tokenizer: Any, start: list[int], together: list[int], completion: str) -> list[int]:
    """Return the tokens of a prompt and a completion where a merge would cross the boundary between the two.

    A completion that stands alone can get a space of its own, and after another character it does not. The text of all
    tokens says which is right. If none is, the merge stays, and the prompt loses its last tokens to the completion.

    Args:
        tokenizer: A transformers tokenizer.
        start: Tokens of the prompt.
        together: Tokens of both, tokenized together.
        completion: The completion.
    """
    wanted = _surface(tokenizer, together)
    for lead in ("", *SEPARATORS):
        before, tokens = _tokens(tokenizer, lead) if lead else [], _tokens(tokenizer, lead + completion)
        rest = tokens[len(before) :]
        if rest and tokens[: len(before)] == before and _surface(tokenizer, [*start, *rest]) == wanted:
            return [*start, *rest]
    return together


def _surface(tokenizer: Any, tokens: list[int]) -> str:
    """Return the text of all tokens as the tokenizer stores it: the same however a text is split into tokens."""
    pieces: list[str] = tokenizer.convert_ids_to_tokens(tokens)
    return "".join(pieces)


def _shared_prompt(start: list[int], wholes: list[list[int]]) -> Rendered:
    """Split token sequences into the prompt that all have in common, at most ``start``, and their completions."""
    shared = min(common_length(start, whole) for whole in wholes)
    return Rendered(start[:shared], [whole[shared:] for whole in wholes], sampled_further=len(start) - shared)


def _render_chat(
    tokenizer: Any,
    messages: Sequence[Message],
    completions: Sequence[Completion],
    train_on: TrainOn,
    max_length: int | None,
) -> Rendered:
    prompt = _messages(messages)
    continued = prompt[-1]["role"] == "assistant" and all(isinstance(one, str) for one in completions)
    chats = [Chat(_with_answer(prompt, one, continued=continued), prompt.template_arguments) for one in completions]
    texts = [conversation(tokenizer, chat) for chat in chats]
    start = generation_prompt(tokenizer, prompt, new_turn=not continued)
    for chat, text in zip(chats, texts, strict=True):
        check_written(tokenizer, chat, len(chat) - 1)
        _check_aligned(tokenizer, prompt, start, text, continued=continued)
    # Marks of turns refer to the whole text.
    limit = None if train_on == "all" or marks_turns(tokenizer, chats[0]) else max_length
    for text in (start, *texts):
        _check_characters(text, "messages")
    same = min(common_length(start, text) for text in texts)
    short = _shortened(tokenizer, start[:same], [text[same:] for text in texts], limit)
    start, texts = short.prompt + start[same:], [short.prompt + text for text in short.completions]
    sampled = opening = _tokens(tokenizer, start)
    wholes = [_tokens(tokenizer, text) for text in texts]
    if not all(common_length(opening, whole) for whole in wholes):
        # The first token spans the prompt and more: a template without marks, and a short prompt.
        place = min(common_length(start, text) for text in texts)
        opening = _tokens(tokenizer, start[:place])
        wholes = [opening + _tokens(tokenizer, text[place:]) for text in texts]
    rendered = _shared_prompt(opening, wholes)
    if not rendered.prompt or not all(rendered.completions):
        raise DataError(
            f"the chat template writes {texts[0][-EXCERPT:]!r} with the assistant's turn and {start[-EXCERPT:]!r} as "
            "the prompt, expected a turn after a prompt",
            field="messages",
        )
    weights = [
        _chat_weights(tokenizer, chat, text, tokens, len(rendered.prompt), train_on)
        for chat, text, tokens in zip(chats, texts, wholes, strict=True)
    ]
    found = replace(
        rendered,
        weights=weights if any(weights) else [],
        sampled_further=len(sampled) - common_length(sampled, rendered.prompt),
        tools_unwritten=not all(writes_tools(tokenizer, chat) for chat in chats),
        reasoning_unwritten=not all(writes_reasoning(tokenizer, chat) for chat in chats),
    )
    return _truncated(found, short, max_length)


def _messages(prompt: Any) -> Chat:
    """Return a prompt that is not text as messages with ``role`` and ``content``."""
    if isinstance(prompt, Sequence) and not prompt:
        raise DataError("no messages, expected at least one", field="prompt")
    found = text_or_messages(prompt, None, "prompt")
    assert isinstance(found, Chat)
    return found


def _with_answer(prompt: Sequence[Message], completion: Completion, *, continued: bool) -> list[Message]:
    """Return the whole conversation; a completion of an unfinished message of the assistant becomes its end."""
    if isinstance(completion, str) and continued:
        return [*prompt[:-1], {**prompt[-1], "content": prompt[-1]["content"] + completion}]
    return [*prompt, {"role": "assistant", "content": completion} if isinstance(completion, str) else completion]


def _check_aligned(tokenizer: Any, prompt: Sequence[Message], start: str, text: str, *, continued: bool) -> None:
    """Raise :class:`DataError` if a conversation does not begin as its prompt, up to the mark that opens the turn.

    After that mark they may differ: a generation prompt can open a thought that a plain answer closes or lacks.
    """
    opening = len(start) if continued else common_length(conversation(tokenizer, prompt), start)
    if common_length(start, text) < opening:
        raise DataError(
            f"the chat template writes the prompt differently once an answer follows: {parting(start, text)}; "
            "set a tokenizer.chat_template that keeps earlier turns",
            field="messages",
        )


def _chat_weights(  # noqa: PLR0917 - one conversation in its forms
    tokenizer: Any, chat: Chat, text: str, tokens: list[int], n_prompt: int, train_on: TrainOn
) -> list[float]:
    """Return the weight of every token, or nothing where the prompt has weight 0 and the rest 1."""
    if not is_weighted(chat[-1]):
        raise DataError(
            "the assistant's last message has weight 0, so it is not to be learned; end the row before it, or remove "
            "the row",
            field="weight",
        )
    marks = marked_tokens(tokenizer, chat)
    if marks is None or len(marks) != len(tokens):
        if train_on == "last":
            return []
        marks = [0] * n_prompt + [1] * (len(tokens) - n_prompt)
        for first, last in _earlier_turns(tokenizer, chat, text, tokens, range(len(chat) - 1)):
            marks[first:last] = [1] * (last - first)
    weights = [float(mark) for mark in marks]
    if train_on == "last":
        weights[:n_prompt] = [0.0] * n_prompt
    elif unweighted := [number for number, message in enumerate(chat[:-1]) if not is_weighted(message)]:
        for first, last in _earlier_turns(tokenizer, chat, text, tokens, unweighted):
            weights[first:last] = [0.0] * (last - first)
    if not any(weights):
        raise DataError(
            "the chat template marks no token of the assistant's turn with {% generation %}, expected at least one",
            field="messages",
        )
    return weights


def _earlier_turns(
    tokenizer: Any, chat: Chat, text: str, tokens: list[int], numbers: Iterable[int]
) -> list[tuple[int, int]]:
    """Return where the turns of the assistant with these numbers are: ``(start, end)``, tokens, end excluded."""
    spans: list[tuple[int, int]] = []
    for number in numbers:
        if chat[number]["role"] != "assistant":
            continue
        before, after = (Chat(chat[:end], chat.template_arguments) for end in (number, number + 1))
        start = generation_prompt(tokenizer, before, new_turn=True) if before else _before_content(tokenizer, after)
        turn = conversation(tokenizer, after)
        end = common_length(turn, text)
        # A template may close a whole conversation with the end-of-text token.
        if turn[end:].strip() not in {"", getattr(tokenizer, "eos_token", "")}:
            raise DataError(
                f"the chat template writes message {number} differently once further turns follow: "
                f"{parting(turn, text)}; train on the last turn only, or split the conversation into rows",
                field="messages",
            )
        first = _place(tokenizer, text, tokens, common_length(start, text))
        spans.append((first, _place(tokenizer, text, tokens, end, after=True)))
    return spans


def _before_content(tokenizer: Any, chat: Chat) -> str:
    """Return what the template writes before the content of the first message, and further text."""
    return conversation(tokenizer, Chat([{**chat[0], "content": PROBE}], chat.template_arguments))


def _place(tokenizer: Any, text: str, tokens: list[int], place: int, *, after: bool = False) -> int:
    """Return the index of the token that contains character ``place`` of ``text``; the next one if ``after`` it."""
    prefix = _tokens(tokenizer, text[:place])
    index = common_length(prefix, tokens)
    return index + 1 if after and index < len(prefix) else index
