"""The sampling client: snapshots, results in the API's types, and requests it refuses."""

from __future__ import annotations

import ast
import asyncio
import json
import pickle
import shutil
import subprocess
import sys
import warnings
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tinker.types import ImageChunk

from mint_lab import tiny
from mint_lab.client.protocol import SamplingClientProtocol
from mint_lab.client.sampling import SamplingClient
from mint_lab.client.service import ServiceClient
from mint_lab.client.training import TrainingClient
from mint_lab.engine.generation import GenerationRequest
from mint_lab.engine.models import BaseModel
from mint_lab.errors import CheckpointError, ConfigError, DataError
from mint_lab.types import AdamParams, ModelInput, SampleResponse, SamplingParams, TensorData
from tests.waiting import Gate

from ..engine.batches import datum, sampled

PROMPT = ModelInput.from_ints([5, 6, 7])


def train(client: TrainingClient) -> None:
    client.forward_backward(sampled(0), "cross_entropy")
    client.optim_step(AdamParams(learning_rate=5e-2)).result()


def test_sample_returns_the_sdks_types(client: TrainingClient) -> None:
    sampler = client.save_weights_and_get_sampling_client("named")
    response = sampler.sample(
        PROMPT, 3, SamplingParams(max_tokens=4, seed=1, stop=[]), include_prompt_logprobs=True
    ).result()
    assert isinstance(response, SampleResponse)
    assert len(response.sequences) == 3
    for sequence in response.sequences:
        assert (len(sequence.tokens), len(sequence.logprobs or []), sequence.stop_reason) == (4, 4, "length")
        assert all(isinstance(t, int) for t in sequence.tokens)
    assert response.prompt_logprobs is not None
    assert response.prompt_logprobs[0] is None
    assert response.prompt_logprobs[1:] == pytest.approx(sampler.compute_logprobs(PROMPT).result()[1:], rel=1e-6)
    assert sampler.sample(PROMPT, 1, SamplingParams(max_tokens=1)).result().prompt_logprobs is None
    ids = {getattr(s, "sequence_id", i) for i, s in enumerate(response.sequences)}
    assert len(ids) == 3, "sequence ids are distinct where the SDK has them"


def test_sampler_and_trainer_logprobs_agree(client: TrainingClient) -> None:
    """The importance ratio of fresh samples is 1: sampler and trainer agree to 1e-4 nats, token by token."""
    train(client)
    sampler = client.save_weights_and_get_sampling_client()
    sequences = sampler.sample(PROMPT, 6, SamplingParams(max_tokens=12, seed=3)).result().sequences
    data = [datum([5, 6, 7, *s.tokens], [0, 0] + [1] * len(s.tokens)) for s in sequences]
    outputs = client.forward(data, "cross_entropy").result().loss_fn_outputs
    for sequence, output in zip(sequences, outputs, strict=True):
        np.testing.assert_allclose(output["logprobs"].to_numpy()[2:], sequence.logprobs, atol=1e-4)
    whole = ModelInput.from_ints([5, 6, 7, *sequences[0].tokens])
    np.testing.assert_allclose(sampler.compute_logprobs(whole).result()[3:], sequences[0].logprobs, atol=1e-4)  # type: ignore[arg-type]


def test_training_does_not_change_a_snapshot(client: TrainingClient) -> None:
    train(client)
    sampler = client.save_weights_and_get_sampling_client()
    params = SamplingParams(max_tokens=8, seed=0)
    before = sampler.compute_logprobs(PROMPT).result(), sampler.sample(PROMPT, 2, params).result().sequences
    own = client.forward([datum([5, 6, 7], [1, 1])], "cross_entropy").result().metrics["loss:sum"]
    assert own == pytest.approx(-sum(before[0][1:]), rel=1e-5)  # type: ignore[arg-type]
    train(client)
    after = sampler.compute_logprobs(PROMPT).result(), sampler.sample(PROMPT, 2, params).result().sequences
    assert after[0] == before[0]
    assert [s.tokens for s in after[1]] == [s.tokens for s in before[1]]
    moved = client.forward([datum([5, 6, 7], [1, 1])], "cross_entropy").result().metrics["loss:sum"]
    assert abs(moved - own) > 1e-3, "sampling has put the trained weights back"


