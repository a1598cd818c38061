"""From ``loss_fn`` to the engine's objective; every wrong argument is in ``test_bad_input.py``."""

from __future__ import annotations

import dataclasses
import sys
from typing import Any

import pytest
import torch

from mint_lab.client.loss_argument import builtin_objective, custom_objective, traced_loss
from mint_lab.client.service import ServiceClient
from mint_lab.client.training import TrainingClient
from mint_lab.errors import ConfigError, DataError
from mint_lab.losses import LOSSES
from mint_lab.usercode.guarded_loss import GuardedLoss

from ..engine.batches import sampled
from .steps import ADAM, weights


def test_builtin_gets_its_checked_settings() -> None:
    objective = builtin_objective("ppo", {"clip_high_threshold": 1.3})
    assert objective.spec is LOSSES["ppo"]
    assert objective.config == {"clip_low_threshold": 0.8, "clip_high_threshold": 1.3}
    with pytest.raises(ConfigError, match="unknown setting 'clip'"):
        builtin_objective("ppo", {"clip": 1.3})


def test_reduction_is_read_from_bound_and_guarded_losses() -> None:
    """A plain function says nothing, so a split batch must assume that its datums are coupled."""
    spec = LOSSES["pairwise_preference"]
    bound = spec.bind({"beta": 0.5})
    assert spec.reduction == "mean"
    assert custom_objective(bound).reduction == "mean"
    assert custom_objective(GuardedLoss(spec, bound)).reduction == "mean"
    assert custom_objective(LOSSES["ppo"].bind()).reduction == "sum"

    def plain(data: Any, logprobs_list: list[torch.Tensor]) -> Any:
        return torch.cat(logprobs_list).sum(), {}

    objective = custom_objective(plain)
    assert (objective.fn, objective.reduction) == (plain, "coupled")


# --- losses of one datum, traced by the SDK ------------------------------------------------------------------------


def policy_gradient(logprobs: torch.Tensor, advantages: torch.Tensor, weights: torch.Tensor) -> Any:
    loss = -(logprobs * advantages * weights).sum()
    return loss, {"custom/tokens:sum": weights.sum(), "custom/share:mean": weights.mean()}


RANKS: dict[str, Any] = {"logprobs": 1, "advantages": 1, "weights": 1}


def test_a_traced_loss_trains_as_the_function_does(service: ServiceClient, qwen3: Any) -> None:
    """Also if memory divides the batch; the suffix of a metric says whether datums are summed or averaged."""

    def of_batch(data: Any, logprobs: list[torch.Tensor]) -> Any:
        parts = [
            policy_gradient(p, *(datum.loss_fn_inputs[name].to_torch() for name in ("advantages", "weights")))
            for datum, p in zip(data, logprobs, strict=True)
        ]
        return sum(loss for loss, _ in parts), {}

    data, found = sampled(3), {}
    shares = [float(datum.loss_fn_inputs["weights"].to_torch().mean()) for datum in data]
    for name, budget in (("function", None), ("handle", None), ("divided", 6)):
        client = service.create_lora_training_client(str(qwen3), rank=3, seed=0, max_batch_tokens=budget)
        loss = of_batch if name == "function" else service.create_custom_loss(policy_gradient, RANKS).result()
        output = client.forward_backward_custom(data, loss).result()
        gradient = client.weight_gradient(data, loss).result() if name == "function" else None
        client.optim_step(ADAM).result()
        found[name] = output.metrics["loss"], weights(client)
        assert gradient is None or float(gradient.to_torch().abs().max()) > 0
        if name != "function":
            assert output.metrics["custom/tokens:sum"] == sum(
                float(datum.loss_fn_inputs["weights"].to_torch().sum()) for datum in data
            )
            assert output.metrics["custom/share:mean"] == pytest.approx(sum(shares) / len(shares))
    for name in ("handle", "divided"):
        assert found[name][0] == pytest.approx(found["function"][0], rel=1e-5)
        for key, weight in found["function"][1].items():
            torch.testing.assert_close(found[name][1][key], weight, rtol=1e-3, atol=1e-5)


def test_a_loss_that_cannot_be_traced_is_refused(service: ServiceClient) -> None:
    def branches(logprobs: torch.Tensor) -> Any:
        return (logprobs.sum() if logprobs.sum() > 0 else -logprobs.sum()), {}

    def reads(logprobs: torch.Tensor) -> Any:
        return logprobs.sum(), {"custom/x:sum": logprobs.sum().item()}

    for fn, ranks, words in (
        (branches, {"logprobs": 1}, "branches cannot be traced by torch.fx"),
        (reads, {"logprobs": 1}, "reads"),
        (policy_gradient, {"logprobs": 1}, "input_ranks must give a rank for each parameter"),
        (3, {"logprobs": 1}, "3 is not a callable object"),
    ):
        with pytest.raises(ConfigError, match=words) as raised:
            service.create_custom_loss(fn, ranks)
        assert "create_custom_loss: " not in str(raised.value)


def test_a_traced_loss_names_the_datum_that_lacks_an_input(client: TrainingClient) -> None:
    data = sampled(3)
    del data[1].loss_fn_inputs["advantages"]
    before = weights(client)
    with pytest.raises(DataError, match=r"datum\[1\] has no loss_fn_inputs\['advantages'\]"):
        client.forward_backward_custom(data, traced_loss(policy_gradient, RANKS)).result()
    assert all(torch.equal(weight, before[name]) for name, weight in weights(client).items())


def test_a_handle_of_a_server_is_refused(client: TrainingClient) -> None:
    handle = dataclasses.replace(traced_loss(policy_gradient, RANKS), session_id="s-1")
    with pytest.raises(ConfigError, match="'policy_gradient' was created in session s-1 of a server"):
        client.forward_backward_custom(sampled(3), handle)


def test_an_sdk_that_cannot_trace_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tinker.lib.public_interfaces.custom_loss", None)
    monkeypatch.delattr("mint_lab.types.trace_loss", raising=False)
    with pytest.raises(ConfigError, match="create_custom_loss needs a later version of tinker"):
        traced_loss(policy_gradient, RANKS)
