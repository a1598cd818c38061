"""Policy losses in the custom contract: by hand, clipping by sign, masks, gradients, extremes and bad input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from mint_lab.errors import ConfigError, DataError
from mint_lab.losses import LOSSES
from mint_lab.losses.builtin import ppo
from mint_lab.losses.grpo import dr_grpo_loss, grpo_loss, gspo_loss, reverse_kl_loss
from mint_lab.metrics.policy import clip_metrics, ratio_metrics
from mint_lab.types import Datum, ModelInput, TensorData

NAMES = ["grpo", "dr_grpo", "gspo", "reverse_kl"]
LN2 = math.log(2)


def datum(**fields: list[float]) -> Datum:
    """A sample; every field has one value a token."""
    return Datum(
        model_input=ModelInput.from_ints([1] * len(next(iter(fields.values())))),
        loss_fn_inputs={k: TensorData.from_numpy(np.array(v, dtype=np.float32)) for k, v in fields.items()},
    )


def leaf(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32, requires_grad=True)


def gradients(lists: list[torch.Tensor]) -> list[list[float]]:
    return [lp.grad.tolist() for lp in lists if lp.grad is not None]


def two_samples(**odd: float) -> tuple[list[Datum], list[torch.Tensor]]:
    """A = 2 over a prompt and ratios 2 and 1; A = -1 over one ratio of 1/2. The reference gives half of p, once p.

    ``odd`` replaces what stands on the prompt.
    """
    first: dict[str, Any] = {
        "weights": [0, 1, 1],
        "logprobs": [odd.get("logprobs", -1), -1, -1],
        "advantages": [odd.get("advantages", 0), 2, 2],
        "reference_logprobs": [odd.get("reference_logprobs", 0), -1, -1],
        "teacher_logprobs": [odd.get("teacher_logprobs", 0), LN2, -1],
    }
    second: dict[str, Any] = {
        "weights": [1],
        "logprobs": [-1],
        "advantages": [-1],
        "reference_logprobs": [-1 - LN2],
        "teacher_logprobs": [-1 - 2 * LN2],
    }
    return [datum(**first), datum(**second)], [leaf(odd.get("own", -3), LN2 - 1, -1), leaf(-1 - LN2)]


@pytest.mark.loss_reference("grpo")
def test_grpo_by_hand() -> None:
    """First sample: clipped at 1.2 -> 2.4, and 2; k3 of 1/2: 1/2 + ln 2 - 1. Second: max(1/2, 0.8) -> -0.8, flat."""
    data, lists = two_samples()
    loss, metrics = grpo_loss(data, lists, beta=0.1)
    loss.backward()
    k3 = LN2 - 0.5
    assert loss.item() == pytest.approx(-((2.4 + 2 - 0.1 * k3) / 2 - 0.8) / 2, rel=1e-6)
    # d k3 / d log p = 1 - p_ref / p = 1/2 at the first token; the second token's surrogate moves with slope A.
    assert gradients(lists)[0] == pytest.approx([0, 0.1 * 0.5 / 4, -2 / 4], abs=1e-7)
    assert gradients(lists)[1] == pytest.approx([0], abs=1e-7)
    assert metrics == pytest.approx(
        {
            "loss": loss.item(),
            "ratio/mean": 3.5 / 3,
            "clip_frac/low": 1 / 3,
            "clip_frac/high": 1 / 3,
            "kl/reference": k3 / 3,
        }
    )


@pytest.mark.loss_reference("dr_grpo")
def test_dr_grpo_by_hand() -> None:
    """The sums 4.4 and -0.8 over two samples of at most 8 tokens."""
    data, lists = two_samples()
    loss, metrics = dr_grpo_loss(data, lists, max_tokens=8)
    loss.backward()
    assert loss.item() == pytest.approx(-(4.4 - 0.8) / 16, rel=1e-6)
    assert gradients(lists) == [[0, 0, pytest.approx(-2 / 16)], [0]]
    assert set(metrics) == {"loss", "ratio/mean", "clip_frac/low", "clip_frac/high"}


@pytest.mark.loss_reference("gspo")
def test_gspo_by_hand() -> None:
    """Ratios sqrt(2) and 1/2. Wide bounds: -(2 sqrt 2 - 1/2) / 2; the paper's: both clipped, no gradient."""
    data, lists = two_samples()
    loss, metrics = gspo_loss(data, lists, clip_low_threshold=0.1, clip_high_threshold=3.0)
    loss.backward()
    assert loss.item() == pytest.approx(-(2 * math.sqrt(2) - 0.5) / 2, rel=1e-6)
    # d rho / d log p_t = rho / length, for every token alike
    assert gradients(lists)[0] == pytest.approx([0, -math.sqrt(2) / 2, -math.sqrt(2) / 2])
    assert gradients(lists)[1] == pytest.approx([0.25])
    assert metrics["ratio/mean"] == pytest.approx((2 * math.sqrt(2) + 0.5) / 3)
    data, lists = two_samples()
    loss, metrics = gspo_loss(data, lists)
    loss.backward()
    assert loss.item() == pytest.approx(-(2 * 1.0004 - 0.9997) / 2, rel=1e-6)
    assert gradients(lists) == [[0, 0, 0], [0]]
    assert (metrics["clip_frac/low"], metrics["clip_frac/high"]) == pytest.approx((1 / 3, 2 / 3))


