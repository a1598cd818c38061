"""Each operator on a line that shows what it does; and what is never touched."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from .__main__ import ROOT, sample
from .operators import KINDS, Mutant, python_mutants
from .typescript import typescript_mutants

# kind, source, one of the sources that the operator makes of it
PYTHON = [
    ("sign", "a = b + c", "a = (b) - (c)"),
    ("sign", "a = -b", "a = (b)"),
    ("sign", "n += 1", "n = 1"),
    ("off_by_one", "x[0]", "x[1]"),
    ("off_by_one", "x[:-1]", "x[:-2]"),
    ("boundary", "ok = a < b", "ok = a <= b"),
    ("boundary", "ok = a is None", "ok = a is not None"),
    ("logic", "ok = a and b", "ok = ((a) or (b))"),
    ("logic", "ok = a and b", "ok = (a)"),
    ("logic", "ok = not a", "ok = bool(a)"),
    ("guard", "def f():\n    if a:\n        return 1", "def f():\n    if False:\n        return 1"),
    ("detach", "x = y.detach()", "x = y"),
    ("detach", "with torch.no_grad():\n    f()", "with torch.enable_grad():\n    f()"),
    ("detach", "x = list(self.rows)", "x = self.rows"),
    ("mask", "x = y * mask", "x = (y)"),
    ("mask", "x = y.masked_fill(m, 0)", "x = y"),
    ("mask", "x = torch.where(c, a, b)", "x = (a)"),
    ("lock", "with self._lock:\n    f()", "with __import__('contextlib').nullcontext():\n    f()"),
    ("restore", "try:\n    f()\nfinally:\n    g()", "try:\n    f()\nfinally:\n    pass"),
    ("twin", "x = y.mean()", "x = y.sum()"),
    ("twin", "f(a, b, c=d)", "f(b, a, c=d)"),
    ("default", "def f(x=True): ...", "def f(x=False): ..."),
    ("default", "class A:\n    x: int = 3", "class A:\n    x: int = 6"),
    ("key", "x = row['a']", "x = row['a_']"),
    ("key", "key = a, b", "key = (a,)"),
    ("argument", "f(a, seed=b)", "f(a)"),
    ("swallow", "raise ValueError(a)", "pass"),
    ("omission", "self.notify()", "pass"),
    ("omission", "self.error = None", "pass"),
    ("words", "m = f'{a} of {b}'", "m = f'{0} of {b}'"),
]
TYPESCRIPT = [
    ("boundary", "  if (a < b) f();", "  if (a <= b) f();"),
    ("logic", "  return a && b;", "  return a || b;"),
    ("logic", "  return !a;", "  return a;"),
    ("sign", "  return a + b;", "  return a - b;"),
    ("off_by_one", "  return x[0];", "  return x[1];"),
    ("guard", "  if (this.done) return;", "  if (false) return;"),
    ("twin", "  return Math.min(a, b);", "  return Math.max(a, b);"),
    ("twin", "  return f(a, b);", "  return f(b, a);"),
    ("twin", "  return c ? a : b;", "  return c ? b : a;"),
    ("default", "  let open = true;", "  let open = false;"),
    ("omission", "  this.draw();", "  ;"),
    ("omission", "  this.last = 0;", "  ;"),
    ("words", "  return `${a} of ${b}`;", "  return `${0} of ${b}`;"),
]


def applied(kind: str, source: str, mutants: Iterator[Mutant]) -> list[str]:
    return [mutant.apply(source) for mutant in mutants if mutant.kind == kind]


@pytest.mark.parametrize(("kind", "source", "mutated"), PYTHON)
def test_python_operator(kind: str, source: str, mutated: str) -> None:
    assert mutated in applied(kind, source, python_mutants(source))


@pytest.mark.parametrize(("kind", "source", "mutated"), TYPESCRIPT)
def test_typescript_operator(kind: str, source: str, mutated: str) -> None:
    assert mutated in applied(kind, source, typescript_mutants(source))


def test_every_kind_has_an_example() -> None:
    assert {kind for kind, _, _ in PYTHON} == set(KINDS)


@pytest.mark.parametrize(
    "source",
    [
        "def f(x: 'int < 3') -> list[0]: ...",
        "'a docstring + 1'",
        "__all__ = ['a' + 'b']",
        "if TYPE_CHECKING:\n    x = a + b",
        "class A:\n    def __repr__(self):\n        return a + b",
        "x = 'a' + b",
    ],
)
def test_what_does_nothing_is_left_alone(source: str) -> None:
    assert list(python_mutants(source)) == []


@pytest.mark.parametrize("source", ["  // a < b", '  f = "a < b";', 'import { a } from "b < c";', "type A = B < C;"])
def test_typescript_that_does_nothing_is_left_alone(source: str) -> None:
    assert [mutant for mutant in typescript_mutants(source) if mutant.kind == "boundary"] == []


def test_positions_count_bytes() -> None:
    """Text before the mutated place may take several bytes a character."""
    source = "word = 'éßü'; x = a < b\ny = c < d"
    assert applied("boundary", source, python_mutants(source)) == [
        "word = 'éßü'; x = a <= b\ny = c < d",
        "word = 'éßü'; x = a < b\ny = c <= d",
    ]
    assert [m.line for m in python_mutants(source)] == [1, 2]


def test_kinds_and_files_take_turns() -> None:
    """Of two kinds and two files, four mutants cover every combination; the seed decides the order."""
    source = "x = a < b\ny = c < d\nf()\ng()\n"
    found = {path: list(python_mutants(source)) for path in ("tests/__init__.py", "tests/mutants/__init__.py")}
    chosen = sample(found, 4, seed=0)
    assert {(path, mutant.kind) for path, mutant in chosen} == {
        (path, kind) for path in found for kind in ("boundary", "omission")
    }
    assert sample(found, 4, seed=0) == chosen
    assert len(sample(found, 100, seed=1)) == 8


def test_every_equivalent_mutant_is_in_the_code() -> None:
    """An entry whose line has changed hides nothing, and its reason may no longer hold."""
    listed = tomllib.loads(Path(__file__).with_name("equivalent.toml").read_text(encoding="utf-8"))["mutant"]
    gone = []
    for entry in listed:
        source = (ROOT / entry["file"]).read_text(encoding="utf-8")
        mutants = typescript_mutants if entry["file"].endswith(".ts") else python_mutants
        lines = source.split("\n")
        found = {(lines[mutant.line - 1].strip(), mutant.before, mutant.after) for mutant in mutants(source)}
        if (entry["code"], entry["before"], entry["after"]) not in found:
            gone.append(entry)
    assert gone == []
