"""Problems, splits, mistakes and rewards; expected values computed by hand."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mint_lab.data.problems import (
    KINDS,
    SPLITS,
    addition_problems,
    dropped_carry,
    has_carry,
    is_held_out,
    make_problem,
    mistake,
    problems,
    reward,
    slips,
)
from mint_lab.errors import DataError


def test_prompt_and_answer_of_a_plain_problem() -> None:
    problem = make_problem("addition", (12, 7))
    assert problem.prompt == "Question: What is 12 + 7?\nAnswer:"
    assert problem.answer == " 19"


@pytest.mark.parametrize(
    ("kind", "operands", "answer"),
    [
        ("addition", (58, 67), " 125"),
        ("subtraction", (52, 17), " 35"),
        ("multiplication", (12, 7), " 84"),
        ("sort", (5, 3, 9), " 3 5 9"),
        ("reverse", (5, 3, 9), " 9 3 5"),
        ("count", ("t", "bottle"), " 2"),
    ],
)
def test_answers_by_hand(kind: str, operands: tuple[int | str, ...], answer: str) -> None:
    assert make_problem(kind, operands).answer == answer


def test_phrasings_share_one_answer() -> None:
    phrased = [make_problem("addition", (12, 7), phrasing=i) for i in range(4)]
    assert len({p.prompt for p in phrased}) == 4
    assert {p.answer for p in phrased} == {" 19"}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", SPLITS)
def test_problems_are_deterministic_and_in_their_split(kind: str, split: str) -> None:
    first = problems(kind, 50, seed=3, split=split)
    assert first == problems(kind, 50, seed=3, split=split)
    assert first != problems(kind, 50, seed=4, split=split)
    assert len(first) == 50
    assert all(is_held_out(kind, p.operands) == (split == "held_out") for p in first)


def test_additions_exhaust_their_split_before_repeating() -> None:
    train, held_out = (addition_problems(9000, 0, split) for split in SPLITS)
    train_pairs = {p.operands for p in train}
    held_out_pairs = {p.operands for p in held_out}
    assert len(train_pairs) + len(held_out_pairs) == 90 * 90
    assert not train_pairs & held_out_pairs
    assert 0.18 < len(held_out_pairs) / 8100 < 0.22
    assert {p.operands for p in train[: len(train_pairs)]} == train_pairs
    assert {p.operands for p in held_out[: len(held_out_pairs)]} == held_out_pairs


@pytest.mark.parametrize("split", SPLITS)
def test_half_of_the_additions_carry(split: str) -> None:
    carries = [has_carry(*map(int, p.operands)) for p in addition_problems(1000, 3, split)]
    assert carries == [False, True] * 500


def test_a_shorter_list_is_the_start_of_a_longer_one() -> None:
    assert addition_problems(10, 5) == addition_problems(400, 5)[:10]


@given(st.integers(0, 999), st.integers(0, 999))
def test_both_orders_of_a_sum_are_in_one_split(a: int, b: int) -> None:
    assert is_held_out("addition", (a, b)) == is_held_out("addition", (b, a))


def test_split_does_not_depend_on_the_process() -> None:
    code = "from mint_lab.data.problems import addition_problems as f;print([p.operands for p in f(20, 1, 'held_out')])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == str([p.operands for p in addition_problems(20, 1, "held_out")])


@pytest.mark.parametrize(
    ("a", "b", "dropped"),
    [
        (58, 67, 115),  # 8 + 7 = 15: write 5, forget the 1; 5 + 6 = 11
        (12, 7, 19),  # nothing to carry
        (61, 58, 119),  # no carry out of the ones; the tens add up to 11
        (99, 99, 188),
        (5, 5, 0),
    ],
)
def test_dropped_carry_by_hand(a: int, b: int, dropped: int) -> None:
    assert dropped_carry(a, b) == dropped
    assert has_carry(a, b) == (dropped != a + b)


def test_slips_by_hand() -> None:
    assert slips(make_problem("addition", (58, 67))) == [" 115"]
    assert slips(make_problem("subtraction", (52, 17))) == [" 45"]
    # 72 + 32 = 104: off by ten, off by one, or with the last two digits swapped
    assert slips(make_problem("addition", (72, 32))) == [" 94", " 103", " 105", " 114", " 140"]
    # no negative answers
    assert slips(make_problem("subtraction", (30, 30))) == [" 1", " 10"]
    assert slips(make_problem("sort", (3, 2, 1))) == [" 1 3 2", " 2 1 3"]
    assert slips(make_problem("reverse", (4, 4, 4))) == [" 4 4"]


@given(st.sampled_from(KINDS), st.integers(0, 2**32), st.sampled_from(SPLITS))
def test_a_mistake_is_never_right(kind: str, seed: int, split: str) -> None:
    rng = random.Random(seed)
    for problem in problems(kind, 20, seed=seed, split=split):
        wrong = mistake(problem, rng)
        assert wrong != problem.answer
        assert wrong.startswith(" ")
        assert reward(wrong, problem) == 0.0
        assert reward(problem.answer, problem) == 1.0


def test_mistakes_repeat_with_the_seed() -> None:
    drawn = addition_problems(50)
    rngs = random.Random(7), random.Random(7)
    assert [mistake(p, rngs[0]) for p in drawn] == [mistake(p, rngs[1]) for p in drawn]


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (" 19", 1.0),
        ("19\nQuestion: What is 3 + 4?\nAnswer: 7", 1.0),
        ("\n\n  The answer is 19.", 1.0),
        (" 19 apples", 1.0),
        (" 119", 0.0),
        (" 190", 0.0),
        (" -19", 0.0),
        (" 19.5", 0.0),
        (" 12 + 7 = 19", 0.0),  # the first number is 12
        (" no idea\n19", 0.0),  # only the first line counts
        ("", 0.0),
        ("   \n ", 0.0),
        ("١٩", 0.0),  # digits of another script do not count
    ],
)
def test_number_reward(response: str, expected: float) -> None:
    assert reward(response, make_problem("addition", (12, 7))) == expected


@pytest.mark.parametrize(
    ("response", "expected"),
    [(" 3 5 9", 1.0), ("3  5 9 \nmore", 1.0), (" 3 5 9 9", 0.0), (" 3 5", 0.0), ("", 0.0)],
)
def test_list_reward(response: str, expected: float) -> None:
    assert reward(response, make_problem("sort", (5, 3, 9))) == expected


@given(st.text())
def test_reward_accepts_any_text(response: str) -> None:
    for kind in KINDS:
        assert reward(response, problems(kind, 1)[0]) in (0.0, 1.0)


@pytest.mark.parametrize("response", [None, 19, b"19"])
def test_reward_refuses_other_types(response: object) -> None:
    with pytest.raises(DataError, match=r"response_text.*expected the response as str"):
        reward(response, make_problem("addition", (12, 7)))  # type: ignore[arg-type]


def test_bad_input_is_refused() -> None:
    with pytest.raises(DataError, match="unknown split 'test', expected one of: held_out, train"):
        addition_problems(1, 0, "test")
    with pytest.raises(DataError, match=r"unknown kind 'adition'.*did you mean 'addition'"):
        problems("adition", 1)
    with pytest.raises(DataError, match="found -1, expected n >= 0"):
        problems("sort", -1)
    with pytest.raises(DataError, match="found 9, but addition has phrasings 0 to 3"):
        make_problem("addition", (1, 2), phrasing=9)


def test_import_needs_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, mint_lab.data.problems, mint_lab.data.tasks, mint_lab.tiny;"
        "print([m for m in ('torch', 'transformers') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


def test_a_problem_is_a_mapping() -> None:
    problem = make_problem("addition", (12, 7))
    assert dict(problem) == {"kind": "addition", "operands": (12, 7), "prompt": problem.prompt, "answer": " 19"}
    assert problem.get("nothing") is None
    with pytest.raises(KeyError):
        problem["count"]
    assert problem == make_problem("addition", (12, 7)) != make_problem("addition", (7, 12))
    assert len({problem, make_problem("addition", (12, 7))}) == 1
