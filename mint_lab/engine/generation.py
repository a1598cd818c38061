r"""Generation with a key-value cache, many requests as one batch.

Each distinct prompt runs through the model once, whatever the number of samples and of requests that share it. Every
sample has a separate stream of random numbers from its request's seed, and finds its tokens by inverting the cumulative
distribution: the same seed gives the same tokens whatever else is in the batch.

The log-probabilities returned are those of the distribution sampled from, after temperature, top_k and top_p, because
importance ratios must be computed against these. At temperature 0 nothing is sampled, and the log-probabilities are
those at temperature 1 without truncation.
"""

from __future__ import annotations

import contextlib
import math
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch

from ..errors import ConfigError, DataError, ModelError
from .batch import check_tokens
from .device import to_device
from .kv_cache import cache_bytes_per_token, new_cache
from .memory import free_memory
from .models import BaseModel
from .shared_prompt_cache import SharedPromptCache
from .token_sampling import SamplingSettings, sample_tokens

__all__ = [
    "GenerationRequest",
    "Sample",
    "check_request",
    "generate",
    "generation_token_budget",
]

# Keys and values of the rows that are generated together take at most this, or half of the free memory if that is less;
# on a CUDA device always half of the free memory: a step of many rows takes hardly longer there than one of few.
MAX_CACHE_BYTES = 1 << 30
# Random numbers are drawn for this many tokens at a time.
RANDOM_TOKENS_AHEAD = 64
# Finished rows are dropped when they are at least this fraction of the batch: dropping copies the cache of the others.
DROP_FRACTION = 0.25
# If a sample can have at least this many tokens, LoRA is merged into copies of the weights for the whole batch.
MERGE_FROM_TOKENS = 16
# Tokens before a stop string that can affect its text: parts of a character, a space that the decoder strips.
STOP_STRING_MARGIN_TOKENS = 8


