r"""Generation with a key-value cache, many requests as one batch.

Each prompt is run once, whatever the number of samples drawn from it and of requests that share it. Every sequence has
random numbers of its own, drawn from its request's seed, and picks its token by inverting the cumulative distribution:
the same seed gives the same tokens whatever else is in the batch. The log-probabilities returned are those of the
distribution sampled from (after temperature, top_k and top_p), which is what an importance ratio has to be taken
against.
"""

from __future__ import annotations

import contextlib
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import ConfigError, DataError
from .batch import check_tokens
from .kv_cache import cache_bytes, new_cache
from .logprobs import TargetLogprobs, chunk_positions
from .memory import free_memory
from .models import BaseModel
from .shared_prompt_cache import SharedPromptCache
from .token_sampling import SamplingSettings, draw

__all__ = ["GenerationRequest", "Sample", "check_request", "generate", "prompt_logprobs", "prompt_topk", "token_budget"]

# Keys, values and logits of the rows generated together take no more than this, bytes, or half of what is free.
MEMORY = 1 << 30
# Random numbers are drawn for so many tokens at a time.
AHEAD = 64
# Rows that ended are dropped when so much of the batch has: dropping copies the cache of the others.
DROP = 0.25
# Samples of so many tokens are drawn with LoRA merged into the weights, where memory allows.
MERGE = 16
# Tokens before a stop string that may matter to its text: parts of a character, a space that a decoder strips.
MARGIN = 8


@dataclass(frozen=True)
class GenerationRequest:
    """One prompt and how to continue it.

    Attributes:
        stop_tokens: a sample ends with the first of these; ``stop_strings``: or when its text contains one.
        temperature: 0 takes the most likely token, whatever top_k and top_p; the log-probabilities are then those at
            temperature 1 without truncation.
        top_k: -1 for no limit; ``top_p``: 1 for no limit.
    """

    prompt: list[int]
    num_samples: int = 1
    max_tokens: int = 128
    temperature: float = 1.0
    top_k: int = -1
    top_p: float = 1.0
    seed: int | None = None
    stop_tokens: frozenset[int] = frozenset()
    stop_strings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checks: tuple[tuple[str, type, Callable[[Any], bool], str], ...] = (
            ("num_samples", Integral, lambda v: v >= 1, "1 or more"),
            ("max_tokens", Integral, lambda v: v >= 1, "1 or more"),
            ("temperature", Real, lambda v: 0 <= v < float("inf"), "0 or more"),
            ("top_k", Integral, lambda v: v == -1 or v >= 1, "-1 (no limit) or 1 or more"),
            ("top_p", Real, lambda v: 0 < v <= 1, "above 0 and up to 1"),
            ("stop_strings", tuple, lambda v: "" not in v, "no empty string: every text contains it"),
        )
        for name, kind, fits, expected in checks:
            value = getattr(self, name)
            if not isinstance(value, kind) or not fits(value):
                raise ConfigError(f"{name} is {value!r}, expected {expected}")


