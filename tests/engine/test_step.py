"""Losses and LoRA gradients of the engine against plain autograd on the same model, one sequence at a time."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mint_lab.engine.batch import read_batch
from mint_lab.engine.checkpoints import save_checkpoint
from mint_lab.engine.models import Adapter, load_base
from mint_lab.engine.optimizer import Optimizer
from mint_lab.engine.step import Builtin, Custom, PassResult, run_pass
from mint_lab.errors import LossError
from mint_lab.losses import LOSSES, pairwise_preference_loss
from mint_lab.types import AdamParams, Datum

from .batches import datum, sampled
from .conftest import random_adapter
from .families import FAMILIES, VOCAB
from .reference import Reference

RELATIVE = 1e-4


def go(
    adapter: Adapter, data: list[Datum], loss: Any = "cross_entropy", config: Any = None, **options: Any
) -> PassResult:
    spec = LOSSES[loss] if isinstance(loss, str) else None
    batch = read_batch(data, spec, vocab_size=adapter.base.vocab_size, context=adapter.base.context)
    objective = Builtin(spec, spec.config(config)) if spec is not None else Custom(loss)
    return run_pass(adapter, batch, objective, **options)


def named_gradients(adapter: Adapter) -> dict[str, torch.Tensor]:
    assert adapter.gradients is not None
    return dict(zip(adapter.parameters, adapter.gradients, strict=True))


def assert_same_gradients(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Every parameter's gradient within RELATIVE of the largest gradient entry anywhere."""
    assert found.keys() == expected.keys()
    scale = max(float(g.abs().max()) for g in expected.values())
    assert scale > 1e-3, "the reference has no gradient to compare with"
    for name, gradient in expected.items():
        torch.testing.assert_close(
            found[name], gradient, rtol=RELATIVE, atol=RELATIVE * scale, msg=lambda m, name=name: f"{name}: {m}"
        )


def fields(d: Datum) -> tuple[torch.Tensor, ...]:
    return tuple(d.loss_fn_inputs[k].to_torch() for k in ("weights", "logprobs", "advantages"))


# The formulas as the specification writes them; where a weight is 0 a token is left out altogether.
def formula(name: str, data: Sequence[Datum], lists: Sequence[torch.Tensor]) -> torch.Tensor:
    total = torch.zeros(())
    for d, logprobs in zip(data, lists, strict=True):
        w, logq, a = fields(d)
        on = w != 0
        w, logq, a, logp = w[on], logq[on], a[on], logprobs[on]
        r = torch.exp(logp - logq)
        terms = {
            "cross_entropy": -logp * w,
            "importance_sampling": -(r * a) * w,
            "ppo": -torch.min(r * a, torch.clamp(r, 0.8, 1.2) * a) * w,
            "cispo": -(torch.clamp(r, 0.8, 1.2).detach() * logp * a) * w,
            "dro": -(logp * a - 0.5 * 0.05 * (logp - logq) ** 2) * w,
        }
        total = total + terms[name].sum()
    return total


def bradley_terry(lists: Sequence[torch.Tensor], data: Sequence[Datum]) -> torch.Tensor:
    scores = torch.stack(
        [torch.dot(lp, d.loss_fn_inputs["weights"].to_torch()) for d, lp in zip(data, lists, strict=True)]
    )
    return -F.logsigmoid(scores[0::2] - scores[1::2]).mean()


BUILTINS = ["cross_entropy", "importance_sampling", "ppo", "cispo", "dro"]


@pytest.mark.parametrize("loss", BUILTINS)
@pytest.mark.parametrize("prefix", [0, 6])
def test_builtin_losses_agree_with_plain_autograd(loss: str, prefix: int, qwen3: Path, tmp_path: Path) -> None:
    adapter = random_adapter(qwen3)
    data = near_policy(adapter, sampled(3, (5, 9, 3, 1), prefix=prefix))
    save_checkpoint(tmp_path / "c", adapter, None)
    expected = Reference(qwen3, tmp_path / "c").loss_and_gradients(data, lambda lists: formula(loss, data, lists))
    result = go(adapter, data, loss)
    assert result.loss == pytest.approx(expected[0], rel=RELATIVE)
    for found, wanted in zip(result.logprobs, expected[1], strict=True):
        torch.testing.assert_close(found, wanted, rtol=RELATIVE, atol=RELATIVE)
    assert_same_gradients(named_gradients(adapter), expected[2])


