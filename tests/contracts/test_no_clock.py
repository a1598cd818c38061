"""No test waits for an amount of time, and none says how long something may take: both fail on a busy machine.

``tests/benchmarks`` measure time, which is their job, and a ``__main__.py`` is a program and no test.
``tests/waiting.py`` has the one function that polls.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAY_USE_THE_CLOCK = {"tests/waiting.py", "tests/browser/pictures.py", "tests/contracts/test_no_clock.py"}
NAMES_OF_CLOCKS = ("time", "monotonic", "perf_counter", "process_time", "thread_time")
CLOCKS = {name + unit for name in NAMES_OF_CLOCKS for unit in ("", "_ns")}
CLOCK_CALL = re.compile(rf"\b(?:{'|'.join(NAMES_OF_CLOCKS)})(?:_ns)?\(|from time import")
ADDS = {"add", "append", "extend", "insert", "put"}

# What a string must not contain that becomes code: a cell, a program, or a function of the page.
SLEEP_IN_TEXT = re.compile(
    r"\bsleep\(|wait_?for_?timeout\(|setTimeout\(\s*(?:\(\)\s*=>\s*)?(?:resolve|done)\b", re.IGNORECASE
)
CLOCK_IN_TEXT = re.compile(
    r"\b(?:monotonic|perf_counter|process_time)(?:_ns)?\(|\btime\.time\(\)\s*[-<>]|[-<>]=?\s*time\.time\(\)"
)
CLOCK_IN_TYPESCRIPT = re.compile(r"expect\([^;]*(?:Date|performance)\.now\(|waitFor\w*\([^)]*\bsetTimeout")


def rule_breaks(source: str) -> list[tuple[int, str]]:
    """Return the line and the kind of each place in a Python test that waits for a time or compares one."""
    tree = ast.parse(source)
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    found: set[tuple[int, str]] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (wait := _wait(node)):
            found.add((node.lineno, wait))
        elif isinstance(node, ast.ImportFrom) and node.module in {"time", "asyncio"}:
            found |= {(node.lineno, "sleep") for name in node.names if name.name == "sleep"}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation:
            if SLEEP_IN_TEXT.search(node.value):
                found.add((node.lineno, "sleep in a text"))
            if CLOCK_IN_TEXT.search(node.value):
                found.add((node.lineno, "clock in a text"))
    if CLOCK_CALL.search(source):
        found |= {(line, "time compared") for line in _compared_times(tree)}
    return sorted(found)


def _wait(call: ast.Call) -> str:
    """Return what kind of wait for a time ``call`` is; "" if it is none."""
    function = call.func
    name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
    if name == "sleep" and (isinstance(function, ast.Name) or getattr(function.value, "id", "") in {"time", "asyncio"}):
        return "sleep"
    if name == "wait_for_timeout":
        return "wait_for_timeout"
    if name == "Timer":
        return "timer"
    fresh = isinstance(function, ast.Attribute) and isinstance(function.value, ast.Call) and name in {"wait", "acquire"}
    if fresh and getattr(function.value.func, "attr", getattr(function.value.func, "id", "")) == "Event":  # type: ignore[union-attr]
        return "wait for an event that nobody can set"
    return ""


def _compared_times(tree: ast.Module) -> Iterator[int]:
    """Yield the lines of comparisons in which a time takes part, under whatever name it was kept.

    A name counts in its function and in functions inside of it.
    """
    clocks = {
        name.asname or name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "time"
        for name in node.names
        if name.name in CLOCKS
    }
    scopes = [tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))]
    for scope in scopes:
        times: set[str] = set()
        for _ in range(5):  # a name of a name of a name
            times |= {name for node in ast.walk(scope) for name in _kept_as(node) if _has_time(node, times, clocks)}
        for node in ast.walk(scope):
            if isinstance(node, ast.Compare) and any(
                _has_time(part, times, clocks) for part in (node.left, *node.comparators)
            ):
                yield node.lineno


def _has_time(node: ast.AST, times: set[str], clocks: set[str]) -> bool:
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and part.id in times:
            return True
        if isinstance(part, ast.Call):
            function = part.func
            if isinstance(function, ast.Name) and function.id in clocks:
                return True
            is_clock = isinstance(function, ast.Attribute) and function.attr in CLOCKS
            if is_clock and getattr(function.value, "id", "") == "time":
                return True
    return False


def _kept_as(node: ast.AST) -> Iterator[str]:
    """Yield the names to which ``node`` assigns, or adds, a value."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign | ast.AugAssign | ast.NamedExpr):
        targets = [node.target]
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in ADDS:
        targets = [node.func.value]
    for target in targets:
        yield from (part.id for part in ast.walk(target) if isinstance(part, ast.Name))


def typescript_rule_breaks(source: str) -> list[tuple[int, str]]:
    """Return the same for a TypeScript test. What a fake clock advances is no wait."""
    found = [(source.count("\n", 0, match.start()) + 1, "sleep") for match in SLEEP_IN_TEXT.finditer(source)]
    found += [
        (source.count("\n", 0, match.start()) + 1, "time compared") for match in CLOCK_IN_TYPESCRIPT.finditer(source)
    ]
    return sorted(found)


# -- the rule ----------------------------------------------------------------------------------------------------------


def files_in(folder: str, *endings: str) -> list[Path]:
    found = [path for path in (ROOT / folder).rglob("*") if path.suffix in endings]
    measures = ROOT / "tests" / "benchmarks"
    return sorted(path for path in found if path.name != "__main__.py" and not path.is_relative_to(measures))


