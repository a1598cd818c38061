"""Adapters that PEFT wrote: what is read, and what is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from mint_lab.engine.checkpoints import load_checkpoint, save_checkpoint
from mint_lab.engine.models import Adapter, load_base
from mint_lab.engine.peft_folder import WEIGHTS_FILE, read_peft_folder
from mint_lab.errors import CheckpointError
from mint_lab.lora_options import LoraOptions

from .conftest import random_adapter
from .families import build
from .more_families import MIXTURES
from .reference import Reference, made_by_peft

TOKENS, TARGETS = [5, 6, 7, 8], [1, 2, 3, 4]


def logprobs(adapter: Adapter) -> torch.Tensor:
    with torch.no_grad(), adapter.base.using(adapter):
        logits = adapter.base(input_ids=torch.tensor([TOKENS])).logits[0]
    return torch.log_softmax(logits, -1)[torch.arange(len(TOKENS)), TARGETS]


def loaded(folder: Path) -> Adapter:
    checkpoint = load_checkpoint(folder)
    adapter = load_base(checkpoint.base_model).attach(checkpoint.lora, seed=0)
    checkpoint.load_into(adapter)
    return adapter


OPTIONS: dict[str, dict[str, Any]] = {
    "names": {"r": 3, "lora_alpha": 7, "target_modules": ["q_proj", "v_proj"]},
    "rslora": {"r": 4, "lora_alpha": 8, "use_rslora": True, "lora_dropout": 0.25, "target_modules": ["o_proj"]},
    "all-linear": {"r": 2, "target_modules": "all-linear"},
    "a pattern": {"r": 2, "target_modules": r".*\.1\.mlp\.(up|down)_proj"},
    "one depth": {"r": 2, "target_modules": ["q_proj", "up_proj"], "layers_to_transform": [1]},
    "some left out": {"r": 2, "target_modules": ["q_proj", "up_proj"], "exclude_modules": r".*\.0\..*"},
    "a tied head, with a copy of the embedding": {"r": 2, "target_modules": ["lm_head", "q_proj"]},
    "gaussian": {"r": 2, "target_modules": ["q_proj"], "init_lora_weights": "gaussian"},
}  # fmt: skip


@pytest.mark.parametrize("case", OPTIONS)
def test_adapter_of_peft_gives_the_same_log_probabilities(case: str, qwen3: Path, tmp_path: Path) -> None:
    """Read, and saved again: PEFT loads both on transformers' own model."""
    given = OPTIONS[case]
    folder = made_by_peft(qwen3, tmp_path / "theirs", **given)
    adapter = loaded(folder)
    lora = adapter.lora
    assert (lora.rank, lora.alpha, lora.rslora, lora.dropout) == (
        given["r"], given.get("lora_alpha", 8), given.get("use_rslora", False), given.get("lora_dropout", 0.0),
    )  # fmt: skip
    with torch.no_grad():
        expected = Reference(qwen3, folder).logprobs(TOKENS, TARGETS)
        bare = Reference(qwen3, None).logprobs(TOKENS, TARGETS)
        assert float((expected - bare).abs().max()) > 1e-3, "the adapter changes something"
        torch.testing.assert_close(logprobs(adapter), expected, rtol=0, atol=1e-4)
        save_checkpoint(tmp_path / "ours", adapter, None)
        again = Reference(qwen3, tmp_path / "ours").logprobs(TOKENS, TARGETS)
        torch.testing.assert_close(again, expected, rtol=0, atol=1e-4)
    assert torch.equal(logprobs(loaded(tmp_path / "ours")), logprobs(adapter))


SAVED: dict[str, dict[str, Any]] = {
    "alpha": {"alpha": 3.5},
    "rslora": {"rslora": True, "alpha": 5, "rank": 4},
    "names": {"target_modules": ["q_proj", "down_proj"]},
    "a whole path": {"target_modules": ["model.layers.1.self_attn.q_proj", "lm_head"]},
    "no head": {"unembed": False, "dropout": 0.1},
}


@pytest.mark.parametrize("case", SAVED)
def test_peft_reloads_every_kind_of_adapter(case: str, qwen3: Path, tmp_path: Path) -> None:
    adapter = random_adapter(qwen3, **SAVED[case])
    save_checkpoint(tmp_path / "c", adapter, None)
    with torch.no_grad():
        expected = Reference(qwen3, tmp_path / "c").logprobs(TOKENS, TARGETS)
    torch.testing.assert_close(logprobs(adapter), expected, rtol=0, atol=1e-4)
    config = json.loads((tmp_path / "c" / "adapter_config.json").read_text())
    options = adapter.lora
    assert (config["r"], config["lora_alpha"], config["use_rslora"], config["lora_dropout"]) == (
        options.rank, options.alpha, options.rslora, options.dropout,
    )  # fmt: skip
    assert load_checkpoint(tmp_path / "c").lora == options
    (tmp_path / "c" / "mint_lab.json").unlink()
    torch.testing.assert_close(logprobs(loaded(tmp_path / "c")), logprobs(adapter), rtol=0, atol=0)


