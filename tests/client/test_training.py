"""The training client's calls: order, results, errors that change nothing, and nothing that leaks."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mint_lab.client.service import ServiceClient
from mint_lab.client.training import TrainingClient
from mint_lab.errors import CheckpointError, ConfigError, LossError, ModelError
from mint_lab.losses import LOSSES
from mint_lab.types import (
    AdamParams,
    Datum,
    ForwardBackwardOutput,
    GetInfoResponse,
    LoadWeightsResponse,
    ModelInput,
    OptimStepResponse,
    SaveWeightsForSamplerResponse,
    SaveWeightsResponse,
    TensorData,
)
from tests.waiting import TIMEOUT

from ..engine.batches import datum, sampled
from .steps import ADAM, PAIRS, assert_same, state, sum_loss, train, weights


def test_forward_backward_returns_the_sdks_types(client: TrainingClient) -> None:
    data = sampled(0)
    output = client.forward_backward(data, "cross_entropy").result()
    assert isinstance(output, ForwardBackwardOutput)
    assert output.loss_fn_output_type == "ArrayRecord"
    assert all(isinstance(o["logprobs"], TensorData) for o in output.loss_fn_outputs)
    by_hand = 0.0
    for d, found in zip(data, output.loss_fn_outputs, strict=True):
        logprobs = found["logprobs"].to_torch()
        assert logprobs.shape == (d.model_input.length,)
        assert logprobs.dtype == torch.float32
        by_hand -= float((logprobs * d.loss_fn_inputs["weights"].to_torch()).sum())
    assert output.metrics["loss:sum"] == pytest.approx(by_hand, rel=1e-5)
    for key, value in output.metrics.items():
        assert isinstance(value, float)
        assert key.count(":") <= 1, "keys are split on ':' into name and reduction"
    assert output.metrics["passes:max"] == output.metrics["micro_batches:max"] == 1
    assert output.metrics["time:sum"] > 0


def test_forward_accumulates_no_gradient(client: TrainingClient) -> None:
    for loss in ("cross_entropy", "ppo", "dro"):
        without = client.forward(sampled(0), loss).result()
        assert client._adapter.gradients is None
        with_gradient = client.forward_backward(sampled(0), loss).result()
        client.optim_step(AdamParams(learning_rate=0)).result()
        assert without.metrics["loss:sum"] == pytest.approx(with_gradient.metrics["loss:sum"], rel=1e-6)
        for a, b in zip(without.loss_fn_outputs, with_gradient.loss_fn_outputs, strict=True):
            torch.testing.assert_close(a["logprobs"].to_torch(), b["logprobs"].to_torch(), rtol=1e-6, atol=1e-6)


def test_returned_gradients_by_hand(client: TrainingClient) -> None:
    """d(-sum w log p) / d log p = -w, exactly; for a custom loss the same."""
    data = [datum([1, 2, 3, 4], [0, 0.5, 2]), datum([5, 6], [1])]
    output = client.forward_backward(data, "cross_entropy", return_gradients=True).result()
    assert [o["gradients"].to_numpy().tolist() for o in output.loss_fn_outputs] == [[0, -0.5, -2], [-1]]
    output = client.forward_backward_custom(data, sum_loss, return_gradients=True).result()
    assert [o["gradients"].to_numpy().tolist() for o in output.loss_fn_outputs] == [[-1, -1, -1], [-1]]
    assert "gradients" not in client.forward_backward(data, "cross_entropy").result().loss_fn_outputs[0]


def test_custom_loss_reports_its_value(client: TrainingClient) -> None:
    def lying(data: list[Datum], lists: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, Any]]:
        return -torch.cat(lists).sum() * 2, {"loss": 123.0, "extra": torch.cat(lists).sum() * 0 + 1.5, "loss:sum": 9}

    output = client.forward_backward_custom(PAIRS, lying).result()
    expected = -2 * sum(float(o["logprobs"].to_torch().sum()) for o in output.loss_fn_outputs)
    assert output.metrics["loss"] == output.metrics["loss:sum"] == pytest.approx(expected, rel=1e-5)
    assert output.metrics["extra"] == 1.5


def test_custom_loss_gets_its_data_unchanged(client: TrainingClient) -> None:
    marked = [replace(d, loss_fn_inputs={**d.loss_fn_inputs, "mine": np.arange(3, dtype=np.float32)}) for d in PAIRS]
    seen: list[Any] = []

    def look(data: list[Datum], lists: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        seen.extend([*data, *lists])
        return sum_loss(data, lists)

    client.forward_backward_custom(marked, look).result()
    assert all(found is given for found, given in zip(seen[:4], marked, strict=True))
    assert seen[0].loss_fn_inputs["mine"].to_numpy().tolist() == [0, 1, 2]
    assert all(
        (lp.dtype, lp.device.type, lp.requires_grad, lp.is_leaf) == (torch.float32, "cpu", True, True)
        for lp in seen[4:]
    )


def test_kept_logprobs_keep_no_graph(client: TrainingClient) -> None:
    kept: list[torch.Tensor] = []
    hidden: list[weakref.ref[torch.Tensor]] = []
    backbone = client._adapter.base.backbone

    def watch(layout: Any, **options: Any) -> torch.Tensor:
        made = backbone(layout, **options)
        hidden.append(weakref.ref(made))
        return made

    def keep(data: list[Datum], lists: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        kept.extend(lists)
        loss = -torch.cat(lists).sum()
        kept.append(loss)
        return loss, {}

    client._adapter.base.backbone = watch  # type: ignore[method-assign]
    try:
        outputs = [client.forward_backward_custom(PAIRS, keep).result() for _ in range(2)]
    finally:
        del client._adapter.base.backbone
    gc.collect()
    assert len(kept) == 2 * (len(PAIRS) + 1)
    assert [ref() for ref in hidden] == [None, None]
    assert len(outputs) == 2


def test_custom_loss_may_call_its_base_model(service: ServiceClient, client: TrainingClient) -> None:
    """As a program for a hosted service does it, where the loss runs on the client: no hang, no trace."""
    train(client)
    reference = service.create_sampling_client(base_model=client._adapter.base.source)
    frozen = client.save_weights_and_get_sampling_client()
    other = service.create_lora_training_client(client._adapter.base.source, rank=2, seed=5)
    tokens = [[*d.model_input.to_ints(), int(d.loss_fn_inputs["target_tokens"].to_torch()[-1])] for d in PAIRS]
    asked: list[list[float | None]] = []

    def dpo(data: list[Datum], lists: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        asked.extend(reference.compute_logprobs(ModelInput.from_ints(t)).result(20) for t in tokens)
        frozen.compute_logprobs(ModelInput.from_ints(tokens[0])).result(20)
        other.forward_backward(sampled(3), "cross_entropy").result(20)
        anchors = [torch.tensor(a[1:]) for a in asked[-len(PAIRS) :]]
        return sum(((lp - a) ** 2).sum() for lp, a in zip(lists, anchors, strict=True)), {}  # type: ignore[return-value]

    client.forward_backward_custom(PAIRS, dpo).result(TIMEOUT)
    nested = [g.clone() for g in client._adapter.gradients or []]
    client.optim_step(AdamParams(learning_rate=0)).result()
    outside = [torch.tensor(reference.compute_logprobs(ModelInput.from_ints(t)).result()[1:]) for t in tokens]

    def plain(data: list[Datum], lists: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        return sum(((lp - a) ** 2).sum() for lp, a in zip(lists, outside, strict=True)), {}  # type: ignore[return-value]

    client.forward_backward_custom(PAIRS, plain).result()
    for a, b in zip(nested, client._adapter.gradients or [], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
    assert any(float(g.abs().max()) > 0 for g in nested)


def test_calls_run_in_order(client: TrainingClient) -> None:
    """The loss of the second pass is that after the first step, without waiting for anything in between."""
    data = sampled(0)
    first = client.forward_backward(data, "cross_entropy")
    client.optim_step(AdamParams(learning_rate=3e-2))
    second = client.forward(data, "cross_entropy")
    client.load_state("nowhere")
    third = client.forward(data, "cross_entropy")
    values = [f.result().metrics["loss:sum"] for f in (first, second, third)]
    assert values[1] < values[0]
    assert values[2] == values[1]


def test_gradients_accumulate_until_the_step(client: TrainingClient) -> None:
    client.forward_backward(sampled(0), "cross_entropy").result()
    one = [g.clone() for g in client._adapter.gradients or []]
    client.forward_backward(sampled(0), "cross_entropy").result()
    for twice, once in zip(client._adapter.gradients or [], one, strict=True):
        torch.testing.assert_close(twice, 2 * once, rtol=1e-5, atol=1e-7)
    norm = client.optim_step(ADAM).result().metrics["grad_norm"]
    assert norm == pytest.approx(float(torch.sqrt(sum(((2 * g) ** 2).sum() for g in one))), rel=1e-5)  # type: ignore[arg-type]
    assert client._adapter.gradients is None


@pytest.mark.parametrize("call", ["positional", "adam_params", "optim_params"])
def test_optim_step_accepts_both_keywords(call: str, client: TrainingClient) -> None:
    client.forward_backward(sampled(0), "cross_entropy")
    client.forward(sampled(0), "cross_entropy").result()  # the gradient is there
    gradients = [gradient.clone() for gradient in client._adapter.gradients or []]
    norm = float(torch.cat([gradient.flatten() for gradient in gradients]).norm())
    future = client.optim_step(ADAM) if call == "positional" else client.optim_step(**{call: ADAM})
    assert isinstance(future.result(), OptimStepResponse)
    assert future.result().metrics == {"grad_norm": pytest.approx(norm, rel=1e-5)}


def test_optim_step_without_settings_raises(client: TrainingClient) -> None:
    with pytest.raises(ConfigError, match=r"optim_step got None, expected AdamParams\(learning_rate=\.\.\.\)"):
        client.optim_step()
    with pytest.raises(ConfigError, match=r"optim_step got 0.1"):
        client.optim_step(0.1)  # type: ignore[arg-type]


def test_zero_eps_raises(client: TrainingClient) -> None:
    """B = 0 at first, so A's gradient is exactly 0, and 0 / (sqrt(0) + 0) would be nan."""
    client.forward_backward(sampled(0), "cross_entropy")
    for eps in (0.0, 1e-60):
        with pytest.raises(ConfigError, match=r"AdamParams.eps is .*, expected a finite number of at least 1.2e-38"):
            client.optim_step(AdamParams(learning_rate=1e-2, eps=eps)).result()
    client.optim_step(AdamParams(learning_rate=1e-2, eps=1e-30)).result()
    assert all(bool(torch.isfinite(w).all()) for w in weights(client).values())


