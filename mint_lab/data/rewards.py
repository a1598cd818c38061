"""Rewards: functions ``(response_text, example) -> float`` that grade a response. ``REWARDS`` holds them by name.

A reward receives the text that the model wrote and the example that the prompt came from. Rows of a file, rows of GSM8K
and the bundled :class:`mint_lab.data.Problem` are all mappings, so ``example["answer"]`` works for each of them; if the
data are a list of other objects, a reward receives these objects. Only :func:`grade` calls a reward: it turns an
exception, or a value that is not a finite number, into one error that names the example.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, TypeAlias, TypeVar, cast, overload

from ..errors import ConfigError, RewardError
from ..registry import Registry

__all__ = [
    "REWARDS",
    "Reward",
    "RewardFunction",
    "exact_match",
    "format_reward",
    "grade",
    "gsm8k_reward",
    "reward",
    "reward_of",
]

RewardFunction: TypeAlias = Callable[[str, Any], float]
F = TypeVar("F", bound=Callable[..., Any])

MESSAGE_CHARS = 120  # of a prompt or response in a message


@dataclass(frozen=True)
class Reward:
    """A named reward function.

    Attributes:
        name: Key in ``REWARDS``.
        fn: ``(response_text, example) -> float``.
        summary: One sentence.
        version: Increases by 1 each time the name is registered again.
        source: Source text of ``fn``, or "" if unknown.
        builtin: True for rewards of this package; their names cannot be registered again.
    """

    name: str
    fn: RewardFunction
    summary: str = ""
    version: int = 1
    source: str = ""
    builtin: bool = False

    @property
    def label(self) -> str:
        """Name and version as displayed in charts, for example ``my_reward v3``."""
        return f"{self.name} v{self.version}"


def reward_of(fn: Callable[..., Any], name: str | None = None, *, source: str = "") -> Reward:
    """Return a :class:`Reward` for a function without registering it.

    Args:
        fn: ``(response_text, example) -> float``.
        name: Key in ``REWARDS``; by default the function's name.
        source: Source text, if ``inspect`` cannot find it.

    Raises:
        ConfigError: If ``fn`` cannot be called with two arguments, or its name is not an identifier.
    """
    if not callable(fn):
        raise ConfigError(f"a reward is {fn!r}, expected a name or a function (response_text, example)")
    name = name or re.sub(r"\W", "", getattr(fn, "__name__", "")) or "custom_reward"
    name = "custom_reward" if name == "lambda" else name
    if not name.isidentifier():
        raise ConfigError(f"{name!r} cannot name a reward; use letters, digits and underscores, not a digit first")
    try:
        inspect.signature(fn).bind("", None)
    except TypeError:
        raise ConfigError(
            f"{name}{inspect.signature(fn)}: cannot be called with two arguments, expected "
            f"def {name}(response_text, example): ... that returns a number"
        ) from None
    except ValueError:  # a C function without a signature; a wrong one fails when it is called
        pass
    summary = (inspect.getdoc(fn) or "").strip().split("\n", 1)[0] if hasattr(fn, "__name__") else ""
    return Reward(name, fn, summary, source=source)


@overload
def reward(fn: F, /) -> F: ...
@overload
def reward(*, name: str | None = None) -> Callable[[F], F]: ...
def reward(fn: Any = None, /, *, name: str | None = None) -> Any:
    """Register a function as a reward, with ``@reward`` or ``@reward(name=...)``. The function is returned unchanged.

    It is called with the text of a response and the example that the prompt came from. The example is a mapping, so
    ``example["answer"]`` works for the bundled tasks, for GSM8K and for your own rows with that column; every other
    column works likewise.

    Registering a name again creates its next version. Every run that uses the reward grades with the new version from
    the next rollout on; a run that paused because the reward failed resumes.

    Args:
        fn: ``(response_text, example) -> float``.
        name: Key in ``REWARDS``; by default the function's name.

    Raises:
        ConfigError: As :func:`reward_of`, or if the name is a built-in reward's.
    """

    def register(function: F) -> F:
        REWARDS.register(reward_of(function, name))
        return function

    return register if fn is None else register(fn)


def grade(reward: Reward, response_text: str, example: Any, *, index: int, prompt: str) -> float:
    """Return the reward of a response.

    Args:
        reward: The reward.
        response_text: What the model wrote.
        example: The example that the prompt came from.
        index: Position of the example in its data set, for the error.
        prompt: Text of the prompt, for the error.

    Raises:
        RewardError: If the function raises (its exception is the cause) or does not return a finite number.
    """
    place = (
        f"on example {index}, prompt {_short(prompt)}, response {_short(response_text)}; "
        "fix the reward and register it again"
    )
    details: dict[str, Any] = {"index": index, "prompt": prompt, "response": response_text, "reward": reward}
    try:
        value: Any = reward.fn(response_text, example)
    except Exception as error:
        raise RewardError(
            f"{reward.label}: {type(error).__name__}: {error}, {place}; {_fields(example)}", **details
        ) from error
    if not isinstance(value, Real):
        returned = "None" if value is None else f"{_short(value)} ({type(value).__name__})"
        raise RewardError(f"{reward.label}: returned {returned}, expected a number, {place}", **details)
    number = float(value)
    if not math.isfinite(number):
        raise RewardError(f"{reward.label}: returned {number}, expected a finite number, {place}", **details)
    return number


def exact_match(response_text: str, example: Any) -> float:
    """Return 1.0 if the first line of the response that is not blank equals ``example["answer"]``, else 0.0.

    Leading and trailing spaces are ignored. The bundled tasks use another reward, :func:`mint_lab.data.reward`, which
    ignores words after the answer.
    """
    line = next((s for s in response_text.splitlines() if s.strip()), "")
    return float(line.strip() == str(example["answer"]).strip())


def format_reward(pattern: str) -> RewardFunction:
    r"""Return a reward that is 1.0 if the whole response matches a regular expression, else 0.0.

    Example: ``format_reward(r"<think>.*</think>\s*<answer>.*</answer>")``.

    Args:
        pattern: Regular expression; a dot also matches a line break. Spaces around the response are ignored.

    Raises:
        ConfigError: If ``pattern`` is not a regular expression.
    """
    try:
        expression = re.compile(pattern, re.DOTALL)
    except re.error as error:
        raise ConfigError(f"format_reward({pattern!r}): not a regular expression: {error}") from None

    def format_matches(response_text: str, example: Any) -> float:
        return float(expression.fullmatch(response_text.strip()) is not None)

    return format_matches


def number_format(response_text: str, example: Any) -> float:
    """Return 1.0 if the response is a single whole number, right or wrong, and nothing else; else 0.0."""
    return _NUMBER_ALONE(response_text, example)


def gsm8k_reward(response_text: str, example: Any) -> float:
    """Return 1.0 if the number after the last ``####`` of the response equals that of ``example["answer"]``, else 0.0.

    Commas, a dollar sign and a trailing period are ignored. GSM8K (Cobbe et al. 2021, arXiv:2110.14168).
    """
    answer = final_number(str(example["answer"]))
    return float(answer is not None and final_number(response_text) == answer)


def final_number(text: str) -> float | None:
    """Return the number after the last ``####`` of ``text``, or None if there is none."""
    numbers = _FINAL.findall(text)
    return float(numbers[-1].replace(",", "")) if numbers else None


def _fields(example: Any) -> str:
    """Say which fields of an example a reward can read, for a message."""
    if not isinstance(example, Mapping):
        return f"the example is of type {type(example).__name__}, not a row with named fields"
    names = ", ".join(f"example[{name!r}]" for name in cast("Mapping[str, Any]", example))
    return f"available: {names}" if names else "the example has no fields"


def _short(value: Any) -> str:
    """Return a quoted text for a message, with the middle of a long one left out."""
    text = value if isinstance(value, str) else repr(value)
    return repr(
        text if len(text) <= MESSAGE_CHARS else text[: MESSAGE_CHARS // 2] + " ... " + text[-MESSAGE_CHARS // 2 :]
    )


_FINAL = re.compile(r"####\s*\$?\s*(-?[0-9][0-9,]*(?:\.[0-9]+)?)")
_NUMBER_ALONE = format_reward(r"-?[0-9]+")

REWARDS: Registry[Reward] = Registry("reward")
"""Rewards by name. A run looks up its reward each time it grades, so a new version applies from the next rollout on."""
for _name, _fn in (("exact_match", exact_match), ("number_format", number_format), ("gsm8k", gsm8k_reward)):
    REWARDS.register(replace(reward_of(_fn, _name), builtin=True))
