"""Tasks for reinforcement learning: prompts, and a reward for what is answered to them.

A task is anything with the four members of :class:`PromptTask`; :class:`mint_lab.data.Task` (the bundled problems) is
one, :class:`ExampleTask` another: a list of examples of any kind, with two functions. :func:`task_of` makes one of
whatever holds prompts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from ..errors import DataError, one_of
from .problems import TASKS, Problem, Task, addition_problems, reward
from .render import Prompt
from .rewards import exact_match, gsm8k_reward
from .sources import rows

__all__ = ["ExampleTask", "PlainAddition", "PromptTask", "load_gsm8k", "task_of"]

GSM8K_TOKENS = 300


class PromptTask(Protocol):
    """What reinforcement learning needs of a task; examples are of the task's own kind."""

    @property
    def name(self) -> str: ...

    def problems(self, n: int, seed: int = 0, split: str = "train") -> Sequence[Any]:
        """Up to ``n`` examples of ``split``, "train" or "held_out"; none where the task has no such split."""
        ...

    def prompt(self, problem: Any) -> Prompt:
        """Text or chat messages for the model to continue."""
        ...

    def reward(self, response_text: str, problem: Any) -> float:
        """How good a response is; higher is better."""
        ...


@dataclass(frozen=True)
class ExampleTask:
    """Examples of any kind, with the functions that make a prompt of one and grade a response to it.

    Attributes:
        name: what it is called in records.
        examples, held_out: to train on and to evaluate on; without the latter a run holds a tenth of the former out.
        prompt_of: example -> text or chat messages; by default the example itself, or its ``prompt``.
        reward_of: ``(response_text, example) -> float``.
        max_tokens: a sensible limit for a response, tokens.
        stop: strings that end a response, besides the end-of-text token.
    """

    name: str
    examples: Sequence[Any]
    held_out: Sequence[Any] = ()
    prompt_of: Callable[[Any], Prompt] | None = None
    reward_of: Callable[[str, Any], float] = exact_match
    max_tokens: int = 16
    stop: tuple[str, ...] = ()

    def problems(self, n: int, seed: int = 0, split: str = "train") -> Sequence[Any]:
        """The first ``n`` examples of the split; ``seed`` changes nothing."""
        return (self.held_out if split == "held_out" else self.examples)[:n]

    def prompt(self, problem: Any) -> Prompt:
        return problem_prompt(problem) if self.prompt_of is None else self.prompt_of(problem)

    def reward(self, response_text: str, problem: Any) -> float:
        return self.reward_of(response_text, problem)


@dataclass(frozen=True)
class PlainAddition:
    """Two-digit additions, all phrased alike, every other one with a carry: what the lessons are about."""

    name: str = "two-digit addition"

    def problems(self, n: int, seed: int = 0, split: str = "train") -> list[Problem]:
        """As :func:`mint_lab.data.addition_problems`."""
        return addition_problems(n, seed, split)

    def prompt(self, problem: Problem) -> str:
        return problem.prompt

    def reward(self, response_text: str, problem: Problem) -> float:
        """1.0 for the right sum, else 0.0."""
        return reward(response_text, problem)


def problem_prompt(example: Any) -> Prompt:
    """The prompt of an example: itself (text, messages), a mapping's ``prompt``, or an attribute of that name."""
    if isinstance(example, str | list):
        return cast("str | list[Any]", example)
    if isinstance(example, Mapping):
        return cast("Mapping[str, Any]", example)["prompt"]
    return example.prompt


def load_gsm8k(path: str | os.PathLike[str], *, limit: int | None = None) -> ExampleTask:
    """Grade-school mathematics from a JSONL file of ``question`` and ``answer``, the number after ``####``.

    The reward is :func:`mint_lab.data.rewards.gsm8k_reward` (Cobbe et al. 2021, arXiv:2110.14168).

    Args:
        path: a file ending in ``.jsonl``, ``.jsonl.gz`` or ``.parquet``.
        limit: read this many rows at most.

    Raises:
        DataError: no such file, or a row without question, answer, or ``####`` number (its place is ``error.index``).
    """
    examples: list[Any] = []
    for index, row in enumerate(rows(Path(path))):
        if limit is not None and index == limit:
            break
        _check_gsm8k(row, index)
        examples.append(row)
    if not examples:
        raise DataError(f"{path} is empty, expected at least one row")
    return ExampleTask("gsm8k", examples, (), _gsm8k_prompt, gsm8k_reward, GSM8K_TOKENS, ("\nQuestion:",))


def task_of(source: Any) -> PromptTask:
    """The task that ``source`` means.

    Args:
        source: None for two-digit additions; the name of a bundled task; a task; a path (GSM8K's columns, or
            ``prompt``); a data frame, a data set or a list of prompts, or of rows or objects that have a ``prompt``.
            A reward sees a row as it is, so ``example["answer"]`` is its column of that name.

    Raises:
        DataError: an unknown name, or an example without a prompt (its place is ``error.index``).
    """
    if source is None:
        return PlainAddition()
    if isinstance(source, str) and source in TASKS:
        return TASKS[source]
    if isinstance(source, Task) or all(callable(getattr(source, m, None)) for m in ("problems", "prompt", "reward")):
        return cast(PromptTask, source)
    if isinstance(source, str) and not os.path.splitext(source)[1]:  # noqa: PTH122, a name, not a path yet
        raise DataError(f"unknown task {source!r}; {one_of(list(TASKS), source)} (or a file, or a list of prompts)")
    examples = list(rows(source))
    if not examples:
        raise DataError("there is nothing to train on: the data are empty")
    if isinstance(source, str | os.PathLike) and {"question", "answer"} <= set(examples[0]):
        return load_gsm8k(source)
    for index, example in enumerate(examples):
        _check_prompt(example, index)
    return ExampleTask("prompts", examples)


def _check_prompt(example: Any, index: int) -> None:
    try:
        prompt: Any = problem_prompt(example)
    except (AttributeError, KeyError):
        raise DataError(
            f"found {_kind(example)}, expected text, or a row or object with a 'prompt'", index=index, field="prompt"
        ) from None
    is_chat = isinstance(prompt, Sequence) and all(isinstance(message, Mapping) for message in prompt)
    if not isinstance(prompt, str) and not (is_chat and len(prompt)):
        raise DataError(f"found {_kind(prompt)}, expected text or chat messages", index=index, field="prompt")


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"a row with {', '.join(sorted(map(str, cast('Mapping[Any, Any]', value)))) or 'nothing'}"
    return type(value).__name__


def _check_gsm8k(row: Any, index: int) -> None:
    for field in ("question", "answer"):
        if not isinstance(row, Mapping) or not isinstance(cast("Mapping[str, Any]", row).get(field), str):
            raise DataError(f"found {_kind(row)}, expected GSM8K's question and answer", index=index, field=field)
    answer = cast("Mapping[str, str]", row)["answer"]
    if not gsm8k_reward(answer, row):
        raise DataError("has no number after '####'", index=index, field="answer")


def _gsm8k_prompt(row: Mapping[str, str]) -> str:
    return f"Question: {row['question']}\nThink step by step, and end with #### and the number.\nAnswer:"
