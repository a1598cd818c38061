"""Losses and LoRA gradients of the engine against plain autograd on the same model, one sequence at a time."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from mint_lab.engine.batch import Batch, read_batch
from mint_lab.engine.checkpoints import save_checkpoint
from mint_lab.engine.models import Adapter, load_base
from mint_lab.engine.optimizer import Optimizer
from mint_lab.engine.step import Builtin, Custom, PassResult, run_pass
from mint_lab.errors import DataError, LossError
from mint_lab.losses import LOSSES, pairwise_preference_loss
from mint_lab.types import AdamParams, Datum

from .batches import datum, sampled
from .conftest import random_adapter
from .families import FAMILIES, VOCAB
from .reference import Reference

RELATIVE = 1e-4


def batch_of(data: list[Datum], loss: str) -> Batch:
    return read_batch(data, LOSSES[loss], vocab_size=VOCAB, context=128)


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
def test_infinite_ratios_at_weight_zero_add_nothing(loss: str, adapter: Adapter) -> None:
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


def test_clipped_infinite_ratio_has_value_without_gradient(adapter: Adapter) -> None:
    """With log q = -200, r = inf. With A = 2 ppo is -1.2 * 2 and flat; cispo keeps -1.2 * 2 * log p."""
    data = [datum([5, 6, 7], [0, 1], logprobs=[-1, -200], advantages=[1, 2])]
    assert go(adapter, data, "ppo").loss == pytest.approx(-2.4)
    assert all(float(g.abs().max()) == 0 for g in adapter.gradients or [])
    cispo = go(adapter, data, "cispo")
    assert cispo.loss == pytest.approx(-2.4 * float(cispo.logprobs[0][1]), rel=1e-6)
    assert cispo.gradient[0].tolist() == pytest.approx([0, -2.4])


INFINITE_RATIO = (
    r"^importance_sampling is -inf\. Datum 1, position 1 contributes -inf: the importance ratio overflowed "
    r"\(log-probability -\d.*, sampler log-probability -200\)\. Either the sample is too far off-policy, or its "
    r"logprobs do not match its tokens$"
)


def test_infinite_ratio_is_named_with_its_token(adapter: Adapter) -> None:
    data = [
        datum([1, 2], [1], logprobs=[-1], advantages=[1]),
        datum([5, 6, 7], [0, 1], logprobs=[-1, -200], advantages=[1, 2]),
    ]
    with pytest.raises(LossError, match=INFINITE_RATIO) as caught:
        go(adapter, data, "importance_sampling")
    assert caught.value.index == 1
    assert adapter.gradients is None


def policy_batch(weight: float, logprob: float, advantage: float) -> Batch:
    """One datum of two tokens; the first has weight 0."""
    return batch_of([datum([5, 6, 7], [0, weight], logprobs=[-1, logprob], advantages=[1, advantage])], "ppo")


@pytest.mark.parametrize(
    ("loss", "weight", "sampled", "advantage", "logprob", "words"),
    [
        # cross_entropy has no ratio: -w log p is infinite if log p is, or if w is near the largest float32, 3.4e38.
        ("cross_entropy", 1, None, None, -math.inf, "log-probability of the target is -inf, so its logits are"),
        ("cross_entropy", 1, None, None, math.nan, "log-probability of the target is nan"),
        ("cross_entropy", 3e38, None, None, -2, r"the term overflowed \(log-probability -2, weight 3e\+38\)"),
        # r = exp(-2 + 100) overflows above exp(88.7). ppo clips a ratio above 1.2 only if the advantage is positive.
        ("importance_sampling", 1, -100, 1, -2, r"importance ratio overflowed \(log-probability -2, sampler .* -100\)"),
        ("ppo", 1, -100, -1, -2, "importance ratio overflowed"),
        ("ppo", 1, -2, 3e38, math.nan, "log-probability of the target is nan"),
        ("ppo", 10, -2, -3e38, -2, r"term overflowed \(log-probability -2, weight 10, sampler log-probability -2,"),
        # cispo clamps the ratio to 1.2, whatever it is.
        ("cispo", 1, -100, 3e38, -2, "the term overflowed"),
        ("cispo", 1, -100, 1, -math.inf, "log-probability of the target is -inf"),
        # dro has no ratio but (log p - log q)^2, which overflows above 1.8e19.
        ("dro", 1, -1e20, 1, -2, r"squared log-ratio overflowed \(log-probability -2, sampler .* -1e\+20\)"),
        ("dro", 1, -2, 3e38, -2, "the term overflowed"),
    ],
)
def test_nonfinite_builtin_loss_names_its_cause(
    *, loss: str, weight: float, sampled: float | None, advantage: float | None, logprob: float, words: str
) -> None:
    if sampled is None or advantage is None:
        batch = batch_of([datum([5, 6, 7], [0, weight])], loss)
    else:
        batch = policy_batch(weight, sampled, advantage)
    with pytest.raises(
        LossError, match=rf"^{loss} is (-?inf|nan)\. Datum 0, position 1 contributes .*{words}"
    ) as caught:
        Builtin(LOSSES[loss], LOSSES[loss].config())(batch, torch.tensor([math.nan, logprob]))
    assert caught.value.index == 0
    assert ("ratio" in str(caught.value)) == ("ratio" in words)


def test_sum_that_overflows_names_largest_term() -> None:
    """3 + 2 times 1e38 is above 3.4e38, and each term is below."""
    batch = batch_of([datum([5, 6, 7], [2e38, 3e38])], "cross_entropy")
    with pytest.raises(LossError, match=r"is inf\. Datum 0, position 1 contributes 3e\+38: it is the largest term"):
        Builtin(LOSSES["cross_entropy"], {})(batch, torch.tensor([-1.0, -1.0]))


def test_nan_weights_are_refused_as_data() -> None:
    with pytest.raises(DataError, match=r"datum 0, field 'weights': nan at position 1, expected a finite number"):
        batch_of([datum([5, 6, 7], [1, math.nan])], "cross_entropy")


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
    budget=st.sampled_from([1, 12, 30, None]),
    coupled=st.booleans(),
    gradient_checkpointing=st.booleans(),
)
def test_any_batch_agrees_with_plain_autograd(
    *,
    references: Callable[[str], tuple[Adapter, Reference]],
    name: str,
    data: list[Datum],
    chunk: int,
    budget: int | None,
    coupled: bool,
    gradient_checkpointing: bool,
) -> None:
    """Every family: packed, prefixes shared, head in chunks, micro-batches of ``budget`` tokens; against one by one."""
    adapter, plain = references(name)
    adapter.gradients = None
    loss = squares if coupled else weighted
    value, logprobs, gradients = plain.loss_and_gradients(data, lambda lists: loss(data, lists))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mint_lab.engine.logprobs.CHUNK_LOGITS", chunk * VOCAB)
        patch.setattr("mint_lab.engine.step.max_useful_tokens", lambda device: None if coupled else budget)
        objective = (lambda d, lists: (squares(d, lists), {})) if coupled else "cross_entropy"
        result = go(
            adapter, data, objective, max_tokens=budget if coupled else None,
            gradient_checkpointing=gradient_checkpointing and adapter.base.supports_gradient_checkpointing,
        )  # fmt: skip
    sequences = [d.model_input.to_ints() for d in data]
    assert result.max_tokens == budget
    if budget is not None and adapter.base.computed_tokens(sequences) > budget and len(data) > 1:
        assert result.micro_batches > 1
        some_gradient = any(bool(g.any()) for g in result.gradient)
        assert result.passes == (2 if coupled and some_gradient else 1)
    elif budget is None and adapter.base.layout(sequences).padded is False:
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
def test_value_and_gradient_do_not_depend_on_split(loss: Any, budget: int, qwen3: Path) -> None:
    adapter = random_adapter(qwen3)
    data = near_policy(adapter, sampled(2, (5, 9, 3, 8), prefix=3))
    whole = go(adapter, data, loss)
    whole_gradients = named_gradients(adapter)
    adapter.gradients = None
    split = go(adapter, data, loss, max_tokens=budget)
    assert split.max_tokens == budget
    assert split.loss == pytest.approx(whole.loss, rel=1e-5)
    assert (whole.micro_batches, whole.passes) == (1, 1)
    assert split.micro_batches > 1
    assert split.passes == (2 if callable(loss) else 1)
    assert_same_gradients(named_gradients(adapter), whole_gradients)
    for a, b in zip(split.logprobs, whole.logprobs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_useful_size_caps_micro_batches_of_builtin_losses_only(
    adapter: Adapter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Accumulating gradients over micro-batches is free; splitting a coupled loss would cost a second forward pass.
    Four datums of 5 + 9 + 3 + 8 = 25 tokens: 12 hold one or two of them.
    """
    data = sampled(2, (5, 9, 3, 8))
    monkeypatch.setattr("mint_lab.engine.step.max_useful_tokens", lambda device: 12)
    for requested, used in ((None, 12), (100, 12), (12, 12), (1, 1)):
        found = go(adapter, data, max_tokens=requested)
        assert found.max_tokens == used
        assert found.micro_batches == (4 if used == 1 else 3)
        assert (found.passes, found.stored_tokens) == (1, 25)
    for requested in (None, 100):
        found = go(adapter, data, coupled, max_tokens=requested)
        assert (found.micro_batches, found.passes, found.max_tokens) == (1, 1, requested)
    monkeypatch.setattr("mint_lab.engine.step.max_useful_tokens", lambda device: None)
    found = go(adapter, data)
    assert (found.micro_batches, found.max_tokens) == (1, None)


