"""Speed and memory of the engine on a device: medians after a warm-up, timed with events of the device."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from mint_lab.engine.generation import GenerationRequest, generate
from mint_lab.engine.memory import needs_gradient_checkpointing, token_budget
from mint_lab.engine.models import Adapter, BaseModel
from mint_lab.engine.optimizer import Optimizer
from mint_lab.losses.dpo import dpo_loss

from ..gpu.setting import adam, adapter_on, base_model, go, rows

__all__ = ["Sizes", "measure", "seconds_each"]


@dataclass(frozen=True)
class Sizes:
    """How much to measure.

    Attributes:
        shapes: Models, the first of which samples too.
        rounds: Measured calls, after two that warm up.
        tokens: Tokens of a prompt, and of a completion.
        pairs, prompts, group: Pairs of a DPO step; prompts of a ppo update, and samples of each.
        sft: Sequences of an SFT step, and their tokens.
        samples, new_tokens: Samples that are generated together, and their tokens.
        matmul: Rows and columns of the matrices that the device's own rate is measured with.
    """

    shapes: tuple[str, ...] = ("0.6B", "4B")
    rounds: int = 5
    tokens: int = 256
    pairs: int = 8
    prompts: int = 8
    group: int = 8
    sft: tuple[int, int] = (16, 1024)
    samples: int = 64
    new_tokens: int = 256
    matmul: int = 8192


def seconds_each(call: Callable[[], object], device: torch.device, rounds: int, warmup: int = 2) -> list[float]:
    """Return the seconds of each call, warm-up left out."""
    for _ in range(warmup):
        call()
    return [_seconds(call, device) for _ in range(rounds)]


def _seconds(call: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        call()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1000
    before = time.perf_counter()
    call()
    if device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter() - before


def measure(device: torch.device, dtype: torch.dtype, sizes: Sizes, started: float) -> dict[str, Any]:
    """Return all figures; ``started`` is when the program began, by ``time.perf_counter``."""
    rate = _matmul_rate(device, dtype, sizes.matmul)
    found: dict[str, Any] = {"matmul TFLOP/s": rate / 1e12}
    for number, shape in enumerate(sizes.shapes):
        base = base_model(shape, device, dtype, context=4 * max(sizes.tokens, sizes.sft[1]))
        found[shape] = _of_model(base, sizes, rate, started if not number else None)
        if not number:
            found[shape]["sampling"] = _sampling(base, sizes)
        del base
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return found


def _matmul_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Return the operations a second of a product of two square matrices of random numbers."""
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    return 2 * size**3 / statistics.median(seconds_each(lambda: a @ b, device, 10))


def _of_model(base: BaseModel, sizes: Sizes, rate: float, started: float | None) -> dict[str, Any]:
    """Measure training steps: forward, loss, backward, and the optimizer's step."""
    vocab, n, device = base.vocab_size, sizes.tokens, base.device
    checkpointing = needs_gradient_checkpointing(base.cost, device)
    options = {
        "max_tokens": token_budget(base.cost, device, gradient_checkpointing=checkpointing),
        "gradient_checkpointing": checkpointing,
    }
    lengths = {"prefix": n, "suffix": n, "vocab": vocab}
    pairs = rows(0, prefixes=sizes.pairs, copies=2, reference=True, **lengths)
    groups = rows(1, prefixes=sizes.prompts, copies=sizes.group, reference=False, **lengths)
    count, length = sizes.sft
    texts = rows(2, prefixes=count, copies=1, prefix=1, suffix=length - 1, vocab=vocab, reference=False)
    jobs: dict[str, tuple[Any, list[Any]]] = {
        "dpo step": (dpo_loss, pairs),
        "ppo update": ("ppo", groups),
        "sft step": ("cross_entropy", texts),
    }
    adapter = adapter_on(base, rank=16, unembed=False)
    optimizer = Optimizer(adapter)
    found: dict[str, Any] = {"attention in one call": _uses_varlen(base), **options}
    for name, (loss, data) in jobs.items():
        results: list[Any] = []

        def step(loss: Any = loss, data: list[Any] = data, results: list[Any] = results) -> None:
            results[:] = [go(adapter, data, loss, **options)]
            optimizer.step(adam())

        if started is not None:  # the very first step, everything that is loaded and built before it included
            step()
            found["seconds from start to the first step"] = time.perf_counter() - started
            started = None
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        seconds = seconds_each(step, device, sizes.rounds)
        median = statistics.median(seconds)
        trained = sum(len(row.model_input.chunks[0].tokens) for row in data)
        found[name] = {
            "seconds": seconds,
            "median": median,
            "tokens": trained,
            "stored tokens": results[0].stored_tokens,
            "tokens/s": trained / median,
            "micro-batches": results[0].micro_batches,
            "share of matmul rate": _operations(adapter, results[0].stored_tokens, data) / median / rate,
            "peak GB": torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else None,
        }
    return found


def _uses_varlen(base: BaseModel) -> bool:
    from mint_lab.engine.varlen_attention import supports_varlen

    dim = int(base.config.head_dim)
    q = torch.zeros(1, 1, dim, device=base.device, dtype=next(iter(base.weights.values())).dtype)
    return supports_varlen(q, q, None) is not None


def _operations(adapter: Adapter, stored: int, data: list[Any]) -> float:
    """Return the operations of the matrix products with frozen weights: a lower bound of what a step computes.

    A stored token takes 2 operations for each weight forward, and 2 backward, because frozen weights have no gradient.
    A position with a weight takes the same in the head. LoRA, attention and a second pass are not counted.
    """
    base = adapter.base
    frozen = sum(w.numel() for name, w in base.weights.items() if w.dim() == 2 and "embed" not in name)
    targets = sum(int((row.loss_fn_inputs["weights"].to_numpy() != 0).sum()) for row in data)
    return 4.0 * stored * frozen + 4.0 * targets * base.vocab_size * base.hidden_size


def _sampling(base: BaseModel, sizes: Sizes) -> dict[str, Any]:
    """Measure samples of one prompt, generated together."""
    prompt = list(range(1, sizes.tokens + 1))
    request = GenerationRequest(
        [token % base.vocab_size for token in prompt], num_samples=sizes.samples, max_tokens=sizes.new_tokens, seed=0
    )
    adapter = adapter_on(base, rank=16, unembed=False)

    def call() -> None:
        with adapter.base.using(adapter):
            generate(base, [request])

    seconds = seconds_each(call, base.device, min(sizes.rounds, 2), warmup=1)
    median = statistics.median(seconds)
    return {"seconds": seconds, "median": median, "tokens/s": sizes.samples * sizes.new_tokens / median}
