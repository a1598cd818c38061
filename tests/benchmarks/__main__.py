"""``python -m tests.benchmarks``: the engine against the plain way of doing things; ``... peers``: against TRL.

Each prints one table and writes a JSON file with every number behind it.
"""

from __future__ import annotations

import json
import platform
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from . import engine
from .peers import compare
from .peers.environment import NoPeer
from .peers.jobs import Job, Kind

__all__ = ["app", "main", "peers"]

app = typer.Typer(add_completion=False)

Threads = Annotated[int, typer.Option(help="torch threads")]


@app.callback(invoke_without_command=True)
def main(
    context: typer.Context,
    rounds: Annotated[int, typer.Option(help="measured rounds of each comparison")] = 15,
    pairs: Annotated[int, typer.Option(help="preference pairs a batch")] = 32,
    threads: Threads = 2,
    out: Annotated[Path, typer.Option(help="JSON file")] = Path("bench.json"),
) -> None:
    """Measure what the engine's ideas are worth on this machine."""
    if context.invoked_subcommand:
        return
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
    _write(out, {"about": about, "rows": rows})


@app.command()
def peers(  # noqa: PLR0917, a command's options
    pairs: Annotated[Path, typer.Option(help="preference pairs: HH-RLHF's harmless-base test split, .jsonl.gz")],
    prompts: Annotated[Path, typer.Option(help="GSM8K's test split, .jsonl with a column 'question'")],
    jobs: Annotated[str, typer.Option(help="which, of preference, sft, sft-packed, rl, rl-micro")] = (
        "preference,sft,rl"
    ),
    steps: Annotated[int, typer.Option(help="timed steps a block")] = 4,
    blocks: Annotated[int, typer.Option(help="times that each side has its turn")] = 2,
    threads: Threads = 2,
    venv: Annotated[Path, typer.Option(help="TRL's environment, made when it is missing")] = Path(".cache/bench-venv"),
    out: Annotated[Path, typer.Option(help="JSON file")] = Path("bench-peers.json"),
) -> None:
    """Do the same jobs with this engine and with TRL: 22 M-parameter Qwen3, LoRA of rank 16, float32."""
    for option, path in (("--pairs", pairs), ("--prompts", prompts)):
        if not path.is_file():
            raise typer.BadParameter(
                f"there is no file {path}; the data is not part of this repository", param_hint=option
            )
    with tempfile.TemporaryDirectory() as name:
        todo = [_job(kind.strip(), name, steps, threads) for kind in jobs.split(",")]
        rows = max(job.batch * job.all_steps for job in todo)
        compare.prepare(Path(name), pairs=pairs, prompts=prompts, rows=rows, max_length=todo[0].max_length)
        try:
            figures, raw = compare.compare(todo, venv, blocks)
        except (NoPeer, compare.JobFailed) as error:
            typer.echo(str(error), err=True)
            raise typer.Exit(1) from None
    table = Table("what", "mint_lab", "TRL", "ratio (quartiles)", "target", title="mint_lab beside TRL")
    for f in figures:
        spread = f"{f.ratio:.2f}" + (f" ({f.low:.2f} to {f.high:.2f})" if f.low < f.high else "")
        table.add_row(f.what, f.ours, f.theirs, spread, f"{f.target:g} {'yes' if f.met else 'no'}" if f.target else "")
    Console(width=150).print(table)
    _write(out, {"machine": platform.machine(), "figures": [vars(f) for f in figures], "raw": raw})


def _job(name: str, folder: str, steps: int, threads: int) -> Job:
    kinds: dict[str, tuple[Kind, dict[str, int]]] = {
        "preference": ("preference", {}),
        "sft": ("sft", {}),
        "sft-packed": ("sft", {"packed": True}),
        "rl": ("rl", {}),
        "rl-micro": ("rl", {"micro": 8}),
    }
    if name not in kinds:
        raise typer.BadParameter(f"{name!r} is none of {', '.join(kinds)}", param_hint="--jobs")
    kind, more = kinds[name]
    return Job(kind, folder, steps, threads=threads, **more)


def _write(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app()
