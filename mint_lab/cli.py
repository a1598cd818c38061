"""``mint-lab``: training, the lessons and JupyterLab from a terminal.

An error that a person can fix is one line and exit code 1; an interrupt is exit code 130.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import importlib.metadata
import json
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from .errors import ConfigError, MintLabError

if TYPE_CHECKING:
    from rich.console import Console

    from .charts.chart_spec import ChartSpec
    from .runs.run import Run

__all__ = ["app", "demo_report", "notebooks_dir"]

F = TypeVar("F", bound=Callable[..., Any])

app = typer.Typer(
    help="Write a training loss, watch a language model learn with it, on this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
EXTRA_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True}
FIRST_LESSON = "01_first_run.ipynb"
POLL_SECONDS = 0.2  # between two updates of the progress bar
STOP_SECONDS = 10  # that an interrupted run may take to stop
CHECKOUT_NOTEBOOKS = Path(__file__).parents[1] / "notebooks"


def _one_line_errors(command: F) -> F:
    """Turn errors of this package into one line and exit code 1; any other error is a bug and keeps its traceback."""

    @functools.wraps(command)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except MintLabError as error:
            typer.echo(f"mint-lab: {' '.join(str(error).split())}", err=True)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            typer.echo("mint-lab: interrupted", err=True)
            raise typer.Exit(130) from None

    return wrapped  # type: ignore[return-value]


@app.command()
@_one_line_errors
def demo(
    *,
    loss: Annotated[str | None, typer.Option(help="Name of a loss; default: the recipe's.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the adapter's initial weights and the data order.")] = 0,
    recipe: Annotated[
        str, typer.Option(help="Name of a recipe: preference, sft, rl, unpaired, or an installed one.")
    ] = "preference",
    options: Annotated[
        list[str] | None, typer.Option("--option", "-o", metavar="NAME=VALUE", help="Option of the recipe; repeatable.")
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", dir_okay=False, help="Write the result here.")] = None,
    folder: Annotated[Path | None, typer.Option(help="Record the run here.")] = None,
) -> None:
    """Train the bundled model and report held-out metrics before and after."""
    from rich.console import Console

    from .runs.run import Run

    console = Console()
    with contextlib.ExitStack() as stack:
        run_folder = folder or Path(stack.enter_context(tempfile.TemporaryDirectory())) / "run"
        run = Run(recipe, loss, steps=steps, seed=seed, folder=run_folder, **_recipe_options(options or []))
        if json_file is not None:  # fail before the training, not after it
            _check_writable(json_file)
        _train(run, console)
        report = demo_report(run)
    _print_report(report, console)
    for note in run.notes:
        console.print(f"note: {note}", markup=False, highlight=False)
    if json_file is not None:
        json_file.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


@app.command()
@_one_line_errors
def resume(
    folder: Annotated[Path, typer.Argument(help="Folder of the run.", file_okay=False)],
    steps: Annotated[int | None, typer.Option(min=1, help="Optimizer steps in total; default: the run's.")] = None,
    run_source: Annotated[
        bool, typer.Option("--run-source", help="Execute the stored source of a custom loss or reward.")
    ] = False,
) -> None:
    """Continue a run from its last snapshot, and report held-out metrics before and after."""
    from rich.console import Console

    from .runs.run import Run

    console = Console()
    run = Run.open(folder, run_source=run_source)
    if steps is not None:
        run.set(steps=steps)
    _train(run, console)
    _print_report(demo_report(run), console)
    for note in run.notes:
        console.print(f"note: {note}", markup=False, highlight=False)


@app.command()
@_one_line_errors
def runs(
    folder: Annotated[Path, typer.Argument(help="Folder of run folders.", file_okay=False)] = Path("runs"),
    tag: Annotated[str | None, typer.Option(help="List only runs with this tag.")] = None,
) -> None:
    """List the runs of a folder, the one that was written last first."""
    from rich.console import Console
    from rich.table import Table

    from .runs.folder import RunFolder

    table = Table(*("run", "recipe", "losses", "status", "steps", "held-out", "tags", "description"))
    for run in RunFolder(folder).list():
        if tag is not None and tag not in run.tags:
            continue
        held_out = f"{run.main} {run.curve[-1]:.4g}" if run.curve else ""
        steps = f"{run.steps}/{run.steps_total}" if run.steps_total else str(run.steps)
        cells = (run.name, run.recipe, ", ".join(run.losses), run.status, steps, held_out, ", ".join(run.tags))
        table.add_row(*cells, run.description or run.problem)
    Console().print(table if table.rows else f"no run in {folder}", markup=False, highlight=False)


@app.command()
@_one_line_errors
def serve(
    *,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for a free one.")] = 8321,
    host: Annotated[str, typer.Option(help="Address to listen on; others than loopback require --key.")] = "127.0.0.1",
    key: Annotated[
        list[str] | None,
        typer.Option(help="Key of clients, tml-...; repeatable, each with its own checkpoints. Default: a random one."),
    ] = None,
    model: Annotated[
        list[str] | None, typer.Option(help="Base model that clients may use; repeatable. Default: mint-tiny.")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option(help="Keep checkpoints and the key here. Default: ~/.mint_lab/server.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cuda, mps or cpu; default: the best one.")] = None,
    dtype: Annotated[str | None, typer.Option(help="Of the frozen weights: float32 or bfloat16.")] = None,
    max_batch_tokens: Annotated[int | None, typer.Option(min=1, help="Largest micro-batch, tokens.")] = None,
    max_request_mb: Annotated[int, typer.Option(min=1, max=4096, help="Largest request, MiB.")] = 64,
    idle_minutes: Annotated[
        float, typer.Option(min=1, help="A client that is silent for so long loses its models.")
    ] = 60,
) -> None:
    """Serve the trainer to the Tinker SDK in other notebooks, on this machine or on others."""
    from .server.serve import ServerSettings, default_folder
    from .server.serve import serve as run_server

    settings = ServerSettings(
        folder=default_folder() if folder is None else folder.expanduser().absolute(),
        keys=key or [],
        models=list(dict.fromkeys(model or ["mint-tiny"])),
        device=device,
        dtype=dtype,
        max_batch_tokens=max_batch_tokens,
        max_request_bytes=max_request_mb << 20,
        idle_seconds=60 * idle_minutes,
    )
    run_server(settings, host, port, say=lambda line: print(line, flush=True))


def _recipe_options(given: Sequence[str]) -> dict[str, Any]:
    """Return options of a recipe from ``NAME=VALUE`` texts; a value that is not a Python literal is a text.

    Raises:
        ConfigError: If a text has another form.
    """
    options: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"--option {text!r}: expected NAME=VALUE, for example group_size=4")
        try:
            options[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[name] = value
    return options


def demo_report(run: Run) -> dict[str, Any]:
    """Return what ``demo --json`` writes.

    ``before`` and ``after`` are held-out metrics; ``seconds`` is the time of training, without loading.
    """
    from .charts.overlay import ordered_metrics
    from .runs.versions import versions

    records = run.records
    evaluation = {"evaluation": run.evaluation} if run.evaluation else {}
    after = next((r.held_out for r in reversed(records) if r.held_out), {})
    names = ordered_metrics({**run.baseline, **after}, _charts(run))
    return {
        "recipe": run.recipe,
        "loss": run.loss.name,
        "base_model": run.base_model,
        "seed": run.seed,
        "steps": run.steps_done,
        "seconds": round(run.seconds, 3),
        "steps_per_s": round(run.steps_done / max(run.seconds, 1e-9), 2),
        "tokens_per_s": round(sum(r.tokens for r in records) / max(run.seconds, 1e-9), 1),
        "before": {n: run.baseline[n] for n in names if n in run.baseline},
        "after": {n: after[n] for n in names if n in after},
        **evaluation,
        "settings": run.settings,
        "versions": versions(),
    }


def _charts(run: Run) -> tuple[ChartSpec, ...]:
    from .charts.chart_spec import charts_of
    from .recipes.registry import recipe_of

    return charts_of(recipe_of(run.recipe).charts)


def _train(run: Run, console: Console) -> None:
    """Run to the end, with a progress bar if there is a terminal. An interrupt stops the run and propagates."""
    changed = threading.Event()
    dispose = run.subscribe(changed.set)
    try:
        with console.status("loading the model and the data") if console.is_terminal else contextlib.nullcontext():
            run.prepare()
        with _progress(run, console) as show:
            run.start()
            while run.status == "running":
                changed.wait(POLL_SECONDS)
                changed.clear()
                show()
            show()
        run.wait()
    except KeyboardInterrupt:
        run.stop().wait(STOP_SECONDS, check=False)
        raise
    finally:
        dispose()


@contextlib.contextmanager
def _progress(run: Run, console: Console) -> Generator[Callable[[], None]]:
    """Show a progress bar; yield a function that updates it."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    if not console.is_terminal:
        yield lambda: None
        return
    bar = BarColumn(bar_width=20)
    free_columns = console.width - 20 - len(f" {run.steps_total}/{run.steps_total}  0:00:00 ")
    charts = _charts(run)
    with Progress(
        bar, MofNCompleteColumn(), TextColumn("{task.fields[numbers]}"), TimeElapsedColumn(), console=console
    ) as progress:
        task = progress.add_task(run.loss.name, total=run.steps_total, numbers="")

        def show() -> None:
            records = run.records
            numbers = _numbers(records[-1].metrics, charts, free_columns) if records else ""
            progress.update(task, completed=len(records), numbers=numbers)

        yield show


