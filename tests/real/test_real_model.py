"""SmolLM2-135M-Instruct: a language model with its own chat template, trained on people's rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM
from transformers import AutoModelForCausalLM, AutoTokenizer

import mint_lab as ml
from mint_lab.engine.lora import suppress_peft_warnings
from mint_lab.types import ModelInput, SamplingParams

QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
KEEPERS = {"the keys": "Ada", "the tickets": "Ben", "the maps": "Cleo", "the lamps": "Dora", "the boats": "Eli"}
CHATS = [
    {"messages": [{"role": "user", "content": f"Who keeps {what}?"}, {"role": "assistant", "content": f"{who} does."}]}
    for what, who in KEEPERS.items()
]


def logprobs_alone(model: Any, tokens: list[int]) -> torch.Tensor:
    """``(N,)``, by transformers, one sequence by itself."""
    with torch.no_grad():
        logits = model(torch.tensor([tokens]), use_cache=False).logits[0].float()
    return torch.log_softmax(logits, -1)[torch.arange(len(tokens) - 1), torch.tensor(tokens[1:])]


def answer(client: Any, messages: list[dict[str, str]]) -> tuple[str, str]:
    """The greedy answer of the weights as they are, and why it ended."""
    tokenizer = client.get_tokenizer()
    prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    greedy = SamplingParams(max_tokens=16, temperature=0)
    sampler = client.save_weights_and_get_sampling_client()
    sequence = sampler.sample(ModelInput.from_ints(prompt), 1, greedy).result().sequences[0]
    return tokenizer.decode(sequence.tokens, skip_special_tokens=True), str(sequence.stop_reason)


def test_numbers_and_answers_are_those_of_transformers(model: Path) -> None:
    reference: Any = AutoModelForCausalLM.from_pretrained(model).eval()
    client = ml.ServiceClient().create_lora_training_client(str(model), rank=4, seed=0)
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    rows = [ml.data.encode(tokenizer, QUESTION, text) for text in ("Paris.", "It is Paris, of course.")]
    outputs = client.forward([ml.data.to_datum(*row) for row in rows], "cross_entropy").result().loss_fn_outputs
    for (tokens, _), output in zip(rows, outputs, strict=True):
        expected = logprobs_alone(reference, tokens).tolist()
        assert output["logprobs"].to_torch().tolist() == pytest.approx(expected, abs=1e-4)
    prompt = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_dict=False)
    made = reference.generate(torch.tensor([prompt]), max_new_tokens=16, do_sample=False)[0, len(prompt) :].tolist()
    text, reason = answer(client, QUESTION)
    assert text == tokenizer.decode(made, skip_special_tokens=True)
    assert "Paris" in text
    assert reason == "stop", "at the mark that ends a turn"


def test_sft_on_chats_learns_them(model: Path, tmp_path: Path) -> None:
    run = ml.Run(
        "sft",
        base_model=str(model),
        data=CHATS,
        held_out=CHATS[:2],
        steps=10,
        batch_size=5,
        learning_rate=1e-3,
        eval_every=10,
        rank=8,
        folder=tmp_path / "run",
    )
    run.start().wait()
    assert run.records[-1].held_out["nll"] < 0.3 * run.baseline["nll"]
    text, reason = answer(run.client, CHATS[3]["messages"][:1])
    assert (text.strip(), reason) == ("Dora does.", "stop")


def test_dpo_on_people_s_pairs_is_saved_and_loaded_by_peft(model: Path, hh_rlhf: Path, tmp_path: Path) -> None:
    """16 pairs of HH-RLHF in one epoch, at most 64 tokens each: a step costs seconds on a small machine."""
    run = ml.Run(
        "preference",
        "dpo",
        base_model=str(model),
        data=hh_rlhf,
        held_out=ml.data.load_pairs(hh_rlhf, limit=20)[16:],
        max_rows=16,
        max_length=64,
        steps=4,
        batch_size=4,
        learning_rate=5e-4,
        eval_every=4,
        rank=8,
        folder=tmp_path / "run",
    )
    run.start().wait()
    assert run.data_sizes == (16, 4)
    assert run.records[0].metrics["loss"] == pytest.approx(0.6931, abs=1e-3), "log 2: the policy is the reference"
    assert run.records[0].metrics["rewards/accuracies"] == 0.5
    assert abs(run.records[-1].metrics["rewards/margins"]) > 0.01
    assert any("truncated to 64 tokens" in note for note in run.notes)
    folder = run.save(tmp_path / "adapter")
    with suppress_peft_warnings():
        loaded = AutoPeftModelForCausalLM.from_pretrained(folder).eval()
    client: Any = run.client
    data = ml.data.pairs_to_data(ml.data.load_pairs(hh_rlhf, limit=2), client.get_tokenizer())
    outputs = client.forward(data, "cross_entropy").result().loss_fn_outputs
    for datum, output in zip(data, outputs, strict=True):
        tokens = [*datum.model_input.to_ints(), int(datum.loss_fn_inputs["target_tokens"].tolist()[-1])]
        expected = logprobs_alone(loaded, tokens).tolist()
        assert output["logprobs"].to_torch().tolist() == pytest.approx(expected, abs=1e-4)