@pytest.mark.loss_reference("reverse_kl", stops_gradient=True)
def test_reverse_kl_by_hand() -> None:
    """Advantages 1, 0 and -ln 2 at ratios 2, 1 and 1/2."""
    data, lists = two_samples()
    loss, metrics = reverse_kl_loss(data, lists)
    loss.backward()
    assert loss.item() == pytest.approx(-(2 - 0.5 * LN2) / 3, rel=1e-6)
    assert gradients(lists)[0] == pytest.approx([0, -2 / 3, 0], abs=1e-7)
    assert gradients(lists)[1] == pytest.approx([0.5 * LN2 / 3])
    assert metrics["kl/teacher"] == pytest.approx(-(1 - LN2) / 3)


def test_on_policy_reverse_kl_has_the_gradient_of_the_divergence() -> None:
    """Every token of a vocabulary drawn in its share: the mean is the exact KL(p || teacher) and its gradient."""
    logits = torch.tensor([0.3, -1.0, 0.7, 0.1], dtype=torch.float64, requires_grad=True)
    teacher = torch.tensor([-0.2, 0.4, 0.5, 0.0], dtype=torch.float64).log_softmax(0)
    exact = (logits.softmax(0) * (logits.log_softmax(0) - teacher)).sum()
    (expected,) = torch.autograd.grad(exact, logits)
    logp = logits.log_softmax(0)
    data = [datum(weights=[w], logprobs=[q], teacher_logprobs=[t]) for w, q, t in zip(
        logp.exp().tolist(), logp.tolist(), teacher.tolist(), strict=True
    )]  # fmt: skip
    loss, _ = reverse_kl_loss(data, list(logp.split(1)))
    (found,) = torch.autograd.grad(loss, logits)
    assert loss.item() == pytest.approx(exact.item(), rel=1e-5)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_metrics_are_those_of_the_metrics_room() -> None:
    data, lists = two_samples()
    _, found = grpo_loss(data, lists)
    names = ("logprobs", "advantages", "weights")
    logq, advantages, weights = (torch.cat([d.loss_fn_inputs[n].to_torch() for d in data]) for n in names)
    expected = ratio_metrics(torch.cat(lists), logq, weights) | clip_metrics(
        torch.cat(lists), logq, advantages, weights
    )
    shared = set(found) & set(expected)
    assert shared == {"ratio/mean", "clip_frac/low", "clip_frac/high"}
    assert {k: found[k] for k in shared} == pytest.approx({k: expected[k] for k in shared})


def test_one_sample_of_grpo_without_the_kl_is_ppo_over_its_length() -> None:
    (data, _), (lists, _) = (side[:1] * 2 for side in two_samples())
    fields = {n: data.loss_fn_inputs[n].to_torch() for n in ("weights", "logprobs", "advantages")}
    expected = ppo(
        lists, weights=fields["weights"], sampling_logprobs=fields["logprobs"], advantages=fields["advantages"]
    )
    assert grpo_loss([data], [lists], beta=0.0)[0].item() == pytest.approx(expected.sum().item() / 2)


