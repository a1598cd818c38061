"""The README stays short, and its example runs as it stands."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

WORDS = 900


def test_readme_is_short(root: Path) -> None:
    words = len((root / "README.md").read_text(encoding="utf-8").split())
    assert words <= WORDS, f"README.md has {words} words; move detail to docs/"


@pytest.mark.slow
def test_example_learns(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert sum(bool(line.strip()) for line in example.splitlines()) <= 15
    exec(compile(example, "README.md", "exec"), {})
    steps = [ast.literal_eval(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert len(steps) == 32
    first, last = (sum(step["pair_accuracy"] for step in part) / 5 for part in (steps[:5], steps[-5:]))
    assert last > first + 0.15
