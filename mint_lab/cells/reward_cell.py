"""``%%reward NAME``: write a reward in a cell; running the cell registers it.

::

    %%reward right_and_short
    def right_and_short(response_text, example):
        right = response_text.strip() == example.answer.strip()
        return float(right) - 0.01 * len(response_text)

``example`` is what the prompt was made of. Running the cell again makes the next version, which every run that uses the
reward takes at its next rollout; a run that paused because this reward failed goes on.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..data.rewards import REWARDS, Reward, reward_of
from ..errors import ConfigError
from .cell_status import leave_refusal, mark
from .compile_cell import cell_source, compile_cell, shown_short

__all__ = ["RewardCell", "reward_cell", "run_reward_cell"]


@dataclass(frozen=True)
class RewardCell:
    """What running a ``%%reward`` cell gives: the registered reward."""

    reward: Reward

    def __repr__(self) -> str:
        return f"{self.reward.label} registered"

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        return {}, mark("reward", self.reward.name, self.reward)


def reward_cell(ipython: Any) -> Callable[[str, str], RewardCell]:
    """The magic for one shell."""

    def reward(line: str, cell: str) -> RewardCell:
        try:
            return run_reward_cell(line, cell, ipython.user_ns)
        except KeyboardInterrupt:
            leave_refusal(ipython.display_pub, "reward", line, REWARDS)
            raise
        except Exception as error:
            leave_refusal(ipython.display_pub, "reward", line, REWARDS)
            raise shown_short(error, "reward") from None

    reward.__doc__ = __doc__
    return reward


def run_reward_cell(line: str, cell: str, namespace: dict[str, Any]) -> RewardCell:
    """Compile and register; nothing is registered, nor ``namespace`` touched, when anything fails.

    Args:
        line: what follows ``%%reward``: the name.
        cell: the lines below.
        namespace: the notebook's, where the cell finds names, and leaves those that it defines.

    Raises:
        ConfigError: a bad name, a name of this package, or no function of two arguments in the cell.
        Exception: whatever running the cell raises.
    """
    name = _name(line)
    version = REWARDS.next_version(name)
    found = compile_cell(cell_source(line, cell, kind="reward"), name, version, namespace, "reward")
    reward = reward_of(found.fn, name, source=found.source)
    namespace.update(found.names)
    return RewardCell(REWARDS.register(reward))


def _name(line: str) -> str:
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        raise ConfigError(f"%%reward {line}: {error}") from None
    if len(words) != 1 or not words[0].isidentifier():
        found = f"{line.strip()!r}" if words else "nothing"
        raise ConfigError(f"%%reward needs one name, for example %%reward my_reward; found {found}")
    return words[0]