def test_failed_pass_accumulates_no_gradient(client: TrainingClient) -> None:
    with pytest.raises(LossError):
        client.forward_backward_custom(PAIRS, lambda d, lp: (torch.cat(lp).sum() * torch.nan, {})).result()
    with pytest.raises(ModelError, match="if that failed, nothing was accumulated"):
        client.optim_step(ADAM).result()


def test_clients_of_one_base_are_independent(service: ServiceClient, qwen3: Path) -> None:
    """Interleaved call by call, each gets the numbers it gets alone, exactly."""

    def make(seed: int) -> TrainingClient:
        return service.create_lora_training_client(str(qwen3), rank=2 + seed, seed=seed)

    alone = []
    for seed in range(3):
        client = make(seed)
        alone.append((train(client, 3, seed), weights(client)))
    clients = [make(seed) for seed in range(3)]
    futures: list[list[Any]] = [[], [], []]
    for step in range(3):
        for seed, client in enumerate(clients):
            futures[seed].append(client.forward_backward(sampled(seed + step), "cross_entropy"))
        for client in clients:
            client.optim_step(ADAM)
    for seed, client in enumerate(clients):
        assert [f.result().metrics["loss:sum"] for f in futures[seed]] == alone[seed][0]
        client._worker.run(int)
        assert_same(weights(client), alone[seed][1])
    assert len({id(c._adapter.base) for c in clients}) == 1


