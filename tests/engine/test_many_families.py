"""Families of models: the same numbers as transformers, and LoRA on every layer or a word of those without."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from mint_lab.client.service import ServiceClient
from mint_lab.data import to_datum
from mint_lab.engine.lora import suppress_peft_warnings, without_lora
from mint_lab.engine.models import load_base
from mint_lab.errors import ModelError
from mint_lab.lora_options import LoraOptions
from mint_lab.types import AdamParams, ModelInput, SamplingParams

from .families import FAMILIES, build
from .more_families import DENSE, LONG_ROPE, MIXTURES, PARTLY, STATEFUL

ALL = {**FAMILIES, **DENSE, **MIXTURES, **PARTLY}


def rows() -> list[list[int]]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(0, 256, (length,), generator=generator).tolist() for length in (12, 30, 5, 60)]


def logprobs_alone(model: Any, row: list[int]) -> torch.Tensor:
    """``(N,)``, by transformers, one sequence by itself and no cache."""
    with torch.no_grad():
        logits = model(torch.tensor([row]), use_cache=False).logits[0].float()
    return torch.log_softmax(logits, -1)[torch.arange(len(row) - 1), torch.tensor(row[1:])]


def greedy_alone(model: Any, row: list[int], count: int) -> list[int]:
    tokens = list(row)
    with torch.no_grad():
        for _ in range(count):
            tokens.append(int(model(torch.tensor([tokens]), use_cache=False).logits[0, -1].argmax()))
    return tokens[len(row) :]


def test_there_are_many() -> None:
    assert len(ALL) >= 36


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """``folder_of(name)``: a model of the family, built once."""

    @functools.cache
    def built(name: str) -> Path:
        return build(name, tmp_path_factory.mktemp(name) / "m", ALL[name])

    return built


@pytest.mark.parametrize("name", ALL)
def test_numbers_are_those_of_transformers(name: str, folder_of: Callable[[str], Path], tmp_path: Path) -> None:
    folder = folder_of(name)
    model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    service = ServiceClient(tmp_path / "home")
    client = service.create_lora_training_client(str(folder), rank=2, seed=0)
    outputs = client.forward([to_datum(row, 1) for row in rows()], "cross_entropy").result().loss_fn_outputs
    for row, output in zip(rows(), outputs, strict=True):
        assert output["logprobs"].to_torch().tolist() == pytest.approx(logprobs_alone(model, row).tolist(), abs=1e-4)
    sampler = service.create_sampling_client(base_model=str(folder))
    greedy = SamplingParams(max_tokens=6, temperature=0, stop=[])
    futures = [sampler.sample(ModelInput.from_ints(row), 1, greedy) for row in rows()[:3]]
    found = [[int(token) for token in future.result().sequences[0].tokens] for future in futures]
    assert found == [greedy_alone(model, row, 6) for row in rows()[:3]]


@pytest.mark.parametrize("name", ALL)
def test_every_layer_has_lora_or_is_named(name: str, folder_of: Callable[[str], Path]) -> None:
    base = load_base(str(folder_of(name)))
    adapter = base.attach(LoraOptions(rank=2), seed=0)
    named = without_lora(base.lora_layers(adapter.lora), adapter.parameters)
    covered = {path.removeprefix("base_model.model.").partition(".lora_")[0] for path in adapter.parameters}
    model: Any = AutoModelForCausalLM.from_pretrained(folder_of(name))
    for path, module in model.named_modules():
        if type(module) is torch.nn.Linear:
            numberless = ".".join("*" if part.isdigit() else part for part in path.split("."))
            assert (path in covered) != (numberless in named)
    stacked = [path for path, p in model.named_parameters() if "experts." in path and p.dim() == 3]
    assert all(any(each.startswith(path.rpartition(".")[0]) for each in covered) for path in stacked)
    assert bool(named) == (name in PARTLY)


@pytest.mark.parametrize(
    ("name", "lora"),
    [
        *((name, LoraOptions(2)) for name in ("qwen3_moe", "gpt_oss", "glm4_moe")),
        # No linear layer beside the experts has LoRA.
        *((name, LoraOptions(2, attn=False, unembed=False)) for name in ("qwen3_moe", "mixtral")),
    ],
)
def test_lora_of_experts_trains_and_is_loaded_by_peft(
    name: str, lora: LoraOptions, folder_of: Callable[[str], Path], tmp_path: Path
) -> None:
    from peft import AutoPeftModelForCausalLM

    folder = folder_of(name)
    service = ServiceClient(tmp_path / "home")
    other = service.create_lora_training_client(str(folder), rank=4, seed=1)
    client = service.create_lora_training_client(str(folder), lora=lora, seed=0)
    data = [to_datum(row, 1) for row in rows()]
    before = other.forward(data, "cross_entropy").result().metrics["loss:sum"]
    losses: list[float] = []
    for _ in range(3):
        losses.append(client.forward_backward(data, "cross_entropy").result().metrics["loss:sum"])
        client.optim_step(AdamParams(learning_rate=1e-2)).result()
    assert losses[2] < losses[1] < losses[0] == pytest.approx(before, rel=1e-6)
    assert other.forward(data, "cross_entropy").result().metrics["loss:sum"] == before, "adapters are apart"
    client.save_adapter(tmp_path / "adapter").result()
    with suppress_peft_warnings():
        model = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter").eval()
    outputs = client.forward(data, "cross_entropy").result().loss_fn_outputs
    for row, output in zip(rows(), outputs, strict=True):
        assert output["logprobs"].to_torch().tolist() == pytest.approx(logprobs_alone(model, row).tolist(), abs=1e-4)


@pytest.mark.parametrize("name", STATEFUL)
def test_layers_with_a_state_are_refused(name: str, tmp_path: Path) -> None:
    folder = build(name, tmp_path / "m", STATEFUL[name])
    with pytest.raises(ModelError, match=r"peft cannot put LoRA on base model .*incompatible with Mamba"):
        ServiceClient(tmp_path / "home").create_lora_training_client(str(folder), rank=2, seed=0)


def test_a_state_that_is_not_continued_is_not_sampled_from(tmp_path: Path) -> None:
    sizes = {"vocab_size": 270, "hidden_size": 48, "num_hidden_layers": 2, "attention_hidden_size": 48}
    folder = build("rwkv", tmp_path / "m", sizes)
    sampler = ServiceClient(tmp_path / "home").create_sampling_client(base_model=str(folder))
    for _ in range(2):
        with pytest.raises(ModelError, match="cannot be sampled from: its layers keep a state"):
            sampler.sample(ModelInput.from_ints([1, 2, 3]), 1, SamplingParams(max_tokens=2)).result()


def test_a_long_row_changes_no_other_row(tmp_path: Path) -> None:
    """LongRoPE changes a whole batch once one of its rows is longer than 32, so 32 is the longest row."""
    folder = build("phi3", tmp_path / "m", LONG_ROPE)
    base = load_base(str(folder))
    assert base.context == 32
    assert any("32 tokens" in note for note in base.notes)
    client = ServiceClient(tmp_path / "home").create_lora_training_client(str(folder), rank=2, seed=0)
    model: Any = AutoModelForCausalLM.from_pretrained(folder).eval()
    short = [row[:32] for row in rows()]
    outputs = client.forward([to_datum(row, 1) for row in short], "cross_entropy").result().loss_fn_outputs
    for row, output in zip(short, outputs, strict=True):
        assert output["logprobs"].to_torch().tolist() == pytest.approx(logprobs_alone(model, row).tolist(), abs=1e-4)
