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


def trained(adapter: Adapter, steps: int = 2) -> Optimizer:
    """Return an optimizer after some steps, so that its moments are not 0."""
    optimizer = Optimizer(adapter)
    for seed in range(steps):
        go(adapter, sampled(seed))
        optimizer.step(AdamParams(learning_rate=0.01))
    return optimizer


def everything(adapter: Adapter, optimizer: Optimizer) -> dict[str, torch.Tensor]:
    return adapter.copy() | optimizer.state()


def assert_unchanged(adapter: Adapter, optimizer: Optimizer, before: dict[str, torch.Tensor]) -> None:
    after = everything(adapter, optimizer)
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.mark.parametrize(("value", "norm"), [(torch.inf, "inf"), (-torch.inf, "inf"), (torch.nan, "nan")])
def test_nonfinite_gradient_is_discarded(value: float, norm: str, adapter: Adapter) -> None:
    """It was accumulated over two passes, of which the second is bad, in the third parameter."""
    optimizer = trained(adapter)
    go(adapter, sampled(1))
    go(adapter, sampled(2))
    assert adapter.gradients is not None
    adapter.gradients[2][0, 0] = value
    before = everything(adapter, optimizer)
    with pytest.raises(ModelError) as caught:
        optimizer.step(AdamParams(learning_rate=0.125))
    name = list(adapter.parameters)[2]
    assert f"the gradient of {name} has the value {value:g}, so grad_norm is {norm}" in str(caught.value)
    assert "learning rate 0.125" in str(caught.value)
    assert_unchanged(adapter, optimizer, before)
    assert adapter.gradients is None


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("rate", [1e39, 1e60])
def test_update_that_would_overflow_a_weight_is_refused(rate: float, steps: int, adapter: Adapter) -> None:
    """The first step has no moments yet; both leave everything to the bit, and training continues."""
    optimizer = trained(adapter, steps)
    before = everything(adapter, optimizer)
    go(adapter, sampled(5))
    with pytest.raises(ModelError) as caught:
        optimizer.step(AdamParams(learning_rate=rate))
    text = str(caught.value)
    assert f"it would set {next(iter(adapter.parameters))} to" in text
    assert f"learning rate {rate:g}, grad_norm " in text
    assert "Lower the learning rate, or set grad_clip_norm" in text
    assert_unchanged(adapter, optimizer, before)
    go(adapter, sampled(5))
    optimizer.step(AdamParams(learning_rate=0.01))
    twin = Adapter.copy(adapter)
    adapter.load({name: before[name] for name in twin})
    optimizer.load({name: value for name, value in before.items() if name not in twin})
    go(adapter, sampled(5))
    optimizer.step(AdamParams(learning_rate=0.01))
    assert all(torch.equal(p, twin[name]) for name, p in adapter.parameters.items())


def test_decay_that_would_overflow_a_weight_is_refused(adapter: Adapter) -> None:
    """The weight is multiplied by 1 - lr * decay, with lr * decay = 1e42; the update itself is small."""
    optimizer = trained(adapter)
    before = everything(adapter, optimizer)
    go(adapter, sampled(5))
    with pytest.raises(ModelError, match="the update was refused"):
        optimizer.step(AdamParams(learning_rate=1e-3, weight_decay=1e45))
    assert_unchanged(adapter, optimizer, before)


def test_square_of_a_large_gradient_does_not_reach_the_moments(adapter: Adapter) -> None:
    """1e30 is a float32 and its square is not: exp_avg_sq would be inf for ever. Clipping makes it harmless."""
    optimizer = trained(adapter)
    before = everything(adapter, optimizer)

    def large() -> None:
        go(adapter, sampled(5))
        assert adapter.gradients is not None
        adapter.gradients[1][0, 0] = 1e30

    large()
    name = list(adapter.parameters)[1]
    with pytest.raises(ModelError, match=rf"it would set exp_avg_sq of {name} to inf .*grad_norm 1e\+30"):
        optimizer.step(AdamParams(learning_rate=1e-3))
    assert_unchanged(adapter, optimizer, before)
    large()
    metrics = optimizer.step(AdamParams(learning_rate=1e-3, grad_clip_norm=1.0))
    assert metrics["grad_norm"] == pytest.approx(1e30, rel=1e-5)
    assert all(bool(value.isfinite().all()) for value in everything(adapter, optimizer).values())


def test_checked_step_has_the_bits_of_a_step_in_place(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    start = adapter.copy()
    in_place = everything(adapter, trained(adapter, 4))
    adapter.load(start)
    monkeypatch.setattr("mint_lab.engine.optimizer.SAFE_SIZE", 0.0)  # no step is known to be safe
    checked = everything(adapter, trained(adapter, 4))
    assert in_place.keys() == checked.keys()
    assert all(torch.equal(checked[name], value) for name, value in in_place.items())


def test_usual_steps_run_in_place(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first step, whose moments are not known to be bounded, makes copies; a load needs them once again."""
    calls: list[int] = []
    checked = Optimizer._apply_checked
    monkeypatch.setattr(Optimizer, "_apply_checked", lambda *args: (calls.append(1), checked(*args)))
    optimizer = trained(adapter, 4)
    assert len(calls) == 1
    optimizer.load(optimizer.state())
    for seed in range(2):
        go(adapter, sampled(seed))
        optimizer.step(AdamParams(learning_rate=1e3))
    assert len(calls) == 2


def test_step_without_memory_changes_nothing(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    optimizer = Optimizer(adapter)
    weights = adapter.copy()
    go(adapter, sampled(1))

    def full(*args: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes")

    monkeypatch.setattr("mint_lab.engine.optimizer._adamw", full)
    with pytest.raises(ModelError, match=r"out of memory in the optimizer's step .*9 bytes.*smaller LoRA rank"):
        optimizer.step(AdamParams(learning_rate=0.1))
    assert optimizer.state() == {}
    assert all(torch.equal(p, weights[n]) for n, p in adapter.parameters.items())


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("learning_rate", -1.0),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
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
