"""What a training client may take of the machine's memory."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import TYPE_CHECKING

from ..engine.memory import token_budget
from ..errors import ConfigError, ModelError

if TYPE_CHECKING:
    from ..engine.models import BaseModel

__all__ = ["MemoryLimits"]


@dataclass(frozen=True)
class MemoryLimits:
    """A token budget (None: not decided yet) and whether to compute layers again in the backward pass.

    Raises:
        ConfigError: one of them is not of its kind.
    """

    max_batch_tokens: int | None = None
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        tokens, again = self.max_batch_tokens, self.gradient_checkpointing
        if tokens is not None and (isinstance(tokens, bool) or not isinstance(tokens, Integral) or tokens < 1):
            raise ConfigError(f"max_batch_tokens is {tokens!r}, expected a whole number from 1 up, or None")
        if not isinstance(again, bool):
            raise ConfigError(f"gradient_checkpointing is {again!r}, expected True or False")

    def but(self, max_batch_tokens: int | None, gradient_checkpointing: bool | None) -> MemoryLimits:
        """The same with what is given (not None) in its place. Raises as the class."""
        return MemoryLimits(
            self.max_batch_tokens if max_batch_tokens is None else max_batch_tokens,
            self.gradient_checkpointing if gradient_checkpointing is None else gradient_checkpointing,
        )

    def on(self, base: BaseModel) -> MemoryLimits:
        """The limits with a budget for ``base``, from the memory that is free now where none was given.

        Raises:
            ModelError: the family knows no gradient checkpointing.
        """
        if self.gradient_checkpointing and not base.supports_gradient_checkpointing:
            raise ModelError(
                f"{base.name!r} ({base.config.model_type}) has no layers that can be computed again; use "
                "gradient_checkpointing=False and a smaller max_batch_tokens"
            )
        if self.max_batch_tokens is not None:
            return self
        budget = token_budget(base.cost, base.device, gradient_checkpointing=self.gradient_checkpointing)
        return MemoryLimits(budget, self.gradient_checkpointing)
