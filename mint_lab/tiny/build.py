"""Train the bundled model: ``python -m mint_lab.tiny.build [--out DIR] [--seed 0]``.

Generates the corpus, trains the tokenizer, pretrains the model, evaluates it, and writes a directory that transformers
can load, with a model card. This takes about 15 minutes on two cores. The same seed gives the same corpus and tokenizer
on every machine, and the same weights on the same machine with the same versions.

:mod:`mint_lab.tiny.corpus` explains why the model makes systematic errors.
"""

from __future__ import annotations

import argparse
import itertools
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from mint_lab.tiny import NAME
from mint_lab.tiny.card import write_card
from mint_lab.tiny.corpus import END, documents
from mint_lab.tiny.evaluate import held_out_report
from mint_lab.tiny.tokenizer import VOCAB_SIZE, train_tokenizer

__all__ = ["PretrainingSettings", "build", "main", "make_config"]

_WINDOW = 20_000  # documents that are sorted by length together, which keeps padding small


@dataclass(frozen=True, slots=True)
class PretrainingSettings:
    """How the model is pretrained.

    Attributes:
        steps: Optimizer steps.
        batch_tokens: Tokens per step, padding included.
        muon_lr: Peak learning rate of Muon, which trains the matrices inside the blocks. Muon learns arithmetic in a
            fifth of the steps that AdamW alone needs.
        lr: Peak learning rate of AdamW, which trains the embedding and the norms.
        warmup: Steps until the peak is reached.
        weight_decay: Weight decay of Muon.
        prompt_weight: Loss weight of tokens up to ``Answer:``, relative to 1 for tokens after it. Operands are random,
            so there is little to learn from them.
        threads: Threads of torch. They are part of the settings because floating-point sums depend on their number;
            with one thread the result does not depend on the number of cores.
    """

    steps: int = 2500
    batch_tokens: int = 1500
    muon_lr: float = 0.02
    lr: float = 4e-3
    warmup: int = 50
    weight_decay: float = 0.1
    prompt_weight: float = 0.1
    threads: int = 1


@dataclass(slots=True)
class TrainingLog:
    """What the model card reports about training.

    Attributes:
        curve: ``(step, mean loss since the previous entry)``, nats a token.
        documents: Documents trained on.
        tokens: Tokens trained on, without padding.
        seconds: Wall-clock time.
    """

    curve: list[tuple[int, float]] = field(default_factory=list)
    documents: int = 0
    tokens: int = 0
    seconds: float = 0.0


def make_config(end_id: int) -> Qwen3Config:
    """Return the architecture of the bundled model, 0.9 million parameters.

    Args:
        end_id: Token id of the end-of-text token.
    """
    return Qwen3Config(
        vocab_size=VOCAB_SIZE,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=32,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=end_id,
        pad_token_id=end_id,
        initializer_range=0.04,
    )


def build(out: Path, *, seed: int = 0, settings: PretrainingSettings | None = None) -> dict[str, float]:
    """Train the model, write it to ``out`` and return its held-out accuracies, 0 to 1."""
    settings = settings or PretrainingSettings()
    torch.set_num_threads(settings.threads)
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(documents(40_000, seed=seed), context=1024)
    model = Qwen3ForCausalLM(make_config(tokenizer.get_vocab()[END]))
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{NAME}: {parameters:,} parameters, {len(tokenizer)} tokens", flush=True)

    log = _train(model, tokenizer, settings, seed)
    model.eval()
    report = held_out_report(model, tokenizer)
    for name, share in report.items():
        print(f"  {name:28s} {share:.3f}", flush=True)

    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    # safetensors writes files that only their owner can read.
    (out / "model.safetensors").chmod(0o644)
    write_card(
        out,
        command=f"python -m mint_lab.tiny.build --seed {seed} --steps {settings.steps}",
        seconds=log.seconds,
        facts={
            "parameters": f"{parameters:,} (float32, embeddings tied)",
            "seed": seed,
            "documents": f"{log.documents:,}, each drawn once",
            "tokens": f"{log.tokens:,}",
            **asdict(settings),
        },
        curve=log.curve,
        report=report,
    )
    return report


