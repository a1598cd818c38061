"""What must hold on a device. Each check takes the device and raises an AssertionError, or returns what it found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from mint_lab.engine.generation import GenerationRequest, generate
from mint_lab.engine.models import Adapter
from mint_lab.engine.packing import pack
from mint_lab.engine.prompt_scores import prompt_logprobs
from mint_lab.engine.varlen_attention import (
    find_varlen_attn,
    is_aligned_at_the_end,
    plan_varlen,
    supports_varlen,
    varlen_attention,
)
from mint_lab.losses.dpo import dpo_loss

from .setting import adapter_on, base_model, go, rows

__all__ = ["CHECKS", "NotHere"]

CPU = torch.device("cpu")
VOCAB = 320


class NotHere(Exception):
    """A check does not apply to this device; the text says why."""


def _data(*, reference: bool) -> list[Any]:
    return rows(0, prefixes=3, copies=2, prefix=11, suffix=7, vocab=VOCAB, reference=reference)


def _pass(device: torch.device, dtype: torch.dtype, loss: Any, **options: Any) -> tuple[Adapter, Any]:
    adapter = adapter_on(base_model("tiny", device, dtype), unembed=True)
    return adapter, go(adapter, _data(reference=not isinstance(loss, str)), loss, **options)


def _gradients(adapter: Adapter) -> torch.Tensor:
    assert adapter.gradients is not None
    return torch.cat([gradient.flatten().cpu() for gradient in adapter.gradients])


def float32_is_the_cpus(device: torch.device) -> dict[str, float]:
    """Log-probabilities and gradients in float32 within 1e-4 of the largest, for a built-in and a custom loss."""
    worst = {"logprobs": 0.0, "gradients": 0.0}
    for loss in ("cross_entropy", "ppo", dpo_loss):
        (there, found), (here, expected) = (_pass(each, torch.float32, loss) for each in (device, CPU))
        logprobs = [torch.cat(result.logprobs) for result in (found, expected)]
        gradients = [_gradients(adapter) for adapter in (there, here)]
        for name, (a, b) in {"logprobs": logprobs, "gradients": gradients}.items():
            worst[name] = max(worst[name], float((a - b).abs().max() / b.abs().max()))
    assert max(worst.values()) <= 1e-4, worst
    return worst


def bfloat16_is_near_float32(device: torch.device) -> dict[str, float]:
    """In bfloat16, whose numbers have 8 bits: log-probabilities within 0.15 nats, gradients at a cosine above 0.98."""
    (there, found), (here, expected) = (
        _pass(*where, "cross_entropy") for where in ((device, torch.bfloat16), (CPU, torch.float32))
    )
    nats = float((torch.cat(found.logprobs) - torch.cat(expected.logprobs)).abs().max())
    cosine = float(torch.cosine_similarity(_gradients(there), _gradients(here), dim=0))
    assert nats <= 0.15, nats
    assert cosine >= 0.98, cosine
    return {"nats": nats, "cosine": cosine}


def repeats_are_equal(device: torch.device) -> None:
    """Two passes give the same bits, if torch is told to use deterministic algorithms: FlashAttention's backward pass
    adds in any order otherwise.
    """
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        for dtype in (torch.float32, torch.bfloat16):
            (first, a), (second, b) = (_pass(device, dtype, "ppo") for _ in range(2))
            assert torch.equal(torch.cat(a.logprobs), torch.cat(b.logprobs)), dtype
            assert torch.equal(_gradients(first), _gradients(second)), dtype
    finally:
        torch.use_deterministic_algorithms(before)


def sampler_and_trainer_agree(device: torch.device) -> dict[str, float]:
    """Log-probabilities of samples, from the key-value cache, against those of one pass over the whole sequences."""
    worst = {}
    for dtype, limit in ((torch.float32, 1e-3), (torch.bfloat16, 0.2)):
        adapter = adapter_on(base_model("tiny", device, dtype))
        prompts = [[1, 2, 3, 4, 5], [6, 7]]
        with adapter.base.using(adapter):
            groups = generate(adapter.base, [GenerationRequest(p, 4, max_tokens=24, seed=1) for p in prompts])
            samples = [(p, sample) for p, group in zip(prompts, groups, strict=True) for sample in group]
            scored = prompt_logprobs(adapter.base, [p + sample.tokens for p, sample in samples])
        pairs = [
            pair
            for (p, sample), row in zip(samples, scored, strict=True)
            for pair in zip(sample.logprobs, row[len(p) :], strict=True)
        ]
        worst[str(dtype)] = max(abs(a - float(b)) for a, b in pairs if b is not None)
        assert worst[str(dtype)] <= limit, worst
    return worst


def varlen_is_the_blocks(device: torch.device) -> dict[str, float]:
    """PyTorch's kernel: aligned at the end, with windows and grouped queries, forward and backward."""
    probe = torch.zeros(1, 2, 64, dtype=torch.bfloat16, device=device)
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0) or find_varlen_attn() is None:
        raise NotHere("needs an NVIDIA GPU from Ampere on, and PyTorch 2.11")
    attend = find_varlen_attn()
    assert attend is not None
    assert is_aligned_at_the_end(attend, device, torch.bfloat16), "the causal mask is not aligned at the end"
    assert supports_varlen(probe, probe, None) is not None
    layout, worst = pack([[1, 2, 3, 4, 5, 6], [1, 2, 3, 7], [1, 2, 8, 9], [5]]), 0.0
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(layout.stored, heads, 64, generator=generator) for heads in (4, 2, 2)]
    weights = torch.randn(layout.stored, 4, 64, generator=generator)
    for window in (None, 3):
        ours = [x.to(device, torch.bfloat16).requires_grad_() for x in drawn]
        q, k, v = ours
        output = varlen_attention(attend, (q, k, v), plan_varlen(layout, device), scaling=None, window=window)
        found = [output, *torch.autograd.grad(output, ours, weights.to(device, torch.bfloat16))]
        plain = [x.to(torch.bfloat16).float().requires_grad_() for x in drawn]
        expected = _dense(layout, plain, window)
        wanted = [expected, *torch.autograd.grad(expected, plain, weights.to(torch.bfloat16).float())]
        for a, b in zip(found, wanted, strict=True):
            worst = max(worst, float((a.detach().float().cpu() - b.detach()).abs().max() / b.detach().abs().max()))
    assert worst <= 3e-2, worst
    return {"relative": worst}


