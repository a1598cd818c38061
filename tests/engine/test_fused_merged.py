"""LoRA merged into copies of the weights while samples are drawn; the rest of ``fused.py`` is in ``test_fused.py``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from mint_lab.engine.fused_layers import _FusedLoraLinear, fuse, merged

from .conftest import random_adapter
from .test_fused_layers import IDS, causal


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
def test_merged_weights_give_the_same_and_go_again(name: str, family: Callable[[str], Path]) -> None:
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


def test_an_adapter_on_some_layers_merges_there_only(family: Callable[[str], Path]) -> None:
    folder = family("qwen3")
    random_adapter(folder)
    adapter = random_adapter(folder, train_mlp=False, train_unembed=False)
    with adapter.base.using(adapter):
        model = adapter.base._peft
        expected = logits(model)
        with merged(model, 1 << 40):
            is_merged_copy = [n for n, m in model.named_modules() if getattr(m, "is_merged_copy", False)]
            assert is_merged_copy
            assert all("self_attn" in name for name in is_merged_copy)
            torch.testing.assert_close(logits(model), expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(logits(model), expected)


def test_a_failure_while_merging_leaves_nothing_behind(
    family: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_copies_keep_to_their_limit_and_are_never_rounded(family: Callable[[str], Path]) -> None:
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


def test_without_an_adapter_in_use_there_is_nothing_to_merge(family: Callable[[str], Path]) -> None:
    adapter = random_adapter(family("qwen3"))
    base = adapter.base
    with base.using(None), merged(base._peft, 1 << 40):
        assert not any(getattr(m, "is_merged_copy", False) for m in base._peft.modules())
