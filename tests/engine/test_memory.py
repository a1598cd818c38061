"""The memory estimate against what autograd keeps; free memory; running out of it at every point of a pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mint_lab.engine import memory
from mint_lab.engine.memory import MemoryCost, free_memory, is_out_of_memory, max_useful_tokens, token_budget
from mint_lab.engine.models import Adapter, BaseModel, load_base
from mint_lab.errors import DataError, LossError, ModelError
from mint_lab.lora_options import LoraOptions
from mint_lab.losses import pairwise_preference_loss
from mint_lab.types import Datum

from .batches import datum, sampled
from .families import FAMILIES
from .test_step import assert_same_gradients, go, named_gradients

CPU = torch.device("cpu")
PAIRS = [datum([9, 8, 7, a, b], [0, 0, 1, 1]) for a, b in ((1, 2), (3, 4), (5, 6), (7, 8))]


def kept_bytes(adapter: Adapter, sequences: list[list[int]], *, gradient_checkpointing: bool = False) -> float:
    """Bytes a token that autograd keeps for the backbone's backward pass, without the weights."""
    base = adapter.base
    weights = {p.untyped_storage().data_ptr() for p in base._model.parameters()}
    kept: dict[int, tuple[int, torch.Tensor]] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = (storage.nbytes(), tensor)  # kept alive, so that no address is reused
        return tensor

    layout = base.layout(sequences)
    with base.using(adapter), torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        hidden = base.backbone(layout, gradient_checkpointing=gradient_checkpointing)
    del hidden
    return sum(size for size, _ in kept.values()) / layout.tokens.numel()


@pytest.mark.parametrize("name", [*FAMILIES, "mint-tiny"])
def test_estimate_covers_what_autograd_keeps(name: str, family: Callable[[str], Path]) -> None:
    base = load_base(name if name == "mint-tiny" else str(family(name)))
    adapter = base.attach(LoraOptions(rank=8), seed=0)
    draw = torch.Generator().manual_seed(0)
    sequences = [torch.randint(0, 250, (60,), generator=draw).tolist() for _ in range(16)]
    kept = kept_bytes(adapter, sequences)
    assert kept <= base.cost.backbone <= 2.5 * kept
    less = kept_bytes(adapter, sequences, gradient_checkpointing=True)
    assert less < 0.5 * kept
    assert less <= base.cost.backbone_checkpointed


def test_cost_by_hand() -> None:
    """A token takes 100 + 20 bytes, but the head never more than 10 positions: 10 * 20 + 100 n is 1,300 at 11."""
    cost = MemoryCost(backbone=100, backbone_checkpointed=30, head=20, chunk=10)
    assert cost.tokens(1_199, gradient_checkpointing=False) == 9
    assert cost.tokens(1_300, gradient_checkpointing=False) == 11
    assert cost.tokens(250, gradient_checkpointing=True) == 5
    assert cost.tokens(800, gradient_checkpointing=True) == 20


@pytest.mark.parametrize(("free", "budget"), [(0, 64), (2 * 64 * 120, 64), (2 * 130 * 120, 128), (2 * 255 * 120, 128)])
def test_budget_is_power_of_two_from_half_of_free_memory(
    free: int, budget: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "free_memory", lambda device: free)
    assert token_budget(MemoryCost(100, 30, 20, 1000), CPU, gradient_checkpointing=False) == budget


def test_useful_size_is_known_on_cpu_only() -> None:
    assert max_useful_tokens(CPU) == 2048
    assert max_useful_tokens(torch.device("cuda")) is None
    assert max_useful_tokens(torch.device("mps")) is None


