"""The memory estimate against what autograd keeps; free memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from mint_lab.engine import memory
from mint_lab.engine.memory import MemoryCost, free_memory, max_useful_tokens, token_budget
from mint_lab.engine.models import Adapter, load_base
from mint_lab.lora_options import LoraOptions

from .batches import datum
from .families import FAMILIES

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


def test_bytes_of_tokens_is_the_inverse() -> None:
    """2 tokens take 2 x (10 + 4) bytes; of 5 tokens, a chunk of 3 is in the head: 5 x 10 + 3 x 4."""
    cost = MemoryCost(backbone=10, backbone_checkpointed=1, head=4, chunk=3)
    assert cost.bytes_of(2, gradient_checkpointing=False) == 28
    assert cost.bytes_of(5, gradient_checkpointing=False) == 62
    assert cost.bytes_of(5, gradient_checkpointing=True) == 17
    assert [cost.tokens(bytes_, gradient_checkpointing=False) for bytes_ in (28, 62, 61)] == [2, 5, 4]


def test_address_space_limit_counts_as_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of 3 GB above what the process has leaves 3 GB, give or take what the test itself allocates."""
    resource = pytest.importorskip("resource")
    assert memory._address_space() is None
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (used + 3_000_000_000, resource.RLIM_INFINITY))
    assert memory._address_space() == pytest.approx(3_000_000_000, rel=0.05)
    monkeypatch.setattr(memory, "_system_memory", lambda: 1 << 60)
    monkeypatch.setattr(memory, "_container_memory", lambda: None)
    assert free_memory(CPU) == pytest.approx(3_000_000_000, rel=0.05)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (used // 2, resource.RLIM_INFINITY))
    assert memory._address_space() == 0
