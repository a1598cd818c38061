"""RMS normalization written out, against the families' own; the rest of ``fused.py`` is in ``test_fused.py``."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from mint_lab.engine.fused_layers import _RmsNorm, fuse


class CentredRMSNorm(LlamaRMSNorm):
    """Its name says one thing, its arithmetic another."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden_states - hidden_states.mean(-1, keepdim=True))


def made(kind: type[nn.Module], size: int = 6) -> nn.Module:
    module = kind(size).requires_grad_(False)
    torch.manual_seed(0)
    module.weight.data = torch.randn(size)
    return module


@pytest.mark.parametrize("kind", [LlamaRMSNorm, Gemma2RMSNorm])
@pytest.mark.parametrize("shape", [(6,), (3, 6), (2, 3, 4, 6)])
def test_values_and_gradients_are_the_familys(kind: type[nn.Module], shape: tuple[int, ...]) -> None:
    plain, fused = made(kind), made(kind)
    fuse(nn.ModuleList([fused]))
    assert "forward" in vars(fused)
    x = torch.randn(shape, requires_grad=True)
    gradient = torch.randn(shape)
    found, expected = fused(x), plain(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        *(torch.autograd.grad(y, x, gradient)[0] for y in (found, expected)), rtol=1e-5, atol=1e-6
    )


def test_by_hand() -> None:
    """At (3, 4) the mean square is 12.5; the gradient of x_1 / rms is (1 - 9/25, -12/25) / sqrt(12.5)."""
    x = torch.tensor([[3.0, 4.0]], requires_grad=True)
    y = _RmsNorm.apply(x, torch.tensor([1.0, 2.0]), 0.0)
    root = 12.5**0.5
    torch.testing.assert_close(y, torch.tensor([[3 / root, 8 / root]]))
    (into,) = torch.autograd.grad(y[0, 0], x)
    torch.testing.assert_close(into, torch.tensor([[(1 - 9 / 25) / root, -12 / 25 / root]]))


def test_a_row_of_zeros_has_a_finite_gradient() -> None:
    x = torch.zeros(1, 4, requires_grad=True)
    y = _RmsNorm.apply(x, torch.ones(4), 1e-6)
    (into,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(into, torch.full((1, 4), 1e3))


def test_gradients_by_differences() -> None:
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: _RmsNorm.apply(z, weight, 1e-5), x)


def test_other_arithmetic_types_and_trained_weights_are_left_alone() -> None:
    other, trained, half = made(CentredRMSNorm), made(LlamaRMSNorm).requires_grad_(True), made(LlamaRMSNorm)
    fuse(nn.ModuleList([other, trained, half]))
    assert "forward" not in vars(other)
    assert "forward" not in vars(trained)
    x = torch.randn(2, 6, dtype=torch.bfloat16)
    assert torch.equal(half(x), LlamaRMSNorm.forward(half, x))  # in the family's own order of rounding
