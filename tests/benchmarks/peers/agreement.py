"""The same DPO training in this engine and in TRL, several seeds each: do the trained models agree?

Each side shuffles the pairs with its own seed and starts from its own LoRA weights, so the results differ as two seeds
of one side do. ``python -m tests.benchmarks.peers.agreement SIDE '<training>'`` is one training and prints one line of
JSON. Standard library only at import: both environments import this.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .jobs import Memory, versions
from .theirs import TARGETS

__all__ = ["Outcome", "Training", "agreement", "train"]


@dataclass(frozen=True)
class Training:
    """One training, with the same numbers for both sides.

    Attributes:
        model: Folder of the base model.
        folder: Has ``train.jsonl`` and ``held_out.jsonl`` (prompt, chosen, rejected).
        batch: Pairs a step; one epoch is trained.
        betas, epsilon: Of Adam, as the API's default has them.
    """

    model: str
    folder: str
    seed: int
    pairs: int
    batch: int = 8
    max_length: int = 384
    rank: int = 16
    alpha: int = 32
    beta: float = 0.1
    learning_rate: float = 5e-5
    betas: tuple[float, float] = (0.9, 0.95)
    epsilon: float = 1e-12
    threads: int = 2

    @property
    def steps(self) -> int:
        return self.pairs // self.batch

    def rows(self, name: str) -> list[dict[str, str]]:
        lines = (Path(self.folder) / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]


@dataclass(frozen=True)
class Outcome:
    """What one training came to, on the held-out pairs; the loss is DPO's, nats, and the margin has beta in it."""

    side: str
    seed: int
    loss_before: float
    loss: float
    accuracy: float
    margin: float
    minutes: float
    peak_mb: float
    versions: dict[str, str]


def ours(training: Training) -> dict[str, float]:
    """Train with a run, as a person would."""
    import mint_lab as ml

    client = ml.ServiceClient(device="cpu").create_lora_training_client(
        training.model, rank=training.rank, seed=training.seed, train_unembed=False
    )
    run = ml.Run(
        "preference",
        "dpo",
        client=client,
        data=training.rows("train"),
        held_out=training.rows("held_out"),
        steps=training.steps,
        batch_size=training.batch,
        learning_rate=training.learning_rate,
        loss_config={"beta": training.beta},
        max_length=training.max_length,
        eval_every=training.steps,
        seed=training.seed,
        folder=Path(training.folder) / f"run-{training.seed}",
    )
    run.start().wait()
    if run.error:
        raise SystemExit(run.error.message)
    held_out = run.records[-1].held_out
    return {
        "loss_before": run.baseline["loss"],
        "loss": held_out["loss"],
        "accuracy": held_out["rewards/accuracies"],
        "margin": held_out["rewards/margins"],
    }


def theirs(training: Training) -> dict[str, float]:
    """Train with TRL: float32, no gradient checkpointing, reference log-probabilities computed once."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    settings = DPOConfig(
        output_dir=tempfile.mkdtemp(dir=training.folder), max_steps=training.steps, seed=training.seed,
        per_device_train_batch_size=training.batch, per_device_eval_batch_size=training.batch,
        learning_rate=training.learning_rate, lr_scheduler_type="constant", optim="adamw_torch_fused",
        adam_beta1=training.betas[0], adam_beta2=training.betas[1], adam_epsilon=training.epsilon, weight_decay=0.0,
        max_grad_norm=0.0, beta=training.beta, max_length=training.max_length, precompute_ref_log_probs=True,
        bf16=False, use_cpu=True, gradient_checkpointing=False, dataloader_pin_memory=False,
        logging_strategy="no", save_strategy="no", report_to="none", disable_tqdm=True,
    )  # fmt: skip
    lora = LoraConfig(r=training.rank, lora_alpha=training.alpha, target_modules=TARGETS, task_type="CAUSAL_LM")
    torch.manual_seed(training.seed)
    trainer: Any = DPOTrainer(
        AutoModelForCausalLM.from_pretrained(training.model, dtype=torch.float32),
        args=settings,
        train_dataset=Dataset.from_list(training.rows("train")),
        eval_dataset=Dataset.from_list(training.rows("held_out")),
        processing_class=AutoTokenizer.from_pretrained(training.model),
        peft_config=lora,
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    return {
        "loss_before": before["eval_loss"],
        "loss": after["eval_loss"],
        "accuracy": after["eval_rewards/accuracies"],
        "margin": after["eval_rewards/margins"],
    }


def train(side: str, training: Training) -> Outcome:
    """Run one training in this process. Minutes and memory include the evaluations and the reference's pass."""
    import torch

    torch.set_num_threads(training.threads)
    memory, begin = Memory(), time.perf_counter()
    found = {"ours": ours, "theirs": theirs}[side](training)
    names = ("torch", "transformers", "peft", "trl")
    minutes = (time.perf_counter() - begin) / 60
    return Outcome(side, training.seed, **found, minutes=minutes, peak_mb=memory.peak(), versions=versions(*names))


def agreement(outcomes: Sequence[Outcome]) -> dict[str, dict[str, float]]:
    """Compare the means of both sides with the spread of the seeds.

    Returns:
        For ``loss``, ``accuracy`` and ``margin``: the mean of each side, their ``difference``, and its ``error``, the
        standard error of a difference of two means, by the seeds' sample standard deviations.
    """
    table: dict[str, dict[str, float]] = {}
    for what in ("loss", "accuracy", "margin"):
        sides = [[float(getattr(o, what)) for o in outcomes if o.side == side] for side in ("ours", "theirs")]
        means = [statistics.mean(values) for values in sides]
        variances = [statistics.variance(values) / len(values) if len(values) > 1 else 0.0 for values in sides]
        table[what] = {
            "ours": means[0],
            "theirs": means[1],
            "difference": means[0] - means[1],
            "error": sum(variances) ** 0.5,
        }
    return table


if __name__ == "__main__":
    print("\n" + json.dumps(asdict(train(sys.argv[1], Training(**json.loads(sys.argv[2]))))))
