r"""Problems with a known answer, generated from operands: the data of the bundled model and of most lessons.

A :class:`Problem` has a prompt, its right answer and the operands that both were made from. :func:`mistake` returns a
wrong answer of the kind that the bundled model gives, so a pair of the two is worth training on. :func:`reward` grades
a response.

Text format: a prompt ends just before the answer (``"...\nAnswer:"``) and an answer begins with one space (``" 19"``).
The model sees ``prompt + answer``, and tokenizing the two separately gives the same tokens as tokenizing their
concatenation.

A stable hash of the operands decides whether a problem is held out. A held-out problem is therefore held out in every
phrasing, in both orders of a commutative operation, and from the text that the bundled model was pretrained on.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import DataError, one_of

__all__ = [
    "HELD_OUT_SHARE",
    "KINDS",
    "SPLITS",
    "Problem",
    "addition_problems",
    "check_count_and_split",
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
    """A question with one right answer. It is also a mapping, like a row of a file: ``problem["answer"]``.

    Attributes:
        kind: The operation, one of ``KINDS``.
        operands: Numbers, or a letter and a word, that the answer is computed from.
        prompt: Text up to the answer, without a trailing space.
        answer: The right completion; it begins with one space.
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
    """How problems of one operation are drawn, phrased and answered."""

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
    """Return True if the problem belongs to the held-out split; the result never depends on machine or version.

    The order of the operands is ignored if the operation is commutative, so training on ``7 + 12`` cannot reveal a
    held-out ``12 + 7``.

    Raises:
        DataError: If the kind is unknown.
    """
    spec = _kind(kind)
    key = tuple(sorted(_ints(operands))) if spec.commutative else operands
    text = f"{kind}|" + "|".join(str(x) for x in key)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < HELD_OUT_SHARE * 2**64


def make_problem(kind: str, operands: Operands, *, phrasing: int = 0) -> Problem:
    """Return the problem with these operands, in phrasing number ``phrasing`` (0 is the plain one).

    Raises:
        DataError: If the kind is unknown or has no such phrasing.
    """
    spec = _kind(kind)
    if not 0 <= phrasing < len(spec.phrasings):
        raise DataError(
            f"found {phrasing}, but {kind} has phrasings 0 to {len(spec.phrasings) - 1}",
            field="phrasing",
        )
    question = spec.phrasings[phrasing].format(*operands, all=_joined(operands))
    return Problem(kind, operands, f"Question: {question}\nAnswer:", " " + spec.answer(operands))


def problems(kind: str, n: int, *, seed: int = 0, split: str = "train") -> list[Problem]:
    """Return ``n`` problems of one kind in mixed phrasings; the same list for the same arguments.

    Two-digit additions do not repeat until the split is exhausted; problems of other kinds may repeat.

    Raises:
        DataError: If the kind or the split is unknown, or ``n`` is negative.
    """
    spec = _kind(kind)
    check_count_and_split(n, split)
    rng = random.Random(f"{kind}/{split}/{seed}")
    drawn = _addition_operands(n, rng, split) if kind == "addition" else _draw_many(kind, n, rng, split)
    return [make_problem(kind, operands, phrasing=rng.randrange(len(spec.phrasings))) for operands in drawn]


def addition_problems(n: int, seed: int = 0, split: str = "train") -> list[Problem]:
    """Return ``n`` two-digit additions (both numbers 10 to 99), phrased ``What is a + b?``.

    Problems with and without a carry out of the ones alternate, so half of any list is hard for the bundled model and
    two lists are comparable. The alternation ends when the problems with a carry are exhausted, after about 5,900
    training or 1,400 held-out problems. No problem repeats until the split is exhausted (8,100 problems in both splits,
    about a fifth of them held out); then the list repeats them in a new order. The list is the same for the same
    arguments.

    Raises:
        DataError: If ``split`` is not ``"train"`` or ``"held_out"``, or ``n`` is negative.
    """
    check_count_and_split(n, split)
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
    """Return True if the ones digits of ``a`` and ``b`` add up to ten or more."""
    return a % 10 + b % 10 >= 10


def dropped_carry(a: int, b: int) -> int:
    """Return ``a + b`` without the carry out of the ones column.

    Higher columns carry as usual: ``dropped_carry(58, 67) == 115``.
    """
    return a + b - 10 * has_carry(a, b)


def slips(problem: Problem) -> list[str]:
    """Return typical wrong answers to a problem: distinct, in a fixed order, never the right answer.

    If the problem has a carry (addition) or a borrow (subtraction), forgetting it is the only slip. Other numbers are
    off by one or by ten, or have their last two digits swapped. Lists have two neighbours swapped.
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
    """Return a wrong answer of the kind that the bundled model gives, in the format of ``Problem.answer``.

    It is drawn uniformly from :func:`slips`.
    """
    return rng.choice(slips(problem))


def reward(response_text: str, problem: Problem) -> float:
    """Return 1.0 if the response answers the problem, else 0.0.

    Only the first line that is not blank counts, so text after the answer does not lower the reward. If the answer is a
    number, the first number in that line must equal it; if it is a list, the whole line must equal it up to spaces.

    Raises:
        DataError: If the response is not a string.
    """
    if not isinstance(response_text, str):
        raise DataError(
            f"found {type(response_text).__name__}, expected the response as str",
            field="response_text",
        )
    line = next((s for s in response_text.splitlines() if s.strip()), "")
    if problem.kind in ("sort", "reverse"):
        return float(line.split() == problem.answer.split())
    found = _NUMBER.search(line)
    return float(found is not None and found.group() == problem.answer.strip())


# A decimal matches as one number, so " 19.5" is not 19. [0-9], because \d also matches digits of other scripts.
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


def _kind(kind: str) -> _Kind:
    if kind not in _KINDS:
        raise DataError(f"unknown kind {kind!r}, {one_of(KINDS, kind)}", field="kind")
    return _KINDS[kind]


def check_count_and_split(n: int, split: str) -> None:
    """Raise :class:`DataError` if ``n`` is negative or ``split`` is not one of ``SPLITS``."""
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}, {one_of(SPLITS, split)}", field="split")
    if n < 0:
        raise DataError(f"found {n}, expected n >= 0", field="n")


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
    # Swapping equal items changes nothing. If no swap gives a wrong list, drop the last item.
    return sorted(wrong - {answer}) or [" " + " ".join(items[:-1])]
