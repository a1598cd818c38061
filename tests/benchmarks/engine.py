"""What each optimization of the engine gains, against the plain method on the same model, batch and threads."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import mint_lab as ml
from mint_lab.client.training import TrainingClient
from mint_lab.types import AdamParams, Datum, ModelInput, TensorData

from .timing import Timing, alternate

__all__ = [
    "Row",
    "custom_against_builtin",
    "make_row",
    "packed_against_padded",
    "rl_step_against_update",
    "run_against_calls",
    "run_with_snapshots",
]

Row = dict[str, Any]


def medium_model(folder: Path) -> Path:
    """A 22 M-parameter Qwen3 with random weights and the bundled tokenizer, vocabulary padded to 16,384."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, Qwen3Config

    from mint_lab import tiny

    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=16_384, hidden_size=384, intermediate_size=1152, num_hidden_layers=8, num_attention_heads=6,
        num_key_value_heads=6, head_dim=64, max_position_embeddings=2048, tie_word_embeddings=True,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny.path()).save_pretrained(folder)
    return folder


def custom_against_builtin(rounds: int, pairs: int) -> list[Row]:
    """Measure one linear objective as a built-in loss, as a custom loss, and as the hosted client runs a custom loss.

    The hosted scheme is a forward pass, the loss on the client, then forward and backward on a surrogate whose weights
    are the loss's gradient.
    """
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("mint-tiny", str(medium_model(Path(folder)))):
            client = ml.ServiceClient().create_lora_training_client(name, rank=16, seed=0)
            data = ml.data.pairs_to_data(ml.data.arithmetic_pairs(pairs, seed=0), client.get_tokenizer())
            found = alternate(_three_ways(client, data), rounds)
            label = "0.9 M parameters" if name == "mint-tiny" else "22 M parameters"
            rows.append(
                make_row(f"custom loss / built-in loss, {label}", found["custom"], found["builtin"], "at most 1.05")
            )
            rows.append(
                make_row(f"two-pass scheme / built-in loss, {label}", found["two passes"], found["builtin"], "")
            )
    return rows


def _three_ways(client: TrainingClient, data: list[Datum]) -> dict[str, Callable[[], object]]:
    def negative_log_likelihood(data: list[Datum], logprobs_list: list[Any]) -> tuple[Any, dict[str, float]]:
        import torch

        weights = torch.cat([d.loss_fn_inputs["weights"].to_torch() for d in data])
        return -(weights * torch.cat(logprobs_list)).sum(), {}

    def two_passes() -> None:
        outputs = client.forward(data, "cross_entropy").result().loss_fn_outputs
        leaves = [out["logprobs"].to_torch().requires_grad_(True) for out in outputs]
        negative_log_likelihood(data, leaves)[0].backward()
        surrogate = [
            Datum(
                model_input=d.model_input,
                loss_fn_inputs={
                    "target_tokens": d.loss_fn_inputs["target_tokens"],
                    "weights": TensorData.from_torch(-leaf.grad),
                },
            )
            for d, leaf in zip(data, leaves, strict=True)
        ]
        client.forward_backward(surrogate, "cross_entropy").result()

    return {
        "builtin": lambda: client.forward_backward(data, "cross_entropy").result(),
        "custom": lambda: client.forward_backward_custom(data, negative_log_likelihood).result(),
        "two passes": two_passes,
    }


def packed_against_padded(rounds: int, pairs: int) -> list[Row]:
    """Measure preference pairs, and sequences of very unequal length, with and without packing and shared prefixes."""
    from mint_lab.engine.models import load_base
    from mint_lab.losses import pairwise_preference_loss

    client = ml.ServiceClient().create_lora_training_client("mint-tiny", rank=16, seed=0)
    base = load_base("mint-tiny")
    pair_data = ml.data.pairs_to_data(ml.data.arithmetic_pairs(pairs, seed=0), client.get_tokenizer())
    random = np.random.default_rng(0)
    unequal = [
        ml.data.to_datum(random.integers(0, 256, int(n) + 2).tolist(), 1)
        for n in np.geomspace(4, 300, 2 * pairs).astype(int)
    ]
    rows: list[Row] = []
    for label, data in (("pairs", pair_data), ("lengths from 4 to 300", unequal)):

        def call(packs: bool, data: list[Datum] = data) -> None:
            base.packs = packs
            client.forward_backward_custom(data, pairwise_preference_loss).result()

        try:
            found = alternate({"packed": lambda: call(True), "padded": lambda: call(False)}, rounds)
        finally:
            base.packs = True
        rows.append(make_row(f"padded / packed, {label}", found["padded"], found["packed"], "above 1"))
    return rows