def test_free_memory_is_minimum_of_machine_and_container(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < free_memory(CPU) < 1 << 50
    monkeypatch.setattr(memory, "_system_memory", lambda: 700)
    monkeypatch.setattr(memory, "_container_memory", lambda: 300)
    assert free_memory(CPU) == 300
    monkeypatch.setattr(memory, "_container_memory", lambda: None)
    assert free_memory(CPU) == 700

    def unknown() -> int:
        raise OSError("no such thing here")

    monkeypatch.setattr(memory, "_system_memory", unknown)
    assert free_memory(CPU) == memory.FALLBACK_FREE_BYTES


@pytest.mark.parametrize("version", [1, 2])
def test_container_limit_counts_cached_files_as_free(version: int, tmp_path: Path) -> None:
    names = {
        1: (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
        2: ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    }[version]
    assert memory._container_memory(tmp_path) is None
    for name, text in zip(names, ("2000\n", "1500\n", f"anon 900\n{names[3]} 400\n"), strict=False):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    assert memory._container_memory(tmp_path) == 900
    (tmp_path / names[0]).write_text("max\n")
    if version == 2:
        assert memory._container_memory(tmp_path) is None


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (MemoryError(), True),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
            True,
        ),
        (RuntimeError("MPS backend out of memory (MPS allocated: 18 GB)"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
        (ModelError("out of memory twice"), False),
        (LossError("out of memory"), False),
        (DataError("out of memory"), False),
    ],
)
def test_out_of_memory_errors_are_recognized(error: BaseException, verdict: bool) -> None:
    assert is_out_of_memory(error) == verdict


def test_torchs_own_error_is_recognized() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(caught.value)


class Failing:
    """A method of the base model that fails at its n-th calls, as an allocator does."""

    def __init__(self, method: Callable[..., Any], *calls: int, kind: type[Exception] = RuntimeError) -> None:
        self.method, self.calls, self.kind, self.count = method, calls, kind, 0

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.count += 1
        if self.count in self.calls:
            raise self.kind("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes\nmore")
        return self.method(*args, **options)


def inject(patch: pytest.MonkeyPatch, adapter: Adapter, where: str, call: int, kind: type[Exception]) -> None:
    """Let a method of the model or the adapter, or the backward pass, fail at its n-th call."""
    if where == "back":  # the first gradient is the loss's own
        patch.setattr(torch.autograd, "grad", Failing(torch.autograd.grad, call + 1, kind=kind))
        return
    owner = adapter if where == "add_gradients" else adapter.base
    failing = Failing(getattr(owner, where), call, kind=kind)
    patch.setattr(type(owner), where, lambda self, *args, **options: failing(*args, **options))


@pytest.mark.parametrize("kind", [RuntimeError, MemoryError, torch.OutOfMemoryError])
@pytest.mark.parametrize(
    ("place", "loss", "budget"),
    [
        (("backbone", 1), "cross_entropy", None),
        (("backbone", 2), "cross_entropy", 4),
        (("head", 1), pairwise_preference_loss, None),
        (("backbone", 2), pairwise_preference_loss, 5),  # its first phase
        (("backbone", 3), pairwise_preference_loss, 5),  # its second
        (("back", 1), pairwise_preference_loss, None),
        (("add_gradients", 1), "cross_entropy", None),
    ],
)
def test_out_of_memory_halves_the_budget_once(
    kind: type[Exception], place: tuple[str, int], loss: Any, budget: int | None, adapter: Adapter
) -> None:
    data: list[Datum] = PAIRS if callable(loss) else sampled(3)
    go(adapter, data, loss)
    whole = go(adapter, data, loss)  # twice: the gradient accumulated before must stay
    expected = named_gradients(adapter)
    adapter.gradients = None
    go(adapter, data, loss)
    with pytest.MonkeyPatch.context() as patch:
        inject(patch, adapter, *place, kind)
        found = go(adapter, data, loss, max_tokens=budget)
    assert found.oom_retries == 1
    held = adapter.base.computed_tokens([d.model_input.to_ints() for d in data])
    assert found.max_tokens == min(budget or held, held) // 2
    assert found.micro_batches > 1
    assert found.loss == pytest.approx(whole.loss, rel=1e-5)
    assert_same_gradients(named_gradients(adapter), expected)


@pytest.mark.parametrize(("requested", "halved"), [(None, 6), (100, 6), (8, 4)])
def test_retry_halves_the_budget_in_use(
    requested: int | None, halved: int, adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Micro-batches of a built-in loss have 12 tokens at most, so half of a larger request would change nothing."""
    monkeypatch.setattr("mint_lab.engine.step.max_useful_tokens", lambda device: 12)
    data = sampled(3, (6, 6, 6))
    expected = go(adapter, data).loss
    with pytest.MonkeyPatch.context() as patch:
        inject(patch, adapter, "backbone", 1, MemoryError)
        found = go(adapter, data, max_tokens=requested)
    assert (found.max_tokens, found.micro_batches, found.oom_retries) == (halved, 3, 1)
    assert (found.passes, found.stored_tokens) == (1, 18), "of the attempt that succeeded"
    assert found.loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("loss", ["cross_entropy", pairwise_preference_loss])
def test_second_out_of_memory_raises_and_changes_nothing(
    loss: Any, adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    go(adapter, PAIRS, loss)
    gradients = [g.clone() for g in adapter.gradients or []]
    weights = adapter.copy()
    failing = Failing(adapter.base.backbone, 1, 3)
    with monkeypatch.context() as patch:
        patch.setattr(BaseModel, "backbone", lambda self, *args, **options: failing(*args, **options))
        with pytest.raises(
            ModelError, match=r"out of memory twice.*max_batch_tokens or gradient_checkpointing"
        ) as caught:
            go(adapter, PAIRS, loss)
    assert "more" not in str(caught.value).split("Give", maxsplit=1)[0]
    assert caught.value.__cause__ is caught.value.__context__ is None, "a traceback would hold the tensors"
    assert all(torch.equal(a, b) for a, b in zip(adapter.gradients or [], gradients, strict=True))
    assert all(torch.equal(p, weights[n]) for n, p in adapter.parameters.items())
    go(adapter, PAIRS, loss)  # the client is still usable


def test_memory_error_of_a_loss_propagates(adapter: Adapter) -> None:
    calls = []

    def greedy(data: Any, logprobs_list: Any) -> Any:
        calls.append(len(logprobs_list))
        raise RuntimeError("out of memory, said the loss")

    with pytest.raises(RuntimeError, match="said the loss") as caught:
        go(adapter, PAIRS, greedy)
    assert not isinstance(caught.value, ModelError)
    assert calls == [4, 4]
    assert adapter.gradients is None


def test_other_errors_are_not_retried(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def broken(self: BaseModel, *args: Any, **options: Any) -> Any:
        calls.append(1)
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(BaseModel, "backbone", broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        go(adapter, PAIRS)
    assert calls == [1]
