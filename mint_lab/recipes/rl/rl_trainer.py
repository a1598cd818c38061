"""One step of reinforcement learning, through any client of the API.

A step is one optimizer step. The first step of a rollout draws it, grades it and keeps it for ``updates_per_rollout *
minibatches`` steps; numbers of the rollout itself (reward, length, ...) stand in that first step's record. Responses
that are drawn stay until they are graded, and a graded rollout until it is used up, so a step that failed goes on with
the same samples. A rollout in which no group has spread makes a step of its own, without an update.
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
from ...errors import DataError
from ...losses.spec import REFERENCE
from ..guarded_trainer import GuardedTrainer, Shown
from ..held_out import evaluated_items
from ..plan import StepPlan
from ..record import StepRecord
from ..reference_cache import reads_reference
from ..registry import Measured, Order
from .grading import graded
from .rollout import (
    Drawn,
    Group,
    Response,
    Sampler,
    Snapshots,
    datum_of,
    draw,
    responses_of,
    rollout_metrics,
    with_advantages,
)
from .step_metrics import extremes, measure, sample_rows

if TYPE_CHECKING:
    from ...client.protocol import SamplingClient, TrainingClient
    from ...losses import LossSpec
    from ...types import Datum
    from .recipe import Prompts, RlJob

__all__ = ["RlTrainer"]

TRAINING, HELD_OUT = 0, 1  # streams of random numbers


@dataclass(frozen=True)
class _Drawing:
    """Responses that wait for their rewards; ``key`` says what they were drawn for."""

    key: tuple[int, int]
    drawn: list[Drawn]
    version: int
    seconds: float


@dataclass(frozen=True)
class _Seen:
    """What is measured on a step's responses, and some of them as a record keeps them."""

    measured: Measured = field(default_factory=Measured)
    rows: list[dict[str, Any]] = field(default_factory=list)


