"""LoRA's dropout: PEFT's gradient under the same masks, the same mask in every forward pass of one pass, and seeds."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft.tuners.lora import Linear
from torch import nn

from mint_lab.engine.batch import read_batch
from mint_lab.engine.checkpoints import save_checkpoint
from mint_lab.engine.lora_dropout import LayerDropout, LoraDropout
from mint_lab.engine.models import Adapter, load_base
from mint_lab.engine.step import Builtin, Custom, PassResult, run_pass
from mint_lab.errors import LossError, ModelError
from mint_lab.lora_options import LoraOptions
from mint_lab.losses import LOSSES
from mint_lab.types import Datum

from .batches import sampled
from .conftest import random_adapter
from .families import build
from .more_families import MIXTURES
from .reference import Reference

SPEC = LOSSES["cross_entropy"]


def go(adapter: Adapter, data: list[Datum], objective: Any = None, **options: Any) -> PassResult:
    spec = SPEC if objective is None else None
    batch = read_batch(data, spec, vocab_size=adapter.base.vocab_size, context=adapter.base.context)
    adapter.gradients = None
    return run_pass(adapter, batch, objective or Builtin(SPEC, {}), **{"dropout": True, **options})


def gradients(adapter: Adapter) -> dict[str, torch.Tensor]:
    assert adapter.gradients is not None
    return dict(zip(adapter.parameters, adapter.gradients, strict=True))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_mask_has_the_rate_and_mean_1(rate: float) -> None:
    """Within four standard errors of 20,000 draws."""
    n = 20_000
    mask = LayerDropout(rate, 7).mask(torch.zeros(100, 200))
    assert mask.unique().tolist() == pytest.approx([0, 1 / (1 - rate)])
    dropped = float((mask == 0).float().mean())
    assert abs(dropped - rate) < 4 * (rate * (1 - rate) / n) ** 0.5
    assert abs(float(mask.mean()) - 1) < 4 * (rate / (1 - rate) / n) ** 0.5
    assert torch.equal(mask, LayerDropout(rate, 7).mask(torch.ones(100, 200)))
    assert not torch.equal(mask, LayerDropout(rate, 8).mask(torch.ones(100, 200)))


def test_layers_passes_and_micro_batches_have_masks_of_their_own() -> None:
    class Layer:
        dropout: LayerDropout | None = None

    layers = [Layer(), Layer()]
    seeds: set[int] = set()
    for seed in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)):
        with LoraDropout(layers, 0.5, seed).applied():
            seeds |= {layer.dropout.seed for layer in layers if layer.dropout}
        assert [layer.dropout for layer in layers] == [None, None]
    assert len(seeds) == 8
    assert all(0 <= seed < 2**63 for seed in seeds)


class Masked(nn.Module):
    """In the place of PEFT's dropout: a mask for all tokens of a packed row, of which a sequence has some."""

    rows: torch.Tensor = torch.zeros(0)

    def __init__(self, mask: torch.Tensor) -> None:
        super().__init__()
        self.mask = mask

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.mask[self.rows]


def under_the_same_masks(
    adapter: Adapter, folder: Path, checkpoint: Path, data: list[Datum]
) -> dict[str, torch.Tensor]:
    """Return the gradient of PEFT's own layers, one sequence at a time, under the masks of the next pass."""
    save_checkpoint(checkpoint, adapter, None)
    plain = Reference(folder, checkpoint)
    layout = adapter.base.layout([d.model_input.to_ints() for d in data])
    dropout = adapter.dropout(0)
    assert dropout is not None
    layers = [module for module in plain.model.modules() if "default" in getattr(module, "lora_A", ())]
    for layer, one in zip(layers, dropout._dropouts(), strict=True):
        like = torch.empty(1, layout.tokens.numel(), layer.in_features)
        layer.lora_dropout["default"] = Masked(one.mask(like)[0])

    total: dict[str, torch.Tensor] = {}
    for datum, rows in zip(data, layout.token_index, strict=True):
        Masked.rows = torch.from_numpy(rows)
        _, _, found = plain.loss_and_gradients(
            [datum], lambda lists, datum=datum: -(lists[0] * datum.loss_fn_inputs["weights"].to_torch()).sum()
        )
        total = {name: total.get(name, 0) + gradient for name, gradient in found.items()}
    return total


