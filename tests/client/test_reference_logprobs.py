"""Reference log-probabilities of the local client: the base model's, whatever has been learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mint_lab.client.service import ServiceClient
from mint_lab.client.training import TrainingClient
from mint_lab.data import with_reference
from mint_lab.errors import DataError
from mint_lab.types import Datum, ModelInput

from ..engine.batches import datum, sampled
from ..engine.families import build
from .steps import ADAM, PAIRS, assert_same, state, train

DATA = [*PAIRS, *sampled(4, (5, 40, 1), prefix=3)]


def values(data: list[Datum]) -> list[np.ndarray]:
    return [d.loss_fn_inputs["reference_logprobs"].to_numpy() for d in data]


def test_reference_logprobs_are_the_base_models(client: TrainingClient, service: ServiceClient, qwen3: Path) -> None:
    sampler = service.create_sampling_client(base_model=str(qwen3))
    before = with_reference(DATA, client, cache=False)
    train(client, 3)
    client.forward_backward(sampled(7), "cross_entropy").result()
    kept = state(client)
    after = with_reference(DATA, client, cache=False)
    assert_same(state(client), kept)
    for d, first, second in zip(DATA, values(before), values(after), strict=True):
        assert first.tobytes() == second.tobytes()
        tokens = [*d.model_input.to_ints(), int(d.loss_fn_inputs["target_tokens"].to_numpy()[-1])]
        alone = sampler.compute_logprobs(ModelInput.from_ints(tokens)).result()
        assert alone[0] is None
        np.testing.assert_allclose(second, np.array(alone[1:], np.float32), rtol=0, atol=1e-4)


def test_reference_logprobs_are_stored_under_home(
    client: TrainingClient, service: ServiceClient, qwen3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = with_reference(DATA, client)
    train(client, 1)
    other = service.create_lora_training_client(str(qwen3), rank=2, seed=5)
    assert other.reference_folder() == client.reference_folder()
    assert client.reference_folder().parent == service._paths.home / "reference"

    def refuse(self: TrainingClient, data: Any) -> Any:
        raise AssertionError("there is nothing left to compute")

    monkeypatch.setattr(TrainingClient, "reference_logprobs", refuse)
    again = with_reference(DATA, other)
    assert [a.tobytes() for a in values(again)] == [a.tobytes() for a in values(first)]
    assert {file.suffix for file in client.reference_folder().iterdir()} == {".safetensors"}


def test_other_weights_have_another_folder(service: ServiceClient, tmp_path: Path) -> None:
    """The same name and shapes, one weight different."""
    folder = build("qwen3", tmp_path / "m")
    first = service.create_lora_training_client(str(folder), rank=1, seed=0).reference_folder()
    base = service.create_lora_training_client(str(folder), rank=1, seed=0)._adapter.base
    next(iter(base.weights.values())).data[0, 0] += 1.0
    base.fingerprint = None
    assert service.create_lora_training_client(str(folder), rank=1, seed=0).reference_folder() != first


def test_small_micro_batches_change_nothing(service: ServiceClient, qwen3: Path) -> None:
    whole = service.create_lora_training_client(str(qwen3), rank=1)
    cut = service.create_lora_training_client(str(qwen3), rank=1, max_batch_tokens=6)
    for a, b in zip(values(with_reference(DATA, whole)), values(with_reference(DATA, cut, cache=False)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_custom_loss_reads_reference_logprobs(client: TrainingClient) -> None:
    """DPO at the start: policy and reference agree, every margin is 0 and the loss is log 2."""
    data = with_reference(PAIRS, client, cache=False)
    asked = []

    def dpo(data: list[Datum], logprobs_list: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        asked.append([row.to_torch() for row in client.reference_logprobs(data).result()])
        gains = torch.stack(
            [
                (
                    (lp - d.loss_fn_inputs["reference_logprobs"].to_torch()) * d.loss_fn_inputs["weights"].to_torch()
                ).sum()
                for d, lp in zip(data, logprobs_list, strict=True)
            ]
        )
        return -torch.nn.functional.logsigmoid(0.1 * (gains[0::2] - gains[1::2])).mean(), {}

    losses = []
    for _ in range(5):
        losses.append(client.forward_backward_custom(data, dpo).result().metrics["loss"])
        client.optim_step(ADAM).result()
    assert losses[0] == pytest.approx(np.log(2), abs=1e-5)
    assert losses[-1] < losses[0] - 0.01
    for rows in asked:
        for row, kept in zip(rows, values(data), strict=True):
            np.testing.assert_allclose(row.numpy(), kept, atol=1e-5)


def test_bad_data_raises(client: TrainingClient) -> None:
    with pytest.raises(DataError, match="datum 1, field 'model_input': token id 270"):
        with_reference([datum([1, 2]), datum([270, 1])], client)
    with pytest.raises(DataError, match="the batch is empty"):
        client.reference_logprobs([]).result()
