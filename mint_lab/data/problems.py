r"""Small problems whose answers can be checked: the ground truth of every default lesson.

A `Problem` is a prompt, its right answer and the operands both came from. A `Task` hands out
problems and grades responses. `mistake` gives a wrong answer of the kind the bundled model itself
gives, which makes preference pairs worth learning from.

Text convention: a prompt ends just before the answer (``"...\nAnswer:"``) and an answer begins
with one space (``" 19"``), so that ``prompt + answer`` is the text a model sees, and tokenizing the
two halves separately gives the same tokens as tokenizing the whole.

Train and held-out are split by a stable hash of the operands, not by chance: a problem is held out
in every phrasing, in both orders of a commutative operation, and in the text the bundled model was
pretrained on.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mint_lab.errors import DataError, one_of

__all__ = [
    "HELD_OUT_SHARE",
    "KINDS",
    "SPLITS",
    "TASKS",
    "Problem",
    "Task",
    "addition_problems",
    "dropped_carry",
    "has_carry",
    "is_held_out",
    "make_problem",
    "mistake",
    "problems",
    "reward",
    "slips",
]

SPLITS = ("train", "held_out")
HELD_OUT_SHARE = 0.2

Operands = tuple[int | str, ...]

_WORDS = (
    "apple baker bottle bridge butter candle carrot circle coffee copper cotton doctor dragon "
    "engine family farmer flower forest garden guitar hammer island jacket kitten ladder lemon "
    "letter market meadow mirror monkey morning needle number ocean orange paper parrot pencil "
    "pepper planet pocket potato rabbit ribbon river rocket saddle school shadow silver spider "
    "spring street summer sunset table teapot temple ticket tiger tomato tunnel turtle valley "
    "violin wagon walnut water weather window winter wizard yellow zebra"
).split()


@dataclass(frozen=True, slots=True)
class Problem(Mapping[str, Any]):
    """One question with one right answer; like a row of a file it also gives its fields as ``problem["answer"]``.

    Attributes:
        kind: the operation, one of `KINDS`.
        operands: what the answer is computed from; numbers, or a word (and a letter).
        prompt: text up to the answer, no trailing space.
        answer: the right completion, beginning with one space.
    """

    kind: str
    operands: Operands
    prompt: str
    answer: str

    def __getitem__(self, name: str) -> Any:
        if name not in self.__dataclass_fields__:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dataclass_fields__)

    def __len__(self) -> int:
        return len(self.__dataclass_fields__)


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one operation is drawn, phrased and answered."""

    draw: Callable[[random.Random], Operands]
    answer: Callable[[Operands], str]
    phrasings: tuple[str, ...]
    commutative: bool = False


def _ints(operands: Operands) -> list[int]:
    return [int(x) for x in operands]


def _draw_difference(rng: random.Random) -> Operands:
    a, b = sorted((rng.randint(10, 99), rng.randint(10, 99)), reverse=True)
    return a, b


def _draw_letter_count(rng: random.Random) -> Operands:
    word = rng.choice(_WORDS)
    return rng.choice(word), word


def _joined(operands: Operands) -> str:
    return " ".join(str(x) for x in operands)


_KINDS: dict[str, _Kind] = {
    "addition": _Kind(
        draw=lambda rng: (rng.randint(10, 99), rng.randint(10, 99)),
        answer=lambda ops: str(sum(_ints(ops))),
        phrasings=(
            "What is {0} + {1}?",
            "{0} + {1} = ?",
            "Add {0} and {1}.",
            "What is the sum of {0} and {1}?",
        ),
        commutative=True,
    ),
    "subtraction": _Kind(
        draw=_draw_difference,
        answer=lambda ops: str(int(ops[0]) - int(ops[1])),
        phrasings=("What is {0} - {1}?", "{0} - {1} = ?", "Take {1} away from {0}."),
    ),
    "multiplication": _Kind(
        draw=lambda rng: (rng.randint(2, 12), rng.randint(2, 12)),
        answer=lambda ops: str(int(ops[0]) * int(ops[1])),
        phrasings=("What is {0} * {1}?", "{0} * {1} = ?", "What is {0} times {1}?"),
        commutative=True,
    ),
    "sort": _Kind(
        draw=lambda rng: tuple(rng.sample(range(10), rng.randint(3, 5))),
        answer=lambda ops: _joined(tuple(sorted(_ints(ops)))),
        phrasings=("Sort {all}.", "Put {all} in order."),
    ),
    "reverse": _Kind(
        draw=lambda rng: tuple(rng.randrange(10) for _ in range(rng.randint(3, 5))),
        answer=lambda ops: _joined(ops[::-1]),
        phrasings=("Reverse {all}.", "Write {all} backwards."),
    ),
    "count": _Kind(
        draw=_draw_letter_count,
        answer=lambda ops: str(str(ops[1]).count(str(ops[0]))),
        phrasings=(
            "How many times is {0} in {1}?",
            "Count the letter {0} in {1}.",
        ),
    ),
}

