"""Calls rewards, which a person wrote, so that one that does not return can be broken off."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ...data.rewards import Reward, grade
from ...errors import LossError, RewardError
from ...usercode.guarded_call import LossInterrupted, call_guarded

if TYPE_CHECKING:
    from .recipe import Prompts
    from .rollout import Drawn

__all__ = ["graded"]


def graded(
    drawn: Sequence[Drawn],
    prompts: Prompts,
    reward: Reward,
    *,
    asked: Callable[[], bool] = lambda: False,
    patience: float = 2.0,
) -> list[list[float]]:
    """The reward of every response.

    Args:
        asked: whether to break the reward off once it has taken longer than its patience over one response.
        patience: seconds; twice its longest response so far where that is more.

    Raises:
        RewardError: the reward raised, gave no finite number, or was broken off.
    """
    at, began, longest = (0, 0), time.perf_counter(), 0.0

    def all_of_them() -> list[list[float]]:
        nonlocal at, began, longest
        rewards: list[list[float]] = []
        for place, one in enumerate(drawn):
            row: list[float] = []
            for number, completion in enumerate(one.completions):
                at, began = (place, number), time.perf_counter()
                example = prompts.examples[one.index]
                row.append(grade(reward, completion.text, example, index=one.index, prompt=one.text))
                longest = max(longest, time.perf_counter() - began)
            rewards.append(row)
        return rewards

    def give_up(_: float) -> bool:
        return asked() and time.perf_counter() - began > max(patience, 2 * longest)

    try:
        return call_guarded(all_of_them, (), give_up=give_up)
    except LossError as error:  # grade() makes RewardErrors of all else
        one = drawn[at[0]]
        response = one.completions[at[1]].text
        what = str(error)
        if isinstance(error, LossInterrupted):
            what = f"it had not returned after {time.perf_counter() - began:.1f} s; {what}"
        raise RewardError(
            f"{reward.label}: {what}; on example {one.index}, "
            f"prompt {one.text[:120]!r}, response {response[:120]!r}"
            # An evaluation comes after the update.
            + (". No weight was changed" if prompts.what == "training" else ""),
            index=one.index,
            prompt=one.text,
            response=response,
            reward=reward,
        ) from error.__cause__
