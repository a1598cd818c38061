"""What the numbers of reinforcement learning mean, in plain words: the part of the advice that knows rollouts.

Each finding gives its number and what to try.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import fmean

from ..record import StepRecord
from .reward_trends import (
    MAX_ZERO_STD_SHARE,
    RECENT_ROLLOUTS,
    comparable,
    comparison_key,
    last_groups,
    trend_findings,
)

__all__ = ["comparison_key", "rl_findings"]

CLIP_METRICS = {"clip_frac/low", "clip_frac/high"}
# Mean |log p - log q| of a sampler and a trainer with the same weights, nats a token.
MAX_MISMATCH = 0.02  # rounding to 16 bits stays below this
MAX_ROUNDING = 1e-4  # several times what 32-bit arithmetic causes
MIN_ESS = 0.3
MAX_K1 = 0.1  # nats a token
# Consequences of a collapse; to report them too would hide the cause.
HIDDEN_BY_COLLAPSE = ("no spread", "truncated")
MAX_TRUNCATED_SHARE = 0.1  # of responses
MIN_UNCLIPPED_STEPS, MAX_UNCLIPPED_STEPS = 3, 50


def rl_findings(recent: Sequence[StepRecord]) -> dict[str, str]:
    """Return the findings about the last rollouts, by kind; a kind that does not apply is absent.

    Args:
        recent: The last records in order, at least one; before them, earlier ones that begin a rollout.
    """
    rollouts = comparable(recent)
    trends = trend_findings(rollouts)
    before = _before_updates(rollouts)
    checks = {
        **trends,
        "mismatch": _mismatch(before),
        "never clipped": _never_clipped(recent[-MAX_UNCLIPPED_STEPS:]),
        "ess": _ess(recent[-1], before),
        "k1": _k1(recent[-1], before),
        "no spread": "" if trends["solved"] else _no_spread(rollouts),
        "truncated": _truncated(rollouts),
        "unmasked": _unmasked(recent[-1]),
    }
    if checks["diverging"]:
        checks |= dict.fromkeys(HIDDEN_BY_COLLAPSE, "")
    return {kind: text for kind, text in checks.items() if text}


def _before_updates(rollouts: Sequence[StepRecord]) -> StepRecord | None:
    """Return the last record of a step at which sampler and trainer had the same weights; None without one."""
    return next((record for record in reversed(rollouts) if "mismatch/mean" in record.metrics), None)


def _mismatch(record: StepRecord | None) -> str:
    if record is None or not _differs(record):
        return ""
    mismatch = record.metrics["mismatch/mean"]
    cause, advice = _changed_sampler(record)
    return (
        f"Before the first update the ratio is not 1: the log-probabilities of sampler and trainer differ by "
        f"{mismatch:.2g} nats a token. {cause or 'Both have the same weights, so their arithmetic differs'}; {advice}"
    )


def _differs(record: StepRecord) -> bool:
    """Return whether the log-probabilities of sampler and trainer differ although both have the same weights."""
    return record.metrics["mismatch/mean"] > (MAX_ROUNDING if _changed_sampler(record)[0] else MAX_MISMATCH)


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


def _ess(record: StepRecord, before: StepRecord | None) -> str:
    ess, at_first = record.metrics.get("ess", 1.0), _from_mismatch(before, "ess", 1.0)
    # Updates multiply what a mismatch has left, so they are to blame for what is lost beyond that.
    if not ess < MIN_ESS * min(1.0, at_first):
        return ""
    return (
        f"The effective sample size is {ess:.0%} of the tokens{_part(at_first, 1.0, '.0%')}: a few tokens with large "
        "ratios dominate the update. Use each rollout for fewer updates, shorten the delay, lower the learning rate, "
        "or clip (ppo, cispo)"
    )


def _k1(record: StepRecord, before: StepRecord | None) -> str:
    k1, at_first = record.metrics.get("kl/k1", 0.0), _from_mismatch(before, "kl/k1", 0.0)
    if not abs(k1) > MAX_K1 or not abs(k1 - at_first) > MAX_K1:
        return ""
    return (
        f"kl/k1 is {k1:.2g} nats a token{_part(at_first, 0.0, '.2g')}: the trainer has moved far from the sampler. Use "
        "each rollout for fewer updates, shorten the delay, or lower the learning rate"
    )


def _from_mismatch(before: StepRecord | None, name: str, without: float) -> float:
    """Return a metric at equal weights, which no update has caused: ``without`` a mismatch, what it should be."""
    return without if before is None or not _differs(before) else before.metrics.get(name, without)


def _part(at_first: float, without: float, form: str) -> str:
    return "" if at_first == without else f" ({at_first:{form}} before the first update)"


def _no_spread(rollouts: Sequence[StepRecord]) -> str:
    last = last_groups(rollouts)
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
