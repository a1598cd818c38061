"""Makes the bundled model: ``python -m mint_lab.tiny.build [--out DIR] [--seed 0]``.

Generates the corpus, learns the tokenizer, pretrains, measures, and writes a directory that
transformers loads as it is, with a model card. About ten minutes on two cores. The same seed gives
the same corpus and tokenizer anywhere, and the same weights on the same machine and versions.

Why it comes out half-taught: see `mint_lab.tiny.corpus`.
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

__all__ = ["Recipe", "build", "main", "make_config"]

_WINDOW = 20_000  # documents sorted by length together, so that little is padded


@dataclass(frozen=True, slots=True)
class Recipe:
    """How the model is pretrained.

    Attributes:
        steps: optimizer steps.
        batch_tokens: tokens a step, padding included.
        muon_lr: peak learning rate of Muon, which trains the matrices inside the blocks. It needs a
            fifth of the steps that AdamW alone needs to get arithmetic.
        lr: peak learning rate of AdamW, which trains the embedding and the norms.
        warmup: steps until the peak is reached.
        weight_decay: of Muon.
        prompt_weight: weight of a token before ``Answer:`` beside one after it. Operands are
            random, so there is little to learn from them.
        threads: torch's threads; part of the recipe because sums depend on it. One, so that the
            number of cores does not.
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
class Training:
    """What training leaves behind for the card: ``curve`` is (step, mean loss since the last)."""

    curve: list[tuple[int, float]] = field(default_factory=list)
    documents: int = 0
    tokens: int = 0
    seconds: float = 0.0


def make_config(end_id: int) -> Qwen3Config:
    """The architecture of the bundled model, 0.9 million parameters."""
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


def build(out: Path, *, seed: int = 0, recipe: Recipe | None = None) -> dict[str, float]:
    """Trains the model, writes it to ``out`` and returns its held-out accuracies, 0 to 1."""
    recipe = recipe or Recipe()
    torch.set_num_threads(recipe.threads)
    torch.manual_seed(seed)
    tokenizer = train_tokenizer(documents(40_000, seed=seed), context=1024)
    model = Qwen3ForCausalLM(make_config(tokenizer.get_vocab()[END]))
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{NAME}: {parameters:,} parameters, {len(tokenizer)} tokens", flush=True)

    training = _train(model, tokenizer, recipe, seed)
    model.eval()
    report = held_out_report(model, tokenizer)
    for name, share in report.items():
        print(f"  {name:28s} {share:.3f}", flush=True)

    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    # safetensors writes files that only their owner may read.
    (out / "model.safetensors").chmod(0o644)
    write_card(
        out,
        command=f"python -m mint_lab.tiny.build --seed {seed} --steps {recipe.steps}",
        seconds=training.seconds,
        facts={
            "parameters": f"{parameters:,} (float32, embeddings tied)",
            "seed": seed,
            "documents": f"{training.documents:,}, each drawn once",
            "tokens": f"{training.tokens:,}",
            **asdict(recipe),
        },
        curve=training.curve,
        report=report,
    )
    return report


def _train(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, recipe: Recipe, seed: int) -> Training:
    optimizers = _optimizers(model, recipe)
    training, started, recent = Training(), time.perf_counter(), []
    model.train()
    for step, (ids, weights) in enumerate(_batches(tokenizer, recipe, seed), start=1):
        for group in (g for o in optimizers for g in o.param_groups):
            group["lr"] = group["peak_lr"] * _schedule(step, recipe)
        logits = model(ids, use_cache=False).logits[:, :-1]  # (documents, tokens - 1, vocab)
        losses = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten(), reduction="none")
        loss = (losses * weights[:, 1:].flatten()).sum() / weights[:, 1:].sum()
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()

        training.documents += len(ids)
        training.tokens += int((weights > 0).sum())
        recent.append(loss.item())
        if step == 1 or step % max(1, recipe.steps // 20) == 0:
            training.curve.append((step, sum(recent) / len(recent)))
            recent = []
            print(
                f"  step {step:5d}/{recipe.steps}  loss {training.curve[-1][1]:.4f}"
                f"  {time.perf_counter() - started:6.0f} s",
                flush=True,
            )
    training.seconds = time.perf_counter() - started
    return training


def _optimizers(model: Qwen3ForCausalLM, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the blocks, AdamW for the embedding and the norms."""
    inside = {n: p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n}
    rest = [p for n, p in model.named_parameters() if n not in inside]
    optimizers: list[torch.optim.Optimizer] = [
        torch.optim.Muon(list(inside.values()), lr=recipe.muon_lr, weight_decay=recipe.weight_decay),
        torch.optim.AdamW(rest, lr=recipe.lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    for group in (g for o in optimizers for g in o.param_groups):
        group["peak_lr"] = group["lr"]
    return optimizers


def _schedule(step: int, recipe: Recipe) -> float:
    """Share of the peak learning rate: up, level, and down to zero over the last 40%."""
    rise = step / recipe.warmup
    fall = (recipe.steps - step + 1) / (0.4 * recipe.steps)
    return min(1.0, rise, fall)


def _batches(
    tokenizer: PreTrainedTokenizerFast, recipe: Recipe, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """``recipe.steps`` batches of token ids and loss weights, both (documents, tokens).

    Each document is its own row, starting at position 0 as at inference; every document is new.
    """
    rng = random.Random(f"batches/{seed}")
    left = recipe.steps
    for window in itertools.count(1):
        texts = [text + END for text in documents(_WINDOW, seed=seed + 1_000_000 * window)]
        rows = sorted(tokenizer(texts)["input_ids"], key=len)
        batches = list(_cut(rows, recipe.batch_tokens))
        rng.shuffle(batches)
        for batch in batches[:left]:
            yield _pad(batch, tokenizer, recipe.prompt_weight)
        left -= len(batches[:left])
        if not left:
            return


def _cut(rows: list[list[int]], tokens: int) -> Iterator[list[list[int]]]:
    """Rows, sorted by length, in runs that hold at most ``tokens`` tokens once padded."""
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
    # Right padding under a causal mask needs no attention mask: nothing real looks at it.
    longest = max(map(len, rows))
    end = tokenizer.get_vocab()[END]
    ids = torch.full((len(rows), longest), end)
    weights = torch.zeros(len(rows), longest)
    colon = tokenizer.encode("Answer:")
    for i, row in enumerate(rows):
        ids[i, : len(row)] = torch.tensor(row)
        weights[i, : len(row)] = torch.tensor(_weights(row, colon, end, prompt_weight))
    return ids, weights


def _weights(row: list[int], colon: list[int], end: int, prompt_weight: float) -> list[float]:
    """1 from after ``Answer:`` to the end mark, ``prompt_weight`` elsewhere."""
    weights, answering = [], False
    for i, token in enumerate(row):
        weights.append(1.0 if answering else prompt_weight)
        if token == end:
            answering = False
        elif row[i - len(colon) + 1 : i + 1] == colon:
            answering = True
    return weights


def main(argv: list[str] | None = None) -> None:
    """Command line of `build`."""
    parser = argparse.ArgumentParser(prog="python -m mint_lab.tiny.build", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / NAME)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=Recipe().steps, help="optimizer steps")
    args = parser.parse_args(argv)
    build(args.out, seed=args.seed, recipe=Recipe(steps=args.steps))


if __name__ == "__main__":
    main()