KINDS = tuple(_KINDS)


def is_held_out(kind: str, operands: Operands) -> bool:
    """Whether a problem belongs to the held-out split; the same on every machine, for ever.

    The order of the operands does not matter where it does not matter to the answer, so that
    ``7 + 12`` can never give ``12 + 7`` away.

    Raises:
        DataError: unknown kind.
    """
    spec = _kind(kind)
    key = tuple(sorted(_ints(operands))) if spec.commutative else operands
    text = f"{kind}|" + "|".join(str(x) for x in key)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < HELD_OUT_SHARE * 2**64


def make_problem(kind: str, operands: Operands, *, phrasing: int = 0) -> Problem:
    """The problem for given operands, in the phrasing of that number (0 is the plain one).

    Raises:
        DataError: unknown kind, or a phrasing the kind does not have.
    """
    spec = _kind(kind)
    if not 0 <= phrasing < len(spec.phrasings):
        raise DataError(
            f"{kind} has phrasings 0 to {len(spec.phrasings) - 1}, got {phrasing}",
            field="phrasing",
        )
    asked = spec.phrasings[phrasing].format(*operands, all=_joined(operands))
    return Problem(kind, operands, f"Question: {asked}\nAnswer:", " " + spec.answer(operands))


def problems(kind: str, n: int, *, seed: int = 0, split: str = "train") -> list[Problem]:
    """``n`` problems of one kind in mixed phrasings, the same list for the same arguments.

    Two-digit addition is drawn without repeats until the split is used up; other kinds may
    repeat.

    Raises:
        DataError: unknown kind or split, or a negative ``n``.
    """
    spec = _kind(kind)
    _check(n, split)
    rng = random.Random(f"{kind}/{split}/{seed}")
    drawn = _addition_operands(n, rng, split) if kind == "addition" else _draw_many(kind, n, rng, split)
    return [make_problem(kind, operands, phrasing=rng.randrange(len(spec.phrasings))) for operands in drawn]


def addition_problems(n: int, seed: int = 0, split: str = "train") -> list[Problem]:
    """``n`` two-digit additions (both numbers 10 to 99), all phrased ``What is a + b?``.

    Problems with and without a carry out of the ones take turns, so that half of any list is hard
    for the bundled model and two lists can be compared. No problem repeats until the split is used
    up (8,100 problems in all, about a fifth of them held out; the turns end when the carries are
    used up, after about 5,900 train or 1,400 held-out problems), then it goes around again in
    a new order. The same list for the same arguments.

    Raises:
        DataError: a split other than ``"train"`` and ``"held_out"``, or a negative ``n``.
    """
    _check(n, split)
    rng = random.Random(f"two-digit addition/{split}/{seed}")
    drawn: list[Operands] = []
    while len(drawn) < n:
        pool = _addition_pool(split)
        rng.shuffle(pool)
        easy = [operands for operands in pool if not has_carry(*_ints(operands))]
        hard = [operands for operands in pool if has_carry(*_ints(operands))]
        for pair in itertools.zip_longest(easy, hard):
            drawn += [operands for operands in pair if operands is not None]
    return [make_problem("addition", operands) for operands in drawn[:n]]


def has_carry(a: int, b: int) -> bool:
    """Whether the ones of ``a`` and ``b`` add up to ten or more."""
    return a % 10 + b % 10 >= 10


def dropped_carry(a: int, b: int) -> int:
    """``a + b`` by someone who forgets to carry the ten out of the ones column.

    Higher columns carry as they should: ``dropped_carry(58, 67) == 115``.
    """
    return a + b - 10 * has_carry(a, b)


def slips(problem: Problem) -> list[str]:
    """Wrong answers a careless person gives to this problem: distinct, ordered, never right.

    A forgotten carry (addition) or borrow (subtraction) is the only slip where there is one to
    forget; other numbers are off by one or by ten, or have their last two digits swapped; lists
    have two neighbours swapped.
    """
    if problem.kind in ("sort", "reverse"):
        return _list_slips(problem.answer)
    if problem.kind == "addition" and has_carry(*_ints(problem.operands)):
        return [f" {dropped_carry(*_ints(problem.operands))}"]
    right = int(problem.answer)
    if problem.kind == "subtraction":
        a, b = _ints(problem.operands)
        if a % 10 < b % 10:
            return [f" {right + 10}"]
    return [f" {x}" for x in sorted(_number_slips(right))]


