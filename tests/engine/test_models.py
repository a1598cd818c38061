"""Base models, and adapters that share one independently of each other."""

from __future__ import annotations

import gc
import re
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForCausalLM

from mint_lab.engine import models
from mint_lab.engine.models import Adapter, load_base
from mint_lab.errors import ModelError
from mint_lab.lora_options import LoraOptions
from tests.waiting import Attempt, Gate, join

from .conftest import random_adapter
from .families import VOCAB, build


def hidden(adapter: Adapter | None, base: object, weights: dict[str, torch.Tensor] | None = None) -> torch.Tensor:
    with torch.no_grad(), base.using(adapter, weights):  # type: ignore[attr-defined]
        return base(input_ids=torch.tensor([[3, 1, 4, 1, 5]])).logits  # type: ignore[operator]


def test_base_model_is_loaded_once_and_freed(family: Callable[[str], Path]) -> None:
    folder = family("llama")
    first = load_base(str(folder))
    assert load_base(f"{folder}/../{folder.name}") is first
    seen = weakref.ref(first)
    del first
    gc.collect()
    assert seen() is None


def test_fresh_adapter_is_the_base_model(qwen3: Path) -> None:
    """B = 0: the same logits as transformers alone, whatever the seed."""
    plain = AutoModelForCausalLM.from_pretrained(qwen3, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = plain(input_ids=torch.tensor([[3, 1, 4, 1, 5]])).logits
    base = load_base(str(qwen3))
    for seed in (0, 1):
        adapter = base.attach(LoraOptions(rank=4), seed)
        assert all(not p.any() for n, p in adapter.parameters.items() if "lora_B" in n)
        assert all(p.any() for n, p in adapter.parameters.items() if "lora_A" in n)
        torch.testing.assert_close(hidden(adapter, base), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(hidden(None, base), expected, rtol=1e-5, atol=1e-5)


def test_seeds_decide_initial_weights(qwen3: Path) -> None:
    base = load_base(str(qwen3))
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    copies = [base.attach(LoraOptions(rank=2), seed).copy() for seed in (0, 0, 1, None, None)]
    assert torch.equal(torch.random.get_rng_state(), before)
    a = next(n for n in copies[0] if "lora_A" in n)
    assert torch.equal(copies[0][a], copies[1][a])
    others = [copies[i][a] for i in (0, 2, 3, 4)]
    assert all(not torch.equal(x, y) for i, x in enumerate(others) for y in others[:i])


def test_adapters_are_independent(qwen3: Path) -> None:
    base = load_base(str(qwen3))
    start = hidden(None, base)
    one, two = random_adapter(qwen3), base.attach(LoraOptions(rank=5), seed=1)
    first = hidden(one, base)
    assert not torch.allclose(first, start, atol=1e-2)
    with torch.no_grad():
        torch._foreach_add_(list(two.parameters.values()), 0.3)
    second = hidden(two, base)
    assert not torch.allclose(second, first, atol=1e-2)
    for _ in range(2):
        assert torch.equal(hidden(one, base), first)
        assert torch.equal(hidden(None, base), start)
        assert torch.equal(hidden(two, base), second)


def test_weights_are_replaced_during_a_call(adapter: Adapter) -> None:
    base = adapter.base
    own = hidden(adapter, base)
    other = {n: torch.zeros_like(p) for n, p in adapter.parameters.items()}
    torch.testing.assert_close(hidden(adapter, base, other), hidden(None, base), rtol=1e-5, atol=1e-5)
    assert torch.equal(hidden(adapter, base), own)
    before = adapter.copy()
    with pytest.raises(ZeroDivisionError), base.using(adapter, other):
        1 // 0  # noqa: B018
    assert all(torch.equal(before[n], p) for n, p in adapter.parameters.items())


def test_uses_may_be_nested(qwen3: Path) -> None:
    one, base = random_adapter(qwen3), load_base(str(qwen3))
    two = base.attach(LoraOptions(rank=2), seed=1)
    alone = hidden(one, base)
    with base.using(one):
        hidden(two, base)
        hidden(None, base)
        hidden(one, base, {n: torch.zeros_like(p) for n, p in one.parameters.items()})
        with torch.no_grad():
            assert torch.equal(base(input_ids=torch.tensor([[3, 1, 4, 1, 5]])).logits, alone)
        assert all(p.requires_grad for p in one.parameters.values())


def test_collected_adapters_are_deleted(qwen3: Path) -> None:
    base = load_base(str(qwen3))
    kept = base.attach(LoraOptions(rank=2), seed=0)

    def names() -> set[str]:
        return set(base._peft.peft_config)

    for _ in range(2):
        base.attach(LoraOptions(rank=2), seed=0)
        gc.collect()  # costs about a second where many tests have left objects
    last = base.attach(LoraOptions(rank=2), seed=0)
    assert names() == {kept.name, last.name}
    hidden(kept, base)
    assert {
        n.split(".lora_A.")[1].split(".")[0] for n, _ in base._peft.named_parameters() if ".lora_A." in n
    } == names()


def test_misfit_weights_raise_and_change_nothing(adapter: Adapter) -> None:
    before = adapter.copy()
    first, last = min(before), max(before)
    shape, smaller = tuple(before[first].shape), {name: before[name][:-1] for name in (last, first)}
    missing = {name: weight for name, weight in before.items() if name != first}
    for wrong, found in ((missing, "none"), (before | smaller, tuple(smaller[first].shape))):
        text = f"do not fit this adapter (rank 3): {first} has shape {found}, expected {shape}"
        with pytest.raises(ModelError, match=re.escape(text) + "$"):
            adapter.load(wrong)
    assert all(torch.equal(before[n], p) for n, p in adapter.parameters.items())


def test_vocabulary_may_exceed_the_tokenizer(adapter: Adapter) -> None:
    """The model's 270 rows decide which ids are valid, not the tokenizer's 257."""
    assert len(adapter.base.tokenizer) < adapter.base.vocab_size == VOCAB


def test_activations_are_kept_unless_checkpointing_is_asked_for(qwen3: Path) -> None:
    """Checkpointing keeps less for the backward pass, and the default is not to."""
    base = load_base(str(qwen3))
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[-1] += tensor.numel()
        return tensor

    with base.using(base.attach(LoraOptions(rank=2), seed=0)):
        for options in ({}, {"gradient_checkpointing": False}, {"gradient_checkpointing": True}):
            kept.append(0)
            with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
                base.backbone(base.layout([[1, 2, 3, 4, 5]]), **options)
    default, plain, checkpointed = kept
    assert default == plain > checkpointed


def test_window_under_another_name_limits_packing(tmp_path: Path) -> None:
    """GPT-Neo calls it window_size and measures it along the row: longer sequences must not be packed."""
    config = CONFIG_MAPPING["gpt_neo"](
        vocab_size=VOCAB, hidden_size=48, num_layers=2, num_heads=4, max_position_embeddings=128, window_size=30,
        attention_types=[[["global", "local"], 1]], bos_token_id=256, eos_token_id=256,
    )  # fmt: skip
    folder = build_config(config, tmp_path)
    base = load_base(str(folder))
    torch.manual_seed(0)
    shared = torch.randint(0, VOCAB, (25,)).tolist()
    sequences = [shared + torch.randint(0, VOCAB, (20,)).tolist() for _ in range(3)]
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad(), base.using(None):
        layout = base.layout(sequences)
        rows = base.backbone(layout).flatten(0, 1)
        for sequence, place in zip(sequences, layout.token_index, strict=True):
            alone = plain.transformer(input_ids=torch.tensor([sequence])).last_hidden_state[0]
            torch.testing.assert_close(rows[torch.from_numpy(place)], alone, rtol=1e-4, atol=1e-4)


def test_passed_windows_are_packed(family: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """All of Mistral's layers pass 8, half of Gemma 2's. If layers pass none, longer sequences run padded."""
    mistral, gemma = load_base(str(family("mistral"))), load_base(str(family("gemma2")))
    assert (mistral.window, mistral._packed_windows) == (8, {8})
    assert (gemma.window, gemma._packed_windows) == (8, {8, None})
    short, long = [[1, 2, 3, 4, 5, 6, 7, 8], [1, 2, 3]], [[1, 2, 3, 4, 5, 6, 7, 8, 9], [1, 2, 3]]
    for base in (mistral, gemma):
        assert not base.layout(long).padded
        assert base.computed_tokens(long) == 9
    monkeypatch.setattr(mistral, "_packed_windows", {None})
    assert not mistral.layout(short).padded
    assert mistral.computed_tokens(short) == 8
    assert mistral.layout(long).padded
    assert mistral.computed_tokens(long) == 18


@pytest.mark.parametrize("name", ["qwen3", "gpt_neo"])
def test_computed_tokens_match_the_layout(name: str, family: Callable[[str], Path]) -> None:
    base = load_base(str(family(name)))
    for sequences in ([[1, 2, 3], [1, 2], [4]], [[5]], [[5], [5]]):
        layout = base.layout(sequences)
        assert base.computed_tokens(sequences) == layout.tokens.numel()
        assert layout.padded == (name == "gpt_neo")


def test_weights_are_merged_during_a_call(family: Callable[[str], Path]) -> None:
    base = load_base(str(family("qwen2")))
    with base.merged(1 << 40):  # no adapter was ever attached
        plain = hidden(None, base)
    adapter = random_adapter(family("qwen2"))
    expected = hidden(adapter, base)
    other = {n: 2 * p.detach() for n, p in adapter.parameters.items()}
    for weights in (None, other):
        with base.using(adapter, weights), base.merged(1 << 40), torch.no_grad():
            found = base(input_ids=torch.tensor([[3, 1, 4, 1, 5]])).logits
        torch.testing.assert_close(found, hidden(adapter, base, weights), rtol=1e-4, atol=1e-4)
    assert torch.equal(hidden(adapter, base), expected)
    torch.testing.assert_close(hidden(None, base), plain, rtol=1e-6, atol=1e-6)


def build_config(config: object, folder: Path) -> Path:
    build("qwen3", folder)  # its tokenizer
    torch.manual_seed(1)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    return folder


def test_first_loads_from_two_threads_make_one_model(
    family: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, gate, loads, real = str(family("llama")), Gate(holds=1), [], models.load_pretrained

    def slow(*args: Any, **options: Any) -> Any:
        loads.append(args)
        gate()
        return real(*args, **options)

    monkeypatch.setattr(models, "load_pretrained", slow)
    found: list[Any] = []
    first = threading.Thread(target=lambda: found.append(load_base(folder)))
    first.start()
    gate.wait()
    attempt = Attempt(lambda: load_base(folder), models, "_loading")
    assert attempt.waits
    gate.open()
    join(first)
    assert attempt.result() is found[0]
    assert len(loads) == 1


def test_adapters_of_two_models_are_drawn_one_after_the_other(
    family: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both draw from torch's global generator: at the same time, a seed would not give the same weights."""
    bases = [load_base(str(family(name))) for name in ("llama", "qwen3")]
    expected = bases[1].attach(LoraOptions(4), seed=5).copy()
    gate, fuse = Gate(holds=1), models.fuse
    monkeypatch.setattr(models, "fuse", lambda model: (gate(), fuse(model)))
    first = threading.Thread(target=lambda: bases[0].attach(LoraOptions(4), seed=3))
    first.start()
    gate.wait()
    attempt = Attempt(lambda: bases[1].attach(LoraOptions(4), seed=5), models, "_seeding")
    assert attempt.waits
    gate.open()
    join(first)
    for value, wanted in zip(attempt.result().copy().values(), expected.values(), strict=True):
        assert torch.equal(value, wanted)
