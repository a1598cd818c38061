"""The adapter of a run is saved as a folder that transformers and peft load."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import mint_lab
from mint_lab.client.gradients import token_logprobs
from mint_lab.data.pairs import arithmetic_pairs, pairs_to_data
from mint_lab.errors import CheckpointError, ConfigError, RunError
from mint_lab.lora_options import LoraOptions
from mint_lab.runs import Run

from .conftest import TIMEOUT, finish


@pytest.fixture(scope="module")
def run(tmp_path_factory: Any) -> Run:
    """Three steps of the bundled model, paused."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    options: dict[str, Any] = {"data": arithmetic_pairs(24), "held_out": arithmetic_pairs(4, split="held_out")}
    run = Run(steps=6, batch_size=8, rank=4, learning_rate=1e-2, folder=folder, **options)
    assert run.step(3).wait(TIMEOUT * 4)
    return run


def logprobs_by_peft(folder: Path, data: list[Any]) -> list[torch.Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of transformers and peft, about each other
        from peft import AutoPeftModelForCausalLM

        model = AutoPeftModelForCausalLM.from_pretrained(folder, torch_dtype=torch.float32).eval()
    rows = []
    for datum in data:
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([datum.model_input.to_ints()])).logits[0]
        targets = datum.loss_fn_inputs["target_tokens"].to_torch()[:, None]
        rows.append(torch.log_softmax(logits, -1).gather(1, targets)[:, 0])
    return rows


def test_peft_gives_the_same_log_probabilities(run: Run, tmp_path: Path) -> None:
    folder = run.save(tmp_path / "new" / "adapter")
    assert folder == tmp_path / "new" / "adapter"
    data = pairs_to_data(arithmetic_pairs(3, seed=5), run.client.get_tokenizer())
    ours = token_logprobs(run.client, data)
    for mine, theirs in zip(ours, logprobs_by_peft(folder, data), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-4)
    untrained = mint_lab.ServiceClient().create_lora_training_client("mint-tiny", rank=4)
    moved = torch.cat(token_logprobs(untrained, data)) - torch.cat(ours)
    assert float(moved.abs().max()) > 0.1, "training has changed the log-probabilities that are compared"
    prompt = mint_lab.types.ModelInput.from_ints(data[0].model_input.to_ints())
    sampler = mint_lab.ServiceClient().create_sampling_client(model_path=str(folder))
    found = sampler.compute_logprobs(prompt).result()[1:]
    torch.testing.assert_close(torch.tensor(found), ours[0][: len(found)], rtol=0, atol=1e-4)


def test_tokenizer_and_its_template_are_saved_too(run: Run, tmp_path: Path) -> None:
    """Chats get the same tokens as in training, and a second save replaces these files as well."""
    from transformers import AutoTokenizer, GenerationConfig

    folder = run.save(tmp_path / "adapter")
    tokenizer, own = AutoTokenizer.from_pretrained(str(folder)), run.client.get_tokenizer()
    chat = [{"role": "user", "content": "1+2=?"}, {"role": "assistant", "content": "3"}]
    assert tokenizer.chat_template == own.chat_template
    assert tokenizer.apply_chat_template(chat, tokenize=False) == own.apply_chat_template(chat, tokenize=False)
    assert tokenizer.encode("1+2=3") == own.encode("1+2=3")
    assert GenerationConfig.from_pretrained(str(folder)).eos_token_id is not None
    files = sorted(file.name for file in folder.iterdir())
    assert {"tokenizer_config.json", "chat_template.jinja", "generation_config.json"} < set(files)
    run.save(folder)
    assert sorted(file.name for file in folder.iterdir()) == files


@pytest.mark.parametrize("content", ["{", "[]", '{"files": 3}', '{"files": [3, "other.txt"]}', '{"format": 1}'])
def test_files_that_no_save_wrote_are_kept(content: str, run: Run, tmp_path: Path) -> None:
    folder = run.save(tmp_path / "adapter")
    (folder / "mint_lab.json").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"is not an adapter's folder: it holds 'chat_template\.jinja'"):
        run.save(folder)


