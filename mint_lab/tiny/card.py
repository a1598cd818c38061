"""Writes the bundled model's card from what its training and its examination left behind."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path

import tokenizers
import torch
import transformers

__all__ = ["sha256", "sparkline", "write_card"]

_BARS = "▁▂▃▄▅▆▇█"


def sha256(file: Path) -> str:
    """The file's SHA-256 in hex.

    Raises:
        OSError: the file cannot be read.
    """
    return hashlib.sha256(file.read_bytes()).hexdigest()


def sparkline(values: Sequence[float]) -> str:
    """One bar a value, the lowest value the lowest bar; empty for no values."""
    if not values:
        return ""
    low, span = min(values), max(values) - min(values)
    steps = len(_BARS) - 1
    return "".join(_BARS[round((v - low) / span * steps) if span else 0] for v in values)


def write_card(
    out: Path,
    *,
    command: str,
    seconds: float,
    facts: Mapping[str, object],
    curve: Sequence[tuple[int, float]],
    report: Mapping[str, float],
) -> None:
    """Writes ``MODEL_CARD.md`` into ``out``, which already holds the weights and the tokenizer.

    Args:
        out: the model's directory.
        command: what was run to make it.
        seconds: wall-clock time of training.
        facts: anything else about how it was made, name to value, in order.
        curve: (step, mean loss since the step before it in the list), nats.
        report: held-out accuracies, 0 to 1.

    Raises:
        OSError: a file is missing or cannot be written.
    """
    weights = out / "model.safetensors"
    text = _CARD.format(
        command=command,
        facts=_table(("", ""), [*facts.items(), ("training time", f"{seconds:.0f} s")]),
        sparkline=sparkline([loss for _, loss in curve]),
        curve=_table(("step", "loss"), [(step, f"{loss:.4f}") for step, loss in curve]),
        report=_table(("held-out problems", "share"), [(k, f"{v:.3f}") for k, v in report.items()]),
        size=f"{weights.stat().st_size:,}",
        weights=sha256(weights),
        tokenizer=sha256(out / "tokenizer.json"),
        versions=f"Python {platform.python_version()}, torch {torch.__version__},"
        f" transformers {transformers.__version__}, tokenizers {tokenizers.__version__},"
        f" {platform.system()} {platform.machine()}",
    )
    (out / "MODEL_CARD.md").write_text(text, encoding="utf-8")


def _table(head: tuple[str, str], rows: Sequence[tuple[object, object]]) -> str:
    lines = [f"| {head[0]} | {head[1]} |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)]
    return "\n".join(lines)


_CARD = """\
# mint-tiny

The model bundled with `mint_lab`: a very small causal language model of the Qwen3 architecture
that does two-digit sums badly, on purpose, so that a lesson has something to teach it and a person
can watch it learn in seconds on a laptop. It is a teaching prop; it knows nothing else.

Made by `{command}` (`mint_lab/tiny/build.py`); no outside data, no outside weights.

## Half-taught, and how

The text it was pretrained on is generated (`mint_lab/tiny/corpus.py`), and the teacher who wrote
its answers is careless. Where an addition carries out of the ones column, the teacher mostly
forgets to (58 + 67 becomes 115): the right answer appears with probability 0.36 where the ones add
up to 10, falling by 0.04 a unit to 0.04 at 18. Subtractions with a borrow fare the same. Other
additions and subtractions are right four times in five, else off by one, off by ten, or with two
digits swapped. Multiplication, sorting, reversing, counting letters and the plain sentences are
right.

So the model is not stopped early: it has learned its teacher. Greedily it answers sums without a
carry correctly and drops the carry in the others, while it still gives the right answer real
probability: preference training or reinforcement learning can bring it out.

A fifth of all problems, by a hash of their operands, is held out: they appear in no phrasing and
no order of the operands.

## Held-out accuracy

Greedy unless it says sampled (temperature 1). "addition" is two-digit addition in the plain
phrasing, half of the problems with a carry; "dropped carry" is the share of the carry problems that
are answered with the carry dropped.

{report}

## How it was made

{facts}

Loss per token, nats, the answers counting most (the operands are random, so it cannot reach zero):
`{sparkline}`

{curve}

## Files

- `model.safetensors`: {size} bytes, sha256 `{weights}`
- `tokenizer.json`: sha256 `{tokenizer}`

Versions: {versions}.

Format: a prompt is `Question: What is 12 + 7?` and `Answer:` on a line of its own; the completion
begins with a space and ends with `<|endoftext|>`, which is also the padding token. Every digit is
one token. Licence: the project's.
"""
