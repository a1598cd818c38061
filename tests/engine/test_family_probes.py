"""Probes of a model's attention and LM head when it is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING

from mint_lab.engine.family_probes import check_causal, check_head, packs_exactly
from mint_lab.engine.models import load_base
from mint_lab.engine.packing import Layout
from mint_lab.errors import ModelError

from .families import FAMILIES, VOCAB
from .test_models import build_config

# GPT-Neo's attention does not go through the registry of attention functions.
PADDED = {"gpt_neo"}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_probed(name: str, family: Callable[[str], Path]) -> None:
    assert load_base(str(family(name))).packs == (name not in PADDED)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        # No registry; ALiBi, which is added to the scores; sinks, which are scores without a key.
        ("gpt_neo", {"num_layers": 2, "num_heads": 4, "attention_types": [[["global"], 2]]}),
        ("bloom", {"n_layer": 2, "n_head": 4}),
        ("gpt_oss", {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 12,
                     "intermediate_size": 80, "num_local_experts": 2, "num_experts_per_tok": 1, "sliding_window": 8,
                     "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}, "pad_token_id": 256}),
    ],
)  # fmt: skip
def test_unsupported_attention_runs_padded(name: str, more: dict[str, Any], tmp_path: Path) -> None:
    config = CONFIG_MAPPING[name](
        vocab_size=VOCAB, hidden_size=48, max_position_embeddings=128, bos_token_id=256, eos_token_id=256, **more
    )
    base = load_base(str(build_config(config, tmp_path)))
    assert not base.packs
    assert any(note.startswith("its attention cannot compute packed rows") for note in base.notes)
    sequences = [[1, 2, 3, 4, 5], [1, 2, 3], [7]]
    assert base.layout(sequences).padded
    assert base.computed_tokens(sequences) == 15


@pytest.mark.parametrize("decoder", [False, True])
def test_bert_raises(decoder: bool, tmp_path: Path) -> None:
    """BERT loads as a causal language model. Without the flag it is bidirectional; with it, there is a layer and a norm
    between its hidden states and its head.
    """
    config = CONFIG_MAPPING["bert"](
        vocab_size=VOCAB, hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=128, is_decoder=decoder,
    )  # fmt: skip
    folder = str(build_config(config, tmp_path))
    words = "its output layer does more than multiply" if decoder else "its hidden states depend on later tokens"
    with pytest.raises(ModelError, match=rf"cannot use base model '.*': {words}"):
        load_base(folder)


# --- the probes themselves, on a model that sums the tokens so far -------------------------------------------------

TABLE = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))


def alone(sequence: list[int]) -> torch.Tensor:
    return TABLE[torch.tensor(sequence)].cumsum(0)


def backbone(layout: Layout) -> torch.Tensor:
    hidden = torch.zeros(layout.tokens.numel(), 4)
    for place in layout.token_index:
        hidden[torch.from_numpy(place)] = alone(layout.tokens.flatten()[torch.from_numpy(place)].tolist())
    return hidden[None]


def test_packing_is_exact_to_a_tolerance() -> None:
    assert packs_exactly(alone, backbone, 20, 1e-6)
    assert packs_exactly(alone, lambda layout: backbone(layout) * 1.01, 20, 2e-2)
    assert not packs_exactly(alone, lambda layout: backbone(layout) * 1.01, 20, 5e-3)


@pytest.mark.parametrize("blind", ["to prefixes", "to other sequences"])
def test_wrong_attention_is_detected(blind: str) -> None:
    def wrong(layout: Layout) -> torch.Tensor:
        hidden = torch.zeros(layout.tokens.numel(), 4)
        for place, shared in zip(layout.token_index, layout.shared_lengths, strict=True):
            tokens = layout.tokens.flatten()
            if blind == "to prefixes":  # a suffix starts from 0
                if len(place) > shared:
                    own = torch.from_numpy(place[shared:])
                    hidden[own] = alone(tokens[own].tolist())
            else:  # one causal row for all sequences
                hidden = alone(tokens.tolist())
        return hidden[None]

    assert not packs_exactly(alone, wrong, 20, 1e-4)


@pytest.mark.parametrize("error", [RuntimeError, ValueError, TypeError, KeyError, NotImplementedError])
def test_backbone_that_raises_does_not_pack(error: type[Exception]) -> None:
    def broken(layout: Layout) -> torch.Tensor:
        raise error("no such thing")

    assert not packs_exactly(alone, broken, 20, 1e-4)


def test_out_of_memory_propagates() -> None:
    def broken(layout: Layout) -> torch.Tensor:
        raise MemoryError

    with pytest.raises(MemoryError):
        packs_exactly(alone, broken, 20, 1e-4)


def test_dependence_on_later_tokens_raises() -> None:
    check_causal(alone, 20, 1e-6)
    with pytest.raises(ModelError, match=r"depend on later tokens.*expected a causal language model"):
        check_causal(lambda sequence: alone(sequence[::-1]), 20, 1e-4)


def test_every_probe_reads_the_same_tokens_and_draws_no_random_number_of_the_process() -> None:
    read: list[list[int]] = []

    def note(sequence: list[int]) -> torch.Tensor:
        read.append(sequence)
        return alone(sequence)

    before = torch.get_rng_state()
    for _ in range(2):
        check_head(note, alone, lambda hidden: hidden, 20, 1e-6)
    assert read[0] == read[1]
    assert torch.equal(torch.get_rng_state(), before)


def test_other_heads_raise() -> None:
    weight = torch.randn(20, 4, generator=torch.Generator().manual_seed(1))

    def logits(sequence: list[int]) -> torch.Tensor:
        return alone(sequence) @ weight.T

    check_head(alone, logits, lambda hidden: hidden @ weight.T, 20, 1e-5)
    check_head(alone, lambda s: logits(s).bfloat16(), lambda hidden: hidden @ weight.T, 20, 2e-2)
    for other in (lambda z: z * 1.001, lambda z: z + 0.1, lambda z: 30 * torch.tanh(z / 30), lambda z: z.relu()):
        with pytest.raises(ModelError, match="does more than multiply, scale and cap"):
            check_head(alone, lambda s, other=other: other(logits(s)), lambda hidden: hidden @ weight.T, 20, 1e-4)
