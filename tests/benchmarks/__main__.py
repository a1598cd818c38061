"""``python -m tests.benchmarks``: the engine against plain methods; ``... peers``: against TRL; ``... agree``: the
results of a whole training against TRL's; ``... scaling``: cost against size; ``... page``: cost of a page;
``... soak``: memory over a long training.

Each prints one table and writes a JSON file with all measurements behind it.
"""

from __future__ import annotations

import json
import platform
import shutil
import tempfile
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import torch
import typer
from rich.console import Console
from rich.table import Table

from . import engine, memory, serving
from . import page as page_costs
from . import scaling as cost_curves
from .peers import compare
from .peers.agreement import Training, agreement
from .peers.environment import NoPeer
from .peers.jobs import Job, Kind

__all__ = ["agree", "app", "main", "page", "peers", "scaling", "soak"]

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
    """Measure what each optimization of the engine gains on this machine."""
    if context.invoked_subcommand:
        return
    torch.set_num_threads(threads)
    rows = [
        *engine.custom_against_builtin(rounds, pairs),
        *engine.packed_against_padded(rounds, pairs),
        *engine.run_against_calls(rounds, pairs),
        *engine.run_with_snapshots(rounds, pairs),
        *engine.rl_step_against_update(rounds),
        *serving.served_against_local(rounds, pairs),
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
    model: Annotated[Path | None, typer.Option(help="folder of a model; without it, 22 M-parameter Qwen3")] = None,
    batch: Annotated[int, typer.Option(help="pairs, sequences or prompts a step")] = 8,
    max_length: Annotated[int, typer.Option(help="longest sequence, tokens; longer pairs are left out")] = 512,
    steps: Annotated[int, typer.Option(help="timed steps a block")] = 4,
    blocks: Annotated[int, typer.Option(help="blocks of each side")] = 2,
    threads: Threads = 2,
    venv: Annotated[Path, typer.Option(help="TRL's environment, created if it is missing")] = Path(".cache/bench-venv"),
    out: Annotated[Path, typer.Option(help="JSON file")] = Path("bench-peers.json"),
) -> None:
    """Run the same jobs with this engine and with TRL: LoRA of rank 16, float32."""
    _check_files({"--pairs": pairs, "--prompts": prompts} | ({"--model": model / "config.json"} if model else {}))
    with tempfile.TemporaryDirectory() as name:
        sizes = {"steps": steps, "threads": threads, "batch": batch, "max_length": max_length}
        todo = [_job(kind.strip(), name, sizes) for kind in jobs.split(",")]
        rows = max(job.batch * job.all_steps for job in todo)
        make = engine.medium_model if model is None else partial(shutil.copytree, model, dirs_exist_ok=True)
        try:
            compare.prepare(Path(name), pairs=pairs, prompts=prompts, rows=rows, max_length=max_length, model=make)
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


@app.command()
def scaling(
    rounds: Annotated[int, typer.Option(help="measured rounds of each size")] = 7,
    threads: Threads = 2,
    out: Annotated[Path, typer.Option(help="JSON file; the picture is written beside it")] = Path("bench-scaling.json"),
) -> None:
    """Cost of a training pass against batch size, sequence length and group size: 22 M-parameter model."""
    torch.set_num_threads(threads)
    curves = cost_curves.measure(rounds)
    table = Table("cost of a pass against", "ms each", "ms to start", "R² of the line", title="mint_lab, scaling")
    for c in curves:
        table.add_row(c.name, f"{1000 * c.slope:.3g}", f"{1000 * c.start:.3g}", f"{c.r2:.4f}")
    Console(width=120).print(table)
    cost_curves.draw(curves, out.with_suffix(".png"))
    _write(out, {"machine": platform.machine(), "threads": threads, "curves": cost_curves.as_rows(curves)})


@app.command()
def page(
    seconds: Annotated[float, typer.Option(help="how long the browser is watched")] = 20.0,
    rounds: Annotated[int, typer.Option(help="rounds of training with a page and without")] = 6,
    parts: Annotated[str, typer.Option(help="which, of bytes, tasks, left, speed")] = "bytes,tasks,left,speed",
    out: Annotated[Path, typer.Option(help="JSON file")] = Path("bench-page.json"),
) -> None:
    """Measure a page: bytes, the browser's main thread, what a closed view leaves, and the speed of training."""
    measures = {
        "bytes": page_costs.bytes_of_an_update,
        "tasks": lambda: page_costs.in_the_browser(seconds),
        "left": page_costs.what_is_left,
        "speed": lambda: page_costs.page_and_headless(rounds),
    }
    wanted = [name.strip() for name in parts.split(",")]
    if unknown := set(wanted) - set(measures):
        raise typer.BadParameter(f"{sorted(unknown)[0]!r} is none of {', '.join(measures)}", param_hint="--parts")
    figures = [figure for name in wanted for figure in measures[name]()]
    table = Table("what", "found", "target", title="mint_lab, the page")
    for f in figures:
        found = f"{f.value:,.0f}" if abs(f.value) >= 100 else f"{f.value:.3g}"
        table.add_row(f.what, f"{found} {f.unit}", f"{f.target} {'yes' if f.met else 'no'}" if f.target else "")
    Console(width=120).print(table)
    _write(out, {"machine": platform.machine(), "figures": [vars(f) for f in figures]})


