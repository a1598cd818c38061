"""Reference log-probabilities against transformers alone, and the fingerprint of a base model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mint_lab.engine.base_logprobs import fingerprint, reference_fingerprint, reference_logprobs
from mint_lab.engine.batch import read_batch
from mint_lab.engine.checkpoints import save_checkpoint
from mint_lab.engine.models import Adapter, load_base
from mint_lab.lora_options import LoraOptions

from .batches import sampled
from .conftest import random_adapter
from .families import build
from .reference import Reference

DATA = sampled(4, (5, 20, 1, 7), prefix=3)


def logprobs(adapter: Adapter, max_tokens: int | None = None) -> list[np.ndarray]:
    batch = read_batch(DATA, None, vocab_size=adapter.base.vocab_size, context=adapter.base.context)
    return reference_logprobs(adapter, batch, max_tokens).value


@pytest.mark.parametrize("name", ["qwen3", "gemma2", "gpt_neo"])
def test_reference_is_the_model_without_adapter(name: str, family: Callable[[str], Path]) -> None:
    """Packed, with a sliding window, and padded; also while an adapter is in use."""
    adapter = random_adapter(family(name))
    plain = Reference(family(name), None)
    with torch.no_grad():
        expected = [
            plain.logprobs(d.model_input.to_ints(), d.loss_fn_inputs["target_tokens"].to_torch().tolist()) for d in DATA
        ]
    with adapter.base.using(adapter):
        found = logprobs(adapter)
    for row, values in zip(found, expected, strict=True):
        assert row.dtype == np.float32
        np.testing.assert_allclose(row, values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("budget", [1, 12])
def test_micro_batches_change_nothing(budget: int, adapter: Adapter) -> None:
    for split, whole in zip(logprobs(adapter, budget), logprobs(adapter), strict=True):
        np.testing.assert_allclose(split, whole, rtol=1e-5, atol=1e-5)


def test_reference_of_loaded_weights_is_the_model_with_them(qwen3: Path, tmp_path: Path) -> None:
    """Not the base model, not the weights since, and without dropout; a new adapter's update is 0."""
    adapter = random_adapter(qwen3, dropout=0.5)
    save_checkpoint(tmp_path / "start", adapter, None)
    adapter.start_here()
    with torch.no_grad():
        plain = Reference(qwen3, tmp_path / "start")
        expected = [
            plain.logprobs(d.model_input.to_ints(), d.loss_fn_inputs["target_tokens"].to_torch().tolist()) for d in DATA
        ]
        torch._foreach_add_(list(adapter.parameters.values()), 0.3)
    now = adapter.copy()
    for row, values in zip(logprobs(adapter), expected, strict=True):
        np.testing.assert_allclose(row, values, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(p, now[name]) for name, p in adapter.parameters.items())
    new = adapter.base.attach(LoraOptions(2), seed=0)
    new.start_here()
    assert new.start is None


def test_fingerprint_of_the_reference_follows_the_weights_it_starts_at(qwen3: Path) -> None:
    one, scaled = random_adapter(qwen3), random_adapter(qwen3, alpha=64)
    assert reference_fingerprint(one, "base") == "base"
    for adapter in (one, scaled):
        adapter.start_here()
    first = reference_fingerprint(one, "base")
    with torch.no_grad():
        next(iter(one.parameters.values())).add_(1)
    assert first == reference_fingerprint(one, "base"), "training does not move the reference"
    one.start_here()
    hashes = {first, reference_fingerprint(one, "base"), reference_fingerprint(scaled, "base")}
    assert len({*hashes, reference_fingerprint(one, "other"), "base"}) == 5


def test_fingerprint_follows_name_and_weights(tmp_path: Path) -> None:
    base = load_base(str(build("qwen3", tmp_path / "m")))
    first = fingerprint(base)
    assert len(first) == 64
    base.attach(LoraOptions(rank=2), seed=0)
    assert fingerprint(base) == first, "an adapter is not part of the base model"
    weight = next(iter(base.weights.values()))
    before = weight[0, 0].item()
    weight.data[0, 0] += 1.0
    assert fingerprint(base) != first
    weight.data[0, 0] = before
    assert fingerprint(base) == first
    base.name = "another"
    assert fingerprint(base) != first
