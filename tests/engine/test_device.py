"""The device and the type of a base model's weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mint_lab.engine.device import add_rows, dtype_note, pick_device, pick_dtype, to_device
from mint_lab.errors import ConfigError

from .pretended_gpu import GPU, pretended_gpu


def test_pick_device() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device().type in ("cpu", "cuda", "mps")
    with pytest.raises(ConfigError, match="device is 'gpu', expected 'cuda', 'mps' or 'cpu'"):
        pick_device("gpu")


def test_pick_dtype() -> None:
    """A CPU gets float32 unless something else is requested."""
    cpu = torch.device("cpu")
    assert pick_dtype(cpu) == torch.float32
    assert pick_dtype(cpu, "bfloat16") == torch.bfloat16
    with pytest.raises(ConfigError, match="dtype is 'float16', expected 'float32' or 'bfloat16'"):
        pick_dtype(cpu, "float16")


@pytest.mark.parametrize(
    ("able", "slow"),
    [({"avx2": True, "avx512_bf16": False}, True), ({"avx512_bf16": True}, False), ({"bf16": True}, False), ({}, True)],
)
def test_bfloat16_without_instructions_is_noted(
    able: dict[str, bool], slow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    note = dtype_note(torch.device("cpu"), torch.bfloat16)
    assert ("no instructions for bfloat16" in note) == slow
    assert dtype_note(torch.device("cpu"), torch.float32) == dtype_note(torch.device("cuda"), torch.bfloat16) == ""


def test_an_older_torch_does_not_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert dtype_note(torch.device("cpu"), torch.bfloat16) == ""


def test_to_device_copies_without_a_wait() -> None:
    cpu = torch.device("cpu")
    assert to_device(np.array([1, 2]), cpu).tolist() == [1, 2]
    with pretended_gpu() as gpu, gpu.counting() as waits:
        there = to_device(np.array([1.5, 2.5]), GPU)
        assert (there.device, there.dtype) == (GPU, torch.float64)
        assert not waits
    assert waits.total() == 0


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_add_rows_adds_each_occurrence(device: str) -> None:
    """Row 1 occurs twice: 1 + 10 + 30."""
    with pretended_gpu():
        x, index = torch.ones(3, 1, device=device), torch.tensor([1, 2, 1], device=device)
        add_rows(x, index, torch.tensor([[10.0], [20.0], [30.0]], device=device))
        assert x.tolist() == [[1], [41], [21]]
