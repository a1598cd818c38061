"""Evaluate the bundled model: answers to held-out problems, graded by kind of error."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from mint_lab.data.problems import (
    KINDS,
    Problem,
    addition_problems,
    dropped_carry,
    has_carry,
    problems,
    reward,
)

__all__ = ["greedy_answers", "held_out_report", "sampled_answers"]


def greedy_answers(model: Any, tokenizer: Any, prompts: Sequence[str], *, max_tokens: int = 12) -> list[str]:
    """Return the greedy continuation of each prompt, up to end-of-text or ``max_tokens``."""
    return _answers(model, tokenizer, prompts, max_tokens, None)


def sampled_answers(
    model: Any, tokenizer: Any, prompts: Sequence[str], *, seed: int, max_tokens: int = 12
) -> list[str]:
    """Return one continuation of each prompt, sampled at temperature 1; the same for the same seed."""
    return _answers(model, tokenizer, prompts, max_tokens, torch.Generator().manual_seed(seed))


def held_out_report(model: Any, tokenizer: Any, *, n: int = 1000, seed: int = 0) -> dict[str, float]:
    """Return shares, 0 to 1, over ``n`` held-out problems of each kind.

    Keys:

    - ``"<kind>"``: accuracy of greedy decoding over all phrasings (``"addition"``: the plain phrasing).
    - ``"addition, no carry"`` and ``"addition, carry"``: the same for the two kinds of additions.
    - ``"addition, dropped carry"``: share of carry problems that are answered with the carry dropped.
    - ``"addition, sampled"``: accuracy at temperature 1.
    """
    drawn = addition_problems(n, seed, "held_out")
    prompts = [p.prompt for p in drawn]
    answers = greedy_answers(model, tokenizer, prompts)
    right = [reward(a, p) for a, p in zip(answers, drawn, strict=True)]
    carries = [has_carry(*map(int, p.operands)) for p in drawn]
    dropped = [_is_dropped(a, p) for a, p in zip(answers, drawn, strict=True)]
    sampled = sampled_answers(model, tokenizer, prompts, seed=seed)
    report = {
        "addition": _mean(right),
        "addition, no carry": _mean(r for r, c in zip(right, carries, strict=True) if not c),
        "addition, carry": _mean(r for r, c in zip(right, carries, strict=True) if c),
        "addition, dropped carry": _mean(d for d, c in zip(dropped, carries, strict=True) if c),
        "addition, sampled": _mean(reward(a, p) for a, p in zip(sampled, drawn, strict=True)),
    }
    for kind in KINDS[1:]:
        drawn = problems(kind, n, seed=seed, split="held_out")
        answers = greedy_answers(model, tokenizer, [p.prompt for p in drawn])
        report[kind] = _mean(reward(a, p) for a, p in zip(answers, drawn, strict=True))
    return report


def _is_dropped(answer: str, problem: Problem) -> float:
    return float(answer.strip() == str(dropped_carry(*map(int, problem.operands))))


def _mean(values: Any) -> float:
    numbers = list(values)
    return sum(numbers) / len(numbers)


@torch.inference_mode()
def _answers(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    max_tokens: int,
    generator: torch.Generator | None,
) -> list[str]:
    """Continue the prompts, sampling with ``generator`` or greedily without one."""
    ids = [tokenizer.encode(p) for p in prompts]
    # Prompts of equal length form a batch, so there is no padding and no attention mask.
    groups: dict[int, list[int]] = defaultdict(list)
    for i, tokens in enumerate(ids):
        groups[len(tokens)].append(i)
    texts = [""] * len(prompts)
    for length, members in groups.items():
        rows = torch.tensor([ids[i] for i in members])  # (prompts, tokens)
        unfinished = torch.ones(len(members), dtype=torch.bool)  # (prompts,)
        for _ in range(max_tokens):
            logits = model(rows, use_cache=False, logits_to_keep=1).logits[:, -1].float()  # (prompts, vocab)
            if generator is None:
                next_ids = logits.argmax(-1)
            else:
                next_ids = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
            next_ids = torch.where(unfinished, next_ids, tokenizer.eos_token_id)
            rows = torch.cat([rows, next_ids[:, None]], dim=1)
            unfinished &= next_ids != tokenizer.eos_token_id
            if not unfinished.any():
                break
        decoded = tokenizer.batch_decode(rows[:, length:], skip_special_tokens=True)
        for i, text in zip(members, decoded, strict=True):
            texts[i] = text
    return texts
