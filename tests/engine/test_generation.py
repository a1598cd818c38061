"""Generation: the distribution, the trainer's log-probabilities, and seeds that do not depend on the batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

from mint_lab.engine import generation
from mint_lab.engine.generation import (
    STOP_STRING_MARGIN_TOKENS,
    GenerationRequest,
    Sample,
    _rows,
    generate,
)
from mint_lab.engine.models import Adapter, load_base
from mint_lab.engine.prompt_scores import prompt_logprobs
from mint_lab.engine.token_sampling import SamplingSettings, sample_tokens
from mint_lab.errors import ConfigError, DataError

from .conftest import random_adapter
from .families import FAMILIES

PROMPT = [5, 6, 7]


def draw(adapter: Adapter, *requests: GenerationRequest) -> list[list[Sample]]:
    with adapter.base.using(adapter):
        return generate(adapter.base, requests)


def next_logits(adapter: Adapter, prompt: list[int]) -> torch.Tensor:
    """(vocab,) float64, by transformers without a cache."""
    with torch.no_grad(), adapter.base.using(adapter):
        return adapter.base(input_ids=torch.tensor([prompt]), use_cache=False).logits[0, -1].double()


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_sampler_and_trainer_agree(name: str, family: Callable[[str], Path]) -> None:
    """Prompts from one token to beyond a sliding window of 8, drawn alone and as one batch, cache against no cache."""
    adapter = random_adapter(family(name))
    random = np.random.default_rng(0)
    requests = [
        GenerationRequest(random.integers(0, 256, length).tolist(), num_samples=2, max_tokens=12, seed=length)
        for length in (1, 2, 7, 8, 9, 20)
    ]
    together = draw(adapter, *requests)
    for request, batched in zip(requests, together, strict=True):
        (alone,) = draw(adapter, request)
        assert [s.tokens for s in alone] == [s.tokens for s in batched]
        for sample, other in zip(alone, batched, strict=True):
            np.testing.assert_allclose(sample.logprobs, other.logprobs, atol=1e-4)
            with adapter.base.using(adapter):
                (trainers,) = prompt_logprobs(adapter.base, [request.prompt + sample.tokens])
            np.testing.assert_allclose(sample.logprobs, np.array(trainers[len(request.prompt) :], float), atol=1e-4)


def test_seed_decides_whatever_the_batch(adapter: Adapter) -> None:
    mine = GenerationRequest(PROMPT, num_samples=3, max_tokens=10, seed=11)
    (alone,) = draw(adapter, mine)
    others = [
        GenerationRequest([1, 2, 3, 4, 5, 6], 4, 10, seed=1),
        GenerationRequest([9], 2, 3),
        GenerationRequest(PROMPT, 1, 15, temperature=0.0),
    ]
    for place in range(4):
        batch = [*others[:place], mine, *others[place:]]
        assert [s.tokens for s in draw(adapter, *batch)[place]] == [s.tokens for s in alone]
    (more,) = draw(adapter, replace(mine, num_samples=5, max_tokens=6))
    assert [s.tokens for s in more[:3]] == [s.tokens[:6] for s in alone], "more samples or fewer tokens begin alike"
    assert len({tuple(s.tokens) for s in alone}) == 3, "samples of one request differ"
    (another,) = draw(adapter, replace(mine, seed=12))
    assert [s.tokens for s in another] != [s.tokens for s in alone]
    (negative,) = draw(adapter, replace(mine, seed=-11))
    assert [s.tokens for s in negative] != [s.tokens for s in alone]
    unseeded = [draw(adapter, replace(mine, seed=None))[0][0].tokens for _ in range(2)]
    assert unseeded[0] != unseeded[1]


def test_samples_match_the_plain_loop(adapter: Adapter) -> None:
    """The plain equivalent in the docstring of ``_Batch``: no cache, one sample at a time."""
    request = GenerationRequest(PROMPT, 3, 8, 0.7, 40, 0.9, seed=5)
    settings = SamplingSettings(torch.tensor([0.7]), torch.tensor([40]), torch.tensor([0.9], dtype=torch.float64))
    rows = _rows(adapter.base, request)
    for row in rows:
        while not row.is_finished:
            logits = next_logits(adapter, PROMPT + row.sample.tokens).float()[None]
            token, logprob = sample_tokens(logits, settings, torch.from_numpy(row.random.random(1)))
            row.append(int(token), float(logprob), adapter.base.tokenizer)
    (found,) = draw(adapter, request)
    for sample, row in zip(found, rows, strict=True):
        assert sample.tokens == row.sample.tokens
        np.testing.assert_allclose(sample.logprobs, row.sample.logprobs, atol=1e-4)


def test_greedy_matches_transformers_argmax(qwen3: Path) -> None:
    base = load_base(str(qwen3))
    plain = AutoModelForCausalLM.from_pretrained(qwen3, dtype=torch.float32).eval()
    tokens = list(PROMPT)
    with torch.no_grad():
        for _ in range(10):
            logits = plain(input_ids=torch.tensor([tokens]), use_cache=False).logits[0, -1]
            tokens.append(int(logits.argmax()))
    with base.using(None):
        ((found,),) = generate(base, [GenerationRequest(PROMPT, max_tokens=10, temperature=0.0)])
        ((narrow,),) = generate(base, [GenerationRequest(PROMPT, max_tokens=10, top_k=1, seed=3)])
    assert found.tokens == tokens[3:] == narrow.tokens
    assert narrow.logprobs == [0.0] * 10, "log-probabilities are those of the distribution sampled from"
    first = torch.log_softmax(plain(input_ids=torch.tensor([PROMPT])).logits[0, -1].detach(), -1).max()
    assert found.logprobs[0] == pytest.approx(float(first), abs=1e-5)


def truncated(logits: torch.Tensor, temperature: float, top_k: int, top_p: float) -> torch.Tensor:
    """The distribution by its definition: temperature, the k most likely, the smallest set with probability top_p."""
    p = torch.softmax(logits / temperature, -1)
    order = sorted(range(len(p)), key=lambda i: -float(p[i]))
    kept = order if top_k == -1 else order[:top_k]
    total, nucleus = 0.0, []
    for i in kept:
        nucleus.append(i)
        total += float(p[i])
        if total >= top_p:
            break
    q = torch.zeros_like(p)
    q[nucleus] = p[nucleus]
    return q / q.sum()


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p"),
    [(1.0, -1, 1.0), (0.5, -1, 1.0), (2.0, -1, 1.0), (1.0, 5, 1.0), (1.0, -1, 0.6), (1.5, 20, 0.8), (1.0, 1000, 1.0)],
)
def test_samples_follow_the_distribution(temperature: float, top_k: int, top_p: float, adapter: Adapter) -> None:
    """Log-probabilities exactly; frequencies of 4,000 draws by chi-square (99.9% quantile: near n + 3.1 sqrt(2n))."""
    n = 4000
    (samples,) = draw(adapter, GenerationRequest(PROMPT, n, 1, temperature, top_k, top_p, seed=8))
    q = truncated(next_logits(adapter, PROMPT), temperature, top_k, top_p)
    for sample in samples[:200]:
        assert sample.logprobs[0] == pytest.approx(float(q[sample.tokens[0]].log()), abs=1e-4)
    counts = np.bincount([s.tokens[0] for s in samples], minlength=len(q))
    expected = n * q.numpy()
    assert counts[expected == 0].sum() == 0, "a token outside the truncation was drawn"
    often = expected >= 5
    observed = np.append(counts[often], counts[~often].sum())
    wanted = np.append(expected[often], expected[~often].sum())
    some = wanted > 0
    statistic = float(((observed[some] - wanted[some]) ** 2 / wanted[some]).sum())
    freedom = max(int(some.sum()) - 1, 1)
    assert statistic < freedom + 3.1 * np.sqrt(2 * freedom) + 8


def test_cold_temperature_is_nearly_greedy(adapter: Adapter) -> None:
    (cold,) = draw(adapter, GenerationRequest(PROMPT, 20, 1, temperature=1e-4, seed=0))
    best = int(next_logits(adapter, PROMPT).argmax())
    assert [s.tokens for s in cold] == [[best]] * 20
    assert all(s.logprobs[0] == pytest.approx(0, abs=1e-4) for s in cold)


def test_stop_tokens_and_lengths(adapter: Adapter) -> None:
    free = draw(adapter, GenerationRequest(PROMPT, 6, 12, seed=4))[0]
    stop = free[0].tokens[5]
    for sample, before in zip(
        draw(adapter, GenerationRequest(PROMPT, 6, 12, seed=4, stop_tokens=frozenset([stop])))[0], free, strict=True
    ):
        end = before.tokens.index(stop) + 1 if stop in before.tokens else 12
        assert sample.tokens == before.tokens[:end]
        assert sample.logprobs == pytest.approx(before.logprobs[:end], abs=1e-5)
        assert sample.stop_reason == ("stop" if stop in before.tokens else "length")
    assert {len(s.tokens) for s in free} == {12}


def test_stop_strings_may_span_tokens(adapter: Adapter) -> None:
    """The tokenizer is byte-level: any two-letter string is two tokens."""
    decode = adapter.base.tokenizer.decode
    free = draw(adapter, GenerationRequest(PROMPT, 30, 12, seed=4))[0]
    text, sample = next(
        (decode(s.tokens[k : k + 2]), s)
        for s, k in itertools.product(free, range(1, 10))
        if decode(s.tokens[k : k + 2]).isascii() and len(decode(s.tokens[k : k + 2])) == 2
    )
    index = next(i for i, s in enumerate(free) if s is sample)
    stopped = draw(adapter, GenerationRequest(PROMPT, 30, 12, seed=4, stop_strings=("never seen", text)))[0][index]
    assert stopped.tokens == sample.tokens[: len(stopped.tokens)]
    assert text in decode(stopped.tokens)
    assert text not in decode(stopped.tokens[:-1])
    assert stopped.stop_reason == "stop"


@pytest.mark.parametrize("length", [126, 127])
def test_sample_ends_with_the_context(length: int, adapter: Adapter) -> None:
    """128 tokens: a prompt of 127 leaves room for one."""
    (sample,) = draw(adapter, GenerationRequest([1] * length, 1, 50, seed=0))[0]
    assert (len(sample.tokens), sample.stop_reason) == (128 - length, "length")
    with adapter.base.using(adapter):
        (logprobs,) = prompt_logprobs(adapter.base, [[1] * length + sample.tokens])
        assert len(logprobs) == 128


@pytest.mark.parametrize(
    ("prompt", "words"),
    [
        ([], "field 'model_input': is empty"),
        ([270], "token id 270"),
        ([1] * 128, "128 tokens fill the model's context, there is no room for a sample"),
        ([1] * 129, "129 tokens, but the model's context is 128"),
    ],
)
def test_bad_prompts_raise(prompt: list[int], words: str, adapter: Adapter) -> None:
    with pytest.raises(DataError, match=words) as caught:
        draw(adapter, GenerationRequest(prompt))
    assert caught.value.index is None
    with pytest.raises(DataError, match=f"datum 1, {words}" if prompt == [] else words) as caught:
        draw(adapter, GenerationRequest(PROMPT), GenerationRequest(prompt))
    assert caught.value.index == 1


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("num_samples", 0, "1 or more"),
        ("num_samples", 1.5, "1 or more"),
        ("num_samples", None, "1 or more"),
        ("max_tokens", 0, "1 or more"),
        ("max_tokens", -3, "1 or more"),
        ("temperature", -0.1, "0 or more"),
        ("temperature", float("nan"), "0 or more"),
        ("temperature", float("inf"), "0 or more"),
        ("top_k", 0, "-1 .no limit. or 1 or more"),
        ("top_k", -2, "-1"),
        ("top_p", 0.0, "above 0"),
        ("top_p", 1.1, "up to 1"),
        ("top_p", "much", "above 0"),
        ("stop_strings", ("a", ""), "no empty string"),
    ],
)
def test_settings_out_of_range_raise(setting: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=f"{setting} is .*{words}"):
        GenerationRequest(PROMPT, **{setting: value})


def test_numpy_numbers_are_accepted() -> None:
    assert GenerationRequest(PROMPT, np.int64(2), np.int32(3), np.float32(0.5)).num_samples == 2  # type: ignore[arg-type]


TEXTS = st.text(st.sampled_from("ab é€😀\n"), min_size=1, max_size=4)


@given(
    stops=st.lists(TEXTS, min_size=1, max_size=3),
    text=st.text(st.sampled_from("ab é€😀\n"), max_size=60),
    data=st.data(),
)
def test_stop_string_ends_at_first_match(stops: list[str], text: str, data: st.DataObject, qwen3: Path) -> None:
    """Characters of one to four bytes, each byte a token; ids past the tokenizer's, without text, strewn in."""
    tokenizer = load_base(str(qwen3)).tokenizer
    tokens = tokenizer.encode(text)
    for place in data.draw(st.lists(st.integers(0, len(tokens)), max_size=20)):
        tokens.insert(place, 265)
    request = GenerationRequest(PROMPT, max_tokens=200, stop_strings=tuple(stops))
    (row,) = _rows(load_base(str(qwen3)), request)
    whole = [n for n in range(1, len(tokens) + 1) if any(stop in tokenizer.decode(tokens[:n]) for stop in stops)]
    for token in tokens:
        if not row.is_finished:
            row.append(token, 0.0, tokenizer)
    assert len(row.sample.tokens) == (whole[0] if whole else len(tokens))
    assert row.sample.stop_reason == ("stop" if whole else "length")


