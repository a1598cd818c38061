"""LoRA layers and gated MLPs against PEFT's and transformers' own forward passes of the same modules."""

from __future__ import annotations

import copy
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
from transformers.models.llama.modeling_llama import LlamaMLP
from transformers.pytorch_utils import Conv1D

from mint_lab.engine.fused_layers import _FusedLoraLinear, fuse
from mint_lab.engine.lora import suppress_peft_warnings

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
def test_a_layer_is_pefts(dtype: torch.dtype, kind: str, shape: tuple[int, ...], first: bool) -> None:
    """``first``: of a first layer's input nobody wants a gradient."""
    layer = lora(base_layer(kind, dtype))
    assert type(layer) is _FusedLoraLinear
    a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    x = torch.randn(*shape, IN, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_(not first)
    into = [a, b] if first else [a, b, x]
    found, expected = layer(x), Linear.forward(layer, x)
    assert found.dtype == expected.dtype == dtype
    # Eight bits of mantissa: each of the two rounds at another place.
    limit = {"rtol": 2e-2, "atol": 5e-2} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
    torch.testing.assert_close(found, expected, **limit)
    for p, one, other in zip(into, gradients(found, into), gradients(expected, into), strict=True):
        assert one.dtype == p.dtype
        torch.testing.assert_close(one, other, **limit)
    with torch.no_grad():
        assert torch.equal(layer(x), found)
    if dtype == torch.float32:
        torch.testing.assert_close(nn.functional.linear(x, *weights(layer)), expected, rtol=1e-5, atol=1e-5)


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
def test_a_gated_mlp_is_the_familys(act: str, bias: bool, names: tuple[str, ...]) -> None:
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
def test_an_mlp_that_does_something_else_is_left_alone(other: type[LlamaMLP]) -> None:
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
def test_parts_of_the_same_names_that_are_something_else(kind: type[nn.Module]) -> None:
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
def test_several_adapters_each_alone_together_and_none(name: str) -> None:
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


def test_pefts_own_merging_still_works() -> None:
    plain = causal("llama", "one")
    expected = plain(input_ids=IDS).logits
    fuse(plain)
    plain.merge_adapter()
    torch.testing.assert_close(plain(input_ids=IDS).logits, expected, rtol=1e-4, atol=1e-4)
    plain.unmerge_adapter()
    torch.testing.assert_close(plain(input_ids=IDS).logits, expected, rtol=1e-4, atol=1e-4)
