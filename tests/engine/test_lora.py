"""Which layers carry LoRA, and the names that PEFT gets for them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
from torch import nn
from transformers.pytorch_utils import Conv1D

from mint_lab.engine.lora import LoraShape, linear_layers, suppress_peft_warnings, target_modules
from mint_lab.engine.models import load_base
from mint_lab.errors import ModelError


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
        (LoraShape(), ["lm_head", "o", "q", "up"]),
        # "o" alone would match the MLP's layer too, so attention's gets the longer name.
        (LoraShape(train_mlp=False, train_unembed=False), ["q", "self_attn.o"]),
        (LoraShape(train_attn=False, train_unembed=False), ["mlp.o", "up"]),
        (LoraShape(train_attn=False, train_mlp=False), ["lm_head"]),
    ],
)
def test_target_names_are_as_short_as_unambiguous(shape: LoraShape, names: list[str]) -> None:
    assert target_modules(KINDS, shape) == names


@pytest.mark.parametrize("name", ["qwen3", "gpt2", "gpt_neox", "phi"])
def test_targets_select_exactly_the_requested_layers(name: str, family: Callable[[str], Path]) -> None:
    """PEFT matches a name against the ends of paths, at dots."""
    kinds = linear_layers(load_base(str(family(name)))._model)
    for requested in ("attn", "mlp", "unembed"):
        shape = LoraShape(train_attn=requested == "attn", train_mlp=requested == "mlp",
                          train_unembed=requested == "unembed")  # fmt: skip
        names = target_modules(kinds, shape)
        matched = {path for path in kinds if any(path == n or path.endswith(f".{n}") for n in names)}
        assert matched == {path for path, kind in kinds.items() if kind == requested}


def test_model_without_requested_layers_raises() -> None:
    with pytest.raises(ModelError, match="no linear layer of the requested kinds"):
        target_modules({"mlp.up": "mlp"}, LoraShape(train_mlp=False, train_unembed=False))


@pytest.mark.parametrize("rank", [0, -1, 1.5, True, "4", None])
def test_bad_ranks_raise(rank: object) -> None:
    with pytest.raises(ModelError, match=r"rank is .*, expected a whole number of at least 1"):
        LoraShape(rank=rank)  # type: ignore[arg-type]


def test_shape_without_layers_raises() -> None:
    with pytest.raises(ModelError, match="nothing to train: train_mlp, train_attn and train_unembed are all False"):
        LoraShape(train_mlp=False, train_attn=False, train_unembed=False)


def warn(*messages: str) -> None:
    with suppress_peft_warnings():
        for message in messages:
            warnings.warn(message, UserWarning, stacklevel=2)


def test_only_known_peft_warnings_are_suppressed() -> None:
    with pytest.warns(UserWarning, match="something else") as caught:
        warn("fan_in_fan_out is set to False", "Model with `tie_word_embeddings=True`", "something else")
    assert len(caught) == 1
