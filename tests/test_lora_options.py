"""The options of an adapter: every value is checked, and a rank is their short form."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mint_lab
from mint_lab.errors import ConfigError
from mint_lab.lora_options import LoraOptions, adapter_folder, merge_rank, refuse_hosted


def test_scaling() -> None:
    """Alpha / rank, or alpha / sqrt(rank) with rslora."""
    assert LoraOptions(16).scaling == 2
    assert LoraOptions(16, alpha=8, rslora=True).scaling == 2
    assert LoraOptions(2, alpha=1, rslora=True).scaling == pytest.approx(1 / math.sqrt(2))


def test_kinds_are_all_unless_names_are_given() -> None:
    assert mint_lab.LoraOptions is LoraOptions
    options = LoraOptions(unembed=False)
    assert (options.attn, options.mlp, options.unembed) == (True, True, False)
    named = LoraOptions(target_modules=["q_proj", "v_proj", "q_proj"])
    assert (named.attn, named.mlp, named.unembed, named.target_modules) == (None, None, None, ("q_proj", "v_proj"))
    assert LoraOptions(attn=True) == LoraOptions()
    assert replace(named, rank=3) == LoraOptions(3, target_modules=("q_proj", "v_proj"))


def test_numbers_of_numpy_are_numbers() -> None:
    options = LoraOptions(np.int64(4), alpha=np.float32(8), dropout=np.float64(0.25))  # type: ignore[arg-type]
    assert options == LoraOptions(4, alpha=8, dropout=0.25)
    assert [type(value) for value in (options.rank, options.alpha, options.dropout)] == [int, int, float]


@pytest.mark.parametrize(
    "options",
    [
        LoraOptions(),
        LoraOptions(3, alpha=0.5, dropout=0.1, rslora=True, mlp=False),
        LoraOptions(3, target_modules=["a.b", "c"]),
    ],
)
def test_options_survive_json_and_their_text(options: LoraOptions) -> None:
    record = options.record()
    assert json.loads(json.dumps(record)) == record, "as JSON holds them"
    assert LoraOptions(**record) == options
    assert eval(str(options)) == options


def test_text_leaves_defaults_out() -> None:
    assert str(LoraOptions()) == "LoraOptions(rank=16)"
    assert str(LoraOptions(8, alpha=64, unembed=False)) == "LoraOptions(rank=8, alpha=64, unembed=False)"


NAN, INF = math.nan, math.inf
BAD: dict[str, list[tuple[Any, str]]] = {
    "rank": [(value, "expected a whole number from 1 up") for value in (0, -1, 1.5, True, "4", None)],
    "alpha": [(value, "expected a finite number above 0") for value in (0, -1, NAN, INF, True, "32", None)],
    "dropout": [(value, "expected a number from 0 up and below 1") for value in (-0.1, 1, 1.5, NAN, True, "0", None)],
    "attn": [(1, "expected True or False"), ("yes", "expected True or False")],
    "rslora": [(None, "expected True or False"), (1, "expected True or False")],
    "target_modules": [
        ("q_proj", "expected a list of names of layers"),
        ("all-linear", "for all layers but the head, give unembed=False instead"),
        ([], "expected at least one name"),
        (["q_proj", ""], "and no empty one"),
        ([1], "expected a list of names"),
        ({"q_proj"}, "expected a list of names"),
    ],
}


@pytest.mark.parametrize(("name", "value", "words"), [(name, *case) for name, cases in BAD.items() for case in cases])
def test_bad_values_raise(name: str, value: Any, words: str) -> None:
    with pytest.raises(ConfigError, match=f"^{name} is .*{words}"):
        LoraOptions(**{name: value})


def test_contradictions_raise() -> None:
    with pytest.raises(ConfigError, match="nothing to train: attn, mlp and unembed are all False"):
        LoraOptions(attn=False, mlp=False, unembed=False)
    with pytest.raises(ConfigError, match=r"target_modules names the layers .* and mlp=False selects them too"):
        LoraOptions(target_modules=["q_proj"], mlp=False)
    with pytest.raises(TypeError):
        LoraOptions(8, 16)  # type: ignore[misc]  # which of rank, alpha and dropout is meant is easily mistaken


def test_rank_is_the_short_form() -> None:
    assert merge_rank(None, None, 32) == LoraOptions(32)
    assert merge_rank(8, None, 32) == LoraOptions(8)
    options = LoraOptions(8, alpha=1)
    assert merge_rank(8, options, 32) is options
    assert merge_rank(None, options, 32) is options
    with pytest.raises(ConfigError, match="rank is 4, but lora has rank 8; give one of the two"):
        merge_rank(4, options, 32)
    with pytest.raises(ConfigError, match="rank is 0, expected a whole number from 1 up"):
        merge_rank(0, options, 32)
    with pytest.raises(ConfigError, match=r"lora is 8, expected mint_lab.LoraOptions"):
        merge_rank(None, 8, 32)  # type: ignore[arg-type]


def test_hosted_services_take_rank_and_kinds_only() -> None:
    refuse_hosted(LoraOptions(8, mlp=False))
    with pytest.raises(ConfigError, match=r"does not take alpha and dropout and rslora of lora: .*alpha=32"):
        refuse_hosted(LoraOptions(8, alpha=16, dropout=0.1, rslora=True))
    with pytest.raises(ConfigError, match="does not take target_modules of lora"):
        refuse_hosted(LoraOptions(target_modules=["q_proj"]))


def test_adapter_folder_has_its_configuration(tmp_path: Path) -> None:
    assert adapter_folder(str(tmp_path)) is None
    (tmp_path / "adapter_config.json").write_text("{}")
    assert adapter_folder(str(tmp_path)) == tmp_path
    assert [adapter_folder(name) for name in ("mint-tiny", "", None, 3)] == [None] * 4