def near_policy(adapter: Adapter, data: list[Datum]) -> list[Datum]:
    """The same data with sampler log-probabilities near the model's own: some ratios are clipped, some are not."""
    own = go(adapter, [datum([*d.model_input.to_ints(), int(d.loss_fn_inputs["target_tokens"].to_torch()[-1])],
                             np.ones(d.model_input.length)) for d in data], backward=False).logprobs  # fmt: skip
    random = np.random.default_rng(5)
    return [
        Datum(
            model_input=d.model_input,
            loss_fn_inputs={
                **d.loss_fn_inputs,
                "logprobs": (lp + torch.tensor(random.normal(0, 0.4, len(lp)), dtype=torch.float32)),
            },
        )
        for d, lp in zip(data, own, strict=True)
    ]


@pytest.mark.parametrize("loss", ["importance_sampling", "ppo", "cispo", "dro"])
def test_infinite_ratios_at_weight_0_add_exactly_nothing(loss: str, adapter: Adapter) -> None:
    data = near_policy(adapter, sampled(4))
    clean = go(adapter, data, loss)
    before = [g.clone() for g in adapter.gradients or []]
    adapter.gradients = None
    dirty = []
    for d in data:
        logq = d.loss_fn_inputs["logprobs"].to_torch().clone()
        logq[0] = -torch.inf  # ratio inf
        if len(logq) > 1 and float(d.loss_fn_inputs["weights"].to_torch()[1]) == 0:
            logq[1] = torch.nan
        dirty.append(Datum(model_input=d.model_input, loss_fn_inputs={**d.loss_fn_inputs, "logprobs": logq}))
    result = go(adapter, dirty, loss)
    assert result.loss == clean.loss
    for found, wanted in zip(adapter.gradients or [], before, strict=True):
        assert torch.equal(found, wanted)
    assert all(float(g[0]) == 0 for g in result.gradient)


def test_a_clipped_infinite_ratio_has_value_and_no_gradient(adapter: Adapter) -> None:
    """With log q = -200, r = inf. With A = 2 ppo is -1.2 * 2 and flat; cispo keeps -1.2 * 2 * log p."""
    data = [datum([5, 6, 7], [0, 1], logprobs=[-1, -200], advantages=[1, 2])]
    assert go(adapter, data, "ppo").loss == pytest.approx(-2.4)
    assert all(float(g.abs().max()) == 0 for g in adapter.gradients or [])
    cispo = go(adapter, data, "cispo")
    assert cispo.loss == pytest.approx(-2.4 * float(cispo.logprobs[0][1]), rel=1e-6)
    assert cispo.gradient[0].tolist() == pytest.approx([0, -2.4])


def test_an_infinite_loss_is_refused_with_its_place(adapter: Adapter) -> None:
    data = [
        datum([1, 2], [1], logprobs=[-1], advantages=[1]),
        datum([5, 6, 7], [0, 1], logprobs=[-1, -200], advantages=[1, 2]),
    ]
    with pytest.raises(LossError, match=r"importance_sampling is -inf: datum 1, position 1 adds -inf.*-200") as caught:
        go(adapter, data, "importance_sampling")
    assert caught.value.index == 1
    assert adapter.gradients is None


def test_pairwise_preference_agrees_with_plain_autograd(qwen3: Path, tmp_path: Path) -> None:
    adapter = random_adapter(qwen3)
    data = [datum([9, 8, 7, 6, a, b], [0, 0, 0, 1, 1]) for a, b in ((1, 2), (3, 4), (30, 31), (32, 33), (1, 2), (5, 6))]
    save_checkpoint(tmp_path / "c", adapter, None)
    expected = Reference(qwen3, tmp_path / "c").loss_and_gradients(data, lambda lists: bradley_terry(lists, data))
    result = go(adapter, data, pairwise_preference_loss)
    assert result.loss == pytest.approx(expected[0], rel=RELATIVE)
    assert result.metrics["loss"] == result.loss
    assert_same_gradients(named_gradients(adapter), expected[2])


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_every_family_agrees_with_plain_autograd(name: str, family: Callable[[str], Path], tmp_path: Path) -> None:
    folder = family(name)
    adapter = random_adapter(folder)
    data = sampled(1, (4, 11, 2), prefix=5)  # up to 16 tokens: beyond the sliding windows of 8
    save_checkpoint(tmp_path / "c", adapter, None)
    expected = Reference(folder, tmp_path / "c").loss_and_gradients(
        data, lambda lists: formula("cross_entropy", data, lists)
    )
    result = go(adapter, data, "cross_entropy")
    assert result.loss == pytest.approx(expected[0], rel=RELATIVE)
    assert_same_gradients(named_gradients(adapter), expected[2])


