"""Target log-probabilities and their way back, against log_softmax of the whole matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.engine import logprobs as module
from mint_lab.engine.logprobs import TargetLogprobs

HIDDEN, VOCAB = 4, 7


def case(
    seed: int, lengths: list[int]
) -> tuple[torch.Tensor, torch.Tensor, list[np.ndarray], np.ndarray, torch.Tensor]:
    """Hidden states, head weights, places (with repeats, as under shared prefixes), targets, and a gradient."""
    random = np.random.default_rng(seed)
    torch.manual_seed(seed)
    hidden, head = torch.randn(6, HIDDEN), torch.randn(VOCAB, HIDDEN)
    places = [random.integers(0, 6, n) for n in lengths]
    targets = random.integers(0, VOCAB, sum(lengths))
    gradient = torch.from_numpy(random.choice([0.0, 0.0, 1.0, -2.0], sum(lengths)).astype(np.float32))
    return hidden, head, places, targets, gradient


@given(st.integers(0, 999), st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(1, 20), st.booleans())
def test_values_and_gradients_are_log_softmaxs(seed: int, lengths: list[int], chunk: int, keep: bool) -> None:
    hidden, head, places, targets, gradient = case(seed, lengths)
    plain_hidden, plain_head = hidden.clone().requires_grad_(), head.clone().requires_grad_()
    logits = plain_hidden[torch.from_numpy(np.concatenate(places))] @ plain_head.T
    expected = torch.log_softmax(logits, -1)[torch.arange(len(targets)), torch.from_numpy(targets)]
    expected.backward(gradient)
    parameter = head.clone().requires_grad_()
    old = module.CHUNK_LOGITS
    module.CHUNK_LOGITS = chunk * VOCAB
    try:
        found = TargetLogprobs(lambda h: h @ parameter.T, hidden, places, targets, VOCAB, keep_graph=keep)
        assert not found.values.requires_grad
        torch.testing.assert_close(found.values, expected.detach(), rtol=1e-5, atol=1e-6)
        into, (into_head,) = found.backward(gradient, [parameter])
    finally:
        module.CHUNK_LOGITS = old
    assert plain_hidden.grad is not None
    assert plain_head.grad is not None
    torch.testing.assert_close(into, plain_hidden.grad, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(
        torch.zeros_like(head) if into_head is None else into_head, plain_head.grad, rtol=1e-4, atol=1e-5
    )
    assert parameter.grad is None
    assert hidden.grad is None


@pytest.mark.parametrize("keep", [True, False])
def test_by_hand(keep: bool) -> None:
    """Logits (0, ln 3): probabilities 1/4 and 3/4. d log p_1 / dz = (-1/4, 1/4), and z = h W with W = [[0], [ln 3]]."""
    weights = torch.tensor([[0.0], [np.log(3.0)]], dtype=torch.float32)
    found = TargetLogprobs(
        lambda h: h @ weights.T, torch.ones(1, 1), [np.array([0])], np.array([1]), 2, keep_graph=keep
    )
    assert found.values.tolist() == pytest.approx([np.log(0.75)])
    into, rest = found.backward(torch.tensor([2.0]), [])
    assert into.tolist() == [pytest.approx([2 * 0.25 * np.log(3)])]
    assert rest == []


def test_the_same_place_and_target_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five samples of one prompt: the prompt's positions cost one."""
    seen: list[int] = []

    def head(hidden: torch.Tensor) -> torch.Tensor:
        seen.append(len(hidden))
        return hidden @ torch.ones(HIDDEN, VOCAB)

    places, targets = [np.array([0, 1])] * 5, np.array([3, 4] * 5)
    found = TargetLogprobs(head, torch.randn(6, HIDDEN), places, targets, VOCAB, keep_graph=False)
    assert seen == [2]
    assert found.values.shape == (10,)


def test_backward_visits_only_what_has_a_gradient() -> None:
    seen: list[int] = []

    def head(hidden: torch.Tensor) -> torch.Tensor:
        seen.append(len(hidden))
        return hidden @ torch.ones(HIDDEN, VOCAB)

    found = TargetLogprobs(head, torch.randn(6, HIDDEN), [np.arange(6)], np.arange(6), VOCAB, keep_graph=False)
    found.backward(torch.tensor([0.0, 1, 0, 0, 2, 0]), [])
    assert seen == [6, 2]
    into, _ = found.backward(torch.zeros(6), [])
    assert sum(seen) == 6 + 2
    assert not into.any()


def test_large_logits_do_not_overflow() -> None:
    """exp(1e4) is inf; log p is 0 for the winner and -1e4 for the other."""
    weights = torch.tensor([[1e4], [0.0]])
    found = TargetLogprobs(
        lambda h: h @ weights.T, torch.ones(1, 1), [np.array([0, 0])], np.array([0, 1]), 2, keep_graph=True
    )
    assert found.values.tolist() == [0.0, -1e4]
    into, _ = found.backward(torch.tensor([1.0, 1.0]), [])
    assert bool(torch.isfinite(into).all())
