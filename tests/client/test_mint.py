"""MinT's own two calls: by hand arithmetic on logits and matrices, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mint_lab.client.mint import ReverseKLDatum, forward_backward_reverse_kl, interpolate_checkpoints
from mint_lab.client.service import ServiceClient
from mint_lab.client.training import TrainingClient
from mint_lab.engine.checkpoints import load_checkpoint
from mint_lab.errors import CheckpointError, ConfigError, DataError
from mint_lab.lora_options import LoraOptions
from mint_lab.types import AdamParams, ModelInput, TensorData

from ..engine.families import build
from ..engine.more_families import MIXTURES
from .steps import assert_same, state, train, weights

EXPERTS = MIXTURES["qwen3_moe"]["num_experts"]


def kl_datum(prompt: list[int], completion: list[int], reference_prompt: list[int] | None = None) -> ReverseKLDatum:
    """The completion counts; the reference may have seen another prompt."""
    student = [*prompt, *completion]
    reference = [*(reference_prompt or prompt), *completion]
    live = np.arange(1, len(student)) >= len(prompt)
    return ReverseKLDatum(
        ModelInput.from_ints(student[:-1]),
        ModelInput.from_ints(reference[:-1]),
        TensorData.from_numpy(np.array(student[1:], np.int64)),
        TensorData.from_numpy(live.astype(np.float32)),
    )


DATA = [kl_datum([9, 8, 7], [1, 2, 3]), kl_datum([4], [5, 6], [3, 2, 4])]


def logits(client: TrainingClient, tokens: list[int], adapter: Any) -> torch.Tensor:
    """``(tokens, vocab)``, by the model itself."""
    base = client._adapter.base
    with torch.no_grad(), base.using(adapter):
        return base(input_ids=torch.tensor([tokens]), use_cache=False).logits[0].double()


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_reverse_kl_by_hand(client: TrainingClient, temperature: float) -> None:
    train(client)
    found = forward_backward_reverse_kl(
        client, reference_model_path=client._adapter.base.name, data=DATA, temperature=temperature
    )
    total = 0.0
    for datum, output in zip(DATA, found.outputs, strict=True):
        student, reference = datum.student_input.to_ints(), datum.reference_input.to_ints()
        count = int(datum.weights.to_numpy().sum())
        p = (logits(client, student, client._adapter)[-count:] / temperature).softmax(-1)
        q = (logits(client, reference, None)[-count:] / temperature).softmax(-1)
        expected = (p * (p / q).log()).sum(-1)
        values = output.loss.to_torch()
        assert values.shape == (len(student),)
        assert values[:-count].abs().sum() == 0
        torch.testing.assert_close(values[-count:].double(), expected, rtol=1e-4, atol=1e-7)
        total += float(expected.sum())
    assert total > 1e-4
    assert found.metrics == pytest.approx({"loss:sum": total, "reverse_kl:mean": total / 5}, rel=1e-4)


def test_reverse_kl_gradient_by_difference(client: TrainingClient) -> None:
    """A central difference along the gradient itself: its slope is the gradient's squared norm."""
    train(client)
    name = client._adapter.base.name
    client._adapter.gradients = None

    def value() -> float:
        found = forward_backward_reverse_kl(client, reference_model_path=name, data=DATA).metrics["loss:sum"]
        client._adapter.gradients = None
        return found

    forward_backward_reverse_kl(client, reference_model_path=name, data=DATA)
    gradient = [g.clone() for g in client._adapter.gradients or []]
    norm = float(sum((g.double() ** 2).sum() for g in gradient)) ** 0.5
    start = [p.detach().clone() for p in client._adapter.parameters.values()]
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            for p, s, g in zip(client._adapter.parameters.values(), start, gradient, strict=True):
                p.copy_(s + sign * 1e-2 / norm * g)
        values.append(value())
    assert (values[0] - values[1]) / 2e-2 == pytest.approx(norm, rel=1e-2)


