"""Rewards: functions ``(response_text, example) -> float`` that grade a response; ``REWARDS`` holds them by name.

A reward sees the text a model wrote and the example its prompt came from. Rows of a file, GSM8K's and the bundled
:class:`mint_lab.data.Problem` are all mappings, so that ``example["answer"]`` works for each of them; of a list of
other objects it sees these. :func:`grade` is the one place where a reward is called: what it raises, and what is no
finite number, becomes one error that names the example.
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

SHOWN = 120  # characters of a prompt or response in a message


@dataclass(frozen=True)
class Reward:
    """A reward function by name.

    Attributes:
        name: registry key.
        fn: ``(response_text, example) -> float``.
        summary: one sentence.
        version: counts up each time the name is registered again.
        source: source text of ``fn``, where it is known.
        builtin: True for those of this package, whose names cannot be taken.
    """

    name: str
    fn: RewardFunction
    summary: str = ""
    version: int = 1
    source: str = ""
    builtin: bool = False

    @property
    def label(self) -> str:
        """Name and version as charts show it, for example ``my_reward v3``."""
        return f"{self.name} v{self.version}"


def reward_of(fn: Callable[..., Any], name: str | None = None, *, source: str = "") -> Reward:
    """A :class:`Reward` for a function, not registered yet.

    Args:
        fn: ``(response_text, example) -> float``.
        name: registry key; by default the function's own name.
        source: source text, where it cannot be read off the function.

    Raises:
        ConfigError: ``fn`` cannot be called with two arguments, or its name is no identifier.
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
    except ValueError:  # a built-in function without a signature: calling it will tell
        pass
    summary = (inspect.getdoc(fn) or "").strip().split("\n", 1)[0] if hasattr(fn, "__name__") else ""
    return Reward(name, fn, summary, source=source)


@overload
def reward(fn: F, /) -> F: ...
@overload
def reward(*, name: str | None = None) -> Callable[[F], F]: ...
def reward(fn: Any = None, /, *, name: str | None = None) -> Any:
    """Register a function as a reward: ``@reward`` or ``@reward(name=...)``; the function itself comes back unchanged.

    It is called with the response's text and the example that the prompt came from, a mapping: ``example["answer"]``
    for the bundled tasks, GSM8K and rows of yours that have one; any other column likewise.

    Registering a name again makes the next version, which every run that uses it takes at its next rollout;
    one that paused because it failed goes on.

    Raises:
        ConfigError: as :func:`reward_of`, or the name is built in.
    """

    def register(function: F) -> F:
        REWARDS.register(reward_of(function, name))
        return function

    return register if fn is None else register(fn)


def grade(reward: Reward, response_text: str, example: Any, *, index: int, prompt: str) -> float:
    """What ``reward`` gives for a response.

    Args:
        index: position of the example in its data set; ``prompt``: its text. Both are for the message.

    Raises:
        RewardError: the function raised (its own error is the cause), or returned nan, infinity or no number.
    """
    place = (
        f"on example {index}, prompt {_short(prompt)}, response {_short(response_text)}; "
        "mend the reward and register it again"
    )
    about: dict[str, Any] = {"index": index, "prompt": prompt, "response": response_text, "reward": reward}
    try:
        value: Any = reward.fn(response_text, example)
    except Exception as error:
        raise RewardError(
            f"{reward.label}: {type(error).__name__}: {error}, {place}; {_fields(example)}", **about
        ) from error
    if not isinstance(value, Real):
        found = "None" if value is None else f"{_short(value)} ({type(value).__name__})"
        raise RewardError(f"{reward.label}: returned {found}, expected a number, {place}", **about)
    number = float(value)
    if not math.isfinite(number):
        raise RewardError(f"{reward.label}: returned {number}, expected a finite number, {place}", **about)
    return number


def exact_match(response_text: str, example: Any) -> float:
    """1.0 where ``example["answer"]`` is the first line of the response that is not blank, else 0.0.

    Spaces around either do not matter. Bundled tasks have a reward of their own, which lets a model add words after the
    answer: :func:`mint_lab.data.reward`.
    """
    line = next((s for s in response_text.splitlines() if s.strip()), "")
    return float(line.strip() == str(example["answer"]).strip())


def format_reward(pattern: str) -> RewardFunction:
    r"""A reward of 1.0 where the whole response, spaces around it aside, matches a regular expression, else 0.0.

    ``format_reward(r"<think>.*</think>\s*<answer>.*</answer>")``; a dot also stands for a line break.

    Raises:
        ConfigError: ``pattern`` is no regular expression.
    """
    try:
        wanted = re.compile(pattern, re.DOTALL)
    except re.error as error:
        raise ConfigError(f"format_reward({pattern!r}): no regular expression: {error}") from None

    def format_matches(response_text: str, example: Any) -> float:
        return float(wanted.fullmatch(response_text.strip()) is not None)

    return format_matches


def number_format(response_text: str, example: Any) -> float:
    """1.0 where the response is one whole number and nothing else, right or wrong; else 0.0."""
    return _NUMBER_ALONE(response_text, example)


def gsm8k_reward(response_text: str, example: Any) -> float:
    """1.0 where the number after the last ``####`` of the response is that of the example's ``answer``, else 0.0.

    Commas, a dollar sign and a closing dot do not matter. GSM8K (Cobbe et al. 2021, arXiv:2110.14168).
    """
    wanted = final_number(str(example["answer"]))
    return float(wanted is not None and final_number(response_text) == wanted)


def final_number(text: str) -> float | None:
    """The number after the last ``####`` of ``text``; None where there is none."""
    found = _FINAL.findall(text)
    return float(found[-1].replace(",", "")) if found else None


def _fields(example: Any) -> str:
    """What a reward may read of an example, for a message."""
    if not isinstance(example, Mapping):
        return f"the example is of type {type(example).__name__}, not a row with named fields"
    names = ", ".join(f"example[{name!r}]" for name in cast("Mapping[str, Any]", example))
    return f"there is {names or 'nothing in the example'}"


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else repr(value)
    return repr(text if len(text) <= SHOWN else text[: SHOWN // 2] + " ... " + text[-SHOWN // 2 :])


_FINAL = re.compile(r"####\s*\$?\s*(-?[0-9][0-9,]*(?:\.[0-9]+)?)")
_NUMBER_ALONE = format_reward(r"-?[0-9]+")

REWARDS: Registry[Reward] = Registry("reward")
"""Rewards by name. A run looks its reward up each time it grades: a new version counts from the next rollout on."""
for _name, _fn in (("exact_match", exact_match), ("number_format", number_format), ("gsm8k", gsm8k_reward)):
    REWARDS.register(replace(reward_of(_fn, _name), builtin=True))
