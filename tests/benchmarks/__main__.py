"""``python -m tests.benchmarks``: one table, and a JSON file beside it."""

from __future__ import annotations

import json
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from . import engine

__all__ = ["app", "main"]

app = typer.Typer(add_completion=False)


@app.command()
def main(
    rounds: Annotated[int, typer.Option(help="measured rounds of each comparison")] = 15,
    pairs: Annotated[int, typer.Option(help="preference pairs a batch")] = 32,
    threads: Annotated[int, typer.Option(help="torch threads")] = 2,
    out: Annotated[Path, typer.Option(help="JSON file")] = Path("bench.json"),
) -> None:
    """Measure what the engine's ideas are worth on this machine."""
    torch.set_num_threads(threads)
    rows = [
        *engine.custom_against_builtin(rounds, pairs),
        *engine.packed_against_padded(rounds, pairs),
        *engine.run_against_calls(rounds, pairs),
    ]
    table = Table("what", "ratio", "target", "first, median (quartiles)", "second", title="mint_lab benchmarks")
    for row in rows:
        table.add_row(row["what"], f"{row['ratio']:.2f}", row["target"], row["first"], row["second"])
    Console(width=150).print(table)
    about = {
        "machine": platform.machine(),
        "threads": threads,
        "rounds": rounds,
        "pairs": pairs,
        "versions": {name: version(name) for name in ("torch", "transformers", "peft")},
    }
    out.write_text(json.dumps({"about": about, "rows": rows}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app()
