"""What the numbers of reinforcement learning mean, in plain words: the part of ``diagnosis`` that knows of rollouts.

Each finding has the number that set it off and what to try.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from ..record import StepRecord

__all__ = ["rl_findings"]

# A loss may report metrics of its own under any name, "reward" too. What the trainer alone writes is sampling_time; the
# others are what is read of a rollout, or of a clip.
ROLLOUT = {"sampling_time", "reward", "frac_reward_zero_std", "truncated_frac"}
CLIP = {"clip_frac/low", "clip_frac/high"}
# Mean |log p - log q| of a sampler and a trainer with the same weights: rounding to 16 bits stays below it.
MISMATCH = 0.02
ROUNDING = 1e-4  # what 32-bit arithmetic leaves of it, several times over
ESS = 0.3
K1 = 0.1  # nats a token
NO_SPREAD = 0.8  # share of groups
RECENT = 5  # rollouts that a share is taken over
COLLAPSED = 0.1  # entropy against its highest in the window
ENTROPY_ROLLOUTS, FLAT_ROLLOUTS = 10, 30
TRUNCATED = 0.1  # share of responses
UNCLIPPED_STEPS = 3  # before it is worth a word


def rl_findings(recent: Sequence[StepRecord]) -> dict[str, str]:
    """Findings by kind, as :func:`mint_lab.runs.advice.findings`; none for a run of another recipe.

    Args:
        recent: the last records in order, at least one.
    """
    if not any("rollout/group_size" in record.settings for record in recent):
        return {}
    rollouts = [record for record in recent if record.metrics.keys() >= ROLLOUT]
    return {
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


def _mismatch(rollouts: Sequence[StepRecord]) -> str:
    record = next((r for r in reversed(rollouts) if "mismatch/mean" in r.metrics), None)
    if record is None:
        return ""
    found = record.metrics["mismatch/mean"]
    cause, advice = _changed_sampler(record)
    if not found > (ROUNDING if cause else MISMATCH):
        return ""
    return (
        f"Before the first update the ratio is not 1: the log-probabilities of sampler and trainer differ by "
        f"{found:.2g} nats a token. {cause or 'Both have the same weights, so their arithmetic differs'}; {advice}"
    )


def _changed_sampler(record: StepRecord) -> tuple[str, str]:
    temperature = record.settings.get("rollout/temperature", 1.0)
    top_p, top_k = record.settings.get("rollout/top_p", 1.0), record.settings.get("rollout/top_k", -1.0)
    if temperature != 1:
        return (
            f"The cause is the temperature {temperature:g}: the sampler's are of the changed distribution",
            "sample with temperature=1 where ratios matter",
        )
    if top_p < 1 or top_k != -1:
        names = [f"top_p={top_p:g}"] * (top_p < 1) + [f"top_k={top_k:g}"] * (top_k != -1)
        return (
            f"The cause is the truncation ({', '.join(names)}): the sampler's are renormalised over the tokens left",
            "sample with top_p=1 and top_k=-1 where ratios matter",
        )
    return "", "look at the number formats of the two, or take a loss that is corrected for it"


def _never_clipped(recent: Sequence[StepRecord]) -> str:
    last, trained = recent[-1], [r for r in recent if r.metrics.keys() >= CLIP]
    settings = last.settings
    once = settings.get("rollout/updates_per_rollout") == 1 and settings.get("rollout/minibatches") == 1
    on_policy = once and settings.get("rollout/delay") == 0
    if not on_policy or len(trained) < UNCLIPPED_STEPS or _changed_sampler(last)[0]:
        return ""
    if any(r.metrics["clip_frac/low"] + r.metrics["clip_frac/high"] > 0 for r in trained):
        return ""
    return (
        f"For information: nothing was clipped in the last {len(trained)} updates, because there is one update per "
        "rollout: ratios stay 1, and the loss acts as plain policy gradient. updates_per_rollout=4 makes them move"
    )


def _ess(record: StepRecord) -> str:
    found = record.metrics.get("ess", 1.0)
    if not found < ESS:
        return ""
    return (
        f"The effective sample size is {found:.0%} of the tokens: a few with large ratios decide the update. "
        "Use each rollout for fewer updates, shorten the delay, lower the learning rate, or clip (ppo, cispo)"
    )


def _k1(record: StepRecord) -> str:
    found = record.metrics.get("kl/k1", 0.0)
    if not abs(found) > K1:
        return ""
    return (
        f"kl/k1 is {found:.2g} nats a token: the trainer has moved far from the sampler. Use each rollout for fewer "
        "updates, shorten the delay, or lower the learning rate"
    )


def _no_spread(rollouts: Sequence[StepRecord]) -> str:
    last = rollouts[-RECENT:]
    if not last:
        return ""
    share, reward = (fmean(r.metrics[name] for r in last) for name in ("frac_reward_zero_std", "reward"))
    if not share > NO_SPREAD:
        return ""
    return (
        f"In {share:.0%} of the groups all rewards are equal (mean reward {reward:.2f}), so they teach nothing: take "
        "prompts that the model answers sometimes right and sometimes wrong, a larger group_size, or a finer reward"
    )


def _entropy(rollouts: Sequence[StepRecord]) -> str:
    values = [r.metrics["entropy_est"] for r in rollouts if "entropy_est" in r.metrics]
    if len(values) < ENTROPY_ROLLOUTS:
        return ""
    third = max(1, len(values) // 3)
    now, highest = fmean(values[-3:]), max(values[:-3])
    rewards = [r.metrics["reward"] for r in rollouts]
    learned = fmean(rewards[-third:]) > fmean(rewards[:third])
    if learned or not now < COLLAPSED * highest:
        return ""
    return (
        f"Entropy collapse: entropy_est fell from {highest:.2g} to {now:.2g} nats a token while the reward did not "
        "rise; the model repeats itself and finds nothing new. Lower the learning rate, or start again with a penalty "
        "towards the base model"
    )


def _reward_flat(rollouts: Sequence[StepRecord]) -> str:
    rewards = [r.metrics["reward"] for r in rollouts]
    if len(rewards) < FLAT_ROLLOUTS or fmean(r.metrics["frac_reward_zero_std"] for r in rollouts) > NO_SPREAD:
        return ""
    half = len(rewards) // 2
    first, second = rewards[:half], rewards[-half:]
    rise = fmean(second) - fmean(first)
    error = math.sqrt((stdev(first) ** 2 + stdev(second) ** 2) / half)
    if rise > 2 * error or (rise > 0 and error == 0):
        return ""
    return (
        f"The reward is flat: {fmean(second):.3f} in the last {half} rollouts after {fmean(first):.3f} in the {half} "
        f"before, a difference within chance (2 x {error:.2g}). Raise the learning rate or the batch, or see in the "
        "samples whether the reward tells good from bad"
    )


def _truncated(rollouts: Sequence[StepRecord]) -> str:
    last = rollouts[-RECENT:]
    share = fmean(r.metrics["truncated_frac"] for r in last) if last else 0.0
    if not share > TRUNCATED:
        return ""
    limit = last[-1].settings.get("rollout/max_tokens")
    at = "" if limit is None else f" ({limit:g})"
    return (
        f"{share:.0%} of the responses were cut at max_tokens{at} before they ended, and were graded unfinished: "
        "raise max_tokens, or reward short answers"
    )


def _unmasked(record: StepRecord) -> str:
    share = record.metrics.get("unmasked_prompt_frac", 0.0)
    if record.loss_name != "dro" or not share > 0:
        return ""
    return (
        f"dro runs without weights: {share:.0%} of the tokens it counts belong to prompts. Its quadratic term does not "
        "vanish where the advantage is 0, so it pulls on them as well; give weights, 0 on the prompt (weights=True)"
    )