@dataclass
class Sample:
    """One continuation: its tokens, the log-probability of each, and why it ended."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stop_reason: str = "length"


def check_request(base: BaseModel, request: GenerationRequest, index: int | None = None) -> None:
    """Raise :class:`DataError` unless the prompt is one that the model can continue; ``index`` names it there."""
    check_tokens(request.prompt, base.vocab_size, base.context, index)
    if len(request.prompt) == base.context:
        raise DataError(
            f"{base.context} tokens fill the model's context, there is no room for a sample; truncate the prompt",
            index=index,
            field="model_input",
        )


def token_budget(base: BaseModel) -> int:
    """Tokens, rows times length, that are generated together at most: what fits into ``MEMORY``."""
    spare = min(MEMORY, free_memory(base.device) // 2)
    tokens = spare // cache_bytes(base.config, next(iter(base.weights.values())).element_size())
    return 1 << max(tokens, 1).bit_length() - 1  # rounded down, so that two runs cut their batches alike


def generate(base: BaseModel, requests: Sequence[GenerationRequest]) -> list[list[Sample]]:
    """Continue every request's prompt ``num_samples`` times; the caller has made the wanted adapter active.

    Rows that would need more memory together than :func:`token_budget` allows are generated one part after another.

    Raises:
        DataError: a prompt is empty, too long, or has tokens outside the vocabulary.
    """
    for index, request in enumerate(requests):
        check_request(base, request, index if len(requests) > 1 else None)
    groups = [_rows(base, request) for request in requests]
    # Copies of the weights are not worth making for a few tokens.
    longest = max((row.room for group in groups for row in group), default=0)
    merge = min(MEMORY, free_memory(base.device) // 4) if longest >= MERGE else 0
    with torch.no_grad(), base.merged(merge):
        shares = _shares_prompts(base)
        for rows in _parts([row for group in groups for row in group], token_budget(base)):
            batch = _Batch(base, rows, shares=shares)
            while batch.advance():
                pass
    return [[row.sample for row in group] for group in groups]


@dataclass
class _Row:
    """A sequence that is being generated.

    Attributes:
        room: tokens that may come at most.
        tail: the last tokens, as many as any stop string can span.
    """

    request: GenerationRequest
    random: np.random.Generator
    room: int
    tail: deque[int]
    sample: Sample = field(default_factory=Sample)
    going: bool = True

    def take(self, token: int, logprob: float, tokenizer: Any) -> None:
        """Add a token, and see whether it is the last."""
        self.sample.tokens.append(token)
        self.sample.logprobs.append(logprob)
        if token in self.request.stop_tokens or (self.request.stop_strings and self._stopped(token, tokenizer)):
            self.sample.stop_reason = "stop"
            self.going = False
        elif len(self.sample.tokens) == self.room:
            self.going = False

    def _stopped(self, token: int, tokenizer: Any) -> bool:
        """Whether the text has a stop string now: one that it had before would have ended it, so it is in the tail."""
        if tokenizer.convert_ids_to_tokens(token) is None:
            return False  # a model's vocabulary may be larger than its tokenizer's; such a token has no text
        self.tail.append(token)
        text = tokenizer.decode(list(self.tail))
        return any(stop in text for stop in self.request.stop_strings)


def _rows(base: BaseModel, request: GenerationRequest) -> list[_Row]:
    """A row for every sample of a request, each with a stream of random numbers of which each token takes one."""
    seed = secrets.randbits(63) if request.seed is None else request.seed
    room = min(request.max_tokens, base.context - len(request.prompt))
    # A token that has text has a byte of it at least, so a string of n bytes is in the last n tokens.
    window = max((len(stop.encode("utf-8", "replace")) for stop in request.stop_strings), default=0) + MARGIN
    return [
        _Row(request, np.random.default_rng(child), room, deque(maxlen=window))
        for child in np.random.SeedSequence(abs(int(seed))).spawn(request.num_samples)
    ]


def _parts(rows: list[_Row], budget: int) -> Iterator[list[_Row]]:
    """Consecutive rows, so many at a time that rows times length is within the budget; at least one."""
    part: list[_Row] = []
    prompt = room = 0
    for row in rows:
        prompt, room = max(prompt, len(row.request.prompt)), max(room, row.room)
        if part and (len(part) + 1) * (prompt + room) > budget:
            yield part
            part, prompt, room = [], len(row.request.prompt), row.room
        part.append(row)
    if part:
        yield part


class _Batch:
    """Rows that are generated together, their cache, and the logits of their next token."""

    def __init__(self, base: BaseModel, rows: list[_Row], *, shares: bool) -> None:
        self.base = base
        self.rows = rows
        self.settings = SamplingSettings(
            torch.tensor([row.request.temperature for row in rows], dtype=torch.float32),
            torch.tensor([row.request.top_k for row in rows], dtype=torch.int64),
            torch.tensor([row.request.top_p for row in rows], dtype=torch.float64),
        )
        self.step = 0
        self._prefill(shares)

    def advance(self) -> bool:
        """Draw a token for each row and run the model on those that go on; False when all have ended."""
        if self.step % AHEAD == 0:
            self.random = torch.from_numpy(np.stack([row.random.random(AHEAD) for row in self.rows]))
        tokens, logprobs = draw(self.logits, self.settings, self.random[:, self.step % AHEAD])
        self.step += 1
        for row, token, logprob in zip(self.rows, tokens.tolist(), logprobs.tolist(), strict=True):
            if row.going:
                row.take(token, logprob, self.base.tokenizer)
        going = [i for i, row in enumerate(self.rows) if row.going]
        if not going:
            return False
        if len(going) <= (1 - DROP) * len(self.rows):
            keep = torch.tensor(going)
            self._select(keep)
            tokens = tokens[keep]
        self.logits = self.logits_after(tokens)
        return True

    def logits_after(self, tokens: torch.Tensor) -> torch.Tensor:
        """Logits ``(rows, vocab)`` after one more token a row, on the CPU."""
        # A row that has ended runs along until it is dropped, and must not leave the context while it does.
        positions = self.lengths.clamp(max=self.base.context - 1)
        self.lengths += 1
        self.width += 1
        return self._last_logits(tokens[:, None], positions[:, None])

    def _prefill(self, shares: bool) -> None:
        """Run each different prompt once; its cache is shared by its rows, or copied for each of them."""
        unique: dict[tuple[int, ...], int] = {}
        owner = torch.tensor([unique.setdefault(tuple(row.request.prompt), len(unique)) for row in self.rows])
        prompts = list(unique)
        self.lengths = torch.tensor([len(prompt) for prompt in prompts])
        self.width = int(self.lengths.max())
        tokens = torch.zeros(len(prompts), self.width, dtype=torch.int64)
        for i, prompt in enumerate(prompts):  # on the right, so that all next tokens stand in one column
            tokens[i, self.width - len(prompt) :] = torch.tensor(prompt)
        self.pads = self.width - self.lengths
        device = self.base.device
        shared = SharedPromptCache(self.base.config, owner, self.pads, self.width, device) if shares else None
        self.shared: SharedPromptCache | None = None  # not for the prompts themselves
        self.cache = new_cache(self.base.config) if shared is None else shared.cache
        positions = (torch.arange(self.width) - self.pads[:, None]).clamp(min=0)
        logits = self._last_logits(tokens, positions)
        self.shared = shared
        if shared is None and len(owner) > len(prompts):
            self.cache.reorder_cache(owner.to(device))  # pyright: ignore[reportArgumentType]
        self.logits = logits[owner]
        self.lengths, self.pads = self.lengths[owner], self.pads[owner]

    def _select(self, keep: torch.Tensor) -> None:
        self.rows = [self.rows[i] for i in keep.tolist()]
        if self.shared is None:
            self.cache.reorder_cache(keep.to(self.base.device))  # pyright: ignore[reportArgumentType]
        else:
            self.shared.select(keep)
        self.settings = self.settings.select(keep)
        self.random, self.lengths, self.pads = self.random[keep], self.lengths[keep], self.pads[keep]

    def _last_logits(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Logits ``(rows, vocab)`` after the last column, on the CPU; the cache grows by the columns given."""
        device = self.base.device
        masked = self.shared is None and bool(self.pads.any())
        mask = (torch.arange(self.width) >= self.pads[:, None]).long().to(device) if masked else None
        with contextlib.nullcontext() if self.shared is None else self.shared.attending():
            output = self.base(
                cache=self.cache,
                input_ids=tokens.to(device),
                attention_mask=mask,
                position_ids=positions.to(device),
                logits_to_keep=1,
            )
        return output.logits[:, -1].float().cpu()


