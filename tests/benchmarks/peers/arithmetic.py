"""How much arithmetic a training step is, and how fast this machine multiplies matrices."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mint_lab.types import Datum

__all__ = ["arithmetic", "matmul_rates"]

# (tokens, in, out): the layers of the 22 M-parameter model, its head, and a large square for comparison
SHAPES = {
    "mlp": (2048, 384, 1152), "attention": (2048, 384, 384), "head": (1024, 384, 16_384), "square": (1024, 1024, 1024),
}  # fmt: skip


def arithmetic(model: str, data: list[Datum], rank: int) -> dict[str, float]:
    r"""Count the floating-point operations of one forward and backward pass with LoRA on attention and MLP.

    Only what the job needs is counted: each stored token once forward; backward to the inputs of the frozen layers (not
    to the embeddings) and to LoRA's matrices; attention over allowed keys only; logits once for every position, and
    their backward pass at weights other than 0. Recomputation (logits in chunks, attention scores) is not counted.
    """
    import numpy as np

    from mint_lab.engine.models import load_base

    base = load_base(model, "cpu")
    c = base.config
    layout = base.layout([d.model_input.to_ints() for d in data])
    stored = layout.stored
    visible = int(((layout.positions + 1) * layout.attention_mask).sum())
    targets = np.concatenate([d.loss_fn_inputs["target_tokens"].to_numpy() for d in data])
    weights = np.concatenate([d.loss_fn_inputs["weights"].to_numpy() for d in data])
    key = np.concatenate(layout.token_index) * c.vocab_size + targets
    h, inner, layers = c.hidden_size, c.intermediate_size, c.num_hidden_layers
    q, kv = c.num_attention_heads * c.head_dim, c.num_key_value_heads * c.head_dim
    linears = [(h, q), (h, kv), (h, kv), (q, h), (h, inner), (h, inner), (inner, h)]
    frozen = layers * sum(2 * a * b for a, b in linears)
    first = 2 * h * (q + 2 * kv)  # nothing below the first attention needs a gradient
    lora = layers * sum(2 * rank * (a + b) for a, b in linears)
    attention = layers * 4 * q * visible
    head = 2 * h * c.vocab_size
    unique, weighted = len(np.unique(key)), len(np.unique(key[weights != 0]))
    flops = stored * (2 * frozen - first + 3 * lora) + 3 * attention + head * (unique + weighted)
    return {
        "flops": float(flops),
        "stored_tokens": stored,
        "tokens": len(targets),
        "unique": unique,
        "weighted": weighted,
    }


def matmul_rates(threads: int, rounds: int = 15) -> dict[str, float]:
    """Measure operations a second, and a processor second, of a float32 linear layer of each of ``SHAPES``: medians."""
    import torch
    import torch.nn.functional as F

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    rates: dict[str, float] = {}
    for name, (tokens, rows, columns) in SHAPES.items():
        x, w = torch.randn(tokens, rows), torch.randn(columns, rows)
        seconds, spent = [], []
        with torch.no_grad():
            for _ in range(rounds + 2):
                start, start_spent = time.perf_counter(), time.process_time()
                F.linear(x, w)
                seconds.append(time.perf_counter() - start)
                spent.append(time.process_time() - start_spent)
        work = 2 * tokens * rows * columns
        rates[name] = work / statistics.median(seconds[2:])
        rates[f"{name} by processor"] = work / statistics.median(spent[2:])
    torch.set_num_threads(before)
    return rates