STANDARD = {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"}


def test_without_the_head_only_standard_names_are_saved(qwen3: Path, tmp_path: Path) -> None:
    """What programs that serve adapters load: no head, no embedding, PEFT's names of Llama's layers."""
    save_checkpoint(tmp_path / "c", random_adapter(qwen3, unembed=False), None)
    assert set(json.loads((tmp_path / "c" / "adapter_config.json").read_text())["target_modules"]) == STANDARD
    names = list(load_file(tmp_path / "c" / WEIGHTS_FILE))
    assert len(names) == 2 * 2 * 7  # A and B of 7 layers at 2 depths
    for name in names:
        head, _, rest = name.partition(".layers.")
        depth, block, layer, matrix, weight = rest.split(".")
        assert (head, weight) == ("base_model.model.model", "weight")
        assert depth in "01"
        assert block == ("self_attn" if layer in {"q_proj", "k_proj", "v_proj", "o_proj"} else "mlp")
        assert layer in STANDARD
        assert matrix in {"lora_A", "lora_B"}
    save_checkpoint(tmp_path / "all", random_adapter(qwen3), None)
    assert any("lm_head" in name for name in load_file(tmp_path / "all" / WEIGHTS_FILE))


def edit(**entries: Any) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **entries}))

    return change


def rename_weights(folder: Path) -> None:
    (folder / WEIGHTS_FILE).rename(folder / "adapter_model.bin")


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "DoRA": (edit(use_dora=True), "has use_dora=True, which cannot be trained here"),
    "whole modules": (edit(modules_to_save=["lm_head"]), r"has modules_to_save=\['lm_head'\]"),
    "biases": (edit(bias="all"), "has bias='all'"),
    "bias of LoRA": (edit(lora_bias=True), "has lora_bias=True"),
    "ranks": (edit(rank_pattern={"q_proj": 8}), "has rank_pattern={'q_proj': 8}"),
    "alphas": (edit(alpha_pattern={"q_proj": 8}), "has alpha_pattern={'q_proj': 8}"),
    "tokens": (edit(trainable_token_indices=[1]), "has trainable_token_indices"),
    "LoftQ": (edit(loftq_config={"loftq_bits": 4}), "has loftq_config"),
    "LoftQ's initial weights": (edit(init_lora_weights="loftq"), "has init_lora_weights='loftq', which changes the w"),
    "PiSSA": (edit(init_lora_weights="pissa_niter_4"), "has init_lora_weights='pissa_niter_4'"),
    "a feature of a later peft": (edit(use_new=True), "has use_new=True"),
    "another method": (edit(peft_type="IA3"), "has peft_type 'IA3'; only LoRA adapters"),
    "another task": (edit(task_type="SEQ_CLS"), "has task_type 'SEQ_CLS'; only 'CAUSAL_LM'"),
    "a revision": (edit(revision="v2"), "is of revision 'v2' of its base model"),
    "no base model": (edit(base_model_name_or_path=None), "names no base model: write its directory or hub name"),
    "a bad rank": (edit(r=0), "is damaged: rank is 0"),
    "a bad alpha": (edit(lora_alpha="x"), "is damaged: alpha is 'x'"),
    "no layers": (edit(target_modules=[]), "is damaged: target_modules is"),
    "pickled weights": (rename_weights, r"are in adapter_model.bin, a pickle file, .*save_pretrained\(folder\)"),
    "no JSON": (lambda f: (f / "adapter_config.json").write_text("{"), "cannot read adapter_config.json"),
    "a list": (lambda f: (f / "adapter_config.json").write_text("[]"), "adapter_config.json is no JSON object"),
    "damaged weights": (lambda f: (f / WEIGHTS_FILE).write_bytes(b"x"), "is damaged"),
    "no weights": (lambda f: (f / WEIGHTS_FILE).unlink(), "is damaged"),
}


