"""Grade responses with a user-written reward, which can be cancelled."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ...data.rewards import Reward, grade
from ...errors import LossError, RewardError
from ...usercode.guarded_call import LossCancelled, call_guarded
from ...usercode.guarded_loss import CANCEL_AFTER_SECONDS

if TYPE_CHECKING:
    from .rl_job import Prompts
    from .rollout import SampledGroup

__all__ = ["grade_groups"]


def grade_groups(
    groups: Sequence[SampledGroup],
    prompts: Prompts,
    reward: Reward,
    *,
    cancel_requested: Callable[[], bool] = lambda: False,
    cancel_after: float = CANCEL_AFTER_SECONDS,
    known: dict[tuple[int, int], float] | None = None,
) -> list[list[float]]:
    """Return the reward of every response, one list per prompt.

    Args:
        groups: Prompts with their responses.
        prompts: The examples that the prompts were made of.
        reward: Grades one response.
        cancel_requested: Polled while the reward runs; True cancels a response that has taken longer than
            ``cancel_after``.
        known: Rewards by position of the group and of the response in it, which are not computed again; new ones are
            added one by one, so that a retry after an error continues where this call failed.
        cancel_after: Seconds per response (twice the longest response so far, if that is more).

    Raises:
        RewardError: If the reward raised, did not return a finite number, or was cancelled.
    """
    found = {} if known is None else known
    current, began, longest = (0, 0), time.perf_counter(), 0.0  # position of the group and of its response

    def grade_all() -> list[list[float]]:
        nonlocal current, began, longest
        rewards: list[list[float]] = []
        for group_index, group in enumerate(groups):
            row: list[float] = []
            for response_index, response in enumerate(group.responses):
                current, began = (group_index, response_index), time.perf_counter()
                if current not in found:
                    example = prompts.examples[group.index]
                    found[current] = grade(reward, response.text, example, index=group.index, prompt=group.text)
                    longest = max(longest, time.perf_counter() - began)
                row.append(found[current])
            rewards.append(row)
        return rewards

    def should_cancel(_: float) -> bool:
        return cancel_requested() and time.perf_counter() - began > max(cancel_after, 2 * longest)

    try:
        return call_guarded(grade_all, (), should_cancel=should_cancel)
    except LossError as error:  # grade() turns everything else into a RewardError
        group = groups[current[0]]
        response = group.responses[current[1]].text
        what = str(error)
        if isinstance(error, LossCancelled):
            what = f"it had not returned after {time.perf_counter() - began:.1f} s; {what}"
        raise RewardError(
            f"{reward.label}: {what}; on example {group.index}, "
            f"prompt {group.text[:120]!r}, response {response[:120]!r}"
            # An evaluation runs after the update.
            + (". No weight was changed" if prompts.what == "training" else ""),
            index=group.index,
            prompt=group.text,
            response=response,
            reward=reward,
        ) from error.__cause__
