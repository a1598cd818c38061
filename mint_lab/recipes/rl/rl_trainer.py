"""The trainer of the recipe ``rl``, through any client of the API.

A step is one optimizer step. The first step of a rollout samples and grades the rollout, and stores it for
``updates_per_rollout * minibatches`` steps; metrics of the rollout itself (reward, length, ...) are in the record of
that first step. Sampled responses are stored until they are graded, and a graded rollout until all its steps are
complete, so a step that failed is retried with the same samples. A rollout in which no group has different rewards
gives one step without an update.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ...data.reference_logprobs import ReferenceClient
from ...data.rewards import Reward
from ...errors import DataError, RunError
from ...losses.spec import REFERENCE
from ..guarded_trainer import ExampleBatch, GuardedTrainer, TrainerState
from ..held_out import evaluated_items
from ..job import Measured, ShuffledSampler
from ..plan import StepPlan
from ..record import StepRecord
from ..reference_cache import reads_reference
from .grading import grade_groups
from .rl_job import REWARD_VERSION
from .rollout import (
    GradedGroup,
    GradedResponse,
    SampledGroup,
    SamplerSettings,
    Snapshots,
    datum_of,
    responses_of,
    rollout_metrics,
    sample_groups,
    with_advantages,
)
from .rollout_state import RolloutReader, RolloutWriter
from .step_metrics import OWN_METRICS, best_and_worst, measure_step, sample_rows

if TYPE_CHECKING:
    from ...client.protocol import SamplingClientProtocol, TrainingClientProtocol
    from ...losses import LossSpec
    from ...types import Datum
    from .rl_job import Prompts, RlJob

__all__ = ["RlTrainer"]

TRAINING, HELD_OUT = 0, 1  # streams of random seeds
KEPT_ANSWERS = 2  # held-out answers that a record keeps


@dataclass(frozen=True)
class _Ungraded:
    """Sampled responses without rewards.

    Attributes:
        key: Position in the prompts and prompts per rollout, which identify the batch that they were sampled for.
        groups: The responses.
        version: Updates that the sampler's weights had received.
        seconds: Time that sampling took.
        partial: The reward that graded, and what it gave before it failed, by position; empty before grading.
    """

    key: tuple[int, int]
    groups: list[SampledGroup]
    version: int
    seconds: float
    partial: list[tuple[Reward, dict[tuple[int, int], float]]] = field(default_factory=list)

    def rewards_by(self, reward: Reward) -> dict[tuple[int, int], float]:
        """Return what ``reward`` has given so far, by position; another version of a reward grades all again."""
        if not self.partial or self.partial[0][0] != reward:
            self.partial[:] = [(reward, {})]
        return self.partial[0][1]


@dataclass(frozen=True)
class _StepMeasures:
    """What was measured on the responses of a step.

    Attributes:
        measured: Metrics and histograms.
        samples: A few of the responses, as in ``StepRecord.samples``.
    """

    measured: Measured = field(default_factory=Measured)
    samples: list[dict[str, Any]] = field(default_factory=list)


class RlTrainer(GuardedTrainer):
    """Train one client on the rewards of its own responses."""

    own_metrics = OWN_METRICS

    def __init__(self, client: TrainingClientProtocol, job: RlJob, seed: int) -> None:
        super().__init__(client)
        self._job = job
        self._seed = seed
        self._prompt_order = ShuffledSampler(job.size, seed)
        self._snapshots = Snapshots(client, job.options.delay)
        self._base: SamplingClientProtocol | None = None  # on the first weights, if the client computes no references
        self._position = 0  # in the stream of prompts
        self._updates = 0  # completed so far
        self._ungraded: _Ungraded | None = None
        self._minibatches: list[list[GradedResponse]] = []  # the rest of the rollout, one entry per optimizer step
        self._rollout_metrics: dict[str, float] = {}  # of the rollout, until a record has them
        self._sampler_updates = 0  # updates that the rollout's sampler had received
        self._grader: Reward | None = None  # the reward that graded last
        self._grader_label = ""  # of that reward; a run that continues with another version has it from its snapshot
        self._new_graders: list[Reward] = []  # rewards that began to grade, not yet reported by new_rewards()
        self._latest: list[GradedResponse] = []  # of the latest rollout
        # The reference model's log-probabilities of this rollout, computed on demand, by the identity of the response.
        self._references: dict[int, torch.Tensor] = {}

    @property
    def job(self) -> RlJob:
        """Prompts, reward and options."""
        return self._job

    def state(self) -> TrainerState:
        """Return the position in the prompts, the rest of the rollout in hand, and the sampler's weights that lag."""
        writer = RolloutWriter()
        entries = self._common_state() | {
            "position": self._position,
            "updates": self._updates,
            "minibatches": [writer.graded(minibatch) for minibatch in self._minibatches],
            "latest": writer.graded(self._latest),
            "rollout_metrics": dict(self._rollout_metrics),
            "sampler_updates": self._sampler_updates,
            "grader": self._grader_label or None,
            "groups": writer.groups,
        }
        tensors = writer.references(self._latest, self._references)
        for updates, weights in self._snapshots.weights().items():
            tensors |= {f"sampler.{updates}.{name}": weight.detach().clone() for name, weight in weights.items()}
        return TrainerState(entries, tensors)

    def restore(self, state: TrainerState) -> None:
        """Continue from what :meth:`state` returned."""
        entries, reader = state.entries, RolloutReader(state.entries["groups"])
        minibatches = [reader.graded(minibatch) for minibatch in entries["minibatches"]]
        latest = reader.graded(entries["latest"])
        samplers: dict[int, dict[str, torch.Tensor]] = {}
        for name, tensor in state.tensors.items():
            if name.startswith("sampler."):
                _, updates, weight = name.split(".", 2)
                samplers.setdefault(int(updates), {})[weight] = tensor
        reward = self.job.reward(self.job.train)
        self._restore_common(entries)
        self._position, self._updates = int(entries["position"]), int(entries["updates"])
        self._sampler_updates = int(entries["sampler_updates"])
        self._rollout_metrics = dict(entries["rollout_metrics"])
        self._minibatches, self._latest, self._ungraded = minibatches, latest, None
        self._references = reader.references(state.tensors)
        # A reward of another version grades from now on, and then it counts as new.
        self._grader = reward if reward.label == entries["grader"] else None
        self._grader_label = entries["grader"] or ""
        self._new_graders = []
        self._snapshots.restore(samplers)

    def _forget_references(self) -> None:
        self._references = {}

    def measure_baseline(self, plan: StepPlan) -> None:
        """Evaluate all held-out prompts once, before the first step."""
        if not isinstance(self.client, ReferenceClient):
            self._base = self._snapshots.current(self._updates)
        self.baseline, _ = self._evaluate(plan, everything=True)

    def sample(self, count: int, spec: LossSpec) -> list[Datum]:
        """Return up to ``count`` datums of the latest rollout as ``spec`` would see them; none before the first one."""
        return self._data(self._latest[:count], reference=reads_reference(spec))[0]

    def shown(self, count: int, spec: LossSpec) -> ExampleBatch:
        """Return ``count`` responses of the latest rollout: the best and the worst of each of the first groups.

        Raises:
            DataError: If there is no rollout yet.
        """
        latest = self._latest
        responses = [latest[k] for k in best_and_worst(latest, count // 2)]
        if not responses:
            raise DataError("no rollout has been sampled yet, so there are no tokens to show")
        titles = [f"rollout, {r.group.text!r}: reward {r.reward:.3g}, advantage {r.advantage:+.3g}" for r in responses]
        return ExampleBatch(self._data(responses, reference=reads_reference(spec))[0], titles)

    def gradient_batch(self, batch_size: int, spec: LossSpec) -> list[Datum]:
        """Return the whole latest rollout, as ``spec`` would see it.

        Raises:
            RunError: If there is no rollout yet.
        """
        data = self.sample(len(self._latest), spec)
        if not data:
            raise RunError("no rollout has been sampled yet to compute gradients on; start the run first")
        return data

    def new_rewards(self) -> list[Reward]:
        """Return the rewards that began to grade since the last call, the one in use last."""
        new, self._new_graders = self._new_graders, []
        return new

    def _update_step(self, number: int, plan: StepPlan, *, keep_samples: bool) -> StepRecord:
        began = time.perf_counter()
        if not self._minibatches:
            self._roll_out(plan)
        minibatch, tokens = self._minibatches[0], 0
        metrics, measures = self._rollout_metrics, _StepMeasures()
        if minibatch:
            data, base = self._data(minibatch, reference=reads_reference(plan.loss))
            tokens = sum(datum.model_input.length for datum in data)
            on_policy = bool(self._rollout_metrics) and self._sampler_updates == self._updates

            def measure(logprobs: list[torch.Tensor]) -> _StepMeasures:
                measured = measure_step(minibatch, logprobs, base, plan, self.job.options, on_policy=on_policy)
                samples = sample_rows(minibatch, logprobs, plan, self.job.train.tokenizer) if keep_samples else []
                return _StepMeasures(measured, samples)

            measures, updated, own = self._update(number, plan, data, measure, unmeasured=measures)
            if "clip_frac/low" in own:  # the loss reports its own clip, which need not be one of tokens
                measures.measured.metrics.pop("out_of_range_frac", None)
            metrics = measures.measured.metrics | updated | own | metrics
            self._updates += 1
        self._minibatches, self._rollout_metrics = self._minibatches[1:], {}
        step_time = time.perf_counter() - began
        return StepRecord(
            step=number,
            time=0.0,
            step_time=step_time,
            tokens=tokens,
            loss_name=plan.loss.name,
            loss_version=plan.loss.version,
            metrics={k: float(v) for k, v in metrics.items()} | {"tokens_per_s": tokens / step_time},
            histograms=measures.measured.histograms,
            settings=plan.settings() | self.job.options.settings() | {REWARD_VERSION: self._reward_version()},
            samples=measures.samples,
            clip=plan.clip_range,
        )

    def _reward_version(self) -> float:
        """Return the version of the reward that graded the rollout in hand."""
        return float(self._grader_label.rpartition(" v")[2] or 1)

    def _evaluate_step(self, record: StepRecord, plan: StepPlan, *, evaluate: bool, everything: bool) -> StepRecord:
        self._snapshots.keep(self._updates)
        if not evaluate:
            return record
        held_out, answers = self._evaluate(plan, everything=everything)
        return replace(record, held_out=held_out, samples=[*record.samples, *answers])

    # -- a rollout -----------------------------------------------------------------------------------------------------

    def _roll_out(self, plan: StepPlan) -> None:
        """Sample, grade and split the next rollout; after an error a retry reuses the samples."""
        options = self.job.options
        ungraded = self._ungraded = self._sample_batch(plan)
        reward = self.job.reward(self.job.train)
        rewards = self._grade(ungraded.groups, self.job.train, reward, ungraded.rewards_by(reward))
        groups = with_advantages(ungraded.groups, rewards, options.advantages)
        self._rollout_metrics = rollout_metrics(ungraded.groups, rewards) | {"sampling_time": ungraded.seconds}
        self._sampler_updates = ungraded.version
        useful = [group for group in groups if group.has_spread]
        self._minibatches = self._split(useful) or [[]]
        self._references = {}
        self._latest = responses_of(useful) or responses_of(groups)
        if self._grader is None or reward.label != self._grader.label:
            self._new_graders.append(reward)
        self._grader, self._grader_label = reward, reward.label
        self._ungraded = None
        self._position += len(ungraded.groups)

    def _grade(
        self,
        groups: Sequence[SampledGroup],
        prompts: Prompts,
        reward: Reward,
        known: dict[tuple[int, int], float] | None = None,
    ) -> list[list[float]]:
        """Return the rewards; grading is cancelled when the run is paused, or the reward is registered again."""

        def cancel_requested() -> bool:
            return self.cancel_requested() or self.job.reward(prompts) != reward

        return grade_groups(
            groups, prompts, reward, cancel_requested=cancel_requested, cancel_after=self.cancel_after, known=known
        )

    def _sample_batch(self, plan: StepPlan) -> _Ungraded:
        key = (self._position, plan.items_per_step)
        if self._ungraded is not None and self._ungraded.key == key:
            return self._ungraded
        began = time.perf_counter()
        items = self._prompt_order.items(self._position, plan.items_per_step)
        client, version = self._snapshots.delayed(self._updates)
        seeds = self._seeds(TRAINING, self._position, len(items))
        groups = sample_groups(client, self.job.train, items, self._sampler_settings(), seeds)
        return _Ungraded(key, groups, version, time.perf_counter() - began)

    def _split(self, groups: Sequence[GradedGroup]) -> list[list[GradedResponse]]:
        """Return the responses of each optimizer step: whole groups; each pass of several steps shuffles them."""
        options, minibatches = self.job.options, []
        count = min(options.minibatches, len(groups))
        for pass_number in range(options.updates_per_rollout if count else 0):
            order = np.arange(len(groups))
            if count > 1:
                np.random.default_rng([self._seed, self._position, pass_number]).shuffle(order)
            minibatches += [responses_of([groups[i] for i in sorted(part)]) for part in np.array_split(order, count)]
        return minibatches

    def _sampler_settings(self) -> SamplerSettings:
        options = self.job.options
        assert options.max_tokens is not None
        return SamplerSettings(
            options.group_size, options.max_tokens, options.temperature, options.top_p, options.top_k, self.job.stop
        )

    def _seeds(self, stream: int, position: int, count: int) -> list[int]:
        return np.random.default_rng([self._seed, stream, position]).integers(2**31, size=count).tolist()

    def _data(
        self, responses: Sequence[GradedResponse], *, reference: bool = False
    ) -> tuple[list[Datum], list[torch.Tensor] | None]:
        """Return the datums of responses, and the reference model's log-probabilities if they are needed.

        Args:
            responses: Graded responses.
            reference: Also put these log-probabilities into the datums.
        """
        data = [datum_of(response, weights=self.job.options.weights) for response in responses]
        if not data or not (reference or self.job.options.kl_to_base):
            return data, None
        base = self._base_logprobs(responses, data)
        if reference:
            from ...types import TensorData

            for datum, row in zip(data, base, strict=True):
                datum.loss_fn_inputs[REFERENCE] = TensorData.from_torch(row)
        return data, base

    def _base_logprobs(self, responses: Sequence[GradedResponse], data: list[Datum]) -> list[torch.Tensor]:
        """Return the reference model's log-probabilities, ``(N_i,)`` each; they are computed once per rollout."""
        known = self._references
        missing = [k for k, response in enumerate(responses) if id(response.sampled) not in known]
        if missing:
            computed = self._compute_base([data[k] for k in missing])
            known.update(zip((id(responses[k].sampled) for k in missing), computed, strict=True))
        return [known[id(response.sampled)] for response in responses]

    def _compute_base(self, data: list[Datum]) -> list[torch.Tensor]:
        """Compute the reference model's log-probabilities, ``(N_i,)`` each.

        If the client computes none, a sampling client on the first weights does.
        """
        if isinstance(self.client, ReferenceClient):
            return [row.to_torch() for row in self.client.reference_logprobs(data).result()]
        from ...types import ModelInput

        assert self._base is not None  # measure_baseline comes first
        sequences = [[*d.model_input.to_ints(), int(d.loss_fn_inputs["target_tokens"].tolist()[-1])] for d in data]
        futures = [self._base.compute_logprobs(ModelInput.from_ints(tokens)) for tokens in sequences]
        # The first token of a sequence has no log-probability.
        return [torch.tensor([float(x or 0.0) for x in future.result()[1:]]) for future in futures]

    # -- evaluation ----------------------------------------------------------------------------------------------------

    def _evaluate(self, plan: StepPlan, *, everything: bool) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Return metrics of one answer to each held-out prompt, and a few of the answers as a record keeps them."""
        prompts, options = self.job.held_out, self.job.options
        total = len(prompts)
        items = evaluated_items(total, plan.items_per_step, everything=everything)
        assert options.max_tokens is not None
        temperature = 0.0 if options.evaluation == "greedy" else 1.0
        settings = SamplerSettings(1, options.max_tokens, temperature, stop=self.job.stop)
        seeds = np.array(self._seeds(HELD_OUT, 0, total))[items].tolist()  # the same seeds at every evaluation
        groups = sample_groups(self._snapshots.current(self._updates), prompts, items, settings, seeds)
        rewards = self._grade(groups, prompts, self.job.reward(prompts))
        metrics = rollout_metrics(groups, rewards)
        held_out = {name: metrics[name] for name in ("reward", "completion_length", "truncated_frac")}
        answers = [
            {"source": "held-out", "prompt": group.text, "response": group.responses[0].text, "reward": row[0]}
            for group, row in zip(groups[:KEPT_ANSWERS], rewards[:KEPT_ANSWERS], strict=True)
        ]
        return held_out, answers