def _numbers(metrics: dict[str, float], charts: Sequence[ChartSpec], columns: int) -> str:
    """Return as many metrics of a training batch, in the order of the charts, as fit into ``columns``."""
    text = ""
    for name in (name for chart in charts for name in chart.metrics if name in metrics):
        longer = f"{text}  {name} {metrics[name]:.3g}".lstrip()
        if len(longer) > columns:
            break
        text = longer
    return text


def _print_report(report: dict[str, Any], console: Console) -> None:
    from rich.markup import escape
    from rich.table import Table

    from .metrics.registry import metric

    answers = f", {report['evaluation']} answers" if "evaluation" in report else ""
    table = Table(title=f"{report['loss']}, held-out data{answers}", title_justify="left")
    table.add_column("")
    for column in ("before", "after"):
        table.add_column(column, justify="right")
    table.add_column("unit")
    for name in {**report["before"], **report["after"]}:
        numbers = [f"{report[when][name]:.3f}" if name in report[when] else "" for when in ("before", "after")]
        spec = metric(name)
        table.add_row(escape(name), *numbers, spec.unit if spec is not None else "")
    console.print(table)
    console.print(
        f"{report['steps']} steps in {report['seconds']:.1f} s "
        f"({report['steps_per_s']:g} steps/s, {report['tokens_per_s']:,.0f} tokens/s)",
        highlight=False,
    )


