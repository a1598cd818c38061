"""What decides how data are prepared, read without weights: the same as of the loaded model."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from mint_lab import tiny
from mint_lab.engine.models import load_base
from mint_lab.engine.text_model import context_of, end_tokens_of, load_text_model
from mint_lab.errors import ModelError


def test_text_model_agrees_with_the_loaded_model(qwen3: Path, tmp_path: Path) -> None:
    assert load_text_model("mint-tiny").name == load_base("mint-tiny", "cpu").name
    for number, source in enumerate((tiny.path(), qwen3)):
        name = str(tmp_path / str(number))  # a copy: a model in memory is shared, and other tests change its tokenizer
        shutil.copytree(source, name)
        text, base = load_text_model(name), load_base(name, "cpu")
        assert (text.name, text.context, text.end_tokens) == (base.name, base.context, base.end_tokens)
        assert text.get_tokenizer().encode("1 + 1 = 2") == base.tokenizer.encode("1 + 1 = 2")
        assert text.get_tokenizer().chat_template == base.tokenizer.chat_template


def test_no_weights_are_needed(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny.path(), folder)
    (folder / "model.safetensors").unlink()
    assert load_text_model(str(folder)).context == 1024
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, 5]}))
    assert load_text_model(str(folder)).end_tokens == {0, 5}
    (folder / "generation_config.json").unlink()
    assert load_text_model(str(folder)).end_tokens == {0}, "the configuration's or the tokenizer's"


def test_missing_model_and_missing_tokenizer(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no directory '/no/such/model'"):
        load_text_model("/no/such/model")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ModelError, match="cannot load base model"):
        load_text_model(str(tmp_path))


@pytest.mark.parametrize(
    ("config", "context"),
    [
        ({"max_position_embeddings": 4096}, 4096),
        ({}, 1_000_000),
        (
            {
                "max_position_embeddings": 131072,
                "rope_scaling": {"rope_type": "longrope"},
                "original_max_position_embeddings": 4096,
            },
            4096,
        ),
        (
            {
                "max_position_embeddings": 131072,
                "rope_parameters": {"type": "longrope", "original_max_position_embeddings": 8192},
            },
            8192,
        ),
        ({"max_position_embeddings": 64, "rope_scaling": {"rope_type": "yarn"}}, 64),
    ],
)
def test_longest_sequence(config: dict[str, object], context: int) -> None:
    assert context_of(SimpleNamespace(**config)) == context


def test_end_tokens_are_those_of_both() -> None:
    tokenizer = SimpleNamespace(eos_token_id=3)
    assert end_tokens_of(SimpleNamespace(eos_token_id=[1, 2]), tokenizer) == {1, 2, 3}
    assert end_tokens_of(SimpleNamespace(eos_token_id=3), tokenizer) == {3}
    assert end_tokens_of(None, SimpleNamespace(eos_token_id=None)) == frozenset()
    assert end_tokens_of(SimpleNamespace(eos_token_id=[]), tokenizer) == {3}


@pytest.mark.parametrize("ends", ["</s>", [0, "5"], {"end": 0}, True, 1.0])
def test_end_tokens_that_are_none_are_refused(tmp_path: Path, ends: object) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny.path(), folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": ends}))
    for load in (load_text_model, lambda name: load_base(name, "cpu")):
        with pytest.raises(ModelError, match=r"eos_token_id=.*, expected a token id, a list of them, or null"):
            load(str(folder))
