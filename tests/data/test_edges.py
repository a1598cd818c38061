"""Data at their edges: what fits exactly, what occurs twice, and which row, field and number an error names."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from mint_lab.data import encode, to_datum
from mint_lab.data.advantages import group_advantages, has_spread, spread
from mint_lab.data.completions import load_completions
from mint_lab.data.pairs import Pair, load_pairs, pairs_to_data
from mint_lab.data.problems import HELD_OUT_SHARE, KINDS, is_held_out, make_problem, problems, slips
from mint_lab.data.render import Rendered, encode_prompt, truncate
from mint_lab.data.rewards import Reward, grade
from mint_lab.data.sources import rows
from mint_lab.data.tasks import TASKS, load_gsm8k, task_of
from mint_lab.errors import DataError, RewardError


@pytest.mark.parametrize(
    ("completion", "max_length", "prompt", "kept", "ends_lost", "beginning_lost"),
    [
        (2, 6, 3, 2, 0, False),
        (2, 5, 3, 2, 0, False),  # fits exactly
        (2, 4, 2, 2, 0, True),  # one token too long
        (2, 3, 1, 2, 0, True),  # one prompt token and the whole completion
        (2, 2, 1, 1, 1, True),
        (4, 5, 1, 4, 0, True),
        (5, 5, 1, 4, 1, True),
    ],
)
def test_truncation_at_its_edge(  # noqa: PLR0917 - a row of the table
    completion: int, max_length: int, prompt: int, kept: int, ends_lost: int, beginning_lost: bool
) -> None:
    rendered = truncate(Rendered([1, 2, 3], [list(range(10, 10 + completion))]), max_length)
    assert rendered.prompt == [1, 2, 3][-prompt:]
    assert rendered.completions == [list(range(10, 10 + kept))]
    assert (rendered.n_truncated, rendered.prompt_truncated) == (ends_lost, beginning_lost)


def test_prompt_of_one_token_is_never_truncated() -> None:
    rendered = truncate(Rendered([7], [[1, 2, 3]]), 3)
    assert (rendered.prompt, rendered.completions, rendered.prompt_truncated) == ([7], [[1, 2]], False)


def test_smallest_example_has_one_token_on_each_side() -> None:
    datum = to_datum([3, 4], 1)
    assert datum.model_input.to_ints() == [3]
    assert datum.loss_fn_inputs["weights"].to_numpy().tolist() == [1.0]
    last = to_datum([3, 4, 5], 2)
    assert last.loss_fn_inputs["weights"].to_numpy().tolist() == [0.0, 1.0]


# -- a completion that occurs elsewhere, too ---------------------------------------------------------------------------


@pytest.mark.parametrize("completion", ["cat", "the cat", "user", "end", "|", "\n", "s"])
def test_assistants_turn_is_found_though_its_text_occurs_in_prompt_and_markers(tokenizer: Any, completion: str) -> None:
    prompt = [{"role": "user", "content": f"say {completion} and {completion}"}]
    tokens, prompt_length = encode(tokenizer, prompt, completion)
    assert tokenizer.decode(tokens[prompt_length:]) == f"{completion}<|end|>\n"
    assert tokenizer.decode(tokens[:prompt_length]) == (
        f"<|user|>say {completion} and {completion}<|end|>\n<|assistant|>"
    )


THINKS = (
    "{% for m in messages %}{{ m['role'] + ': ' }}{% if m['role'] == 'assistant' %}{{ '<think></think> ' }}{% endif %}"
    "{{ m['content'] + ' -- <|end|>\n\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


@pytest.mark.parametrize("completion", ["sat", "think", " ", "-", "\n", "assistant: ", "user"])
def test_text_that_a_template_adds_around_the_turn_is_kept(tokenizer: Any, completion: str) -> None:
    """A template that writes thoughts before the content, and dashes and line breaks after it."""
    other = SimpleNamespace(
        encode=tokenizer.encode,
        eos_token="<|end|>",
        eos_token_id=tokenizer.eos_token_id,
        chat_template=THINKS,
        apply_chat_template=lambda messages, **options: tokenizer.apply_chat_template(
            messages, chat_template=THINKS, **options
        ),
    )
    prompt = [{"role": "user", "content": completion}]
    tokens, prompt_length = encode(other, prompt, completion)
    assert tokenizer.decode(tokens[prompt_length:]) == f"<think></think> {completion} -- <|end|>\n\n"


def test_end_of_text_token_is_added_once(tokenizer: Any) -> None:
    end = tokenizer.eos_token_id
    for completion in ("sat<|end|>", "sat"):
        assert encode(tokenizer, "a", completion) == ([*tokenizer.encode("a"), *tokenizer.encode("sat"), end], 1)


def test_end_that_a_tokenizer_appends_to_a_prompt_is_removed(tokenizer: Any) -> None:
    def ends(text: str, *, add_special_tokens: bool, verbose: bool) -> list[int]:
        return [*tokenizer.encode(text), *[tokenizer.eos_token_id] * add_special_tokens]

    end = tokenizer.eos_token_id
    ending = SimpleNamespace(encode=ends, eos_token="<|end|>", eos_token_id=end, bos_token_id=None)
    assert encode_prompt(ending, "the cat") == tokenizer.encode("the cat")
    assert encode_prompt(ending, "") == [end], "an empty prompt is the end-of-text token"
    assert encode_prompt(ending, "the<|end|>") == [*tokenizer.encode("the"), end, end]
    ending.bos_token_id = 0
    assert encode_prompt(ending, "") == [0], "the beginning-of-text token may have the number 0"


# -- rows --------------------------------------------------------------------------------------------------------------

GOOD = {"prompt": "a", "chosen": "b", "rejected": "c"}


@pytest.mark.parametrize("place", [0, 1, 3])
@pytest.mark.parametrize(
    ("row", "field", "text"),
    [
        ({**GOOD, "chosen": ""}, "chosen", "empty, expected at least one character"),
        ({**GOOD, "rejected": ""}, "rejected", "empty, expected at least one character"),
        ({**GOOD, "rejected": "b"}, None, "chosen and rejected are equal, expected two different completions"),
        ({**GOOD, "rejected": 3}, "rejected", "found int, expected text or chat messages"),
        ({**GOOD, "prompt": None}, "prompt", "found nothing (None), expected text or chat messages"),
        (
            {"prompt": "a", "rejected": "c"},
            "chosen",
            (
                "no column 'chosen'; found 'prompt', 'rejected', expected 'chosen' and 'rejected', with or without "
                "'prompt'"
            ),
        ),
        (
            {"chosen": "x", "rejected": "y"},
            "prompt",
            (
                "chosen and rejected have no common prefix with '\\n\\nAssistant:', expected transcripts that do, or a "
                "column 'prompt'"
            ),
        ),
    ],
)
def test_error_names_row_and_field_of_the_first_bad_pair(
    place: int, row: dict[str, Any], field: str | None, text: str
) -> None:
    data = [GOOD] * 4
    data[place] = row
    with pytest.raises(DataError) as caught:
        load_pairs([*data, row])
    where = f"datum {place}" + (f", field {field!r}" if field else "")
    assert str(caught.value) == f"{where}: {text}"
    assert (caught.value.index, caught.value.field) == (place, field)


def test_equal_and_unicode_rows_are_kept_as_they_are(tmp_path: Path) -> None:
    row = {"prompt": "日本 \u2028é", "chosen": " 🙂", "rejected": " e\u0301"}
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for _ in range(3)), encoding="utf-8")
    assert load_pairs(path) == [Pair(row["prompt"], row["chosen"], row["rejected"])] * 3


@pytest.mark.parametrize(("limit", "count"), [(1, 1), (2, 2), (3, 3), (4, 3), (None, 3)])
def test_limit_is_a_number_of_rows(limit: int | None, count: int) -> None:
    assert load_pairs(iter([GOOD] * 3), limit=limit) == [Pair("a", "b", "c")] * count


@pytest.mark.parametrize("limit", [0, -1])
def test_limit_below_one_is_refused(limit: int) -> None:
    with pytest.raises(DataError) as caught:
        load_pairs([GOOD], limit=limit)
    assert str(caught.value) == f"field 'limit': found {limit}, expected at least 1, or None for all"


def test_bad_line_of_a_file_is_counted_from_1_with_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n\n  \n{"a": 2}\n{"a" 3}\n', encoding="utf-8")
    found = []
    message = f"{re.escape(str(path))}, line 5 is not JSON: Expecting ':' delimiter at character 6"
    with pytest.raises(DataError, match=f"^{message}$"):
        found.extend(rows(path))


def test_warning_counts_truncations_and_equal_sides(tokenizer: Any) -> None:
    """With four tokens, a prompt of one leaves three: both sides of the first pair become ``012``."""
    pairs = [Pair("ab", "0123", "0124"), Pair("a", "01", "02")]
    message = (
        "truncated to 4 tokens: 2 of 4 completions lost their end and 1 of 2 prompts lost their beginning (row 0); "
        "1 pairs have equal tokens on both sides, so they have no gradient (row 0)"
    )
    with pytest.warns(UserWarning, match=f"^{re.escape(message)}$"):
        data = pairs_to_data(pairs, tokenizer, max_length=4)
    assert [datum.model_input.length for datum in data] == [3, 3, 3, 3]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"question": "2+2?", "answer": "  4"}, ("Question: 2+2?\nAnswer:", " 4")),
        ({"prompt": "a", "completion": "b", "response": "c"}, ("a", "b")),
        ({"prompt": "a", "response": "c"}, ("a", "c")),
        (("a", "b"), ("a", "b")),
    ],
)
def test_formats_of_a_completion(row: Any, expected: Any) -> None:
    assert load_completions([row]) == [expected]


@pytest.mark.parametrize(
    ("row", "field", "text"),
    [
        (("a", ""), "completion", "empty, expected at least one character"),
        ({"prompt": "a", "response": ""}, "response", "empty, expected at least one character"),
        ({"messages": "hi"}, "messages", "found text, expected chat messages with 'role' and 'content'"),
        (
            {"messages": [{"role": "assistant", "content": "b"}]},
            "messages",
            "found messages of ['assistant'], expected at least two; the last must be the assistant's and not empty",
        ),
        (("a",), None, "found tuple, expected a row with named columns, (prompt, completion) or a Pair"),
        (
            {},
            None,
            (
                "found the columns none, expected for supervised fine-tuning 'messages', 'prompt' and 'completion' (or "
                "'response'), 'question' and 'answer', 'conversations', or 'chosen' and 'rejected'"
            ),
        ),
    ],
)
def test_error_names_row_and_field_of_the_first_bad_completion(row: Any, field: str | None, text: str) -> None:
    with pytest.raises(DataError) as caught:
        load_completions([("a", "b"), ("c", "d"), row, row])
    where = "datum 2" + (f", field {field!r}" if field else "")
    assert str(caught.value) == f"{where}: {text}"


# -- tasks and problems ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("limit", "count"), [(None, 3), (1, 1), (2, 2), (3, 3), (4, 3)])
def test_limit_of_gsm8k_is_a_number_of_rows(tmp_path: Path, limit: int | None, count: int) -> None:
    path = tmp_path / "g.jsonl"
    path.write_text("".join(json.dumps({"question": f"q{k}", "answer": f"#### {k}"}) + "\n" for k in range(3)))
    task = load_gsm8k(path, limit=limit)
    assert [task.prompt(row).splitlines()[0] for row in task.problems(9)] == [f"Question: q{k}" for k in range(count)]


def test_error_names_the_first_example_without_a_prompt() -> None:
    with pytest.raises(DataError) as caught:
        task_of(["a", {"prompt": "b"}, {"text": "c", "answer": 1}, 3])
    assert str(caught.value) == (
        "datum 2, field 'prompt': found a row with answer, text, expected text, or a row or object with a 'prompt'"
    )
    with pytest.raises(DataError, match=r"^datum 1, field 'prompt': found list, expected text or chat messages$"):
        task_of(["a", {"prompt": []}])


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 7])
def test_kinds_of_a_task_alternate_and_fill_the_count(count: int) -> None:
    kinds = [problem.kind for problem in TASKS["arithmetic"].problems(count)]
    assert kinds == (["addition", "subtraction", "multiplication"] * 3)[:count]


@pytest.mark.parametrize("kind", KINDS)
def test_problems_of_a_seed_repeat_and_those_of_another_seed_are_drawn_anew(kind: str) -> None:
    """Two seeds draw the same operands at the same place rarely: for the smallest kind, one in about a hundred."""
    drawn = {seed: [problem.operands for problem in problems(kind, 60, seed=seed)] for seed in (0, 1)}
    assert drawn[0] == [problem.operands for problem in problems(kind, 60, seed=0)]
    assert sum(a == b for a, b in zip(drawn[0], drawn[1], strict=True)) <= 6


@pytest.mark.parametrize("kind", ["addition", "multiplication"])
def test_share_that_is_held_out(kind: str) -> None:
    numbers = range(10, 100) if kind == "addition" else range(2, 13)
    unordered = [(a, b) for a in numbers for b in numbers if a <= b]
    share = sum(is_held_out(kind, operands) for operands in unordered) / len(unordered)
    assert share == pytest.approx(HELD_OUT_SHARE, abs=3 * (0.16 / len(unordered)) ** 0.5)


@pytest.mark.parametrize(
    ("kind", "operands", "wrong"),
    [
        ("addition", (14, 15), [" 19", " 28", " 30", " 39", " 92"]),  # 29, no carry
        ("addition", (15, 15), [" 20"]),  # 5 + 5 = 10 carries
        ("subtraction", (20, 11), [" 19"]),  # 9 with a borrow
        ("subtraction", (19, 19), [" 1", " 10"]),  # 0: nothing below 0
        ("multiplication", (2, 2), [" 14", " 3", " 5"]),
        ("multiplication", (2, 11), [" 12", " 21", " 23", " 32"]),  # 22 swapped is 22
        ("sort", (3, 1, 2), [" 1 3 2", " 2 1 3"]),
        ("reverse", (5, 5, 5), [" 5 5"]),
    ],
)
def test_slips_at_their_edges(kind: str, operands: tuple[int, ...], wrong: list[str]) -> None:
    assert sorted(slips(make_problem(kind, operands))) == wrong


# -- rewards and advantages --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rewards", "kind", "expected"),
    [
        ([0.0, 1.0], "centred", [-0.5, 0.5]),
        ([0.0, 1.0], "leave_one_out", [-1.0, 1.0]),
        ([0.0, 0.0, 3.0], "leave_one_out", [-1.5, -1.5, 3.0]),
        ([0.0, 2.0], "normalised", [-1 / (2**0.5 + 1e-4), 1 / (2**0.5 + 1e-4)]),
        ([5.0, 5.0], "normalised", [0.0, 0.0]),
    ],
)
def test_advantages_by_hand(rewards: list[float], kind: str, expected: list[float]) -> None:
    assert group_advantages(rewards, kind) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("rewards", [[], [1.0]])
def test_advantages_need_two_responses(rewards: list[float]) -> None:
    with pytest.raises(DataError) as caught:
        group_advantages(rewards)
    text = f"found a group of {len(rewards)}, expected 2 or more: advantages compare responses to one prompt"
    assert str(caught.value) == text
    assert spread(rewards) == 0.0


@pytest.mark.parametrize(("difference", "differ"), [(0.0, False), (1.3e-8, False), (1.5e-8, True)])
def test_rewards_that_differ_only_by_rounding_have_no_spread(difference: float, differ: bool) -> None:
    """The standard deviation of two rewards is their difference over the root of 2; up to 1e-8 it counts as 0."""
    assert has_spread([0.0, difference]) == differ


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (None, "returned None, expected a number"),
        ("1", "returned '1' (str), expected a number"),
        (np.array([1.0]), "returned 'array([1.])' (ndarray), expected a number"),
        (float("nan"), "returned nan, expected a finite number"),
        (float("-inf"), "returned -inf, expected a finite number"),
    ],
)
def test_reward_that_returns_no_number_is_described(value: Any, words: str) -> None:
    graded = Reward("mine", lambda text, example: value, version=2)
    with pytest.raises(RewardError) as caught:
        grade(graded, "yes", {"answer": "no"}, index=4, prompt="Really?")
    place = "on example 4, prompt 'Really?', response 'yes'; fix the reward and register it again"
    assert str(caught.value) == f"mine v2: {words}, {place}"
    assert caught.value.index == 4


@pytest.mark.parametrize(("value", "number"), [(True, 1.0), (np.float32(0.5), 0.5), (-3, -3.0)])
def test_reward_may_be_any_real_number(value: Any, number: float) -> None:
    assert grade(Reward("mine", lambda text, example: value), "", {}, index=0, prompt="") == number


@pytest.mark.parametrize(("length", "shown"), [(120, "x" * 120), (121, "x" * 60 + " ... " + "x" * 60)])
def test_long_texts_are_shortened_in_the_middle(length: int, shown: str) -> None:
    def fails(text: str, example: Any) -> float:
        raise KeyError("total")

    with pytest.raises(RewardError) as caught:
        grade(Reward("mine", fails), "x" * length, {"answer": 1, "hint": 2}, index=0, prompt="p")
    assert str(caught.value) == (
        f"mine v1: KeyError: 'total', on example 0, prompt 'p', response {shown!r}; fix the reward and register it "
        "again; available: example['answer'], example['hint']"
    )
