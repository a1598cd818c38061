from __future__ import annotations

import pytest
import torch

from mint_lab.client.gradients import token_gradients, token_logprobs
from mint_lab.client.training import TrainingClient
from mint_lab.errors import ConfigError, DataError, LossError
from mint_lab.losses import LOSSES, LossSpec
from mint_lab.types import Datum

from ..engine.batches import datum, sampled
from .steps import PAIRS, assert_same, state, sum_loss


def test_token_gradients_match_forward_backward(client: TrainingClient) -> None:
    client.forward_backward(sampled(5), "cross_entropy").result()  # a gradient that must stay as it is
    before = state(client)
    found = token_gradients(client, PAIRS, "pairwise_preference", {"beta": 0.5})
    builtin = token_gradients(client, sampled(1), "ppo")
    assert_same(before, state(client))
    output = client.forward_backward_custom(
        PAIRS, LOSSES["pairwise_preference"].bind({"beta": 0.5}), return_gradients=True
    ).result()
    assert found.loss == pytest.approx(output.metrics["loss"], rel=1e-5)
    for mine, theirs in zip(found.gradients, output.loss_fn_outputs, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, theirs["gradients"].to_torch(), rtol=1e-5, atol=1e-8)
    output = client.forward_backward(sampled(1), "ppo", return_gradients=True).result()
    for mine, theirs in zip(builtin.gradients, output.loss_fn_outputs, strict=True):
        torch.testing.assert_close(mine, theirs["gradients"].to_torch(), rtol=1e-5, atol=1e-8)


def test_by_hand(client: TrainingClient) -> None:
    """d(-sum w log p) / d log p = -w; a plain function is not registered; a datum times 0 has gradient 0."""
    data = [datum([1, 2, 3], [0, 2]), datum([4, 5], [1])]
    assert [g.tolist() for g in token_gradients(client, data, "cross_entropy").gradients] == [[0, -2], [-1]]
    before = list(LOSSES)
    assert [g.tolist() for g in token_gradients(client, data, sum_loss).gradients] == [[-1, -1], [-1]]
    assert list(LOSSES) == before
    first = token_gradients(client, data, lambda data, logprobs: (3 * logprobs[0].sum() + 0 * logprobs[1].sum(), {}))
    assert [g.tolist() for g in first.gradients] == [[3, 3], [0]]


def test_missing_weights_and_extra_fields_are_accepted(client: TrainingClient) -> None:
    bare, full = datum([1, 2, 3]), datum([1, 2, 3], [0, 1], advantages=[1, 1])
    one, two = token_logprobs(client, [bare, full])
    torch.testing.assert_close(one, two)
    assert "weights" not in bare.loss_fn_inputs


def test_missing_reference_is_computed(client: TrainingClient) -> None:
    def gap(data: list[Datum], logprobs: list[torch.Tensor]) -> tuple[torch.Tensor, dict[str, float]]:
        far = [lp - d.loss_fn_inputs["reference_logprobs"].to_torch() for d, lp in zip(data, logprobs, strict=True)]
        return sum((0.5 * piece**2 + piece).sum() for piece in far), {}  # type: ignore[return-value]

    spec = LossSpec(name="gap", family="custom", fn=gap, inputs=("weights", "reference_logprobs"))
    found = token_gradients(client, PAIRS, spec)
    # A fresh adapter is the base model: the gap is 0, and the gradient gap + 1 = 1.
    for gradient, seen in zip(found.gradients, found.data, strict=True):
        torch.testing.assert_close(gradient, torch.ones_like(gradient), rtol=0, atol=1e-4)
        assert "reference_logprobs" in seen.loss_fn_inputs
    assert "reference_logprobs" not in PAIRS[0].loss_fn_inputs

    class Hosted:
        def forward(self, *_: object) -> None: ...

    with pytest.raises(ConfigError, match="computes no reference log-probabilities"):
        token_gradients(Hosted(), PAIRS, spec)  # type: ignore[arg-type]


def test_undifferentiable_losses_raise(client: TrainingClient) -> None:
    before = state(client)
    with pytest.raises(LossError, match="returned a Tensor; return loss, metrics"):
        token_gradients(client, PAIRS, lambda data, logprobs: logprobs[0].sum())
    with pytest.raises(LossError, match="the loss is a float; return the tensor itself"):
        token_gradients(client, PAIRS, lambda data, logprobs: (1.0, {}))
    with pytest.raises(LossError, match=r"shape \(4,\)"):
        token_gradients(client, PAIRS, lambda data, logprobs: (torch.stack([lp.sum() for lp in logprobs]), {}))
    with pytest.raises(LossError, match="the loss has no gradient; compute it from logprobs_list"):
        token_gradients(client, PAIRS, lambda data, logprobs: (torch.tensor(1.0), {}))
    with pytest.raises(LossError, match=r"the gradient does not reach datum 0, 2, 3 of 4"):
        token_gradients(client, PAIRS, lambda data, logprobs: (logprobs[1].sum(), {}))
    with pytest.raises(ConfigError, match="unknown loss"):
        token_gradients(client, PAIRS, "pairwise")
    with pytest.raises(DataError, match="datum 1: found str"):
        token_logprobs(client, [PAIRS[0], "text"])  # type: ignore[list-item]
    with pytest.raises(DataError, match="empty"):
        token_logprobs(client, [])
    assert_same(before, state(client))


def test_weight_gradient_changes_nothing(client: TrainingClient) -> None:
    """It is the one that ``forward_backward`` accumulates, which is still what it was, also after a failure."""
    spec = LOSSES["pairwise_preference"]
    client.forward_backward_custom(PAIRS, spec.bind()).result()
    wanted = torch.cat([g.flatten() for g in client._adapter.gradients])  # type: ignore[union-attr]
    before = state(client)
    found = client.weight_gradient(PAIRS, spec.bind()).result().to_torch()
    assert (found.dtype, found.shape) == (torch.float32, wanted.shape)
    torch.testing.assert_close(found, wanted, rtol=0, atol=0)
    with pytest.raises(LossError):
        client.weight_gradient(PAIRS, lambda data, logprobs: (logprobs[0].sum() / 0, {})).result()
    assert_same(before, state(client))
    assert torch.equal(torch.cat([g.flatten() for g in client._adapter.gradients]), wanted)  # type: ignore[union-attr]


def test_weight_gradients_add_up(client: TrainingClient) -> None:
    whole = client.weight_gradient(sampled(4), "cross_entropy").result().to_torch()
    parts = [client.weight_gradient([one], "cross_entropy").result().to_torch() for one in sampled(4)]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-4, atol=1e-6)
    with pytest.raises(ConfigError, match="unknown loss"):
        client.weight_gradient(PAIRS, "no_such")