def test_same_seed_gives_same_run(service: ServiceClient, qwen3: Path) -> None:
    runs = [train(service.create_lora_training_client(str(qwen3), rank=3, seed=seed), 3) for seed in (4, 4, 5)]
    assert runs[0] == runs[1] != runs[2]


@pytest.mark.parametrize("with_optimizer", [True, False])
def test_save_and_load(with_optimizer: bool, client: TrainingClient, service: ServiceClient) -> None:
    train(client, 2)
    saved = client.save_state("after-2").result()
    assert isinstance(saved, SaveWeightsResponse)
    assert saved.path == f"tinker://{client.model_id}/weights/after-2"
    at_2 = weights(client)
    on = train(client, 2, seed=2)
    load = client.load_state_with_optimizer if with_optimizer else client.load_state
    client.forward_backward(sampled(9), "cross_entropy")  # forgotten by the load
    loaded = load(saved.path).result()
    assert isinstance(loaded, LoadWeightsResponse)
    assert loaded.path == saved.path
    assert client._adapter.gradients is None
    assert_same(weights(client), at_2)
    again = train(client, 2, seed=2)
    assert again[0] == on[0]
    # Fresh moments make another second step: Adam's first one is as large as the learning rate.
    assert (again == on) == with_optimizer
    make = (
        service.create_training_client_from_state_with_optimizer
        if with_optimizer
        else service.create_training_client_from_state
    )
    assert train(make(saved.path), 2, seed=2) == again


