"""Fused LoRA layers, gated MLPs and norms against PEFT's and transformers' own, and merging for generation."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.lora import Linear
from torch import nn
from transformers import CONFIG_MAPPING, AutoModelForCausalLM
from transformers.activations import ACT2FN
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.llama.modeling_llama import LlamaMLP, LlamaRMSNorm
from transformers.pytorch_utils import Conv1D

from mint_lab.engine.fused_layers import _FusedLoraLinear, _RmsNorm, fuse, merged
from mint_lab.engine.lora import suppress_peft_warnings
from mint_lab.engine.lora_dropout import LayerDropout

from .conftest import random_adapter
from .families import FAMILIES

IN, OUT, RANK = 6, 5, 3


def filled(model: nn.Module) -> None:
    """Every LoRA parameter random, in float32, as the engine has them."""
    draw = torch.Generator().manual_seed(7)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=draw)
        parameter.requires_grad_("lora_" in name)


def lora(layer: nn.Module, *, fused: bool = True) -> Any:
    """PEFT's layer on ``layer``."""
    model = nn.Sequential(layer)
    config = LoraConfig(r=RANK, lora_alpha=4, target_modules=["0"], fan_in_fan_out=isinstance(layer, Conv1D))
    inject_adapter_in_model(config, model)
    filled(model)
    if fused:
        fuse(model)
    return model[0]


