"""Where base models are loaded from, and what cannot be loaded."""

from __future__ import annotations

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.utils import logging as hf_logging

from mint_lab import tiny
from mint_lab.engine.models import load_base
from mint_lab.engine.pretrained import canonical_name, load_pretrained, resolve_source
from mint_lab.errors import ModelError

ROOT = Path(__file__).resolve().parents[2]


def test_sources_and_names(qwen3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundled = str(tiny.path().resolve())
    assert resolve_source("mint-tiny") == resolve_source("mint-lab/mint-tiny") == bundled
    assert resolve_source("Qwen/Qwen3-0.6B") == canonical_name("Qwen/Qwen3-0.6B") == "Qwen/Qwen3-0.6B"
    monkeypatch.chdir(qwen3.parent)
    assert resolve_source(qwen3.name) == resolve_source(f"./{qwen3.name}") == str(qwen3.resolve())
    assert canonical_name(str(qwen3)) == str(qwen3)
    assert canonical_name(bundled) == "mint-tiny"


def test_loaded_model_is_frozen_and_quiet(qwen3: Path, capfd: pytest.CaptureFixture[str]) -> None:
    hf_logging.enable_progress_bar()
    tokenizer, model = load_pretrained(str(qwen3), torch.device("cpu"), torch.bfloat16)
    assert hf_logging.is_progress_bar_enabled()
    assert capfd.readouterr().err == ""
    assert tokenizer.decode(tokenizer.encode("1 + 1")) == "1 + 1"
    assert not model.training
    assert {(p.dtype, p.requires_grad) for p in model.parameters()} == {(torch.bfloat16, False)}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "base_model is '', expected 'mint-tiny', a directory, or a hub name"),
        (None, "base_model is None"),
        ("/no/such/folder", "no directory '/no/such/folder'; give a model directory"),
        ("./nothing", "no directory './nothing'"),
        ("~/nothing/there", "no directory"),
        ("a/b/c", "no directory 'a/b/c'"),
    ],
)
def test_unknown_names_raise(name: str, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        load_base(name)


def test_folder_without_model_raises(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"has no config.json; expected a model saved by save_pretrained"):
        load_base(str(tmp_path))


@pytest.mark.parametrize(
    "damage", ["no weights", "truncated weights", "no tokenizer", "config is no json", "unknown kind"]
)
def test_damaged_folder_raises(damage: str, qwen3: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(qwen3, tmp_path / "m")
    weights = folder / "model.safetensors"
    if damage == "no weights":
        weights.unlink()
    elif damage == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "no tokenizer":
        for file in folder.glob("tokenizer*"):
            file.unlink()
    elif damage == "config is no json":
        (folder / "config.json").write_text("{")
    else:
        (folder / "config.json").write_text(json.dumps({"model_type": "nothing-known"}))
    with pytest.raises(
        ModelError, match=r"cannot load base model '.*' \(.+\): the directory is not a complete causal language model"
    ):
        load_base(str(folder))


@pytest.mark.parametrize(
    "network", [{"HF_HUB_OFFLINE": "1"}, {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": "http://127.0.0.1:9"}]
)
def test_hub_name_without_network_raises_at_once(network: dict[str, str], tmp_path: Path) -> None:
    """By default huggingface_hub retries each file for 23 seconds, with output."""
    code = (
        "import time\nfrom mint_lab.engine.models import load_base\nfrom mint_lab.errors import ModelError\n"
        "pauses = []\ntime.sleep = pauses.append\n"
        "try: load_base('nobody/nothing')\nexcept ModelError as error: print(error)\n"
        "print(pauses)"
    )
    environment = {**os.environ, **network, "HF_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    message, pauses = done.stdout.splitlines()
    assert message.startswith("cannot load base model 'nobody/nothing' (no answer from http")
    assert "give its directory as base_model, or use 'mint-tiny', which needs no download" in message
    assert pauses == "[]"
    assert done.stderr == ""


def test_bundled_model_has_one_name() -> None:
    by_name, by_path = load_base("mint-tiny"), load_base(str(tiny.path()))
    assert by_name is by_path
    assert by_name.name == "mint-tiny"


@pytest.mark.parametrize("lost", ["model.layers.1.mlp.up_proj.weight", "model.norm.weight"])
def test_weights_that_lack_a_tensor_are_refused_by_its_name(lost: str, qwen3: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(qwen3, tmp_path / "m")
    weights = load_file(folder / "model.safetensors")
    del weights[lost]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=f"lack the tensor {re.escape(lost)}, which would begin with random values"):
        load_base(str(folder))
    for name in [name for name in weights if "layers.0" in name]:
        del weights[name]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lack the tensor model\.layers\.0\.\S+ and \d+ more"):
        load_base(str(folder))


def test_tied_weights_are_not_missed(tmp_path: Path) -> None:
    """The bundled model's output layer is its embedding, and its file has the tensor once."""
    assert not any("lm_head" in name for name in load_file(tiny.path() / "model.safetensors"))
    assert load_base("mint-tiny").vocab_size


def test_pickled_weights_are_not_opened(qwen3: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(qwen3, tmp_path / "m")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Touch(tmp_path / "run")))
    with pytest.raises(ModelError, match=r"pytorch_model\.bin, a pickle file.*expected safetensors.*save_pretrained"):
        load_base(str(folder))
    assert not (tmp_path / "run").exists()


class Touch:
    """Writes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("trust", [False, True])
def test_code_of_a_model_runs_only_if_it_is_asked_for(trust: bool, qwen3: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(qwen3, tmp_path / f"own_{trust}")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "own.py").write_text(
        "from pathlib import Path\n"
        "from transformers import Qwen3Config, Qwen3ForCausalLM\n\n"
        f"Path({str(tmp_path / 'run')!r}).touch()\n\n\n"
        "class OwnConfig(Qwen3Config):\n    model_type = 'own'\n\n\n"
        "class OwnModel(Qwen3ForCausalLM):\n    config_class = OwnConfig\n"
    )
    if trust:
        assert load_base(str(folder), trust_remote_code=True).vocab_size == load_base(str(qwen3)).vocab_size
    else:
        with pytest.raises(ModelError, match=r"needs Python code .* not run .*ServiceClient\(trust_remote_code=True\)"):
            load_base(str(folder))
    assert (tmp_path / "run").exists() == trust
