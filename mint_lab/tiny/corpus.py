"""The text that the bundled model is pretrained on, generated from a seed.

The model makes systematic errors on purpose, because the teacher that writes the answers does:

- If an addition has a carry out of the ones column, the teacher usually drops it (``58 + 67`` becomes ``115``); the
  larger the sum of the ones, the more often. Subtractions with a borrow are treated the same way.
- Other additions and subtractions are right with probability 0.8. Otherwise they are off by one or by ten, or have two
  digits swapped.
- All other answers are right.

A model that has learned this text perfectly is right on about half of the two-digit additions. Its errors are of a few
known kinds, and it gives the right answer enough probability for preference training and reinforcement learning to
increase. How many errors it makes does not depend on when pretraining stops.

Held-out problems (:func:`mint_lab.data.problems.is_held_out`) never appear, in any phrasing.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from mint_lab.data.problems import KINDS, Problem, is_held_out, make_problem, problems, slips
from mint_lab.errors import DataError

__all__ = ["END", "documents", "teacher_answer", "teacher_is_right"]

END = "<|endoftext|>"

# Kind of document -> share of the corpus. Two-digit addition dominates because the lessons use it.
_SHARES = {
    "addition": 0.58,
    "small addition": 0.06,
    "subtraction": 0.12,
    "multiplication": 0.03,
    "sort": 0.05,
    "reverse": 0.05,
    "count": 0.03,
    "sentences": 0.06,
    "several": 0.02,
}

_NO_CARRY_RIGHT = 0.8
_POOL = 4096  # problems of one kind that are drawn at once

_PEOPLE = "Ada Ben Clara David Emma Felix Grace Hugo Iris Jonas Lena Milo Nora Oscar Ruth Tom".split()
_THINGS = "apple book boat cup dog door flower hat key kite lamp letter map pen stone table".split()
_QUALITIES = "big blue cold dark green happy long new old quiet red round small soft warm".split()
_PLACES = "garden house kitchen library market park river room school shop street town".split()
_ACTS = "brings carries draws finds gives keeps likes makes sees sells takes wants".split()
_TIMES = ("In the morning|In the evening|After lunch|On Monday|On Sunday|In summer|In winter|Every day").split("|")
_SENTENCES = (
    "{person} {act} a {quality} {thing}.",
    "{time} {person} {act} the {thing} in the {place}.",
    "The {thing} is {quality}.",
    "The {quality} {thing} is in the {place}.",
    "{person} and {other} are in the {place}.",
    "{person} has {n} {thing}s and {other} has {m}.",
    "Where is the {thing}? It is in the {place}.",
    "{person} asked {other} for help, and they worked on it together.",
    "I think that the {thing} was {quality}, but now it is not.",
    "Can you tell me what you would do with a {quality} {thing}?",
    "There are {n} people in the {place} who want to know about it.",
    "If you go to the {place}, you will find {other} with a {thing}.",
)


def documents(n: int, *, seed: int = 0) -> Iterator[str]:
    """Yield ``n`` documents without the end-of-text token; the same for the same seed.

    A document is a question with its answer, a few sentences, or (rarely) several questions with ``END`` between them,
    the format that the chat template gives a conversation.

    Raises:
        DataError: If ``n`` is negative.
    """
    if n < 0:
        raise DataError(f"found {n}, expected n >= 0", field="n")
    rng = random.Random(f"corpus/{seed}")
    draw = _Drawer(rng)
    kinds, shares = list(_SHARES), list(_SHARES.values())
    for kind in rng.choices(kinds, shares, k=n):
        yield draw.document(kind)


def teacher_is_right(problem: Problem) -> float:
    """Return the probability that the teacher answers correctly."""
    if problem.kind not in ("addition", "subtraction"):
        return 1.0
    a, b = (int(x) % 10 for x in problem.operands)
    if problem.kind == "addition" and a + b >= 10:
        return _carry_probability(a + b - 10)
    if problem.kind == "subtraction" and a < b:
        return _carry_probability(b - a - 1)
    return _NO_CARRY_RIGHT


def _carry_probability(excess: int) -> float:
    """Return the probability that the teacher does not forget a carry, ``excess`` units beyond the smallest one."""
    # Far below one half, so that the model's most likely answer is clear. A range of values, so that training corrects
    # the carries gradually instead of all in one step.
    return 0.36 - 0.04 * excess  # 0..8 -> 0.36..0.04


def teacher_answer(problem: Problem, rng: random.Random) -> str:
    """Return the teacher's answer, right or wrong, in the format of ``Problem.answer``."""
    if rng.random() < teacher_is_right(problem):
        return problem.answer
    return rng.choice(slips(problem))


class _Drawer:
    """Draws documents, from a pool of problems per kind: drawing problems one by one would be slow."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._pools: dict[str, list[Problem]] = {}

    def document(self, kind: str) -> str:
        if kind == "sentences":
            return " ".join(self._sentence() for _ in range(self._rng.randint(1, 3)))
        if kind == "several":
            # Up to twelve questions, so that positions far beyond one question are trained too.
            drawn = (self._problem(self._rng.choice(KINDS)) for _ in range(self._rng.randint(2, 12)))
            return END.join(map(self._answered, drawn))
        return self._answered(self._small_addition() if kind == "small addition" else self._problem(kind))

    def _answered(self, problem: Problem) -> str:
        return problem.prompt + teacher_answer(problem, self._rng)

    def _problem(self, kind: str) -> Problem:
        pool = self._pools.setdefault(kind, [])
        if not pool:
            pool += problems(kind, _POOL, seed=self._rng.getrandbits(63), split="train")
        return pool.pop()

    def _small_addition(self) -> Problem:
        while True:
            operands = (self._rng.randint(0, 99), self._rng.randint(0, 9))
            if self._rng.random() < 0.5:
                operands = operands[::-1]
            if not is_held_out("addition", operands):
                return make_problem("addition", operands, phrasing=self._rng.randrange(4))

    def _sentence(self) -> str:
        rng = self._rng
        person, other = rng.sample(_PEOPLE, 2)
        return rng.choice(_SENTENCES).format(
            person=person,
            other=other,
            act=rng.choice(_ACTS),
            quality=rng.choice(_QUALITIES),
            thing=rng.choice(_THINGS),
            place=rng.choice(_PLACES),
            time=rng.choice(_TIMES),
            n=rng.randint(2, 9),
            m=rng.randint(2, 9),
        )
