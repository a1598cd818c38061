"""``make mutants PACKAGE=runs``: plants mistakes in a package, one at a time, and tells which of them its tests find.

Each mutant is tested in a copy of the repository under ``.cache/mutants``: the test file that mirrors the mutated
module first, then the rest of the package's tests, up to the first failure. A child process, forked after torch and
its relatives are imported, tests one mutant, so that a mutant costs no second import. Browser tests and lessons are
not run.

``mutmut`` and ``cosmic-ray`` have no operator for a lock, a mask, a ``detach`` or a statement of ``finally`` that is
left out. mutmut also replaces every function by a switch, which hides signatures and source lines from code that reads
them.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import random
import shutil
import subprocess
import sys
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from .operators import KINDS, Mutant, python_mutants
from .typescript import run_vitest, typescript_mutants

ROOT = Path(__file__).resolve().parents[2]
TREES = ROOT / ".cache" / "mutants"
LONGEST_TEST_SECONDS = 300  # a test that hangs has found its mutant
IMPORTED_ONCE = ("torch", "transformers", "peft", "pandas", "matplotlib.figure", "plotly", "IPython")
# Packages whose behaviour shows in the tests of another package, too.
USERS = {
    "engine": ["client"],
    "client": ["recipes"],
    "data": ["recipes"],
    "losses": ["client/test_training.py", "preflight"],
    "metrics": ["recipes"],
    "usercode": ["cells", "runs"],
    "preflight": ["cells"],
    "recipes": ["runs"],
    "charts": ["runs", "ui"],
    "runs": ["cells", "ui"],
    "tiny": ["engine"],
}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class Outcome(NamedTuple):
    """How the tests took a mutant."""

    path: str
    mutant: Mutant
    caught_by: str | None  # the first test that failed; None: the mutant survived
    seconds: float


@app.command()
def main(  # noqa: PLR0917, a command's options
    package: Annotated[str, typer.Argument(help="a package or module below mint_lab, or 'widgets' for the TypeScript")],
    count: Annotated[int, typer.Option(help="how many mutants")] = 40,
    seed: Annotated[int, typer.Option(help="which mutants")] = 0,
    only: Annotated[str, typer.Option(help="only files whose path contains this")] = "",
    kind: Annotated[str, typer.Option(help=f"only this kind: {', '.join(KINDS)}")] = "",
    jobs: Annotated[int, typer.Option(help="mutants at a time")] = 2,
    baseline: Annotated[bool, typer.Option(help="first run the tests without a mutant")] = True,
) -> None:
    """Plant ``count`` mistakes in ``package``; print a table of them and which test caught each."""
    chosen = sample(find(package, only, kind), count, seed)
    if not chosen:
        raise typer.BadParameter(f"no place for a mutant in {package!r} with only={only!r}, kind={kind!r}")
    console = Console(width=200, highlight=False)
    outcomes: list[Outcome] = []
    for outcome in run_all(package, chosen, jobs, baseline):
        outcomes.append(outcome)
        say(console, outcome)
    console.print(table(package, outcomes))


def find(package: str, only: str, kind: str) -> dict[str, list[Mutant]]:
    """All mutants of a package, by path; without those that change nothing, which ``equivalent.toml`` lists."""
    if package == "widgets":
        root, pattern, mutants = ROOT / "widgets" / "src", "*.ts", typescript_mutants
    else:
        root, pattern, mutants = ROOT / "mint_lab" / package, "*.py", python_mutants
    paths = [root.with_suffix(".py")] if root.with_suffix(".py").is_file() else sorted(root.rglob(pattern))
    listed = tomllib.loads((Path(__file__).parent / "equivalent.toml").read_text(encoding="utf-8"))["mutant"]
    equivalent = {(entry["file"], entry["code"], entry["before"], entry["after"]) for entry in listed}
    found: dict[str, list[Mutant]] = {}
    for path in paths:
        name = path.relative_to(ROOT).as_posix()
        if only not in name:
            continue
        source = path.read_text(encoding="utf-8")
        lines = source.split("\n")
        found[name] = [
            mutant
            for mutant in mutants(source)
            if kind in ("", mutant.kind)
            and (name, lines[mutant.line - 1].strip(), mutant.before, mutant.after) not in equivalent
        ]
    return found


def sample(found: dict[str, list[Mutant]], count: int, seed: int) -> list[tuple[str, Mutant]]:
    """``count`` mutants: the kinds take turns, and for each kind the files do."""
    rng = random.Random(seed)
    by_kind: dict[str, dict[str, list[Mutant]]] = defaultdict(lambda: defaultdict(list))
    for path, mutants in found.items():
        for mutant in mutants:
            by_kind[mutant.kind][path].append(mutant)
    queues = {kind: list(_in_turn(rng, paths)) for kind, paths in sorted(by_kind.items())}
    chosen: list[tuple[str, Mutant]] = []
    while len(chosen) < count and any(queues.values()):
        for queue in queues.values():
            while queue and len(chosen) < count:
                path, mutant = queue.pop(0)
                if mutant.compiles((ROOT / path).read_text(encoding="utf-8")):
                    chosen.append((path, mutant))
                    break
    return chosen


def _in_turn(rng: random.Random, paths: dict[str, list[Mutant]]) -> Iterator[tuple[str, Mutant]]:
    """Mutants of one kind: one of each file in random order, then the second of each, and so on."""
    names = rng.sample(sorted(paths), len(paths))
    shuffled = {name: rng.sample(paths[name], len(paths[name])) for name in names}
    for turn in range(max(map(len, shuffled.values()), default=0)):
        yield from ((name, shuffled[name][turn]) for name in names if turn < len(shuffled[name]))


def run_all(package: str, chosen: list[tuple[str, Mutant]], jobs: int, baseline: bool) -> Iterator[Outcome]:
    """Test the mutants, ``jobs`` at a time; with ``baseline``, after the tests have passed without any.

    Raises:
        typer.Exit: If a test fails without a mutant.
    """
    trees = [make_tree(TREES / f"{package.replace('/', '-')}-{number}") for number in range(jobs)]
    os.environ.update(HF_HUB_OFFLINE="1", TINKER_TELEMETRY="0", TOKENIZERS_PARALLELISM="false")  # read by imports
    if package != "widgets":
        for module in IMPORTED_ONCE:
            importlib.import_module(module)
    if baseline and (failed := wait_for(launch(package, trees[0], chosen[0][0]), trees[0])) is not None:
        Console(stderr=True).print(f"{failed} fails without a mutant; see {log(trees[0])}")
        raise typer.Exit(1)
    left, running = list(chosen), dict[int, tuple[Path, str, Mutant, float]]()
    while left or running:
        while left and trees:
            tree, (path, mutant) = trees.pop(), left.pop(0)
            source = (ROOT / path).read_text(encoding="utf-8")
            (tree / path).write_text(mutant.apply(source), encoding="utf-8")
            running[launch(package, tree, path)] = (tree, path, mutant, time.monotonic())
        pid, status = os.wait()
        tree, path, mutant, begun = running.pop(pid)
        shutil.copyfile(ROOT / path, tree / path)
        trees.append(tree)
        yield Outcome(path, mutant, failed_test(status, tree), time.monotonic() - begun)


def make_tree(tree: Path) -> Path:
    """A copy of the repository as it is, with the built page; an older copy is replaced."""
    shutil.rmtree(tree, ignore_errors=True)
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tree / name)
    for built in ("mint_lab/ui/static", "mint_lab/labextension"):
        shutil.copytree(ROOT / built, tree / built, dirs_exist_ok=True)
    (tree / "widgets" / "node_modules").symlink_to((ROOT / "widgets" / "node_modules").resolve())
    with contextlib.suppress(FileExistsError):
        (tree.parent / "shared").symlink_to(ROOT.parent / "shared")
    return tree


def files_to_run(package: str, path: str, tree: Path) -> list[str]:
    """The mirror of the module first, then the package's tests, then those of packages that use it."""
    module = Path(path)
    mirror = Path("tests", *module.parts[1:-1], f"test_{module.stem}.py")
    top = module.parts[1].removesuffix(".py")
    folders = [
        mirror.as_posix(),
        f"tests/{top}",
        f"tests/test_{top}.py",
        *(f"tests/{user}" for user in USERS.get(top, [])),
    ]
    return [name for name in folders if (tree / name).exists()]