def _shares_prompts(base: BaseModel) -> bool:
    """Whether samples can read their prompt's cache in common: tried once a model, on two small prompts."""
    if base.shares_prompts is None:
        base.shares_prompts = base.packs and base.window is None and _shares_exactly(base)
    return base.shares_prompts


def _shares_exactly(base: BaseModel) -> bool:
    prompts = [[1 % base.vocab_size] * 3, [2 % base.vocab_size] * 5]
    found: list[torch.Tensor] = []
    try:
        for shares in (False, True):
            rows = [row for prompt in prompts for row in _rows(base, GenerationRequest(prompt, num_samples=2, seed=0))]
            batch = _Batch(base, rows, shares=shares)
            found += [batch.logits_after(torch.arange(token, token + 4) % base.vocab_size) for token in range(2)]
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, NotImplementedError):
        return False
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(found[:2], found[2:], strict=True))


def prompt_logprobs(base: BaseModel, tokens: list[int]) -> list[float | None]:
    """Log-probability of each token given those before it; None for the first. One pass, no cache.

    Raises:
        DataError: the prompt is empty, too long, or has tokens outside the vocabulary.
    """
    check_tokens(tokens, base.vocab_size, base.context)
    if len(tokens) == 1:
        return [None]
    with torch.no_grad():
        layout = base.layout([tokens[:-1]])
        hidden = base.trunk(layout).flatten(0, 1)
        targets = np.asarray(tokens[1:], dtype=np.int64)
        found = TargetLogprobs(base.head(), hidden, layout.places, targets, live=None)
    return [None, *found.values.tolist()]


def prompt_topk(base: BaseModel, tokens: list[int], k: int) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The ``k`` most likely tokens at each position but the first, most likely first, and their log-probabilities.

    Returns:
        Token ids and log-probabilities, both ``(len(tokens) - 1, k)``.

    Raises:
        DataError: as :func:`prompt_logprobs`.
    """
    check_tokens(tokens, base.vocab_size, base.context)
    if len(tokens) == 1:
        return np.zeros((0, k), np.int32), np.zeros((0, k), np.float32)
    with torch.no_grad():
        layout = base.layout([tokens[:-1]])
        hidden = base.trunk(layout).flatten(0, 1)[torch.from_numpy(layout.places[0]).to(base.device)]
        found = [
            torch.log_softmax(base.head().logits(piece), dim=-1).topk(k, dim=-1)
            for piece in hidden.split(chunk_positions(base.vocab_size))
        ]
    ids = torch.cat([f.indices for f in found]).to(torch.int32).cpu()
    return ids.numpy(), torch.cat([f.values for f in found]).cpu().numpy()