@pytest.fixture(scope="module")
def theirs(qwen3: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_by_peft(qwen3, tmp_path_factory.mktemp("theirs") / "a", r=2, target_modules=["q_proj", "lm_head"])


def copied(folder: Path, place: Path) -> Path:
    place.mkdir()
    for file in folder.iterdir():
        (place / file.name).write_bytes(file.read_bytes())
    return place


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_plain_lora_is_refused_by_name(case: str, theirs: Path, tmp_path: Path) -> None:
    damage, words = REFUSED[case]
    folder = copied(theirs, tmp_path / "a")
    damage(folder)
    with pytest.raises(CheckpointError, match=words):
        load_checkpoint(folder)


def change_tensors(change: Callable[[dict[str, torch.Tensor]], Any]) -> Callable[[Path], None]:
    def rewrite(folder: Path) -> None:
        tensors = load_file(folder / WEIGHTS_FILE)
        change(tensors)
        save_file(tensors, folder / WEIGHTS_FILE)

    return rewrite


A = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
TENSORS: dict[str, tuple[Callable[[dict[str, torch.Tensor]], Any], str]] = {
    "missing": (lambda t: t.pop(A), rf"{A} has shape none, expected \(2, 48\)"),
    "extra": (
        lambda t: t.update({"base_model.model.x.weight": torch.zeros(1)}),
        r"x.weight has shape \(1,\), expected none",
    ),
    "of another shape": (lambda t: t.update({A: torch.zeros(3, 48)}), rf"{A} has shape \(3, 48\), expected \(2, 48\)"),
    "trained embedding": (
        lambda t: next(w for name, w in t.items() if "base_layer" in name).add_(1),
        r"lm_head.base_layer.weight has shape \(270, 48\), expected none",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TENSORS)
def test_missing_and_extra_tensors_are_named(case: str, theirs: Path, tmp_path: Path) -> None:
    change, words = TENSORS[case]
    folder = copied(theirs, tmp_path / "a")
    change_tensors(change)(folder)
    with pytest.raises(CheckpointError, match=words):
        loaded(folder)


def test_base_model_is_found_from_here_or_from_the_folder(qwen3: Path, theirs: Path, tmp_path: Path,
                                                          monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    assert read_peft_folder(theirs).base_model == str(qwen3)
    folder = copied(theirs, tmp_path / "a")
    (tmp_path / "base").symlink_to(qwen3)
    edit(base_model_name_or_path="../base")(folder)
    monkeypatch.chdir("/")
    assert read_peft_folder(folder).base_model == str(qwen3)
    monkeypatch.chdir(tmp_path)
    edit(base_model_name_or_path="base")(folder)
    assert read_peft_folder(folder).base_model == str(qwen3)
    for name in ("mint-tiny", "somebody/some-model"):
        edit(base_model_name_or_path=name)(folder)
        assert read_peft_folder(folder).base_model == name


def test_adapter_that_peft_replaced_is_read_as_it_is_now(qwen3: Path, tmp_path: Path) -> None:
    """Its folder still has our file, which says something else."""
    save_checkpoint(tmp_path / "c", random_adapter(qwen3), None)
    made_by_peft(qwen3, tmp_path / "c", r=3, lora_alpha=5, target_modules=["q_proj"])
    assert load_checkpoint(tmp_path / "c").lora == LoraOptions(3, alpha=5, target_modules=["q_proj"])
    with torch.no_grad():
        expected = Reference(qwen3, tmp_path / "c").logprobs(TOKENS, TARGETS)
    torch.testing.assert_close(logprobs(loaded(tmp_path / "c")), expected, rtol=0, atol=1e-4)


def test_experts_of_a_mixture_are_named_too(tmp_path: Path) -> None:
    """PEFT's target_parameters are names of layers here; both directions."""
    base = build("qwen3_moe", tmp_path / "base", MIXTURES["qwen3_moe"])
    folder = made_by_peft(
        base, tmp_path / "theirs", r=2, target_modules=["q_proj"], target_parameters=["experts.gate_up_proj"]
    )
    adapter = loaded(folder)
    assert adapter.lora == LoraOptions(2, alpha=8, target_modules=["experts.gate_up_proj", "q_proj"])
    save_checkpoint(tmp_path / "ours", adapter, None)
    with torch.no_grad():
        expected = Reference(base, folder).logprobs(TOKENS, TARGETS)
        again = Reference(base, tmp_path / "ours").logprobs(TOKENS, TARGETS)
    torch.testing.assert_close(logprobs(adapter), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(again, expected, rtol=0, atol=1e-4)
    edit(target_modules=".*q_proj")(folder)
    with pytest.raises(CheckpointError, match="has target_parameters and a pattern of layers"):
        load_checkpoint(folder)
