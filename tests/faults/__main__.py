"""``python -m tests.faults``: kill runs at random moments, continue them, and report how many are the same."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from .harness import contents, kill_and_continue, run_to_end
from .jobs import JOBS

app = typer.Typer(add_completion=False)


@app.command()
def main(
    kills: Annotated[int, typer.Option(help="runs that are killed")] = 100,
    steps: Annotated[int, typer.Option(help="steps of each run")] = 30,
    seed: Annotated[int, typer.Option(help="of the moments")] = 0,
) -> None:
    """Kill runs of every kind, each once, and compare the continued runs with runs that were never interrupted."""
    rng, failed = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as scratch:
        references = {}
        for job in JOBS:
            run_to_end(job, Path(scratch) / "reference" / job, steps)
            references[job] = contents(Path(scratch) / "reference" / job)
        for number in range(kills):
            job = list(JOBS)[number % len(JOBS)]
            outcome = kill_and_continue(job, Path(scratch) / str(number), references[job], steps, rng)
            failed += bool(outcome.differences)
            typer.echo(f"{number + 1:4} {job:10} killed after record {outcome.killed_after:3}: ", nl=False)
            typer.echo("\n".join(outcome.differences) or "the same")
    typer.echo(f"{kills - failed} of {kills} continued runs are the same as runs that were never interrupted")
    if failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
