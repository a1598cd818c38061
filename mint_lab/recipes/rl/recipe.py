"""The recipe ``rl``: reinforcement learning on rewards for the model's own answers.

:mod:`mint_lab.recipes.rl.rl_trainer` makes the steps:

prompts -> groups of responses from a snapshot -> rewards -> advantages within each group -> datums -> a policy loss
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from ...charts.chart_spec import CHARTS, LineSpec
from ...data.rewards import REWARDS, Reward, exact_match, reward_of
from ...data.sources import Rows, named_rows
from ...data.tasks import ExampleTask, PromptTask, task_of
from ...errors import DataError
from ...losses import DataKind
from ...losses.spec import REFERENCE
from ..base import Recipe
from ..held_out import split
from ..preference import warn_of
from .rl_advice import comparison_key, rl_findings
from .rl_job import Prompts, RlJob, RlOptions

if TYPE_CHECKING:
    from ...client.protocol import Tokenizer, TrainingClientProtocol
    from ..guarded_trainer import GuardedTrainer
    from ..record import StepRecord

__all__ = ["Rl"]

TRAIN_PROMPTS, HELD_OUT_PROMPTS = 4000, 400


class Rl(Recipe):
    """Learn from rewards for the model's own answers."""

    name = "rl"
    summary = "Reinforcement learning: learn from rewards for the model's own answers."
    default_loss = "ppo"
    default_steps = 100
    default_learning_rate = 1e-3
    default_data = "two-digit additions"
    charts = (
        *("reward", "log_ratio", "clip_frac", "kl", "ess", "entropy_est", "ratio", "frac_reward_zero_std"),
        *("completion_length", "grad_norm"),
        # A policy loss is measured on rollouts only, and its value is in the unit of the reward.
        replace(CHARTS["loss"], lines=(LineSpec("loss"),), unit=""),
    )
    headlines = ("reward", "loss")
    examples = "responses of the last rollout"
    keeps_samples = True
    batch_before_training = False
    lower_loss_is_better = False  # a policy loss is a sum around 0
    Options = RlOptions

    @property
    def data_kind(self) -> DataKind:
        """Groups of responses; the trainer adds reference log-probabilities for a loss that reads them."""
        fields = {"logprobs", "advantages", REFERENCE}
        return DataKind(frozenset(fields | {"weights"} if self.options.weights else fields), "group", "advantages")

    @property
    def reward(self) -> str | None:
        """Name of the registered reward; None if the task's own reward grades."""
        return self.options.reward

    @property
    def evaluation(self) -> str:
        """How held-out prompts are answered."""
        return self.options.evaluation

    def with_options(self, given: Mapping[str, Any]) -> Rl:
        """Return this recipe with other options; a reward that is a function is registered, as a loss function is.

        Raises:
            ConfigError: As :class:`RlOptions`.
        """
        options = replace(self.options, **given)
        return Rl(replace(options, reward=_registered(options.reward)))

    def trainer(self, client: TrainingClientProtocol, job: Any, seed: int) -> GuardedTrainer:
        """As :meth:`Recipe.trainer`: samples rollouts and trains on them."""
        from .rl_trainer import RlTrainer

        return RlTrainer(client, job, seed)

    def trend_key(self, record: StepRecord) -> Hashable:
        """As :meth:`Recipe.trend_key`: rollouts that one version of the reward graded, with the same options."""
        return comparison_key(record)

    def advice(self, recent: Sequence[StepRecord]) -> dict[str, str]:
        """As :meth:`Recipe.advice`: findings about the rollouts."""
        return rl_findings(recent)

    def takes(self, row: Any) -> bool:
        """Return True for a prompt without a completion: text, chat messages, or a row or object with a ``prompt``."""
        if isinstance(row, Mapping) and {"completion", "response", "label"} & set(cast("Mapping[str, Any]", row)):
            return False
        try:
            task_of([row])
        except DataError:
            return False
        return True

    def prepare(
        self, tokenizer: Tokenizer, data: Any, held_out: Any, *, seed: int, max_length: int | None = None
    ) -> RlJob:
        """Load the prompts.

        Args:
            tokenizer: The model's.
            data: None for two-digit additions, or what :func:`mint_lab.data.task_of` takes.
            held_out: Likewise; None for the task's own, or a seeded tenth of ``data``.
            seed: Seed of that split.
            max_length: A longer prompt is refused, or left out if bad rows are; one that leaves less than
                ``max_tokens`` for the response is noted.

        Raises:
            DataError: If there are no prompts, an example has no prompt, there are neither answers nor a reward, or a
                prompt leaves no token for a response.
        """
        source, other = Rows.of(data), None if held_out is None else Rows.of(held_out)
        task = task_of(source)
        if self.options.reward is None:
            _check_answers(task)
        train = list(task.problems(_count(task, TRAIN_PROMPTS), split="train"))
        train_rows = _row_numbers(source, len(train))
        held_out_task, test = _held_out(task, other)
        test_rows = list(range(len(test))) if other is None else _row_numbers(other, len(test))
        if other is None and not test:
            other = source
            train_rows, test_rows = split(train_rows, seed)
            train, test = split(train, seed)
        if not train:
            raise DataError("there is nothing to train on: the data are empty")
        if not test:
            raise DataError("there is nothing to evaluate on: the held-out data are empty")
        options = self.options
        if options.max_tokens is None:
            options = replace(options, max_tokens=getattr(task, "max_tokens", ExampleTask.max_tokens))
        training = Prompts(task, train, tokenizer, "training", train_rows, source)
        evaluated = Prompts(held_out_task, test, tokenizer, "held-out", test_rows, other)
        room = options.max_tokens or 0
        skip = source.on_bad_row == "skip"
        training, evaluated = (_fitting(each, max_length, room, skip=skip) for each in (training, evaluated))
        return RlJob(training, evaluated, options)


