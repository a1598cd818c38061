"""What a loss asks of every token: log-probabilities from a client, dLoss/dlogprob from autograd on this machine.

A loss sees the model only through its log-probabilities, so its gradient with respect to them needs no backward pass
through the model: they are computed without gradient, become leaf tensors, and the loss is differentiated there. The
client's weights, optimizer and accumulated gradient are never touched, and a hosted client serves as well as a local
one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..data.reference_logprobs import with_reference
from ..engine.step import read_result
from ..errors import DataError
from ..losses import LOSSES, LossSpec
from ..losses.decorator import spec_of
from ..usercode.guarded_loss import WatchedLoss

if TYPE_CHECKING:
    from ..types import Datum
    from .protocol import TrainingClient

__all__ = ["TokenGradients", "loss_spec", "token_gradients", "token_logprobs"]


@dataclass(frozen=True)
class TokenGradients:
    """A loss on some data, token by token.

    Attributes:
        data: the datums as the loss saw them, with reference log-probabilities where it wanted some.
        loss: its value, nats.
        logprobs: of the targets under the client's present weights, ``(N_i,)`` float32 each, nats.
        gradients: dLoss/dlogprob, ``(N_i,)`` float32 each; below 0 where a step makes the token likelier.
    """

    data: list[Datum]
    loss: float
    logprobs: list[torch.Tensor]
    gradients: list[torch.Tensor]


def loss_spec(loss: str | LossSpec | Callable[..., Any]) -> LossSpec:
    """The spec meant by a name, a spec, or a plain function (which is not registered).

    Raises:
        ConfigError: an unknown name, or a function that cannot be a loss.
    """
    if isinstance(loss, LossSpec):
        return loss
    return LOSSES[loss] if isinstance(loss, str) else spec_of(loss)


def token_logprobs(client: TrainingClient, data: Sequence[Datum]) -> list[torch.Tensor]:
    """Log-probabilities of ``target_tokens`` under the client's present weights, ``(N_i,)`` float32 each, nats.

    Raises:
        DataError: no datums, or some that are not fit for the model.
    """
    if not data:
        raise DataError("the list of datums is empty, expected at least one Datum")
    result = client.forward([_plain(i, datum) for i, datum in enumerate(data)], "cross_entropy").result()
    return [output["logprobs"].to_torch().float() for output in result.loss_fn_outputs]


def token_gradients(
    client: TrainingClient,
    data: Sequence[Datum],
    loss: str | LossSpec | Callable[..., Any],
    config: Mapping[str, float] | None = None,
    *,
    asked: Callable[[], bool] | None = None,
) -> TokenGradients:
    """Value and dLoss/dlogprob of ``loss`` on ``data``, as ``forward_backward`` would have them, without a trace.

    Reference log-probabilities that the loss needs and the datums lack are computed, where the client can.

    Args:
        loss: a name of ``LOSSES``, a ``LossSpec``, or a function in the custom contract.
        config: its settings.
        asked: whether to break the loss off once it has run for 2 s, as a run does; None lets it take its time.

    Raises:
        ConfigError: an unknown loss or setting, or reference log-probabilities are missing and the client has none.
        DataError: no datums, or some that are not fit for the model or for the loss.
        LossError: the loss is no finite scalar with a gradient, or it was broken off. What the loss raises itself
            passes through; with ``asked``, as the cause of a LossError.
    """
    spec = loss_spec(loss)
    fn = spec.bind(config) if asked is None else WatchedLoss(spec, spec.bind(config), asked)
    data = list(data)
    if "reference_logprobs" in spec.inputs and any("reference_logprobs" not in d.loss_fn_inputs for d in data):
        data = with_reference(data, client, cache=False)  # type: ignore[arg-type]  # refuses those that cannot
    logprobs = token_logprobs(client, data)
    leaves = [piece.clone().requires_grad_(True) for piece in logprobs]
    value, _ = read_result(fn(data, leaves))
    gradients = torch.autograd.grad(value, leaves, allow_unused=True)
    zeroed = [torch.zeros_like(leaf) if g is None else g for g, leaf in zip(gradients, leaves, strict=True)]
    return TokenGradients(data, float(value.detach()), logprobs, zeroed)


def _plain(index: int, datum: Datum) -> Datum:
    """``datum`` with what cross_entropy reads, and no more: built-in losses refuse fields that are not theirs."""
    from ..types import Datum as Made
    from ..types import TensorData

    if not isinstance(datum, Made) or "target_tokens" not in datum.loss_fn_inputs:
        raise DataError(f"found {type(datum).__name__}, expected a Datum with target_tokens", index=index)
    weights = datum.loss_fn_inputs.get("weights")
    if weights is None:
        weights = TensorData.from_numpy(np.ones(datum.model_input.length, dtype=np.float32))
    fields = {"target_tokens": datum.loss_fn_inputs["target_tokens"], "weights": weights}
    return Made(model_input=datum.model_input, loss_fn_inputs=fields)
