"""What a step of reinforcement learning measures on its responses: ratios, clips, divergences, and a few texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ...metrics.policy import clip_metrics, kl_base_metrics, log_ratios_by_sign, mismatch_metrics, ratio_metrics
from ..job import Measured
from ..plan import StepPlan
from ..record import histogram

if TYPE_CHECKING:
    from ...client.protocol import Tokenizer
    from .rl_job import RlOptions
    from .rollout import GradedResponse

__all__ = ["OWN_METRICS", "best_and_worst", "measure_step", "sample_rows"]

# What is measured on the responses and defined for them alone. A policy loss may have its own ratio and clip.
OWN_METRICS = frozenset(
    {
        *("reward", "reward_std", "group_std", "frac_reward_zero_std", "completion_length", "truncated_frac"),
        *("sampling_time", "ess", "entropy_est", "unmasked_prompt_frac", "mismatch/mean", "mismatch/max"),
        *(f"{kind}/{estimator}" for kind in ("kl", "kl_base") for estimator in ("k1", "k2", "k3")),
    }
)
USUAL_RANGE = (0.8, 1.2)  # PPO's; out_of_range_frac uses it if the loss clips no tokens
KEPT_GROUPS = 2  # groups of which a record keeps responses
MAX_CHARACTERS, MAX_TOKENS = 2000, 256  # of a response that a record keeps
MAX_RATIO = 1e6  # larger ratios are stored as this


def measure_step(
    responses: Sequence[GradedResponse],
    logprobs: Sequence[torch.Tensor],
    base: Sequence[torch.Tensor] | None,
    plan: StepPlan,
    options: RlOptions,
    *,
    on_policy: bool,
) -> Measured:
    """Return the metrics of ``mint_lab.metrics.policy`` on the tokens of the responses, and log-ratio histograms.

    Args:
        responses: The batch, one response per datum.
        logprobs: Log-probabilities of each datum's targets from before the update, ``(N_i,)`` each, nats.
        base: The same under the base model; None if nothing needs them.
        plan: Loss and settings of the step.
        options: Options of the rollout.
        on_policy: True if the sampler had the same weights; the mismatch between the two is then measured.
    """
    logp = _on_responses(responses, logprobs)
    logq = torch.tensor([x for r in responses for x in r.sampled.logprobs], dtype=torch.float64)
    advantages = torch.tensor([r.advantage for r in responses for _ in r.sampled.tokens], dtype=torch.float64)
    metrics = ratio_metrics(logp, logq)
    limits = None if plan.loss.clip is None else plan.loss.clip.range(plan.config)
    low, high = limits or USUAL_RANGE
    clips = clip_metrics(logp, logq, advantages, clip_low_threshold=low, clip_high_threshold=high)
    if limits is None:  # without a clip there is no share of tokens on which it acts
        clips = {"out_of_range_frac": clips["out_of_range_frac"]}
    metrics |= clips
    if on_policy:
        metrics |= mismatch_metrics(logp, logq)
    if base is not None and options.kl_to_base:
        metrics |= kl_base_metrics(logp, _on_responses(responses, base))
    if not options.weights:
        n_targets = sum(len(row) for row in logprobs)
        metrics["unmasked_prompt_frac"] = 1 - len(logp) / n_targets
    positive, negative = log_ratios_by_sign(logp, logq, advantages)
    histograms = {
        "log_ratio/positive": histogram(positive.tolist(), "log_ratio/positive"),
        "log_ratio/negative": histogram(negative.tolist(), "log_ratio/negative"),
    }
    return Measured(metrics, histograms)


def _on_responses(responses: Sequence[GradedResponse], rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return the entries of each row that belong to the response, concatenated: ``(response tokens,)``, float64."""
    return torch.cat([row[-len(r.sampled.tokens) :] for r, row in zip(responses, rows, strict=True)]).double()


def sample_rows(
    responses: Sequence[GradedResponse], logprobs: Sequence[torch.Tensor], plan: StepPlan, tokenizer: Tokenizer
) -> list[dict[str, Any]]:
    """Return the responses that :func:`best_and_worst` selects, with the ratio of each token and whether it is clipped.

    Args:
        responses: The batch, one response per datum.
        logprobs: Log-probabilities of each datum's targets from before the update, ``(N_i,)`` each, nats.
        plan: Loss and settings of the step.
        tokenizer: Decodes single tokens.

    Returns:
        Rows as in ``StepRecord.samples``.
    """
    return [_row(responses[k], logprobs[k], plan, tokenizer) for k in best_and_worst(responses, KEPT_GROUPS)]


def best_and_worst(responses: Sequence[GradedResponse], groups: int) -> list[int]:
    """Return the positions of the best and the worst response of each of the first ``groups`` groups."""
    by_group: dict[int, list[int]] = {}
    for position, response in enumerate(responses):
        by_group.setdefault(id(response.group), []).append(position)
    selected: list[int] = []
    for positions in list(by_group.values())[:groups]:
        ordered = sorted(positions, key=lambda position: responses[position].reward)
        selected += [ordered[-1], ordered[0]]
    return list(dict.fromkeys(selected))


def _row(response: GradedResponse, logprobs: torch.Tensor, plan: StepPlan, tokenizer: Tokenizer) -> dict[str, Any]:
    sampled, advantage = response.sampled, response.advantage
    ratios = (_on_responses([response], [logprobs]) - torch.tensor(sampled.logprobs, dtype=torch.float64)).exp()
    clip = plan.loss.clip
    clipped = [clip is not None and clip.active(r, advantage, plan.config) for r in ratios[:MAX_TOKENS].tolist()]
    return {
        "source": "training",
        "prompt": response.group.text[:MAX_CHARACTERS],
        "response": sampled.text[:MAX_CHARACTERS],
        "reward": response.reward,
        "advantage": round(advantage, 6),
        "tokens": [str(tokenizer.decode([token])) for token in sampled.tokens[:MAX_TOKENS]],
        "ratio": [round(min(r, MAX_RATIO), 6) for r in ratios[:MAX_TOKENS].tolist()],
        "clipped": clipped,
    }
