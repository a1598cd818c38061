"""Tensor files: every bit comes back, and numbers that are not finite are neither written nor read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mint_lab.errors import CheckpointError
from mint_lab.tensors import first_nonfinite, load_tensors, save_tensors


def test_round_trip_keeps_every_bit_also_of_shared_memory(tmp_path: Path) -> None:
    whole = torch.randn(6, generator=torch.Generator().manual_seed(0))
    tensors = {"a": whole[:3], "b": whole[3:].to(torch.bfloat16), "bytes": torch.arange(4, dtype=torch.uint8)}
    save_tensors(tensors | {"again": whole}, tmp_path / "t.safetensors")
    found = load_tensors(tmp_path / "t.safetensors")
    assert all(torch.equal(found[name], value) for name, value in tensors.items())
    assert torch.equal(found["again"], whole)


@pytest.mark.parametrize(
    ("bad", "text"),
    [
        (torch.tensor([1.0, torch.nan]), "nan"),
        (torch.tensor([[1.0], [-torch.inf]]), "-inf"),
        (torch.tensor([1.0, torch.inf], dtype=torch.bfloat16), "inf"),
        (torch.tensor(1e300, dtype=torch.float64), "inf"),  # too large for the float32 of weights
    ],
)
def test_nonfinite_numbers_are_refused_by_name(bad: torch.Tensor, text: str, tmp_path: Path) -> None:
    tensors = {"good": torch.ones(2), "second": bad}
    assert first_nonfinite(tensors.items()) == ("second", pytest.approx(float(text), nan_ok=True))
    file = tmp_path / "t.safetensors"
    with pytest.raises(CheckpointError, match=f"was not written: second has the value {text}, expected finite"):
        save_tensors(tensors, file)
    assert not file.exists()
    save_file(tensors, file)
    with pytest.raises(CheckpointError, match=f"t.safetensors is damaged: second has the value {text}, expected"):
        load_tensors(file)


def test_log_probabilities_may_be_minus_inf(tmp_path: Path) -> None:
    file = tmp_path / "t.safetensors"
    save_tensors({"logprobs": torch.tensor([-1.0, -torch.inf])}, file, minus_inf=True)
    assert load_tensors(file, minus_inf=True)["logprobs"].tolist() == [-1.0, -torch.inf]
    for value in (torch.nan, torch.inf):
        with pytest.raises(CheckpointError, match=f"logprobs has the value {value:g}"):
            save_tensors({"logprobs": torch.tensor([-torch.inf, value])}, file, minus_inf=True)


def test_finite_tensors_have_no_fault() -> None:
    assert first_nonfinite([("a", torch.tensor([3.4e38, -3.4e38])), ("none", torch.empty(0))]) is None
