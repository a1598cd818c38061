"""Running out of memory at every point of a pass, by hand and under a limit: the batch is split until it fits."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from mint_lab.engine.models import Adapter, BaseModel
from mint_lab.errors import LossError, ModelError
from mint_lab.losses import pairwise_preference_loss
from mint_lab.losses.decorator import spec_of
from mint_lab.types import Datum
from mint_lab.usercode.guarded_loss import GuardedLoss

from .batches import datum, sampled
from .test_step import assert_same_gradients, go, named_gradients

PAIRS = [datum([9, 8, 7, a, b], [0, 0, 1, 1]) for a, b in ((1, 2), (3, 4), (5, 6), (7, 8))]


class Failing:
    """A method of the base model that fails at its n-th calls, as an allocator does."""

    def __init__(self, method: Callable[..., Any], *calls: int, kind: type[Exception] = RuntimeError) -> None:
        self.method, self.calls, self.kind, self.count = method, calls, kind, 0

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.count += 1
        if self.count in self.calls:
            raise self.kind("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes\nmore")
        return self.method(*args, **options)


def inject(patch: pytest.MonkeyPatch, adapter: Adapter, where: str, call: int, kind: type[Exception]) -> None:
    """Let a method of the model or the adapter, or the backward pass, fail at its n-th call."""
    if where == "back":  # the first gradient is the loss's own
        patch.setattr(torch.autograd, "grad", Failing(torch.autograd.grad, call + 1, kind=kind))
        return
    owner = adapter if where == "add_gradients" else adapter.base
    failing = Failing(getattr(owner, where), call, kind=kind)
    patch.setattr(type(owner), where, lambda self, *args, **options: failing(*args, **options))


@pytest.mark.parametrize("kind", [RuntimeError, MemoryError, torch.OutOfMemoryError])
@pytest.mark.parametrize(
    ("place", "loss", "budget"),
    [
        (("backbone", 1), "cross_entropy", None),
        (("backbone", 2), "cross_entropy", 4),
        (("head", 1), pairwise_preference_loss, None),
        (("backbone", 2), pairwise_preference_loss, 5),  # its first phase
        (("backbone", 3), pairwise_preference_loss, 5),  # its second
        (("back", 1), pairwise_preference_loss, None),
        (("add_gradients", 1), "cross_entropy", None),
    ],
)
def test_out_of_memory_halves_the_budget(
    kind: type[Exception], place: tuple[str, int], loss: Any, budget: int | None, adapter: Adapter
) -> None:
    data: list[Datum] = PAIRS if callable(loss) else sampled(3)
    go(adapter, data, loss)
    whole = go(adapter, data, loss)  # twice: the gradient accumulated before must stay
    expected = named_gradients(adapter)
    adapter.gradients = None
    go(adapter, data, loss)
    with pytest.MonkeyPatch.context() as patch:
        inject(patch, adapter, *place, kind)
        found = go(adapter, data, loss, max_tokens=budget)
    assert found.oom_retries == 1
    held = adapter.base.computed_tokens([d.model_input.to_ints() for d in data])
    assert found.max_tokens == min(budget or held, held) // 2
    assert found.micro_batches > 1
    assert found.loss == pytest.approx(whole.loss, rel=1e-5)
    assert_same_gradients(named_gradients(adapter), expected)


@pytest.mark.parametrize(("requested", "halved"), [(None, 6), (100, 6), (8, 4)])
def test_retry_halves_the_budget_in_use(
    requested: int | None, halved: int, adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Micro-batches of a built-in loss have 12 tokens at most, so half of a larger request would change nothing."""
    monkeypatch.setattr("mint_lab.engine.step.max_useful_tokens", lambda device: 12)
    data = sampled(3, (6, 6, 6))
    expected = go(adapter, data).loss
    with pytest.MonkeyPatch.context() as patch:
        inject(patch, adapter, "backbone", 1, MemoryError)
        found = go(adapter, data, max_tokens=requested)
    assert (found.max_tokens, found.micro_batches, found.oom_retries) == (halved, 3, 1)
    assert (found.passes, found.stored_tokens) == (1, 18), "of the attempt that succeeded"
    assert found.loss == pytest.approx(expected, rel=1e-5)


