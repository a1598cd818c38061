"""Calls that meet in the queue run as one, and nobody can tell from the results."""

from __future__ import annotations

import asyncio
import concurrent.futures
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mint_lab.client.futures import CallBatcher, Worker
from mint_lab.client.sampling import SamplingClient
from mint_lab.client.service import ServiceClient
from mint_lab.client.training import TrainingClient
from mint_lab.errors import DataError
from mint_lab.types import AdamParams, ModelInput, SampleResponse, SamplingParams
from tests.waiting import TIMEOUT

from ..engine.batches import sampled

PROMPTS = [ModelInput.from_ints(tokens) for tokens in ([5, 6, 7], [9], [5, 6, 7], [1, 2, 3, 4, 5, 6, 7, 8])]


@contextmanager
def held(worker: Worker) -> Iterator[None]:
    """The worker is busy while calls are submitted."""
    gate = threading.Event()
    worker.submit(gate.wait)
    try:
        yield
    finally:
        gate.set()


class Doubling:
    """Doubles a batch of numbers; a negative one gets an exception."""

    def __init__(self, limit: int = 100) -> None:
        self.seen: list[list[int]] = []
        self.batcher: CallBatcher[int, int] = CallBatcher(self.run, limit)

    def run(self, items: Sequence[int]) -> list[int | Exception]:
        self.seen.append(list(items))
        return [ValueError(item) if item < 0 else 2 * item for item in items]


def test_consecutive_items_run_together_in_order() -> None:
    worker, doubling, other = Worker("t"), Doubling(), Doubling()
    order: list[str] = []
    with held(worker):
        first = [worker.submit_to(doubling.batcher, i, 1) for i in range(3)]
        worker.submit(lambda: order.append(f"between, after {len(doubling.seen)}"))
        second = [worker.submit_to(doubling.batcher, i, 1) for i in (3, -4, 5)]
        third = worker.submit_to(other.batcher, 6, 1)
    assert [f.result(TIMEOUT) for f in first] == [0, 2, 4]
    assert [second[0].result(TIMEOUT), second[2].result(TIMEOUT), third.result(TIMEOUT)] == [6, 10, 12]
    with pytest.raises(ValueError, match="-4"):
        second[1].result(TIMEOUT)
    assert (doubling.seen, other.seen) == ([[0, 1, 2], [3, -4, 5]], [[6]])
    assert order == ["between, after 1"]


def test_batches_keep_to_their_size_limit() -> None:
    worker, doubling = Worker("t"), Doubling(limit=10)
    with held(worker):
        futures = [worker.submit_to(doubling.batcher, size, size) for size in (4, 6, 1, 50, 9, 1)]
    assert [f.result(TIMEOUT) for f in futures] == [8, 12, 2, 100, 18, 2]
    assert doubling.seen == [[4, 6], [1], [50], [9, 1]]


def test_cancelled_items_are_left_out() -> None:
    worker, doubling = Worker("t"), Doubling()
    with held(worker):
        futures = [worker.submit_to(doubling.batcher, i, 1) for i in range(4)]
        assert futures[0].future().cancel()
        assert futures[2].future().cancel()
    assert [futures[1].result(TIMEOUT), futures[3].result(TIMEOUT)] == [2, 6]
    with pytest.raises(concurrent.futures.CancelledError):
        futures[2].result(TIMEOUT)
    with held(worker):
        alone = worker.submit_to(doubling.batcher, 9, 1)
        assert alone.future().cancel()
    assert worker.run(lambda: 1) == 1
    assert doubling.seen == [[1, 3]]


