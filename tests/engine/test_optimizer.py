"""The optimizer's step against the formula of AdamW, and its errors."""

from __future__ import annotations

import pytest
import torch

from mint_lab.engine.batch import read_batch
from mint_lab.engine.models import Adapter
from mint_lab.engine.optimizer import Optimizer
from mint_lab.engine.step import Builtin, run_pass
from mint_lab.errors import ConfigError, ModelError
from mint_lab.losses import LOSSES
from mint_lab.types import AdamParams, Datum

from .batches import sampled


def go(adapter: Adapter, data: list[Datum]) -> None:
    """Accumulate a gradient."""
    spec = LOSSES["cross_entropy"]
    batch = read_batch(data, spec, vocab_size=adapter.base.vocab_size, context=adapter.base.context)
    run_pass(adapter, batch, Builtin(spec, {}))


def test_adamw_agrees_with_the_formula(adapter: Adapter) -> None:
    """Two steps by hand: m, v, bias correction, decoupled decay, clipping to norm 0.5."""
    lr, b1, b2, eps, decay = 0.01, 0.8, 0.9, 1e-6, 0.1
    name, parameter = next(iter(adapter.parameters.items()))
    optimizer = Optimizer(adapter)
    x = parameter.detach().double().clone()
    m = v = torch.zeros_like(x)
    for t in (1, 2):
        go(adapter, sampled(t))
        assert adapter.gradients is not None
        gradient = dict(zip(adapter.parameters, adapter.gradients, strict=True))[name].double().clone()
        norm = float(torch.cat([g.flatten() for g in adapter.gradients or []]).double().norm())
        assert norm > 0.5
        metrics = optimizer.step(
            AdamParams(learning_rate=lr, beta1=b1, beta2=b2, eps=eps, weight_decay=decay, grad_clip_norm=0.5)
        )
        assert metrics["grad_norm"] == pytest.approx(norm, rel=1e-5)
        gradient *= 0.5 / norm
        m, v = b1 * m + (1 - b1) * gradient, b2 * v + (1 - b2) * gradient**2
        x = x * (1 - lr * decay) - lr * (m / (1 - b1**t)) / ((v / (1 - b2**t)).sqrt() + eps)
        torch.testing.assert_close(parameter.double(), x, rtol=1e-5, atol=1e-7)
    assert adapter.gradients is None


def test_step_without_gradient_raises(adapter: Adapter) -> None:
    with pytest.raises(ModelError, match="no gradient to apply: call forward_backward first"):
        Optimizer(adapter).step(AdamParams(learning_rate=0.1))


def test_nonfinite_gradient_is_discarded(adapter: Adapter) -> None:
    go(adapter, sampled(1))
    assert adapter.gradients is not None
    adapter.gradients[0][0, 0] = torch.inf
    weights = adapter.copy()
    with pytest.raises(ModelError, match="norm is inf"):
        Optimizer(adapter).step(AdamParams(learning_rate=0.1))
    assert all(torch.equal(p, weights[n]) for n, p in adapter.parameters.items())


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("learning_rate", -1.0),
        ("learning_rate", float("nan")),
        ("beta1", 1.0),
        ("beta2", -0.1),
        ("eps", -1e-9),
        ("weight_decay", -1.0),
        ("grad_clip_norm", -1.0),
    ],
)  # fmt: skip
def test_settings_out_of_range_raise(setting: str, value: float, adapter: Adapter) -> None:
    go(adapter, sampled(1))
    weights = adapter.copy()
    with pytest.raises(ConfigError, match=f"AdamParams.{setting} is"):
        Optimizer(adapter).step(AdamParams(**{setting: value}))
    assert adapter.gradients is not None, "the gradient is kept for a step with valid settings"
    assert all(torch.equal(p, weights[n]) for n, p in adapter.parameters.items())
