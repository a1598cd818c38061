"""The benchmarks run and their figures are sane; how fast things are is not asserted here."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from . import __main__ as bench
from .timing import alternate


def test_a_short_run_prints_the_table_and_writes_the_figures(tmp_path: Path) -> None:
    out = tmp_path / "bench.json"
    result = CliRunner().invoke(bench.app, ["--rounds", "2", "--pairs", "2", "--threads", "1", "--out", str(out)])
    assert result.exit_code == 0, result.output
    rows = json.loads(out.read_text())["rows"]
    assert rows[0]["what"].startswith("custom loss / built-in loss")
    assert len(rows) == 7
    assert all(0.05 < row["ratio"] < 50 for row in rows)


def test_variants_take_turns() -> None:
    order: list[str] = []
    alternate({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=3, warmup=1)
    assert "".join(order) == "ab" + "ab" + "ba" + "ab"
