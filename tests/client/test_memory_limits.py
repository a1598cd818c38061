"""Token budgets and gradient checkpointing, as a service and its clients are given them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mint_lab.client.memory_limits import MemoryLimits
from mint_lab.client.service import ServiceClient
from mint_lab.client.training import TrainingClient
from mint_lab.engine.memory import token_budget
from mint_lab.engine.models import BaseModel, load_base
from mint_lab.errors import ConfigError, ModelError
from mint_lab.losses import pairwise_preference_loss

from ..engine.batches import sampled
from ..engine.pretended_gpu import pretended_gpu
from .steps import PAIRS, sum_loss


@pytest.mark.parametrize("tokens", [0, -1, 1.5, True, "many"])
def test_bad_budgets_raise(tokens: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"max_batch_tokens is .*, expected a whole number of at least 1, or None"):
        ServiceClient(home=tmp_path, max_batch_tokens=tokens)


def test_a_budget_of_one_token_is_the_smallest() -> None:
    assert MemoryLimits(1).max_batch_tokens == 1


def test_bad_switch_raises(service: ServiceClient, qwen3: Path) -> None:
    with pytest.raises(ConfigError, match="gradient_checkpointing is 1, expected True, False, or None"):
        service.create_lora_training_client(str(qwen3), gradient_checkpointing=1)  # type: ignore[arg-type]


def test_client_limits_override_service_limits(tmp_path: Path, qwen3: Path) -> None:
    service = ServiceClient(home=tmp_path, max_batch_tokens=100, gradient_checkpointing=True)
    usual = service.create_lora_training_client(str(qwen3), rank=1)
    own = service.create_lora_training_client(str(qwen3), rank=1, max_batch_tokens=7, gradient_checkpointing=False)
    assert (usual.max_batch_tokens, usual.gradient_checkpointing) == (100, True)
    assert (own.max_batch_tokens, own.gradient_checkpointing) == (7, False)
    again = service.create_training_client_from_state(usual.save_state("s").result().path)
    assert (again.max_batch_tokens, again.gradient_checkpointing) == (100, True)


def test_default_budget_follows_free_memory(client: TrainingClient, qwen3: Path) -> None:
    base = load_base(str(qwen3))
    assert client.max_batch_tokens == token_budget(base.cost, torch.device("cpu"), gradient_checkpointing=False)
    assert MemoryLimits(gradient_checkpointing=True).resolve(base).max_batch_tokens >= client.max_batch_tokens


def test_family_without_checkpointing_raises(qwen3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = load_base(str(qwen3))
    monkeypatch.setattr(base, "_checkpointable", [])
    with pytest.raises(ModelError, match=r"\(qwen3\) does not support gradient checkpointing"):
        MemoryLimits(gradient_checkpointing=True).resolve(base)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_metrics_count_micro_batches(service: ServiceClient, qwen3: Path, checkpointing: bool) -> None:
    whole, split = (
        service.create_lora_training_client(
            str(qwen3), rank=3, seed=0, max_batch_tokens=tokens, gradient_checkpointing=checkpointing
        )
        for tokens in (10_000, 5)
    )
    one, two = (c.forward_backward_custom(PAIRS, pairwise_preference_loss).result().metrics for c in (whole, split))
    assert (one["passes:max"], one["micro_batches:max"]) == (1, 1)
    assert (two["passes:max"], two["micro_batches:max"]) == (2, 2)
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)
    builtin = split.forward_backward(PAIRS, "cross_entropy").result().metrics
    assert (builtin["passes:max"], builtin["micro_batches:max"]) == (1, 2)
    assert "oom_retries:sum" not in builtin


def test_out_of_memory_lowers_the_budget(client: TrainingClient, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    backbone = BaseModel.backbone

    def sometimes(self: BaseModel, *args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return backbone(self, *args, **options)

    expected = client.forward(sampled(0), "cross_entropy").result().metrics["loss:sum"]
    monkeypatch.setattr(BaseModel, "backbone", sometimes)
    first = client.forward_backward(sampled(0), "cross_entropy").result().metrics
    assert first["oom_retries:sum"] == 1.0
    assert first["micro_batches:max"] > 1
    assert first["loss:sum"] == pytest.approx(expected, rel=1e-5)
    # 5 + 9 + 3 tokens are 17, and half of them 8.
    assert client.max_batch_tokens == 8
    note = "memory ran out: 17 tokens at a time did not fit. The token budget (max_batch_tokens) is now 8"
    assert [text for text in client.notes if text.startswith(note)] == client.notes[-1:]
    assert "oom_retries:sum" not in client.forward_backward(sampled(0), "cross_entropy").result().metrics


def test_sequence_that_does_not_fit_raises_from_future(client: TrainingClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(self: BaseModel, *args: Any, **options: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with monkeypatch.context() as patch:
        patch.setattr(BaseModel, "backbone", never)
        with pytest.raises(ModelError, match="out of memory: datum 0 has 4 tokens"):
            client.forward_backward_custom(PAIRS, sum_loss).result()
    logprobs = [
        output["logprobs"].to_torch() for output in client.forward(PAIRS, "cross_entropy").result().loss_fn_outputs
    ]
    expected = float(sum_loss(PAIRS, logprobs)[0])
    assert client.forward_backward_custom(PAIRS, sum_loss).result().metrics["loss"] == pytest.approx(expected, rel=1e-5)


def test_reference_pass_lowers_the_budget_too(client: TrainingClient, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = client.reference_logprobs(sampled(0)).result()
    backbone = BaseModel.backbone

    def scarce(self: BaseModel, layout: Any, **options: Any) -> Any:
        if layout.stored > 9:
            raise MemoryError
        return backbone(self, layout, **options)

    monkeypatch.setattr(BaseModel, "backbone", scarce)
    found = client.reference_logprobs(sampled(0)).result()
    assert client.max_batch_tokens == 8
    assert "17 tokens at a time did not fit" in client.notes[-1]
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.to_torch(), b.to_torch(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "packs", "arch"),
    [
        ("mistral", True, "mistral"),
        ("gpt_neo", False, "gpt_neo (runs padded: its attention cannot run on packed rows)"),
    ],
)
def test_info_says_when_sequences_run_padded(
    name: str, packs: bool, arch: str, service: ServiceClient, family: Callable[[str], Path]
) -> None:
    client = service.create_lora_training_client(str(family(name)), rank=1, seed=0)
    assert client.packs == packs
    assert client.get_info().model_data.arch == arch


def test_useful_size_of_builtin_losses_does_not_lower_the_budget(
    service: ServiceClient, qwen3: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Built-in losses run in micro-batches of 5 tokens here; a coupled loss on the same batch is not split."""
    monkeypatch.setattr("mint_lab.engine.step.max_useful_tokens", lambda device: 5)
    client = service.create_lora_training_client(str(qwen3), rank=3, seed=0, max_batch_tokens=1_000)
    assert client.forward_backward(PAIRS, "cross_entropy").result().metrics["micro_batches:max"] == 2
    assert client.max_batch_tokens == 1_000
    assert client.forward_backward_custom(PAIRS, pairwise_preference_loss).result().metrics["micro_batches:max"] == 1