def test_snapshot_follows_the_order_of_calls(client: TrainingClient) -> None:
    """Taken in the queue's order, even though nothing has been waited for."""
    start = client.save_weights_and_get_sampling_client().compute_logprobs(PROMPT).result()
    client.forward_backward(sampled(0), "cross_entropy")
    before = client.save_weights_and_get_sampling_client()
    client.optim_step(AdamParams(learning_rate=5e-2))
    after = client.save_weights_and_get_sampling_client()
    assert before.compute_logprobs(PROMPT).result() == start
    trained = -client.forward([datum([5, 6, 7], [1, 1])], "cross_entropy").result().metrics["loss:sum"]
    total = [sum(sampler.compute_logprobs(PROMPT).result()[1:]) for sampler in (before, after)]  # type: ignore[arg-type]
    assert total[1] == pytest.approx(trained, rel=1e-5)
    assert abs(total[1] - total[0]) > 1e-3


def test_saved_weights_sample_like_the_snapshot(client: TrainingClient, service: ServiceClient) -> None:
    train(client)
    path = client.save_weights_for_sampler("s").result().path
    snapshot = client.save_weights_and_get_sampling_client().compute_logprobs(PROMPT).result()
    train(client)
    for sampler in (client.create_sampling_client(path), service.create_sampling_client(model_path=path)):
        assert sampler.compute_logprobs(PROMPT).result()[1:] == pytest.approx(snapshot[1:], rel=1e-6)


def test_base_model_without_adapter(client: TrainingClient, service: ServiceClient, qwen3: Path) -> None:
    """LoRA starts at B = 0, so a fresh client is the base model; a trained one is not, and leaves it alone."""
    base = service.create_sampling_client(base_model=str(qwen3))
    start = base.compute_logprobs(PROMPT).result()
    fresh = client.save_weights_and_get_sampling_client().compute_logprobs(PROMPT).result()
    assert fresh[1:] == pytest.approx(start[1:], rel=1e-6)
    train(client)
    assert base.compute_logprobs(PROMPT).result() == start
    trained = client.save_weights_and_get_sampling_client().compute_logprobs(PROMPT).result()
    own = -client.forward([datum([5, 6, 7], [1, 1])], "cross_entropy").result().metrics["loss:sum"]
    assert sum(trained[1:]) == pytest.approx(own, rel=1e-5)  # type: ignore[arg-type]
    assert abs(own - sum(start[1:])) > 1e-3  # type: ignore[arg-type]


def test_stop_strings_and_tokens(client: TrainingClient) -> None:
    sampler = client.save_weights_and_get_sampling_client()
    tokenizer = client.get_tokenizer()
    free = sampler.sample(PROMPT, 1, SamplingParams(max_tokens=20, seed=2, stop=[])).result().sequences[0]
    third = free.tokens[2]
    first = free.tokens.index(third) + 1
    by_token = sampler.sample(PROMPT, 1, SamplingParams(max_tokens=20, seed=2, stop=[third])).result().sequences[0]
    assert (by_token.tokens, by_token.stop_reason) == (free.tokens[:first], "stop")
    text = next(text for text in map(tokenizer.decode, free.tokens[2:]) if text.isascii())
    cut = next(k for k in range(1, 21) if text in tokenizer.decode(free.tokens[:k]))
    for stop in (text, [text], ["never", text]):
        by_text = sampler.sample(PROMPT, 1, SamplingParams(max_tokens=20, seed=2, stop=stop)).result().sequences[0]
        assert (by_text.tokens, by_text.stop_reason) == (free.tokens[:cut], "stop")
    assert (len(free.tokens), free.stop_reason) == (20, "length")