def test_student_approaches_its_teacher(client: TrainingClient) -> None:
    train(client, steps=4)
    path = client.save_weights_for_sampler("teacher").result().path
    train(client, steps=4, seed=7)
    values = []
    for _ in range(30):
        values.append(forward_backward_reverse_kl(client, reference_model_path=path, data=DATA).metrics["loss:sum"])
        client.optim_step(AdamParams(learning_rate=2e-3)).result()
    assert values[-1] < 0.5 * values[0]


def test_reverse_kl_to_itself_is_zero(client: TrainingClient) -> None:
    train(client)
    path = client.save_state("now").result().path
    found = forward_backward_reverse_kl(client, reference_model_path=path, data=DATA[:1])
    assert found.metrics["loss:sum"] == pytest.approx(0, abs=1e-6)


def test_bad_input_keeps_accumulated_gradient(client: TrainingClient) -> None:
    train(client)
    before = state(client)
    name = client._adapter.base.name

    def call(data: Any = DATA, path: str = name, temperature: Any = 1.0) -> Any:
        return forward_backward_reverse_kl(client, reference_model_path=path, data=data, temperature=temperature)

    with pytest.raises(ConfigError, match="temperature is 0"):
        call(temperature=0)
    with pytest.raises(DataError, match="the batch is empty"):
        call([])
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        call(path="tinker://none/weights/x")
    other = ReverseKLDatum(
        DATA[0].student_input, ModelInput.from_ints([1, 1, 1, 1, 1]), DATA[0].target_tokens, DATA[0].weights
    )
    with pytest.raises(DataError, match="datum 1, field 'reference_input': position 3 predicts token 2") as caught:
        call([DATA[0], other])
    assert caught.value.index == 1
    short = ReverseKLDatum(
        DATA[0].student_input, DATA[0].reference_input, DATA[0].target_tokens, TensorData.from_numpy(np.ones(2))
    )
    with pytest.raises(DataError, match=r"datum 0, field 'weights': shape \(2,\), expected \(5,\)"):
        call([short])
    assert_same(before, state(client))


def delta(folder: Any) -> dict[str, torch.Tensor]:
    """What a checkpoint adds to each layer: its scale times B A."""
    found = load_checkpoint(folder)
    return {
        name: found.lora.scaling * found.weights[name.replace("lora_A", "lora_B")].double() @ a.double()
        for name, a in found.weights.items()
        if "lora_A" in name
    }


def test_interpolated_updates_add_up(service: ServiceClient, client: TrainingClient, qwen3: Any) -> None:
    """Also of adapters whose ranks and scales differ."""
    other = service.create_lora_training_client(str(qwen3), seed=5, lora=LoraOptions(2, alpha=8, rslora=True))
    train(client)
    train(other, seed=3)
    one, two = client.save_state("a").result().path, other.save_weights_for_sampler("b").result().path
    found = interpolate_checkpoints(service, source_paths=[one, two], coefficients=[0.25, -1.5])
    assert (found.checkpoint_type, found.coefficients, found.source_paths) == ("sampler", [0.25, -1.5], [one, two])
    a, b, c = (delta(service._paths.folder(path)) for path in (one, two, found.path))
    assert a.keys() == b.keys() == c.keys()
    for name in a:
        assert float(c[name].abs().max()) > 0
        torch.testing.assert_close(c[name], 0.25 * a[name] - 1.5 * b[name], rtol=1e-5, atol=1e-8)
    sampler = service.create_sampling_client(model_path=found.path)
    assert len(sampler.compute_logprobs(ModelInput.from_ints([1, 2, 3])).result()) == 3


