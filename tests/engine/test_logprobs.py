"""Target log-probabilities and their gradients, against log_softmax of the whole matrix and autograd."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from mint_lab.engine import logprobs as module
from mint_lab.engine.head import Head
from mint_lab.engine.logprobs import TargetLogprobs, chunk_positions

from .pretended_gpu import CPU, GPU, pretended_gpu
from .test_head import HIDDEN, ROWS, logits, made

TOKENS = 6


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Positions of each call of the head."""
    calls: list[int] = []
    plain = Head.logits

    def counted(self: Head, hidden: torch.Tensor, *rest: torch.Tensor | None) -> torch.Tensor:
        if len(hidden):
            calls.append(len(hidden))
        return plain(self, hidden, *rest)

    monkeypatch.setattr(Head, "logits", counted)
    return calls


@settings(max_examples=200)
@given(
    seed=st.integers(0, 999),
    lengths=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    chunk=st.integers(1, 20),
    lora=st.booleans(),
    factor=st.sampled_from([1.0, 0.25]),
    cap=st.sampled_from([0.0, 2.0]),
    mask=st.sampled_from(["all", "none", "right", "wrong", "any"]),
    dropout=st.booleans(),
)
def test_values_and_gradients_are_log_softmaxs(
    *, seed: int, lengths: list[int], chunk: int, lora: bool, factor: float, cap: float, mask: str, dropout: bool
) -> None:
    """Tokens repeat, as under shared prefixes; the loss mask may be wrong about where the gradient will be."""
    random = np.random.default_rng(seed)
    head = made(seed, bias=bool(seed % 2), lora=lora, factor=factor, cap=cap)
    hidden = torch.randn(TOKENS, HIDDEN, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    token_index = [random.integers(0, TOKENS, n) for n in lengths]
    targets = random.integers(0, ROWS, sum(lengths))
    gradient = torch.from_numpy(random.choice([0.0, 0.0, 1.0, -2.0], sum(lengths)).astype(np.float32))
    masks: dict[str, NDArray[np.bool_]] = {
        "all": np.ones(len(targets), bool),
        "none": np.zeros(len(targets), bool),
        "right": gradient.numpy() != 0,
        "wrong": gradient.numpy() == 0,
        "any": random.integers(0, 2, len(targets)).astype(bool),
    }
    dropped = torch.from_numpy(random.choice([0.0, 2.0], (TOKENS, HIDDEN)).astype(np.float32)) if dropout else None
    rows = torch.from_numpy(np.concatenate(token_index))
    table = torch.log_softmax(logits(head, hidden[rows], None if dropped is None else dropped[rows]), -1)
    expected = table[torch.arange(len(targets)), torch.from_numpy(targets)]
    parameters = [p for p in (head.lora_a, head.lora_b) if p is not None]
    wanted = torch.autograd.grad(expected, [hidden, *parameters], gradient)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "CHUNK_LOGITS", chunk * ROWS)
        found = TargetLogprobs(head, hidden, token_index, targets, loss_mask=masks[mask], dropout_mask=dropped)
        assert not found.values.requires_grad
        torch.testing.assert_close(found.values, expected.detach(), rtol=1e-5, atol=1e-5)
        for _ in range(2):  # once from the kept probabilities, once recomputed
            into, rest = found.backward(gradient, [torch.zeros(1), *parameters])
            assert rest[0] is None
            for a, b in zip([into, *rest[1:]], wanted, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-4, atol=2e-5)
        alone = TargetLogprobs(head, hidden, token_index, targets, loss_mask=None, dropout_mask=dropped)
        torch.testing.assert_close(alone.values, expected.detach(), rtol=1e-5, atol=1e-5)
    assert hidden.grad is None
    assert all(p.grad is None for p in parameters)


@pytest.mark.parametrize("mask", [[True], [False]])
def test_by_hand(mask: list[bool]) -> None:
    """Logits (0, ln 3): probabilities 1/4 and 3/4. d log p_1 / dz = (-1/4, 1/4), and z = h W with W = [[0], [ln 3]]."""
    head = Head(torch.tensor([[0.0], [np.log(3.0)]], dtype=torch.float32))
    found = TargetLogprobs(head, torch.ones(1, 1), [np.array([0])], np.array([1]), loss_mask=np.array(mask))
    assert found.values.tolist() == pytest.approx([np.log(0.75)])
    into, rest = found.backward(torch.tensor([2.0]), [])
    assert into.tolist() == [pytest.approx([2 * 0.25 * np.log(3)])]
    assert rest == []


def test_lora_by_hand() -> None:
    """Logits (0, 0), A = 0, B = (1, 0), scaling 2: d log p_0 / dz = (1/2, -1/2), dz / dA = 2 B h, dz / dB = 2 A h."""
    a, b = torch.nn.Parameter(torch.zeros(1, 1)), torch.nn.Parameter(torch.tensor([[1.0], [0.0]]))
    head = Head(torch.zeros(2, 1), None, a, b, scaling=2.0)
    found = TargetLogprobs(head, torch.full((1, 1), 3.0), [np.array([0])], np.array([0]), loss_mask=np.array([True]))
    into, (of_b, of_a) = found.backward(torch.ones(1), [b, a])
    assert into.tolist() == [[0.0]]
    assert of_a is not None
    assert of_b is not None
    assert of_a.tolist() == [[3.0]]
    assert of_b.tolist() == [[0.0], [0.0]]


