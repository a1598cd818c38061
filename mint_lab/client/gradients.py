"""The gradient of a loss at every token: log-probabilities from a client, dLoss/dlogprob from autograd here.

A loss sees the model only through its log-probabilities, so its gradient with respect to them needs no backward pass
through the model. The log-probabilities are computed without gradient and become leaf tensors, and the loss is
differentiated with respect to these. The client's weights, optimizer and accumulated gradient do not change. Any
client will do, local or hosted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..data.reference_logprobs import with_reference
from ..errors import DataError
from ..losses import LOSSES, LossSpec
from ..losses.decorator import spec_of
from ..usercode.guarded_loss import GuardedLoss
from ..usercode.result import evaluate_loss

if TYPE_CHECKING:
    from ..types import Datum
    from .protocol import TrainingClientProtocol

__all__ = ["TokenGradients", "loss_spec", "token_gradients", "token_logprobs"]


@dataclass(frozen=True)
class TokenGradients:
    """A loss on some data, token by token.

    Attributes:
        data: The datums as the loss received them, with reference log-probabilities if it needs them.
        loss: The value of the loss, nats.
        logprobs: Log-probabilities of the targets under the client's current weights, ``(N_i,)`` float32 for each
            datum, nats.
        gradients: dLoss/dlogprob, ``(N_i,)`` float32 for each datum; negative if a step makes the token more likely.
    """

    data: list[Datum]
    loss: float
    logprobs: list[torch.Tensor]
    gradients: list[torch.Tensor]


def loss_spec(loss: str | LossSpec | Callable[..., Any]) -> LossSpec:
    """Return the spec of a name, of a spec itself, or of a plain function, which is not registered.

    Raises:
        ConfigError: If the name is unknown, or the function cannot be a loss.
    """
    if isinstance(loss, LossSpec):
        return loss
    return LOSSES[loss] if isinstance(loss, str) else spec_of(loss)


def token_logprobs(client: TrainingClientProtocol, data: Sequence[Datum]) -> list[torch.Tensor]:
    """Compute the log-probabilities of ``target_tokens`` under the client's current weights.

    Returns:
        ``(N_i,)`` float32 for each datum, nats.

    Raises:
        DataError: If there are no datums, or the model cannot process one.
    """
    if not data:
        raise DataError("the list of datums is empty, expected at least one Datum")
    result = client.forward([_for_cross_entropy(i, datum) for i, datum in enumerate(data)], "cross_entropy").result()
    return [output["logprobs"].to_torch().float() for output in result.loss_fn_outputs]


def token_gradients(
    client: TrainingClientProtocol,
    data: Sequence[Datum],
    loss: str | LossSpec | Callable[..., Any],
    config: Mapping[str, float] | None = None,
    *,
    cancel_requested: Callable[[], bool] | None = None,
) -> TokenGradients:
    """Compute ``loss`` and dLoss/dlogprob on ``data``, as ``forward_backward`` would, without changing the client.

    Reference log-probabilities that the loss needs and the datums lack are computed, if the client can.

    Args:
        client: Any training client; its weights, optimizer and accumulated gradient stay as they are.
        data: The datums.
        loss: A name of ``LOSSES``, a ``LossSpec``, or a function in the custom call form.
        config: The settings of the loss.
        cancel_requested: Polled while the loss runs; if True after 2 s, the call is cancelled, as in a run. None: the
            call cannot be cancelled.

    Raises:
        ConfigError: If the loss or a setting is unknown, or if reference log-probabilities are missing and the client
            computes none.
        DataError: If there are no datums, or if a datum does not fit the model or the loss.
        LossError: If the loss is not a finite scalar with a finite gradient for every datum, edited its inputs, or was
            cancelled. The loss's own exceptions propagate unchanged or, with ``cancel_requested``, as the cause of a
            ``LossError``.
    """
    spec = loss_spec(loss)
    fn = spec.bind(config)
    data = list(data)
    if "reference_logprobs" in spec.inputs and any("reference_logprobs" not in d.loss_fn_inputs for d in data):
        data = with_reference(data, client, cache=False)  # type: ignore[arg-type]  # it refuses other clients
    logprobs = token_logprobs(client, data)
    leaves = [piece.clone().requires_grad_(True) for piece in logprobs]
    if cancel_requested is None:
        result = evaluate_loss(fn, data, leaves)
    else:
        result = GuardedLoss(spec, fn, cancel_requested).evaluate(data, leaves)
    return TokenGradients(data, result.value, logprobs, result.gradient)


def _for_cross_entropy(index: int, datum: Datum) -> Datum:
    """Return ``datum`` with only the fields that cross_entropy reads: built-in losses reject other fields."""
    from ..types import Datum as DatumClass
    from ..types import TensorData

    if not isinstance(datum, DatumClass) or "target_tokens" not in datum.loss_fn_inputs:
        raise DataError(f"found {type(datum).__name__}, expected a Datum with target_tokens", index=index)
    weights = datum.loss_fn_inputs.get("weights")
    if weights is None:
        weights = TensorData.from_numpy(np.ones(datum.model_input.length, dtype=np.float32))
    fields = {"target_tokens": datum.loss_fn_inputs["target_tokens"], "weights": weights}
    return DatumClass(model_input=datum.model_input, loss_fn_inputs=fields)