def _fitting(prompts: Prompts, max_length: int | None, max_tokens: int, *, skip: bool) -> Prompts:
    """Return the prompts that leave a token for a response; warn of those that leave fewer than ``max_tokens``.

    Raises:
        DataError: If one leaves none, and bad rows are errors, or none does.
    """
    kept: list[int] = []
    refused: dict[int, str] = {}
    tight: list[int] = []
    for index in range(len(prompts)):
        try:
            length = len(prompts.encoded(index)[0])
            if max_length is not None and length >= max_length:
                raise DataError(
                    f"{prompts.what} example: the prompt has {length} tokens and the limit is {max_length}, expected "
                    "room for a response; shorten the prompt, remove the row, or give on_bad_row='skip'",
                    index=prompts.row(index),
                    field="prompt",
                )
        except DataError as error:
            if not skip:
                raise
            refused[prompts.row(index)] = error.message
            continue
        kept.append(index)
        if max_length is not None and length + max_tokens > max_length:
            tight.append(prompts.row(index))
    if not kept:
        raise DataError(f"none of the {len(prompts)} {prompts.what} prompts leaves room for a response")
    notes = [f"{len(refused)} {prompts.what} prompts were left out ({named_rows(list(refused))})"] if refused else []
    if tight:
        notes.append(
            f"{len(tight)} {prompts.what} prompts leave fewer than max_tokens={max_tokens} of {max_length} tokens for "
            f"a response ({named_rows(tight)})"
        )
    warn_of(False, notes)
    if not refused:
        return prompts
    rows = [prompts.row(index) for index in kept]
    return replace(prompts, examples=[prompts.examples[index] for index in kept], rows=rows, refused=refused)


def _row_numbers(source: Rows, count: int) -> list[int]:
    """Return the numbers of the rows of ``source`` that became its ``count`` examples, from 0."""
    return [row for row in range(count + len(source.skipped)) if row not in source.skipped]


def _registered(reward: str | Callable[..., Any] | None) -> str | None:
    """Return the registered name of a reward; a function is registered first, and replaces no other."""
    if reward is None:
        return None
    if isinstance(reward, str):
        return REWARDS[reward].name
    return REWARDS.add(reward if isinstance(reward, Reward) else reward_of(reward)).name


def _count(task: PromptTask, generated: int) -> int:
    """Return how many examples to take: all that were given, or ``generated`` of a task that generates them."""
    return max(len(task.examples), len(task.held_out)) if isinstance(task, ExampleTask) else generated


def _held_out(task: PromptTask, given: Rows | None) -> tuple[PromptTask, list[Any]]:
    """Return the task that grades held-out examples, and the examples."""
    if given is None:
        return task, list(task.problems(_count(task, HELD_OUT_PROMPTS), split="held_out"))
    other = task_of(given)
    split = "train" if isinstance(other, ExampleTask) else "held_out"
    # Plain rows belong to the same task as the training examples.
    held_out_task = task if isinstance(task, ExampleTask) and isinstance(given.source, list) else other
    return held_out_task, list(other.problems(_count(other, HELD_OUT_PROMPTS), split=split))


def _check_answers(task: PromptTask) -> None:
    if not isinstance(task, ExampleTask) or task.reward_of is not exact_match:
        return
    for index, example in enumerate(task.examples):
        if not isinstance(example, Mapping) or "answer" not in example:
            raise DataError(
                "the prompt has no 'answer' to compare a response with; give reward=, a function "
                "(response_text, example) -> float or the name of a registered reward",
                index=index,
            )
