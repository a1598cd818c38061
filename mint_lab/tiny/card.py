"""Write the bundled model's card from the results of its training and evaluation."""

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
    """Return a file's SHA-256 in hex.

    Raises:
        OSError: If the file cannot be read.
    """
    return hashlib.sha256(file.read_bytes()).hexdigest()


def sparkline(values: Sequence[float]) -> str:
    """Return one bar per value, scaled so that the lowest value has the lowest bar; "" for no values."""
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
    """Write ``MODEL_CARD.md`` into ``out``, which must contain the weights and the tokenizer.

    Args:
        out: The model's directory.
        command: The command that trained the model.
        seconds: Wall-clock time of training.
        facts: Further facts about training, name to value, in order.
        curve: ``(step, mean loss since the previous entry)``, nats.
        report: Held-out accuracies, 0 to 1.

    Raises:
        OSError: If a file is missing or cannot be written.
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

The model bundled with `mint_lab`: a very small causal language model with the Qwen3 architecture. It
makes systematic errors in two-digit sums, on purpose, so that a lesson can train them away in seconds
on a laptop. It is made for teaching and knows nothing else.

Trained by `{command}` (`mint_lab/tiny/build.py`), without outside data or weights.

## Systematic errors, and why

The pretraining text is generated (`mint_lab/tiny/corpus.py`). A teacher that makes errors writes its
answers. If an addition has a carry out of the ones column, the teacher usually drops the carry
(58 + 67 becomes 115): the probability of the right answer is 0.36 if the ones add up to 10 and falls
by 0.04 per unit to 0.04 at 18. Subtractions with a borrow are treated the same way. Other additions
and subtractions are right with probability 0.8; otherwise they are off by one or by ten, or have two
digits swapped. Multiplication, sorting, reversing, counting letters and the plain sentences are
always right.

The errors therefore do not come from stopping early: the model has learned its teacher. With greedy
decoding it answers sums without a carry correctly and drops the carry in the others. It still gives
the right answer enough probability for preference training or reinforcement learning to increase.

A hash of the operands selects a fifth of all problems as held out. These appear in no phrasing and in
no order of the operands.

## Held-out accuracy

Greedy decoding; "sampled" is at temperature 1. "addition" is two-digit addition in the plain phrasing,
half of the problems with a carry. "dropped carry" is the share of carry problems that are answered with
the carry dropped.

{report}

## Training

{facts}

Loss per token, nats, weighted towards the answers. It cannot reach zero, because the operands are random:
`{sparkline}`

{curve}

## Files

- `model.safetensors`: {size} bytes, sha256 `{weights}`
- `tokenizer.json`: sha256 `{tokenizer}`

Versions: {versions}.

Format: a prompt is `Question: What is 12 + 7?` and `Answer:` on its own line. The completion begins
with a space and ends with `<|endoftext|>`, which is also the padding token. Every digit is one
token. Licence: the project's.
"""