@pytest.mark.parametrize("name", ["qwen3", "gpt2", "gemma2"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradient_is_pefts_under_the_same_masks(
    name: str, checkpointing: bool, family: Callable[[str], Path], tmp_path: Path
) -> None:
    """Packed, with a shared prefix that has one mask for all sequences; a tied head, Conv1D, and a capped head."""
    adapter = random_adapter(family(name), dropout=0.3)
    data = [
        Datum(d.model_input, {k: d.loss_fn_inputs[k] for k in ("target_tokens", "weights")})
        for d in sampled(3, (5, 9, 3), prefix=4)
    ]
    expected = under_the_same_masks(adapter, family(name), tmp_path / "c", data)
    without = go(adapter, data, dropout=False).loss
    assert adapter.dropout_passes == 0
    result = go(adapter, data, gradient_checkpointing=checkpointing)
    assert abs(result.loss - without) > 0.1
    found = gradients(adapter)
    assert found.keys() == expected.keys()
    for key, gradient in expected.items():
        largest = float(gradient.abs().max())
        assert largest > 0
        torch.testing.assert_close(found[key], gradient, rtol=1e-3, atol=1e-4 * max(1, largest))


def squares(data: list[Datum], logprobs: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
    return torch.cat(logprobs).square().sum(), {}


def test_both_phases_of_a_coupled_loss_have_the_same_masks(qwen3: Path) -> None:
    """A sum of squares: its gradient depends on the log-probabilities of the first phase."""
    adapter = random_adapter(qwen3, dropout=0.5)
    data = sampled(3, (5, 9, 3))
    one = go(adapter, data, Custom(squares, "sum"), max_tokens=10)
    assert (one.micro_batches, one.passes) == (3, 1)
    expected = gradients(adapter)
    adapter.dropout_passes = 0
    two = go(adapter, data, Custom(squares, "coupled"), max_tokens=10)
    assert (two.micro_batches, two.passes) == (3, 2)
    for name, gradient in gradients(adapter).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-4)


def test_passes_have_other_masks_and_a_failed_one_is_retried_with_the_same(qwen3: Path) -> None:
    adapter = random_adapter(qwen3, dropout=0.5)
    data = sampled(3)

    def fails(data: list[Datum], logprobs: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        return torch.cat(logprobs).sum() * torch.nan, {}

    with pytest.raises(LossError):
        go(adapter, data, Custom(fails))
    assert adapter.dropout_passes == 0
    losses = [go(adapter, data).loss for _ in range(3)]
    assert adapter.dropout_passes == 3
    assert len(set(losses)) == 3
    adapter.dropout_passes = 0
    assert [go(adapter, data).loss for _ in range(3)] == losses


def test_a_loss_that_asks_the_model_gets_no_dropout(qwen3: Path) -> None:
    """The pass is in progress while its loss runs."""
    adapter = random_adapter(qwen3, dropout=0.5)
    asked: list[torch.Tensor] = []

    def hidden() -> torch.Tensor:
        with torch.no_grad(), adapter.base.using(adapter):
            return adapter.base(input_ids=torch.tensor([[3, 1, 4]])).logits

    def asks(data: list[Datum], logprobs: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        asked.append(hidden())
        return torch.cat(logprobs).sum(), {}

    go(adapter, sampled(3), Custom(asks), gradient_checkpointing=True)
    assert torch.equal(asked[0], hidden())


def test_adapter_without_dropout_has_none(qwen3: Path) -> None:
    """And trains with the fused layers, bit for bit as if the argument did not exist."""
    adapter = random_adapter(qwen3)
    assert adapter.dropout(0) is None
    first = go(adapter, sampled(3), dropout=False).loss
    expected = copy.copy(adapter.gradients)
    assert go(adapter, sampled(3)).loss == first
    assert expected is not None
    assert adapter.gradients is not None
    assert all(torch.equal(a, b) for a, b in zip(adapter.gradients, expected, strict=True))


def test_dropout_follows_the_seed(qwen3: Path) -> None:
    base = load_base(str(qwen3))
    losses = []
    for seed in (4, 4, 5):
        adapter = base.attach(LoraOptions(3, dropout=0.5), seed)
        for parameter in adapter.parameters.values():
            parameter.data.fill_(0.1)
        losses.append(go(adapter, sampled(3)).loss)
        gc.collect()
    assert losses[0] == losses[1] != losses[2]


def test_experts_of_a_mixture_exclude_dropout(tmp_path: Path) -> None:
    base = load_base(str(build("qwen3_moe", tmp_path, MIXTURES["qwen3_moe"])))
    with pytest.raises(ModelError, match=r"dropout is 0.1, but the experts of .*experts.* no dropout: use dropout=0"):
        base.attach(LoraOptions(2, dropout=0.1), seed=0)
    adapter = base.attach(LoraOptions(2, dropout=0.1, mlp=False), seed=0)
    assert go(adapter, sampled(3)).loss > 0


def test_layers_that_peft_computes_drop_nothing_of_their_own(qwen3: Path) -> None:
    """PEFT computes a layer that is called with further arguments; its dropout modules must be off."""
    adapter = random_adapter(qwen3, dropout=0.5)
    layer = next(module for module in adapter.base._peft.modules() if isinstance(module, Linear))
    x = torch.ones(2, layer.in_features)
    with torch.no_grad(), adapter.base.using(adapter):
        torch.testing.assert_close(Linear.forward(layer, x), layer(x), rtol=1e-4, atol=1e-4)
