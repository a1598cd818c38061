"""One pass's gradient as a vector; with real models in ``test_gradients.py``."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mint_lab.client.flat_gradient import flat_gradient


def adapter(gradients: list[torch.Tensor] | None = None) -> Any:
    """Two parameters, (2, 2) and (1,)."""
    parameters = {"a": torch.nn.Parameter(torch.zeros(2, 2)), "b": torch.nn.Parameter(torch.zeros(1))}
    return SimpleNamespace(parameters=parameters, gradients=gradients)


def test_gradient_is_flat_in_parameter_order() -> None:
    """What had accumulated before is not part of it, and is restored."""
    before = [torch.ones(2, 2), torch.ones(1)]
    this = adapter(before)

    def accumulate() -> None:
        assert this.gradients is None
        this.gradients = [torch.tensor([[1.0, 2], [3, 4]]), torch.tensor([5.0], dtype=torch.float64)]

    flat = flat_gradient(this, accumulate).to_torch()
    assert flat.dtype == torch.float32
    assert flat.tolist() == [1, 2, 3, 4, 5]
    assert this.gradients is before


def test_no_gradient_is_zero() -> None:
    assert flat_gradient(adapter(), lambda: None).to_torch().tolist() == [0] * 5


def test_failure_restores_accumulated_gradient() -> None:
    before = [torch.ones(2, 2), torch.ones(1)]
    this = adapter(before)
    with pytest.raises(ZeroDivisionError):
        flat_gradient(this, lambda: 1 // 0)
    assert this.gradients is before
