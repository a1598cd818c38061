"""What a step of reinforcement learning is measured by: ratios, clips, divergences, and a few responses in full."""

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
    from .job import RlOptions
    from .rollout import Response

__all__ = ["extremes", "measure", "sample_rows"]

# Where a loss has no clip, out_of_range_frac is told of PPO's usual range.
USUAL_RANGE = (0.8, 1.2)
GROUPS_SHOWN = 2
TEXT, TOKENS = 2000, 256  # characters and tokens of a response that a record keeps
HUGE = 1e6  # ratios in a record's samples end here


def measure(
    responses: Sequence[Response],
    logprobs: Sequence[torch.Tensor],
    base: Sequence[torch.Tensor] | None,
    plan: StepPlan,
    options: RlOptions,
    *,
    on_policy: bool,
) -> Measured:
    """Metrics of ``mint_lab.metrics.policy`` over the tokens of the responses, and the log-ratio histograms.

    Args:
        logprobs: of each response's datum, ``(N_i,)``, from before the update.
        base: likewise under the base model; None where nobody asked.
        on_policy: the sampler had the same weights: then the mismatch between the two is measured.
    """
    logp = _completion(responses, logprobs)
    logq = torch.tensor([x for r in responses for x in r.completion.logprobs], dtype=torch.float64)
    advantages = torch.tensor([r.advantage for r in responses for _ in r.completion.tokens], dtype=torch.float64)
    metrics = ratio_metrics(logp, logq)
    limits = None if plan.loss.clip is None else plan.loss.clip.range(plan.config)
    low, high = limits or USUAL_RANGE
    clips = clip_metrics(logp, logq, advantages, clip_low_threshold=low, clip_high_threshold=high)
    if limits is None:  # no clip to be active
        clips = {"out_of_range_frac": clips["out_of_range_frac"]}
    metrics |= clips
    if on_policy:
        metrics |= mismatch_metrics(logp, logq)
    if base is not None and options.kl_to_base:
        metrics |= kl_base_metrics(logp, _completion(responses, base))
    if not options.weights:
        whole = sum(len(row) for row in logprobs)
        metrics["unmasked_prompt_frac"] = 1 - len(logp) / whole
    rising, falling = log_ratios_by_sign(logp, logq, advantages)
    histograms = {
        "log_ratio/positive": histogram(rising.tolist(), "log_ratio/positive"),
        "log_ratio/negative": histogram(falling.tolist(), "log_ratio/negative"),
    }
    return Measured(metrics, histograms)


def _completion(responses: Sequence[Response], rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """The part of each row that belongs to the response, end to end, double precision."""
    parts = [row[-len(r.completion.tokens) :] for r, row in zip(responses, rows, strict=True)]
    return torch.cat(parts).double()


def sample_rows(
    responses: Sequence[Response], logprobs: Sequence[torch.Tensor], plan: StepPlan, tokenizer: Tokenizer
) -> list[dict[str, Any]]:
    """The responses that :func:`extremes` picks, with the ratio of each token and whether it is clipped."""
    return [_row(responses[k], logprobs[k], plan, tokenizer) for k in extremes(responses, GROUPS_SHOWN)]


def extremes(responses: Sequence[Response], groups: int) -> list[int]:
    """Places of the best and the worst response of the first ``groups`` groups."""
    seen: dict[int, list[int]] = {}
    for place, response in enumerate(responses):
        seen.setdefault(id(response.drawn), []).append(place)
    picked: list[int] = []
    for places in list(seen.values())[:groups]:
        ordered = sorted(places, key=lambda place: responses[place].reward)
        picked += [ordered[-1], ordered[0]]
    return list(dict.fromkeys(picked))


def _row(response: Response, logprobs: torch.Tensor, plan: StepPlan, tokenizer: Tokenizer) -> dict[str, Any]:
    completion, advantage = response.completion, response.advantage
    ratios = (_completion([response], [logprobs]) - torch.tensor(completion.logprobs, dtype=torch.float64)).exp()
    clip = plan.loss.clip
    clipped = [clip is not None and clip.active(r, advantage, plan.config) for r in ratios[:TOKENS].tolist()]
    return {
        "source": "training",
        "prompt": response.drawn.text[:TEXT],
        "response": completion.text[:TEXT],
        "reward": response.reward,
        "advantage": round(advantage, 6),
        "tokens": [str(tokenizer.decode([token])) for token in completion.tokens[:TOKENS]],
        "ratio": [round(min(r, HUGE), 6) for r in ratios[:TOKENS].tolist()],
        "clipped": clipped,
    }
