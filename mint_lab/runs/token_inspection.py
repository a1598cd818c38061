"""A few examples token by token, for a page that asks: log-probabilities, and what the loss asks of each."""

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

__all__ = ["HeldOutTokens", "ask", "held_out_tokens"]

ITEMS = 4


@dataclass(frozen=True)
class HeldOutTokens:
    """A few items after ``step`` steps: the first held-out ones, or of reinforcement learning some of the last rollout.

    Attributes:
        loss: label of the loss.
        data: what the loss saw.
        logprobs: ``(N_i,)`` each, nats.
        gradients: dLoss/dlogprob of the loss on these items alone, ``(N_i,)`` each; None where it cannot be taken.
        pairs: whether the datums are consecutive (chosen, rejected); None when the loss does not say.
        tokenizer: the model's.
        titles: one a datum; None for their places.
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
    """Look at ``ITEMS`` items. Weights, optimizer and gradient of the client stay as they are.

    A loss that fails on them costs the gradients and nothing else: a run goes on or fails by its own steps. So does one
    that does not return, which is cancelled once ``cancel_requested()`` is true.

    Raises:
        DataError: nothing is held out, or no rollout has been drawn yet.
    """
    shown = trainer.shown(ITEMS, plan.loss)
    tokenizer = trainer.client.get_tokenizer()
    # What the data do not hold in pairs is shown one by one, whatever the loss pairs.
    pairs = (plan.loss.unit == "pair" or None) if shown.unit == 2 else False
    try:
        found = token_gradients(trainer.client, shown.data, plan.loss, plan.config, cancel_requested=cancel_requested)
        data, logprobs, gradients = found.data, found.logprobs, found.gradients
    except Exception:
        data, logprobs, gradients = shown.data, token_logprobs(trainer.client, shown.data), None
    return HeldOutTokens(step, plan.loss.label, data, logprobs, gradients, pairs, tokenizer, shown.titles)


def ask(loop: Loop, trainer: GuardedTrainer | None) -> Future[HeldOutTokens]:
    """Have :func:`held_out_tokens` called between two steps, or at once while the run rests.

    Raises:
        RunError: there is no trainer yet.
    """
    if trainer is None:
        raise RunError("there are no log-probabilities yet: the run has not started")

    def cancel_requested() -> bool:
        return trainer.cancel_requested() or loop.status == "stopped"

    return loop.call(lambda: held_out_tokens(trainer, loop.plan, len(loop.records), cancel_requested))
