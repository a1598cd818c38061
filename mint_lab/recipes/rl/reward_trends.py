"""What the results of many rollouts mean: a reward that rises, falls, is flat or at its ceiling, and entropy.

Everything here counts rollouts and not optimizer steps, because a rollout has several updates. The first rollouts are
those from which on one version of the reward graded with the same options (:func:`comparison_key`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from ..record import StepRecord

__all__ = ["MAX_ZERO_STD_SHARE", "RECENT_ROLLOUTS", "comparable", "comparison_key", "last_groups", "trend_findings"]

# Only the trainer writes sampling_time, so a record with all of these begins a rollout.
ROLLOUT_METRICS = {"sampling_time", "reward", "frac_reward_zero_std", "truncated_frac"}
USUAL_BATCH = 32.0  # prompts per rollout, if the record does not say
MIN_GROUPS = 32  # groups that a share is taken over: one prompt per rollout says little
RECENT_ROLLOUTS = 5  # over which a share is averaged, at least
MAX_ZERO_STD_SHARE = 0.8  # of groups
CEILING_SHARE, NEAR_CEILING_SHARE = 0.95, 0.9  # of the highest reward that the responses are known to get
SOLVED_ZERO_STD_SHARE = 0.5  # of groups, at the ceiling
COLLAPSED_SHARE = 0.1  # of the best reward, or of the highest entropy
COLLAPSED_ROLLOUTS = 3
HALF, FALL_SHARE = 0.5, 0.05  # of the best reward that is lost: a collapse, and a fall that is worth a word
MAX_BLOCK, MIN_BLOCK = 25, 3  # rollouts whose mean reward is compared with that of as many earlier ones
MIN_FALL_ROLLOUTS = 9
FALL_ERRORS = 5.0  # standard errors; more than the usual 2: the best of many blocks is taken, and after each rollout
MIN_ENTROPY_ROLLOUTS, MIN_FLAT_ROLLOUTS, MAX_COMPARED = 10, 30, 50
CHANCE_ERRORS, RISE_ERRORS = 2.0, 3.0  # standard errors: less is chance, more is a rise
FLAT_CHANGE, FLAT_ERRORS = 0.15, 4.0  # of the spread of rewards: a change that so many standard errors rule out
LENGTH_FACTOR, LENGTH_ROLLOUTS = 3.0, 5  # of the mean length of a response, over so many rollouts
CUT_SHARE = 0.1  # of responses
HIDDEN_BY_FALL = ("solved", "reward flat", "entropy", "hacking")


def comparison_key(record: StepRecord) -> Hashable:
    """Return what the rollouts have in common whose rewards compare; None for a record that begins no rollout."""
    if not record.metrics.keys() >= ROLLOUT_METRICS:
        return None
    return tuple(sorted((name, value) for name, value in record.settings.items() if name.startswith("rollout/")))


def comparable(recent: Sequence[StepRecord]) -> list[StepRecord]:
    """Return the records that begin a rollout and compare with the last one of these, in order."""
    keyed = [(record, key) for record in recent if (key := comparison_key(record)) is not None]
    start = next((k + 1 for k in reversed(range(len(keyed))) if keyed[k][1] != keyed[-1][1]), 0)
    return [record for record, _ in keyed[start:]]


def last_groups(rollouts: Sequence[StepRecord]) -> Sequence[StepRecord]:
    """Return the last rollouts, as many as a share of groups needs; none if there are not enough yet."""
    needed = _needed(rollouts)
    are_all_equal = all(r.metrics["frac_reward_zero_std"] == 1 for r in rollouts)  # then fewer groups say as much
    is_enough = len(rollouts) >= (math.ceil(needed / 4) if are_all_equal else needed)
    return rollouts[-max(RECENT_ROLLOUTS, needed) :] if is_enough else []


def _needed(rollouts: Sequence[StepRecord]) -> int:
    """Return the number of rollouts that have ``MIN_GROUPS`` groups together."""
    if not rollouts:
        return 1
    settings = rollouts[-1].settings
    return math.ceil(MIN_GROUPS / max(1.0, settings.get("batch_size", USUAL_BATCH) * settings.get("accumulate", 1.0)))


def trend_findings(rollouts: Sequence[StepRecord]) -> dict[str, str]:
    """Return the findings about reward and entropy over all rollouts, by kind; a kind may have an empty text.

    Args:
        rollouts: What :func:`comparable` returned: the first rollouts, an even sample of the middle, and the last.
    """
    fall = _fall(rollouts)
    found = {
        "diverging": _lost_signal(rollouts) or (fall.text if fall and fall.is_collapse else ""),
        "reward falls": fall.text if fall and not fall.is_collapse else "",
        "solved": _solved(rollouts),
        "entropy": _entropy(rollouts),
        "hacking": _hacking(rollouts),
        "reward flat": _reward_flat(rollouts),
    }
    if found["diverging"] or found["reward falls"]:
        found |= dict.fromkeys(HIDDEN_BY_FALL, "")
    if found["entropy"]:
        found["reward flat"] = ""  # it advises a higher learning rate, and entropy a lower one
    return found


def _values(rollouts: Sequence[StepRecord], name: str) -> list[float]:
    return [r.metrics[name] for r in rollouts if math.isfinite(r.metrics.get(name, math.nan))]


# -- the reward falls --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Fall:
    """A mean reward that is lower than that of earlier rollouts, by more than chance."""

    is_collapse: bool
    text: str


def _lost_signal(rollouts: Sequence[StepRecord]) -> str:
    """Report a model that has lost what it could do at once: no reward any more, and so no learning signal."""
    count = max(COLLAPSED_ROLLOUTS, _needed(rollouts))
    last, before = rollouts[-count:], rollouts[:-count]
    if not before:
        return ""
    width = _needed(rollouts)
    now, best = fmean(r.metrics["reward"] for r in last), _highest(_values(before, "reward"), width)
    had_signal = any(r.metrics["frac_reward_zero_std"] <= MAX_ZERO_STD_SHARE for r in before)
    has_none = all(r.metrics["frac_reward_zero_std"] > MAX_ZERO_STD_SHARE for r in last)
    if not (had_signal and has_none and 0 <= now < COLLAPSED_SHARE * best):
        return ""
    return (
        f"The reward collapsed. The mean reward fell from {best:.2g} to {now:.2g} in the last {len(last)} rollouts, "
        "and almost no group has a reward to learn from: the run diverged. Start again, or rewind, with a lower "
        "learning rate"
    )


def _fall(rollouts: Sequence[StepRecord]) -> _Fall | None:
    """Compare the last rollouts with the best as many before; the noise is that between one rollout and the next."""
    rewards = _values(rollouts, "reward")
    if len(rewards) < MIN_FALL_ROLLOUTS or len(rewards) < len(rollouts):
        return None
    size = max(MIN_BLOCK, min(MAX_BLOCK, len(rewards) // 5))
    starts = range((len(rewards) - size) % size, len(rewards) - size, size)
    best_start = max(starts, key=lambda k: fmean(rewards[k : k + size]))
    best, now = fmean(rewards[best_start : best_start + size]), fmean(rewards[-size:])
    fall = best - now
    spread = max([*_values(rollouts[best_start : best_start + size], "reward_std"), 0.0])
    scale = max(abs(best), spread)  # a reward that can be negative has a best one near 0
    if not (fall > FALL_ERRORS * _noise(rewards) * math.sqrt(2 / size) and fall > FALL_SHARE * scale):
        return None
    first, last = rollouts[best_start].step, rollouts[best_start + size - 1].step
    numbers = f"from {best:.2g} (steps {first} to {last}) to {now:.2g} in the last {size} rollouts"
    if fall > HALF * scale:
        return _Fall(
            True,
            f"The reward collapsed. The mean reward fell {numbers}: the run diverged. Rewind to a step before the "
            "fall, or start again, with a lower learning rate or fewer updates per rollout",
        )
    return _Fall(
        False,
        f"The reward is falling: the mean reward went {numbers}, more than chance explains. Lower the learning rate, "
        "or use each rollout for fewer updates",
    )


def _noise(values: Sequence[float]) -> float:
    """Return the standard deviation of one value about a slow trend: of the differences of neighbours, / sqrt(2)."""
    steps = [(b - a) ** 2 for a, b in itertools.pairwise(values)]
    return math.sqrt(fmean(steps) / 2)


def _highest(values: Sequence[float], width: int) -> float:
    """Return the highest mean of ``width`` values in a row; of all, if there are fewer."""
    width = min(width, len(values))
    return max(fmean(values[k : k + width]) for k in range(len(values) - width + 1))


# -- the reward does not fall ------------------------------------------------------------------------------------------


def _rise(values: Sequence[float], count: int) -> tuple[float, float]:
    """Return how much higher the last ``count`` values are than the first, and the standard error of that."""
    first, last = values[:count], values[-count:]
    return fmean(last) - fmean(first), math.sqrt((stdev(first) ** 2 + stdev(last) ** 2) / count)


def _has_risen(rewards: Sequence[float]) -> bool:
    """Return whether the reward of the last third is higher than that of the first, by more than chance."""
    count = min(MAX_COMPARED, len(rewards) // 3)
    if count < MIN_BLOCK:
        return False
    rise, error = _rise(rewards, count)
    return rise > RISE_ERRORS * error if error else rise > 0


def _ceiling(rollouts: Sequence[StepRecord]) -> float:
    """Return a reward that a response is known to have got: E[R^2] / E[R] is no more than the largest R, if R >= 0."""
    found = [0.0]
    for record in rollouts:
        mean = record.metrics["reward"]
        variance = record.metrics.get("reward_std", 0.0) ** 2
        found.append(mean + variance / mean if mean > 0 else mean)
    return max(found)


def _solved(rollouts: Sequence[StepRecord]) -> str:
    """Report prompts that the model answers as well as they can be answered, so that few groups have a signal."""
    last = last_groups(rollouts)
    if not last:
        return ""
    share, reward = (fmean(r.metrics[name] for r in last) for name in ("frac_reward_zero_std", "reward"))
    ceiling = _ceiling(rollouts)
    is_at_ceiling = reward >= CEILING_SHARE * ceiling and share > SOLVED_ZERO_STD_SHARE
    is_near = reward >= NEAR_CEILING_SHARE * ceiling and share > MAX_ZERO_STD_SHARE
    # A reward that was always the same may be the least as well as the largest one, unless it is about 1.
    if not (is_at_ceiling or is_near) or not (reward >= NEAR_CEILING_SHARE or _has_risen(_values(rollouts, "reward"))):
        return ""
    return (
        f"Solved: the mean reward is {reward:.2f}, and in {share:.0%} of the groups all rewards are equal, so there is "
        "little left to learn from these prompts. Stop here, or use harder prompts; if the samples are not as good as "
        "their reward says, use a finer reward"
    )


def _reward_flat(rollouts: Sequence[StepRecord]) -> str:
    rewards = [r.metrics["reward"] for r in rollouts]
    if len(rewards) < MIN_FLAT_ROLLOUTS or _solved(rollouts):
        return ""
    if fmean(r.metrics["frac_reward_zero_std"] for r in rollouts) > MAX_ZERO_STD_SHARE:
        return ""  # "no spread" says why
    count = min(MAX_COMPARED, len(rewards) // 2)
    rise, error = _rise(rewards, count)
    # Noise that could hide a change does not make a reward flat, so a change has to be ruled out.
    spread = max([*_values(rollouts, "reward_std")] or [abs(fmean(rewards[:count]))])
    if abs(rise) > CHANCE_ERRORS * error or abs(rise) + FLAT_ERRORS * error > FLAT_CHANGE * spread:
        return ""
    # Near its ceiling, a reward cannot rise, however much the model learns.
    last = rollouts[-count:]
    equal, now = fmean(r.metrics["frac_reward_zero_std"] for r in last), fmean(rewards[-count:])
    if equal > SOLVED_ZERO_STD_SHARE / 2 and now >= NEAR_CEILING_SHARE and now >= NEAR_CEILING_SHARE * _ceiling(last):
        return ""
    return (
        f"The reward is flat: {now:.3f} in the last {count} rollouts after {now - rise:.3f} in the first {count}, a "
        f"difference within chance (2 x {error:.2g}). Raise the learning rate or the batch size, or check in the "
        "samples whether the reward distinguishes good responses from bad ones"
    )


def _entropy(rollouts: Sequence[StepRecord]) -> str:
    values, width = _values(rollouts, "entropy_est"), _needed(rollouts)
    count = max(COLLAPSED_ROLLOUTS, width)
    if len(values) < max(MIN_ENTROPY_ROLLOUTS, 2 * count):
        return ""
    now, highest = fmean(values[-count:]), _highest(values[:-count], width)
    if _has_risen(_values(rollouts, "reward")) or not now < COLLAPSED_SHARE * highest:
        return ""
    return (
        f"Entropy collapse: entropy_est fell from {highest:.2g} to {now:.2g} nats a token while the reward did not "
        "rise; the model repeats itself and no longer explores. Lower the learning rate, or start again with a KL "
        "penalty towards the model at the start (grpo)"
    )


def _hacking(rollouts: Sequence[StepRecord]) -> str:
    """Report a reward that rises together with a length that is no longer that of the same kind of response."""
    lengths, rewards = _values(rollouts, "completion_length"), _values(rollouts, "reward")
    if len(lengths) < MIN_ENTROPY_ROLLOUTS or not _has_risen(rewards):
        return ""
    count = max(LENGTH_ROLLOUTS, min(_needed(rollouts), len(lengths) // 3))
    before, now = fmean(lengths[:count]), fmean(lengths[-count:])
    was_cut = fmean(_values(rollouts[:count], "truncated_frac")) > CUT_SHARE  # then it learned to end its responses
    if not (now > LENGTH_FACTOR * before or (now < before / LENGTH_FACTOR and not was_cut)):
        return ""
    return (
        f"The reward rose from {fmean(rewards[:count]):.2f} to {fmean(rewards[-count:]):.2f} while the mean length of "
        f"a response went from {before:.0f} to {now:.0f} tokens: the model may exploit the reward (reward hacking). "
        "Read the samples; if they are not better, change the reward, for example its dependence on length"
    )