def test_existing_name_is_not_overwritten(client: TrainingClient) -> None:
    path = client.save_state("once").result().path
    with pytest.raises(CheckpointError, match="exists; choose another name or pass overwrite=True"):
        client.save_state("once").result()
    train(client, 1)
    assert client.save_state("once", overwrite=True).result().path == path
    now = weights(client)
    train(client, 1)
    client.load_state(path).result()
    assert_same(weights(client), now)


def test_sampler_weights_have_no_optimizer(client: TrainingClient, service: ServiceClient) -> None:
    train(client, 1)
    saved = client.save_weights_for_sampler("s", ttl_seconds=60).result()
    assert isinstance(saved, SaveWeightsForSamplerResponse)
    assert saved.path == f"tinker://{client.model_id}/sampler_weights/s"
    before = state(client)
    with pytest.raises(CheckpointError, match="no optimizer; use load_state"):
        client.load_state_with_optimizer(saved.path).result()
    with pytest.raises(CheckpointError, match="no optimizer; use create_training_client_from_state"):
        service.create_training_client_from_state_with_optimizer(saved.path)
    assert_same(state(client), before)
    client.load_state(saved.path).result()


def test_checkpoint_of_another_shape_changes_nothing(client: TrainingClient, service: ServiceClient) -> None:
    train(client, 1)
    other = service.create_lora_training_client(client._adapter.base.source, rank=5, seed=1)
    path = other.save_state("rank5").result().path
    before = state(client)
    for load in (client.load_state, client.load_state_with_optimizer):
        with pytest.raises(CheckpointError, match=r"do not fit this adapter \(rank 3\)|does not fit this adapter"):
            load(path).result()
    assert_same(state(client), before)


def test_info_and_tokenizer(client: TrainingClient, qwen3: Path) -> None:
    info = client.get_info()
    assert isinstance(info, GetInfoResponse)
    assert (info.model_data.model_name, info.model_data.arch) == (str(qwen3), "qwen3")
    assert (info.is_lora, info.lora_rank, info.model_id) == (True, 3, client.model_id)
    assert client.get_tokenizer().decode(client.get_tokenizer().encode("hi")) == "hi"
    assert repr(client) == f"TrainingClient({str(qwen3)!r}, rank=3)"


# Calls that do not wait, as in the SDK, and one that only the local client has.
PLAIN = ("result", "get_tokenizer", "reference_folder")


