"""What the bundled model answers, and how the answers are graded."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from mint_lab.data.problems import KINDS, addition_problems, has_carry, slips
from mint_lab.tiny.evaluate import greedy_answers, held_out_report, sampled_answers


class ConstantModel:
    """Predicts the tokens of one answer, then end-of-text, after a prompt of any length.

    It sees how far it is by the tokens after the prompt's last colon.
    """

    def __init__(self, tokenizer: Any, answer: str) -> None:
        self.colon = tokenizer.encode("Answer:")[-1]
        self.vocabulary = len(tokenizer)
        self.answer = [*tokenizer.encode(answer), tokenizer.eos_token_id]

    def __call__(self, rows: torch.Tensor, **_: Any) -> Any:
        logits = torch.zeros(len(rows), 1, self.vocabulary)
        for logit, row in zip(logits, rows.tolist(), strict=True):
            written = len(row) - 1 - max(i for i, token in enumerate(row) if token == self.colon)
            logit[0, self.answer[min(written, len(self.answer) - 1)]] = 100.0
        return SimpleNamespace(logits=logits)


def test_answers_of_a_constant_model(tokenizer: Any) -> None:
    """Prompts of different lengths, each answered up to end-of-text or to the limit."""
    prompts = [problem.prompt for problem in addition_problems(3)] + ["Question: 1 + 1?\nAnswer:"]
    assert greedy_answers(ConstantModel(tokenizer, " 123"), tokenizer, prompts) == [" 123"] * 4
    assert sampled_answers(ConstantModel(tokenizer, " 123"), tokenizer, prompts, seed=0) == [" 123"] * 4
    assert greedy_answers(ConstantModel(tokenizer, " 123"), tokenizer, prompts, max_tokens=2) == [" 1"] * 4


def test_report_of_a_constant_model(tokenizer: Any) -> None:
    """Every key is a share; the answer " 0" is right for no addition and drops no carry (the smallest sum is 20)."""
    report = held_out_report(ConstantModel(tokenizer, " 0"), tokenizer, n=20)
    assert list(report)[:5] == [
        "addition",
        *(f"addition, {name}" for name in ("no carry", "carry", "dropped carry", "sampled")),
    ]
    assert list(report)[5:] == list(KINDS[1:])
    assert [report[name] for name in list(report)[:5]] == [0] * 5
    assert all(0 <= share <= 1 for share in report.values())


def test_bundled_model_is_right_half_of_the_time(model: Any, tokenizer: Any) -> None:
    """About half of the held-out additions are right, and the wrong ones drop the carry."""
    drawn = addition_problems(200, 0, "held_out")
    answers = greedy_answers(model, tokenizer, [p.prompt for p in drawn])
    right = [answer == p.answer for answer, p in zip(answers, drawn, strict=True)]
    assert 0.35 <= sum(right) / 200 <= 0.65
    carry = [has_carry(*map(int, p.operands)) for p in drawn]
    dropped = [c and answer in slips(p) for answer, p, c in zip(answers, drawn, carry, strict=True)]
    assert sum(right) + sum(dropped) >= 0.95 * 200


def test_sampled_accuracy_can_rise_and_fall(model: Any, tokenizer: Any) -> None:
    drawn = addition_problems(200, 1, "held_out")
    prompts = [p.prompt for p in drawn]
    first = sampled_answers(model, tokenizer, prompts, seed=0)
    assert first == sampled_answers(model, tokenizer, prompts, seed=0)
    right = [answer == p.answer for answer, p in zip(first, drawn, strict=True)]
    assert 0.35 <= sum(right) / 200 <= 0.65