def _dense(layout: Any, qkv: list[torch.Tensor], window: int | None) -> torch.Tensor:
    """Attention over the whole row with a mask, ``(tokens, heads, dim)``."""
    q, k, v = qkv
    k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
    allowed = torch.zeros(layout.stored, layout.stored, dtype=torch.bool)
    for index in layout.token_index:
        for i, query in enumerate(index):
            allowed[query, index[max(0, i + 1 - (window or i + 1)) : i + 1]] = True
    scores = torch.einsum("qhd,khd->hqk", q, k) * q.shape[-1] ** -0.5
    return torch.einsum("hqk,khd->qhd", scores.masked_fill(~allowed, float("-inf")).softmax(-1), v)


def memory_that_runs_out_changes_nothing(device: torch.device) -> dict[str, int]:
    """A batch that exceeds the memory that the process may take: smaller micro-batches, same loss and gradient."""
    if device.type != "cuda":
        raise NotHere("PyTorch limits the memory of a process on CUDA devices only")
    adapter = adapter_on(base_model("tiny", device, torch.float32, context=4096))
    data = rows(1, prefixes=16, copies=1, prefix=1, suffix=2000, vocab=VOCAB, reference=False)
    expected = go(adapter, data, "ppo", max_tokens=4096)
    gradient, adapter.gradients = _gradients(adapter), None
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(device).total_memory
    need = adapter.base.cost.bytes_of(2048, gradient_checkpointing=False)
    try:
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(device) + 4 * need) / total, device)
        found = go(adapter, data, "ppo")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
    assert found.oom_retries > 0, "the batch fitted: nothing was tested"
    assert abs(found.loss - expected.loss) <= 1e-4 * abs(expected.loss)
    assert float((_gradients(adapter) - gradient).norm() / gradient.norm()) <= 1e-4
    return {"retries": found.oom_retries, "budget": found.max_tokens or 0}


CHECKS: dict[str, Callable[[torch.device], Any]] = {
    check.__name__: check
    for check in (
        float32_is_the_cpus,
        bfloat16_is_near_float32,
        repeats_are_equal,
        sampler_and_trainer_agree,
        varlen_is_the_blocks,
        memory_that_runs_out_changes_nothing,
    )
}
