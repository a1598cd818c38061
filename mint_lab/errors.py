"""Every error that this package raises on purpose.

All errors are subclasses of :class:`MintLabError`, so one ``except`` clause catches them. Each class is also the
built-in kind that a caller would expect: ``ValueError`` for invalid values, ``RuntimeError`` for a failed operation. A
message says what was found, what was expected, where, and what to do. Add a class only if a caller would want to catch
it separately; otherwise improve the message of an existing one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DataError",
    "LossError",
    "MintLabError",
    "ModelError",
    "RewardError",
    "RunError",
    "one_of",
]


class MintLabError(Exception):
    """Base class of every error raised on purpose by ``mint_lab``."""


class DataError(MintLabError, ValueError):
    """The data cannot be trained on.

    Attributes:
        index: Position of the invalid item in the batch or data set, or None.
        field: Name of the invalid field, or None.
    """

    def __init__(self, message: str, *, index: int | None = None, field: str | None = None) -> None:
        place = "" if index is None else f"datum {index}"
        if field is not None:
            place += f"{', ' if place else ''}field '{field}'"
        super().__init__(f"{place}: {message}" if place else message)
        self.message = message
        self.index = index
        self.field = field

    def at(self, index: int) -> DataError:
        """Return this error with the position of its item."""
        return DataError(self.message, index=index, field=self.field)


class ConfigError(MintLabError, ValueError):
    """A name or a setting is unknown, out of range, or contradicts another setting."""


class LossError(MintLabError, RuntimeError):
    """A loss function failed: it raised, was cancelled, or did not return a finite scalar with a gradient.

    Attributes:
        line: Line of the loss's source that failed, 1-based, or None if unknown.
        index: Index of the datum that the loss was processing, or None if unknown.
    """

    def __init__(self, message: str, *, line: int | None = None, index: int | None = None) -> None:
        super().__init__(message)
        self.line = line
        self.index = index


class RewardError(MintLabError, RuntimeError):
    """A reward function failed: it raised, or did not return a finite number.

    Attributes:
        index: Position of the example in its data set.
        prompt: Text of the example's prompt.
        response: The response that was graded.
        reward: The :class:`mint_lab.data.rewards.Reward`.
    """

    def __init__(self, message: str, *, index: int, prompt: str, response: str, reward: Any) -> None:
        super().__init__(message)
        self.index = index
        self.prompt = prompt
        self.response = response
        self.reward = reward


class ModelError(MintLabError, RuntimeError):
    """A model cannot be found, loaded, or used as requested."""


class CheckpointError(MintLabError, RuntimeError):
    """A checkpoint is missing, damaged, or belongs to another model."""


class RunError(MintLabError, RuntimeError):
    """A run cannot do what was requested in its current state, or it failed."""


def one_of(names: Sequence[str], given: str) -> str:
    """Return the end of a message about an unknown name: the choices, and the closest one if one is similar.

    >>> one_of(["ppo", "cispo", "dro"], "dr0")
    "expected one of: cispo, dro, ppo; did you mean 'dro'?"
    """
    import difflib

    closest = difflib.get_close_matches(given, names, n=1)
    return f"expected one of: {', '.join(sorted(names))}" + (f"; did you mean {closest[0]!r}?" if closest else "")