def _check_writable(file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8"):
            pass
    except OSError as error:
        raise ConfigError(f"cannot write {file}: {error.strerror}") from error


@app.command(context_settings=EXTRA_ARGUMENTS)
@_one_line_errors
def lab(context: typer.Context) -> None:
    """Open JupyterLab on the lessons; further arguments are passed to JupyterLab."""
    import importlib.util

    if importlib.util.find_spec("jupyterlab") is None:
        raise ConfigError("JupyterLab is not installed; install it with: pip install 'mint_lab[notebook]'")
    folder = notebooks_dir()
    if folder != CHECKOUT_NOTEBOOKS:  # the installed lessons stay unchanged, so a person works on copies
        folder = _copy_notebooks(folder, Path("mint-lab-notebooks"), replace=False, missing_only=True)
    command = [sys.executable, "-m", "jupyterlab", str(folder / FIRST_LESSON), *context.args]
    raise typer.Exit(subprocess.call(command))


@app.command()
@_one_line_errors
def notebooks(
    folder: Annotated[Path, typer.Argument(help="Folder for the copies.", file_okay=False)],
    force: Annotated[bool, typer.Option("--force", help="Replace existing notebooks.")] = False,
) -> None:
    """Copy the lessons into a folder."""
    source = notebooks_dir()
    _copy_notebooks(source, folder, replace=force, missing_only=False)
    typer.echo(f"{len(list(source.glob('*.ipynb')))} notebooks in {folder}")


def notebooks_dir() -> Path:
    """Return the folder of the lessons: ``notebooks/`` of a checkout, otherwise the installed JupyterLab extension.

    The wheel contains the lessons once, in the extension, whose launcher also copies them. The extension is installed
    outside the package; the list of installed files gives its location.

    Raises:
        ConfigError: If this installation contains no lessons.
    """
    if (CHECKOUT_NOTEBOOKS / FIRST_LESSON).is_file():
        return CHECKOUT_NOTEBOOKS
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        for file in importlib.metadata.files("mint_lab") or []:
            if file.name == FIRST_LESSON and (path := Path(str(file.locate())).resolve()).is_file():
                return path.parent
    raise ConfigError("this installation has no lessons; install mint_lab from its wheel, or clone its repository")


def _copy_notebooks(source: Path, folder: Path, *, replace: bool, missing_only: bool) -> Path:
    """Copy the lessons from ``source`` and return ``folder``.

    Args:
        source: Folder of the lessons.
        folder: Folder for the copies.
        replace: Replace existing files.
        missing_only: Keep existing files, and copy the others.

    Raises:
        ConfigError: If files exist and neither is set, or the folder cannot be written.
    """
    files = sorted(source.glob("*.ipynb"))
    existing = [f.name for f in files if (folder / f.name).exists()]
    if existing and not (replace or missing_only):
        raise ConfigError(f"{folder} already has {', '.join(existing)}; --force replaces them")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file in files:
            if replace or file.name not in existing:
                shutil.copyfile(file, folder / file.name)
    except OSError as error:
        raise ConfigError(f"cannot write to {folder}: {error.strerror}") from error
    return folder


@app.command("build-tiny", context_settings=EXTRA_ARGUMENTS)
@_one_line_errors
def build_tiny(context: typer.Context) -> None:
    """Pretrain the bundled model again; further arguments are passed to the builder."""
    raise typer.Exit(subprocess.call([sys.executable, "-m", "mint_lab.tiny.build", *context.args]))


if __name__ == "__main__":
    app()