def test_every_call_has_an_async_form(client: TrainingClient, tmp_path: Path) -> None:
    async def use() -> None:
        output = await (await client.forward_backward_async(sampled(0), "cross_entropy"))
        assert (
            output.metrics["loss:sum"]
            == (await (await client.forward_async(sampled(0), "cross_entropy"))).metrics["loss:sum"]
        )
        await (await client.forward_backward_custom_async(PAIRS, LOSSES["hinge"].bind()))
        assert (await (await client.optim_step_async(ADAM))).metrics["grad_norm"] > 0
        saved = await (await client.save_state_async("a"))
        await (await client.load_state_async(saved.path))
        await (await client.load_state_with_optimizer_async(saved.path))
        sampler = await (await client.save_weights_for_sampler_async("b"))
        assert await client.create_sampling_client_async(sampler.path)
        assert await client.save_weights_and_get_sampling_client_async(name="c")
        assert (await client.get_info_async()).lora_rank == 3
        assert len(await (await client.reference_logprobs_async(sampled(0)))) == 3
        snapshot = await (await client.take_snapshot_async())
        snapshot.write(tmp_path)
        await (await client.restore_snapshot_async(tmp_path))
        assert await client.sampling_client_on_async(snapshot.checkpoint.weights)

    asyncio.run(use())
    for name, method in inspect.getmembers(TrainingClient, inspect.isfunction):
        if not name.startswith("_") and not name.endswith("_async") and name not in PLAIN:
            assert inspect.iscoroutinefunction(getattr(TrainingClient, f"{name}_async")), method


def test_misspelt_keyword_raises(client: TrainingClient) -> None:
    with pytest.raises(TypeError):
        client.save_state("a", overwriting=True)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        client.forward_backward_custom(PAIRS, sum_loss, config={})  # type: ignore[call-arg]


def test_collected_client_leaves_nothing_behind(service: ServiceClient, qwen3: Path) -> None:
    client = service.create_lora_training_client(str(qwen3), rank=2, seed=0)
    keep = service.create_lora_training_client(str(qwen3), rank=2, seed=0)
    train(client, 1)
    client._worker.run(int)
    adapter = weakref.ref(client._adapter)
    name = client._adapter.name
    del client
    gc.collect()
    assert adapter() is None
    again = service.create_lora_training_client(str(qwen3), rank=2, seed=0)  # sweeps
    assert not any(f".{name}." in n for n, _ in keep._adapter.base._peft.named_parameters())
    assert again._adapter.base is keep._adapter.base


def test_later_edits_of_the_list_do_not_matter(client: TrainingClient) -> None:
    """The list may be filled with the next batch while this one waits for its turn."""
    batch = list(PAIRS)
    begin = threading.Event()
    client._worker.submit(begin.wait)
    calls = [
        client.forward_backward(batch, "cross_entropy"),
        client.forward_backward_custom(batch, sum_loss),
        client.forward(batch, "cross_entropy"),
    ]
    references = client.reference_logprobs(batch)
    gradient = client.weight_gradient(batch, sum_loss)
    batch.clear()
    begin.set()
    assert [len(call.result(TIMEOUT).loss_fn_outputs) for call in calls] == [len(PAIRS)] * 3
    assert len(references.result(TIMEOUT)) == len(PAIRS)
    assert gradient.result(TIMEOUT).to_torch().any()


def test_a_snapshot_continues_training_to_the_last_bit(client: TrainingClient, tmp_path: Path) -> None:
    """The token budget too: a batch that is split elsewhere has sums in another order."""

    def step() -> float:
        client.forward_backward(sampled(0), "cross_entropy").result()
        return client.optim_step(ADAM).result().metrics["grad_norm"]

    def weights() -> dict[str, torch.Tensor]:
        return client.take_snapshot().result().checkpoint.weights

    step()
    client.max_batch_tokens = 77
    snapshot = client.take_snapshot().result()
    expected, after = [step() for _ in range(3)], weights()
    snapshot.write(tmp_path)  # later, on any thread: the copy has not changed
    client.forward_backward(sampled(0), "cross_entropy").result()
    client.max_batch_tokens = None
    client.restore_snapshot(tmp_path).result()
    assert client.max_batch_tokens == 77
    assert [step() for _ in range(3)] == expected, "the accumulated gradient was discarded"
    assert all(torch.equal(weight, after[name]) for name, weight in weights().items())


@pytest.mark.parametrize("file", ["client.json", "optimizer.safetensors", "mint_lab.json"])
def test_a_damaged_snapshot_changes_nothing(file: str, client: TrainingClient, tmp_path: Path) -> None:
    before = client.take_snapshot().result()
    before.write(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(CheckpointError):
        client.restore_snapshot(tmp_path).result()
    after = client.take_snapshot().result().checkpoint.weights
    assert all(torch.equal(weight, after[name]) for name, weight in before.checkpoint.weights.items())
