"""The engine on a pretended CUDA device: no operation mixes devices, and the host waits for the device once a pass."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mint_lab.engine import models
from mint_lab.engine.base_logprobs import reference_logprobs
from mint_lab.engine.batch import read_batch
from mint_lab.engine.checkpoints import load_checkpoint, save_checkpoint
from mint_lab.engine.generation import GenerationRequest, generate, generation_token_budget
from mint_lab.engine.models import Adapter, load_base
from mint_lab.engine.optimizer import Optimizer
from mint_lab.engine.prompt_scores import PromptQuestions, prompt_logprobs, score_prompt
from mint_lab.engine.step import Builtin, Custom, PassResult, run_pass
from mint_lab.lora_options import LoraOptions
from mint_lab.losses import LOSSES
from mint_lab.losses.dpo import dpo_loss
from mint_lab.types import AdamParams, Datum, TensorData

from .batches import sampled
from .pretended_gpu import GPU, DeviceMixed, GpuTensor, PretendedGpu, pretended_gpu


@pytest.fixture
def gpu() -> Generator[PretendedGpu]:
    with pretended_gpu() as device:
        yield device


def adapter_on(device: str, folder: Path, dtype: str = "float32", **options: Any) -> Adapter:
    """Return an adapter with the same random weights on every device."""
    made = load_base(str(folder), device, dtype).attach(LoraOptions(**{"rank": 3, **options}), seed=0)
    generator = torch.Generator().manual_seed(7)
    for parameter in made.parameters.values():
        with torch.no_grad():
            parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))
    return made


def batch_of(loss: Any) -> list[Datum]:
    data = sampled(3, lengths=(4, 6, 5, 3), prefix=6)
    for datum in data if loss is dpo_loss else ():
        n = len(datum.loss_fn_inputs["weights"].data)
        datum.loss_fn_inputs["reference_logprobs"] = TensorData.from_numpy(np.full(n, -5.0, dtype=np.float32))
    return data


def go(adapter: Adapter, loss: Any, **options: Any) -> PassResult:
    spec = LOSSES[loss] if isinstance(loss, str) else None
    batch = read_batch(batch_of(loss), spec, vocab_size=adapter.base.vocab_size, context=adapter.base.context)
    objective = Builtin(spec, spec.config(None)) if spec is not None else Custom(loss)
    return run_pass(adapter, batch, objective, **options)


def plain(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.on_cpu if isinstance(tensor, GpuTensor) else tensor


LOSS = {"cross_entropy": "cross_entropy", "ppo": "ppo", "dpo": dpo_loss}


# --- the pretended device itself -------------------------------------------------------------------------------------


def test_mixed_operands_are_refused_and_waits_are_recorded(gpu: PretendedGpu) -> None:
    x = torch.arange(3.0, device="cuda")
    assert x.device == GPU
    assert plain(x + 1).tolist() == [1, 2, 3]
    assert plain(x * torch.tensor(2.0)).tolist() == [0, 2, 4], "a CPU scalar is allowed, as on CUDA"
    for mixed in (lambda: x + torch.ones(3), lambda: torch.ones(3)[x.long()], lambda: torch.cat([x, torch.ones(1)])):
        with pytest.raises(DeviceMixed):
            mixed()
    with pytest.raises(DeviceMixed, match=r"numpy\(\)"):
        x.numpy()
    for waits, call in (
        (0, lambda: x.sum() * 2),
        (0, lambda: torch.ones(2).to("cuda", non_blocking=True)),
        (1, lambda: torch.ones(2).to("cuda")),
        (1, lambda: float(x[0])),
        (1, lambda: bool((x > 1).any())),
        (1, lambda: x.cpu()),
        (1, lambda: x.tolist()),
        (1, lambda: x.nonzero()),
        (1, lambda: x[x > 1]),
    ):
        with gpu.counting() as count:
            call()
        assert count.total() == waits


def test_autograd_runs_on_the_pretended_device(gpu: PretendedGpu) -> None:
    w = torch.full((3,), 2.0, device="cuda", requires_grad=True)
    (w * w).sum().backward()
    assert plain(w.grad).tolist() == [4, 4, 4]  # type: ignore[arg-type]


# --- the engine ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "loss"),
    [*(("qwen3", loss) for loss in LOSS), ("gemma2", "ppo"), ("mistral", "dpo"), ("gpt2", "ppo"), ("gpt_neo", "ppo")],
)
def test_pass_has_the_cpus_gradients_and_one_wait(
    name: str, loss: str, family: Callable[[str], Path], gpu: PretendedGpu
) -> None:
    """Packed and padded (gpt_neo) families, windows, capped scores, and LoRA on the head."""
    folder = family(name)
    on_cpu, on_gpu = (adapter_on(device, folder, unembed=True) for device in ("cpu", "cuda"))
    assert {p.device.type for p in on_gpu.parameters.values()} == {"cuda"}
    expected = go(on_cpu, LOSS[loss])
    with gpu.counting() as waits:
        found = go(on_gpu, LOSS[loss])
    of_engine = {key: n for key, n in waits.items() if not key[1].startswith(("modeling_", "masking_"))}
    assert of_engine == Counter({("_to_copy.default to the CPU", next(iter(of_engine))[1]): 1})
    assert next(iter(of_engine))[1].startswith("step.py")
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    assert on_gpu.gradients is not None
    assert on_cpu.gradients is not None
    scale = max(float(gradient.abs().max()) for gradient in on_cpu.gradients)
    assert scale > 1e-3
    for a, b in zip(on_gpu.gradients, on_cpu.gradients, strict=True):
        torch.testing.assert_close(plain(a), b, rtol=1e-4, atol=1e-5 * scale)
    assert all(type(x) is torch.Tensor for x in [*found.logprobs, *found.gradient]), "results are on the CPU"


def test_micro_batches_wait_once_each_and_a_forward_pass_once(qwen3: Path, gpu: PretendedGpu) -> None:
    adapter = adapter_on("cuda", qwen3)
    for options, n in (({"backward": False}, 1), ({"max_tokens": 16, "gradient_checkpointing": True}, None)):
        with gpu.counting() as waits:
            result = go(adapter, "ppo", **options)
        assert waits.total() == (n or result.micro_batches)
    assert result.micro_batches > 1
    with gpu.counting() as waits:  # two phases: all log-probabilities are read at once
        result = go(adapter, dpo_loss, max_tokens=16)
    assert result.passes == 2
    assert waits.total() == 1


def test_bfloat16_pass_mixes_no_devices(qwen3: Path, gpu: PretendedGpu) -> None:
    adapter = adapter_on("cuda", qwen3, "bfloat16")
    with gpu.counting() as waits:
        assert np.isfinite(go(adapter, "ppo").loss)
    assert waits.total() == 1


def test_reference_logprobs_are_the_cpus(qwen3: Path, gpu: PretendedGpu) -> None:
    found = []
    for device in ("cpu", "cuda"):
        adapter = adapter_on(device, qwen3)
        batch = read_batch(batch_of(""), None, vocab_size=adapter.base.vocab_size, context=128)
        found.append(np.concatenate(reference_logprobs(adapter, batch, None).value))
    np.testing.assert_allclose(*found, rtol=1e-5)


def test_optimizer_waits_once_a_step(qwen3: Path, gpu: PretendedGpu) -> None:
    """The first step, whose numbers no bound covers, also checks its result: weights and moments, and two norms."""
    adapter = adapter_on("cuda", qwen3)
    optimizer, counts = Optimizer(adapter), []
    for _ in range(3):
        go(adapter, "ppo")
        with gpu.counting() as waits:
            optimizer.step(AdamParams(learning_rate=1e-3, grad_clip_norm=0.1))
        counts.append(waits.total())
    assert counts == [3, 1, 1]


def test_checkpoint_round_trip(qwen3: Path, gpu: PretendedGpu, tmp_path: Path) -> None:
    adapter = adapter_on("cuda", qwen3, unembed=True)
    optimizer = Optimizer(adapter)
    go(adapter, "ppo")
    optimizer.step(AdamParams(learning_rate=1e-3))
    save_checkpoint(tmp_path / "saved", adapter, optimizer)
    other = adapter_on("cuda", qwen3, unembed=True)
    again = Optimizer(other)
    load_checkpoint(tmp_path / "saved").load_into(other, again)
    for name, parameter in adapter.parameters.items():
        assert torch.equal(plain(parameter), plain(other.parameters[name]))
    go(other, "ppo")
    assert again.step(AdamParams(learning_rate=1e-3))["grad_norm"] > 0


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.0}, {"temperature": 0.7, "top_k": 5}, {"top_p": 0.9}])
def test_samples_are_the_cpus_with_one_wait_a_token(settings: dict[str, Any], qwen3: Path, gpu: PretendedGpu) -> None:
    """top_p waits a second time: whether its nucleus is among the most likely tokens depends on the logits."""
    requests = [
        GenerationRequest([1, 2, 3], num_samples=3, max_tokens=9, seed=1, **settings),
        GenerationRequest([4, 5, 6, 7, 8], num_samples=2, max_tokens=9, seed=2, **settings),
    ]
    found = []
    for device in ("cpu", "cuda"):
        adapter = adapter_on(device, qwen3)
        with adapter.base.using(adapter):
            generate(adapter.base, requests)  # the first call tests the family
            with gpu.counting() as waits:
                found.append([sample for samples in generate(adapter.base, requests) for sample in samples])
    assert [s.tokens for s in found[0]] == [s.tokens for s in found[1]]
    for a, b in zip(*found, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)
    of_engine = sum(n for (_, where), n in waits.items() if not where.startswith("masking_"))
    assert of_engine == (18 if "top_p" in settings else 9)


def test_prompt_scores_are_the_cpus(qwen3: Path, gpu: PretendedGpu) -> None:
    found = []
    for device in ("cpu", "cuda"):
        base = load_base(str(qwen3), device, "float32")
        with base.using(None):
            scores = score_prompt(base, [1, 2, 3, 4], PromptQuestions(topk=3))
            found.append((prompt_logprobs(base, [[1, 2, 3], [1, 4]]), scores.topk_ids.tolist(), scores.topk_logprobs))
    assert found[0][0][0][1:] == pytest.approx(found[1][0][0][1:], rel=1e-5)
    assert found[0][1] == found[1][1]
    np.testing.assert_allclose(found[0][2], found[1][2], rtol=1e-5)


def test_memory_of_the_device_that_runs_out_halves_the_budget(
    qwen3: Path, gpu: PretendedGpu, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caching allocator's blocks are freed before the second attempt, and the result is that of one attempt."""
    adapter = adapter_on("cuda", qwen3)
    expected = go(adapter, "ppo").loss
    adapter.gradients, events, plan_attention = None, [], models.plan_attention

    def fails_once(*args: Any) -> Any:
        events.append("plan")
        if events == ["plan"]:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return plan_attention(*args)

    monkeypatch.setattr(models, "plan_attention", fails_once)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: events.append("empty_cache"))
    found = go(adapter, "ppo")
    assert events[:3] == ["plan", "empty_cache", "plan"]
    assert (found.oom_retries, found.loss) == (1, pytest.approx(expected, rel=1e-5))
    assert found.note.startswith("memory ran out: ")


@pytest.mark.parametrize(("free", "gib"), [(1 << 34, 8), (1 << 30, 0.5)])
def test_cache_takes_half_of_the_free_memory_of_a_gpu(free: int, gib: float, qwen3: Path) -> None:
    """Of the keys and values: 2 layers x 2 kinds x 2 heads x 12 numbers x 4 bytes are 384 bytes a token."""
    with pretended_gpu(free):
        tokens = generation_token_budget(load_base(str(qwen3), "cuda", "float32"))
    assert tokens == 2 ** int(np.log2(gib * 2**30 / 384))
