"""Sampling a token, against the definitions of the cumulative distribution and of truncation, row by row."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.engine import token_sampling
from mint_lab.engine.token_sampling import SamplingSettings, sample_tokens


def settings(temperature: float = 1.0, top_k: int = -1, top_p: float = 1.0, rows: int = 1) -> SamplingSettings:
    return SamplingSettings(
        torch.full((rows,), temperature),
        torch.full((rows,), top_k, dtype=torch.int64),
        torch.full((rows,), top_p, dtype=torch.float64),
    )


def one(logits: list[float], at: float, **how: float) -> tuple[int, float]:
    token, logprob = sample_tokens(torch.tensor([logits]), settings(**how), torch.tensor([at], dtype=torch.float64))  # type: ignore[arg-type]
    return int(token), float(logprob)


def test_by_hand() -> None:
    """P = (1/2, 1/4, 1/4): a number below 1/2 selects the first token, and so on; a bound belongs to the next token."""
    logits = [math.log(2), 0.0, 0.0]
    assert [one(logits, at)[0] for at in (0.0, 0.49, 0.51, 0.74, 0.76, 0.9999999999999999)] == [0, 0, 1, 1, 2, 2]
    assert one(logits, 0.6)[1] == pytest.approx(math.log(1 / 4), abs=1e-6)
    # temperature 1/2 squares: (4, 1, 1) / 6
    assert one(logits, 0.65, temperature=0.5) == (0, pytest.approx(math.log(4 / 6), abs=1e-6))
    assert one(logits, 0.67, temperature=0.5)[0] == 1
    # of two equal ones the lower token stays: (2, 1) / 3
    assert one(logits, 0.999, top_k=2) == (1, pytest.approx(math.log(1 / 3), abs=1e-6))
    # 1/2 does not exceed 0.6 before the second, which stays; after it 3/4 does
    assert one(logits, 0.999, top_p=0.6)[0] == 1
    assert one(logits, 0.999, top_p=0.4) == (0, pytest.approx(0.0, abs=1e-6))
    assert one(logits, 0.999, temperature=0.0, top_k=1) == (0, pytest.approx(math.log(1 / 2), abs=1e-6))


@pytest.mark.parametrize("vocab", [1, 2, 127, 128, 129, 300, 1024])
def test_every_token_has_its_interval(vocab: int) -> None:
    """A number in the middle of a token's interval selects that token, at vocabulary sizes around the block size."""
    p = np.random.default_rng(0).dirichlet(np.full(vocab, 0.5))
    upto = np.cumsum(p)
    middle = torch.from_numpy(upto - p / 2)
    wide = p > 1e-5
    logits = torch.from_numpy(np.log(np.maximum(p, 1e-30))).float().repeat(vocab, 1)
    tokens, logprobs = sample_tokens(logits, settings(rows=vocab), middle)
    assert tokens[torch.from_numpy(wide)].tolist() == np.flatnonzero(wide).tolist()
    np.testing.assert_allclose(logprobs[torch.from_numpy(wide)], np.log(p[wide]), atol=1e-5)


def kept(logits: torch.Tensor, top_k: int, top_p: float) -> set[int]:
    """By the definition: the k most likely, lower tokens first among equals, until their probability reaches top_p."""
    p = torch.softmax(logits.double(), -1).tolist()
    order = sorted(range(len(p)), key=lambda i: (-float(logits[i]), i))
    found: set[int] = set()
    total = 0.0
    for i in order if top_k == -1 else order[:top_k]:
        if found and total >= top_p:
            break
        found.add(i)
        total += p[i]
    return found


HOW = st.tuples(st.sampled_from([-1, 1, 2, 5, 40, 1000]), st.sampled_from([0.05, 0.3, 0.77, 0.999, 1.0]))


@given(
    st.lists(HOW, min_size=1, max_size=4),
    st.sampled_from([3, 40, 500]),
    st.sampled_from([0, 1, 3]),
    st.integers(0, 2**31),
)
def test_truncation_matches_definition(rows: list[tuple[int, float]], vocab: int, digits: int, seed: int) -> None:
    """Logits rounded to few digits are often equal, as in bfloat16."""
    random = np.random.default_rng(seed)
    logits = torch.from_numpy(random.normal(0, 2, (len(rows), vocab)).round(digits)).float()
    how = SamplingSettings(
        torch.ones(len(rows)),
        torch.tensor([k for k, _ in rows]),
        torch.tensor([p for _, p in rows], dtype=torch.float64),
    )
    cut = token_sampling._truncate(
        logits - logits.amax(-1, keepdim=True), how.top_k, torch.where(how.top_p < 1, how.top_p - 1e-9, how.top_p)
    )
    for row, (top_k, top_p) in enumerate(rows):
        wanted = kept(logits[row], top_k, top_p - 1e-9 if top_p < 1 else 2.0)
        assert set(cut[row].isfinite().nonzero().flatten().tolist()) == wanted


@pytest.mark.parametrize("at", [0.0, 0.5, 1 - 2**-53])
def test_zero_probability_is_never_sampled(at: float) -> None:
    """The last token that can be sampled is far before the end of the vocabulary, or at its end."""
    for possible in ([0], [5, 200], [299], [127, 128]):
        logits = torch.full((300,), float("-inf"))
        logits[possible] = 1.0
        assert one(logits.tolist(), at)[0] in possible


@pytest.mark.parametrize("temperature", [1e-45, 1e-20, 1e-4])
def test_small_temperatures_are_nearly_greedy(temperature: float) -> None:
    assert one([300.0, 310.0, -50.0], 0.99, temperature=temperature) == (1, pytest.approx(0.0, abs=1e-6))


@given(st.lists(st.sampled_from([1.0, 0.5, 2.0]), min_size=1, max_size=5), st.integers(0, 2**31))
def test_tokens_match_plain_inversion(temperatures: list[float], seed: int) -> None:
    """The plain equivalent in the docstring of ``sample_tokens``."""
    random = np.random.default_rng(seed)
    logits = torch.from_numpy(random.normal(0, 2, (len(temperatures), 300))).float()
    heat = torch.tensor(temperatures)
    numbers = torch.from_numpy(random.random(len(temperatures)))
    p = torch.softmax(logits.double() / heat[:, None], dim=-1)
    cumulative = p.cumsum(-1)
    expected = torch.searchsorted(cumulative, numbers[:, None], right=True).squeeze(-1)
    near_bound = ((cumulative - numbers[:, None]).abs() < 1e-6).any(-1)  # float32 may fall on either side there
    how = SamplingSettings(heat, torch.full((len(heat),), -1), torch.ones(len(heat), dtype=torch.float64))
    tokens, logprobs = sample_tokens(logits.clone(), how, numbers)
    assert torch.equal(tokens[~near_bound], expected[~near_bound])
    torch.testing.assert_close(logprobs.double(), p.gather(-1, tokens[:, None]).squeeze(-1).log(), rtol=0, atol=1e-5)
