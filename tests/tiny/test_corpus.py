"""The pretraining text: reproducible, with the described errors, and without held-out problems."""

from __future__ import annotations

import random
import re

import pytest

from mint_lab.data.problems import is_held_out, make_problem
from mint_lab.errors import DataError
from mint_lab.tiny.corpus import END, documents, teacher_answer, teacher_is_right

_ADDITIONS = (
    re.compile(r"(\d+) \+ (\d+)"),
    re.compile(r"Add (\d+) and (\d+)"),
    re.compile(r"sum of (\d+) and (\d+)"),
)


def test_the_same_seed_gives_the_same_text() -> None:
    first = list(documents(500, seed=1))
    assert len(first) == 500
    assert first == list(documents(500, seed=1))
    assert first != list(documents(500, seed=2))


def test_no_held_out_addition_appears() -> None:
    text = "\n".join(documents(20_000, seed=3))
    operands = [(int(a), int(b)) for p in _ADDITIONS for a, b in p.findall(text)]
    assert len(operands) > 10_000
    assert not [ops for ops in operands if is_held_out("addition", ops)]


def test_every_question_is_answered() -> None:
    for text in documents(3000, seed=4):
        for part in text.split(END):
            assert part.count("Answer:") == part.count("Question:")
            if part.startswith("Question:"):
                assert re.fullmatch(r"Question: [^\n]+\nAnswer:( \d+)+", part)


@pytest.mark.parametrize(
    ("kind", "operands", "share"),
    [
        ("addition", (15, 25), 0.36),  # 5 + 5 = 10
        ("addition", (58, 67), 0.16),  # 8 + 7 = 15: 0.36 - 5 * 0.04
        ("addition", (19, 19), 0.04),  # 9 + 9 = 18
        ("addition", (12, 17), 0.80),
        ("subtraction", (52, 17), 0.20),  # short by 5: 0.36 - 4 * 0.04
        ("subtraction", (57, 12), 0.80),
        ("multiplication", (3, 4), 1.00),
        ("sort", (3, 1, 2), 1.00),
    ],
)
def test_teacher_is_right_by_hand(kind: str, operands: tuple[int, ...], share: float) -> None:
    assert teacher_is_right(make_problem(kind, operands)) == pytest.approx(share)


def test_teacher_answer_drops_carries_at_that_rate() -> None:
    rng = random.Random(0)
    problem = make_problem("addition", (58, 67))
    written = [teacher_answer(problem, rng) for _ in range(4000)]
    assert set(written) == {" 125", " 115"}
    # 0.16 with a standard error of sqrt(0.16 * 0.84 / 4000) = 0.0058
    assert written.count(" 125") / 4000 == pytest.approx(0.16, abs=0.025)


def test_negative_number_of_documents_is_refused() -> None:
    with pytest.raises(DataError, match="found -1, expected n >= 0"):
        next(documents(-1))