def launch(package: str, tree: Path, path: str) -> int:
    """Start a child that runs the tests in ``tree``; return its process id."""
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    os.chdir(tree)
    output = os.open(log(tree), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1), os.dup2(output, 2)
    if package == "widgets":
        run_vitest(tree / "widgets", path)
    os.environ.update(PYTHONPATH=str(tree), PYTHONDONTWRITEBYTECODE="1", OMP_NUM_THREADS="1")
    for name in [name for name in sys.modules if name.split(".")[0] in {"tests", "mint_lab"}]:
        del sys.modules[name]
    sys.path.insert(0, str(tree))
    import pytest

    options = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not browser"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # some were imported before the fork
    options += [f"--timeout={LONGEST_TEST_SECONDS}", "--timeout-method=thread"]
    status = pytest.main([*options, *files_to_run(package, path, tree)])
    sys.stdout.flush()
    os._exit(int(status))


def log(tree: Path) -> Path:
    """The output of the tests in ``tree``."""
    return tree.with_suffix(".log")


def wait_for(pid: int, tree: Path) -> str | None:
    return failed_test(os.waitpid(pid, 0)[1], tree)


def failed_test(status: int, tree: Path) -> str | None:
    """The test that failed, or how the run of the tests ended otherwise; None if all passed."""
    if status == 0:
        return None
    lines = log(tree).read_text(encoding="utf-8", errors="replace").splitlines()
    failed = [line.split(" - ")[0] for line in lines if line.startswith(("FAILED ", "ERROR ", " FAIL "))]
    return failed[0].split(maxsplit=1)[1] if failed else f"ended with {os.waitstatus_to_exitcode(status)}"


def say(console: Console, outcome: Outcome) -> None:
    mutant = outcome.mutant
    verdict = f"caught by {outcome.caught_by}" if outcome.caught_by else "SURVIVED"
    before, after = (" ".join(part.split())[:70] for part in (mutant.before, mutant.after))
    line = f"{outcome.path}:{mutant.line}  {mutant.kind}  {before!r} -> {after!r}  {verdict}  ({outcome.seconds:.0f} s)"
    console.print(line, markup=False, soft_wrap=True)


def table(package: str, outcomes: list[Outcome]) -> Table:
    """One row for each kind, and a total."""
    rows = Table("kind", "planted", "caught", "share", title=f"mutants of {package}")
    for kind in [*sorted({outcome.mutant.kind for outcome in outcomes}), "all"]:
        of_kind = [outcome for outcome in outcomes if kind in ("all", outcome.mutant.kind)]
        caught = sum(outcome.caught_by is not None for outcome in of_kind)
        rows.add_row(kind, str(len(of_kind)), str(caught), f"{caught / len(of_kind):.0%}")
    return rows


if __name__ == "__main__":
    app()
