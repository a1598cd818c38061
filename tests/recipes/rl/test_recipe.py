"""The recipe rl: how it reads its data, splits them and finds its reward."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mint_lab.data import ExampleTask
from mint_lab.data.rewards import Reward, reward
from mint_lab.data.sources import Rows
from mint_lab.errors import ConfigError, DataError
from mint_lab.recipes.registry import recipe_named
from mint_lab.recipes.rl.recipe import Rl
from mint_lab.recipes.rl.rl_job import RlJob

from ...runs.bigram import CharTokenizer


def short(response_text: str, example: Any) -> float:
    return -float(len(response_text))


def prepare(data: Any = None, held_out: Any = None, **options: Any) -> RlJob:
    return Rl().with_options(options).prepare(CharTokenizer(), data, held_out, seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"group_size": 1}, "group_size is 1, expected a whole number from 2 up"),
        ({"group_sise": 4}, "unknown option 'group_sise': did you mean group_size="),
        ({"reward": "nope"}, "unknown reward 'nope'"),
        ({"reward": 3}, "a reward is 3"),
    ],
)
def test_invalid_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe_named("rl", options)


def test_default_prompts_and_reward() -> None:
    job = prepare()
    assert (job.size, len(job.held_out), job.options.max_tokens) == (4000, 400, 16)
    tokens, text = job.train.encoded(0)
    assert "".join(map(chr, tokens)) == text
    problem = job.train.examples[0]
    assert text == problem.prompt
    assert job.reward(job.train).fn(problem.answer, problem) == 1


def test_a_tenth_is_held_out() -> None:
    data = [{"prompt": f"{i}:", "answer": str(i)} for i in range(30)]
    job = prepare(data)
    assert (job.size, len(job.held_out)) == (27, 3)
    assert not {r["prompt"] for r in job.train.examples} & {r["prompt"] for r in job.held_out.examples}
    assert prepare(data).held_out.examples == job.held_out.examples


def test_held_out_rows_are_graded_by_the_same_task() -> None:
    task = ExampleTask("mine", ["a", "b"], prompt_of=lambda x: x + ":", reward_of=lambda text, x: float(text == x))
    job = prepare(task, held_out=["c"])
    assert job.held_out.encoded(0)[1] == "c:"
    assert job.reward(job.held_out).fn("c", "c") == 1
    other = prepare(task, held_out="sort")
    assert other.reward(other.held_out).label == "sort_reward v1"


def test_gsm8k_sets_limit_and_stop_string(tmp_path: Path) -> None:
    path = tmp_path / "g.jsonl"
    path.write_text("".join(json.dumps({"question": f"{i}?", "answer": f"#### {i}"}) + "\n" for i in range(20)))
    job = prepare(path)
    assert (job.size, len(job.held_out)) == (18, 2)
    assert (job.options.max_tokens, job.stop) == (300, ("\nQuestion:",))
    assert prepare(path, max_tokens=40).options.max_tokens == 40


def test_reward_function_is_registered_under_its_name() -> None:
    job = prepare(["a", "b"], reward=short)
    assert job.reward(job.train).label == "short v1"
    assert prepare(["a", "b"], reward=short).reward(job.train).label == "short v1", (
        "the same function is registered once"
    )
    assert prepare(["a", "b"], reward="short").options.reward == "short"
    reward(name="short")(lambda response_text, example: 0.0)
    assert job.reward(job.train).label == "short v2", "the next version is used"


def test_rewards_of_one_name_are_separate() -> None:
    def constant(value: float) -> Any:
        def graded(response_text: str, example: Any) -> float:
            return value

        return graded

    first = prepare(["a", "b"], reward=constant(1.0))
    second = prepare(["a", "b"], reward=constant(2.0))
    given = prepare(["a", "b"], reward=Reward("graded", constant(3.0)))
    jobs = [first, second, given]
    assert [job.reward(job.train).fn("", None) for job in jobs] == [1.0, 2.0, 3.0]
    assert [job.reward(job.train).label for job in jobs] == ["graded v1", "graded_2 v1", "graded_3 v1"]


def test_unusable_data_are_refused() -> None:
    with pytest.raises(DataError, match=r"datum 0: the prompt has no 'answer'.*give reward="):
        prepare(["a", "b"])
    with pytest.raises(DataError, match="give held_out"):
        prepare(["a"], reward="number_format")
    with pytest.raises(DataError, match="nothing to train on"):
        prepare([])
    with pytest.raises(DataError, match=r"datum 1, field 'prompt'.*no chat template") as caught:
        prepare(["x", [{"role": "user", "content": "x"}], "y"], held_out=["z"], reward="number_format")
    assert caught.value.index == 1


def test_prompts_are_checked_before_the_first_step() -> None:
    """A limit of 10 tokens, one a character: 9 leave one for a response, 10 leave none, and 7 leave 3 of 4."""
    prompts = ["12345", "1234567", "123456789"]
    with pytest.warns(
        UserWarning, match=r"2 training prompts leave fewer than max_tokens=4 of 10 tokens .*rows 1 and 2"
    ):
        job = limited(prompts, max_tokens=4)
    assert len(job.train) == 3
    with pytest.raises(DataError, match=r"datum 3, field 'prompt': training example: the prompt has 10 tokens and the"):
        limited([*prompts, "1234567890"])
    with pytest.warns(UserWarning, match=r"1 training prompts were left out \(row 0\)"):
        job = limited(Rows(["1234567890", *prompts], on_bad_row="skip"))
    assert [job.train.encoded(n)[1] for n in range(len(job.train))] == prompts
    with pytest.raises(DataError, match="none of the 1 training prompts leaves room for a response"):
        limited(Rows(["1234567890"], on_bad_row="skip"))


def limited(data: Any, max_tokens: int = 1) -> RlJob:
    recipe = Rl().with_options({"reward": "number_format", "max_tokens": max_tokens})
    return recipe.prepare(CharTokenizer(), data, ["1"], seed=0, max_length=10)


@pytest.mark.parametrize(("given", "stop"), [(None, ()), ("\n", ("\n",)), (["a", "b"], ("a", "b")), ((), ())])
def test_strings_that_end_a_response(given: Any, stop: tuple[str, ...]) -> None:
    assert prepare(["a", "b"], reward="number_format", stop=given).stop == stop


def test_a_task_has_its_own(tmp_path: Path) -> None:
    task = ExampleTask("t", ["a", "b"], stop=("\nQ:",))
    assert prepare(task, reward="number_format").stop == ("\nQ:",)
    assert prepare(task, reward="number_format", stop="#").stop == ("#",)


@pytest.mark.parametrize("stop", ["", [""], 3, [3], {"a": 1}])
def test_stops_that_are_no_texts_are_refused(stop: Any) -> None:
    with pytest.raises(ConfigError, match=r"stop is .*, expected a text or a list of texts"):
        prepare(["a", "b"], reward="number_format", stop=stop)


def test_prompts_have_the_numbers_of_their_rows() -> None:
    """Row 1 has no prompt, and rows 3 and 4 are too long; a part is held out, and the others keep their numbers."""
    rows: list[Any] = ["a", 7, "b", "1234567890", "1234567891", *"cdefghijklmnopqrstu"]
    recipe = Rl().with_options({"reward": "number_format", "max_tokens": 1})
    with pytest.warns(UserWarning, match="prompts were left out"):
        job = recipe.prepare(CharTokenizer(), Rows(rows, on_bad_row="skip"), None, seed=0, max_length=10)
    numbers = [part.row(n) for part in (job.train, job.held_out) for n in range(len(part))]
    assert sorted(numbers) == [0, 2, *range(5, 24)]
    for part in (job.train, job.held_out):
        assert [part.encoded(n)[1] for n in range(len(part))] == [rows[part.row(n)] for n in range(len(part))]
    assert job.held_out.read is job.train.read
    assert sorted([*job.train.refused, *job.held_out.refused]) == [3, 4]
    view = job.view()
    assert (view.read, sorted(view.skipped[0]), view.skipped[1], view.room) == ((24, 0), [1, 3, 4], {}, 1)
    assert [item.facts.row for item in view.items] == numbers
    with pytest.raises(DataError, match=r"datum 5, field 'prompt': .* example: the prompt has 10 tokens"):
        recipe.prepare(CharTokenizer(), [*"abcde", "1234567890"], None, seed=0, max_length=10)


def test_held_out_rows_with_limits_belong_to_the_same_task() -> None:
    task = ExampleTask("mine", ["a", "b"], prompt_of=lambda x: x + ":", reward_of=lambda text, x: float(text == x))
    assert prepare(task, held_out=Rows(["c", "d"], max_rows=1)).held_out.encoded(0)[1] == "c:"


@pytest.mark.parametrize(
    ("row", "taken"),
    [
        ("1 + 1", True),
        ([{"role": "user", "content": "x"}], True),
        ({"prompt": "x"}, True),
        ({"prompt": "x", "completion": "y", "label": True}, False),
        ({"text": "x"}, False),
        (7, False),
    ],
)
def test_rows_that_look_made_for_it(row: Any, taken: bool) -> None:
    assert Rl().takes(row) is taken