def bad(kind: str) -> Callable[..., Any]:
    def fn(data: Any, logprobs_list: list[torch.Tensor]) -> Any:
        total = torch.cat(logprobs_list).sum()
        return {
            "not a tuple": lambda: total,
            "vector": lambda: (torch.cat(logprobs_list), {}),
            "nan": lambda: (total * float("nan"), {}),
            "detached": lambda: (total.detach(), {}),
            "one datum left out": lambda: (logprobs_list[0].sum(), {}),
            "metric a word": lambda: (total, {"accuracy": "high"}),
            "nan gradient": lambda: (torch.sqrt(torch.cat(logprobs_list) * 0).sum(), {}),
            "raises": lambda: 1 / 0,
        }[kind]()

    return fn


@pytest.mark.parametrize(
    ("kind", "error", "words"),
    [
        ("not a tuple", LossError, "returned a Tensor"),
        ("vector", LossError, r"shape \(17,\)"),
        ("nan", LossError, "the loss is nan"),
        ("detached", LossError, "has no gradient"),
        ("one datum left out", LossError, "does not reach datum 1"),
        ("metric a word", LossError, "'accuracy' is a str"),
        ("nan gradient", LossError, "gradient is .* at datum 0, position 0"),
        ("raises", ZeroDivisionError, "division by zero"),
    ],
)
def test_rejected_custom_loss_changes_nothing(kind: str, error: type[Exception], words: str, adapter: Adapter) -> None:
    """Every check of the result is in ``tests/usercode/test_result.py``."""
    data = sampled(1)
    go(adapter, data)
    before = [g.clone() for g in adapter.gradients or []]
    weights = adapter.copy()
    with pytest.raises(error, match=words):
        go(adapter, data, bad(kind))
    assert all(torch.equal(a, b) for a, b in zip(adapter.gradients or [], before, strict=True))
    assert all(torch.equal(p, weights[n]) for n, p in adapter.parameters.items())