@pytest.mark.parametrize("name", NAMES)
def test_gradient_check(name: str) -> None:
    """In double precision, away from the clips' corners; reverse KL with its advantage held."""
    noise = torch.Generator().manual_seed(0)
    shapes = ([0, 1, 1, 0.5], [1, 1])
    lists = [-1 - 0.1 * torch.rand(len(w), generator=noise, dtype=torch.float64) for w in shapes]
    data = [
        datum(
            weights=list(w),
            logprobs=[-1.0] * len(w),
            advantages=[1.0 - 2 * k] * len(w),
            reference_logprobs=[-1.3] * len(w),
            teacher_logprobs=[-0.7] * len(w),
        )
        for k, w in enumerate(shapes)
    ]

    fixed = torch.cat(lists)

    def loss(*leaves: torch.Tensor) -> torch.Tensor:
        if name == "reverse_kl":
            flat = torch.cat(leaves)
            w = torch.tensor([x for row in shapes for x in row])
            return -(w * torch.exp(flat + 1.0) * (-0.7 - fixed)).sum() / w.sum()
        bounds = {"clip_low_threshold": 0.5, "clip_high_threshold": 2.0}
        return LOSSES[name].fn(data, list(leaves), **bounds)[0]

    leaves = [lp.requires_grad_() for lp in lists]
    assert torch.autograd.gradcheck(loss, leaves)
    if name == "reverse_kl":
        ours = torch.autograd.grad(reverse_kl_loss(data, leaves)[0], leaves)
        for a, b in zip(ours, torch.autograd.grad(loss(*leaves), leaves), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("odd", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("field", ["own", "logprobs", "advantages", "reference_logprobs", "teacher_logprobs"])
def test_a_weight_of_0_adds_exactly_0(name: str, odd: float, field: str) -> None:
    values = []
    for data, lists in (two_samples(), two_samples(**{field: odd})):
        loss, _ = LOSSES[name].fn(data, lists)
        loss.backward()
        values.append((loss.item(), gradients(lists)))
    assert values[0] == values[1]
    assert values[0][1][0][0] == 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("ratio", [-1e4, 1e4])
@pytest.mark.parametrize("advantage", [-1.0, 1.0])
def test_extreme_log_ratios_are_finite(name: str, ratio: float, advantage: float) -> None:
    fields = {"logprobs": [-1.0], "reference_logprobs": [-1.0], "teacher_logprobs": [-1.0]}
    lists = [leaf(ratio)]
    loss, metrics = LOSSES[name].fn([datum(advantages=[advantage], **fields)], lists)
    loss.backward()
    assert all(map(math.isfinite, metrics.values()))
    assert np.isfinite(gradients(lists)).all()


@pytest.mark.parametrize("name", NAMES)
def test_without_weights_every_token_counts(name: str) -> None:
    data, lists = two_samples()
    ones = [datum(**{k: v.tolist() for k, v in d.loss_fn_inputs.items()} | {"weights": [1.0] * len(x)}) for d, x in
            zip(data, lists, strict=True)]  # fmt: skip
    bare = [
        Datum(model_input=d.model_input, loss_fn_inputs={k: v for k, v in d.loss_fn_inputs.items() if k != "weights"})
        for d in data
    ]
    assert LOSSES[name].fn(bare, lists)[1] == LOSSES[name].fn(ones, lists)[1]


def test_a_sample_without_tokens_counts_as_a_sample_of_0() -> None:
    """An empty completion: its own mean is 0, and the batch is still divided by two."""
    data, lists = two_samples()
    empty = datum(weights=[0.0], logprobs=[0.0], advantages=[1.0], reference_logprobs=[0.0])
    alone = grpo_loss(data[:1], lists[:1])[0].item()
    assert grpo_loss([data[0], empty], [lists[0], leaf(-1)])[0].item() == pytest.approx(alone / 2)


def test_grpo_needs_no_reference_without_its_kl_term() -> None:
    fields = {"logprobs": [-1.0], "advantages": [1.0]}
    assert "kl/reference" not in grpo_loss([datum(**fields)], [leaf(-1)], beta=0.0)[1]
    with pytest.raises(DataError, match=r"fill it with data = mint_lab.data.with_reference\(data, client\)") as caught:
        grpo_loss([datum(**fields)], [leaf(-1)])
    assert (caught.value.index, caught.value.field) == (0, "reference_logprobs")


@pytest.mark.parametrize("name", NAMES)
def test_bad_input(name: str) -> None:
    data, lists = two_samples()
    fields = {k: v.tolist() for k, v in data[1].loss_fn_inputs.items()}
    with pytest.raises(DataError, match="got no datums"):
        LOSSES[name].fn([], [])
    without = {k: v for k, v in fields.items() if k != "logprobs"}
    with pytest.raises(DataError, match="missing; fields present: advantages, reference_logprobs") as caught:
        LOSSES[name].fn([data[0], datum(**without)], lists)
    assert (caught.value.index, caught.value.field) == (1, "logprobs")
    with pytest.raises(DataError, match=r"shape \(2,\), expected \(1,\) as the log-probabilities"):
        LOSSES[name].fn([data[0], datum(**fields | {"logprobs": [-1.0, -1.0]})], lists)
    with pytest.raises(DataError, match="not finite at a weighted token") as caught:
        LOSSES[name].fn([data[0], datum(**fields | {"logprobs": [math.nan]})], lists)
    assert caught.value.index == 1
    with pytest.raises(DataError, match="every weight of the batch is 0"):
        LOSSES[name].fn([datum(**fields | {"weights": [0.0]})], lists[1:])


@pytest.mark.parametrize("name", NAMES)
def test_what_the_registry_says_of_them(name: str) -> None:
    spec = LOSSES[name]
    assert (spec.family, spec.unit, spec.builtin) == ("policy", "datum", False)
    assert spec.optional == ("weights",)
    assert spec.inputs[0] == "logprobs"


def test_clips_that_cross() -> None:
    with pytest.raises(ConfigError, match=r"gspo: clip_low_threshold 1\.1 lies above clip_high_threshold 1\.0004"):
        LOSSES["gspo"].config({"clip_low_threshold": 1.1})
    with pytest.raises(ConfigError, match="dr_grpo: max_tokens is 0, expected a number from 1 up"):
        LOSSES["dr_grpo"].config({"max_tokens": 0})