def test_repeated_token_and_target_is_computed_once(seen: list[int]) -> None:
    """Five samples of one prompt: the prompt's positions cost one."""
    token_index, targets = [np.array([0, 1])] * 5, np.array([3, 4] * 5)
    head = made(0, bias=False, lora=False, factor=1.0, cap=0.0)
    hidden = torch.randn(TOKENS, HIDDEN)
    found = TargetLogprobs(head, hidden, token_index, targets, loss_mask=np.ones(10, bool))
    assert seen == [2]
    assert found.values.shape == (10,)
    assert found.values.unique().numel() == 2
    fifth = found.backward(torch.ones(10), [])[0]
    single = TargetLogprobs(head, hidden, token_index[:1], targets[:2], loss_mask=np.ones(2, bool))
    torch.testing.assert_close(fifth, 5 * single.backward(torch.ones(2), [])[0])


@pytest.mark.parametrize("lora", [True, False])
def test_only_masked_positions_compute_gradients(lora: bool, seen: list[int]) -> None:
    """6 positions, 2 of them in the mask: 4 and 2 forward, none backward, unless a gradient is outside the mask."""
    head = made(0, bias=False, lora=lora, factor=1.0, cap=0.0)
    mask = np.array([False, True, False, False, True, False])
    found = TargetLogprobs(head, torch.randn(TOKENS, HIDDEN), [np.arange(6)], np.arange(6), loss_mask=mask)
    assert seen == [4, 2]
    found.backward(torch.tensor([0.0, 1, 0, 0, 2, 0]), [])
    assert seen == [4, 2], "forward computed the gradients too, and LoRA's probabilities were kept"
    into, _ = found.backward(torch.zeros(6), [])
    assert not into.any()
    assert seen == [4, 2]
    found.backward(torch.tensor([1.0, 1, 0, 0, 0, 0]), [])
    assert seen == ([4, 2, 1, 2] if lora else [4, 2, 1]), "position 0, and for LoRA both again"


def test_lora_recomputes_probabilities_of_several_chunks(seen: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK_LOGITS", 4 * ROWS)
    head = made(0, bias=False, lora=True, factor=1.0, cap=0.0)
    found = TargetLogprobs(head, torch.randn(TOKENS, HIDDEN), [np.arange(6)], np.arange(6), loss_mask=np.ones(6, bool))
    assert seen == [4, 2]
    found.backward(torch.tensor([1.0, 1, 1, 1, 1, 0]), [])
    assert seen == [4, 2, 4, 1]


def test_chunk_positions_by_hand() -> None:
    assert chunk_positions(1 << 10, CPU) == 1 << 13
    assert chunk_positions(1 << 30, CPU) == 1


@pytest.mark.parametrize(
    ("free", "positions"),
    [(1 << 30, 55), (1 << 33, 441), (20 << 30, 883), (80 << 30, 1766), (1 << 45, 1766)],
)
def test_chunks_of_a_gpu_follow_its_free_memory(free: int, positions: int) -> None:
    """A sixteenth of 8 GiB is 512 MiB, 2^26 logits of 8 bytes: 441 positions at a vocabulary of 151,936. 20 GiB are
    2^27.3, rounded down; from 32 GiB on, the largest useful chunk; and never less than on a CPU.
    """
    module._cuda_chunk_logits.cache_clear()
    with pretended_gpu(free):
        assert chunk_positions(151_936, GPU) == positions
    with pretended_gpu(free // 2):
        assert chunk_positions(151_936, GPU) == positions, "the same for all passes of a process"
    module._cuda_chunk_logits.cache_clear()


def test_large_logits_do_not_overflow() -> None:
    """exp(1e4) is inf; log p is 0 for the winner and -1e4 for the other."""
    head = Head(torch.tensor([[1e4], [0.0]]))
    both = np.ones(2, bool)
    found = TargetLogprobs(head, torch.ones(1, 1), [np.array([0, 0])], np.array([0, 1]), loss_mask=both)
    assert found.values.tolist() == [0.0, -1e4]
    into, _ = found.backward(torch.tensor([1.0, 1.0]), [])
    assert bool(torch.isfinite(into).all())


@pytest.mark.parametrize("lora", [True, False])
def test_underflowing_probability_has_a_logarithm(lora: bool) -> None:
    """exp(-200) is 0 in float32, log p is -200 all the same, and d log p_1 / dh = W^T (e_1 - p) = -200."""
    a, b = torch.nn.Parameter(torch.ones(1, 1)), torch.nn.Parameter(torch.zeros(2, 1))
    head = Head(torch.tensor([[200.0], [0.0]]), None, *((a, b) if lora else (None, None)))
    found = TargetLogprobs(head, torch.ones(1, 1), [np.array([0])], np.array([1]), loss_mask=np.ones(1, bool))
    assert found.values.tolist() == [-200.0]
    into, rest = found.backward(torch.ones(1), [b] if lora else [])
    assert into.tolist() == [[-200.0]]
    assert not lora or (rest[0] is not None and rest[0].tolist() == [[-1.0], [1.0]])
