"""TRL's side. Runs in TRL's environment: ``python -m tests.benchmarks.peers.theirs '<job>'``.

The settings are those of a careful user of TRL on a CPU: float32, no gradient checkpointing (its default trades time
for memory), fused AdamW, no dropout, no saving, reporting or evaluation, no gradient clipping, no worker processes.
"""

from __future__ import annotations

import sys
import tempfile
from typing import Any

from .jobs import Job, Memory, Report, Stopwatch, read_rows, reward, versions

TARGETS = "q_proj k_proj v_proj o_proj gate_proj up_proj down_proj".split()


def main() -> None:
    job = Job.read(sys.argv[1])
    import torch

    torch.set_num_threads(job.threads)
    trainer = {"preference": _dpo, "sft": _sft, "rl": _grpo}[job.kind](job)
    _run(job, trainer).print()


def _run(job: Job, trainer: Any) -> Report:
    from torch.utils.data import SequentialSampler
    from transformers import TrainerCallback

    watch = Stopwatch(job.warmup)
    memory: list[Memory] = []

    class Watch(TrainerCallback):
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            memory.append(Memory())

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            watch.step_done()

    losses: list[float] = []
    tokens: list[int] = []
    inner = trainer.compute_loss

    def compute_loss(model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        loss = inner(model, inputs, *args, **kwargs)
        losses.append(float((loss[0] if isinstance(loss, tuple) else loss).detach()))
        tokens.append(_count(inputs))
        return loss

    trainer.compute_loss = compute_loss
    if job.kind != "rl":  # in order, so that step k has the same batch on both sides; GRPO has a switch for it
        trainer._get_train_sampler = lambda dataset=None: SequentialSampler(dataset or trainer.train_dataset)
    trainer.add_callback(Watch())
    trainer.train()
    parts = len(losses) // job.all_steps
    a_step = [sum(tokens[k : k + parts]) for k in range(0, len(tokens), parts)]
    a_loss = [sum(losses[k : k + parts]) / parts for k in range(0, len(losses), parts)]
    names = ("torch", "trl", "transformers", "peft", "accelerate", "datasets")
    return Report(
        seconds=watch.seconds,
        cpu=watch.cpu,
        tokens=a_step[job.warmup :],
        losses=a_loss,
        start_mb=memory[0].start,
        peak_mb=memory[0].peak(),
        versions=versions(*names),
        extra={"forwards_a_step": parts},
    )


def _count(inputs: Any) -> int:
    """Count the tokens that are not padding."""
    masks = [v for k, v in inputs.items() if k.endswith("attention_mask") or k in ("prompt_mask", "completion_mask")]
    if any(k.endswith("attention_mask") for k in inputs):
        masks = [v for k, v in inputs.items() if k.endswith("attention_mask")]
    return int(sum(mask.sum() for mask in masks)) if masks else int(inputs["input_ids"].numel())


def _common(job: Job) -> dict[str, Any]:
    return {
        "output_dir": tempfile.mkdtemp(dir=job.folder),
        "max_steps": job.all_steps,
        "per_device_train_batch_size": job.batch,
        "gradient_accumulation_steps": 1,
        "learning_rate": job.learning_rate,
        "lr_scheduler_type": "constant",
        "weight_decay": 0.0,
        "max_grad_norm": 0.0,
        "optim": "adamw_torch_fused",
        "bf16": False,
        "use_cpu": True,
        "gradient_checkpointing": False,
        "dataloader_num_workers": 0,
        "dataloader_pin_memory": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": 0,
    }


def _model(job: Job) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(f"{job.folder}/model", dtype=torch.float32)


def _tokenizer(job: Job) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(f"{job.folder}/model")


def _lora(job: Job) -> Any:
    from peft import LoraConfig

    return LoraConfig(r=job.rank, lora_alpha=job.alpha, target_modules=TARGETS, task_type="CAUSAL_LM")


def _dpo(job: Job) -> Any:
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    settings = DPOConfig(
        **_common(job), beta=job.beta, max_length=job.max_length, precompute_ref_log_probs=True
    )  # fmt: skip
    return DPOTrainer(
        _model(job), args=settings, train_dataset=Dataset.from_list(read_rows(job, "pairs.jsonl")),
        processing_class=_tokenizer(job), peft_config=_lora(job),
    )  # fmt: skip


def _sft(job: Job) -> Any:
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    # With packing off, TRL does not limit padding-free batches to a length.
    settings = SFTConfig(
        **_common(job), padding_free=job.packed, max_length=None if job.packed else job.max_length
    )  # fmt: skip
    rows = [{"prompt": r["prompt"], "completion": r["chosen"]} for r in read_rows(job, "pairs.jsonl")]
    return SFTTrainer(
        _model(job), args=settings, train_dataset=Dataset.from_list(rows), processing_class=_tokenizer(job),
        peft_config=_lora(job),
    )  # fmt: skip


def _grpo(job: Job) -> Any:
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    together = job.batch * job.samples
    micro = job.micro or together
    settings = GRPOConfig(
        **_common(job) | {"per_device_train_batch_size": micro, "gradient_accumulation_steps": together // micro},
        num_generations=job.samples, max_completion_length=job.new_tokens, beta=0.0, temperature=1.0,
        shuffle_dataset=False, log_completions=False,
    )  # fmt: skip

    def rewards(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
        return [reward(tokens) for tokens in completion_ids]

    return GRPOTrainer(
        _model(job), reward_funcs=rewards, args=settings,
        train_dataset=Dataset.from_list(read_rows(job, "prompts.jsonl")), processing_class=_tokenizer(job),
        peft_config=_lora(job),
    )  # fmt: skip


if __name__ == "__main__":
    main()