def named(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_no_test_waits_for_a_time_or_compares_one() -> None:
    files = files_in("tests", ".py")
    assert len(files) > 100
    lines = [
        f"{named(path)}:{line}: {kind}"
        for path in files
        if named(path) not in MAY_USE_THE_CLOCK
        for line, kind in rule_breaks(path.read_text(encoding="utf-8"))
    ]
    assert lines == [], (
        "wait for a condition (tests/waiting.py), and count or patch the clock instead of measuring time"
    )


def test_no_test_of_the_page_waits_for_a_time_or_compares_one() -> None:
    files = files_in("widgets/tests", ".ts", ".tsx")
    assert len(files) > 20
    lines = [
        f"{named(path)}:{line}: {kind}"
        for path in files
        for line, kind in typescript_rule_breaks(path.read_text(encoding="utf-8"))
    ]
    assert lines == [], "use vi.useFakeTimers, or wait for a condition"


# -- the rule finds what it forbids, and nothing else ------------------------------------------------------------------

TIMED = "def test():\n    start = time.perf_counter()\n    work()\n"
TOOK = TIMED + "    took = time.perf_counter() - start\n"
LIST = TIMED + "    took.append(time.perf_counter() - start)\n"


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import time\ntime.sleep(1)", [(2, "sleep")]),
        ("async def test():\n    await asyncio.sleep(0.1)", [(2, "sleep")]),
        ("from time import monotonic, sleep\nx = 1\nsleep(2)", [(1, "sleep"), (3, "sleep")]),
        ("page.wait_for_timeout(50)", [(1, "wait_for_timeout")]),
        ("shown.page.wait_for_timeout(50)", [(1, "wait_for_timeout")]),
        ("threading.Timer(0.2, stop).start()", [(1, "timer")]),
        ("threading.Event().wait(0.05)", [(1, "wait for an event that nobody can set")]),
        ("Event().wait(0.05)", [(1, "wait for an event that nobody can set")]),
        ("cell('kept.append(1)\\ntime.sleep(4)')", [(1, "sleep in a text")]),
        ("CELL = f'''\ntime.sleep({x})\n'''", [(1, "sleep in a text")]),
        ("PAUSE = 'new Promise((resolve) => setTimeout(resolve, 100))'", [(1, "sleep in a text")]),
        ("PROGRAM = 'print(time.monotonic() - start)'", [(1, "clock in a text")]),
        ("PROGRAM = 'assert time.time() < end'", [(1, "clock in a text")]),
        (TIMED + "    assert time.perf_counter() - start < 2", [(4, "time compared")]),
        (TIMED + "    assert 0.1 <= time.perf_counter() - start", [(4, "time compared")]),
        (TOOK + "    best = min(took, 5)\n    assert best < 2", [(6, "time compared")]),
        (LIST + "    assert sorted(took)[5] < 2", [(5, "time compared")]),
        (TIMED + "    def ask():\n        return time.perf_counter() > start", [(5, "time compared")]),
        (TIMED + "    if (took := time.process_time()) > 5:\n        fail()", [(4, "time compared")]),
        ("from time import monotonic as now\nwhile now() < end: pass", [(2, "time compared")]),
    ],
)
def test_what_is_forbidden_is_found(source: str, found: list[tuple[int, str]]) -> None:
    assert [place for place in rule_breaks(source) if place in found] == found
    assert {line for line, _ in rule_breaks(source)} == {line for line, _ in found}


@pytest.mark.parametrize(
    "source",
    [
        '"""A text about time.sleep(4) for a reader."""',
        "def test():\n    '''Not even time.sleep(4), or time.monotonic() - start, stops it.'''",
        "gate.wait()\nevent.wait(TIMEOUT)\nassert event.wait(TIMEOUT)",
        "until(lambda: run.status == 'paused')",
        "LOOP = 'while True:\\n    time.time()'",
        "monkeypatch.setattr(module, 'time', SimpleNamespace(perf_counter=lambda: clock.now))\nassert clock.now < 5",
        "trainer.step(started=time.perf_counter())\nassert run.steps < 5",
        "assert record.step_time > 0",
        "report(time.time())",
        "page.wait_for_function('() => ready')",
        "clock.sleep(2)\nassert clock.now == 2",
    ],
)
def test_what_is_allowed_is_not_found(source: str) -> None:
    assert rule_breaks(source) == []


def test_typescript_is_read_too() -> None:
    waits = "it('a', async () => {\n  await new Promise((resolve) => setTimeout(resolve, 20));\n});"
    assert typescript_rule_breaks(waits) == [(2, "sleep")]
    assert typescript_rule_breaks("await new Promise((done) =>\n  setTimeout(() => done(1), 20));") == [(2, "sleep")]
    assert typescript_rule_breaks("await page.waitForTimeout(50);") == [(1, "sleep")]
    slow = "const start = 1;\nexpect(performance.now() - start).toBeLessThan(50);"
    assert typescript_rule_breaks(slow) == [(2, "time compared")]
    assert typescript_rule_breaks("expect(Date.now()).toBe(5);") == [(1, "time compared")]
    allowed = 'vi.useFakeTimers();\nvi.stubGlobal("requestAnimationFrame", (draw) => setTimeout(draw, 16));\n'
    assert typescript_rule_breaks(allowed + "vi.advanceTimersByTime(250);\nexpect(drawn).toBe(1);") == []