def test_run_goes_on_with_a_saved_adapter(run: Run, tmp_path: Path) -> None:
    """Its baseline is the evaluation of the adapter, and DPO starts at its reference: all margins are 0."""
    folder = run.save(tmp_path / "adapter")
    options: dict[str, Any] = {"data": arithmetic_pairs(24), "held_out": arithmetic_pairs(4, split="held_out")}
    options |= {"steps": 2, "batch_size": 8, "base_model": str(folder)}
    then = Run(loss="dpo", folder=tmp_path / "run", learning_rate=1e-2, **options)
    assert then.lora is None
    assert then.prepare_data().max_length == run.client.context, "the data need the base model's tokenizer only"
    assert then.start().wait(TIMEOUT * 4)
    assert then.lora == LoraOptions(4)
    assert then.records[0].metrics["loss"] == pytest.approx(0.693147, abs=1e-4)
    assert then.baseline["logps/chosen"] == pytest.approx(chosen_logps(run, options["held_out"]), abs=1e-3)
    info = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert (info["base_model"], info["rank"], info["lora"]) == (str(folder), 4, LoraOptions(4).record())
    assert f"training starts at the adapter in {folder}: LoraOptions(rank=4)" in info["notes"]
    last = then.save(folder)
    data = pairs_to_data(arithmetic_pairs(3, seed=5), then.client.get_tokenizer())
    for mine, theirs in zip(token_logprobs(then.client, data), logprobs_by_peft(last, data), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-4)
    with pytest.raises(RunError, match=r"rank is 8, but the adapter in .* is LoraOptions\(rank=4\)"):
        Run(rank=8, folder=tmp_path / "other", **options).start().wait(TIMEOUT)


def chosen_logps(run: Run, pairs: Any) -> float:
    """The mean log-probability of the chosen answers under the run's present weights."""
    data = pairs_to_data(pairs, run.client.get_tokenizer())[::2]
    rows = token_logprobs(run.client, data)
    weights = [d.loss_fn_inputs["weights"].to_torch() for d in data]
    return float(sum((row * w).sum() for row, w in zip(rows, weights, strict=True))) / len(data)


def test_only_a_folder_of_an_adapter_is_replaced(run: Run, tmp_path: Path) -> None:
    first = run.save(tmp_path / "adapter")
    weights = (first / "adapter_model.safetensors").read_bytes()
    assert run.step().wait(TIMEOUT)
    assert run.save(first) == first
    assert (first / "adapter_model.safetensors").read_bytes() != weights
    (first / "notes.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"is not an adapter's folder: it holds 'notes.txt'"):
        run.save(first)
    with pytest.raises(ConfigError, match="is a file"):
        run.save(first / "notes.txt")
    with pytest.raises(CheckpointError, match="cannot write"):
        run.save(first / "notes.txt" / "below")
    assert (first / "notes.txt").read_text(encoding="utf-8") == "mine"
    (tmp_path / "empty").mkdir()
    assert (run.save(tmp_path / "empty") / "adapter_config.json").is_file()


def test_running_run_is_saved_between_two_steps(run: Run, tmp_path: Path) -> None:
    run.set(steps=run.steps_done + 30).start()
    folder = run.save(tmp_path / "adapter")
    assert (folder / "adapter_config.json").is_file()
    assert run.pause().wait(TIMEOUT)
    run.save(tmp_path / "now")
    assert run.step().wait(TIMEOUT)


def test_untrained_run_and_hosted_client_are_refused(make_run: Any, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"completed no step.*run\.start\(\)\.wait\(\)"):
        make_run().save(tmp_path / "adapter")
    with pytest.raises(ConfigError, match=r"BigramClient keeps its weights on a server: .*save_weights_for_sampler"):
        finish(make_run()).save(tmp_path / "adapter")
    assert not (tmp_path / "adapter").exists()