def test_odd_number_of_pair_datums_raises(adapter: Adapter) -> None:
    with pytest.raises(DataError, match="got 3 datums"):
        go(adapter, sampled(1), pairwise_preference_loss)


@pytest.mark.parametrize(
    "shape",
    [
        {"mlp": False, "unembed": False},
        {"attn": False, "unembed": False},
        {"mlp": False, "attn": False},
    ],
)
def test_only_requested_layers_are_trained(shape: dict[str, bool], qwen3: Path, tmp_path: Path) -> None:
    adapter = random_adapter(qwen3, **shape)
    data = sampled(1)
    save_checkpoint(tmp_path / "c", adapter, None)
    expected = Reference(qwen3, tmp_path / "c").loss_and_gradients(
        data, lambda lists: formula("cross_entropy", data, lists)
    )
    assert go(adapter, data).loss == pytest.approx(expected[0], rel=RELATIVE)
    assert_same_gradients(named_gradients(adapter), expected[2])
    kinds = {
        "self_attn": shape.get("attn", True),
        "mlp": shape.get("mlp", True),
        "lm_head": shape.get("unembed", True),
    }
    for part, on in kinds.items():
        assert any(part in name for name in adapter.parameters) == on


def test_small_head_chunk_changes_nothing(qwen3: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
        adapter = load_base(str(qwen3)).attach(random_adapter(qwen3).lora, seed=3)
        optimizer = Optimizer(adapter)
        run = []
        for seed in range(4):
            run.append(go(adapter, sampled(seed)).loss)
            optimizer.step(AdamParams(learning_rate=0.02))
        losses.append(run)
    assert losses[0] == losses[1]
    assert len(set(losses[0])) == 4