def mistake(problem: Problem, rng: random.Random) -> str:
    """One wrong answer of the kind the bundled model gives, in the form of `Problem.answer`.

    Never the right answer. Where several slips are possible each is as likely.
    """
    return rng.choice(slips(problem))


def reward(response_text: str, problem: Problem) -> float:
    """1.0 where the response answers the problem, else 0.0.

    Only the first line that is not blank counts, so a model that rambles on afterwards is not
    punished for it. For a number the first number in that line has to be the answer; for a list
    the whole line has to be, up to spacing.

    Raises:
        DataError: the response is not a string.
    """
    if not isinstance(response_text, str):
        raise DataError(
            f"expected the response as str, got {type(response_text).__name__}",
            field="response_text",
        )
    line = next((s for s in response_text.splitlines() if s.strip()), "")
    if problem.kind in ("sort", "reverse"):
        return float(line.split() == problem.answer.split())
    found = _NUMBER.search(line)
    return float(found is not None and found.group() == problem.answer.strip())


@dataclass(frozen=True, slots=True)
class Task:
    """Problems of one or several kinds, and how a response to one is graded.

    Attributes:
        name: what it is called in a picker and in records.
        kinds: the operations it asks for, in equal shares.
        prefix: text put before every prompt, such as worked examples.
    """

    name: str
    kinds: tuple[str, ...]
    prefix: str = ""

    def problems(self, n: int, seed: int = 0, split: str = "train") -> list[Problem]:
        """``n`` problems, kinds taking turns; the same list for the same arguments.

        Raises:
            DataError: unknown kind or split, or a negative ``n``.
        """
        _check(n, split)
        each = -(-n // len(self.kinds))
        columns = [problems(kind, each, seed=seed, split=split) for kind in self.kinds]
        return [column[i] for i in range(each) for column in columns][:n]

    def prompt(self, problem: Problem) -> str:
        """The text to give the model for this problem."""
        return self.prefix + problem.prompt

    def reward(self, response_text: str, problem: Problem) -> float:
        """1.0 for a right response, else 0.0; see `reward`."""
        return reward(response_text, problem)


TASKS: dict[str, Task] = {
    **{kind: Task(kind, (kind,)) for kind in KINDS},
    "arithmetic": Task("arithmetic", ("addition", "subtraction", "multiplication")),
    "everything": Task("everything", KINDS),
}


# A decimal is one number, so that " 19.5" does not pass for 19; [0-9] keeps other scripts out.
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


def _kind(kind: str) -> _Kind:
    if kind not in _KINDS:
        raise DataError(f"unknown kind {kind!r}, {one_of(KINDS, kind)}", field="kind")
    return _KINDS[kind]


def _check(n: int, split: str) -> None:
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}, {one_of(SPLITS, split)}", field="split")
    if n < 0:
        raise DataError(f"expected n >= 0, got {n}", field="n")


def _addition_pool(split: str) -> list[Operands]:
    held_out = split == "held_out"
    numbers = range(10, 100)
    return [(a, b) for a in numbers for b in numbers if is_held_out("addition", (a, b)) == held_out]


def _addition_operands(n: int, rng: random.Random, split: str) -> list[Operands]:
    pool = _addition_pool(split)
    drawn: list[Operands] = []
    while len(drawn) < n:
        rng.shuffle(pool)
        drawn += pool[: n - len(drawn)]
    return drawn


def _draw_many(kind: str, n: int, rng: random.Random, split: str) -> list[Operands]:
    held_out = split == "held_out"
    drawn: list[Operands] = []
    while len(drawn) < n:
        operands = _KINDS[kind].draw(rng)
        if is_held_out(kind, operands) == held_out:
            drawn.append(operands)
    return drawn


def _number_slips(right: int) -> set[int]:
    wrong = {right - 10, right - 1, right + 1, right + 10}
    digits = str(right)
    if len(digits) > 1:
        wrong.add(int(digits[:-2] + digits[-1] + digits[-2]))
    return {x for x in wrong if x >= 0 and x != right}


def _list_slips(answer: str) -> list[str]:
    items = answer.split()
    wrong = {" " + " ".join([*items[:i], items[i + 1], items[i], *items[i + 2 :]]) for i in range(len(items) - 1)}
    # A list of equal items has no swap that shows; losing one item is always wrong.
    return sorted(wrong - {answer}) or [" " + " ".join(items[:-1])]
