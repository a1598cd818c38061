"""The quickstart's loop, as it is written for the hosted service: imitate some sums, save, go on by rewards."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import pytest
from tinker import types

from mint_lab.client.service import ServiceClient
from mint_lab.data import addition_problems, reward
from mint_lab.errors import CheckpointError, ConfigError, DataError

pytestmark = pytest.mark.usefixtures("offline", "fixed_seeds")


def supervised_datum(prompt: list[int], completion: list[int]) -> types.Datum:
    tokens = prompt + completion
    weights = [0.0] * (len(prompt) - 1) + [1.0] * len(completion)
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens=tokens[:-1]),
        loss_fn_inputs={"weights": weights, "target_tokens": tokens[1:]},
    )


def rollout_datum(prompt: list[int], sequence: types.SampledSequence, advantage: float) -> types.Datum:
    tokens = prompt + list(sequence.tokens)
    before = len(prompt) - 1
    return types.Datum(
        model_input=types.ModelInput.from_ints(tokens=tokens[:-1]),
        loss_fn_inputs={
            "target_tokens": tokens[1:],
            "weights": [0.0] * before + [1.0] * len(sequence.tokens),
            "logprobs": [0.0] * before + list(sequence.logprobs or []),
            "advantages": [0.0] * before + [advantage] * len(sequence.tokens),
        },
    )


def imitate(training_client: Any, problems: list[Any], steps: int) -> list[float]:
    """Mean loss of a trained token at each step, nats."""
    tokenizer = training_client.get_tokenizer()
    data = [
        supervised_datum(tokenizer.encode(p.prompt), [*tokenizer.encode(p.answer), tokenizer.eos_token_id])
        for p in problems
    ]
    losses: list[float] = []
    for _ in range(steps):
        fwdbwd_future = training_client.forward_backward(data, "cross_entropy")
        optim_future = training_client.optim_step(types.AdamParams(learning_rate=2e-3))
        outputs = fwdbwd_future.result().loss_fn_outputs
        optim_future.result()
        weighted = [
            (-logprob * weight, weight)
            for output, datum in zip(outputs, data, strict=True)
            for logprob, weight in zip(
                output["logprobs"].tolist(), datum.loss_fn_inputs["weights"].tolist(), strict=True
            )
        ]
        losses.append(sum(loss for loss, _ in weighted) / sum(weight for _, weight in weighted))
    return losses


def reinforce(training_client: Any, problems: list[Any], steps: int, group: int = 8) -> list[float]:
    """Mean reward at each step."""
    tokenizer = training_client.get_tokenizer()
    params = types.SamplingParams(max_tokens=8, temperature=1.0, stop=[tokenizer.eos_token_id])
    rewards: list[float] = []
    for step in range(steps):
        sampling_client = training_client.save_weights_and_get_sampling_client(name=f"rl-{step}")
        prompts = [tokenizer.encode(p.prompt) for p in problems]
        futures = [
            sampling_client.sample(prompt=types.ModelInput.from_ints(q), num_samples=group, sampling_params=params)
            for q in prompts
        ]
        data: list[types.Datum] = []
        found: list[float] = []
        for problem, prompt, future in zip(problems, prompts, futures, strict=True):
            sequences = future.result().sequences
            group_rewards = [reward(tokenizer.decode(s.tokens), problem) for s in sequences]
            found += group_rewards
            baseline = statistics.fmean(group_rewards)
            advantages = [r - baseline for r in group_rewards]
            if any(advantages):
                data += [rollout_datum(prompt, s, a) for s, a in zip(sequences, advantages, strict=True)]
        training_client.forward_backward(data, "importance_sampling").result()
        training_client.optim_step(types.AdamParams(learning_rate=4e-3)).result()
        rewards.append(statistics.fmean(found))
    return rewards


@pytest.mark.slow
def test_imitation_then_rewards(tmp_path: Path) -> None:
    service_client = ServiceClient(home=tmp_path)
    assert "mint-tiny" in [m.model_name for m in service_client.get_server_capabilities().supported_models]
    training_client = service_client.create_lora_training_client(
        base_model="mint-tiny", rank=8, train_mlp=True, train_attn=True, train_unembed=True
    )
    problems = addition_problems(16)
    losses = imitate(training_client, problems, steps=4)
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.9 * losses[0]
    path = training_client.save_state(name="imitated").result().path
    before = training_client.forward([supervised_datum([1, 2], [3])], "cross_entropy").result()

    resumed = service_client.create_training_client_from_state(path)
    after = resumed.forward([supervised_datum([1, 2], [3])], "cross_entropy").result()
    assert after.metrics["loss:sum"] == before.metrics["loss:sum"]
    rewards = reinforce(resumed, problems, steps=12)
    assert statistics.fmean(rewards[-3:]) > statistics.fmean(rewards[:2]) + 0.2
    assert service_client.create_sampling_client(model_path=resumed.save_weights_for_sampler("rl").result().path)


def test_group_of_equal_rewards_has_no_gradient(service: ServiceClient, qwen3: Path) -> None:
    """Group-centred advantages of equal rewards are 0: no gradient, no step, and the client says so."""
    client = service.create_lora_training_client(str(qwen3), rank=2, seed=0)
    sampler = client.save_weights_and_get_sampling_client()
    prompt = [1, 2, 3]
    sequences = (
        sampler.sample(types.ModelInput.from_ints(prompt), 4, types.SamplingParams(max_tokens=3, seed=0))
        .result()
        .sequences
    )
    output = client.forward_backward([rollout_datum(prompt, s, 0.0) for s in sequences], "importance_sampling")
    assert output.result().metrics["loss:sum"] == 0.0
    assert client.optim_step(types.AdamParams(learning_rate=1e-2)).result().metrics["grad_norm"] == 0.0


def test_mistakes_in_the_loop_raise_clear_errors(service: ServiceClient, qwen3: Path) -> None:
    client = service.create_lora_training_client(str(qwen3), rank=2, seed=0)
    data = [supervised_datum([1, 2], [3])]
    with pytest.raises(ConfigError, match="importance_sampling"):
        client.forward_backward(data, "importance_samplng")
    with pytest.raises(DataError, match=r"advantages|logprobs"):
        client.forward_backward(data, "importance_sampling").result()
    with pytest.raises(DataError, match="empty"):
        client.forward_backward([], "cross_entropy").result()
    with pytest.raises(ConfigError, match="checkpoint name"):
        client.save_state(name="a/b")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        service.create_training_client_from_state("tinker://nobody/weights/nothing")
