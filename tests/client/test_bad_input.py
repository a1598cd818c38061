"""Input that cannot be used, through the public client: a clear error, nothing changed, and the client stays usable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from mint_lab.client.training import TrainingClient
from mint_lab.errors import CheckpointError, ConfigError, DataError, LossError
from mint_lab.losses import LOSSES, pairwise_preference_loss
from mint_lab.types import AdamParams, Datum

from ..engine.batches import datum, sampled
from .steps import ADAM, PAIRS, assert_same, state, sum_loss, train


def without(name: str) -> Datum:
    d = sampled(0)[0]
    return replace(d, loss_fn_inputs={k: v for k, v in d.loss_fn_inputs.items() if k != name})


def holding(**fields: Any) -> Datum:
    d = sampled(0)[0]
    return replace(d, loss_fn_inputs={**d.loss_fn_inputs, **{k: np.asarray(v) for k, v in fields.items()}})


def filled(value: float, length: int = 5) -> Any:
    return np.full(length, value, np.float32)


UNUSABLE: dict[str, tuple[Callable[[TrainingClient], Any], type[Exception], str]] = {
    "lengths differ": (
        lambda c: c.forward_backward([sampled(1)[0], holding(weights=filled(1, 4))], "ppo"),
        DataError,
        r"datum 1, field 'weights': length 4, expected 5",
    ),
    "token outside the vocabulary": (
        lambda c: c.forward_backward([datum([1, 999, 3], [1, 1])], "cross_entropy"),
        DataError,
        "datum 0, field 'model_input': token id 999 at position 1",
    ),
    "target outside the vocabulary": (
        lambda c: c.forward_backward([holding(target_tokens=np.full(5, -100))], "cross_entropy"),
        DataError,
        "datum 0, field 'target_tokens': token id -100",
    ),
    "float targets": (
        lambda c: c.forward_backward([sampled(1)[0], holding(target_tokens=filled(1))], "ppo"),
        DataError,
        "datum 1, field 'target_tokens': has type float32, expected integer token ids",
    ),
    "nan weight": (
        lambda c: c.forward_backward([holding(weights=filled(np.nan))], "ppo"),
        DataError,
        "field 'weights': nan at position 0",
    ),
    "inf logprob": (
        lambda c: c.forward_backward([holding(logprobs=filled(-np.inf))], "ppo"),
        DataError,
        "field 'logprobs': -inf at position 2",
    ),
    "nan advantage": (
        lambda c: c.forward_backward([holding(advantages=filled(np.nan))], "dro"),
        DataError,
        "field 'advantages': nan at position 2",
    ),
    "missing field": (
        lambda c: c.forward_backward([without("advantages")], "ppo"),
        DataError,
        "datum 0, field 'advantages': missing",
    ),
    "unknown field": (
        lambda c: c.forward_backward([holding(advantage=filled(1))], "ppo"),
        DataError,
        "did you mean 'advantages'",
    ),
    "unknown loss": (
        lambda c: c.forward_backward(sampled(0), "pp0"),
        ConfigError,
        "unknown loss 'pp0'.*did you mean 'ppo'",
    ),
    "unknown setting": (
        lambda c: c.forward_backward(sampled(0), "ppo", {"clip": 1}),
        ConfigError,
        "ppo: unknown setting 'clip'",
    ),
    "crossed bounds": (
        lambda c: c.forward_backward(sampled(0), "ppo", {"clip_low_threshold": 2}),
        ConfigError,
        "lies above",
    ),
    "settings that are no dict": (
        lambda c: c.forward_backward(sampled(0), "ppo", 0.2),
        ConfigError,
        "ppo: the settings are 0.2",
    ),
    "a custom loss by name": (
        lambda c: c.forward_backward(PAIRS, "pairwise_preference"),
        ConfigError,
        r"is a custom loss; call forward_backward_custom\(data, mint_lab.LOSSES\['pairwise_preference'\].bind\(\)\)$",
    ),
    "a spec as a name": (
        lambda c: c.forward_backward(PAIRS, LOSSES["simpo"]),
        ConfigError,
        r"^loss_fn is LossSpec\('simpo', v1, preference\), expected a name; call forward_backward_custom\(",
    ),
    "a function as built-in": (
        lambda c: c.forward_backward(PAIRS, sum_loss),
        ConfigError,
        "functions go to forward_backward_custom",
    ),
    "a name as function": (
        lambda c: c.forward_backward_custom(PAIRS, "ppo"),
        ConfigError,
        r"^loss_fn is 'ppo', expected a function .*; call forward_backward\(data, 'ppo'\)$",
    ),
    "the name of a custom loss as function": (
        lambda c: c.forward_backward_custom(PAIRS, "simpo"),
        ConfigError,
        r"expected a function .*; call forward_backward_custom\(data, mint_lab.LOSSES\['simpo'\].bind\(\)\)$",
    ),
    "a spec as function": (
        lambda c: c.forward_backward_custom(PAIRS, LOSSES["simpo"]),
        ConfigError,
        r"^loss_fn is LossSpec\(.*; call forward_backward_custom\(data, mint_lab.LOSSES\['simpo'\].bind\(\)\)$",
    ),
    "no name at all as function": (
        lambda c: c.forward_backward_custom(PAIRS, "x1"),
        ConfigError,
        r"^loss_fn is 'x1', expected a function \(data, logprobs_list\) -> \(loss, metrics\)$",
    ),
    "another input than logprobs": (
        lambda c: c.forward_backward_custom(PAIRS, sum_loss, loss_type_input="logits"),
        ConfigError,
        "expected 'logprobs'",
    ),
    "empty batch": (lambda c: c.forward_backward([], "ppo"), DataError, "the batch is empty"),
    "one datum": (lambda c: c.forward_backward(sampled(0)[0], "ppo"), DataError, "got Datum, expected a list of Datum"),
    "longer than the context": (
        lambda c: c.forward_backward([datum([1] * 130, [1] * 129)], "cross_entropy"),
        DataError,
        "129 tokens, but the model's context is 128",
    ),
    "loss that is no tuple": (
        lambda c: c.forward_backward_custom(PAIRS, lambda d, lp: lp[0].sum()),
        LossError,
        "returned a Tensor; return loss, metrics",
    ),
    "loss that is no scalar": (
        lambda c: c.forward_backward_custom(PAIRS, lambda d, lp: (lp[0], {})),
        LossError,
        r"shape \(4,\); reduce it to a scalar",
    ),
    "loss that is a float": (
        lambda c: c.forward_backward_custom(PAIRS, lambda d, lp: (1.0, {})),
        LossError,
        "the loss is a float",
    ),
    "loss that is nan": (
        lambda c: c.forward_backward_custom(PAIRS, lambda d, lp: (torch.cat(lp).sum() * torch.nan, {})),
        LossError,
        "the loss is nan",
    ),
    "loss without gradient": (
        lambda c: c.forward_backward_custom(PAIRS, lambda d, lp: (torch.cat(lp).sum().detach(), {})),
        LossError,
        "has no gradient",
    ),
    "a datum without gradient": (
        lambda c: c.forward_backward_custom(PAIRS, lambda d, lp: (torch.cat(lp[:3]).sum(), {})),
        LossError,
        "the gradient does not reach datum 3 of 4",
    ),
    "nan gradient": (
        lambda c: c.forward_backward_custom(PAIRS, lambda d, lp: (torch.sqrt(torch.cat(lp) * 0).sum(), {})),
        LossError,
        "the gradient is .* at datum 0, position 0",
    ),
    "metrics that are no dict": (
        lambda c: c.forward_backward_custom(PAIRS, lambda d, lp: (torch.cat(lp).sum(), 3)),
        LossError,
        "metrics: a int instead of a dict",
    ),
    "a metric of several numbers": (
        lambda c: c.forward_backward_custom(PAIRS, lambda d, lp: (torch.cat(lp).sum(), {"m": lp[0].detach()})),
        LossError,
        "metrics: 'm' is a Tensor",
    ),
    "loss that raises": (lambda c: c.forward_backward_custom(PAIRS, lambda d, lp: {}["gone"]), KeyError, "gone"),
    "odd pairs": (
        lambda c: c.forward_backward_custom(PAIRS[:3], pairwise_preference_loss),
        DataError,
        "got 3 datums, expected consecutive",
    ),
    "a learning rate of nan": (
        lambda c: c.optim_step(AdamParams(learning_rate=float("nan"))),
        ConfigError,
        "AdamParams.learning_rate is nan",
    ),
    "no such checkpoint": (lambda c: c.load_state("tinker://nobody/weights/none"), CheckpointError, "no checkpoint at"),
    "no path": (lambda c: c.load_state(None), CheckpointError, "None is not a checkpoint path"),
    "a name that leaves the folder": (lambda c: c.save_state("../x"), ConfigError, "checkpoint name '../x'"),
}


@pytest.mark.parametrize("case", UNUSABLE)
def test_unusable_input_changes_nothing(case: str, client: TrainingClient) -> None:
    call, kind, words = UNUSABLE[case]
    train(client, 1)
    client.forward_backward(sampled(7), "cross_entropy").result()  # a gradient that is waiting
    before = state(client)
    with pytest.raises(kind, match=words):
        call(client).result()
    assert_same(state(client), before)
    client.optim_step(ADAM).result()
    assert train(client, 1)[0] > 0