def test_interpolated_updates_of_every_expert_add_up(service: ServiceClient, tmp_path: Path) -> None:
    """The factors of a mixture's experts are stacked; the update of one expert is that of PEFT's einsum."""
    folder = build("qwen3_moe", tmp_path / "model", MIXTURES["qwen3_moe"])
    one, two = (
        service.create_lora_training_client(str(folder), rank=rank, seed=rank, train_attn=False, train_unembed=False)
        for rank in (2, 3)
    )
    train(one)
    train(two, seed=3)
    paths = [client.save_weights_for_sampler("a").result().path for client in (one, two)]
    found = interpolate_checkpoints(service, source_paths=paths, coefficients=[0.25, -1.5])

    def updates(path: str) -> dict[str, torch.Tensor]:
        """``(experts, in, out)`` by layer."""
        saved = load_checkpoint(service._paths.folder(path))
        made: dict[str, torch.Tensor] = {}
        for name, a in saved.weights.items():
            if ".experts." in name and "lora_A" in name:
                b = saved.weights[name.replace("lora_A", "lora_B")].double()
                per_expert = a.double().reshape(EXPERTS, -1, a.shape[1]), b.reshape(len(b), -1, EXPERTS)
                made[name] = saved.lora.scaling * torch.einsum("eri,ore->eio", *per_expert)
        return made

    a, b, c = map(updates, (*paths, found.path))
    assert len(a) > 1
    assert a.keys() == c.keys()
    for name, update in c.items():
        assert float(update.abs().amax(dim=(1, 2)).min()) > 0, "every expert has an update"
        torch.testing.assert_close(update, 0.25 * a[name] - 1.5 * b[name], rtol=1e-5, atol=1e-8)


def test_dropout_acts_on_the_student(service: ServiceClient, client: TrainingClient, qwen3: Any) -> None:
    """In training, with masks of its own for every pass; the reference has none."""
    train(client)
    path = client.save_state("a").result().path
    plain, dropping = (
        service.create_lora_training_client(str(qwen3), seed=0, lora=LoraOptions(3, dropout=rate))
        for rate in (0.0, 0.5)
    )
    for student in (plain, dropping):
        student.load_state(path).result()

    def divergence(student: TrainingClient) -> float:
        return forward_backward_reverse_kl(student, reference_model_path=path, data=DATA[:1]).metrics["loss:sum"]

    assert abs(divergence(plain)) < 1e-5
    first, second = divergence(dropping), divergence(dropping)
    assert min(first, second) > 1e-4
    assert first != second


def test_single_source_is_unchanged(service: ServiceClient, client: TrainingClient) -> None:
    train(client)
    path = client.save_weights_for_sampler("a").result().path
    found = interpolate_checkpoints(service, source_paths=[path, path], coefficients=[1, 0])
    assert_same(load_checkpoint(service._paths.folder(found.path)).weights, weights(client))


def test_bad_interpolations_raise(service: ServiceClient, client: TrainingClient, qwen3: Any) -> None:
    path = client.save_weights_for_sampler("a").result().path

    def call(paths: Any, coefficients: Any, **options: Any) -> Any:
        return interpolate_checkpoints(service, source_paths=paths, coefficients=coefficients, **options)

    with pytest.raises(ConfigError, match="1 source_paths and 2 coefficients"):
        call([path], [1, 2])
    with pytest.raises(ConfigError, match="finite numbers"):
        call([path], [float("nan")])
    with pytest.raises(ConfigError, match="every coefficient is 0"):
        call([path], [0.0])
    with pytest.raises(ConfigError, match="expected 'sampler'"):
        call([path], [1.0], output_checkpoint_type="training")
    with pytest.raises(CheckpointError, match="exists"):
        call([path], [1.0], output_path=path)
    with pytest.raises(CheckpointError, match="not a checkpoint path"):
        call([path], [1.0], output_path="somewhere")
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        call(["tinker://none/weights/x"], [1.0])
    other = service.create_lora_training_client(str(qwen3), rank=2, seed=5, train_mlp=False)
    with pytest.raises(CheckpointError, match="adapters on the same layers"):
        call([path, other.save_weights_for_sampler("b").result().path], [1.0, 1.0])
