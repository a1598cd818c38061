"""The README's example is run as it stands, and does what it says: the model learns."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest


@pytest.mark.slow
def test_the_example_learns(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    example = re.findall(r"```python\n(.*?)```", (root / "README.md").read_text(encoding="utf-8"), re.DOTALL)[0]
    exec(compile(example, "README.md", "exec"), {})
    steps = [ast.literal_eval(line) for line in capsys.readouterr().out.splitlines() if line.startswith("{")]
    assert len(steps) == 32
    first, last = (sum(step["pair_accuracy"] for step in part) / 5 for part in (steps[:5], steps[-5:]))
    assert last > first + 0.15
