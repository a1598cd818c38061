"""One call of variable-length attention against attention by blocks; a reference of the kernel runs on the CPU."""

from __future__ import annotations

import functools
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.engine import varlen_attention as module
from mint_lab.engine.attention import _packed_attention, plan_attention, use_packed_attention
from mint_lab.engine.packing import pack
from mint_lab.engine.varlen_attention import find_varlen_attn, is_aligned_at_the_end, plan_varlen, supports_varlen

from .pretended_gpu import CPU, GPU, pretended_gpu
from .test_attention import DIM, MODULE, batches, tensors
from .test_gpu_waits import adapter_on, go
from .varlen_reference import varlen_attn


def packed(batch: list[list[int]], qkv: list[torch.Tensor], **options: Any) -> torch.Tensor:
    plan = plan_attention(pack(batch), DIM, CPU)
    with use_packed_attention(SimpleNamespace(_attn_implementation="sdpa"), plan):
        return _packed_attention(MODULE, *qkv, None, **options)[0]


@given(
    batch=batches(),
    shape=st.sampled_from([(1, 1), (4, 4), (4, 2), (6, 1)]),
    window=st.sampled_from([None, 1, 2, 5, 100]),
    scaling=st.sampled_from([None, 0.9]),
)
def test_one_call_is_the_blocks_forward_and_backward(
    batch: list[list[int]], shape: tuple[int, int], window: int | None, scaling: float | None
) -> None:
    """Shared prefixes within prefixes, duplicates, single tokens, grouped queries and windows."""
    layout = pack(batch)
    blocks, one = tensors(layout, *shape), tensors(layout, *shape)
    expected = packed(batch, blocks, scaling=scaling, sliding_window=window)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mint_lab.engine.attention.supports_varlen", lambda *_: varlen_attn)
        found = packed(batch, one, scaling=scaling, sliding_window=window)
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    gradient = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    for a, b in zip(
        torch.autograd.grad(found, one, gradient), torch.autograd.grad(expected, blocks, gradient), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_plan_by_hand() -> None:
    """[1 2 3 4], [1 2 5] and a copy of the first: 4 and 1 own tokens, 4 and 3 keys; the row is 1 2 3 4 5."""
    plan = plan_varlen(pack([[1, 2, 5], [1, 2, 3, 4], [1, 2, 3, 4]]), CPU)
    assert plan.cu_seq_q.tolist() == [0, 4, 5]
    assert plan.cu_seq_k.tolist() == [0, 4, 7]
    assert plan.key_index is not None
    assert plan.key_index.tolist() == [0, 1, 2, 3, 0, 1, 4]
    assert (plan.max_q, plan.max_k) == (4, 4)
    alone = plan_varlen(pack([[7, 8], [9]]), CPU)
    assert alone.key_index is None, "nothing is shared, so nothing is copied"
    assert alone.cu_seq_q.tolist() == alone.cu_seq_k.tolist() == [0, 2, 3]


def test_alignment_is_tested() -> None:
    at_start = functools.partial(varlen_attn, aligned_at_end=False)

    def no_window(*args: Any, window_size: tuple[int, int], **options: Any) -> torch.Tensor:
        return varlen_attn(*args, window_size=(-1, 0), **options)

    def fails(*args: Any, **options: Any) -> torch.Tensor:
        raise RuntimeError("no kernel image is available for execution on the device")

    for attend, is_aligned in ((varlen_attn, True), (at_start, False), (no_window, False), (fails, False)):
        for dtype in (torch.float32, torch.bfloat16):
            assert is_aligned_at_the_end(attend, CPU, dtype) == is_aligned


def test_pytorch_function_has_the_arguments() -> None:
    """Of the newest versions; an older one has no windows, and then there is no function to use."""
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    assert (find_varlen_attn() is not None) == (version >= (2, 11))


# --- on the pretended device -----------------------------------------------------------------------------------------


@pytest.fixture
def ampere(monkeypatch: pytest.MonkeyPatch) -> Generator[list[Any]]:
    """A GPU with the kernel; the list has the arguments of its calls."""
    calls: list[Any] = []

    def attend(*args: Any, **options: Any) -> torch.Tensor:
        calls.append((args, options))
        return varlen_attn(*args, **options)

    with pretended_gpu():
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: (8, 0))
        monkeypatch.setattr(torch.version, "cuda", "12.8")
        monkeypatch.setattr(module, "find_varlen_attn", lambda: attend)
        module._tested.cache_clear()
        yield calls
        module._tested.cache_clear()


def heads(dim: int = 16, dtype: torch.dtype = torch.bfloat16, device: Any = GPU) -> torch.Tensor:
    return torch.zeros(3, 2, dim, dtype=dtype, device=device)


def test_what_the_kernel_cannot_compute_stays_with_the_blocks(ampere: list[Any], monkeypatch: Any) -> None:
    assert supports_varlen(heads(), heads(), None) is not None
    for q, v, softcap in (
        (heads(), heads(), 30.0),
        (heads(dtype=torch.float32), heads(dtype=torch.float32), None),
        (heads(dim=12), heads(dim=12), None),
        (heads(dim=264), heads(dim=264), None),
        (heads(), heads(dim=8), None),
        (heads(device=CPU), heads(device=CPU), None),
    ):
        assert supports_varlen(q, v, softcap) is None
    for name, value in (("cuda.get_device_capability", lambda *_: (7, 5)), ("version.cuda", None)):
        module._tested.cache_clear()
        with monkeypatch.context() as patch:
            patch.setattr(f"torch.{name}", value)
            assert supports_varlen(heads(), heads(), None) is None


def test_a_pass_makes_one_call_a_layer_without_a_wait(
    ampere: list[Any], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = small_model(tmp_path_factory.mktemp("model"))
    adapter = adapter_on("cuda", folder, "bfloat16")
    adapter.base.notes.clear()
    go(adapter, "ppo")  # the first pass tests the kernel
    ampere.clear()
    found = go(adapter, "ppo")
    assert len(ampere) == adapter.base.config.num_hidden_layers
    assert {options["enable_gqa"] for _, options in ampere} == {True}
    assert all(args[3].device == args[4].device == GPU for args, _ in ampere)
    expected = go(adapter_on("cpu", folder, "bfloat16"), "ppo")
    for a, b in zip(found.logprobs, expected.logprobs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0.15)  # bfloat16, whose numbers have 8 bits


def small_model(folder: Path) -> Path:
    """A model whose heads have a size that the kernel accepts."""
    from .families import FAMILIES, build

    return build("qwen3", folder, {**FAMILIES["qwen3"], "head_dim": 16})
