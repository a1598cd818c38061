r"""Generation with a key-value cache, many requests as one batch.

Each prompt is run once, whatever the number of samples drawn from it. Every sequence has random numbers of its own,
drawn from its request's seed, and picks its token by inverting the cumulative distribution: the same seed gives the
same tokens whatever else is in the batch. The log-probabilities returned are those of the distribution sampled from
(after temperature, top_k and top_p), which is what an importance ratio has to be taken against.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from ..errors import ConfigError, DataError
from .batch import check_tokens
from .logprobs import TargetLogprobs
from .models import BaseModel

__all__ = ["Request", "Sample", "generate", "prompt_logprobs"]


@dataclass(frozen=True)
class Request:
    """One prompt and how to continue it.

    Attributes:
        stop_tokens: a sample ends with the first of these; ``stop_strings``: or when its text contains one.
        temperature: 0 takes the most likely token; the log-probabilities are then those at temperature 1.
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


def generate(base: BaseModel, requests: Sequence[Request]) -> list[list[Sample]]:
    """Continue every request's prompt ``num_samples`` times; the caller has made the wanted adapter active.

    Raises:
        DataError: a prompt is empty, too long, or has tokens outside the vocabulary.
    """
    for index, request in enumerate(requests):
        where = index if len(requests) > 1 else None
        check_tokens(request.prompt, base.vocab_size, base.context, where)
        if len(request.prompt) == base.context:
            raise DataError(
                f"{base.context} tokens fill the model's context, there is no room for a sample; truncate the prompt",
                index=where,
                field="model_input",
            )
    with torch.no_grad():
        state = _prefill(base, requests)
        while state.rows:
            state.advance()
    return [state.samples[i] for i in range(len(requests))]


@dataclass
class _Row:
    """A sequence that is being generated."""

    request: Request
    sample: Sample
    random: np.random.Generator
    room: int


class _State:
    """The rows still going, their cache, and the logits of their next token."""

    def __init__(
        self, base: BaseModel, rows: list[_Row], cache: DynamicCache, mask: torch.Tensor, logits: torch.Tensor
    ) -> None:
        self.base = base
        self.rows = rows
        self.samples: dict[int, list[Sample]] = {}
        self.cache = cache
        self.mask = mask  # (rows, length), 1 where a token is
        self.logits = logits  # (rows, vocab)

    def advance(self) -> None:
        """Pick a token for each row, retire those that ended, run the model on the rest."""
        tokens, logprobs = _pick(self.logits, self.rows)
        going = []
        for i, row in enumerate(self.rows):
            row.sample.tokens.append(tokens[i])
            row.sample.logprobs.append(logprobs[i])
            if _stops(self.base, row):
                row.sample.stop_reason = "stop"
            elif len(row.sample.tokens) < row.room:
                going.append(i)
        if len(going) < len(self.rows):
            keep = torch.tensor(going, dtype=torch.int64, device=self.mask.device)
            self.rows = [self.rows[i] for i in going]
            if going:
                self.cache.reorder_cache(keep)  # pyright: ignore[reportArgumentType]
            self.mask = self.mask[keep]
        if not going:
            return
        last = torch.tensor([[row.sample.tokens[-1]] for row in self.rows], device=self.mask.device)
        self.mask = torch.cat([self.mask, torch.ones_like(self.mask[:, :1])], dim=1)
        self.logits = _last_logits(self.base, last, self.mask, self.cache)


def _prefill(base: BaseModel, requests: Sequence[Request]) -> _State:
    width = max(len(r.prompt) for r in requests)
    tokens = torch.zeros(len(requests), width, dtype=torch.int64)
    mask = torch.zeros(len(requests), width, dtype=torch.int64)
    for i, request in enumerate(requests):  # on the right, so that all next tokens stand in one column
        tokens[i, width - len(request.prompt) :] = torch.tensor(request.prompt)
        mask[i, width - len(request.prompt) :] = 1
    mask = mask.to(base.device)
    cache = DynamicCache(config=base.config)
    logits = _last_logits(base, tokens.to(base.device), mask, cache)
    owner = [i for i, request in enumerate(requests) for _ in range(request.num_samples)]
    rows = [
        _Row(request, Sample(), random, min(request.max_tokens, base.context - len(request.prompt)))
        for request in requests
        for random in _generators(request)
    ]
    keep = torch.tensor(owner, device=base.device)
    if len(owner) > len(requests):
        cache.reorder_cache(keep)  # pyright: ignore[reportArgumentType]
    state = _State(base, rows, cache, mask[keep], logits[keep])
    for i, row in zip(owner, rows, strict=True):
        state.samples.setdefault(i, []).append(row.sample)
    return state


def _generators(request: Request) -> list[np.random.Generator]:
    """A stream of random numbers for every sample of a request, of which each token takes one."""
    seed = secrets.randbits(63) if request.seed is None else request.seed
    children = np.random.SeedSequence(abs(int(seed))).spawn(request.num_samples)
    return [np.random.default_rng(child) for child in children]


def _last_logits(base: BaseModel, tokens: torch.Tensor, mask: torch.Tensor, cache: Any) -> torch.Tensor:
    """Logits ``(rows, vocab)`` after the last column; the cache grows by the columns given."""
    positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
    output = base(
        input_ids=tokens,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    return output.logits[:, -1].float()


def _pick(logits: torch.Tensor, rows: Sequence[_Row]) -> tuple[list[int], list[float]]:
    """Next token of each row and its log-probability."""
    logits = logits.cpu()
    heat = torch.tensor([row.request.temperature or 1.0 for row in rows])
    logprobs = torch.log_softmax(logits / heat[:, None], dim=-1)
    logprobs = _truncated(logprobs, rows)
    distribution = logprobs.double().exp().cumsum(-1)
    draw = torch.tensor([row.random.random() for row in rows], dtype=torch.float64)
    picked = torch.searchsorted(distribution, (draw * distribution[:, -1])[:, None], right=True).squeeze(-1)
    picked = picked.clamp(max=logits.shape[-1] - 1)
    greedy = torch.tensor([row.request.temperature == 0 for row in rows])
    picked = torch.where(greedy, logprobs.argmax(-1), picked)
    return picked.tolist(), logprobs.gather(-1, picked[:, None]).squeeze(-1).tolist()


def _truncated(logprobs: torch.Tensor, rows: Sequence[_Row]) -> torch.Tensor:
    """Renormalised log-probabilities after top_k and top_p, where a row asks for them."""
    for i, row in enumerate(rows):
        if row.request.top_k == -1 and row.request.top_p >= 1:
            continue
        order = logprobs[i].argsort(descending=True, stable=True)
        keep = torch.ones_like(order, dtype=torch.bool)
        if row.request.top_k != -1:
            keep[row.request.top_k :] = False
        before = logprobs[i][order].exp().cumsum(-1) - logprobs[i][order].exp()
        keep &= before < row.request.top_p  # the token that crosses the bound stays in
        kept = torch.full_like(logprobs[i], float("-inf"))
        kept[order[keep]] = logprobs[i][order[keep]]
        logprobs[i] = torch.log_softmax(kept, dim=-1)
    return logprobs


def _stops(base: BaseModel, row: _Row) -> bool:
    if row.sample.tokens[-1] in row.request.stop_tokens:
        return True
    if not row.request.stop_strings:
        return False
    text = base.tokenizer.decode(row.sample.tokens)
    return any(stop in text for stop in row.request.stop_strings)


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
        found = TargetLogprobs(base.head, hidden, layout.places, targets, base.vocab_size, keep_graph=False)
    return [None, *found.values.tolist()]