def test_batch_error_reaches_every_caller() -> None:
    worker = Worker("t")
    failing: CallBatcher[int, int] = CallBatcher(lambda items: [1 // 0 for _ in items], 10)
    short: CallBatcher[int, int] = CallBatcher(lambda items: [7], 10)
    with held(worker):
        futures = [worker.submit_to(failing, i, 1) for i in range(2)]
        cut = [worker.submit_to(short, i, 1) for i in range(2)]
    for future in futures:
        with pytest.raises(ZeroDivisionError):
            future.result(TIMEOUT)
    assert cut[0].result(TIMEOUT) == 7
    with pytest.raises(ValueError, match="shorter"):
        cut[1].result(TIMEOUT)
    assert worker.run(lambda: 4) == 4


def test_item_submitted_by_a_call_runs_at_once() -> None:
    worker, doubling = Worker("t"), Doubling()
    assert worker.submit(lambda: worker.submit_to(doubling.batcher, 3, 1).result(TIMEOUT)).result(TIMEOUT) == 6


def test_collected_worker_finishes_its_queue() -> None:
    worker, doubling = Worker("t"), Doubling()
    thread = worker._thread
    last = worker.submit_to(doubling.batcher, 4, 1)
    del worker
    assert last.result(TIMEOUT) == 8
    thread.join(TIMEOUT)
    assert not thread.is_alive()


@contextmanager
def counted(sampler: SamplingClient) -> Iterator[list[int]]:
    """Rows of every call of the model, in order."""
    base, rows = sampler._base, []
    original = type(base).__call__

    def call(self: Any, **inputs: Any) -> Any:
        rows.append(len(inputs["input_ids"]))
        return original(self, **inputs)

    type(base).__call__ = call  # type: ignore[method-assign]
    try:
        yield rows
    finally:
        type(base).__call__ = original  # type: ignore[method-assign]


def tokens(response: SampleResponse) -> list[list[int]]:
    return [s.tokens for s in response.sequences]


def test_waiting_requests_are_one_batch(client: TrainingClient) -> None:
    """Four calls of two samples and 6 tokens: one pass over the three different prompts, five over all eight rows."""
    sampler = client.save_weights_and_get_sampling_client()
    requests = [(prompt, 2, SamplingParams(max_tokens=6, seed=i, stop=[])) for i, prompt in enumerate(PROMPTS)]
    alone = [sampler.sample(*request).result() for request in requests]
    with counted(sampler) as rows:
        with held(sampler._worker):
            futures = [sampler.sample(*request) for request in requests]
        together = [future.result() for future in futures]
    assert rows == [3, 8, 8, 8, 8, 8]
    for one, other in zip(alone, together, strict=True):
        assert tokens(one) == tokens(other)
        for a, b in zip(one.sequences, other.sequences, strict=True):
            np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-5)  # type: ignore[arg-type]


def test_gathered_requests_are_batched_on_an_idle_worker(client: TrainingClient) -> None:
    sampler = client.save_weights_and_get_sampling_client()
    params = SamplingParams(max_tokens=4, seed=1, stop=[])
    sampler.sample(PROMPTS[0], 1, params).result()

    async def gather() -> list[SampleResponse]:
        return await asyncio.gather(*(sampler.sample_async(PROMPTS[0], 2, params) for _ in range(6)))

    with counted(sampler) as rows:
        asyncio.run(gather())
    assert len(rows) < 6 * 4, "some of them ran together"


def test_bad_request_fails_alone(client: TrainingClient) -> None:
    sampler = client.save_weights_and_get_sampling_client()
    params = SamplingParams(max_tokens=3, seed=1, stop=[])
    bad = [ModelInput.from_ints([270]), ModelInput.empty(), ModelInput.from_ints([1] * 128)]
    expected = tokens(sampler.sample(PROMPTS[0], 2, params).result())
    with counted(sampler) as rows:
        with held(sampler._worker):
            futures = [sampler.sample(prompt, 2, params) for prompt in (PROMPTS[0], *bad, PROMPTS[2])]
        assert [tokens(futures[i].result()) for i in (0, 4)] == [expected, expected]
    for future, words in zip(futures[1:4], ("token id 270", "is empty", "no room for a sample"), strict=True):
        with pytest.raises(DataError, match=words) as caught:
            future.result()
        assert caught.value.index is None
    assert rows == [1, 4, 4]


def test_cancelled_request_is_not_generated(client: TrainingClient) -> None:
    sampler = client.save_weights_and_get_sampling_client()
    with counted(sampler) as rows:
        with held(sampler._worker):
            futures = [sampler.sample(PROMPTS[0], 2, SamplingParams(max_tokens=1)) for _ in range(3)]
            assert futures[1].future().cancel()
        futures[2].result()
        assert sampler.compute_logprobs(PROMPTS[0]).result()
    assert rows == [1]


def test_snapshots_are_not_batched_together(client: TrainingClient) -> None:
    """Requests to two snapshots and to the base alone, alternating in the queue: each gets its own model's tokens."""
    before = client.save_weights_and_get_sampling_client()
    for seed in range(3):
        client.forward_backward(sampled(seed), "cross_entropy")
        client.optim_step(AdamParams(learning_rate=0.1))
    after = client.save_weights_and_get_sampling_client()
    params = SamplingParams(max_tokens=8, seed=0, stop=[])
    own = [tokens(sampler.sample(PROMPTS[0], 2, params).result()) for sampler in (before, after)]
    assert own[0] != own[1]
    with held(before._worker):
        futures = [sampler.sample(PROMPTS[0], 2, params) for _ in range(2) for sampler in (before, after)]
    assert [tokens(future.result()) for future in futures] == own * 2


CALLS = st.lists(
    st.sampled_from(["sample", "greedy", "bad", "forward_backward", "optim_step", "snapshot"]), max_size=12
)


def results(service: ServiceClient, model: str, calls: list[str], *, waiting: bool) -> list[Any]:
    """The result of each call: all are submitted while the worker is busy, or each ends before the next starts."""
    client = service.create_lora_training_client(model, rank=3, seed=0)
    sampler = client.save_weights_and_get_sampling_client()
    futures: list[Any] = []
    gate = threading.Event()
    if not waiting:
        client._worker.submit(gate.wait)
    for k, call in enumerate(calls):
        if call == "snapshot":
            sampler = client.save_weights_and_get_sampling_client()
        elif call == "forward_backward":
            futures.append(client.forward_backward(sampled(k), "cross_entropy"))
        elif call == "optim_step":
            futures.append(client.optim_step(AdamParams(learning_rate=0.1)))
        else:
            prompt = ModelInput.from_ints([999]) if call == "bad" else PROMPTS[k % 4]
            heat = 0.0 if call == "greedy" else 1.0
            futures.append(sampler.sample(prompt, 2, SamplingParams(max_tokens=4, seed=k, temperature=heat)))
        if waiting and futures:
            concurrent.futures.wait([futures[-1].future()])
    gate.set()
    return [said(future) for future in futures]


def said(future: Any) -> Any:
    try:
        found = future.result(TIMEOUT)
    except Exception as error:  # compared with the other order's
        return str(error)
    if isinstance(found, SampleResponse):
        return tokens(found)
    return {name: value for name, value in found.metrics.items() if not name.startswith("time")}


@settings(max_examples=25)
@given(calls=CALLS)
def test_queued_calls_match_calls_one_by_one(calls: list[str], qwen3: Path, tmp_path_factory: Any) -> None:
    service = ServiceClient(home=tmp_path_factory.mktemp("home"))
    run_now = results(service, str(qwen3), calls, waiting=False)
    assert run_now == results(service, str(qwen3), calls, waiting=True)


@pytest.mark.parametrize(
    ("params", "warns"),
    [
        ({}, False),
        ({"temperature": 0.0}, False),
        ({"temperature": 0.0, "top_k": 3}, False),
        ({"temperature": 0.7}, True),
        ({"top_k": 3}, True),
        ({"top_p": 0.9}, True),
    ],
)
def test_changed_distribution_warns_once(params: dict[str, Any], warns: bool, client: TrainingClient) -> None:
    for form in ("sample", "sample_async"):
        sampler = client.save_weights_and_get_sampling_client()

        async def use(sampler: SamplingClient = sampler, form: str = form) -> None:
            for _ in range(2):
                await getattr(sampler, form)(PROMPTS[0], 1, SamplingParams(max_tokens=1, **params))

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            asyncio.run(use())
        assert len(caught) == int(warns)
        assert all(w.category is UserWarning and "importance ratios" in str(w.message) for w in caught)
        assert all(w.filename == __file__ for w in caught)


def test_prompt_topk_by_hand(client: TrainingClient) -> None:
    sampler = client.save_weights_and_get_sampling_client()
    base = client._adapter.base
    with torch.no_grad(), base.using(client._adapter):
        logits = base(input_ids=torch.tensor([[5, 6, 7]])).logits[0].double()
    found = sampler.sample(PROMPTS[0], 1, SamplingParams(max_tokens=1), topk_prompt_logprobs=3).result()
    assert found.topk_prompt_logprobs is not None
    assert found.topk_prompt_logprobs[0] is None
    for position, entries in enumerate(found.topk_prompt_logprobs[1:]):
        best = torch.log_softmax(logits[position], -1).topk(3)
        assert entries is not None
        assert [t for t, _ in entries] == best.indices.tolist()
        assert [p for _, p in entries] == pytest.approx(best.values.tolist(), abs=1e-5)
    single = sampler.sample(PROMPTS[1], 1, SamplingParams(max_tokens=1), topk_prompt_logprobs=2).result()
    assert single.topk_prompt_logprobs == [None]
    assert sampler.sample(PROMPTS[1], 1, SamplingParams(max_tokens=1)).result().topk_prompt_logprobs is None
