"""What a model says of the tokens of a prompt: their log-probabilities, and those of other tokens in their places.

All of it takes one forward pass without a cache, with the adapter that the caller has activated. Entry ``i`` of a
result is about the distribution of token ``i + 1``: nothing comes before the first token.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from .batch import check_tokens
from .device import to_device
from .logprobs import TargetLogprobs, chunk_positions
from .models import BaseModel
from .token_sampling import SamplingSettings, sample_tokens

__all__ = ["PromptQuestions", "PromptScores", "prompt_logprobs", "score_prompt"]


@dataclass(frozen=True)
class PromptQuestions:
    """What to compute at each position of a prompt of N tokens.

    Attributes:
        topk: How many of the most likely tokens.
        targets: Token ids whose log-probabilities are wanted, ``(N - 1, K)``; -1 for none. None for no such question.
        draws: How many tokens to draw from the distribution, with replacement.
        temperature: Of the draws; 0 draws the most likely token. Log-probabilities are always at temperature 1.
        random: Of the draws.
        last: Positions before the last ``last`` tokens have no most likely tokens; None for all positions.
    """

    topk: int = 0
    targets: NDArray[np.int64] | None = None
    draws: int = 0
    temperature: float = 1.0
    random: np.random.Generator | None = None
    last: int | None = None


@dataclass(frozen=True)
class PromptScores:
    """The answers, of N - 1 positions; empty arrays for what was not asked. Log-probabilities are in nats.

    Attributes:
        topk_ids, topk_logprobs: ``(min(N - 1, last), topk)``, the most likely first.
        target_logprobs: ``(N - 1, K)``; 0 where there is no target.
        drawn_ids, drawn_logprobs: ``(N - 1, draws)``.
    """

    topk_ids: NDArray[np.int32]
    topk_logprobs: NDArray[np.float32]
    target_logprobs: NDArray[np.float32]
    drawn_ids: NDArray[np.int64]
    drawn_logprobs: NDArray[np.float32]


def prompt_logprobs(
    base: BaseModel, prompts: Sequence[list[int]], last: Sequence[int | None] | None = None
) -> list[list[float | None]]:
    """Compute the log-probability of each token given those before it in its prompt.

    Args:
        base: The model.
        prompts: Token ids of each prompt.
        last: For each prompt, how many of its last tokens get one; None for all. The LM head runs for these only.

    Returns:
        For each prompt its log-probabilities in nats; None for its first token, and for those that get none.

    Raises:
        DataError: If a prompt is empty or too long, or has tokens outside the vocabulary.
    """
    for tokens in prompts:
        check_tokens(tokens, base.vocab_size, base.context)
    limits = [None] * len(prompts) if last is None else last
    counts = [
        len(tokens) - 1 if limit is None else min(limit, len(tokens) - 1)
        for tokens, limit in zip(prompts, limits, strict=True)
    ]
    predicted = [(tokens, count) for tokens, count in zip(prompts, counts, strict=True) if count]
    if not predicted:
        return [_without_logprobs(tokens) for tokens in prompts]
    with torch.no_grad():
        layout = base.layout([tokens[:-1] for tokens, _ in predicted])
        hidden = base.backbone(layout).flatten(0, 1)
        index = [place[len(place) - count :] for place, (_, count) in zip(layout.token_index, predicted, strict=True)]
        targets = np.concatenate([np.asarray(tokens[-count:], dtype=np.int64) for tokens, count in predicted])
        logprobs = TargetLogprobs(base.head(), hidden, index, targets, loss_mask=None)
    values = iter(logprobs.values.tolist())
    return [
        _without_logprobs(tokens[count:]) + list(itertools.islice(values, count))
        for tokens, count in zip(prompts, counts, strict=True)
    ]


def _without_logprobs(tokens: list[int]) -> list[float | None]:
    return [None] * len(tokens)


def score_prompt(base: BaseModel, tokens: list[int], questions: PromptQuestions) -> PromptScores:
    """Answer questions about each position of a prompt but the first.

    Raises:
        DataError: If ``tokens`` is empty or too long, or has tokens outside the vocabulary.
    """
    check_tokens(tokens, base.vocab_size, base.context)
    positions = len(tokens) - 1
    width = 0 if questions.targets is None else questions.targets.shape[1]
    first_top = max(0, positions - questions.last) if questions.last is not None else 0
    scores = PromptScores(
        np.zeros((positions - first_top, questions.topk), np.int32),
        np.zeros((positions - first_top, questions.topk), np.float32),
        np.zeros((positions, width), np.float32),
        np.zeros((positions, questions.draws), np.int64),
        np.zeros((positions, questions.draws), np.float32),
    )
    if not positions:
        return scores
    with torch.no_grad():
        layout = base.layout([tokens[:-1]])
        hidden = base.backbone(layout).flatten(0, 1)[to_device(layout.token_index[0], base.device)]
        size = chunk_positions(base.vocab_size, torch.device("cpu"))  # the answers are computed there
        for start in range(0, positions, size):
            logprobs = torch.log_softmax(base.head().logits(hidden[start : start + size]), dim=-1).cpu()
            _answer(scores, questions, logprobs, start, first_top)
    return scores


def _answer(
    scores: PromptScores, questions: PromptQuestions, logprobs: torch.Tensor, start: int, first_top: int
) -> None:
    """Fill the scores of one chunk of positions.

    Args:
        scores: Filled from ``start`` on.
        questions: The questions.
        logprobs: ``(n, vocab)``.
        start: The chunk's first position.
        first_top: The first position that has most likely tokens.
    """
    chunk = slice(start, start + len(logprobs))
    if questions.topk and chunk.stop > first_top:
        top = logprobs[max(0, first_top - start) :].topk(questions.topk, dim=-1)
        rows = slice(max(0, start - first_top), chunk.stop - first_top)
        scores.topk_ids[rows], scores.topk_logprobs[rows] = top.indices.numpy(), top.values.numpy()
    if questions.targets is not None:
        targets = torch.from_numpy(questions.targets[chunk])  # (n, K)
        values = logprobs.gather(-1, targets.clamp(min=0)).masked_fill(targets < 0, 0.0)
        scores.target_logprobs[chunk] = values.numpy()
    if questions.draws:
        scores.drawn_ids[chunk] = (drawn := _draw(questions, logprobs)).numpy()
        scores.drawn_logprobs[chunk] = logprobs.gather(-1, drawn).numpy()


def _draw(questions: PromptQuestions, logprobs: torch.Tensor) -> torch.Tensor:
    """Draw tokens from each position's distribution, ``(n, draws)`` int64."""
    assert questions.random is not None
    random = torch.from_numpy(questions.random.random((len(logprobs), questions.draws)))  # (n, draws)
    settings = SamplingSettings(
        torch.full((len(logprobs),), questions.temperature),
        torch.full((len(logprobs),), -1),
        torch.ones(len(logprobs), dtype=torch.float64),
    )
    return torch.stack([sample_tokens(logprobs.clone(), settings, column)[0] for column in random.T], dim=1)
