"""Limits on the memory that a training client takes."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING

from ..engine.memory import needs_gradient_checkpointing, token_budget
from ..errors import ConfigError, ModelError

if TYPE_CHECKING:
    from ..engine.models import BaseModel

__all__ = ["MemoryLimits"]


@dataclass(frozen=True)
class MemoryLimits:
    """Limits of a training client.

    Attributes:
        max_batch_tokens: Token budget of a micro-batch; None if it has not been chosen yet.
        gradient_checkpointing: Whether to recompute layers in the backward pass; None if it has not been chosen yet.

    Raises:
        ConfigError: If a limit has the wrong type or is out of range.
    """

    max_batch_tokens: int | None = None
    gradient_checkpointing: bool | None = None

    def __post_init__(self) -> None:
        tokens, checkpointing = self.max_batch_tokens, self.gradient_checkpointing
        if tokens is not None and (isinstance(tokens, bool) or not isinstance(tokens, Integral) or tokens < 1):
            raise ConfigError(f"max_batch_tokens is {tokens!r}, expected a whole number of at least 1, or None")
        if checkpointing is not None and not isinstance(checkpointing, bool):
            raise ConfigError(f"gradient_checkpointing is {checkpointing!r}, expected True, False, or None")

    def override(self, max_batch_tokens: int | None, gradient_checkpointing: bool | None) -> MemoryLimits:
        """Return these limits with the given ones, those that are not None, in their place.

        Raises:
            ConfigError: If a limit has the wrong type or is out of range.
        """
        return MemoryLimits(
            self.max_batch_tokens if max_batch_tokens is None else max_batch_tokens,
            self.gradient_checkpointing if gradient_checkpointing is None else gradient_checkpointing,
        )

    def resolve(self, base: BaseModel) -> MemoryLimits:
        """Return these limits with those for ``base`` that were not chosen, from the memory that is free now.

        Raises:
            ModelError: If gradient checkpointing is requested and the model family does not support it.
        """
        if self.gradient_checkpointing and not base.supports_gradient_checkpointing:
            raise ModelError(
                f"{base.name!r} ({base.config.model_type}) does not support gradient checkpointing; use "
                "gradient_checkpointing=False and a smaller max_batch_tokens"
            )
        checkpointing = self.gradient_checkpointing
        if checkpointing is None:  # a budget that was chosen decides the memory by itself
            is_short = self.max_batch_tokens is None and needs_gradient_checkpointing(base.cost, base.device)
            checkpointing = is_short and base.supports_gradient_checkpointing
        budget = self.max_batch_tokens
        if budget is None:
            budget = token_budget(base.cost, base.device, gradient_checkpointing=checkpointing)
        return MemoryLimits(budget, checkpointing)
