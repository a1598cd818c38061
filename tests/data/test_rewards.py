"""Rewards: what they grade, what the error of a bad one says, and how they are registered."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mint_lab
from mint_lab.data.problems import make_problem
from mint_lab.data.rewards import (
    REWARDS,
    Reward,
    exact_match,
    final_number,
    format_reward,
    grade,
    gsm8k_reward,
    reward,
    reward_of,
)
from mint_lab.data.tasks import task_of
from mint_lab.errors import ConfigError, RewardError


@pytest.mark.parametrize(("response", "value"), [(" 19", 1), ("\n 19\nmore", 1), (" 18", 0), ("19 or 18", 0), ("", 0)])
def test_exact_match_of_a_bundled_problem(response: str, value: float) -> None:
    assert exact_match(response, make_problem("addition", (12, 7))) == value


@pytest.mark.parametrize(
    ("kind", "operands", "right", "wrong"),
    [("sort", (5, 3, 9), " 3 5 9", " 3 9 5"), ("reverse", (5, 3, 9), " 9 3 5", " 5 3 9")],
)
def test_exact_match_of_lists(kind: str, operands: Any, right: str, wrong: str) -> None:
    problem = make_problem(kind, operands)
    assert (exact_match(right, problem), exact_match(wrong, problem)) == (1, 0)


def test_examples_of_every_source_are_mappings(tmp_path: Path) -> None:
    def matches(response_text: str, example: Any) -> float:
        return float(response_text == example["answer"])

    path = tmp_path / "gsm8k.jsonl"
    path.write_text(json.dumps({"question": "2+2?", "answer": "#### 4"}), encoding="utf-8")
    for source in (None, "addition", [{"prompt": "2+2?", "answer": "4"}], path):
        (example,) = task_of(source).problems(1)
        assert matches(example["answer"], example) == 1
        assert {"answer"} < set(example) == set(dict(example))


def test_reward_error_lists_the_fields_of_the_example() -> None:
    problem = make_problem("addition", (12, 7))
    with pytest.raises(RewardError, match=r"KeyError: 'solution'.*example\['prompt'\], example\['answer'\]"):
        grade(reward_of(lambda response, example: example["solution"]), "19", problem, index=0, prompt=problem.prompt)
    with pytest.raises(RewardError, match="the example is of type str, not a row"):
        grade(reward_of(lambda response, example: example["solution"]), "19", "12+7", index=0, prompt="12+7")


def test_exact_match_of_a_row() -> None:
    assert exact_match("\n  Paris \nor Rome", {"answer": "Paris"}) == 1
    assert exact_match("Paris, France", {"answer": "Paris"}) == 0
    assert exact_match("42", {"answer": 42}) == 1


def test_format_reward() -> None:
    tagged = format_reward(r"<think>.*</think>\s*<answer>.*</answer>")
    assert tagged("<think>2\n+2</think>\n<answer>4</answer>\n", None) == 1
    assert tagged("the answer: <think></think><answer>4</answer>", None) == 0
    assert [REWARDS["number_format"].fn(text, None) for text in (" 19 ", "-3", "19.", "nineteen", "")] == [
        1,
        1,
        0,
        0,
        0,
    ]
    with pytest.raises(ConfigError, match="not a regular expression"):
        format_reward("(")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("so\n#### 18", 18),
        ("#### 1 then #### 1,234.50", 1234.5),
        ("####-7", -7),
        ("#### $70,000.", 70000),
        ("18", None),
        ("#### eighteen", None),
    ],
)
def test_final_number(text: str, number: float | None) -> None:
    assert final_number(text) == number


def test_gsm8k_by_hand() -> None:
    row = {"question": "?", "answer": "9 * 2 = <<9*2=18>>18\n#### 18"}
    assert [gsm8k_reward(text, row) for text in ("#### 18", "#### 18.0", "18", "#### 81")] == [1, 1, 0, 0]
    assert gsm8k_reward("no mark", {"answer": "no mark either"}) == 0, "two missing numbers do not match"


@pytest.mark.parametrize("value", [1, 0.5, True, np.float32(0.5), np.int64(3), Fraction(1, 2)])
def test_grade_accepts_every_real_number_type(value: Any) -> None:
    graded = grade(Reward("mine", lambda response, example: value), "r", None, index=0, prompt="p")
    assert type(graded) is float
    assert graded == float(value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (float("nan"), "returned nan, expected a finite number"),
        (float("inf"), "returned inf, expected a finite number"),
        (None, "returned None, expected a number"),
        ("1", "returned '1' (str), expected a number"),
        ([1], "returned '[1]' (list), expected a number"),
    ],
)
def test_error_of_an_invalid_value_names_the_example(value: Any, words: str) -> None:
    bad = Reward("mine", lambda response, example: value, version=3)
    with pytest.raises(RewardError) as caught:
        grade(bad, "the response", None, index=7, prompt="the prompt")
    assert str(caught.value).startswith(f"mine v3: {words}, on example 7, prompt 'the prompt', response 'the response'")
    error = caught.value
    assert (error.index, error.prompt, error.response, error.reward) == (7, "the prompt", "the response", bad)


def test_reward_error_keeps_its_cause() -> None:
    def broken(response: str, example: Any) -> float:
        return example["gold"]

    with pytest.raises(RewardError, match=r"broken v1: KeyError: 'gold', on example 2, prompt 'p', response 'r'") as e:
        grade(reward_of(broken), "r", {}, index=2, prompt="p")
    assert isinstance(e.value.__cause__, KeyError)


def test_long_texts_are_shortened_in_the_message() -> None:
    with pytest.raises(RewardError) as caught:
        grade(Reward("mine", lambda r, e: 1 / 0), "x" * 10_000, None, index=0, prompt="y" * 10_000)
    assert len(str(caught.value)) < 600
    assert len(caught.value.response) == 10_000


def test_registering_counts_versions_and_returns_the_function() -> None:
    @mint_lab.reward
    def short(response_text: str, example: Any) -> float:
        """Shorter is better."""
        return -float(len(response_text))

    assert short("abc", None) == -3
    first = REWARDS["short"]
    assert (first.label, first.summary, first.fn) == ("short v1", "Shorter is better.", short)
    assert "return -float" in first.source
    reward(name="short")(lambda response_text, example: 0.0)
    assert REWARDS["short"].label == "short v2"


def test_invalid_rewards_are_refused() -> None:
    with pytest.raises(ConfigError, match="'gsm8k' is a built-in reward"):
        reward(name="gsm8k")(lambda r, e: 1.0)
    with pytest.raises(ConfigError, match="cannot be called with two arguments"):
        reward(lambda response: 1.0)
    with pytest.raises(ConfigError, match="'my reward' cannot name a reward"):
        reward_of(lambda r, e: 1.0, "my reward")
    with pytest.raises(ConfigError, match="a reward is 3"):
        reward_of(3)  # type: ignore[arg-type]
    with pytest.raises(KeyError, match="did you mean 'exact_match'"):
        REWARDS["exact_macth"]
    assert set(REWARDS) == {"exact_match", "number_format", "gsm8k"}
