"""Records of runs of which it is known what is the matter with them.

Rewards are drawn response by response: a run is a curve of success probabilities, of entropies and of lengths over its
rollouts. Ratios grow with the updates on a rollout, with the delay of the sampler, and with its temperature.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from mint_lab.metrics.rollout import reward_metrics
from mint_lab.recipes.record import StepRecord

__all__ = ["LabelledRun", "records_of"]

Curve = Callable[[float], float]


def constant(value: float) -> Curve:
    return lambda progress: value


def line(start: float, end: float) -> Curve:
    return lambda progress: start + (end - start) * progress


ZERO, ONE, EIGHT = constant(0.0), constant(1.0), constant(8.0)


@dataclass(frozen=True)
class LabelledRun:
    """How the numbers of a run develop; curves map the share of the run that is over, 0 to 1, to a value.

    Attributes:
        success: Probability that a response has the reward 1 and not 0.
        entropy: ``entropy_est``, nats.
        length: ``completion_length``, tokens.
        scale, offset: Reward 1 becomes ``scale + offset``, and reward 0 ``offset``.
        drift: ``kl/k1`` that each update on a rollout adds, nats.
        mismatch: ``kl/k1`` before the first update, nats.
        version: Version of the reward, by the share of the run that is over.
    """

    success: Curve
    entropy: Curve = ONE
    length: Curve = EIGHT
    rollouts: int = 150
    batch_size: int = 16
    updates: int = 1
    delay: int = 0
    temperature: float = 1.0
    scale: float = 1.0
    offset: float = 0.0
    drift: float = 0.004
    mismatch: float = 0.0
    version: Curve = ONE
    truncated: Curve = ZERO


def records_of(run: LabelledRun, seed: int) -> list[StepRecord]:
    """Return the records of a run, one per update, eight responses to each prompt."""
    rng = np.random.default_rng(seed)
    records: list[StepRecord] = []
    for k in range(run.rollouts):
        progress = k / (run.rollouts - 1)
        # Prompts differ: the success of a prompt is its own, with the mean of the run.
        mean = min(max(run.success(progress), 1e-6), 1 - 1e-6)
        ability = rng.beta(2 * mean, 2 * (1 - mean), size=run.batch_size) if 0.02 < mean < 0.98 else mean
        groups = (rng.random((run.batch_size, 8)) < np.reshape(ability, (-1, 1))) * run.scale + run.offset
        rollout = reward_metrics(groups.tolist()) | {
            "sampling_time": 0.1,
            "truncated_frac": run.truncated(progress),
            "completion_length": run.length(progress) * rng.normal(1, 0.05),
        }
        for update in range(run.updates):
            k1 = run.mismatch + run.drift * (update + run.delay) * rng.normal(1, 0.2)
            metrics = {
                "loss": rng.normal(0, 0.1),
                "grad_norm": abs(rng.normal(1, 0.1)),
                "kl/k1": k1,
                "ess": float(np.exp(-6 * k1)),
                "entropy_est": run.entropy(progress) * rng.normal(1, 0.1),
                "clip_frac/low": 0.0 if run.updates == 1 else 0.01,
                "clip_frac/high": 0.0 if run.updates == 1 else 0.01,
            }
            if update == 0:
                metrics |= rollout
                if not run.delay or not k:
                    metrics["mismatch/mean"] = run.mismatch * 1.5 + 1e-7
            records.append(_record(len(records) + 1, run, metrics, run.version(progress)))
    return records


def _record(step: int, run: LabelledRun, metrics: dict[str, float], version: float) -> StepRecord:
    options = {
        "temperature": run.temperature,
        "top_p": 1.0,
        "top_k": -1.0,
        "updates_per_rollout": run.updates,
        "minibatches": 1,
        "delay": run.delay,
        "max_tokens": 64,
        "reward_version": version,
    }
    settings = {"batch_size": float(run.batch_size), "accumulate": 1.0}
    settings |= {f"rollout/{name}": float(value) for name, value in options.items()}
    return StepRecord(step, 0.0, 0.0, 1, "ppo", 1, metrics, settings=settings)