class Scarce:
    """A backbone that fits at most ``limit`` tokens of a layout, as a small memory does."""

    def __init__(self, limit: int) -> None:
        self.limit, self.sizes, self.method = limit, list[int](), BaseModel.backbone

    def put(self, patch: pytest.MonkeyPatch) -> None:
        def backbone(base: BaseModel, layout: Any, **options: Any) -> torch.Tensor:
            self.sizes.append(layout.stored)
            if layout.stored > self.limit:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes\nmore")
            return self.method(base, layout, **options)

        patch.setattr(BaseModel, "backbone", backbone)


@pytest.mark.parametrize("loss", ["cross_entropy", pairwise_preference_loss])
def test_budget_is_halved_as_often_as_memory_runs_out(loss: Any, adapter: Adapter) -> None:
    """8 pairs of unlike prompts, 8 tokens of 11 a pair: 64 tokens do not fit, nor 32, nor 16; 8 do."""
    data = [datum([p, 8, 7, a, b], [0, 0, 1, 1]) for p in range(8) for a, b in ((1, 2), (3, 4))]
    size = adapter.base.computed_tokens([d.model_input.to_ints() for d in data])
    whole = go(adapter, data, loss)
    expected = named_gradients(adapter)
    adapter.gradients = None
    scarce = Scarce(size // 8)
    with pytest.MonkeyPatch.context() as patch:
        scarce.put(patch)
        found = go(adapter, data, loss)
    assert (found.oom_retries, found.max_tokens) == (3, size // 8)
    assert f"{size} tokens at a time did not fit" in found.note
    assert f"is now {size // 8}" in found.note
    assert found.loss == pytest.approx(whole.loss, rel=1e-5)
    assert_same_gradients(named_gradients(adapter), expected)
    assert whole.note == ""


def test_coupled_loss_gets_the_whole_batch_however_small_the_parts(adapter: Adapter) -> None:
    """The loss is a softmax over all rows, so a part of the batch would give another value."""
    calls: list[int] = []

    def over_rows(data: list[Datum], logprobs_list: list[torch.Tensor]) -> Any:
        calls.append(len(logprobs_list))
        return -torch.log_softmax(torch.stack([lp.sum() for lp in logprobs_list]), 0)[0], {}

    whole = go(adapter, PAIRS, over_rows)
    expected = named_gradients(adapter)
    adapter.gradients = None
    with pytest.MonkeyPatch.context() as patch:
        Scarce(5).put(patch)
        found = go(adapter, PAIRS, over_rows)
    assert calls == [4, 4], "once for each pass that succeeded"
    assert found.loss == pytest.approx(whole.loss, rel=1e-5)
    assert_same_gradients(named_gradients(adapter), expected)


@pytest.mark.parametrize("loss", ["cross_entropy", pairwise_preference_loss])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_sequence_that_does_not_fit_raises_and_changes_nothing(
    loss: Any, checkpointing: bool, adapter: Adapter
) -> None:
    data = [*PAIRS[:3], datum(list(range(1, 14)), [1.0] * 12)]  # the last one has 12 tokens, the others 4
    go(adapter, PAIRS, loss)
    gradients = [g.clone() for g in adapter.gradients or []]
    weights = adapter.copy()
    scarce = Scarce(11)
    with pytest.MonkeyPatch.context() as patch:
        scarce.put(patch)
        with pytest.raises(ModelError, match="datum 3 has 12 tokens and does not fit even by itself") as caught:
            go(adapter, data, loss, gradient_checkpointing=checkpointing)
    assert scarce.sizes[-1] == 12
    assert scarce.sizes.count(12) == 2, "tried twice: first, other memory may have been in use"
    text = str(caught.value)
    assert "you tried to allocate 1 bytes)" in text, "the first line of the allocator's error only"
    assert "a shorter max_length" in text
    assert "a smaller LoRA rank" in text
    assert ("gradient_checkpointing=True" in text) == (not checkpointing)
    assert caught.value.__cause__ is caught.value.__context__ is None, "a traceback would hold the tensors"
    assert all(torch.equal(a, b) for a, b in zip(adapter.gradients or [], gradients, strict=True))
    assert all(torch.equal(p, weights[n]) for n, p in adapter.parameters.items())
    go(adapter, data, loss)  # the client is still usable


def test_guarded_loss_that_takes_all_memory_is_named(adapter: Adapter) -> None:
    def greedy(data: Any, logprobs_list: Any) -> Any:
        torch.empty(1 << 60, dtype=torch.uint8)

    spec = spec_of(greedy)
    with pytest.raises(LossError, match=r"the loss ran out of memory on 4 datums, 16 log-probabilities .*batch_size"):
        go(adapter, PAIRS, GuardedLoss(spec, greedy))
    assert adapter.gradients is None


CHILD = """
import json, resource, sys
import numpy as np, torch
from mint_lab.client.service import ServiceClient
from mint_lab.types import Datum, ModelInput, TensorData

client = ServiceClient(home=sys.argv[1], max_batch_tokens=1 << 20).create_lora_training_client("mint-tiny", seed=0)
draw = np.random.default_rng(0)

def datum(n):
    t = draw.integers(0, 200, n + 1)
    fields = {"target_tokens": TensorData.from_numpy(t[1:]), "weights": TensorData.from_numpy(np.ones(n, np.float32))}
    return Datum(model_input=ModelInput.from_ints(t[:-1].tolist()), loss_fn_inputs=fields)

def over_rows(data, logprobs_list):
    return -torch.log_softmax(torch.stack([lp.mean() for lp in logprobs_list]), 0).mean(), {}

def train(data, loss):
    call = client.forward_backward_custom if callable(loss) else client.forward_backward
    result = call(data, loss).result()
    gradient = torch.cat([g.flatten() for g in client._adapter.gradients])
    client._adapter.gradients = None
    return result.metrics, gradient

data = [datum(256) for _ in range(32)]
train(data[:1], "cross_entropy")
budget, found = client.max_batch_tokens, {}
for name, loss in (("custom", over_rows), ("builtin", "cross_entropy")):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + (100 << 20), resource.RLIM_INFINITY))
    few, small = train(data, loss)
    lowered = client.max_batch_tokens
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    client.max_batch_tokens = budget
    many, large = train(data, loss)
    found[name] = {
        "retries": few.get("oom_retries:sum", 0), "budget": lowered, "losses": [few["loss:sum"], many["loss:sum"]],
        "difference": float((small - large).norm() / large.norm()), "parts": many["micro_batches:max"],
    }
print(json.dumps({**found, "notes": client.notes}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the address space as Linux does")
def test_batch_trains_under_a_limit_of_the_address_space(tmp_path: Path) -> None:
    """8,192 tokens take 640 MB at a time, and 100 MB are left: same loss and gradient in smaller parts."""
    child = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD, str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr
    found = json.loads(child.stdout.splitlines()[-1])
    assert found["custom"]["retries"] >= 2
    assert found["custom"]["budget"] < 4096
    assert found["custom"]["parts"] == 1
    for name in ("custom", "builtin"):
        few, many = found[name]["losses"]
        assert few == pytest.approx(many, rel=1e-5)
        assert found[name]["difference"] < 1e-5
    assert found["notes"][0].startswith("memory ran out: 8,1")


def test_memory_error_of_a_loss_propagates(adapter: Adapter) -> None:
    calls = []

    def greedy(data: Any, logprobs_list: Any) -> Any:
        calls.append(len(logprobs_list))
        raise RuntimeError("out of memory, said the loss")

    with pytest.raises(RuntimeError, match="said the loss") as caught:
        go(adapter, PAIRS, greedy)
    assert not isinstance(caught.value, ModelError)
    assert calls == [4, 4]
    assert adapter.gradients is None


def test_other_errors_are_not_retried(adapter: Adapter, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def broken(self: BaseModel, *args: Any, **options: Any) -> Any:
        calls.append(1)
        raise RuntimeError("shape mismatch")

    monkeypatch.setattr(BaseModel, "backbone", broken)
    with pytest.raises(RuntimeError, match="shape mismatch"):
        go(adapter, PAIRS)
    assert calls == [1]