def test_only_the_tail_is_decoded(qwen3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = load_base(str(qwen3))
    lengths: list[int] = []
    decode = base.tokenizer.decode
    monkeypatch.setattr(base.tokenizer, "decode", lambda ids: lengths.append(len(ids)) or decode(ids))
    with base.using(None):
        generate(base, [GenerationRequest(PROMPT, 1, 100, seed=0, stop_strings=("never seen",))])
    assert len(lengths) > 90
    assert max(lengths) == len("never seen") + STOP_STRING_MARGIN_TOKENS


def test_several_batches_match_one(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    """A budget of 40 tokens: three rows of 13 at a time, one of more than 40 alone."""
    requests = [
        GenerationRequest(PROMPT, 5, 10, seed=3),
        GenerationRequest([1] * 30, 2, 20, seed=4),
        GenerationRequest([9], 1, 2, seed=5),
    ]
    whole = draw(adapter, *requests)  # this also tests whether prompts can be shared
    sizes: list[int] = []
    original = generation._Batch.__init__
    monkeypatch.setattr(generation, "generation_token_budget", lambda base: 40)
    monkeypatch.setattr(
        generation._Batch,
        "__init__",
        lambda self, base, rows, **shares: sizes.append(len(rows)) or original(self, base, rows, **shares),
    )
    parts = draw(adapter, *requests)
    assert sizes == [3, 2, 1, 1, 1]
    assert [[s.tokens for s in group] for group in parts] == [[s.tokens for s in group] for group in whole]


def test_rerun_is_bit_identical(adapter: Adapter) -> None:
    requests = [
        GenerationRequest(PROMPT, 3, 20, 0.8, 40, 0.9, seed=3),
        GenerationRequest([9], 4, 30, seed=5, stop_strings=("a",)),
    ]
    first, second = draw(adapter, *requests), draw(adapter, *requests)
    assert first == second


def test_rows_end_one_by_one(adapter: Adapter) -> None:
    """Many lengths in one batch: rows are dropped at times, and each sample is the one it is alone."""
    requests = [GenerationRequest([k], 2, 3 * k, seed=k) for k in range(1, 14)]
    for request, found in zip(requests, draw(adapter, *requests), strict=True):
        assert [len(s.tokens) for s in found] == [request.max_tokens] * 2
        assert [s.tokens for s in found] == [s.tokens for s in draw(adapter, request)[0]]


@pytest.mark.parametrize("name", ["gpt2", "gemma2"])
def test_row_at_context_end_does_not_affect_others(name: str, family: Callable[[str], Path]) -> None:
    """It keeps growing until it is dropped; GPT-2's positions are a table that ends there."""
    adapter = random_adapter(family(name))
    requests = [GenerationRequest([3] * 126, 1, 50, seed=0), GenerationRequest(PROMPT, 9, 30, seed=1)]
    full, others = draw(adapter, *requests)
    assert len(full[0].tokens) == 2
    assert [s.tokens for s in others] == [s.tokens for s in draw(adapter, requests[1])[0]]


def test_most_likely_tokens_of_the_distribution_sampled_from(adapter: Adapter) -> None:
    """They are those of a pass without a cache, after temperature and truncation; other requests get none."""
    ways = [
        GenerationRequest(PROMPT, 2, 5, seed=1, topk=4),
        GenerationRequest([9, 9], 1, 3, seed=2),
        GenerationRequest(PROMPT, 1, 4, temperature=0.5, seed=3, topk=270),
        GenerationRequest(PROMPT, 1, 4, top_k=3, seed=3, topk=5),
        GenerationRequest(PROMPT, 1, 4, temperature=0, seed=3, topk=1),
    ]
    for request, samples in zip(ways, draw(adapter, *ways), strict=True):
        for sample in samples:
            assert len(sample.topk) == (len(sample.tokens) if request.topk else 0)
            for n, found in enumerate(sample.topk):
                with torch.no_grad(), adapter.base.using(adapter):
                    ids = torch.tensor([[*request.prompt, *sample.tokens[:n]]])
                    logits = adapter.base(input_ids=ids).logits[0, -1].float()
                logits = logits / (request.temperature or 1)
                if request.top_k > 0:
                    logits[logits < logits.topk(request.top_k).values[-1]] = -torch.inf
                expected = torch.log_softmax(logits, -1).topk(request.topk)
                kept = int((expected.values > -torch.inf).sum())
                assert [token for token, _ in found] == expected.indices[:kept].tolist()
                np.testing.assert_allclose([v for _, v in found], expected.values[:kept], atol=1e-4)
                chosen = dict(found)
                if sample.tokens[n] in chosen:
                    assert chosen[sample.tokens[n]] == pytest.approx(sample.logprobs[n], abs=1e-5)
