"""Tasks for reinforcement learning: prompts and a reward for the responses to them.

A task is any object with the four members of :class:`PromptTask`. Three are here:

- :class:`Task`: the bundled problems of one or several kinds, by name in ``TASKS``.
- :class:`PlainAddition`: two-digit additions, the default of a run and of the lessons.
- :class:`ExampleTask`: a list of examples of any type with two functions.

:func:`task_of` turns whatever holds prompts into a task.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, cast

from ..errors import DataError, one_of
from .chats import SYSTEM_COLUMNS, Prompt, prompt_of
from .problems import KINDS, Problem, addition_problems, check_count_and_split, problems, reward
from .rewards import exact_match, gsm8k_reward
from .sources import HUB_NAME, Rows, rows

__all__ = ["TASKS", "ExampleTask", "PlainAddition", "PromptTask", "Task", "is_task", "load_gsm8k", "task_of"]

GSM8K_TOKENS = 300
# Columns of a row that belong to its chat.
OTHER_COLUMNS = frozenset({"tools", "chat_template_kwargs", *SYSTEM_COLUMNS})


class PromptTask(Protocol):
    """What reinforcement learning needs from a task. Examples may have any type; only the task reads them."""

    @property
    def name(self) -> str: ...

    def problems(self, n: int, seed: int = 0, split: str = "train") -> Sequence[Any]:
        """Return up to ``n`` examples of ``split``, "train" or "held_out"; none if the task has no such split."""
        ...

    def prompt(self, problem: Any) -> Prompt:
        """Return the text or chat messages that the model continues."""
        ...

    def reward(self, response_text: str, problem: Any) -> float:
        """Grade a response; higher is better."""
        ...


@dataclass(frozen=True, slots=True)
class Task:
    """Bundled problems of one or several kinds, and the reward of a response.

    Attributes:
        name: Displayed in pickers and stored in records.
        kinds: Operations that it draws problems from, in equal shares.
        prefix: Text before every prompt, such as worked examples.
    """

    name: str
    kinds: tuple[str, ...]
    prefix: str = ""

    def problems(self, n: int, seed: int = 0, split: str = "train") -> list[Problem]:
        """Return ``n`` problems whose kinds alternate; the same list for the same arguments.

        Raises:
            DataError: If a kind or the split is unknown, or ``n`` is negative.
        """
        check_count_and_split(n, split)
        per_kind = -(-n // len(self.kinds))  # n / kinds, rounded up
        columns = [problems(kind, per_kind, seed=seed, split=split) for kind in self.kinds]
        return [column[i] for i in range(per_kind) for column in columns][:n]

    def prompt(self, problem: Problem) -> str:
        """Return the text that the model continues."""
        return self.prefix + problem.prompt

    def reward(self, response_text: str, problem: Problem) -> float:
        """Return 1.0 for a right response, else 0.0; see :func:`mint_lab.data.reward`."""
        return reward(response_text, problem)


TASKS: dict[str, Task] = {
    **{kind: Task(kind, (kind,)) for kind in KINDS},
    "arithmetic": Task("arithmetic", ("addition", "subtraction", "multiplication")),
    "everything": Task("everything", KINDS),
}
"""Bundled tasks by name."""


@dataclass(frozen=True)
class PlainAddition:
    """Two-digit additions in one phrasing; every other one has a carry. The lessons use this task."""

    name: str = "two-digit addition"

    def problems(self, n: int, seed: int = 0, split: str = "train") -> list[Problem]:
        """Return what :func:`mint_lab.data.addition_problems` returns."""
        return addition_problems(n, seed, split)

    def prompt(self, problem: Problem) -> str:
        return problem.prompt

    def reward(self, response_text: str, problem: Problem) -> float:
        """Return 1.0 for the right sum, else 0.0."""
        return reward(response_text, problem)


@dataclass(frozen=True)
class ExampleTask:
    """Examples of any type, with the functions that turn one into a prompt and grade a response to it.

    Attributes:
        name: Stored in records.
        examples: Examples to train on.
        held_out: Examples to evaluate on. If there are none, a run holds out a tenth of ``examples``.
        prompt_of: Maps an example to text or chat messages; by default the example itself, or its ``prompt``.
        reward_of: ``(response_text, example) -> float``.
        max_tokens: Default limit of a response, tokens.
        stop: Strings that end a response, in addition to the end-of-text token.
    """

    name: str
    examples: Sequence[Any]
    held_out: Sequence[Any] = ()
    prompt_of: Callable[[Any], Prompt] | None = None
    reward_of: Callable[[str, Any], float] = exact_match
    max_tokens: int = 16
    stop: tuple[str, ...] = ()

    def problems(self, n: int, seed: int = 0, split: str = "train") -> Sequence[Any]:
        """Return the first ``n`` examples of the split. ``seed`` has no effect."""
        return (self.held_out if split == "held_out" else self.examples)[:n]

    def prompt(self, problem: Any) -> Prompt:
        return problem_prompt(problem) if self.prompt_of is None else self.prompt_of(problem)

    def reward(self, response_text: str, problem: Any) -> float:
        return self.reward_of(response_text, problem)


def problem_prompt(example: Any) -> Prompt:
    """Return an example's prompt: itself (text or messages), a mapping's ``prompt``, or its attribute ``prompt``."""
    if isinstance(example, str | list):
        return cast("str | list[Any]", example)
    if isinstance(example, Mapping):
        row = cast("Mapping[str, Any]", example)
        prompt = row["prompt"]
        # A chat keeps what other columns of its row say: a system message, tools, arguments for the chat template.
        is_chat = isinstance(prompt, list) and OTHER_COLUMNS & set(row)
        return prompt_of(cast("Prompt", prompt), row, None) if is_chat or isinstance(prompt, str) else prompt
    return example.prompt


def load_gsm8k(path: str | os.PathLike[str], *, limit: int | None = None) -> ExampleTask:
    """Load grade-school mathematics: rows with ``question`` and ``answer``, whose number follows ``####``.

    The reward is :func:`mint_lab.data.rewards.gsm8k_reward` (Cobbe et al. 2021, arXiv:2110.14168).

    Args:
        path: A file that ends in ``.jsonl``, ``.jsonl.gz`` or ``.parquet``.
        limit: Maximum number of rows to read; None for all.

    Raises:
        DataError: If there is no such file, or a row lacks a question, an answer or a number after ``####``
            (``error.index`` is the row's index).
    """
    return _gsm8k(Rows(Path(path), max_rows=limit))


def _gsm8k(given: Rows) -> ExampleTask:
    examples = given.map(_checked_gsm8k)
    return ExampleTask("gsm8k", examples, (), _gsm8k_prompt, gsm8k_reward, GSM8K_TOKENS, ("\nQuestion:",))


def task_of(source: Any) -> PromptTask:
    """Return the task that ``source`` names or holds.

    Args:
        source: One of

            - None: two-digit additions,
            - the name of a bundled task, or a task,
            - a path to a file with GSM8K's columns or a column ``prompt``,
            - a data frame, a data set or a list of prompts, of rows, or of objects with a ``prompt``.

            A reward receives a row unchanged, so ``example["answer"]`` is the column of that name.

    Raises:
        DataError: If the name is unknown, or an example has no prompt (``error.index`` is its index).
    """
    given = Rows.of(source)
    source = given.source
    if source is None:
        return PlainAddition()
    if isinstance(source, str) and source in TASKS:
        return TASKS[source]
    if is_task(source):
        return cast(PromptTask, source)
    if isinstance(source, str) and not os.path.splitext(source)[1] and not HUB_NAME.fullmatch(source):  # noqa: PTH122 (a name without a suffix: no path)
        raise DataError(f"unknown task {source!r}; {one_of(list(TASKS), source)} (or a file, or a list of prompts)")
    first = next(rows(source), None) if isinstance(source, str | os.PathLike) else None
    if isinstance(first, Mapping) and {"question", "answer"} <= set(first):
        return _gsm8k(given)
    return ExampleTask("prompts", given.map(_checked_prompt))


def is_task(source: Any) -> bool:
    """Return True if ``source`` is a task, and not rows or a name."""
    return all(callable(getattr(source, member, None)) for member in ("problems", "prompt", "reward"))


def _checked_prompt(example: Any, index: int) -> Any:
    """Return ``example``; raise :class:`DataError` if it has no prompt, or one that is neither text nor messages."""
    try:
        prompt: Any = problem_prompt(example)
    except (AttributeError, KeyError):
        raise DataError(
            f"found {_kind(example)}, expected text, or a row or object with a 'prompt'", index=index, field="prompt"
        ) from None
    is_chat = isinstance(prompt, Sequence) and all(isinstance(message, Mapping) for message in prompt)
    if not isinstance(prompt, str) and not (is_chat and len(prompt)):
        raise DataError(f"found {_kind(prompt)}, expected text or chat messages", index=index, field="prompt")
    return example


def _kind(value: Any) -> str:
    """Describe a value that is not what was expected, for a message."""
    if isinstance(value, Mapping):
        return f"a row with {', '.join(sorted(map(str, cast('Mapping[Any, Any]', value)))) or 'no columns'}"
    return type(value).__name__


def _checked_gsm8k(row: Any, index: int) -> Any:
    """Return a row; raise :class:`DataError` if it lacks a question, an answer or its number."""
    for field in ("question", "answer"):
        if not isinstance(row, Mapping) or not isinstance(cast("Mapping[str, Any]", row).get(field), str):
            raise DataError(f"found {_kind(row)}, expected GSM8K's question and answer", index=index, field=field)
    answer = cast("Mapping[str, str]", row)["answer"]
    if not gsm8k_reward(answer, row):
        raise DataError("found no number after '####', expected the answer there", index=index, field="answer")
    return row


def _gsm8k_prompt(row: Mapping[str, str]) -> str:
    return f"Question: {row['question']}\nThink step by step, and end with #### and the number.\nAnswer:"
