"""Log-probabilities at the positions of a prompt, against a softmax over transformers' own logits."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mint_lab.engine import prompt_scores
from mint_lab.engine.models import Adapter
from mint_lab.engine.prompt_scores import PromptQuestions, prompt_logprobs, score_prompt
from mint_lab.errors import DataError

TOKENS = [5, 6, 7, 200, 1, 9]


def reference(adapter: Adapter, tokens: list[int]) -> torch.Tensor:
    """Log-probabilities of every token after each token but the last, ``(N - 1, vocab)``."""
    with torch.no_grad(), adapter.base.using(adapter):
        return torch.log_softmax(adapter.base(input_ids=torch.tensor([tokens])).logits[0, :-1].float(), -1)


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_all_questions_at_once(chunk: int, adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_scores, "chunk_positions", lambda *_: chunk)
    targets = np.array([[6, -1], [3, 7], [200, 200], [-1, -1], [0, 269]])
    questions = PromptQuestions(topk=3, targets=targets, draws=2, random=np.random.default_rng(1), last=2)
    with adapter.base.using(adapter):
        found = score_prompt(adapter.base, TOKENS, questions)
    expected = reference(adapter, TOKENS)
    top = expected[-2:].topk(3)
    assert found.topk_ids.tolist() == top.indices.tolist()
    np.testing.assert_allclose(found.topk_logprobs, top.values, atol=1e-4)
    wanted = expected.gather(-1, torch.from_numpy(targets).clamp(min=0)).masked_fill(torch.from_numpy(targets) < 0, 0)
    np.testing.assert_allclose(found.target_logprobs, wanted, atol=1e-4)
    assert found.drawn_ids.shape == (5, 2)
    drawn = expected.gather(-1, torch.from_numpy(found.drawn_ids))
    np.testing.assert_allclose(found.drawn_logprobs, drawn, atol=1e-4)
    # One random number a draw, position by position: the first token whose cumulative probability exceeds it.
    random = np.random.default_rng(1).random((5, 2))
    cumulative = expected.double().exp().cumsum(-1).numpy()
    by_hand = [
        [int(np.searchsorted(row, r, side="right")) for r in rs] for row, rs in zip(cumulative, random, strict=True)
    ]
    assert found.drawn_ids.tolist() == by_hand


def test_draws_have_the_temperature_and_log_probabilities_have_none(adapter: Adapter) -> None:
    expected = reference(adapter, TOKENS)
    with adapter.base.using(adapter):
        cold = score_prompt(
            adapter.base, TOKENS, PromptQuestions(draws=3, temperature=0.0, random=np.random.default_rng(0))
        )
        many = score_prompt(
            adapter.base, TOKENS[:2], PromptQuestions(draws=4000, temperature=2.0, random=np.random.default_rng(0))
        )
    assert cold.drawn_ids.tolist() == [[int(row.argmax())] * 3 for row in expected]
    np.testing.assert_allclose(cold.drawn_logprobs[:, 0], expected.amax(-1), atol=1e-4)
    warm = torch.softmax(reference(adapter, TOKENS[:2])[0] / 2, -1)
    shares = np.bincount(many.drawn_ids[0], minlength=270) / 4000
    likeliest = int(warm.argmax())
    assert shares[likeliest] == pytest.approx(float(warm[likeliest]), abs=5 * (float(warm[likeliest]) / 4000) ** 0.5)


def test_the_last_tokens_only(adapter: Adapter) -> None:
    expected = reference(adapter, TOKENS)[range(5), TOKENS[1:]].tolist()
    with adapter.base.using(adapter):
        found = prompt_logprobs(adapter.base, [TOKENS, TOKENS, TOKENS, [4], TOKENS], [None, 2, 99, 3, 5])
    for row, count in zip(found, (5, 2, 5, 0, 5), strict=True):
        assert row[: len(row) - count] == [None] * (len(row) - count)
        assert row[len(row) - count :] == pytest.approx(expected[5 - count :], abs=1e-4)
    assert found[3] == [None]


def test_a_single_token_has_no_position(adapter: Adapter) -> None:
    found = score_prompt(adapter.base, [4], PromptQuestions(topk=2, draws=3, targets=np.zeros((0, 4), np.int64)))
    assert (found.topk_ids.shape, found.drawn_ids.shape, found.target_logprobs.shape) == ((0, 2), (0, 3), (0, 4))


@pytest.mark.parametrize("tokens", [[], [270], [1] * 129])
def test_bad_prompts_raise(tokens: list[int], adapter: Adapter) -> None:
    with pytest.raises(DataError):
        score_prompt(adapter.base, tokens, PromptQuestions(topk=1))
    with pytest.raises(DataError):
        prompt_logprobs(adapter.base, [tokens])