def _train(
    model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, settings: PretrainingSettings, seed: int
) -> TrainingLog:
    """Train ``model`` in place."""
    optimizers = _optimizers(model, settings)
    log, started, recent = TrainingLog(), time.perf_counter(), []
    model.train()
    for step, (ids, weights) in enumerate(_batches(tokenizer, settings, seed), start=1):
        for group in (g for o in optimizers for g in o.param_groups):
            group["lr"] = group["peak_lr"] * learning_rate_share(step, settings)
        logits = model(ids, use_cache=False).logits[:, :-1]  # (documents, tokens - 1, vocab)
        losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        loss = (losses * weights[:, 1:].flatten()).sum() / weights[:, 1:].sum()
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()

        log.documents += len(ids)
        log.tokens += int((weights > 0).sum())
        recent.append(loss.item())
        if step == 1 or step % max(1, settings.steps // 20) == 0:
            log.curve.append((step, sum(recent) / len(recent)))
            recent = []
            print(
                f"  step {step:5d}/{settings.steps}  loss {log.curve[-1][1]:.4f}"
                f"  {time.perf_counter() - started:6.0f} s",
                flush=True,
            )
    log.seconds = time.perf_counter() - started
    return log


def _optimizers(model: Qwen3ForCausalLM, settings: PretrainingSettings) -> list[torch.optim.Optimizer]:
    """Return Muon for the matrices inside the blocks and AdamW for the embedding and the norms."""
    matrices = {n: p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n}
    others = [p for n, p in model.named_parameters() if n not in matrices]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(list(matrices.values()), lr=settings.muon_lr, weight_decay=settings.weight_decay),
        torch.optim.AdamW(others, lr=settings.lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    for group in (g for o in optimizers for g in o.param_groups):
        group["peak_lr"] = group["lr"]
    return optimizers


def learning_rate_share(step: int, settings: PretrainingSettings) -> float:
    """Return the share of the peak learning rate at a step, from 1: warm-up, constant, linear decay in the last 40%."""
    rise = step / settings.warmup
    fall = (settings.steps - step + 1) / (0.4 * settings.steps)
    return min(1.0, rise, fall)


def _batches(
    tokenizer: PreTrainedTokenizerFast, settings: PretrainingSettings, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield ``settings.steps`` batches of token ids and loss weights, both ``(documents, tokens)``.

    Each document is a row that starts at position 0, as at inference. Every document is newly drawn.
    """
    rng = random.Random(f"batches/{seed}")
    remaining = settings.steps
    for window in itertools.count(1):
        texts = [text + END for text in documents(_WINDOW, seed=seed + 1_000_000 * window)]
        rows = sorted(tokenizer(texts)["input_ids"], key=len)
        batches = list(split_into_batches(rows, settings.batch_tokens))
        rng.shuffle(batches)
        for batch in batches[:remaining]:
            yield _pad(batch, tokenizer, settings.prompt_weight)
        remaining -= len(batches[:remaining])
        if not remaining:
            return


def split_into_batches(rows: list[list[int]], tokens: int) -> Iterator[list[list[int]]]:
    """Split rows that are sorted by length into batches of at most ``tokens`` tokens after padding."""
    batch: list[list[int]] = []
    for row in rows:
        if batch and (len(batch) + 1) * len(row) > tokens:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _pad(
    rows: list[list[int]], tokenizer: PreTrainedTokenizerFast, prompt_weight: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows as token ids, right-padded, and their loss weights, both ``(rows, tokens)``."""
    # With right padding and a causal mask no real token attends to padding, so no attention mask is needed.
    longest = max(map(len, rows))
    end = tokenizer.get_vocab()[END]
    ids = torch.full((len(rows), longest), end)
    weights = torch.zeros(len(rows), longest)
    answer_ids = tokenizer.encode("Answer:")
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        weights[i, : len(row)] = torch.tensor(loss_weights(row, answer_ids, end, prompt_weight))
    return ids, weights


def loss_weights(row: list[int], answer_ids: list[int], end: int, prompt_weight: float) -> list[float]:
    """Return 1 for the tokens after ``Answer:`` up to and including end-of-text, ``prompt_weight`` for the others."""
    weights, in_answer = [], False
    for i, token in enumerate(row):
        weights.append(1.0 if in_answer else prompt_weight)
        if token == end:
            in_answer = False
        elif row[i - len(answer_ids) + 1 : i + 1] == answer_ids:
            in_answer = True
    return weights


def main(argv: list[str] | None = None) -> None:
    """Run :func:`build` from the command line."""
    parser = argparse.ArgumentParser(prog="python -m mint_lab.tiny.build", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / NAME)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=PretrainingSettings().steps, help="optimizer steps")
    args = parser.parse_args(argv)
    build(args.out, seed=args.seed, settings=PretrainingSettings(steps=args.steps))


if __name__ == "__main__":
    main()
