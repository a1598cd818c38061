"""Grading: the order of rewards, what a failure says, and when a slow reward is cancelled."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from mint_lab.data import ExampleTask
from mint_lab.data.rewards import Reward
from mint_lab.errors import RewardError
from mint_lab.recipes.rl.grading import grade_groups
from mint_lab.recipes.rl.rl_job import Prompts
from mint_lab.recipes.rl.rollout import SampledGroup, SampledResponse

from ...runs.bigram import CharTokenizer

EXAMPLES = [{"prompt": "a:", "best": "x"}, {"prompt": "b:", "best": "y"}]


def prompts(what: str = "training") -> Prompts:
    task = ExampleTask("mine", EXAMPLES, prompt_of=lambda x: x["prompt"], reward_of=lambda text, x: 0.0)
    return Prompts(task, EXAMPLES, CharTokenizer(), what)


def group(index: int, *texts: str) -> SampledGroup:
    return SampledGroup(index, [], EXAMPLES[index]["prompt"], [SampledResponse([1], [0.0], t, False) for t in texts])


GROUPS = [group(1, "x", "y"), group(0, "x", "xx", "y")]


def right(response_text: str, example: Any) -> float:
    return float(response_text == example["best"])


def test_rewards_are_in_the_order_of_groups_and_responses() -> None:
    """Each response is graded with its own example."""
    assert grade_groups(GROUPS, prompts(), Reward("right", right)) == [[0.0, 1.0], [1.0, 0.0, 0.0]]
    assert grade_groups([], prompts(), Reward("right", right)) == []


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (lambda response_text, example: 1 / 0, "ZeroDivisionError: division by zero"),
        (lambda response_text, example: float("nan"), "returned nan, expected a finite number"),
        (lambda response_text, example: "good", "returned 'good' .str., expected a number"),
    ],
)
def test_failing_reward_names_example_prompt_and_response(fn: Any, words: str) -> None:
    def fails_on_xx(response_text: str, example: Any) -> Any:
        return fn(response_text, example) if response_text == "xx" else 0.0

    reward = Reward("mine", fails_on_xx)
    with pytest.raises(RewardError, match=words) as caught:
        grade_groups(GROUPS, prompts(), reward)
    assert "on example 0, prompt 'a:', response 'xx'" in str(caught.value)
    error = caught.value
    assert (error.index, error.prompt, error.response, error.reward) == (0, "a:", "xx", reward)


@pytest.mark.parametrize("what", ["training", "held-out"])
def test_reward_that_leaves_python_names_the_response(what: str) -> None:
    """Held-out prompts are graded after the update, so only a training failure leaves the weights unchanged."""

    def leaves(response_text: str, example: Any) -> float:
        raise SystemExit

    with pytest.raises(RewardError, match=r"raised SystemExit.*on example 1, prompt 'b:', response 'x'") as caught:
        grade_groups(GROUPS, prompts(what), Reward("leaves", leaves))
    assert str(caught.value).endswith(". No weight was changed") == (what == "training")


def test_endless_reward_is_cancelled_on_request() -> None:
    graded: list[str] = []

    def endless(response_text: str, example: Any) -> float:
        graded.append(response_text)
        while response_text == "xx":
            pass
        return 0.0

    with pytest.raises(RewardError, match=r"mine v1.*it had not returned after .*response 'xx'"):
        grade_groups(GROUPS, prompts(), Reward("mine", endless), cancel_requested=lambda: True, cancel_after=0.05)
    assert graded == ["x", "y", "x", "xx"]


@pytest.mark.parametrize("requested", [True, False])
def test_each_response_may_take_twice_the_longest_one(monkeypatch: pytest.MonkeyPatch, requested: bool) -> None:
    """More is cancelled, and only on request. Before, the limit is ``cancel_after``: 1, 3, 6, 13, 26 s in turn."""
    now, polls, answers = 0.0, [], []

    def called_at_once(fn: Any, args: Any, *, should_cancel: Any) -> Any:
        polls.append(should_cancel)
        return fn(*args)

    monkeypatch.setattr("mint_lab.recipes.rl.grading.time", SimpleNamespace(perf_counter=lambda: now))
    monkeypatch.setattr("mint_lab.recipes.rl.grading.call_guarded", called_at_once)
    seconds = iter([(1.0, 1.5), (2.0, 3.0), (4.0, 6.5), (10.0, 13.0), (26.0, 26.5)])

    def slow(response_text: str, example: Any) -> float:
        nonlocal now
        began = now
        for after in next(seconds):
            now = began + after
            answers.append(polls[0](1e9))
        return 1.0

    rewards = grade_groups(
        GROUPS, prompts(), Reward("slow", slow), cancel_requested=lambda: requested, cancel_after=1.0
    )
    assert rewards == [[1.0] * 2, [1.0] * 3]
    too_long = [False, True, False, False, False, True, False, False, False, True]
    assert answers == [requested and answer for answer in too_long]
