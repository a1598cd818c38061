"""Which sources become a task, and which examples are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mint_lab.data import TASKS, ExampleTask, Problem, Task, load_gsm8k, task_of
from mint_lab.data.tasks import PlainAddition
from mint_lab.errors import DataError

ROWS = [
    {"question": "2 + 2?", "answer": "It is <<2+2=4>>4.\n#### 4"},
    {"question": "How much?", "answer": "#### 1,000"},
]


def jsonl(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_default_task_is_two_digit_addition() -> None:
    task = task_of(None)
    assert isinstance(task, PlainAddition)
    first = task.problems(3)[0]
    assert task.prompt(first).startswith("Question: What is ")
    assert task.reward(first.answer, first) == 1
    assert task.reward(" 1", first) == 0
    train = {p.operands for p in task.problems(3000)}
    assert not train & {p.operands for p in task.problems(400, split="held_out")}


@pytest.mark.parametrize("name", ["arithmetic", "sort", "reverse"])
def test_bundled_tasks_by_name(name: str) -> None:
    task = task_of(name)
    assert task is TASKS[name]
    assert [task.reward(p.answer, p) for p in task.problems(20)] == [1] * 20


def test_task_alternates_its_kinds() -> None:
    drawn = TASKS["arithmetic"].problems(7, seed=2, split="held_out")
    assert [p.kind for p in drawn] == ["addition", "subtraction", "multiplication"] * 2 + ["addition"]
    assert drawn == TASKS["arithmetic"].problems(7, seed=2, split="held_out")


def test_task_prefix_precedes_the_prompt() -> None:
    problem = Problem("addition", (1, 2), "Question: What is 1 + 2?\nAnswer:", " 3")
    task = Task("with a prefix", ("addition",), prefix="Answer with a number.\n")
    assert task.prompt(problem) == "Answer with a number.\nQuestion: What is 1 + 2?\nAnswer:"
    assert task.reward(" 3", problem) == 1.0


def test_gsm8k_from_a_file(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "gsm8k.jsonl", ROWS)
    for task in (load_gsm8k(path), task_of(path), task_of(str(path))):
        assert task.name == "gsm8k"
        question, other = task.problems(10)
        assert str(task.prompt(question)).startswith("Question: 2 + 2?\n")
        assert [task.reward(text, question) for text in ("#### 4", "4", "#### 5")] == [1, 0, 0]
        assert task.reward("#### 1000", other) == 1
    assert len(load_gsm8k(path, limit=1).examples) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"question": "?", "answer": "no mark"}, "datum 2, field 'answer': found no number after '####'"),
        ({"question": "?"}, "datum 2, field 'answer': found a row with question, expected GSM8K"),
        ({"question": 3, "answer": "#### 1"}, "datum 2, field 'question'"),
    ],
)
def test_bad_gsm8k_row_is_named(tmp_path: Path, row: Any, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load_gsm8k(jsonl(tmp_path / "x.jsonl", [*ROWS, row]))
    assert caught.value.index == 2


def test_task_of_a_list_of_prompts() -> None:
    texts = task_of(["a", "b"])
    assert [texts.prompt(x) for x in texts.problems(5)] == ["a", "b"]
    chat = [{"role": "user", "content": "hi"}]
    rows = task_of([{"prompt": chat, "answer": "yo"}])
    (row,) = rows.problems(5)
    assert rows.prompt(row) == chat
    assert (rows.reward("yo", row), rows.reward("no", row)) == (1, 0)
    assert rows.problems(5, split="held_out") == ()


def test_task_of_returns_a_task_unchanged() -> None:
    task = ExampleTask("mine", [1, 2], [3], prompt_of=lambda n: f"{n}:", reward_of=lambda text, n: float(text) - n)
    assert task_of(task) is task
    assert task.prompt(2) == "2:"
    assert task.reward("5", 2) == 3
    assert task.problems(9, split="held_out") == [3]


def test_bad_sources_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown task 'aritmetic'.*did you mean 'arithmetic'"):
        task_of("aritmetic")
    with pytest.raises(DataError, match=r"no\.jsonl is missing"):
        task_of(tmp_path / "no.jsonl")
    with pytest.raises(DataError, match="nothing to train on"):
        task_of([])
    with pytest.raises(DataError, match="datum 1, field 'prompt': found a row with text, expected text, or a row"):
        task_of(["a", {"text": "b"}])
    with pytest.raises(DataError, match="datum 0, field 'prompt': found int, expected text or chat messages"):
        task_of([{"prompt": 3}])
    with pytest.raises(DataError, match="empty"):
        load_gsm8k(jsonl(tmp_path / "e.jsonl", []))
