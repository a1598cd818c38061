"""Every error this package raises on purpose.

One hierarchy, so that ``except MintLabError`` catches all of it; each class is also the standard-library kind a
caller would expect (``ValueError`` for bad values, ``RuntimeError`` for a failed operation). A message says what was
found, what was expected, where, and what to do. A new class is added only where a caller would want to catch it
separately; otherwise an existing one takes a better message.
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
    """The data given cannot be trained on.

    Attributes:
        index: position in the batch or data set of the offending item, where there is one.
        field: name of the offending field, where there is one.
    """

    def __init__(self, message: str, *, index: int | None = None, field: str | None = None) -> None:
        place = "" if index is None else f"datum {index}"
        if field is not None:
            place += f"{', ' if place else ''}field '{field}'"
        super().__init__(f"{place}: {message}" if place else message)
        self.index = index
        self.field = field


class ConfigError(MintLabError, ValueError):
    """A name or a setting is unknown, out of range or contradicts another."""


class LossError(MintLabError, RuntimeError):
    """A loss function could not be used: it raised, or returned something that is no finite scalar loss.

    Attributes:
        line: line number inside the loss's own source that failed, 1-based, where known.
        index: datum index that led there, where known.
    """

    def __init__(self, message: str, *, line: int | None = None, index: int | None = None) -> None:
        super().__init__(message)
        self.line = line
        self.index = index


class RewardError(MintLabError, RuntimeError):
    """A reward function raised, or returned something that is no finite number.

    Attributes:
        index: position of the example in its data set.
        prompt, response: what the function was to grade.
        reward: the :class:`mint_lab.data.rewards.Reward` in question.
    """

    def __init__(self, message: str, *, index: int, prompt: str, response: str, reward: Any) -> None:
        super().__init__(message)
        self.index = index
        self.prompt = prompt
        self.response = response
        self.reward = reward


class ModelError(MintLabError, RuntimeError):
    """A model could not be found, loaded, or used in the way asked for."""


class CheckpointError(MintLabError, RuntimeError):
    """A checkpoint is missing, damaged, or belongs to another model."""


class RunError(MintLabError, RuntimeError):
    """A run was asked for something its present state does not allow."""


def one_of(names: Sequence[str], given: str) -> str:
    """The tail of a message about an unknown name: the choices, and the nearest one if there is any.

    >>> one_of(["ppo", "cispo", "dro"], "dr0")
    "expected one of: cispo, dro, ppo; did you mean 'dro'?"
    """
    import difflib

    near = difflib.get_close_matches(given, names, n=1)
    return f"expected one of: {', '.join(sorted(names))}" + (f"; did you mean {near[0]!r}?" if near else "")