def test_every_setting_of_a_request_reaches_generation(client: TrainingClient) -> None:
    sampler = client.save_weights_and_get_sampling_client()
    end = client.get_tokenizer().eos_token_id
    params = SamplingParams(max_tokens=7, temperature=0.5, top_k=9, top_p=0.75, seed=123, stop=["a", "b"])
    expected = GenerationRequest([5, 6], 3, 7, 0.5, 9, 0.75, 123, frozenset([end]), ("a", "b"), 4)
    assert sampler._request([5, 6], 3, params, 4) == expected
    default = GenerationRequest([5, 6], 1, 126, stop_tokens=frozenset([end]))
    assert sampler._request([5, 6], 1, SamplingParams(), 0) == default, "the rest of a context of 128 tokens"
    assert sampler._request([5] * 128, 1, SamplingParams(), 0).max_tokens == 1
    stops = {str(stop): sampler._stops(stop) for stop in ("a", [3], [], None)}
    assert stops == {
        "a": (frozenset([end]), ("a",)),
        "[3]": (frozenset([3, end]), ()),
        "[]": (frozenset(), ()),
        "None": (frozenset([end]), ()),
    }


def test_samples_depend_on_their_seed_alone(client: TrainingClient) -> None:
    """The same seed repeats its samples; of 30 tokens drawn from 270, two seeds share few."""
    sampler = client.save_weights_and_get_sampling_client()
    drawn = [sampler.sample(PROMPT, 3, SamplingParams(max_tokens=10, seed=seed, stop=[])) for seed in (4, 5, 4)]
    first, other, again = (
        [token for sequence in future.result().sequences for token in sequence.tokens] for future in drawn
    )
    assert first == again
    assert sum(a == b for a, b in zip(first, other, strict=True)) < 10


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, None),
        ({"top_p": 1.0, "top_k": -1, "temperature": 1.0}, None),
        ({"temperature": 0.0, "top_p": 0.5}, None),
        ({"top_p": 0.999}, "temperature=1, top_k=-1, top_p=0.999"),
        ({"top_k": 270}, "temperature=1, top_k=270, top_p=1"),
        ({"temperature": 1.001}, "temperature=1.001, top_k=-1, top_p=1"),
    ],
)
def test_changed_distribution_is_named_once(client: TrainingClient, settings: dict[str, Any], text: str | None) -> None:
    sampler = client.save_weights_and_get_sampling_client()
    params = SamplingParams(max_tokens=1, **settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            sampler.sample(PROMPT, 1, params).result()
    expected = (
        f"{text}: the samples' log-probabilities are those of this changed distribution and a trainer's are not, so "
        "importance ratios between them are biased; if ratios matter, sample with temperature=1, top_k=-1, top_p=1"
    )
    assert [str(one.message) for one in caught] == ([] if text is None else [expected])
    assert [one.filename for one in caught] == [__file__] * len(caught), "the caller's line"


def test_end_of_text_stops_by_default(client: TrainingClient) -> None:
    end = client.get_tokenizer().eos_token_id
    sampler = client.save_weights_and_get_sampling_client()
    for stop, stops in ((None, True), (["zzz"], True), ([3], True), ([], False)):
        params = SamplingParams(max_tokens=120, seed=0, stop=stop, temperature=30.0)
        with nullcontext() if stop is not None else pytest.warns(UserWarning, match="temperature=30"):
            found = [s for s in sampler.sample(PROMPT, 4, params).result().sequences if end in s.tokens]
        assert found, "the test needs a sample with the end token"
        last = [s.tokens.index(end) == len(s.tokens) - 1 and s.stop_reason == "stop" for s in found]
        assert all(last) == stops


def test_sample_without_max_tokens_fills_the_context(client: TrainingClient) -> None:
    sampler = client.save_weights_and_get_sampling_client()
    prompt = ModelInput.from_ints(list(range(120)))
    for limit in (None, 1000):
        (sequence,) = sampler.sample(prompt, 1, SamplingParams(max_tokens=limit, stop=[])).result().sequences
        assert (len(sequence.tokens), sequence.stop_reason) == (8, "length")


REFUSED: list[tuple[Any, int, dict[str, Any], dict[str, Any], type[Exception], str]] = [
    (PROMPT, 0, {}, {}, ConfigError, "num_samples is 0, expected 1 or more"),
    (PROMPT, "2", {}, {}, ConfigError, "num_samples is '2'"),  # type: ignore[list-item]
    (PROMPT, 1, {"max_tokens": 0}, {}, ConfigError, "max_tokens is 0"),
    (PROMPT, 1, {"temperature": -1.0}, {}, ConfigError, "temperature is -1.0"),
    (PROMPT, 1, {"temperature": float("nan")}, {}, ConfigError, "temperature is nan"),
    (PROMPT, 1, {"top_p": 0.0}, {}, ConfigError, "top_p is 0.0"),
    (PROMPT, 1, {"top_k": 0}, {}, ConfigError, "top_k is 0"),
    (PROMPT, 1, {"stop": ""}, {}, ConfigError, "no empty string"),
    (PROMPT, 1, {}, {"topk_prompt_logprobs": 271}, ConfigError, "topk_prompt_logprobs is 271, expected 0 to 270"),
    (PROMPT, 1, {}, {"topk_prompt_logprobs": True}, ConfigError, "topk_prompt_logprobs is True"),
    (PROMPT, 1, {}, {"topk_sample_logprobs": -1}, ConfigError, "topk_sample_logprobs is -1, expected 0 to 270"),
    (PROMPT, 1, {}, {"topk_sample_logprobs": 1.5}, ConfigError, "topk_sample_logprobs is 1.5"),
    (PROMPT, 1, {}, {"prompt_alt_tokens_k": 271}, ConfigError, "prompt_alt_tokens_k is 271, expected 0 to 270"),
    (PROMPT, 1, {}, {"prompt_logprobs_last_n": 1}, ConfigError, "no log-probabilities of the prompt are requested"),
    (PROMPT, 1, {}, {"prompt_logprobs_last_n": 0, "include_prompt_logprobs": True}, ConfigError, "last_n is 0"),
    (PROMPT, 1, {}, {"prompt_logprobs_last_n": True, "topk_prompt_logprobs": 1}, ConfigError, "last_n is True"),
    (PROMPT, 1, {}, {"target_prompt_logprobs": [[1, 2]]}, ConfigError, r"shape \(1, 2\).*expected .*\(2, K\)"),
    (PROMPT, 1, {}, {"target_prompt_logprobs": [1, 2]}, ConfigError, r"shape \(2,\)"),
    (PROMPT, 1, {}, {"target_prompt_logprobs": [[1.0], [2.0]]}, ConfigError, "type float64, expected whole numbers"),
    (PROMPT, 1, {}, {"target_prompt_logprobs": [[1], [270]]}, ConfigError, "from 1 to 270, expected -1 .none. to 269"),
    (PROMPT, 1, {}, {"target_prompt_logprobs": [[-2], [0]]}, ConfigError, "from -2 to 0"),
    (PROMPT, 1, {}, {"target_prompt_logprobs": [[1], [2, 3]]}, ConfigError, "cannot be read as an array"),
    ("hello", 1, {}, {}, DataError, r"field 'prompt': got str .*expected ModelInput.from_ints"),
    (ModelInput(chunks=[ImageChunk(data=b"", format="png")]), 1, {}, {}, DataError, "field 'prompt'"),
    (ModelInput.empty(), 1, {}, {}, DataError, "is empty"),
    (ModelInput.from_ints([270]), 1, {}, {}, DataError, "token id 270 at position 0, expected 0 to 269"),
    (ModelInput.from_ints([1] * 129), 1, {}, {}, DataError, "129 tokens, but the model's context is 128"),
    (ModelInput.from_ints([1] * 128), 1, {}, {}, DataError, "128 tokens fill the model's context"),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_bad_requests_raise(case: int, client: TrainingClient) -> None:
    prompt, samples, params, options, kind, words = REFUSED[case]
    sampler = client.save_weights_and_get_sampling_client()
    with pytest.raises(kind, match=words):
        sampler.sample(prompt, samples, SamplingParams(**params), **options).result()
    (sequence,) = sampler.sample(PROMPT, 1, SamplingParams(max_tokens=1)).result().sequences
    assert len(sequence.tokens) == 1, "the client still answers"


def test_compute_logprobs_by_hand(client: TrainingClient) -> None:
    sampler = client.save_weights_and_get_sampling_client()
    model = client._adapter.base
    with torch.no_grad(), model.using(client._adapter):
        logits = model(input_ids=torch.tensor([[5, 6, 7]])).logits[0].double()
    expected = [None, *(float(torch.log_softmax(logits[i], -1)[t]) for i, t in ((0, 6), (1, 7)))]
    found = sampler.compute_logprobs(PROMPT).result()
    assert found[0] is None
    assert found[1:] == pytest.approx(expected[1:], abs=1e-5)
    assert sampler.compute_logprobs(ModelInput.from_ints([5])).result() == [None]
    with pytest.raises(DataError, match="got list"):
        sampler.compute_logprobs([5, 6])  # type: ignore[arg-type]


def test_prompts_that_wait_are_one_pass(client: TrainingClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six calls while the model is busy: one pass; each gets what it gets alone, and an invalid one its own error."""
    sampler = client.save_weights_and_get_sampling_client()
    prompts = [[5, 6, 7], [9], [5, 6, 8, 2], [], [1] * 129, [3, 250, 4]]
    alone = [sampler.compute_logprobs(ModelInput.from_ints(p)).result() for p in prompts if 0 < len(p) < 129]
    passes: list[int] = []
    backbone = BaseModel.backbone

    def counted(self: BaseModel, layout: Any, **options: Any) -> Any:
        passes.append(len(layout.token_index))
        return backbone(self, layout, **options)

    monkeypatch.setattr(BaseModel, "backbone", counted)
    gate = Gate(holds=1)
    sampler._worker.submit(gate)
    gate.wait()
    futures = [sampler.compute_logprobs(ModelInput.from_ints(p)) for p in prompts]
    gate.open()
    for position, words in ((3, "empty"), (4, "129 tokens, but the model's context is 128")):
        with pytest.raises(DataError, match=words):
            futures.pop(position - (position == 4)).result()
    for future, expected in zip(futures, alone, strict=True):
        found = future.result()
        assert found[0] is None
        assert found[1:] == pytest.approx(expected[1:], abs=1e-5)
    assert passes == [3], "one pass over the prompts that have a token to predict"


def test_async_forms(client: TrainingClient, qwen3: Path) -> None:
    sampler = client.save_weights_and_get_sampling_client()

    async def use() -> None:
        params = SamplingParams(max_tokens=2, seed=1)
        both = await asyncio.gather(sampler.sample_async(PROMPT, 1, params), sampler.sample_async(PROMPT, 1, params))
        assert both[0].sequences[0].tokens == both[1].sequences[0].tokens
        assert len(await sampler.compute_logprobs_async(PROMPT)) == 3
        assert await sampler.get_base_model_async() == str(qwen3)
        assert await sampler is sampler

    asyncio.run(use())
    assert isinstance(sampler, SamplingClientProtocol)
    assert sampler.get_tokenizer() is client.get_tokenizer()
    assert repr(sampler) == f"SamplingClient({str(qwen3)!r})"
    assert isinstance(sampler.result(), SamplingClient)


def test_invalid_parameters_raise(client: TrainingClient) -> None:
    sampler = client.save_weights_and_get_sampling_client()
    with pytest.raises(ConfigError, match=r"^sampling_params is {'max_tokens': 3}, expected SamplingParams\("):
        sampler.sample(PROMPT, 1, {"max_tokens": 3})  # type: ignore[arg-type]


@pytest.mark.parametrize("given", ["alone", "list"])
def test_ends_of_the_generation_configuration_end_a_sample(tmp_path: Path, given: str) -> None:
    """Gemma, Phi and Llama 3 name a list: the end of the text, and the mark that ends a turn. As transformers does."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path / "m"
    shutil.copytree(tiny.path(), folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer.encode("Question: What is 36 + 47?\nAnswer:")
    greedy = SamplingParams(max_tokens=8, temperature=0)

    def sampled_tokens(model: str) -> Any:
        sampler = ServiceClient().create_sampling_client(base_model=model)
        return sampler.sample(ModelInput.from_ints(prompt), 1, greedy).result().sequences[0]

    end = int(sampled_tokens("mint-tiny").tokens[1])
    ends = end if given == "alone" else [tokenizer.eos_token_id, end]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    model = AutoModelForCausalLM.from_pretrained(folder)
    expected = model.generate(torch.tensor([prompt]), max_new_tokens=8, do_sample=False)[0, len(prompt) :].tolist()
    found = sampled_tokens(str(folder))
    assert [int(token) for token in found.tokens] == expected
    assert (len(expected), found.stop_reason) == (2, "stop")


def test_everything_that_a_sample_call_can_return(client: TrainingClient) -> None:
    """Each in its own call, and all in one: the same numbers, in the fields of the SDK."""
    sampler = client.save_weights_and_get_sampling_client()
    params = SamplingParams(max_tokens=3, seed=4)
    targets = TensorData.from_numpy(np.array([[6, -1], [3, 7]]))
    every = sampler.sample(
        PROMPT,
        2,
        params,
        include_prompt_logprobs=True,
        topk_prompt_logprobs=2,
        topk_sample_logprobs=3,
        target_prompt_logprobs=targets,
        prompt_alt_tokens_k=5,
    ).result()
    plain = sampler.sample(PROMPT, 2, params).result()
    logprobs = sampler.compute_logprobs(PROMPT).result()
    assert every.prompt_logprobs == pytest.approx(logprobs, abs=1e-6)
    for one, other in zip(every.sequences, plain.sequences, strict=True):
        assert (one.tokens, one.logprobs, other.topk_logprobs) == (other.tokens, other.logprobs, None)
        assert one.topk_logprobs is not None
        for token, logprob, top in zip(one.tokens, one.logprobs or (), one.topk_logprobs, strict=True):
            assert top is not None
            assert [p for _, p in top] == sorted((p for _, p in top), reverse=True)
            assert dict(top).get(token, logprob) == pytest.approx(logprob, abs=1e-5)
    found = every.target_prompt_logprobs
    assert found is not None
    (a, none), (b, c) = found.tolist()
    assert (found.dtype, found.shape, none) == ("float32", [2, 2], 0.0)
    for place, token, value in ((1, 6, a), (2, 3, b), (2, 7, c)):
        other = [*PROMPT.to_ints()[:place], token]
        assert sampler.compute_logprobs(ModelInput.from_ints(other)).result()[-1] == pytest.approx(value, abs=1e-4)
    drawn = every.prompt_alt_tokens
    assert drawn is not None
    assert (drawn.tokens.dtype, drawn.tokens.shape, drawn.logprobs.dtype) == ("int64", [2, 5], "float32")
    again = sampler.sample(PROMPT, 1, params, prompt_alt_tokens_k=5).result().prompt_alt_tokens
    assert again is not None
    assert again.tokens.tolist() == drawn.tokens.tolist(), "the request's seed is that of the draws"


def test_only_the_last_tokens_of_a_prompt(client: TrainingClient) -> None:
    sampler = client.save_weights_and_get_sampling_client()
    whole = sampler.compute_logprobs(PROMPT).result()
    assert sampler.compute_logprobs(PROMPT, 1).result() == pytest.approx([None, None, whole[2]], abs=1e-5)
    assert asyncio.run(sampler.compute_logprobs_async(PROMPT, prompt_logprobs_last_n=9)) == pytest.approx(
        whole, abs=1e-5
    )
    found = sampler.sample(
        PROMPT,
        1,
        SamplingParams(max_tokens=1),
        include_prompt_logprobs=True,
        topk_prompt_logprobs=2,
        prompt_logprobs_last_n=1,
    ).result()
    assert found.prompt_logprobs == pytest.approx([None, None, whole[2]], abs=1e-5)
    assert found.topk_prompt_logprobs is not None
    assert [entry is None for entry in found.topk_prompt_logprobs] == [True, True, False]
    with pytest.raises(ConfigError, match="prompt_logprobs_last_n is 0"):
        sampler.compute_logprobs(PROMPT, 0)


@pytest.mark.parametrize(
    ("argument", "value"),
    [("topk_sample_logprobs", 1), ("target_prompt_logprobs", [[1], [2]]), ("prompt_alt_tokens_k", 1)],
)
def test_an_sdk_without_a_field_for_the_result_is_named(
    argument: str, value: Any, client: TrainingClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mint_lab.client.sampling.fields", lambda response: ())
    with pytest.raises(ConfigError, match=f"{argument} needs a later version of tinker: .* has no field"):
        client.save_weights_and_get_sampling_client().sample(
            PROMPT, 1, SamplingParams(max_tokens=1), **{argument: value}
        )


# --- in another process ----------------------------------------------------------------------------------------------


def test_a_handle_makes_the_same_client(service: ServiceClient, client: TrainingClient, qwen3: Path) -> None:
    """Of a snapshot, whatever is trained afterwards; of saved weights; of the base model alone."""
    train(client)
    snapshot = client.save_weights_and_get_sampling_client()
    saved = service.create_sampling_client(client.save_state("a").result().path)
    plain = service.create_sampling_client(base_model=str(qwen3))
    train(client)
    params = SamplingParams(max_tokens=4, seed=1)
    found = []
    for sampler in (snapshot, saved, plain):
        handle = sampler.get_sampler_handle()
        assert sampler.get_sampler_handle() == handle
        other = SamplingClient.from_sampler_handle(handle, api_key="not used")
        assert other.compute_logprobs(PROMPT).result() == sampler.compute_logprobs(PROMPT).result()
        copy = pickle.loads(pickle.dumps(sampler))
        assert copy.sample(PROMPT, 1, params).result().sequences[0].tokens == (
            sampler.sample(PROMPT, 1, params).result().sequences[0].tokens
        )
        found.append(other.compute_logprobs(PROMPT).result())
    assert found[0] == found[1] != found[2]
    kept = [c.tinker_path for c in service.create_rest_client().list_user_checkpoints().result().checkpoints]
    assert sum("/sampler_weights/handle" in path for path in kept) == 2


def test_a_handle_works_in_another_process(service: ServiceClient, client: TrainingClient) -> None:
    train(client)
    sampler = client.save_weights_and_get_sampling_client()
    program = f"""
from mint_lab.client.sampling import SamplingClient
from mint_lab.types import ModelInput
client = SamplingClient.from_sampler_handle({sampler.get_sampler_handle()!r})
print(client.compute_logprobs(ModelInput.from_ints({PROMPT.to_ints()})).result())
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    _, *found = ast.literal_eval(done.stdout)
    assert found == pytest.approx(sampler.compute_logprobs(PROMPT).result()[1:], abs=1e-6)


@pytest.mark.parametrize(
    "handle", ["", "x", "[]", "{}", '{"device": "cpu"}', None, 3, '{"device": "cpu", "dtype": "a"}']
)
def test_a_handle_of_something_else_is_refused(handle: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"is no handle of a sampler here; expected what get_sampler_handle\(\) returns"
    ):
        SamplingClient.from_sampler_handle(handle)


def test_a_handle_whose_checkpoint_is_gone(client: TrainingClient, service: ServiceClient) -> None:
    handle = client.save_weights_and_get_sampling_client().get_sampler_handle()
    shutil.rmtree(json.loads(handle)["model_path"])
    with pytest.raises(CheckpointError, match="handle"):
        SamplingClient.from_sampler_handle(handle)
