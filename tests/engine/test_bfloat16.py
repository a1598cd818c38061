"""Models of 30 layers in bfloat16: rounding must neither hide what a family can do, nor what an adapter has learned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mint_lab.engine.family_probes import in_float32
from mint_lab.engine.generation import _check_cache, _shares_prompts
from mint_lab.engine.models import BaseModel, load_base
from mint_lab.lora_options import LoraOptions

from .batches import sampled
from .families import FAMILIES, build
from .test_step import go

LAYERS = 30


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    sizes = {**FAMILIES["qwen3"], "num_hidden_layers": LAYERS, "tie_word_embeddings": True}
    return build("qwen3", tmp_path_factory.mktemp("deep"), sizes)


def bits(base: BaseModel) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight in base.weights.items()}


def test_a_deep_model_is_packed_and_shares_prompts(deep: Path) -> None:
    base = load_base(str(deep), "cpu", "bfloat16")
    sequences = [[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3, 4, 9, 9], [7, 5]]
    with torch.no_grad():
        layout = base.layout(sequences)
        assert not layout.padded
        packed = base.backbone(layout).flatten(0, 1)
        worst = 0.0
        for index, sequence in zip(layout.token_index, sequences, strict=True):
            alone = base.backbone(base.layout([sequence])).flatten(0, 1)
            worst = max(worst, float((packed[torch.from_numpy(index)] - alone).abs().max() / alone.abs().max()))
    _check_cache(base)
    assert (base.packs, base.continues, _shares_prompts(base)) == (True, True, True)
    assert worst > 1e-4, "the rounding of this model is no test of a probe"


def test_probes_leave_the_weights_as_they_are(deep: Path) -> None:
    base = load_base(str(deep), "cpu", "bfloat16")
    before = bits(base)
    ids = torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        plain = base(input_ids=ids).logits
        with base.in_float32():
            wide = base(input_ids=ids).logits
        assert wide.dtype == torch.float32
        assert plain.dtype == torch.bfloat16
        assert torch.equal(base(input_ids=ids).logits, plain)
        expected = load_base(str(deep), "cpu", "float32")(input_ids=ids).logits
    torch.testing.assert_close(wide, expected, rtol=0, atol=1e-2 * float(expected.abs().max()))
    after = bits(base)
    assert all(weight.dtype == torch.bfloat16 and torch.equal(weight, before[name]) for name, weight in after.items())


def test_weights_are_restored_after_a_pass_that_raised() -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(2, dtype=torch.bfloat16), requires_grad=False)
            self.register_buffer("scale", torch.ones(1, dtype=torch.bfloat16))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert self.weight.dtype == self.scale.dtype == torch.float32
            raise ValueError("no such thing")

    model = nn.Sequential(Fails())
    weight = model[0].weight
    with pytest.raises(ValueError, match="no such thing"), in_float32(model):
        model(torch.ones(2))
    assert model[0].weight is weight
    assert (weight.dtype, model[0].scale.dtype) == (torch.bfloat16, torch.bfloat16)
    assert not model[0]._forward_pre_hooks
    assert not model[0]._forward_hooks


def test_an_adapter_has_its_whole_effect(deep: Path) -> None:
    """Change of log-probabilities that a young adapter makes: in bfloat16 as in float32, apart from noise."""
    data, changes = sampled(5, [40] * 16), {}
    for dtype in ("float32", "bfloat16"):
        adapter = load_base(str(deep), "cpu", dtype).attach(LoraOptions(rank=4, unembed=False), seed=0)
        before = go(adapter, data).logprobs
        draw = torch.Generator().manual_seed(1)
        for name, parameter in adapter.parameters.items():
            if ".lora_B." in name:
                parameter.data = 3e-3 * torch.randn(parameter.shape, generator=draw)
        changes[dtype] = np.concatenate(go(adapter, data).logprobs) - np.concatenate(before)
    exact, found = changes["float32"], changes["bfloat16"]
    assert 0.01 < exact.std() < 0.3
    assert found @ exact / (exact @ exact) == pytest.approx(1, abs=0.1)
