"""The adapter of a run is saved as a folder that transformers and peft load."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import mint_lab
from mint_lab.client.gradients import token_logprobs
from mint_lab.data.pairs import arithmetic_pairs, pairs_to_data
from mint_lab.errors import CheckpointError, ConfigError, RunError
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
