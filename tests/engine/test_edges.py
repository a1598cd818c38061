"""The engine at its edges: indices beyond 32 bits, budgets that fit exactly, limits of settings and ties."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from mint_lab.engine import generation, memory, step
from mint_lab.engine.generation import GenerationRequest, check_request
from mint_lab.engine.head import Head
from mint_lab.engine.logprobs import CHUNK_LOGITS, TargetLogprobs, chunk_positions
from mint_lab.engine.memory import MemoryCost, token_budget
from mint_lab.engine.micro_batches import split_into_micro_batches
from mint_lab.engine.models import Adapter
from mint_lab.engine.optimizer import Optimizer
from mint_lab.engine.packing import pack, pad, split_batch, stored_tokens
from mint_lab.engine.token_sampling import SamplingSettings, sample_tokens
from mint_lab.errors import ConfigError, DataError
from mint_lab.losses import LOSSES
from mint_lab.types import AdamParams

VOCABULARY = 151_936  # of Qwen3
LAST = 2**31 // VOCABULARY  # of this token, some pairs of token and target lie on either side of 2**31

# -- more than 32 bits -------------------------------------------------------------------------------------------------


def test_pairs_of_token_and_target_need_more_than_32_bits() -> None:
    """A row of 14,200 tokens, whose hidden states have one number each; log p = h w_t - log sum exp(h w)."""
    weight = torch.linspace(-1.0, 1.0, VOCABULARY)[:, None]
    hidden = torch.linspace(-2.0, 2.0, 14_200)[:, None]
    tokens = np.array([0, LAST - 1, LAST, LAST, LAST + 1, 14_199], np.int64)
    edge = 2**31 - LAST * VOCABULARY  # the pair of this target with LAST is number 2**31
    targets = np.array([0, VOCABULARY - 1, edge - 1, edge, 0, VOCABULARY - 1], np.int64)
    assert (tokens * VOCABULARY + targets)[2:4].tolist() == [2**31 - 1, 2**31]
    mask = np.ones(len(tokens), bool)
    result = TargetLogprobs(Head(weight), hidden, [tokens[:4], tokens[4:]], targets, loss_mask=mask)
    for value, token, target in zip(result.values.tolist(), tokens, targets, strict=True):
        logits = (hidden[token].double() * weight[:, 0].double()).log_softmax(0)
        assert value == pytest.approx(float(logits[target]), abs=1e-4)
    grad_hidden, _ = result.backward(torch.ones(len(tokens)), [])
    assert set(grad_hidden[:, 0].nonzero().flatten().tolist()) == set(tokens.tolist())
    p = (hidden[LAST].double() * weight[:, 0].double()).softmax(0)
    mean = float((p * weight[:, 0].double()).sum())
    expected = sum(float(weight[target, 0]) - mean for target in (edge - 1, edge))
    assert float(grad_hidden[LAST, 0]) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("lay_out", [pack, pad])
def test_indices_of_a_layout_have_64_bits(lay_out: Any) -> None:
    layout = lay_out([[1, 2, 3], [1, 2, 4], [5]])
    assert {index.dtype for index in layout.token_index} == {np.dtype(np.int64)}
    assert {tensor.dtype for tensor in (layout.tokens, layout.positions, layout.attention_mask)} == {torch.int64}


def test_logits_in_memory_are_limited_at_any_vocabulary() -> None:
    assert CHUNK_LOGITS == 2**23
    assert chunk_positions(VOCABULARY, torch.device("cpu")) == 55
    assert 55 * VOCABULARY <= CHUNK_LOGITS < 56 * VOCABULARY
    assert [chunk_positions(size, torch.device("cpu")) for size in (2**22, 2**23, 2**23 + 1)] == [2, 1, 1]


# -- budgets -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (2, [[0], [1], [2], [3]]),  # a sequence that exceeds the budget is alone
        (3, [[0], [1], [2], [3]]),
        (5, [[0], [1], [2], [3]]),
        (6, [[0, 1], [2, 3]]),  # fits exactly
        (8, [[0, 1], [2, 3]]),
        (9, [[0, 1, 2], [3]]),
        (12, [[0, 1, 2, 3]]),
    ],
)
def test_micro_batches_fill_the_budget_exactly(budget: int, expected: list[list[int]]) -> None:
    sequences = [[number] * 3 for number in range(4)]
    assert split_batch(sequences, budget, stored_tokens) == expected


def test_shared_prefix_counts_once_in_the_budget() -> None:
    """Prompts of four tokens with two answers of one: six tokens a pair."""
    pairs = [[prompt] * 4 + [answer] for prompt in (1, 2, 3) for answer in (8, 9)]
    assert split_batch(pairs, 12, stored_tokens) == [[0, 1, 2, 3], [4, 5]]
    assert split_batch(pairs, 11, stored_tokens) == [[0, 1], [2, 3], [4, 5]]
    assert split_batch(pairs, 6, stored_tokens) == [[0, 1], [2, 3], [4, 5]]
    assert split_batch(pairs, 5, stored_tokens) == [[k] for k in range(6)]


@pytest.mark.parametrize(("budget", "sizes"), [(None, [3]), (12, [3]), (11, [3]), (9, [3]), (8, [2, 1])])
def test_batch_is_split_only_if_it_does_not_fit(budget: int | None, sizes: list[int]) -> None:
    """Lengths 4, 3 and 2: padded 12 tokens, packed 9."""
    tokens = [[1] * 4, [2] * 3, [3] * 2]
    batch: Any = SimpleNamespace(tokens=tokens, lengths=[4, 3, 2], select=lambda indices: list(indices))
    base: Any = SimpleNamespace(computed_tokens=stored_tokens)
    parts = split_into_micro_batches(base, batch, budget)
    assert [len(part) if isinstance(part, list) else 3 for part in parts] == sizes


@pytest.mark.parametrize(
    ("spare", "tokens"),
    [(0, 0), (14, 0), (15, 1), (59, 3), (60, 4), (69, 4), (70, 5), (79, 5), (80, 6)],
)
def test_tokens_that_fit_into_memory(spare: int, tokens: int) -> None:
    """A token takes 10 bytes and 5 in the head, which has 4 positions at a time: from there on 20 + 10 n bytes."""
    cost = MemoryCost(backbone=10, backbone_checkpointed=2, head=5, chunk=4)
    assert cost.tokens(spare, gradient_checkpointing=False) == tokens


@pytest.mark.parametrize(
    ("free", "budget"), [(0, 64), (2 * 127, 64), (2 * 128 - 1, 64), (2 * 128, 128), (2 * 255, 128), (2 * 256, 256)]
)
def test_budget_is_the_power_of_two_below(free: int, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: free)
    cost = MemoryCost(backbone=1, backbone_checkpointed=1, head=0, chunk=1)
    assert token_budget(cost, torch.device("cpu"), gradient_checkpointing=False) == budget


@pytest.mark.parametrize(
    ("builtin", "limit", "budget"),
    [(True, None, 2048), (True, 2047, 2047), (True, 2049, 2048), (False, None, None), (False, 4096, 4096)],
)
def test_smaller_of_two_limits_counts(builtin: bool, limit: int | None, budget: int | None) -> None:
    objective = step.Builtin(LOSSES["cross_entropy"], {}) if builtin else step.Custom(lambda data, logprobs: None)  # type: ignore[arg-type]
    base: Any = SimpleNamespace(device=torch.device("cpu"))
    assert step._micro_batch_budget(base, objective, limit) == budget


# -- optimizer ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "factor"), [(0.0, 1.0), (5.0, 1.0), (5.001, 1.0), (4.0, 0.8), (2.5, 0.5)])
def test_gradient_is_scaled_only_above_the_limit_of_its_norm(limit: float, factor: float, adapter: Adapter) -> None:
    """A gradient of 3 and 4 has the norm 5; the first moment is a tenth of what is left of it."""
    names = list(adapter.parameters)
    gradients = [torch.zeros_like(parameter) for parameter in adapter.parameters.values()]
    gradients[0].view(-1)[0], gradients[1].view(-1)[0] = 3.0, 4.0
    adapter.gradients = gradients
    optimizer = Optimizer(adapter)
    metrics = optimizer.step(AdamParams(learning_rate=0.0, beta1=0.9, grad_clip_norm=limit))
    state = optimizer.state()
    moments = [float(state[f"exp_avg.{name}"].view(-1)[0]) for name in names[:2]]
    assert metrics == {"grad_norm": 5.0}
    assert moments == pytest.approx([0.3 * factor, 0.4 * factor], rel=1e-5)


@pytest.mark.parametrize(
    ("setting", "value", "text"),
    [
        ("learning_rate", -1e-9, "AdamParams.learning_rate is -1e-09, expected a finite number of at least 0"),
        ("beta1", 1.0, "AdamParams.beta1 is 1, expected at least 0 and less than 1"),
        ("beta2", -1e-9, "AdamParams.beta2 is -1e-09, expected at least 0 and less than 1"),
        (
            "eps",
            0.0,
            "AdamParams.eps is 0, expected a finite number of at least 1.2e-38 (with 0, Adam divides 0 by 0)",
        ),
        (
            "eps",
            math.nextafter(2**-126, 0),
            "AdamParams.eps is 1.17549e-38, expected a finite number of at least 1.2e-38 (with 0, Adam divides 0 by 0)",
        ),
        ("weight_decay", float("inf"), "AdamParams.weight_decay is inf, expected a finite number of at least 0"),
    ],
)
def test_setting_out_of_range_is_named(setting: str, value: float, text: str, adapter: Adapter) -> None:
    adapter.gradients = [torch.zeros_like(parameter) for parameter in adapter.parameters.values()]
    settings = AdamParams(**{"learning_rate": 0.1, setting: value})
    with pytest.raises(ConfigError) as caught:
        Optimizer(adapter).step(settings)
    assert str(caught.value) == text


def test_settings_at_the_ends_of_their_ranges_are_accepted(adapter: Adapter) -> None:
    adapter.gradients = [torch.ones_like(parameter) for parameter in adapter.parameters.values()]
    smallest = 2**-126  # the smallest number that float32 holds with all its digits
    settings = AdamParams(learning_rate=0.0, beta1=0.0, beta2=0.0, eps=smallest, weight_decay=0.0, grad_clip_norm=0.0)
    count = sum(parameter.numel() for parameter in adapter.parameters.values())
    assert Optimizer(adapter).step(settings)["grad_norm"] == pytest.approx(count**0.5, rel=1e-5)


# -- sampling ----------------------------------------------------------------------------------------------------------


def kept(logits: list[float], *, top_k: int = -1, top_p: float = 1.0) -> list[int]:
    """The tokens that can be sampled: those that many places of the unit interval lead to."""
    places = torch.linspace(0, 1 - 1e-9, 2001, dtype=torch.float64)
    rows = torch.tensor([logits]).expand(len(places), -1).clone()
    settings = SamplingSettings(
        torch.ones(len(places)),
        torch.full((len(places),), top_k),
        torch.full((len(places),), top_p, dtype=torch.float64),
    )
    tokens, _ = sample_tokens(rows, settings, places)
    return sorted(set(tokens.tolist()))


@pytest.mark.parametrize(
    ("top_k", "tokens"), [(1, [1]), (2, [1, 3]), (3, [0, 1, 3]), (4, [0, 1, 2, 3]), (9, [0, 1, 2, 3])]
)
def test_top_k_takes_the_first_of_equal_tokens(top_k: int, tokens: list[int]) -> None:
    """Tokens 1 and 3 are equally likely, and so are 2 and 0 below them; of equal ones the lower id comes first."""
    assert kept([0.0, 1.0, 0.0, 1.0], top_k=top_k) == tokens


@pytest.mark.parametrize(
    ("top_p", "tokens"),
    [
        (1e-9, [0]),
        (0.25, [0]),
        (0.26, [0, 1]),
        (0.5, [0, 1]),
        (0.75, [0, 1, 2]),
        (0.76, [0, 1, 2, 3]),
        (1.0, [0, 1, 2, 3]),
    ],
)
def test_token_that_crosses_top_p_is_kept(top_p: float, tokens: list[int]) -> None:
    """Each of four tokens has the probability 1/4 exactly; of equal ones the lower id comes first."""
    assert kept([0.0] * 4, top_p=top_p) == tokens


@pytest.mark.parametrize(("top_p", "tokens"), [(0.49, [2]), (0.51, [1, 2]), (0.74, [1, 2]), (0.76, [0, 1, 2])])
def test_nucleus_takes_the_most_likely_tokens_first(top_p: float, tokens: list[int]) -> None:
    """Probabilities 1/8, 1/4, 1/2 and 1/8."""
    assert kept(np.log([1, 2, 4, 1]).astype(np.float32).tolist(), top_p=top_p) == tokens


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("num_samples", 0, "1 or more"),
        ("max_tokens", 0, "1 or more"),
        ("temperature", -1e-9, "0 or more"),
        ("temperature", float("inf"), "0 or more"),
        ("top_k", 0, "-1 (no limit) or 1 or more"),
        ("top_k", -2, "-1 (no limit) or 1 or more"),
        ("top_p", 0.0, "above 0 and up to 1"),
        ("top_p", 1.0 + 1e-9, "above 0 and up to 1"),
        ("stop_strings", ("a", ""), "no empty string: every text contains it"),
    ],
)
def test_setting_of_a_request_out_of_range_is_named(setting: str, value: Any, expected: str) -> None:
    with pytest.raises(ConfigError) as caught:
        replace(GenerationRequest([1]), **{setting: value})
    assert str(caught.value) == f"{setting} is {value!r}, expected {expected}"


def test_settings_of_a_request_at_the_ends_of_their_ranges() -> None:
    request = GenerationRequest([1], num_samples=1, max_tokens=1, temperature=0.0, top_k=1, top_p=1.0)
    assert replace(request, top_k=-1, top_p=1e-9, temperature=1e30).top_p == 1e-9


def test_prompt_needs_room_for_one_token() -> None:
    base: Any = SimpleNamespace(vocab_size=10, context=4)
    check_request(base, GenerationRequest([9, 0, 0]))
    with pytest.raises(DataError) as caught:
        check_request(base, GenerationRequest([1] * 4), index=3)
    assert str(caught.value) == (
        "datum 3, field 'model_input': 4 tokens fill the model's context, there is no room for a sample; truncate the "
        "prompt"
    )
    with pytest.raises(DataError, match="token id 10 at position 1, expected 0 to 9"):
        check_request(base, GenerationRequest([9, 10]))


@pytest.mark.parametrize(("free", "budget"), [(2 * 63, 32), (2 * 64, 64), (2 * 65, 64), (1, 1)])
def test_budget_of_a_generation_is_a_power_of_two(free: int, budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generation, "free_memory", lambda device: free)
    monkeypatch.setattr(generation, "cache_bytes_per_token", lambda config, size: 1)
    base: Any = SimpleNamespace(device=torch.device("cpu"), config=None, weights={"w": torch.zeros(1)})
    assert generation.generation_token_budget(base) == budget