class RlTrainer(GuardedTrainer):
    """Trains one client on one job, with the face of :class:`mint_lab.recipes.batch_trainer.Trainer`.

    Attributes:
        job: prompts, reward and options.
    """

    def __init__(self, client: TrainingClient, job: RlJob, seed: int) -> None:
        super().__init__(client)
        self.job = job
        self._seed = seed
        self._order = Order(job.size, seed)
        self._snapshots = Snapshots(client, job.options.delay)
        self._base: SamplingClient | None = None
        self._position = 0
        self._updates = 0
        self._drawing: _Drawing | None = None
        self._parts: list[list[Response]] = []  # what is left of the rollout, one entry an optimizer step
        self._news: dict[str, float] = {}  # of the rollout, until a record has them
        self._version = 0  # updates that the rollout's sampler had seen
        self._grader: Reward | None = None  # graded last
        self._new_graders: list[Reward] = []  # began to grade, and nobody has been told
        self._latest: list[Response] = []
        # The base model's log-probabilities of these, as far as they were asked for, by the completion's identity.
        self._references: dict[int, torch.Tensor] = {}

    def measure_baseline(self, plan: StepPlan) -> None:
        """Evaluate all held-out prompts once, before the first step."""
        if not isinstance(self.client, ReferenceClient):
            self._base = self._snapshots.current(self._updates)
        self.baseline, _ = self._evaluate(plan, everything=True)

    def sample(self, count: int, spec: LossSpec) -> list[Datum]:
        """Up to ``count`` datums of the latest rollout as ``spec`` would see them; none before there is one."""
        return self._data(self._latest[:count], reference=reads_reference(spec))[0]

    def shown(self, count: int, spec: LossSpec) -> Shown:
        """Of the latest rollout, the best and the worst response of each of the first groups, ``count`` in all.

        Raises:
            DataError: there is no rollout yet.
        """
        latest = self._latest
        responses = [latest[k] for k in extremes(latest, count // 2)]
        if not responses:
            raise DataError("no rollout has been drawn yet, so there are no tokens to show")
        titles = [f"rollout, {r.drawn.text!r}: reward {r.reward:.3g}, advantage {r.advantage:+.3g}" for r in responses]
        return Shown(self._data(responses, reference=reads_reference(spec))[0], titles)

    def new_rewards(self) -> list[Reward]:
        """The rewards that began to grade since the last call, the one in use last."""
        new, self._new_graders = self._new_graders, []
        return new

    def _make(self, number: int, plan: StepPlan, *, shown: bool) -> StepRecord:
        began = time.perf_counter()
        if not self._parts:
            self._roll_out(plan)
        part, tokens = self._parts[0], 0
        metrics, seen = dict(self._news), _Seen()
        if part:
            data, base = self._data(part, reference=reads_reference(plan.loss))
            tokens = sum(datum.model_input.length for datum in data)
            on_policy = bool(self._news) and self._version == self._updates

            def look(logprobs: list[torch.Tensor]) -> _Seen:
                measured = measure(part, logprobs, base, plan, self.job.options, on_policy=on_policy)
                rows = sample_rows(part, logprobs, plan, self.job.train.tokenizer) if shown else []
                return _Seen(measured, rows)

            seen, updated, own = self._update(number, plan, data, look, unmeasured=seen)
            if "clip_frac/low" in own:  # a loss that tells of its own clip, which need not be one of tokens
                seen.measured.metrics.pop("out_of_range_frac", None)
            # Of the rollout's own numbers the loss has no say: they are what the run is judged by.
            metrics = seen.measured.metrics | updated | own | metrics
            self._updates += 1
        self._parts, self._news = self._parts[1:], {}
        step_time = time.perf_counter() - began
        return StepRecord(
            step=number,
            time=0.0,
            step_time=step_time,
            tokens=tokens,
            loss_name=plan.loss.name,
            loss_version=plan.loss.version,
            metrics={k: float(v) for k, v in metrics.items()} | {"tokens_per_s": tokens / step_time},
            histograms=seen.measured.histograms,
            settings=plan.settings() | self.job.options.settings(),
            samples=seen.rows,
        )

    def _complete(self, record: StepRecord, plan: StepPlan, *, evaluate: bool, everything: bool) -> StepRecord:
        self._snapshots.keep(self._updates)
        if not evaluate:
            return record
        held_out, answers = self._evaluate(plan, everything=everything)
        return replace(record, held_out=held_out, samples=[*record.samples, *answers])

    # -- a rollout -----------------------------------------------------------------------------------------------------

    def _roll_out(self, plan: StepPlan) -> None:
        """Draw, grade and lay out the next rollout. What raises leaves what was drawn for the next try."""
        options = self.job.options
        drawing = self._drawing = self._draw(plan)
        reward = self.job.reward(self.job.train)
        rewards = self._graded(drawing.drawn, self.job.train, reward)
        groups = with_advantages(drawing.drawn, rewards, options.advantages)
        self._news = rollout_metrics(drawing.drawn, rewards) | {"sampling_time": drawing.seconds}
        self._version = drawing.version
        live = [group for group in groups if group.has_spread]
        self._parts = self._lay_out(live) or [[]]
        self._references = {}
        self._latest = responses_of(live) or responses_of(groups)
        if self._grader is None or reward.label != self._grader.label:
            self._new_graders.append(reward)
        self._grader = reward
        self._drawing = None
        self._position += len(drawing.drawn)

    def _graded(self, drawn: Sequence[Drawn], prompts: Prompts, reward: Reward) -> list[list[float]]:
        """The rewards; a reward that is registered anew is asked to stop, as one whose run is."""

        def asked() -> bool:
            return self.asked() or self.job.reward(prompts) != reward

        return graded(drawn, prompts, reward, asked=asked, patience=self.patience)

    def _draw(self, plan: StepPlan) -> _Drawing:
        key = (self._position, plan.batch_size)
        if self._drawing is not None and self._drawing.key == key:
            return self._drawing
        began = time.perf_counter()
        items = self._order.items(self._position, plan.batch_size)
        client, version = self._snapshots.delayed(self._updates)
        drawn = draw(client, self.job.train, items, self._sampler(), self._seeds(TRAINING, self._position, len(items)))
        return _Drawing(key, drawn, version, time.perf_counter() - began)

    def _lay_out(self, groups: Sequence[Group]) -> list[list[Response]]:
        """The responses of each optimizer step: whole groups, shuffled anew for each pass where there are parts."""
        options, parts = self.job.options, []
        count = min(options.minibatches, len(groups))
        for update in range(options.updates_per_rollout if count else 0):
            order = np.arange(len(groups))
            if count > 1:
                np.random.default_rng([self._seed, self._position, update]).shuffle(order)
            parts += [responses_of([groups[i] for i in sorted(part)]) for part in np.array_split(order, count)]
        return parts

    def _sampler(self) -> Sampler:
        options = self.job.options
        assert options.max_tokens is not None
        return Sampler(
            options.group_size, options.max_tokens, options.temperature, options.top_p, options.top_k, self.job.stop
        )

    def _seeds(self, stream: int, position: int, count: int) -> list[int]:
        return np.random.default_rng([self._seed, stream, position]).integers(2**31, size=count).tolist()

    def _data(
        self, responses: Sequence[Response], *, reference: bool = False
    ) -> tuple[list[Datum], list[torch.Tensor] | None]:
        """The datums of responses, and the base model's log-probabilities where the options want them.

        Args:
            reference: the datums are to hold the latter.
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

    def _base_logprobs(self, responses: Sequence[Response], data: list[Datum]) -> list[torch.Tensor]:
        """Of the model before training, ``(N_i,)`` each; of a rollout they are computed once."""
        known = self._references
        missing = [k for k, response in enumerate(responses) if id(response.completion) not in known]
        if missing:
            fresh = self._ask_base([data[k] for k in missing])
            known.update(zip((id(responses[k].completion) for k in missing), fresh, strict=True))
        return [known[id(response.completion)] for response in responses]

    def _ask_base(self, data: list[Datum]) -> list[torch.Tensor]:
        """From the client; of one that cannot tell, from the weights that the run began with."""
        if isinstance(self.client, ReferenceClient):
            return [row.to_torch() for row in self.client.reference_logprobs(data).result()]
        from ...types import ModelInput

        assert self._base is not None  # measure_baseline comes first
        whole = [[*d.model_input.to_ints(), int(d.loss_fn_inputs["target_tokens"].tolist()[-1])] for d in data]
        futures = [self._base.compute_logprobs(ModelInput.from_ints(tokens)) for tokens in whole]
        return [torch.tensor([float(x or 0.0) for x in future.result()[1:]]) for future in futures]

    # -- evaluation ----------------------------------------------------------------------------------------------------

    def _evaluate(self, plan: StepPlan, *, everything: bool) -> tuple[dict[str, float], list[dict[str, Any]]]:
        """Mean reward of one answer to each held-out prompt, and a few of the answers."""
        prompts, options = self.job.held_out, self.job.options
        total = len(prompts)
        items = evaluated_items(total, plan.batch_size, everything=everything)
        assert options.max_tokens is not None
        sampler = Sampler(1, options.max_tokens, 0.0 if options.evaluation == "greedy" else 1.0, stop=self.job.stop)
        seeds = np.array(self._seeds(HELD_OUT, 0, total))[items].tolist()  # the same ones every time
        drawn = draw(self._snapshots.current(self._updates), prompts, items, sampler, seeds)
        rewards = self._graded(drawn, prompts, self.job.reward(prompts))
        numbers = rollout_metrics(drawn, rewards)
        kept = {name: numbers[name] for name in ("reward", "completion_length", "truncated_frac")}
        answers = [
            {"source": "held-out", "prompt": one.text, "response": one.completions[0].text, "reward": row[0]}
            for one, row in zip(drawn[:2], rewards[:2], strict=True)
        ]
        return kept, answers