def base_layer(kind: str, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(3)
    if kind == "conv1d":
        layer = Conv1D(OUT, IN)
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
        return layer.to(dtype)
    return nn.Linear(IN, OUT, bias=kind == "bias").to(dtype)


def gradients(y: torch.Tensor, into: list[torch.Tensor]) -> list[torch.Tensor]:
    rows = torch.randn(y.shape, generator=torch.Generator().manual_seed(5)).to(y.dtype)
    return list(torch.autograd.grad(y, into, rows))


@settings(max_examples=30)
@given(
    kind=st.sampled_from(["plain", "bias", "conv1d"]),
    shape=st.sampled_from([(1, 7), (2, 3), (4,), (1, 1), (2, 2, 2)]),
    first=st.booleans(),
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_lora_layer_matches_peft(dtype: torch.dtype, kind: str, shape: tuple[int, ...], first: bool) -> None:
    """``first``: the input of a model's first layer needs no gradient."""
    layer = lora(base_layer(kind, dtype))
    assert type(layer) is _FusedLoraLinear
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    x = torch.randn(*shape, IN, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_(not first)
    into = [a, b] if first else [a, b, x]
    found, expected = layer(x), Linear.forward(layer, x)
    assert found.dtype == expected.dtype == dtype
    # Eight bits of mantissa; the two round at different steps.
    limit = {"rtol": 2e-2, "atol": 5e-2} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(found, expected, **limit)
    for p, one, other in zip(into, gradients(found, into), gradients(expected, into), strict=True):
        assert one.dtype == p.dtype
        torch.testing.assert_close(one, other, **limit)
    with torch.no_grad():
        assert torch.equal(layer(x), found)
    if dtype == torch.float32:
        torch.testing.assert_close(nn.functional.linear(x, *weights(layer)), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dropout", [False, True])
@pytest.mark.parametrize("kind", ["plain", "bias", "conv1d"])
def test_a_small_update_is_not_rounded_away(kind: str, dropout: bool) -> None:
    """In bfloat16, W x has 8 bits. An update of half a unit in its last place must have its effect on average.

    The sum of a rounded update and a rounded W x has about half of that.
    """
    torch.manual_seed(0)
    width = 512
    base = Conv1D(width, width) if kind == "conv1d" else nn.Linear(width, width, bias=kind == "bias")
    base.weight.data = torch.randn(width, width) / width**0.5
    layer = lora(base.bfloat16())
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    b.data.mul_(5e-4)
    x = torch.randn(64, width).bfloat16().requires_grad_()
    if dropout:
        layer.dropout = LayerDropout(0.25, 1)
    kept = x.detach().float() * (layer.dropout.mask(x) if dropout else 1)
    with torch.no_grad():
        update = kept @ a.T @ b.T * layer.scaling["default"]
        without = base(x)
    assert update.abs().median() < 0.3 * torch.finfo(torch.bfloat16).eps * without.float().abs().median()
    assert share(layer(x) - without, update) == pytest.approx(1, abs=0.05)
    if not dropout:  # the gradient of x is a sum of the same two parts, transposed
        into = torch.randn(64, width).bfloat16()
        (found,) = torch.autograd.grad(layer(x), [x], into)
        (from_base,) = torch.autograd.grad(base(x), [x], into)
        assert share(found - from_base, into.float() @ b @ a * layer.scaling["default"]) == pytest.approx(1, abs=0.05)


def share(found: torch.Tensor, expected: torch.Tensor) -> float:
    """How much of ``expected`` is in ``found``: the factor of least squares."""
    with torch.no_grad():
        return float((found.double() * expected.double()).sum() / expected.double().square().sum())


def weights(layer: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
    """W + s B A, (out, in), and the bias."""
    weight = layer.merged_weight()
    return weight.T if layer.fan_in_fan_out else weight, layer.base_layer.bias


def test_by_hand() -> None:
    """W = 3, A = 2, B = 5, scaling 1/2, x = 7: y = 3 x 7 + 5 x 2 x 7 / 2 = 56; dy/dx = 8, dy/dA = 17.5, dy/dB = 7."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False))
    inject_adapter_in_model(LoraConfig(r=2, lora_alpha=1, target_modules=["0"]), model)
    layer: Any = model[0]
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    with torch.no_grad():
        layer.base_layer.weight.fill_(3)
        a.copy_(torch.tensor([[2.0], [0.0]]))
        b.copy_(torch.tensor([[5.0, 0.0]]))
    fuse(model)
    x = torch.tensor([[7.0]], requires_grad=True)
    y = layer(x)
    assert y.item() == 56
    into_x, into_a, into_b = torch.autograd.grad(y, [x, a, b])
    assert into_x.item() == 8
    assert into_a.tolist() == [[17.5], [0.0]]
    assert into_b.tolist() == [[7.0, 0.0]]
    assert layer.merged_weight().item() == 8


# --- gated MLPs ------------------------------------------------------------------------------------------------------


def mlp(act: str, *, bias: bool = False, names: tuple[str, ...] = ("gate_proj", "up_proj", "down_proj")) -> nn.Module:
    config = CONFIG_MAPPING["llama"](
        hidden_size=IN, intermediate_size=9, hidden_act=act, mlp_bias=bias, num_attention_heads=1
    )
    torch.manual_seed(2)
    module = LlamaMLP(config)
    inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=4, target_modules=list(names)), module)
    filled(module)
    return module


@pytest.mark.parametrize("act", ["silu", "gelu_pytorch_tanh", "relu2"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("names", [("gate_proj", "up_proj", "down_proj"), ("down_proj",), ("gate_proj", "up_proj")])
def test_gated_mlp_matches_the_family(act: str, bias: bool, names: tuple[str, ...]) -> None:
    module = mlp(act, bias=bias, names=names)
    plain = copy.deepcopy(module)
    fuse(module)
    assert "forward" in vars(module)
    assert "forward" not in vars(plain)
    for dtype, limit in ((torch.float32, 1e-5), (torch.bfloat16, 5e-2)):
        for model in (module, plain):
            for name, parameter in model.named_parameters():
                parameter.data = parameter.data.to(torch.float32 if "lora_" in name else dtype)
        xs = [torch.randn(1, 4, IN, generator=torch.Generator().manual_seed(4)).to(dtype) for _ in range(2)]
        ys = [model(x.requires_grad_()) for model, x in zip((module, plain), xs, strict=True)]
        assert ys[0].dtype == dtype
        torch.testing.assert_close(ys[0], ys[1], rtol=limit, atol=limit)
        found, expected = (
            gradients(y, [x, *(p for p in model.parameters() if p.requires_grad)])
            for model, x, y in zip((module, plain), xs, ys, strict=True)
        )
        assert len(found) == 1 + 2 * len(names)
        for one, other in zip(found, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=limit, atol=limit * max(1.0, float(other.abs().max())))


class Scaled(LlamaMLP):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 0.5 * super().forward(x)


class Shifted(LlamaMLP):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.gate_proj(x)) * (self.up_proj(x) + 1))


class Swapped(LlamaMLP):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(self.act_fn(self.up_proj(x)) * self.gate_proj(x))


class TwoInputs(LlamaMLP):
    def forward(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return super().forward(x) + residual


class Flat(LlamaMLP):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.dim() != 2:
            raise ValueError(f"got {x.dim()} dimensions, expected 2")
        return super().forward(x)


@pytest.mark.parametrize("other", [Scaled, Shifted, Swapped, TwoInputs, Flat])
def test_other_mlps_are_not_replaced(other: type[LlamaMLP]) -> None:
    module: Any = mlp("silu")
    module.__class__ = other
    x = torch.randn(3, IN)
    inputs = (x, x) if other is TwoInputs else (x,)
    expected = module(*inputs)
    fuse(module)
    assert "forward" not in vars(module)
    torch.testing.assert_close(module(*inputs), expected, rtol=1e-5, atol=1e-6)


class Joined(nn.Module):
    """Parts of other sizes, which cannot be multiplied."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = nn.Linear(IN, 3), nn.Linear(IN, 4), nn.Linear(7, IN)
        self.act_fn = ACT2FN["silu"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_proj(torch.cat([self.act_fn(self.gate_proj(x)), self.up_proj(x)], -1))


class Experts(nn.Module):
    """Parts that are tables of weights and no layers, as mixtures of experts have them."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj, self.up_proj = nn.Parameter(torch.ones(2, IN, 3)), nn.Parameter(torch.ones(2, IN, 3))
        self.down_proj = nn.Parameter(torch.ones(2, 3, IN))
        self.act_fn = ACT2FN["silu"]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return ((self.act_fn(x @ self.gate_proj) * (x @ self.up_proj)) @ self.down_proj).sum(0)


@pytest.mark.parametrize("kind", [Joined, Experts])
def test_other_attributes_of_these_names_are_ignored(kind: type[nn.Module]) -> None:
    module = kind()
    fuse(module)
    assert "forward" not in vars(module)
    assert module(torch.zeros(2, IN)).shape == (2, IN)


# --- whole models ----------------------------------------------------------------------------------------------------

IDS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])


def causal(name: str, *adapters: str) -> Any:
    """A PEFT model with some adapters, LoRA on every linear layer but the last."""
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[name](**FAMILIES[name])).eval()
    config = LoraConfig(r=RANK, target_modules="all-linear", task_type="CAUSAL_LM")
    with suppress_peft_warnings():
        made = get_peft_model(model, config, adapter_name=adapters[0])
        for adapter in adapters[1:]:
            made.add_adapter(adapter, config)
    filled(made)
    return made.eval()


def result(model: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor | None]]:
    """Logits, and the gradient of every LoRA parameter."""
    model.zero_grad()
    logits = model(input_ids=IDS, use_cache=False).logits
    if logits.requires_grad:
        (logits * torch.linspace(-1, 1, logits.numel()).view_as(logits)).sum().backward()
    return logits.detach(), {n: p.grad for n, p in model.named_parameters() if "lora_" in n}


def assert_same(found: Any, expected: Any) -> None:
    torch.testing.assert_close(found[0], expected[0], rtol=1e-9, atol=1e-9)
    for name, gradient in expected[1].items():
        here = found[1][name]
        assert (here is None) == (gradient is None), name
        if gradient is not None:
            torch.testing.assert_close(here, gradient, rtol=1e-8, atol=1e-8 * (1 + float(gradient.abs().max())))


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_several_adapters_match_peft(name: str) -> None:
    plain = causal(name, "one", "two").double()
    model = copy.deepcopy(plain)
    before = list(model.state_dict())
    fuse(model)
    fuse(model)  # as it is when another adapter is attached
    assert list(model.state_dict()) == before
    assert list(get_peft_model_state_dict(model, adapter_name="two")) == list(
        get_peft_model_state_dict(plain, adapter_name="two")
    )
    seen = []
    for use in ("one", "two", ["one", "two"], "one"):
        for m in (model, plain):
            m.base_model.set_adapter(use)
        assert_same(result(model), result(plain))
        seen.append(result(model)[0])
    assert torch.equal(seen[0], seen[3])
    assert not torch.allclose(seen[0], seen[1], atol=1e-3)
    with model.disable_adapter(), plain.disable_adapter():
        assert_same(result(model), result(plain))
    assert torch.equal(result(model)[0], seen[0])


def test_pefts_own_merging_works() -> None:
    plain = causal("llama", "one")
    expected = plain(input_ids=IDS).logits
    fuse(plain)
    plain.merge_adapter()
    torch.testing.assert_close(plain(input_ids=IDS).logits, expected, rtol=1e-4, atol=1e-4)
    plain.unmerge_adapter()
    torch.testing.assert_close(plain(input_ids=IDS).logits, expected, rtol=1e-4, atol=1e-4)


# --- RMS normalization -----------------------------------------------------------------------------------------------


class CentredRMSNorm(LlamaRMSNorm):
    """Its name says RMS, but it subtracts the mean."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden_states - hidden_states.mean(-1, keepdim=True))


def rms_norm(kind: type[nn.Module], size: int = 6) -> nn.Module:
    module = kind(size).requires_grad_(False)
    torch.manual_seed(0)
    module.weight.data = torch.randn(size)
    return module


@pytest.mark.parametrize("kind", [LlamaRMSNorm, Gemma2RMSNorm])
@pytest.mark.parametrize("shape", [(6,), (3, 6), (2, 3, 4, 6)])
def test_rms_norm_matches_the_family(kind: type[nn.Module], shape: tuple[int, ...]) -> None:
    plain, fused = rms_norm(kind), rms_norm(kind)
    fuse(nn.ModuleList([fused]))
    assert "forward" in vars(fused)
    x = torch.randn(shape, requires_grad=True)
    gradient = torch.randn(shape)
    found, expected = fused(x), plain(x)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        *(torch.autograd.grad(y, x, gradient)[0] for y in (found, expected)), rtol=1e-5, atol=1e-6
    )


def test_rms_norm_by_hand() -> None:
    """At (3, 4) the mean square is 12.5; the gradient of x_1 / rms is (1 - 9/25, -12/25) / sqrt(12.5)."""
    x = torch.tensor([[3.0, 4.0]], requires_grad=True)
    y = _RmsNorm.apply(x, torch.tensor([1.0, 2.0]), 0.0)
    root = 12.5**0.5
    torch.testing.assert_close(y, torch.tensor([[3 / root, 8 / root]]))
    (into,) = torch.autograd.grad(y[0, 0], x)
    torch.testing.assert_close(into, torch.tensor([[(1 - 9 / 25) / root, -12 / 25 / root]]))


def test_rms_norm_of_zeros_has_finite_gradient() -> None:
    x = torch.zeros(1, 4, requires_grad=True)
    y = _RmsNorm.apply(x, torch.ones(4), 1e-6)
    (into,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(into, torch.full((1, 4), 1e3))


def test_rms_norm_gradient_by_differences() -> None:
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: _RmsNorm.apply(z, weight, 1e-5), x)


def test_other_norms_are_not_replaced() -> None:
    other, trained, half = rms_norm(CentredRMSNorm), rms_norm(LlamaRMSNorm).requires_grad_(True), rms_norm(LlamaRMSNorm)
    fuse(nn.ModuleList([other, trained, half]))
    assert "forward" not in vars(other)
    assert "forward" not in vars(trained)
    x = torch.randn(2, 6, dtype=torch.bfloat16)
    assert torch.equal(half(x), LlamaRMSNorm.forward(half, x))  # in the family's own order of rounding


# --- merging into copies of the weights ------------------------------------------------------------------------------


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits


def snapshot(model: nn.Module) -> dict[str, tuple[nn.Parameter, torch.Tensor]]:
    return {name: (p, p.detach().clone()) for name, p in model.named_parameters(remove_duplicate=False)}


def assert_as_before(model: nn.Module, before: dict[str, tuple[nn.Parameter, torch.Tensor]]) -> None:
    after = dict(model.named_parameters(remove_duplicate=False))
    assert list(after) == list(before)
    for name, (parameter, value) in before.items():
        assert after[name] is parameter, name
        assert torch.equal(parameter, value), name


@pytest.mark.parametrize("name", ["qwen3", "gpt2", "phi", "gemma2"])
def test_merged_weights_match_and_are_restored(name: str, family: Callable[[str], Path]) -> None:
    adapter = random_adapter(family(name))
    base = adapter.base
    with base.using(adapter):
        model, before = base._peft, snapshot(base._peft)
        embedding = base._model.get_input_embeddings()
        rows = embedding.weight.clone()
        expected = logits(model)
        with merged(model, 1 << 40):
            layers = [m for m in model.modules() if isinstance(m, _FusedLoraLinear)]
            assert layers
            assert all(layer.is_merged_copy for layer in layers)
            torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-5)
            assert embedding.weight is before[next(n for n, (p, _) in before.items() if p is embedding.weight)][0]
            assert torch.equal(embedding.weight, rows), "it may be the output layer's too, which is merged"
            with merged(model, 1 << 40):  # nothing left to merge
                torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-5)
        assert_as_before(model, before)
        assert torch.equal(logits(model), expected)
        with pytest.raises(ZeroDivisionError), merged(model, 1 << 40):
            1 // 0  # noqa: B018
        assert_as_before(model, before)
        assert torch.equal(logits(model), expected)


def test_only_adapted_layers_are_merged(family: Callable[[str], Path]) -> None:
    folder = family("qwen3")
    random_adapter(folder)
    adapter = random_adapter(folder, mlp=False, unembed=False)
    with adapter.base.using(adapter):
        model = adapter.base._peft
        expected = logits(model)
        with merged(model, 1 << 40):
            is_merged_copy = [n for n, m in model.named_modules() if getattr(m, "is_merged_copy", False)]
            assert is_merged_copy
            assert all("self_attn" in name for name in is_merged_copy)
            torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(logits(model), expected)


def test_failure_while_merging_restores_weights(family: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = random_adapter(family("qwen3"))
    with adapter.base.using(adapter):
        model, before = adapter.base._peft, snapshot(adapter.base._peft)
        plain, calls = _FusedLoraLinear.merged_weight, []

        def failing(self: _FusedLoraLinear) -> torch.Tensor:
            calls.append(1)
            if len(calls) == 4:
                raise MemoryError
            return plain(self)

        monkeypatch.setattr(_FusedLoraLinear, "merged_weight", failing)
        with pytest.raises(MemoryError), merged(model, 1 << 40):
            pass
        assert_as_before(model, before)
        assert not any(getattr(m, "is_merged_copy", False) for m in model.modules())


def test_merging_keeps_to_limit_and_never_rounds(family: Callable[[str], Path]) -> None:
    adapter = random_adapter(family("qwen3"))
    with adapter.base.using(adapter):
        model = adapter.base._peft
        layers = [m for m in model.modules() if isinstance(m, _FusedLoraLinear)]
        needed = sum(layer.get_base_layer().weight.nbytes for layer in layers)
        for limit in (needed, needed - 1, 0):
            with merged(model, limit):
                assert [layer.is_merged_copy for layer in layers] == [limit >= needed] * len(layers)
    half = causal("llama", "one")
    fuse(half)
    for name, parameter in half.named_parameters():
        parameter.data = parameter.data.to(torch.float32 if "lora_" in name else torch.bfloat16)
    before = snapshot(half)
    with merged(half, 1 << 40):
        assert_as_before(half, before)
        assert not any(getattr(m, "is_merged_copy", False) for m in half.modules())


def test_base_model_is_not_merged(family: Callable[[str], Path]) -> None:
    adapter = random_adapter(family("qwen3"))
    base = adapter.base
    with base.using(None), merged(base._peft, 1 << 40):
        assert not any(getattr(m, "is_merged_copy", False) for m in base._peft.modules())
