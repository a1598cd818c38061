"""What the numbers of reinforcement learning mean, in plain words: the part of the advice that knows rollouts.

Each finding gives its number and what to try.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from ..record import StepRecord

__all__ = ["rl_findings"]

# A loss may report its own metrics under any name, also "reward". Only the trainer writes sampling_time, so a record
# with all of ROLLOUT_METRICS begins a rollout.
ROLLOUT_METRICS = {"sampling_time", "reward", "frac_reward_zero_std", "truncated_frac"}
CLIP_METRICS = {"clip_frac/low", "clip_frac/high"}
# Mean |log p - log q| of a sampler and a trainer with the same weights, nats a token.
MAX_MISMATCH = 0.02  # rounding to 16 bits stays below this
MAX_ROUNDING = 1e-4  # several times what 32-bit arithmetic causes
MIN_ESS = 0.3
MAX_K1 = 0.1  # nats a token
MAX_ZERO_STD_SHARE = 0.8  # of groups
RECENT_ROLLOUTS = 5  # over which a share is averaged
COLLAPSED_SHARE = 0.1  # entropy relative to its highest value in the window
MIN_ENTROPY_ROLLOUTS, MIN_FLAT_ROLLOUTS = 10, 30
COLLAPSED_ROLLOUTS = 3
# Consequences of a collapse; to report them too would hide the cause.
HIDDEN_BY_COLLAPSE = ("no spread", "truncated", "reward flat", "entropy")
MAX_TRUNCATED_SHARE = 0.1  # of responses
MIN_UNCLIPPED_STEPS = 3


def rl_findings(recent: Sequence[StepRecord]) -> dict[str, str]:
    """Return the findings about the last rollouts, by kind; a kind that does not apply is absent.

    Args:
        recent: The last records in order, at least one.
    """
    rollouts = [record for record in recent if record.metrics.keys() >= ROLLOUT_METRICS]
    checks = {
        "diverging": _collapsed(rollouts),
        "mismatch": _mismatch(rollouts),
        "never clipped": _never_clipped(recent),
        "ess": _ess(recent[-1]),
        "k1": _k1(recent[-1]),
        "no spread": _no_spread(rollouts),
        "entropy": _entropy(rollouts),
        "reward flat": _reward_flat(rollouts),
        "truncated": _truncated(rollouts),
        "unmasked": _unmasked(recent[-1]),
    }
    if checks["diverging"]:
        checks |= dict.fromkeys(HIDDEN_BY_COLLAPSE, "")
    return {kind: text for kind, text in checks.items() if text}


def _collapsed(rollouts: Sequence[StepRecord]) -> str:
    """Report a model that has lost what it could do: no reward any more, and so no learning signal."""
    last, before = rollouts[-COLLAPSED_ROLLOUTS:], rollouts[:-COLLAPSED_ROLLOUTS]
    if not before:
        return ""
    now, best = fmean(r.metrics["reward"] for r in last), max(r.metrics["reward"] for r in before)
    had_signal = any(r.metrics["frac_reward_zero_std"] <= MAX_ZERO_STD_SHARE for r in before)
    has_none = all(r.metrics["frac_reward_zero_std"] > MAX_ZERO_STD_SHARE for r in last)
    if not (had_signal and has_none and 0 <= now < COLLAPSED_SHARE * best):
        return ""
    return (
        f"The mean reward fell from {best:.2g} to {now:.2g} in the last {len(last)} rollouts, and almost no group has "
        "a reward to learn from: the run diverged, unless the reward was changed. Start again with a lower learning "
        "rate"
    )


def _mismatch(rollouts: Sequence[StepRecord]) -> str:
    record = next((r for r in reversed(rollouts) if "mismatch/mean" in r.metrics), None)
    if record is None:
        return ""
    mismatch = record.metrics["mismatch/mean"]
    cause, advice = _changed_sampler(record)
    if not mismatch > (MAX_ROUNDING if cause else MAX_MISMATCH):
        return ""
    return (
        f"Before the first update the ratio is not 1: the log-probabilities of sampler and trainer differ by "
        f"{mismatch:.2g} nats a token. {cause or 'Both have the same weights, so their arithmetic differs'}; {advice}"
    )


def _changed_sampler(record: StepRecord) -> tuple[str, str]:
    """Return why the sampler's distribution is not the model's, and what to do; an empty cause if it is."""
    temperature = record.settings.get("rollout/temperature", 1.0)
    top_p, top_k = record.settings.get("rollout/top_p", 1.0), record.settings.get("rollout/top_k", -1.0)
    if temperature != 1:
        return (
            f"The cause is temperature {temperature:g}, which changes the distribution that the sampler reports",
            "sample with temperature=1 if ratios matter",
        )
    if top_p < 1 or top_k != -1:
        names = [f"top_p={top_p:g}"] * (top_p < 1) + [f"top_k={top_k:g}"] * (top_k != -1)
        return (
            f"The cause is {', '.join(names)}: the sampler renormalises log-probabilities over the remaining tokens",
            "sample with top_p=1 and top_k=-1 if ratios matter",
        )
    return "", "compare the number formats of the two, or use a loss that corrects for the difference"


def _never_clipped(recent: Sequence[StepRecord]) -> str:
    last, updated = recent[-1], [r for r in recent if r.metrics.keys() >= CLIP_METRICS]
    settings = last.settings
    has_one_update = settings.get("rollout/updates_per_rollout") == 1 and settings.get("rollout/minibatches") == 1
    is_on_policy = has_one_update and settings.get("rollout/delay") == 0
    if not is_on_policy or len(updated) < MIN_UNCLIPPED_STEPS or _changed_sampler(last)[0]:
        return ""
    if any(r.metrics["clip_frac/low"] + r.metrics["clip_frac/high"] > 0 for r in updated):
        return ""
    return (
        f"For information: nothing was clipped in the last {len(updated)} updates, because each rollout has one "
        "update: ratios stay 1, and the loss acts as plain policy gradient. With updates_per_rollout=4 ratios change"
    )


def _ess(record: StepRecord) -> str:
    ess = record.metrics.get("ess", 1.0)
    if not ess < MIN_ESS:
        return ""
    return (
        f"The effective sample size is {ess:.0%} of the tokens: a few tokens with large ratios dominate the update. "
        "Use each rollout for fewer updates, shorten the delay, lower the learning rate, or clip (ppo, cispo)"
    )


def _k1(record: StepRecord) -> str:
    k1 = record.metrics.get("kl/k1", 0.0)
    if not abs(k1) > MAX_K1:
        return ""
    return (
        f"kl/k1 is {k1:.2g} nats a token: the trainer has moved far from the sampler. Use each rollout for fewer "
        "updates, shorten the delay, or lower the learning rate"
    )


def _no_spread(rollouts: Sequence[StepRecord]) -> str:
    last = rollouts[-RECENT_ROLLOUTS:]
    if not last:
        return ""
    share, reward = (fmean(r.metrics[name] for r in last) for name in ("frac_reward_zero_std", "reward"))
    if not share > MAX_ZERO_STD_SHARE:
        return ""
    return (
        f"In {share:.0%} of the groups all rewards are equal (mean reward {reward:.2f}), which gives no "
        "learning signal: use prompts that the model answers sometimes right and sometimes wrong, a larger "
        "group_size, or a finer reward"
    )


def _entropy(rollouts: Sequence[StepRecord]) -> str:
    values = [r.metrics["entropy_est"] for r in rollouts if "entropy_est" in r.metrics]
    if len(values) < MIN_ENTROPY_ROLLOUTS:
        return ""
    third = max(1, len(values) // 3)
    now, highest = fmean(values[-3:]), max(values[:-3])
    rewards = [r.metrics["reward"] for r in rollouts]
    has_learned = fmean(rewards[-third:]) > fmean(rewards[:third])
    if has_learned or not now < COLLAPSED_SHARE * highest:
        return ""
    return (
        f"Entropy collapse: entropy_est fell from {highest:.2g} to {now:.2g} nats a token while the reward did not "
        "rise; the model repeats itself and no longer explores. Lower the learning rate, or start again with a KL "
        "penalty towards the base model"
    )


def _reward_flat(rollouts: Sequence[StepRecord]) -> str:
    rewards = [r.metrics["reward"] for r in rollouts]
    if len(rewards) < MIN_FLAT_ROLLOUTS:
        return ""
    if fmean(r.metrics["frac_reward_zero_std"] for r in rollouts) > MAX_ZERO_STD_SHARE:
        return ""  # "no spread" says why
    half = len(rewards) // 2
    first, second = rewards[:half], rewards[-half:]
    rise = fmean(second) - fmean(first)
    error = math.sqrt((stdev(first) ** 2 + stdev(second) ** 2) / half)  # standard error of the difference of two means
    if rise > 2 * error or (rise > 0 and error == 0):
        return ""
    return (
        f"The reward is flat: {fmean(second):.3f} in the last {half} rollouts after {fmean(first):.3f} in the {half} "
        f"before, a difference within chance (2 x {error:.2g}). Raise the learning rate or the batch size, or check "
        "in the samples whether the reward distinguishes good responses from bad ones"
    )


def _truncated(rollouts: Sequence[StepRecord]) -> str:
    last = rollouts[-RECENT_ROLLOUTS:]
    share = fmean(r.metrics["truncated_frac"] for r in last) if last else 0.0
    if not share > MAX_TRUNCATED_SHARE:
        return ""
    limit = last[-1].settings.get("rollout/max_tokens")
    value = "" if limit is None else f" ({limit:g})"
    return (
        f"{share:.0%} of the responses were truncated at max_tokens{value} and graded unfinished: raise max_tokens, or "
        "reward short answers"
    )


def _unmasked(record: StepRecord) -> str:
    share = record.metrics.get("unmasked_prompt_frac", 0.0)
    if record.loss_name != "dro" or not share > 0:
        return ""
    return (
        f"dro runs without weights: {share:.0%} of its tokens belong to prompts. Its quadratic term does not vanish "
        "if the advantage is 0, so dro also changes their probabilities; set weights=True, which gives prompts weight 0"
    )
