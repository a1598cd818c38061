"""The device and the type of a base model's weights."""

from __future__ import annotations

import pytest
import torch

from mint_lab.engine.device import dtype_note, pick_device, pick_dtype
from mint_lab.errors import ConfigError


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
