"""``%%reward NAME``: write a reward in a cell; running the cell registers it.

::

    %%reward right_and_short
    def right_and_short(response_text, example):
        right = response_text.strip() == example.answer.strip()
        return float(right) - 0.01 * len(response_text)

``example`` is the row that the prompt was made of. Running the cell again makes the next version, which every run that
uses the reward applies at its next rollout; a run that paused because this reward failed resumes.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..data.rewards import REWARDS, Reward, reward_of
from ..errors import ConfigError
from ..usercode.compile_cell import cell_source, compile_cell, shown_short
from .cell_status import cell_status, publish_refusal

__all__ = ["RewardCell", "reward_cell", "run_reward_cell"]


@dataclass(frozen=True)
class RewardCell:
    """The result of running a ``%%reward`` cell: the registered reward."""

    reward: Reward

    def __repr__(self) -> str:
        return f"{self.reward.label} registered"

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, Any]]:
        return {}, cell_status("reward", self.reward.name, self.reward)


def reward_cell(ipython: Any) -> Callable[[str, str], RewardCell]:
    """Return the magic for one shell."""

    def reward(line: str, cell: str) -> RewardCell:
        try:
            return run_reward_cell(line, cell, ipython.user_ns)
        except KeyboardInterrupt:
            publish_refusal(ipython.display_pub, "reward", line, REWARDS)
            raise
        except Exception as error:
            publish_refusal(ipython.display_pub, "reward", line, REWARDS)
            raise shown_short(error, "reward") from None

    reward.__doc__ = __doc__
    return reward


def run_reward_cell(line: str, cell: str, namespace: dict[str, Any]) -> RewardCell:
    """Compile and register a reward; if anything fails, nothing is registered and ``namespace`` is unchanged.

    Args:
        line: What follows ``%%reward``: the name.
        cell: The lines below it.
        namespace: The notebook's names: the cell looks names up there, and its own are added once it is registered.

    Raises:
        ConfigError: If the name is not valid or bundled, or the cell defines no function of two arguments.
        Exception: Whatever running the cell raises.
    """
    name = _name(line)
    version = REWARDS.next_version(name)
    compiled = compile_cell(cell_source(line, cell, kind="reward"), name, version, namespace, "reward")
    reward = reward_of(compiled.fn, name, source=compiled.source)
    namespace.update(compiled.names)
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
