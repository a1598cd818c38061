"""Reference log-probabilities against transformers alone, and the fingerprint of a base model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mint_lab.engine.base_logprobs import fingerprint, reference_logprobs
from mint_lab.engine.batch import read_batch
from mint_lab.engine.models import BaseModel, LoraShape, load_base

from .batches import sampled
from .conftest import random_adapter
from .families import build
from .reference import Reference

DATA = sampled(4, (5, 20, 1, 7), prefix=3)


def logprobs(base: BaseModel, max_tokens: int | None = None) -> list[np.ndarray]:
    batch = read_batch(DATA, None, vocab_size=base.vocab_size, context=base.context)
    return reference_logprobs(base, batch, max_tokens)


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
        found = logprobs(adapter.base)
    for row, values in zip(found, expected, strict=True):
        assert row.dtype == np.float32
        np.testing.assert_allclose(row, values, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("budget", [1, 12])
def test_micro_batches_change_nothing(budget: int, qwen3: Path) -> None:
    base = load_base(str(qwen3))
    for split, whole in zip(logprobs(base, budget), logprobs(base), strict=True):
        np.testing.assert_allclose(split, whole, rtol=1e-5, atol=1e-5)


def test_fingerprint_follows_name_and_weights(tmp_path: Path) -> None:
    base = load_base(str(build("qwen3", tmp_path / "m")))
    first = fingerprint(base)
    assert len(first) == 64
    base.attach(LoraShape(rank=2), seed=0)
    assert fingerprint(base) == first, "an adapter is not part of the base model"
    weight = next(iter(base.weights.values()))
    before = weight[0, 0].item()
    weight.data[0, 0] += 1.0
    assert fingerprint(base) != first
    weight.data[0, 0] = before
    assert fingerprint(base) == first
    base.name = "another"
    assert fingerprint(base) != first
