"""Autograd's gradient of every bundled loss agrees with differences of its value, in double precision."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from mint_lab.losses import LOSSES
from mint_lab.losses.spec import BUILTIN_KEYWORDS
from mint_lab.preflight import random_logprobs
from mint_lab.runs.sample_batch import made_up_data
from mint_lab.types import Datum, TensorData

from .references import losses_with_a_stopped_gradient


def double(data: list[Datum]) -> list[Datum]:
    """The same datums; torch.Tensor of their fields in double precision, through the fields' own method."""

    class Field:
        def __init__(self, field: TensorData) -> None:
            self.field = field

        def to_torch(self) -> torch.Tensor:
            value = self.field.to_torch()
            return value.double() if value.is_floating_point() else value

        def to_numpy(self) -> Any:
            return self.to_torch().numpy()

    class Copy:
        def __init__(self, datum: Datum) -> None:
            self.model_input = datum.model_input
            self.loss_fn_inputs = {name: Field(field) for name, field in datum.loss_fn_inputs.items()}

    return [Copy(datum) for datum in data]  # type: ignore[misc]


@pytest.mark.parametrize("name", list(LOSSES))
def test_gradient_agrees_with_differences(name: str) -> None:
    spec = LOSSES[name]
    settings = {"beta": 1.0} if any(param.name == "beta" for param in spec.params) else {}  # a small one hides terms
    data = double(made_up_data()[:4])
    leaves = [row.double().requires_grad_(True) for row in random_logprobs(data, seed=1)]

    def value(*rows: torch.Tensor) -> torch.Tensor:
        if spec.builtin:
            return torch.stack([_builtin(spec, datum, row) for datum, row in zip(data, rows, strict=True)]).sum()
        return spec.bind(settings)(data, list(rows))[0]

    agrees = torch.autograd.gradcheck(value, leaves, raise_exception=name not in losses_with_a_stopped_gradient())
    assert agrees != (name in losses_with_a_stopped_gradient())


def _builtin(spec: Any, datum: Datum, row: torch.Tensor) -> torch.Tensor:
    fields = {
        keyword: datum.loss_fn_inputs[key].to_torch()
        for key, keyword in BUILTIN_KEYWORDS.items()
        if key in (*spec.inputs, *spec.optional)
    }
    return spec.fn(row, **fields, **spec.config()).sum()
