"""A few examples token by token: log-probabilities, and the gradient of the loss with respect to each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..client.gradients import token_gradients, token_logprobs
from ..errors import RunError

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    import torch

    from ..recipes.guarded_trainer import GuardedTrainer
    from ..recipes.plan import StepPlan
    from ..types import Datum
    from .loop import Loop

__all__ = ["HeldOutTokens", "held_out_tokens", "request_tokens"]

ITEMS = 4


@dataclass(frozen=True)
class HeldOutTokens:
    """A few items after ``step`` steps: the first held-out ones; in reinforcement learning, some of the last rollout.

    Attributes:
        step: Steps that were complete.
        loss: Label of the loss.
        data: The datums as the loss saw them.
        logprobs: Log-probabilities of the targets, ``(N_i,)`` each, nats.
        gradients: dLoss/dlogprob of the loss on these items alone, ``(N_i,)`` each; None if it cannot be computed.
        pairs: Whether consecutive datums are (chosen, rejected); None if the loss does not say.
        tokenizer: The model's.
        titles: One per datum; None for their positions.
    """

    step: int
    loss: str
    data: list[Datum]
    logprobs: list[torch.Tensor]
    gradients: list[torch.Tensor] | None
    pairs: bool | None
    tokenizer: Any
    titles: list[str] | None = None


def held_out_tokens(
    trainer: GuardedTrainer, plan: StepPlan, step: int, cancel_requested: Callable[[], bool] = lambda: False
) -> HeldOutTokens:
    """Compute log-probabilities and gradients of ``ITEMS`` items, without changing the client's state.

    If the loss fails on these items, or is cancelled, only the gradients are missing: it does not pause the run.

    Args:
        trainer: Of the run.
        plan: Loss and settings.
        step: Steps that are complete.
        cancel_requested: Polled while the loss runs; if True after 2 s, the call is cancelled.

    Raises:
        DataError: If nothing is held out, or no rollout has been drawn yet.
    """
    shown = trainer.shown(ITEMS, plan.loss)
    tokenizer = trainer.client.get_tokenizer()
    # Data without pairs are displayed one by one, even if the loss pairs them.
    pairs = (plan.loss.unit == "pair" or None) if shown.unit == 2 else False
    try:
        result = token_gradients(trainer.client, shown.data, plan.loss, plan.config, cancel_requested=cancel_requested)
        data, logprobs, gradients = result.data, result.logprobs, result.gradients
    except Exception:
        data, logprobs, gradients = shown.data, token_logprobs(trainer.client, shown.data), None
    return HeldOutTokens(step, plan.loss.label, data, logprobs, gradients, pairs, tokenizer, shown.titles)


def request_tokens(loop: Loop, trainer: GuardedTrainer | None) -> Future[HeldOutTokens]:
    """Call :func:`held_out_tokens` between two steps; at once if the run is not running.

    Raises:
        RunError: If there is no trainer yet.
    """
    if trainer is None:
        raise RunError("there are no log-probabilities yet: the run has not started")

    def compute() -> HeldOutTokens:
        plan = loop.plan

        def cancel_requested() -> bool:
            return loop.is_halting or loop.status == "stopped" or loop.plan.loss is not plan.loss

        return held_out_tokens(trainer, plan, len(loop.records), cancel_requested)

    return loop.call(compute)
