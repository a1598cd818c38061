"""The text the bundled model is pretrained on, generated here from a seed.

The model is half-taught on purpose: the teacher who wrote its answers is careless.

- Where an addition has to carry out of the ones column, the teacher mostly forgets to
  (``58 + 67`` becomes 115); the bigger the sum of the ones, the more often. Subtractions with a
  borrow fare the same.
- Other additions and subtractions come out right four times in five; else there is a slip: off by
  one, off by ten, two digits swapped.
- Everything else is answered correctly.

So a model that has learned this text perfectly is right about as often as it is wrong on two-digit
addition, its errors are of a few known kinds, and it still gives the right answer real
probability: something for preference training and reinforcement learning to bring out. How far it
is taught does not hang on when pretraining stops.

Held-out problems (`mint_lab.data.problems.is_held_out`) never appear, in any phrasing.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from mint_lab.data.problems import KINDS, Problem, is_held_out, make_problem, problems, slips

__all__ = ["END", "documents", "teacher_answer", "teacher_is_right"]

END = "<|endoftext|>"

# Kind of document -> share of the corpus. Two-digit addition is what the lessons are about.
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
_POOL = 4096  # problems of one kind drawn at a time

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
    """``n`` documents without the end mark, the same for the same seed.

    A document is one question with its answer, a few sentences, or (seldom) several questions in
    a row with `END` after each answer, as a conversation is laid out by the chat template.

    Raises:
        ValueError: a negative ``n``.
    """
    if n < 0:
        raise ValueError(f"expected n >= 0, got {n}")
    rng = random.Random(f"corpus/{seed}")
    draw = _Drawer(rng)
    kinds, shares = list(_SHARES), list(_SHARES.values())
    for kind in rng.choices(kinds, shares, k=n):
        yield draw.document(kind)


def teacher_is_right(problem: Problem) -> float:
    """How likely the teacher is to answer correctly, 0 to 1."""
    if problem.kind not in ("addition", "subtraction"):
        return 1.0
    a, b = (int(x) % 10 for x in problem.operands)
    if problem.kind == "addition" and a + b >= 10:
        return _remembers(a + b - 10)
    if problem.kind == "subtraction" and a < b:
        return _remembers(b - a - 1)
    return _NO_CARRY_RIGHT


def _remembers(excess: int) -> float:
    # Nowhere near a half, so that the model's favourite is clear; a range, so that training
    # wins the carries over one after the other and not all in one step.
    return 0.36 - 0.04 * excess  # 0..8 -> 0.36..0.04


def teacher_answer(problem: Problem, rng: random.Random) -> str:
    """What the careless teacher writes, in the form of `Problem.answer`."""
    if rng.random() < teacher_is_right(problem):
        return problem.answer
    return rng.choice(slips(problem))


class _Drawer:
    """Draws documents; keeps a pool of problems a kind so that drawing stays cheap."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._pools: dict[str, list[Problem]] = {}

    def document(self, kind: str) -> str:
        if kind == "sentences":
            return " ".join(self._sentence() for _ in range(self._rng.randint(1, 3)))
        if kind == "several":
            # Up to a dozen, so that positions well beyond one question are trained too.
            asked = (self._problem(self._rng.choice(KINDS)) for _ in range(self._rng.randint(2, 12)))
            return END.join(map(self._answered, asked))
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
