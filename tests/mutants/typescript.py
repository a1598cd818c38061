"""Mistakes in TypeScript, as small edits of one line, and the run of vitest that should find them.

The edits are textual: TypeScript 7 has no interface to its syntax trees. Comments, imports, types and quoted text are
left alone.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from .operators import TWIN, Mutant

__all__ = ["run_vitest", "typescript_mutants"]

STATEMENT = re.compile(r"^\s+(?:(?:await )?(?:this\.)?[\w.?!]+\(.*\)|this\.[\w.]+ (?:[-+|&?]*)= .*);$")
GUARD = re.compile(r"\bif \((.+)\) (?:return|continue|break|throw)\b")
TERNARY = re.compile(r"\? ([\w.\"'\[\]]+) : ([\w.\"'\[\]]+)")
CALL = re.compile(r"\b[\w.]+\(([\w.]+), ([\w.]+)\)")
TEMPLATE = re.compile(r"\$\{([^{}]+)\}")
SKIPPED = re.compile(
    r"^\s*(?://|/?\*|import\b|export (?:type|interface)\b|type\b|interface\b|readonly\b|declare\b|\} from\b)"
)

# Kind, what a line contains, and what it becomes instead.
EDITS: list[tuple[str, re.Pattern[str], str]] = [
    ("boundary", re.compile(r" < "), " <= "),
    ("boundary", re.compile(r" <= "), " < "),
    ("boundary", re.compile(r" > "), " >= "),
    ("boundary", re.compile(r" >= "), " > "),
    ("boundary", re.compile(r" === "), " !== "),
    ("boundary", re.compile(r" !== "), " === "),
    ("logic", re.compile(r" && "), " || "),
    ("logic", re.compile(r" \|\| "), " && "),
    ("logic", re.compile(r" \?\? "), " && "),
    ("logic", re.compile(r"(?<=[ (!])!(?=[\w(])"), ""),
    ("sign", re.compile(r" \+ (?=[\w(])"), " - "),
    ("sign", re.compile(r" - (?=[\w(])"), " + "),
    ("sign", re.compile(r" \* (?=[\w(])"), " / "),
    ("sign", re.compile(r" / (?=[\w(])"), " * "),
    ("sign", re.compile(r"(?<=[ (])-(?=[a-z(])"), ""),
    ("default", re.compile(r"(?<== )true\b"), "false"),
    ("default", re.compile(r"(?<== )false\b"), "true"),
    ("default", re.compile(r"(?<=: )true\b"), "false"),
    ("default", re.compile(r"(?<=: )false\b"), "true"),
]  # fmt: skip


def typescript_mutants(source: str) -> Iterator[Mutant]:
    """Every mutant of ``source``; each differs from it in one place."""
    offset = 0
    for number, line in enumerate(source.splitlines(keepends=True), 1):
        if not SKIPPED.match(line):
            for kind, start, end, after in _edits(line):
                begin = len(source[: offset + start].encode())
                before = line[start:end]
                yield LineMutant(number, kind, before, after, begin, begin + len(before.encode()))
        offset += len(line)


class LineMutant(Mutant):
    """A mutant of TypeScript; vitest says whether it compiles."""

    __slots__ = ()

    def compiles(self, source: str) -> bool:
        return True


def _edits(line: str) -> Iterator[tuple[str, int, int, str]]:
    code = line.rstrip("\n")
    for kind, pattern, after in EDITS:
        for match in pattern.finditer(code):
            if not _quoted(code, match.start()):
                yield kind, match.start(), match.end(), after
    if STATEMENT.match(code) and "super" not in code:
        yield "omission", len(code) - len(code.lstrip()), len(code), ";"
    for match in GUARD.finditer(code):
        yield "guard", match.start(1), match.end(1), "false"
    for match in TERNARY.finditer(code):
        yield "twin", match.start(), match.end(), f"? {match[2]} : {match[1]}"
    for match in CALL.finditer(code):
        if match[1] != match[2]:
            yield "twin", match.start(1), match.end(2), f"{match[2]}, {match[1]}"
    for match in TEMPLATE.finditer(code):
        yield "words", match.start(1), match.end(1), "0"
    for match in re.finditer(r"(?<=[\[(+\-<>=] )\d+\b(?!\.)|(?<=[\[(])\d+\b(?!\.)", code):
        yield "off_by_one", match.start(), match.end(), str(int(match[0]) + 1)
    for match in re.finditer(r"(?<=\.)\w+\b", code):
        if match[0] in TWIN:
            yield "twin", match.start(), match.end(), TWIN[match[0]]


def _quoted(code: str, place: int) -> bool:
    """Whether a place lies in a comment or in quoted text."""
    before = code[:place]
    return "//" in before or any(before.count(quote) % 2 for quote in "\"'`")


def run_vitest(widgets: Path, path: str) -> None:
    """Replace this process by vitest, on the tests that import the module at ``path``."""
    sys.path.insert(0, str(widgets.parent))
    from hatch_build import find_npm

    npm, environment = find_npm()
    environment |= {"NO_COLOR": "1"}
    related = str(widgets.parent / path)
    os.chdir(widgets)
    os.execvpe(npm[0], [*npm, "exec", "--", "vitest", "related", "--run", "--bail", "1", related], environment)