@dataclass(frozen=True)
class GenerationRequest:
    """One prompt, and how to continue it.

    Attributes:
        prompt: Token ids.
        num_samples: Number of samples.
        max_tokens: Largest number of tokens of a sample.
        temperature: 0 selects the most likely token, whatever ``top_k`` and ``top_p`` are; the log-probabilities are
            then those at temperature 1 without truncation.
        top_k: Only this many most likely tokens can be sampled; -1 for no limit.
        top_p: Only the most likely tokens that together reach this probability can be sampled; 1 for no limit.
        seed: Seed of the random numbers; None for a random one.
        stop_tokens: A sample ends with the first of these tokens.
        stop_strings: A sample ends when its text contains one of these.
        topk: How many of the most likely tokens to return with each token.

    Raises:
        ConfigError: If a setting is out of range.
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
    topk: int = 0

    def __post_init__(self) -> None:
        checks: tuple[tuple[str, type, Callable[[Any], bool], str], ...] = (
            ("num_samples", Integral, lambda v: v >= 1, "1 or more"),
            ("max_tokens", Integral, lambda v: v >= 1, "1 or more"),
            ("temperature", Real, lambda v: 0 <= v < float("inf"), "0 or more"),
            ("top_k", Integral, lambda v: v == -1 or v >= 1, "-1 (no limit) or 1 or more"),
            ("top_p", Real, lambda v: 0 < v <= 1, "above 0 and up to 1"),
            ("topk", Integral, lambda v: v >= 0, "0 or more"),
            ("stop_strings", tuple, lambda v: "" not in v, "no empty string: every text contains it"),
        )
        for name, kind, is_in_range, expected in checks:
            value = getattr(self, name)
            if not isinstance(value, kind) or not is_in_range(value):
                raise ConfigError(f"{name} is {value!r}, expected {expected}")


@dataclass
class Sample:
    """One continuation of a prompt.

    Attributes:
        tokens: Its token ids; the one that ended it is included.
        logprobs: The log-probability of each token, nats.
        stop_reason: "stop" if a stop token or stop string ended it; "length" if it reached its largest length.
        topk: For each token the most likely tokens and their log-probabilities, of the distribution sampled from; as
            many as the request asks for, or as truncation leaves.
    """

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    stop_reason: str = "length"
    topk: list[list[tuple[int, float]]] = field(default_factory=list)


def check_request(base: BaseModel, request: GenerationRequest, index: int | None = None) -> None:
    """Raise DataError unless the model can continue the prompt; ``index`` is the request that the error names."""
    check_tokens(request.prompt, base.vocab_size, base.context, index)
    if len(request.prompt) == base.context:
        raise DataError(
            f"{base.context} tokens fill the model's context, there is no room for a sample; truncate the prompt",
            index=index,
            field="model_input",
        )


def generation_token_budget(base: BaseModel) -> int:
    """Return the largest number of tokens, rows times length, that are generated together."""
    spare = free_memory(base.device) // 2
    spare = spare if base.device.type == "cuda" else min(MAX_CACHE_BYTES, spare)
    tokens = spare // cache_bytes_per_token(base.config, next(iter(base.weights.values())).element_size())
    return 1 << max(tokens, 1).bit_length() - 1  # a power of two, so that two runs divide their rows alike


def generate(base: BaseModel, requests: Sequence[GenerationRequest]) -> list[list[Sample]]:
    """Continue each request's prompt ``num_samples`` times, with the adapter that the caller has activated.

    Rows that together exceed :func:`generation_token_budget` are generated one batch after another.

    Returns:
        The samples of each request.

    Raises:
        DataError: If a prompt is empty or too long, or has tokens outside the vocabulary.
        ModelError: If the model cannot continue from a cache.
    """
    for index, request in enumerate(requests):
        check_request(base, request, index if len(requests) > 1 else None)
    groups = [_rows(base, request) for request in requests]
    longest = max((row.max_tokens for group in groups for row in group), default=0)
    merge_bytes = min(MAX_CACHE_BYTES, free_memory(base.device) // 4) if longest >= MERGE_FROM_TOKENS else 0
    with torch.no_grad(), base.merged(merge_bytes):
        _check_cache(base)
        shares_prompts = _shares_prompts(base)
        all_rows = [row for group in groups for row in group]
        for rows in _row_batches(all_rows, generation_token_budget(base)):
            batch = _Batch(base, rows, shares_prompts=shares_prompts)
            while batch.advance():
                pass
    return [[row.sample for row in group] for group in groups]


@dataclass
class _Row:
    """A sample that is being generated.

    Attributes:
        request: The request it belongs to.
        random: Its random numbers; each token uses one.
        max_tokens: The largest number of tokens it can have: the request's, or what the context leaves.
        tail: Its last tokens, as many as a stop string can span.
        sample: What has been generated.
        is_finished: Whether it has ended.
    """

    request: GenerationRequest
    random: np.random.Generator
    max_tokens: int
    tail: deque[int]
    sample: Sample = field(default_factory=Sample)
    is_finished: bool = False

    def append(self, token: int, logprob: float, tokenizer: Any) -> None:
        """Append a token, and determine whether it ends the sample."""
        self.sample.tokens.append(token)
        self.sample.logprobs.append(logprob)
        has_stop_strings = bool(self.request.stop_strings)
        if token in self.request.stop_tokens or (has_stop_strings and self._hit_stop_string(token, tokenizer)):
            self.sample.stop_reason = "stop"
            self.is_finished = True
        elif len(self.sample.tokens) == self.max_tokens:
            self.is_finished = True

    def _hit_stop_string(self, token: int, tokenizer: Any) -> bool:
        """Return True if ``token`` completes a stop string. Decoding ``self.tail`` suffices: a hit ends the sample."""
        if tokenizer.convert_ids_to_tokens(token) is None:
            return False  # a model's vocabulary may exceed its tokenizer's; such a token has no text
        self.tail.append(token)
        text = tokenizer.decode(list(self.tail))
        return any(stop in text for stop in self.request.stop_strings)


def _rows(base: BaseModel, request: GenerationRequest) -> list[_Row]:
    """Create a row for each sample of a request, each with a separate stream of random numbers."""
    seed = secrets.randbits(63) if request.seed is None else request.seed
    max_tokens = min(request.max_tokens, base.context - len(request.prompt))
    # Every token with text decodes to at least one byte, so an n-byte stop string spans at most n tokens.
    longest_stop = max((len(stop.encode("utf-8", "replace")) for stop in request.stop_strings), default=0)
    return [
        _Row(request, np.random.default_rng(child), max_tokens, deque(maxlen=longest_stop + STOP_STRING_MARGIN_TOKENS))
        for child in np.random.SeedSequence(int(seed) % 2**64).spawn(request.num_samples)
    ]


def _row_batches(rows: list[_Row], budget: int) -> Iterator[list[_Row]]:
    """Yield consecutive rows, at least one, as many as rows times longest possible length is within ``budget``."""
    batch: list[_Row] = []
    prompt = new = 0  # the longest prompt, and the most new tokens, of the batch
    for row in rows:
        prompt, new = max(prompt, len(row.request.prompt)), max(new, row.max_tokens)
        if batch and (len(batch) + 1) * (prompt + new) > budget:
            yield batch
            batch, prompt, new = [], len(row.request.prompt), row.max_tokens
        batch.append(row)
    if batch:
        yield batch


class _Batch:
    """Rows that are generated together, their cache, and the logits of their next tokens.

    The plain equivalent, without a cache and for each sample by itself, is::

        while not row.is_finished:
            logits = model(prompt + row.sample.tokens).logits[-1:]
            row.append(*sample_tokens(logits, settings, row.random.random(1)))

    Attributes:
        base: The model.
        rows: The rows that are left, finished ones included until they are dropped.
        settings: Temperature and truncation of each row.
        sampling_device: Where tokens are sampled: the model's device if it is a CUDA device, otherwise the CPU, because
            MPS has no float64.
        logits: Logits of each row's next token, ``(rows, vocab)``, on ``sampling_device``.
        lengths: The number of tokens of each row so far, ``(rows,)``, which is the position of its next token.
        pads: The number of padding columns before each row's prompt, ``(rows,)``.
        width: The number of columns in the cache.
        cache: The cache to pass to the model.
        shared: The cache in which rows share prompts; None if each row has a copy, and while the prompts run.
    """

    def __init__(self, base: BaseModel, rows: list[_Row], *, shares_prompts: bool) -> None:
        self.base = base
        self.rows = rows
        self.settings = SamplingSettings(
            torch.tensor([row.request.temperature for row in rows], dtype=torch.float32),
            torch.tensor([row.request.top_k for row in rows], dtype=torch.int64),
            torch.tensor([row.request.top_p for row in rows], dtype=torch.float64),
        )
        self.step = 0
        self.sampling_device = base.device if base.device.type == "cuda" else torch.device("cpu")
        self._run_prompts(shares_prompts)

    def advance(self) -> bool:
        """Sample a token for each row, and run the model on them; return False if all rows have finished."""
        # 1. Sample. Finished rows take part until they are dropped, and their tokens are ignored.
        column = self.step % RANDOM_TOKENS_AHEAD
        if column == 0:
            numbers = [row.random.random(RANDOM_TOKENS_AHEAD) for row in self.rows]
            self.random = to_device(np.stack(numbers), self.sampling_device)  # (rows, RANDOM_TOKENS_AHEAD)
        tokens, logprobs = sample_tokens(self.logits, self.settings, self.random[:, column])  # (rows,) each
        self.step += 1
        self._note_topk(tokens, logprobs)
        # One read for both, because the host waits for the device in each; float64 is exact for both.
        for row, (token, logprob) in zip(
            self.rows, torch.stack([tokens.double(), logprobs.double()], dim=1).tolist(), strict=True
        ):
            if not row.is_finished:
                row.append(int(token), logprob, self.base.tokenizer)
        # 2. Drop finished rows, if they are many.
        unfinished = [i for i, row in enumerate(self.rows) if not row.is_finished]
        if not unfinished:
            return False
        if len(unfinished) <= (1 - DROP_FRACTION) * len(self.rows):
            keep = torch.tensor(unfinished)
            self._select(keep)
            tokens = tokens[to_device(keep, tokens.device)]
        # 3. Run the model.
        self.logits = self.logits_after(tokens)
        return True

    def _note_topk(self, tokens: torch.Tensor, logprobs: torch.Tensor) -> None:
        """Append the most likely tokens to the rows that ask for them.

        Args:
            tokens: What was sampled, ``(rows,)``; ``self.logits`` are those that :func:`sample_tokens` has overwritten.
            logprobs: Log-probabilities of ``tokens``, ``(rows,)``.
        """
        wanted = [i for i, row in enumerate(self.rows) if row.request.topk and not row.is_finished]
        if not wanted:
            return
        most = min(max(self.rows[i].request.topk for i in wanted), self.base.vocab_size)
        logits = self.logits[wanted]  # (wanted, vocab)
        normalizer = logits.gather(-1, tokens[wanted, None]) - logprobs[wanted, None]  # (wanted, 1)
        top = logits.topk(most, dim=-1)
        values = (top.values - normalizer).tolist()
        for i, row_ids, row_values in zip(wanted, top.indices.tolist(), values, strict=True):
            row = self.rows[i]
            pairs = zip(row_ids[: row.request.topk], row_values, strict=False)
            row.sample.topk.append([(token, value) for token, value in pairs if value > -math.inf])

    def logits_after(self, tokens: torch.Tensor) -> torch.Tensor:
        """Run the model on one more token of each row, ``(rows,)``, and return the next logits, ``(rows, vocab)``."""
        # A finished row keeps growing until it is dropped, and must not exceed the context.
        positions = self.lengths.clamp(max=self.base.context - 1)
        self.lengths += 1
        self.width += 1
        return self._last_logits(tokens[:, None], positions[:, None])

    def _run_prompts(self, shares_prompts: bool) -> None:
        """Run each distinct prompt once. Its rows share its cache, or get a copy each."""
        # 1. Distinct prompts, padded on the left, so that the next token of every row is in the same column.
        numbers: dict[tuple[int, ...], int] = {}
        owner = torch.tensor([numbers.setdefault(tuple(row.request.prompt), len(numbers)) for row in self.rows])
        prompts = list(numbers)
        self.lengths = torch.tensor([len(prompt) for prompt in prompts])
        self.width = int(self.lengths.max())
        tokens = torch.zeros(len(prompts), self.width, dtype=torch.int64)
        for i, prompt in enumerate(prompts):
            tokens[i, self.width - len(prompt) :] = torch.tensor(prompt)
        self.pads = self.width - self.lengths
        positions = (torch.arange(self.width) - self.pads[:, None]).clamp(min=0)  # (prompts, width)
        # 2. One forward pass with ordinary attention; `shared` is for the tokens after it.
        device = self.base.device
        shared = SharedPromptCache(self.base.config, owner, self.pads, self.width, device) if shares_prompts else None
        self.shared: SharedPromptCache | None = None
        self.cache = new_cache(self.base.config) if shared is None else shared.cache
        logits = self._last_logits(tokens, positions)  # (prompts, vocab)
        self.shared = shared
        # 3. From prompts to rows.
        if shared is None and len(owner) > len(prompts):
            self.cache.reorder_cache(to_device(owner, device))  # pyright: ignore[reportArgumentType]
        self.logits = logits[to_device(owner, logits.device)]  # (rows, vocab)
        self.lengths, self.pads = self.lengths[owner], self.pads[owner]

    def _select(self, keep: torch.Tensor) -> None:
        """Keep the rows at these indices."""
        self.rows = [self.rows[i] for i in keep.tolist()]
        if self.shared is None:
            self.cache.reorder_cache(to_device(keep, self.base.device))  # pyright: ignore[reportArgumentType]
        else:
            self.shared.select(keep)
        self.settings = self.settings.select(keep)
        self.random = self.random[to_device(keep, self.sampling_device)]
        self.lengths, self.pads = self.lengths[keep], self.pads[keep]

    def _last_logits(self, tokens: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        """Run the model on new columns, and append them to the cache.

        Args:
            tokens: ``(rows, columns)``.
            positions: Position of each token in its sequence, ``(rows, columns)``.

        Returns:
            The logits after the last column, ``(rows, vocab)``, float32 on ``sampling_device``.
        """
        device = self.base.device
        needs_mask = self.shared is None and bool(self.pads.any())  # the shared cache masks padding itself
        mask = to_device((torch.arange(self.width) >= self.pads[:, None]).long(), device) if needs_mask else None
        with contextlib.nullcontext() if self.shared is None else self.shared.use():
            output = self.base(
                cache=self.cache,
                input_ids=to_device(tokens, device),
                attention_mask=mask,
                position_ids=to_device(positions, device),
                logits_to_keep=1,
            )
        return output.logits[:, -1].float().to(self.sampling_device)


def _check_cache(base: BaseModel) -> None:
    """Compare the logits after a cached prompt with those of a pass without a cache; each model is tested once.

    Raises:
        ModelError: If they differ, as those of families that keep a state of their own.
    """
    if base.continues is None:
        with base.in_float32():
            base.continues = _continues_exactly(base)
    if not base.continues:
        raise ModelError(
            f"base model {base.name!r} cannot be sampled from: its layers keep a state (recurrent or linear attention) "
            "that is not continued here, or have no cache; training with data that are given works"
        )


def _continues_exactly(base: BaseModel) -> bool:
    """Compare the logits of two tokens after two small prompts, one of them padded, with and without a cache."""
    prompts = [[token % base.vocab_size for token in prompt] for prompt in ([1, 1, 2], [2, 3, 1, 2, 3])]
    following = [token % base.vocab_size for token in (3, 1)]
    try:
        batch = _Batch(base, [_rows(base, GenerationRequest(p, seed=0))[0] for p in prompts], shares_prompts=False)
        cached = torch.stack([batch.logits_after(torch.tensor([token] * 2)) for token in following], dim=1).cpu()
        tokens = [torch.tensor([[*prompt, *following]], device=base.device) for prompt in prompts]
        plain = torch.stack([base(input_ids=each, use_cache=False).logits[0, -2:].float().cpu() for each in tokens])
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, NotImplementedError):
        return False
    return bool((cached - plain).abs().max() <= 1e-3 * plain.abs().max())


def _shares_prompts(base: BaseModel) -> bool:
    """Return whether samples can share their prompt's cache; each model is tested once."""
    if base.shares_prompts is None:
        with base.in_float32():
            base.shares_prompts = base.packs and base.window is None and _shares_exactly(base)
    return base.shares_prompts


def _shares_exactly(base: BaseModel) -> bool:
    """Compare the logits of two tokens after two small prompts with shared and with copied caches."""
    prompts = [[1 % base.vocab_size] * 3, [2 % base.vocab_size] * 5]
    logits: list[torch.Tensor] = []
    try:
        for shares_prompts in (False, True):
            rows = [row for prompt in prompts for row in _rows(base, GenerationRequest(prompt, num_samples=2, seed=0))]
            batch = _Batch(base, rows, shares_prompts=shares_prompts)
            logits += [batch.logits_after(torch.arange(token, token + 4) % base.vocab_size) for token in range(2)]
    except (RuntimeError, ValueError, TypeError, KeyError, AttributeError, NotImplementedError):
        return False
    return all(torch.allclose(a, b, rtol=1e-3, atol=1e-4) for a, b in zip(logits[:2], logits[2:], strict=True))
