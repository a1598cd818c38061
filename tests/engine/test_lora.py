"""Which layers carry LoRA, and the names that PEFT gets for them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn
from transformers.pytorch_utils import Conv1D

from mint_lab.engine.lora import (
    check_rank,
    layers_below_rank,
    linear_layers,
    lora_layers,
    suppress_peft_warnings,
    without_lora,
)
from mint_lab.engine.models import load_base
from mint_lab.errors import ModelError
from mint_lab.lora_options import LoraOptions


class Model(nn.Module):
    """Two attention layers, one of GPT-2's kind, two of an MLP, an embedding and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 2)
        self.self_attn = nn.ModuleDict({"q": nn.Linear(2, 2), "o": Conv1D(2, 2)})
        self.mlp = nn.ModuleDict({"up": nn.Linear(2, 4), "o": nn.Linear(4, 2)})
        self.lm_head = nn.Linear(2, 5)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head


KINDS = {"self_attn.q": "attn", "self_attn.o": "attn", "mlp.up": "mlp", "mlp.o": "mlp", "lm_head": "unembed"}


def test_linear_layers_by_kind() -> None:
    assert linear_layers(Model()) == KINDS


@pytest.mark.parametrize(
    ("shape", "names"),
    [
        (LoraOptions(), ["lm_head", "o", "q", "up"]),
        # "o" alone would match the MLP's layer too, so attention's gets the longer name.
        (LoraOptions(mlp=False, unembed=False), ["q", "self_attn.o"]),
        (LoraOptions(attn=False, unembed=False), ["mlp.o", "up"]),
        (LoraOptions(attn=False, mlp=False), ["lm_head"]),
    ],
)
def test_target_names_are_as_short_as_unambiguous(shape: LoraOptions, names: list[str]) -> None:
    assert lora_layers(KINDS, [], shape).target_modules == names


@pytest.mark.parametrize("name", ["qwen3", "gpt2", "gpt_neox", "phi"])
def test_targets_select_exactly_the_requested_layers(name: str, family: Callable[[str], Path]) -> None:
    """PEFT matches a name against the ends of paths, at dots."""
    kinds = linear_layers(load_base(str(family(name)))._model)
    for requested in ("attn", "mlp", "unembed"):
        shape = LoraOptions(attn=requested == "attn", mlp=requested == "mlp",
                          unembed=requested == "unembed")  # fmt: skip
        names = lora_layers(kinds, [], shape).target_modules
        matched = {path for path in kinds if any(path == n or path.endswith(f".{n}") for n in names)}
        assert matched == {path for path, kind in kinds.items() if kind == requested}


def test_model_without_requested_layers_raises() -> None:
    with pytest.raises(ModelError, match="no linear layer of the requested kinds"):
        lora_layers({"mlp.up": "mlp"}, [], LoraOptions(mlp=False, unembed=False))


EXPERTS = ["layers.0.experts.gate_up_proj", "layers.1.experts.gate_up_proj"]


def test_layers_are_named_as_in_peft() -> None:
    """A name is a whole path or its end at a dot; parameters of experts have names too."""
    found = lora_layers(KINDS, EXPERTS, LoraOptions(target_modules=["o", "experts.gate_up_proj", "lm_head"]))
    assert found.linear == ["self_attn.o", "mlp.o", "lm_head"]
    assert (found.experts, found.target_modules) == (EXPERTS, ["o", "lm_head"])
    assert found.target_parameters == ["experts.gate_up_proj"]
    assert lora_layers(KINDS, EXPERTS, LoraOptions(target_modules=["self_attn.o"])).linear == ["self_attn.o"]


def test_unknown_names_are_named_with_those_there_are() -> None:
    words = (
        "target_modules names 'down', 'm_head', and no linear layer of this model has such a name; "
        "its layers are experts.gate_up_proj, lm_head, o, q, up"
    )
    with pytest.raises(ModelError, match=words):
        lora_layers(KINDS, EXPERTS, LoraOptions(target_modules=["q", "down", "m_head"]))


def test_rank_is_bounded_by_the_smaller_dimension_of_every_layer() -> None:
    """Layers of 8 by 4 and 8 by 6: an update has rank 6 at most."""
    smaller = {"layers.0.q": 4, "layers.1.q": 4, "layers.0.up": 6}
    check_rank(smaller, LoraOptions(6))
    assert layers_below_rank(smaller, LoraOptions(6)) == ["layers.*.q"]
    assert layers_below_rank(smaller, LoraOptions(4)) == []
    with pytest.raises(ModelError, match=r"rank is 7, expected at most 6: .* its layer's smaller dimension"):
        check_rank(smaller, LoraOptions(7))


def test_layers_without_lora_are_named() -> None:
    layers = lora_layers(KINDS, EXPERTS, LoraOptions())
    parameters = [f"base_model.model.{path}.lora_A.weight" for path in layers.linear if path != "mlp.up"]
    parameters.append("base_model.model.layers.1.experts.base_layer.lora_A.weight")
    assert without_lora(layers, parameters) == ["layers.*.experts.gate_up_proj", "mlp.up"]


def warn(*messages: str) -> None:
    with suppress_peft_warnings():
        for message in messages:
            warnings.warn(message, UserWarning, stacklevel=2)


def test_only_known_peft_warnings_are_suppressed() -> None:
    with pytest.warns(UserWarning, match="something else") as caught:
        warn("fan_in_fan_out is set to False", "Model with `tie_word_embeddings=True`", "something else")
    assert len(caught) == 1
