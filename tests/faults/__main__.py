"""``python -m tests.faults``: end runs at random moments, continue them, and report how many are the same."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from .harness import calls_of, contents, cut_and_continue, kill_and_continue
from .jobs import JOBS

app = typer.Typer(add_completion=False)


@app.command()
def main(
    kills: Annotated[int, typer.Option(help="runs that are killed")] = 100,
    steps: Annotated[int, typer.Option(help="steps of each run")] = 30,
    cuts: Annotated[int, typer.Option(help="runs whose power is cut: what was not flushed is lost")] = 20,
    seed: Annotated[int, typer.Option(help="of the moments")] = 0,
) -> None:
    """End runs of every kind, each once, and compare the continued runs with runs that were never interrupted."""
    rng, failed = random.Random(seed), 0
    with tempfile.TemporaryDirectory() as scratch:
        references, calls = {}, {}
        for job in JOBS:
            folder = Path(scratch) / "reference" / job
            folder.mkdir(parents=True)
            calls[job] = calls_of(job, folder, steps)
            references[job] = contents(folder / "run")
        for number in range(kills + cuts):
            job, folder = list(JOBS)[number % len(JOBS)], Path(scratch) / str(number)
            if number < kills:
                outcome = kill_and_continue(job, folder, references[job], steps, rng)
            else:
                outcome = cut_and_continue(job, folder, references[job], steps, rng.randint(1, calls[job]))
            failed += bool(outcome.differences)
            how = "killed" if number < kills else "power cut"
            typer.echo(f"{number + 1:4} {job:10} {how} after record {outcome.killed_after:3}: ", nl=False)
            typer.echo("\n".join(outcome.differences) or "the same")
    total = kills + cuts
    typer.echo(f"{total - failed} of {total} continued runs are the same as runs that were never interrupted")
    if failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