@pytest.mark.parametrize(
    ("memory", "limits", "expected"),
    [
        (1 << 40, MemoryLimits(), False),
        (1 << 20, MemoryLimits(), True),
        (1 << 20, MemoryLimits(gradient_checkpointing=False), False),
        (1 << 20, MemoryLimits(100), False),
        (1 << 40, MemoryLimits(gradient_checkpointing=True), True),
    ],
)
def test_checkpointing_is_chosen_on_a_gpu_that_is_short_of_memory(
    memory: int, limits: MemoryLimits, expected: bool, qwen3: Path
) -> None:
    base = load_base(str(qwen3))
    assert not MemoryLimits().resolve(base).gradient_checkpointing, "never by itself on a CPU"
    on_gpu: Any = SimpleNamespace(
        cost=base.cost,
        device=torch.device("cuda", 0),
        supports_gradient_checkpointing=True,
        name="",
        config=base.config,
    )
    with pretended_gpu(memory):
        found = limits.resolve(on_gpu)
        assert found.gradient_checkpointing is expected
        budget = token_budget(base.cost, on_gpu.device, gradient_checkpointing=expected)
        assert found.max_batch_tokens == (limits.max_batch_tokens or budget)
        on_gpu.supports_gradient_checkpointing = False
        if limits.gradient_checkpointing is not True:
            assert limits.resolve(on_gpu).gradient_checkpointing is False