@app.command()
def soak(
    minutes: Annotated[float, typer.Option(help="train one workbench for at least so long")] = 60.0,
    steps: Annotated[int, typer.Option(help="and for at least so many steps")] = 10_000,
    dropped: Annotated[int, typer.Option(help="instead, train so many workbenches and drop each")] = 0,
    out: Annotated[Path, typer.Option(help="JSON file")] = Path("bench-soak.json"),
) -> None:
    """Measure the memory that a long training takes, or that workbenches leave which were trained and dropped."""
    with tempfile.TemporaryDirectory() as name:
        if dropped:
            figures = memory.dropped(dropped, Path(name), typer.echo)
            raw: dict[str, object] = {}
        else:
            found = memory.soak(60 * minutes, steps, Path(name) / "run", typer.echo)
            figures, raw = memory.figures_of(found), {"points": found.points, "bytes": found.bytes}
    table = Table("what", "found", "target", title="mint_lab, memory")
    for f in figures:
        table.add_row(f.what, f"{f.value:,.2f} {f.unit}".strip(), f"{f.target} {'yes' if f.met else 'no'}")
    Console(width=120).print(table)
    _write(out, {"machine": platform.machine(), "figures": [vars(f) for f in figures], **raw})


@app.command()
def agree(  # noqa: PLR0917, a command's options
    model: Annotated[Path, typer.Option(help="folder of a model")],
    pairs: Annotated[Path, typer.Option(help="preference pairs: HH-RLHF's harmless-base test split, .jsonl.gz")],
    train: Annotated[int, typer.Option(help="pairs to train on, one epoch")] = 1000,
    held_out: Annotated[int, typer.Option(help="pairs to evaluate on")] = 200,
    seeds: Annotated[int, typer.Option(help="trainings of each side")] = 3,
    batch: Annotated[int, typer.Option(help="pairs a step")] = 8,
    max_length: Annotated[int, typer.Option(help="longest sequence, tokens; longer pairs are left out")] = 384,
    threads: Threads = 2,
    venv: Annotated[Path, typer.Option(help="TRL's environment, created if it is missing")] = Path(".cache/bench-venv"),
    folder: Annotated[Path, typer.Option(help="data and outcomes; a complete training is not repeated")] = Path(
        "agree"
    ),
) -> None:
    """Train DPO with this engine and with TRL, and compare the held-out results with the spread of the seeds."""
    _check_files({"--pairs": pairs, "--model": model / "config.json"})
    todo = [
        Training(str(model.absolute()), str(folder.absolute()), seed, train, batch, max_length, threads=threads)
        for seed in range(seeds)
    ]
    try:
        compare.prepare_training(
            folder, model=model, pairs=pairs, train=train, held_out=held_out, max_length=max_length
        )
        outcomes = compare.trainings(todo, venv, folder / "outcomes.jsonl", lambda outcome: typer.echo(repr(outcome)))
    except (NoPeer, compare.JobFailed) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None
    table = Table(
        "side, seed", "loss before", "loss", "accuracy", "margin", "minutes", "peak MB", title="Held-out pairs"
    )
    for o in outcomes:
        numbers = (o.loss_before, o.loss, o.accuracy, o.margin)
        table.add_row(f"{o.side}, {o.seed}", *(f"{n:.4f}" for n in numbers), f"{o.minutes:.1f}", f"{o.peak_mb:.0f}")
    means = Table("mean over seeds", "mint_lab", "TRL", "difference", "its standard error")
    for what, row in agreement(outcomes).items():
        means.add_row(what, *(f"{number:.4f}" for number in row.values()))
    for each in (table, means):
        Console(width=120).print(each)


def _check_files(given: dict[str, Path]) -> None:
    for option, path in given.items():
        if not path.is_file():
            raise typer.BadParameter(
                f"there is no file {path}; the data is not part of this repository", param_hint=option
            )


def _job(name: str, folder: str, sizes: dict[str, int]) -> Job:
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
    return Job(kind, folder, **sizes, **more)


def _write(path: Path, content: dict[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    app()