@st.composite
def batches(draw: Any) -> list[Datum]:
    """Unequal lengths, nothing or all shared, prefixes in prefixes, single tokens, duplicates, weights all zero; with a
    prefix up to 21 tokens, beyond the sliding windows of 8.
    """
    prefix = draw(st.lists(st.integers(0, 3), max_size=12))
    tokens = draw(st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=9), min_size=1, max_size=5))
    made = [prefix + t for t in tokens] + tokens[: draw(st.integers(0, 2))]
    made += made[: draw(st.integers(0, 2))]
    choices = draw(st.sampled_from([[0.0], [0.0, 1.0], [1.0], [0.0, -0.5, 2.0]]))
    random = np.random.default_rng(draw(st.integers(0, 2**16)))
    return [datum(t, random.choice(choices, len(t) - 1)) for t in made]


def weighted(data: Sequence[Datum], lists: Sequence[torch.Tensor]) -> torch.Tensor:
    """Cross-entropy, with a graph also where every weight is 0."""
    return -sum(((lp * d.loss_fn_inputs["weights"].to_torch()).sum() for d, lp in zip(data, lists, strict=True)),
                torch.zeros(()))  # fmt: skip


def squares(data: Sequence[Datum], lists: Sequence[torch.Tensor]) -> torch.Tensor:
    """A coupled loss: the product of two sums, one of which has gradients at tokens of weight 0 too."""
    return weighted(data, lists) * torch.cat([lp / 40 for lp in lists]).sum() / 10


@pytest.mark.parametrize("name", sorted(FAMILIES))
@settings(max_examples=25)
@given(
    data=batches(),
    chunk=st.sampled_from([1, 3, 1000]),
    most=st.sampled_from([1, 12, 30, None]),
    coupled=st.booleans(),
    checkpointing=st.booleans(),
)
def test_any_batch_agrees_with_plain_autograd(
    *,
    references: Callable[[str], tuple[Adapter, Reference]],
    name: str,
    data: list[Datum],
    chunk: int,
    most: int | None,
    coupled: bool,
    checkpointing: bool,
) -> None:
    """Every family: packed, prefixes shared, head in chunks, in micro-batches of ``most`` tokens; one by one."""
    adapter, plain = references(name)
    adapter.gradients = None
    loss = squares if coupled else weighted
    value, logprobs, gradients = plain.loss_and_gradients(data, lambda lists: loss(data, lists))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mint_lab.engine.logprobs.CHUNK_LOGITS", chunk * VOCAB)
        patch.setattr("mint_lab.engine.step.enough", lambda device: None if coupled else most)
        objective = (lambda d, lists: (squares(d, lists), {})) if coupled else "cross_entropy"
        result = go(
            adapter, data, objective, max_tokens=most if coupled else None,
            checkpointing=checkpointing and adapter.base.can_recompute,
        )  # fmt: skip
    sequences = [d.model_input.to_ints() for d in data]
    if most is not None and adapter.base.size(sequences) > most and len(data) > 1:
        assert result.micro_batches > 1
        assert result.passes == (2 if coupled else 1)
    elif most is None and adapter.base.layout(sequences).padded is False:
        assert result.stored_tokens == len({tuple(s[: k + 1]) for s in sequences for k in range(len(s))})
    assert result.loss == pytest.approx(value, rel=RELATIVE, abs=1e-5)
    for found, wanted in zip(result.logprobs, logprobs, strict=True):
        torch.testing.assert_close(found, wanted, rtol=RELATIVE, atol=RELATIVE)
    scale = max(float(g.abs().max()) for g in gradients.values())
    for key, found in named_gradients(adapter).items():
        torch.testing.assert_close(found, gradients[key], rtol=RELATIVE, atol=RELATIVE * scale + 1e-9)


@pytest.fixture(scope="module")
def references(
    family: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], tuple[Adapter, Reference]]:
    """A family's adapter, and the same the plain way."""

    @functools.cache
    def make(name: str) -> tuple[Adapter, Reference]:
        made = random_adapter(family(name))
        folder = tmp_path_factory.mktemp("reference") / "c"
        save_checkpoint(folder, made, None)
        return made, Reference(family(name), folder)

    return make


