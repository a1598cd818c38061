"""The device and the type of a base model's weights."""

from __future__ import annotations

import pytest
import torch

from mint_lab.engine.device import pick_device, pick_dtype
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