def run_against_calls(rounds: int, pairs: int) -> list[Row]:
    """Compare a step of ``Run`` (record, store, batches; no evaluation) with its two client calls alone."""
    steps = max(rounds, 4)
    with tempfile.TemporaryDirectory() as folder:
        run = ml.Run(steps=100_000, batch_size=pairs, eval_every=10**6, folder=Path(folder) / "run", seed=0).prepare()
        client = ml.ServiceClient().create_lora_training_client("mint-tiny", rank=16, seed=0)
        data = ml.data.pairs_to_data(ml.data.arithmetic_pairs(pairs, seed=0), client.get_tokenizer())

        def calls() -> None:
            for _ in range(steps):
                client.forward_backward_custom(data, ml.losses.pairwise_preference_loss).result()
                client.optim_step(AdamParams(learning_rate=1e-4)).result()

        found = alternate({"run": lambda: run.step(steps).wait(), "calls": calls}, rounds)
        run.stop().wait()
    return [make_row("a step of Run / its two client calls", found["run"], found["calls"], "at most 1.1")]


def run_with_snapshots(rounds: int, pairs: int) -> list[Row]:
    """Compare steps of ``Run`` with and without snapshots: one at each evaluation, every ten steps."""
    steps = 10 * max(rounds // 5, 1)
    with tempfile.TemporaryDirectory() as folder:
        runs = {
            name: ml.Run(steps=100_000, batch_size=pairs, eval_every=10, keep_snapshots=keep, folder=f"{folder}/{name}")
            for name, keep in (("with", 2), ("without", 0))
        }
        found = alternate({name: lambda run=run: run.step(steps).wait() for name, run in runs.items()}, rounds)
        for run in runs.values():
            run.stop().wait()
    return [make_row("a step of Run with snapshots / without", found["with"], found["without"], "at most 1.03")]


def rl_step_against_update(rounds: int) -> list[Row]:
    """Compare an RL step (8 prompts x 8 samples, rewards, one ppo update) with its update alone."""
    steps = max(rounds // 3, 2)
    with tempfile.TemporaryDirectory() as folder:
        job = {"batch_size": 8, "group_size": 8, "eval_every": 10**6, "folder": Path(folder) / "run"}
        run = ml.Run("rl", loss="ppo", steps=100_000, learning_rate=1e-4, seed=0, **job).prepare()
        client = ml.ServiceClient().create_lora_training_client("mint-tiny", rank=16, seed=0)
        prompt = client.get_tokenizer().encode("Question: What is 98 + 71?\nAnswer:")
        answers = np.random.default_rng(0).integers(0, 256, (64, 5))
        data = [_rewarded(prompt, answer.tolist(), (-1.0) ** k) for k, answer in enumerate(answers)]

        def update() -> None:
            for _ in range(steps):
                client.forward_backward(data, "ppo").result()
                client.optim_step(AdamParams(learning_rate=1e-4)).result()

        found = alternate({"step": lambda: run.step(steps).wait(), "update": update}, rounds)
        run.stop().wait()
    return [make_row("an RL step / its ppo update alone", found["step"], found["update"], "")]


def _rewarded(prompt: list[int], answer: list[int], advantage: float) -> Datum:
    """Return a sample with its advantage on every token of the answer."""
    tokens = prompt + answer
    mask = np.array([0.0] * (len(prompt) - 1) + [1.0] * len(answer), dtype=np.float32)
    return Datum(
        model_input=ModelInput.from_ints(tokens[:-1]),
        loss_fn_inputs={
            "target_tokens": TensorData.from_numpy(np.array(tokens[1:], dtype=np.int64)),
            "weights": TensorData.from_numpy(mask),
            "logprobs": TensorData.from_numpy(-5 * mask),
            "advantages": TensorData.from_numpy(np.float32(advantage) * mask),
        },
    )


def make_row(what: str, a: Timing, b: Timing, target: str) -> Row:
    return {"what": what, "ratio": a.median / b.median, "target": target, "first": str(a), "second": str(b)}
