"""This engine's side: ``python -m tests.benchmarks.peers.ours '<job>'``, through the public client alone."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .jobs import Job, Memory, Report, Stopwatch, read_rows, reward, versions

if TYPE_CHECKING:
    from mint_lab.client.training import TrainingClient
    from mint_lab.types import Datum

# A step takes its number and gives its loss and the tokens of its sequences.
Step = Callable[[int], tuple[float, int]]


def main() -> None:
    job = Job.read(sys.argv[1])
    import torch

    import mint_lab as ml

    torch.set_num_threads(job.threads)
    client = ml.ServiceClient(device="cpu").create_lora_training_client(
        f"{job.folder}/model", rank=job.rank, seed=0, train_unembed=False
    )
    extra: dict[str, Any] = {}
    step = {"preference": _preference, "sft": _sft, "rl": _rl}[job.kind](job, client, extra)
    memory = Memory()
    watch = Stopwatch(job.warmup)
    losses, tokens = [], []
    for k in range(job.all_steps):
        loss, count = step(k)
        watch.step_done()
        losses.append(loss)
        tokens.append(count)
    peak = memory.peak()
    if "arithmetic" in extra:
        from .arithmetic import matmul_rates

        extra["matmul_rates"] = matmul_rates(job.threads, rounds=min(15, 4 * job.steps))
        extra["arithmetic"] = extra["arithmetic"][job.warmup :]
    names = ("torch", "transformers", "peft", "tinker")
    Report(
        seconds=watch.seconds,
        cpu=watch.cpu,
        tokens=tokens[job.warmup :],
        losses=losses,
        start_mb=memory.start,
        peak_mb=peak,
        versions=versions(*names),
        extra=extra,
    ).print()


def _adam(job: Job) -> Any:
    from mint_lab.types import AdamParams

    return AdamParams(learning_rate=job.learning_rate, beta1=0.9, beta2=0.999, eps=1e-8)


def _batches(job: Job, client: TrainingClient) -> list[list[Datum]]:
    """Return a batch for each step, chosen and rejected alternating; nothing is truncated, because all pairs fit."""
    import mint_lab as ml

    pairs = ml.data.load_pairs(read_rows(job, "pairs.jsonl"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = ml.data.pairs_to_data(pairs, client.get_tokenizer(), max_length=job.max_length)
    size = 2 * job.batch
    return [data[k : k + size] for k in range(0, len(data), size)]


def _length(data: list[Datum]) -> int:
    return sum(d.model_input.length + 1 for d in data)


def _preference(job: Job, client: TrainingClient, extra: dict[str, Any]) -> Step:
    from mint_lab.types import Datum

    from .arithmetic import arithmetic

    batches = _batches(job, client)
    extra["arithmetic"] = [arithmetic(f"{job.folder}/model", data, job.rank) for data in batches]
    # LoRA starts at B = 0, so the model as it is now is the reference.
    for data in batches:
        outputs = client.forward(data, "cross_entropy").result().loss_fn_outputs
        data[:] = [
            Datum(d.model_input, {**d.loss_fn_inputs, "reference_logprobs": output["logprobs"]})
            for d, output in zip(data, outputs, strict=True)
        ]

    def dpo(data: list[Datum], logprobs_list: list[Any]) -> tuple[Any, dict[str, float]]:
        import torch
        import torch.nn.functional as F

        from mint_lab.losses.preference import sequence_scores

        reference = [d.loss_fn_inputs["reference_logprobs"].to_torch() for d in data]
        ratios = [lp - ref for lp, ref in zip(logprobs_list, reference, strict=True)]
        chosen, rejected, _ = sequence_scores(data, ratios)
        margins = job.beta * (chosen - rejected)
        loss = -F.logsigmoid(margins).mean()
        return loss, {"pair_accuracy": float((margins.detach() > 0).to(torch.float32).mean())}

    def step(k: int) -> tuple[float, int]:
        passed = client.forward_backward_custom(batches[k], dpo)
        client.optim_step(_adam(job)).result()
        return passed.result().metrics["loss"], _length(batches[k])

    return step


def _sft(job: Job, client: TrainingClient, extra: dict[str, Any]) -> Step:
    batches = [data[::2] for data in _batches(job, client)]
    counted = [sum(float(d.loss_fn_inputs["weights"].to_numpy().sum()) for d in data) for data in batches]

    def step(k: int) -> tuple[float, int]:
        passed = client.forward_backward(batches[k], "cross_entropy")
        client.optim_step(_adam(job)).result()
        return passed.result().metrics["loss:sum"] / counted[k], _length(batches[k])

    return step


def _rl(job: Job, client: TrainingClient, extra: dict[str, Any]) -> Step:
    import numpy as np

    import mint_lab as ml
    from mint_lab.types import ModelInput, SamplingParams

    tokenizer = client.get_tokenizer()
    prompts = [ml.data.render.encode_prompt(tokenizer, row["prompt"]) for row in read_rows(job, "prompts.jsonl")]

    def step(k: int) -> tuple[float, int]:
        mine = prompts[k * job.batch : (k + 1) * job.batch]
        sampler = client.save_weights_and_get_sampling_client()
        params = SamplingParams(max_tokens=job.new_tokens, temperature=1.0, seed=k)
        futures = [sampler.sample(ModelInput.from_ints(p), job.samples, params) for p in mine]
        data: list[Datum] = []
        for prompt, future in zip(mine, futures, strict=True):
            group = future.result().sequences
            rewards = np.array([reward(s.tokens) for s in group])
            advantages = (rewards - rewards.mean()) / (rewards.std(ddof=1) + 1e-4)
            for sequence, advantage in zip(group, advantages, strict=True):
                before = [0.0] * (len(prompt) - 1)
                fields = {
                    "logprobs": [*before, *sequence.logprobs],
                    "advantages": [*before, *[float(advantage)] * len(sequence.tokens)],
                }
                data.append(ml.data.to_datum([*prompt, *sequence.tokens], len(prompt), **fields))
        passed = client.forward_backward(data, "ppo")
        client.optim_step(_adam(job)).result()
        return passed.result().metrics["loss:sum"], _length(data)

    return step


if __name__ == "__main__":
    main()