# A small beta: random margins are large, and a saturated loss has no gradient to compare.
coupled = functools.partial(pairwise_preference_loss, beta=0.02)


@pytest.mark.parametrize("loss", ["cross_entropy", "dro", coupled])
@pytest.mark.parametrize("budget", [1, 12, 20])
def test_value_and_gradient_do_not_depend_on_the_cut(loss: Any, budget: int, qwen3: Path) -> None:
    adapter = random_adapter(qwen3)
    data = near_policy(adapter, sampled(2, (5, 9, 3, 8), prefix=3))
    whole = go(adapter, data, loss)
    whole_gradients = named_gradients(adapter)
    adapter.gradients = None
    cut = go(adapter, data, loss, max_tokens=budget)
    assert cut.max_tokens == budget
    assert cut.loss == pytest.approx(whole.loss, rel=1e-5)
    assert (whole.micro_batches, whole.passes) == (1, 1)
    assert cut.micro_batches > 1
    assert cut.passes == (2 if callable(loss) else 1)
    assert_same_gradients(named_gradients(adapter), whole_gradients)
    for a, b in zip(cut.logprobs, whole.logprobs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_a_separable_loss_takes_no_more_at_a_time_than_is_of_use(
    adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gradients accumulate over micro-batches for nothing; a coupled loss would pay for them with a second pass."""
    data = sampled(2, (5, 9, 3, 8))
    monkeypatch.setattr("mint_lab.engine.step.enough", lambda device: 12)
    assert go(adapter, data).micro_batches > 1
    assert go(adapter, data, max_tokens=100).micro_batches == go(adapter, data, max_tokens=12).micro_batches > 1
    assert go(adapter, data, max_tokens=1).micro_batches == 4, "a smaller budget counts all the same"
    found = go(adapter, data, coupled)
    assert (found.micro_batches, found.passes) == (1, 1)
    monkeypatch.setattr("mint_lab.engine.step.enough", lambda device: None)
    assert go(adapter, data).micro_batches == 1


@pytest.mark.parametrize(
    "shape",
    [
        {"train_mlp": False, "train_unembed": False},
        {"train_attn": False, "train_unembed": False},
        {"train_mlp": False, "train_attn": False},
    ],
)
def test_only_what_is_asked_for_is_trained(shape: dict[str, bool], qwen3: Path, tmp_path: Path) -> None:
    adapter = random_adapter(qwen3, **shape)
    data = sampled(1)
    save_checkpoint(tmp_path / "c", adapter, None)
    expected = Reference(qwen3, tmp_path / "c").loss_and_gradients(
        data, lambda lists: formula("cross_entropy", data, lists)
    )
    assert go(adapter, data).loss == pytest.approx(expected[0], rel=RELATIVE)
    assert_same_gradients(named_gradients(adapter), expected[2])
    kinds = {
        "self_attn": shape.get("train_attn", True),
        "mlp": shape.get("train_mlp", True),
        "lm_head": shape.get("train_unembed", True),
    }
    for part, on in kinds.items():
        assert any(part in name for name in adapter.parameters) == on


def test_a_small_head_chunk_changes_nothing(qwen3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = random_adapter(qwen3)
    data = sampled(1, (5, 9, 3), prefix=4)
    whole = go(adapter, data)
    gradients = named_gradients(adapter)
    adapter.gradients = None
    monkeypatch.setattr("mint_lab.engine.logprobs.CHUNK_LOGITS", 3 * VOCAB)  # three positions at a time
    assert go(adapter, data).loss == pytest.approx(whole.loss, rel=1e-6)
    assert_same_gradients(named_gradients(adapter), gradients)


def test_gradients_accumulate_until_the_step(adapter: Adapter) -> None:
    data = sampled(1)
    go(adapter, data)
    once = [g.clone() for g in adapter.gradients or []]
    go(adapter, data)
    for twice, single in zip(adapter.gradients or [], once, strict=True):
        torch.testing.assert_close(twice, 2 * single)


def test_two_runs_are_bit_identical(qwen3: Path) -> None:
    losses = []
    for _ in range(2):
        adapter = load_base(str(qwen3)).attach(random_adapter(qwen3).shape, seed=3)
        optimizer = Optimizer(adapter)
        run = []
        for seed in range(4):
            run.append(go(adapter, sampled(seed)).loss)
            optimizer.step(AdamParams(learning_rate=0.02))
        losses.append(run)
    assert losses[0] == losses[1]
    assert len(set(losses[0])) == 4
