"""What the marks of tests say of the bundled losses: ``@pytest.mark.loss_reference("dpo", stops_gradient=False)``."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

__all__ = ["losses_with_a_reference", "losses_with_a_stopped_gradient"]

TESTS = Path(__file__).resolve().parents[1]
MARK = "pytest.mark.loss_reference"


@functools.cache
def _marks() -> tuple[ast.Call, ...]:
    def calls() -> Iterator[ast.Call]:
        for path in sorted(TESTS.rglob("test_*.py")):
            text = path.read_text(encoding="utf-8")
            if MARK in text:
                nodes = ast.walk(ast.parse(text))
                yield from (n for n in nodes if isinstance(n, ast.Call) and ast.unparse(n.func) == MARK)

    return tuple(calls())


def losses_with_a_reference() -> set[str]:
    """Losses whose values a test compares with TRL's or with hand arithmetic."""
    return {ast.literal_eval(name) for call in _marks() for name in call.args}


def losses_with_a_stopped_gradient() -> set[str]:
    """Losses that treat a part of themselves as a constant, so that differences disagree with autograd on purpose."""
    stopped = [
        call for call in _marks() if any(k.arg == "stops_gradient" and ast.literal_eval(k.value) for k in call.keywords)
    ]
    return {ast.literal_eval(name) for call in stopped for name in call.args}
